package openshift

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	securityv1 "github.com/openshift/api/security/v1"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"

	"github.com/istio-os-init/istio-os-init/test/internal/chart"
	"github.com/istio-os-init/istio-os-init/test/internal/controlplane"
	"github.com/istio-os-init/istio-os-init/test/internal/openshiftapi"
	"github.com/istio-os-init/istio-os-init/test/openshift/admission"
)

// The other tests ask admission in this process, about pods as they are rendered. Those named TestOnAnAPIServer… have a Kubernetes API
// server ask it, about pods that helm and Kubernetes' own controllers create.

// cleanUp is the name of what the hooks of uninstall create.
const cleanUp = chart.Release + "-clean-up"

func TestMain(m *testing.M) {
	code := m.Run()
	controlplane.Stop()
	os.Exit(code)
}

// cluster is a control plane that admits pods as OpenShift does, with a project in which the test is alone.
type cluster struct {
	*controlplane.Plane
	project string
}

// serveOpenShift makes the control plane that the tests share OpenShift's.
var serveOpenShift = sync.OnceValue(func() error {
	p, err := controlplane.Shared()
	if err != nil {
		return err
	}
	ctx := context.Background() // it ends with the tests
	if err := openshiftapi.Serve(ctx, p.Client.RESTClient(), time.Minute); err != nil {
		return err
	}
	return admission.Serve(ctx, p.Config)
})

func onAPIServer(t *testing.T, project string) cluster {
	t.Helper()
	c := cluster{controlplane.Start(t, "that an API server with OpenShift's admission lets a release be installed, upgraded, tested and uninstalled", "make test"), project}
	require.NoError(t, serveOpenShift())
	c.Namespace(t, project, admission.Namespace(project).Annotations)
	return c
}

// scc is the name of the SCC for pods of a name.
func (c cluster) scc(name string) string { return c.project + "." + name }

func TestOnAnAPIServerAReleaseIsInstalledUpgradedTestedAndUninstalledUnderItsOwnSCCs(t *testing.T) {
	t.Parallel()
	c := onAPIServer(t, "own")
	const signals = "signals: {nodeCondition: {enabled: true}}"
	c.Install(t, c.project, "{load: {enabled: false}, "+signals+"}")
	looking := c.RolledOut(t, c.project, chart.Release)
	c.requireUnder(t, c.scc(chart.Release), looking)

	// The new pods need capabilities that the SCC did not allow before.
	c.Install(t, c.project, "{"+signals+"}")
	loading := c.RolledOut(t, c.project, chart.Release)
	c.requireUnder(t, c.scc(chart.Release), loading)
	for _, node := range c.Nodes {
		require.NotEqual(t, looking[node.Name].UID, loading[node.Name].UID, "%s has the pod that it had", node.Name)
	}

	tested := c.helm(t, "test", chart.Release)
	pod := c.running(t, "the pod of helm test", "app.kubernetes.io/name="+chart.Release+"-test")
	c.requireUnder(t, c.scc(chart.Release), map[string]corev1.Pod{"": *pod})
	c.End(t, pod)
	output, err := tested()
	require.NoError(t, err, output)
	require.Contains(t, output, "Succeeded")
	// As docs/uses.md says: no uninstall deletes the pod of helm test.
	require.NoError(t, c.Client.CoreV1().Pods(c.project).Delete(t.Context(), pod.Name, metav1.DeleteOptions{}))

	installed := c.objects(t)
	for _, kind := range []string{"securitycontextconstraints", "clusterroles", "validatingadmissionpolicies", "daemonsets", "pods", "rolebindings", "secrets"} {
		require.True(t, slices.ContainsFunc(installed, func(object string) bool { return strings.HasPrefix(object, kind+"/") }), "no %s", kind)
	}
	c.uninstall(t, c.scc(cleanUp))
}

func TestOnAnAPIServerAnSCCThatNoLongerAllowsACapabilityKeepsTheNextPodOut(t *testing.T) {
	t.Parallel()
	c := onAPIServer(t, "tightened")
	c.Install(t, c.project, "")
	c.RolledOut(t, c.project, chart.Release)

	sccs := c.dynamic(t).Resource(securityv1.GroupVersion.WithResource("securitycontextconstraints"))
	allow := func(capabilities string) {
		_, err := sccs.Patch(t.Context(), c.scc(chart.Release), types.MergePatchType, []byte(`{"allowedCapabilities":[`+capabilities+`]}`), metav1.PatchOptions{})
		require.NoError(t, err)
	}
	allow(`"SYS_CHROOT","NET_ADMIN","NET_RAW"`)
	node := c.Nodes[0].Name
	// Admission reads from a cache, so it may let one more pod in.
	require.NoError(t, controlplane.Eventually(t.Context(), func() bool {
		if pod, ok := c.Pods(t, c.project, chart.Release)[node]; ok {
			err := c.Client.CoreV1().Pods(c.project).Delete(t.Context(), pod.Name, metav1.DeleteOptions{})
			require.True(t, err == nil || apierrors.IsNotFound(err), "%v", err)
			return false
		}
		return slices.ContainsFunc(c.refusals(t, chart.Release), func(refusal string) bool {
			return strings.Contains(refusal, `capabilities.add: Invalid value: "SYS_MODULE": capability may not be added`)
		})
	}), "no event says so: %q", c.refusals(t, chart.Release))

	allow(`"SYS_MODULE","SYS_CHROOT","NET_ADMIN","NET_RAW"`)
	c.requireUnder(t, c.scc(chart.Release), c.RolledOut(t, c.project, chart.Release))
}

func TestOnAnAPIServerWithoutAnSCCEventsNameTheRefusalAndAGrantEndsIt(t *testing.T) {
	t.Parallel()
	c := onAPIServer(t, "refused")
	c.Install(t, c.project, "openshift: {scc: {create: false}}")
	c.requireRefused(t, chart.Release, `capabilities.add: Invalid value: "SYS_MODULE": capability may not be added`)

	uninstalled := c.helm(t, "uninstall", chart.Release)
	c.requireRefused(t, cleanUp, "runAsUser: Invalid value: 65534")
	// As if its five minutes were over.
	_, err := c.Client.BatchV1().Jobs(c.project).Patch(t.Context(), cleanUp, types.MergePatchType, []byte(`{"spec":{"activeDeadlineSeconds":1}}`), metav1.PatchOptions{})
	require.NoError(t, err)
	output, err := uninstalled()
	require.Error(t, err, output)
	require.Contains(t, output+err.Error(), "DeadlineExceeded")

	for _, account := range []string{chart.Release, cleanUp} {
		binding := admission.Allow("privileged", c.project, account)
		_, err := c.Client.RbacV1().RoleBindings(c.project).Create(t.Context(), binding, metav1.CreateOptions{})
		require.NoError(t, err)
	}
	c.requireUnder(t, "privileged", c.RolledOut(t, c.project, chart.Release))
	c.uninstall(t, "privileged")
}

// helm runs helm beside the test. The function that it returns waits for helm's end, and returns what it prints and its error.
func (c cluster) helm(t *testing.T, args ...string) func() (string, error) {
	t.Helper()
	chart.UseHelm(t)
	var output string
	var err error
	var helm sync.WaitGroup
	helm.Go(func() { output, err = c.Helm(t, c.project, args...) })
	t.Cleanup(helm.Wait)
	return func() (string, error) {
		helm.Wait()
		return output, err
	}
}

// uninstall runs helm uninstall and requires that the pods of its hooks are admitted under scc, and that nothing is left. In the place of
// what the Job does it waits for what the Job waits for: the cleaners.
func (c cluster) uninstall(t *testing.T, scc string) {
	t.Helper()
	uninstalled := c.helm(t, "uninstall", chart.Release)
	pod := c.running(t, "the pod of uninstall's Job", "batch.kubernetes.io/job-name="+cleanUp)
	hooks := c.RolledOut(t, c.project, cleanUp)
	hooks["Job"] = *pod
	c.requireUnder(t, scc, hooks)
	c.End(t, pod)
	output, err := uninstalled()
	require.NoError(t, err, output)
	var left []string
	require.NoError(t, controlplane.Eventually(t.Context(), func() bool {
		left = c.objects(t)
		return len(left) == 0
	}), "uninstall leaves %q", &left)
}

// running waits until a pod that the selector finds runs, and returns it.
func (c cluster) running(t *testing.T, what, selector string) (found *corev1.Pod) {
	t.Helper()
	require.NoError(t, controlplane.Eventually(t.Context(), func() bool {
		list, err := c.Client.CoreV1().Pods(c.project).List(t.Context(), metav1.ListOptions{LabelSelector: selector})
		require.NoError(t, err)
		for _, pod := range list.Items {
			if pod.Status.Phase == corev1.PodRunning {
				found = &pod
			}
		}
		return found != nil
	}), what)
	return found
}

// requireUnder requires that these pods were admitted under the SCC, for their service account.
func (c cluster) requireUnder(t *testing.T, scc string, pods map[string]corev1.Pod) {
	t.Helper()
	require.NotEmpty(t, pods)
	for where, pod := range pods {
		require.Equal(t, scc, pod.Annotations[securityv1.ValidatedSCCAnnotation], where)
		require.Equal(t, "serviceaccount", pod.Annotations[subjectAnnotation], where)
	}
}

// requireRefused waits for an event that says of a DaemonSet or Job, by its name, that no SCC admits its pods, with this detail.
func (c cluster) requireRefused(t *testing.T, name, detail string) {
	t.Helper()
	require.NoError(t, controlplane.Eventually(t.Context(), func() bool {
		return slices.ContainsFunc(c.refusals(t, name), func(refusal string) bool {
			return strings.Contains(refusal, "unable to validate against any security context constraint") && strings.Contains(refusal, detail)
		})
	}), "no event of %s says so: %q", name, c.refusals(t, name))
}

// refusals are the messages of the events by which controllers say that a pod of a DaemonSet or Job, by its name, is not created.
func (c cluster) refusals(t *testing.T, name string) (messages []string) {
	t.Helper()
	events, err := c.Client.CoreV1().Events(c.project).List(t.Context(), metav1.ListOptions{FieldSelector: "reason=FailedCreate,involvedObject.name=" + name})
	require.NoError(t, err)
	for _, event := range events.Items {
		messages = append(messages, event.Message)
	}
	return messages
}

func (c cluster) dynamic(t *testing.T) *dynamic.DynamicClient {
	t.Helper()
	config := rest.CopyConfig(c.Config)
	config.WarningHandler = rest.NoWarnings{} // of kinds that are deprecated
	client, err := dynamic.NewForConfig(config)
	require.NoError(t, err)
	return client
}

// objects are those of the release, of every kind that can be listed, as KIND/NAME: what is in the project, and what of the cluster's has its
// name. They do not include events, and what the project has without a release: its default service account, and what was granted.
func (c cluster) objects(t *testing.T) (found []string) {
	t.Helper()
	lists, err := c.Client.Discovery().ServerPreferredResources()
	require.NoError(t, err)
	client := c.dynamic(t)
	for _, list := range lists {
		version, err := schema.ParseGroupVersion(list.GroupVersion)
		require.NoError(t, err)
		for _, resource := range list.APIResources {
			if !slices.Contains(resource.Verbs, "list") || resource.Name == "events" {
				continue
			}
			all := client.Resource(version.WithResource(resource.Name))
			of := dynamic.ResourceInterface(all)
			if resource.Namespaced {
				of = all.Namespace(c.project)
			}
			objects, err := of.List(t.Context(), metav1.ListOptions{})
			require.NoError(t, err, resource.Name)
			for _, object := range objects.Items {
				name := object.GetName()
				switch {
				case !resource.Namespaced && !strings.HasPrefix(name, c.project+".") && !strings.HasSuffix(name, "-"+c.project):
				case resource.Name == "serviceaccounts" && name == "default", resource.Name == "rolebindings" && strings.HasPrefix(name, "system:openshift:scc:"):
				default:
					found = append(found, fmt.Sprintf("%s/%s", resource.Name, name))
				}
			}
		}
	}
	return found
}
