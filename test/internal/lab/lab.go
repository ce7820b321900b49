// Package lab is the only place in the suite that knows the lab: its cluster, its image, and how to wait for a release.
package lab

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gruntwork-io/terratest/modules/helm"
	"github.com/gruntwork-io/terratest/modules/k8s"
	"github.com/gruntwork-io/terratest/modules/logger"
	"github.com/gruntwork-io/terratest/modules/random"
	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/remotecommand"
	"sigs.k8s.io/yaml"

	"github.com/istio-os-init/istio-os-init/test/internal/chart"
)

// Patience is how long a release may take to settle on all nodes of the lab: as long as a busy machine needs for several at once, and
// longer where a node is a VM with an emulated processor.
var Patience = patience()

// Emulated is whether the lab has a VM whose processor is emulated.
func Emulated() bool { return Accelerator() == "tcg" }

// Accelerator is QEMU's that the lab's VM has: kvm or tcg; empty where there is no VM.
func Accelerator() string {
	accelerator, _ := os.ReadFile(filepath.Join(dir(), "vm", "accelerator"))
	return strings.TrimSpace(string(accelerator))
}

func patience() time.Duration {
	if Emulated() {
		return 8 * time.Minute
	}
	return 4 * time.Minute
}

// Selector finds the objects of a release, and of its pods those of the DaemonSet.
const Selector = "app.kubernetes.io/name=istio-os-init,app.kubernetes.io/instance=" + chart.Release

// Persisted is the file that load writes on a node, for the node's next boot.
const Persisted = "/etc/modules-load.d/istio-os-init.conf"

// Unprovable are values with which the proof fails on every node: Istio knows no such backend.
const Unprovable = "extraEnv: [{name: FORCE_IPTABLES_BINARY, value: none}]\n"

// OnOneNode returns the values of a release on the lab's first node: one is enough if every node does the same.
func OnOneNode(t *testing.T) string {
	t.Helper()
	return "nodeSelector: {kubernetes.io/hostname: " + Nodes(t)[0] + "}\n"
}

func dir() string {
	cache, err := os.UserCacheDir()
	if err != nil {
		return ""
	}
	return filepath.Join(cache, "istio-os-init", "lab")
}

// Values returns the values file that makes the chart use the lab's image.
func Values(t *testing.T) string {
	t.Helper()
	file := filepath.Join(dir(), "values.yaml")
	require.FileExists(t, file, "there is no lab: run scripts/lab/cluster, or make test, which does")
	return file
}

// MeshValues returns the values file that makes mesh-instance use the lab's image, by the globals that it shares with Istio's charts.
func MeshValues(t *testing.T) string {
	t.Helper()
	content, err := os.ReadFile(Values(t))
	require.NoError(t, err)
	var values struct{ Image map[string]string }
	require.NoError(t, yaml.Unmarshal(content, &values))
	own, global := map[string]string{}, map[string]string{}
	for key, to := range map[string]string{"hub": "hub", "tag": "tag", "pullPolicy": "imagePullPolicy"} {
		if value := values.Image[key]; value != "" {
			global[to] = value
		}
	}
	if name := values.Image["name"]; name != "" {
		own["name"] = name
	}
	image := map[string]any{"image": own}
	content, err = yaml.Marshal(map[string]any{"global": global, "istio-os-init": image, "edge": image})
	require.NoError(t, err)
	return chart.ValuesFile(t, string(content))
}

// Kubectl returns terratest's options for the lab's cluster and a namespace.
func Kubectl(t *testing.T, namespace string) *k8s.KubectlOptions {
	t.Helper()
	file := filepath.Join(dir(), "kubeconfig")
	require.FileExists(t, file, "there is no lab: run scripts/lab/cluster, or make test, which does")
	options := k8s.NewKubectlOptions("", file, namespace)
	options.Logger = logger.Discard
	return options
}

// Client returns a client of the lab's cluster.
func Client(t *testing.T) *kubernetes.Clientset {
	t.Helper()
	client, err := k8s.GetKubernetesClientFromOptionsContextE(t, t.Context(), Kubectl(t, ""))
	require.NoError(t, err)
	return client
}

// Nodes returns the names of the cluster's nodes, of which there are at least two.
func Nodes(t *testing.T) []string {
	t.Helper()
	nodes, err := Client(t).CoreV1().Nodes().List(t.Context(), metav1.ListOptions{})
	require.NoError(t, err)
	require.GreaterOrEqual(t, len(nodes.Items), 2, "the lab has a control plane and a worker")
	var names []string
	for _, node := range nodes.Items {
		names = append(names, node.Name)
	}
	return names
}

// Release is the chart, installed in a namespace of its own.
type Release struct {
	t         *testing.T
	client    *kubernetes.Clientset
	Namespace string
	// Helm is what manages it from now on.
	Helm chart.Helm
}

// testNamespace is how the namespace of every test's release begins.
const testNamespace = "test-"

// NewRelease makes a namespace for a release; both go when the test ends. On failure what the pods say is logged first.
func NewRelease(t *testing.T) *Release {
	t.Helper()
	r := &Release{t: t, client: Client(t), Namespace: testNamespace + strings.ToLower(random.UniqueID()), Helm: chart.Helm3}
	t.Cleanup(func() {
		ctx := context.WithoutCancel(t.Context()) // the test's own context ends before its clean-up
		if t.Failed() {
			t.Logf("pods of %s:\n%s", r.Namespace, r.describe(ctx))
		}
		r.end(ctx)
		_ = r.client.CoreV1().Namespaces().Delete(ctx, r.Namespace, metav1.DeleteOptions{})
	})
	return r
}

// end removes what a test has left of its release. The hooks, which need more pods than the release has, run only where there is more to
// remove than what load writes on a node that is a container: a node's condition, or what is on the VM.
func (r *Release) end(ctx context.Context) {
	uninstall := []string{chart.Release, "--ignore-not-found"}
	daemonSet, err := r.client.AppsV1().DaemonSets(r.Namespace).Get(ctx, chart.Release, metav1.GetOptions{})
	hooks := err == nil && slices.ContainsFunc(daemonSet.Spec.Template.Spec.InitContainers, func(c corev1.Container) bool { return c.Name == "signal" })
	if _, err := r.client.CoreV1().Nodes().Get(ctx, vmName, metav1.GetOptions{}); err == nil {
		hooks = true
	}
	if !hooks {
		uninstall = append(uninstall, "--no-hooks")
	}
	_, _ = helm.RunHelmCommandAndGetOutputContextE(r.t, ctx, r.options(), "uninstall", uninstall...)
	if !hooks {
		// not the nodes that the API has: there may be a thousand simulated ones
		_ = exec.CommandContext(ctx, "sh", "-c", `
for node in $(docker ps --filter label=io.x-k8s.kind.cluster=istio-os-init --format '{{.Names}}'); do
  docker exec "$node" sh -c "`+removePersisted(r.Namespace)+`"
done`).Run()
	}
}

// removePersisted is the command that removes load's file from a node, if a release of this namespace, a pattern of grep, has written it.
func removePersisted(namespace string) string {
	return "if grep -qs ' " + namespace + "/' " + Persisted + "; then rm " + Persisted + "; fi"
}

func (r *Release) options(values ...string) *helm.Options {
	options := r.Helm.Options(r.t, append([]string{Values(r.t)}, values...)...)
	options.KubectlOptions = Kubectl(r.t, r.Namespace)
	options.ExtraArgs = map[string][]string{"upgrade": {"--create-namespace"}}
	return options
}

// Upgrade installs or upgrades the release with values, a YAML document, on top of the lab's, and returns helm's error.
// It does not wait: helm 3's --wait passes with no ready pod where maxUnavailable allows it.
func (r *Release) Upgrade(values string) error {
	r.t.Helper()
	return r.UpgradeTo(chart.Path(), values)
}

// CreateNamespace makes the release's namespace ahead of the release, for pods that come before it.
func (r *Release) CreateNamespace() {
	r.t.Helper()
	_, err := r.client.CoreV1().Namespaces().Create(r.t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: r.Namespace}}, metav1.CreateOptions{})
	require.NoError(r.t, err)
}

// UpgradeTo is Upgrade with another chart, for tests that break a copy of ours, and with what helm may be told besides.
func (r *Release) UpgradeTo(path, values string, helmArgs ...string) error {
	r.t.Helper()
	options := r.options(chart.ValuesFile(r.t, values))
	options.ExtraArgs["upgrade"] = append(options.ExtraArgs["upgrade"], helmArgs...)
	return helm.UpgradeContextE(r.t, r.t.Context(), options, path, chart.Release)
}

// UpgradeChanged is Upgrade on one node with a change of the pod that no value makes, as ChangePod takes it. No pod is made of what the chart
// itself renders.
func (r *Release) UpgradeChanged(values, node, pod string) {
	r.t.Helper()
	require.NoError(r.t, r.Upgrade(values+"\nnodeSelector: {kubernetes.io/hostname: nowhere}\n"))
	r.ChangePod(pod)
	r.ChangePod(`{"nodeSelector": {"kubernetes.io/hostname": "` + node + `"}}`)
}

// ChangePod changes what the DaemonSet makes its pods of, as a platform does: pod is a strategic merge patch of their spec, as JSON.
func (r *Release) ChangePod(pod string) {
	r.t.Helper()
	patch := []byte(`{"spec": {"template": {"spec": ` + pod + `}}}`)
	_, err := r.client.AppsV1().DaemonSets(r.Namespace).Patch(r.t.Context(), chart.Release, types.StrategicMergePatchType, patch, metav1.PatchOptions{})
	require.NoError(r.t, err)
}

// Test runs `helm test --logs` and returns what helm prints, and its error.
func (r *Release) Test() (string, error) {
	r.t.Helper()
	return helm.RunHelmCommandAndGetOutputContextE(r.t, r.t.Context(), r.options(), "test", chart.Release, "--logs")
}

// Rollback returns the release to its revision before.
func (r *Release) Rollback() {
	r.t.Helper()
	require.NoError(r.t, helm.RollbackContextE(r.t, r.t.Context(), r.options(), chart.Release, ""))
}

// Uninstall removes the release.
func (r *Release) Uninstall() {
	r.t.Helper()
	require.NoError(r.t, helm.DeleteContextE(r.t, r.t.Context(), r.options(), chart.Release, true))
}

// UninstallSays removes the release and returns what helm prints.
func (r *Release) UninstallSays() string {
	r.t.Helper()
	output, err := r.TryUninstall()
	require.NoError(r.t, err, output)
	return output
}

// TryUninstall is UninstallSays with helm's error, and with what helm may be told besides.
func (r *Release) TryUninstall(helmArgs ...string) (string, error) {
	r.t.Helper()
	return helm.RunHelmCommandAndGetOutputContextE(r.t, r.t.Context(), r.options(), "uninstall", append([]string{chart.Release}, helmArgs...)...)
}

// Revision returns the number and the status of the release's newest revision, e.g. "3 deployed".
func (r *Release) Revision() string {
	r.t.Helper()
	revisions, err := r.client.CoreV1().Secrets(r.Namespace).List(r.t.Context(), metav1.ListOptions{LabelSelector: "owner=helm"})
	require.NoError(r.t, err)
	newest, status := 0, ""
	for _, revision := range revisions.Items {
		if number, err := strconv.Atoi(revision.Labels["version"]); err == nil && number > newest {
			newest, status = number, revision.Labels["status"]
		}
	}
	return fmt.Sprintf("%d %s", newest, status)
}

// Plan returns the plan that the cluster has, as text.
func (r *Release) Plan() string {
	r.t.Helper()
	configs, err := r.client.CoreV1().ConfigMaps(r.Namespace).List(r.t.Context(), metav1.ListOptions{LabelSelector: Selector})
	require.NoError(r.t, err)
	require.Len(r.t, configs.Items, 1, "that of a revision before is left")
	return configs.Items[0].Data["plan"]
}

// DaemonSet returns the release's DaemonSet as it is now.
func (r *Release) DaemonSet() *appsv1.DaemonSet {
	r.t.Helper()
	daemonSet, err := r.client.AppsV1().DaemonSets(r.Namespace).Get(r.t.Context(), chart.Release, metav1.GetOptions{})
	require.NoError(r.t, err)
	return daemonSet
}

// Pods returns the release's pods by the name of their node.
func (r *Release) Pods() map[string]corev1.Pod {
	r.t.Helper()
	list, err := r.client.CoreV1().Pods(r.Namespace).List(r.t.Context(), metav1.ListOptions{LabelSelector: Selector})
	require.NoError(r.t, err)
	pods := map[string]corev1.Pod{}
	for _, pod := range list.Items {
		if pod.DeletionTimestamp == nil {
			pods[pod.Spec.NodeName] = pod
		}
	}
	return pods
}

// WaitReady waits until every node of the cluster has a pod of the newest plan that is Ready.
func (r *Release) WaitReady() {
	r.t.Helper()
	r.WaitReadyOn(len(Nodes(r.t)))
}

// WaitReadyOn waits until so many nodes, of which there is at least one, and no others have a pod of the newest plan that is
// Ready. It asks the pods too: the DaemonSet's status follows them by seconds, and would still count one that has just become
// not Ready.
func (r *Release) WaitReadyOn(nodes int) {
	r.t.Helper()
	require.Positive(r.t, nodes)
	r.WaitFor("not every node is proven", func() bool {
		if !RolledOut(r.DaemonSet(), nodes) {
			return false
		}
		for _, pod := range r.Pods() {
			if !Ready(pod) {
				return false
			}
		}
		return true
	})
}

// RolledOut tells whether so many nodes, and no others, have a Ready pod of a DaemonSet's newest template.
func RolledOut(daemonSet *appsv1.DaemonSet, nodes int) bool {
	status, want := daemonSet.Status, int32(nodes)
	return status.ObservedGeneration == daemonSet.Generation && status.DesiredNumberScheduled == want &&
		status.UpdatedNumberScheduled == want && status.NumberReady == want && status.NumberAvailable == want
}

// WaitFor waits until a condition holds, and fails the test with what it is that did not come to be.
func (r *Release) WaitFor(otherwise string, condition func() bool) {
	r.t.Helper()
	deadline := time.Now().Add(Patience)
	for !condition() {
		require.True(r.t, time.Now().Before(deadline), "%s after %v:\n%s", otherwise, Patience, r.describe(r.t.Context()))
		time.Sleep(500 * time.Millisecond) // six tests at a time ask; what they ask for takes seconds
	}
}

// Log returns the log of one container of a pod, "" while it has none.
func (r *Release) Log(pod, container string) string {
	r.t.Helper()
	log, err := r.client.CoreV1().Pods(r.Namespace).GetLogs(pod, &corev1.PodLogOptions{Container: container}).DoRaw(r.t.Context())
	if err != nil {
		return "" // it waits to start, or the kubelet has removed it to run it again
	}
	return string(log)
}

// Ready tells whether a pod is Ready.
func Ready(pod corev1.Pod) bool {
	for _, condition := range pod.Status.Conditions {
		if condition.Type == corev1.PodReady {
			return condition.Status == corev1.ConditionTrue
		}
	}
	return false
}

// Ended is when a container that runs to its end has last ended well, as its pod's status says; zero where it has not.
func Ended(pod corev1.Pod, container string) time.Time {
	if ended := Status(pod, container).State.Terminated; ended != nil && ended.ExitCode == 0 {
		return ended.FinishedAt.Time
	}
	return time.Time{}
}

// Conclusions returns what the containers of a pod have said last, by their name: their termination messages. They are for people;
// Outcome is what tests ask.
func Conclusions(pod corev1.Pod) map[string]string {
	conclusions := map[string]string{}
	for _, status := range append(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses...) {
		for _, state := range []corev1.ContainerState{status.LastTerminationState, status.State} {
			if state.Terminated != nil {
				conclusions[status.Name] = strings.TrimSpace(state.Terminated.Message)
			}
		}
	}
	return conclusions
}

func (r *Release) describe(ctx context.Context) string {
	pods, err := r.client.CoreV1().Pods(r.Namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return err.Error()
	}
	var text strings.Builder
	for _, pod := range pods.Items {
		fmt.Fprintf(&text, "%s on %s: %s\n", pod.Name, pod.Spec.NodeName, pod.Status.Phase)
		for name, conclusion := range Conclusions(pod) {
			fmt.Fprintf(&text, "  %s: %s\n", name, conclusion)
		}
		for _, status := range append(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses...) {
			if waiting := status.State.Waiting; waiting != nil && waiting.Message != "" {
				fmt.Fprintf(&text, "  %s: %s: %s\n", status.Name, waiting.Reason, waiting.Message)
			}
		}
	}
	return text.String()
}

// RunPod runs a pod to its end in the release's namespace and returns how it ended and what it logged.
func (r *Release) RunPod(pod *corev1.Pod) (corev1.PodPhase, string) {
	r.t.Helper()
	return r.StartPod(pod)()
}

// StartPod is RunPod for pods that run at the same time: what it returns waits for the pod's end.
func (r *Release) StartPod(pod *corev1.Pod) (end func() (corev1.PodPhase, string)) {
	r.t.Helper()
	ctx, pods := r.t.Context(), r.client.CoreV1().Pods(r.Namespace)
	created, err := pods.Create(ctx, pod, metav1.CreateOptions{})
	require.NoError(r.t, err)
	return func() (corev1.PodPhase, string) {
		r.t.Helper()
		var phase corev1.PodPhase
		r.WaitFor("pod "+created.Name+" does not end", func() bool {
			now, err := pods.Get(ctx, created.Name, metav1.GetOptions{})
			require.NoError(r.t, err)
			phase = now.Status.Phase
			return phase == corev1.PodSucceeded || phase == corev1.PodFailed
		})
		log, err := pods.GetLogs(created.Name, &corev1.PodLogOptions{}).DoRaw(ctx)
		require.NoError(r.t, err)
		return phase, string(log)
	}
}

// IstioInit returns a pod with the command and the securityContext that Istio's injector gives to istio-init
// (files/injection-template.yaml of Istio 1.31), on one node. args: the arguments of istio-iptables; env: the mesh's
// proxyMetadata, as NAME, value, NAME, value.
func IstioInit(t *testing.T, node string, args []string, env ...string) *corev1.Pod {
	t.Helper()
	image := chart.RenderFiles(t, []string{Values(t)}).Container(t, "verify")
	container := corev1.Container{
		Name:            "istio-init",
		Image:           image.Image,
		ImagePullPolicy: image.ImagePullPolicy,
		Args:            append([]string{"istio-iptables"}, args...), // the image's entrypoint is pilot-agent
		SecurityContext: &corev1.SecurityContext{
			AllowPrivilegeEscalation: new(false),
			Privileged:               new(false),
			Capabilities:             &corev1.Capabilities{Add: []corev1.Capability{"NET_ADMIN", "NET_RAW"}, Drop: []corev1.Capability{"ALL"}},
			ReadOnlyRootFilesystem:   new(false),
			RunAsGroup:               new(int64(0)),
			RunAsNonRoot:             new(false),
			RunAsUser:                new(int64(0)),
		},
	}
	for i := 0; i+1 < len(env); i += 2 {
		container.Env = append(container.Env, corev1.EnvVar{Name: env[i], Value: env[i+1]})
	}
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "istio-init-"},
		Spec: corev1.PodSpec{
			NodeName:                      node,
			RestartPolicy:                 corev1.RestartPolicyNever,
			TerminationGracePeriodSeconds: new(int64(0)),
			AutomountServiceAccountToken:  new(false),
			Containers:                    []corev1.Container{container},
			Tolerations:                   []corev1.Toleration{{Operator: corev1.TolerationOpExists}},
		},
	}
}

// DeletePod deletes a pod and returns how long it took until the API has it no more.
func (r *Release) DeletePod(name string) time.Duration {
	r.t.Helper()
	ctx, pods := r.t.Context(), r.client.CoreV1().Pods(r.Namespace)
	start := time.Now()
	require.NoError(r.t, pods.Delete(ctx, name, metav1.DeleteOptions{}))
	r.WaitFor("pod "+name+" does not go", func() bool {
		_, err := pods.Get(ctx, name, metav1.GetOptions{})
		return apierrors.IsNotFound(err)
	})
	return time.Since(start)
}

// Config returns how to reach the lab's API server.
func Config(t *testing.T) *rest.Config {
	t.Helper()
	config, err := clientcmd.BuildConfigFromFlags("", Kubectl(t, "").ConfigPath)
	require.NoError(t, err)
	return config
}

// Exec runs a command in container watch of the release's pod on a node, as kubectl exec does, and returns what it prints.
func (r *Release) Exec(node string, command ...string) string {
	r.t.Helper()
	return r.ExecIn(node, "watch", command...)
}

// ExecIn is Exec in another container.
func (r *Release) ExecIn(node, container string, command ...string) string {
	r.t.Helper()
	output, err := r.TryExecIn(node, container, command...)
	require.NoError(r.t, err, output)
	return output
}

// TryExecIn is ExecIn for what may fail, if only because the container does not run just now.
func (r *Release) TryExecIn(node, container string, command ...string) (string, error) {
	r.t.Helper()
	pod, found := r.Pods()[node]
	if !found {
		return "", fmt.Errorf("no pod on %s", node)
	}
	options := &corev1.PodExecOptions{Container: container, Command: command, Stdout: true, Stderr: true}
	target := r.client.CoreV1().RESTClient().Post().Resource("pods").Namespace(r.Namespace).Name(pod.Name).SubResource("exec").
		VersionedParams(options, scheme.ParameterCodec).URL()
	executor, err := remotecommand.NewSPDYExecutor(Config(r.t), "POST", target)
	require.NoError(r.t, err)
	var output, errors bytes.Buffer
	err = executor.StreamWithContext(r.t.Context(), remotecommand.StreamOptions{Stdout: &output, Stderr: &errors})
	return output.String() + errors.String(), err
}

// Left returns every object in the release's namespace, of whatever kind, that is not Kubernetes' own.
func (r *Release) Left() []string {
	r.t.Helper()
	kinds, err := r.client.Discovery().ServerPreferredNamespacedResources()
	require.NoError(r.t, err)
	var left []string
	for _, group := range kinds {
		for _, kind := range group.APIResources {
			if kind.Name == "events" || !strings.Contains(strings.Join(kind.Verbs, " "), "list") {
				continue
			}
			names, err := r.names(group.GroupVersion, kind.Name)
			require.NoError(r.t, err)
			for _, name := range names {
				if own := kind.Name + "/" + name; own != "configmaps/kube-root-ca.crt" && own != "serviceaccounts/default" {
					left = append(left, own)
				}
			}
		}
	}
	return left
}

func (r *Release) names(groupVersion, resource string) ([]string, error) {
	root := "/apis/" + groupVersion
	if groupVersion == "v1" {
		root = "/api/v1"
	}
	var list metav1.PartialObjectMetadataList
	raw, err := r.client.RESTClient().Get().AbsPath(root, "namespaces", r.Namespace, resource).
		SetHeader("Accept", "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1").DoRaw(r.t.Context())
	if err == nil {
		err = json.Unmarshal(raw, &list)
	}
	var names []string
	for _, object := range list.Items {
		names = append(names, object.Name)
	}
	return names, err
}
