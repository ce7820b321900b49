package cluster

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/retry"

	"github.com/istio-os-init/istio-os-init/test/internal/chart"
	"github.com/istio-os-init/istio-os-init/test/internal/lab"
)

const (
	ourTaint = "startup-taint.cluster-autoscaler.kubernetes.io/istio-os-init"
	signals  = "signals: {nodeCondition: {enabled: true}, startupTaint: {remove: true}}\n"
)

// Not parallel, as all of these: they taint a node, or look at what every release may write to.
func TestATaintedNodeTakesNoWorkloadUntilItIsProvenAndTheNodeSaysWhy(t *testing.T) {
	client, node := lab.Client(t), worker(t)
	foreign := []corev1.Taint{
		{Key: "example.com/first", Effect: corev1.TaintEffectPreferNoSchedule},
		{Key: "example.com/last", Value: "x", Effect: corev1.TaintEffectPreferNoSchedule},
	}
	release := lab.NewRelease(t)
	release.CreateNamespace()
	setTaints(t, client, node, func([]corev1.Taint) []corev1.Taint {
		return []corev1.Taint{foreign[0], {Key: ourTaint, Effect: corev1.TaintEffectNoSchedule}, foreign[1]}
	})
	t.Cleanup(func() { setTaints(t, client, node, func([]corev1.Taint) []corev1.Taint { return nil }) })
	workload := startWorkload(t, release, node)
	scheduled := func() bool {
		pod, err := client.CoreV1().Pods(release.Namespace).Get(t.Context(), workload, metav1.GetOptions{})
		require.NoError(t, err)
		return pod.Spec.NodeName != ""
	}

	onNode := signals + "nodeSelector: {kubernetes.io/hostname: " + node + "}\n"
	require.NoError(t, release.Upgrade(onNode+"extraEnv: [{name: FORCE_IPTABLES_BINARY, value: none}]\n"))
	release.WaitFor("the node does not say that it cannot run the mesh", func() bool { return condition(t, node).Status == corev1.ConditionFalse })
	failed := condition(t, node)
	require.Equal(t, "RulesRejected", failed.Reason)
	require.Regexp(t, `^The kernel refuses istio-init's rules: .* Fix: `, failed.Message)
	require.Contains(t, keys(taints(t, node)), ourTaint)
	require.False(t, scheduled(), "a workload is on a node that cannot run the mesh")

	// others change taints all the time, before and behind ours
	churning, stop := context.WithCancel(t.Context())
	churned := make(chan int)
	go func() {
		rounds := 0
		for ; churning.Err() == nil; rounds++ {
			time.Sleep(200 * time.Millisecond)
			passing := corev1.Taint{Key: "example.com/passing", Value: strconv.Itoa(rounds), Effect: corev1.TaintEffectPreferNoSchedule}
			setTaints(t, client, node, func(now []corev1.Taint) []corev1.Taint {
				now = slices.DeleteFunc(now, func(taint corev1.Taint) bool { return taint.Key == passing.Key })
				return slices.Insert(now, rounds%2*len(now), passing)
			})
		}
		churned <- rounds
	}()
	// with every rule that verify may leave in the pod's network namespace, past which signal has to speak
	require.NoError(t, release.Upgrade(onNode+"mesh: {tproxy: true}\n"))
	defer func() {
		if t.Failed() {
			t.Logf("signal says:\n%s", release.Log(release.Pods()[node].Name, "signal"))
		}
	}()
	release.WaitFor("the taint stays", func() bool { return !slices.Contains(keys(taints(t, node)), ourTaint) })
	stop()
	t.Logf("the taint went while others changed %d times", <-churned)
	release.WaitFor("the workload does not come", scheduled)
	left := slices.DeleteFunc(taints(t, node), func(taint corev1.Taint) bool { return taint.Key == "example.com/passing" })
	require.Equal(t, foreign, left, "a foreign taint is lost")

	proven := condition(t, node)
	require.Equal(t, corev1.ConditionTrue, proven.Status)
	require.Equal(t, "RedirectionProven", proven.Reason)
	require.True(t, proven.LastTransitionTime.After(failed.LastTransitionTime.Time), "%v", proven.LastTransitionTime)

	t.Run("a pod that takes another one's place changes nothing", func(t *testing.T) {
		release.DeletePod(release.Pods()[node].Name)
		release.WaitReadyOn(1)
		release.WaitFor("the new pod has not said anything", func() bool {
			return condition(t, node).LastHeartbeatTime.After(proven.LastHeartbeatTime.Time)
		})
		now := condition(t, node)
		require.Equal(t, corev1.ConditionTrue, now.Status)
		require.Equal(t, proven.LastTransitionTime, now.LastTransitionTime)
	})

	t.Run("uninstall leaves no condition and no right", func(t *testing.T) {
		require.Regexp(t, `IstioReady is removed from (\d+) of (\d+) nodes\n`, release.UninstallSays())
		require.Empty(t, condition(t, node).Type)
		requireNothingClusterWide(t, release)
	})
}

func TestATokenOfOneNodesPodIsGoodForThatNodesConditionAndTaintOnly(t *testing.T) {
	release := lab.NewRelease(t)
	require.NoError(t, release.Upgrade(signals))
	release.WaitReady()
	client, own, other := lab.Client(t), lab.Nodes(t)[0], lab.Nodes(t)[1]
	foreign := corev1.Taint{Key: "example.com/foreign", Effect: corev1.TaintEffectPreferNoSchedule}
	setTaints(t, client, own, func(now []corev1.Taint) []corev1.Taint { return append(now, foreign) })
	t.Cleanup(func() {
		setTaints(t, client, own, func(now []corev1.Taint) []corev1.Taint {
			return slices.DeleteFunc(now, func(taint corev1.Taint) bool { return taint.Key == foreign.Key })
		})
	})
	release.WaitFor("the policy is not in force", func() bool {
		policy, err := client.AdmissionregistrationV1().ValidatingAdmissionPolicies().Get(t.Context(), "istio-os-init-"+release.Namespace, metav1.GetOptions{})
		require.NoError(t, err)
		return policy.Status.ObservedGeneration == policy.Generation && policy.Status.TypeChecking != nil
	})
	policy, err := client.AdmissionregistrationV1().ValidatingAdmissionPolicies().Get(t.Context(), "istio-os-init-"+release.Namespace, metav1.GetOptions{})
	require.NoError(t, err)
	require.Empty(t, policy.Status.TypeChecking.ExpressionWarnings)

	token := release.ExecIn(own, "signal", "cat", "/var/run/secrets/kubernetes.io/serviceaccount/token")
	pod := bearer(t, token)
	status := func(conditions string) string { return `{"status":{"conditions":[` + conditions + `]}}` }
	long := func(field string, length int) string {
		return status(`{"type":"IstioReady","status":"True","` + field + `":"` + strings.Repeat("x", length) + `"}`)
	}
	added := func(count int) string {
		return "[" + strings.Repeat(`{"op":"add","path":"/status/conditions/-","value":{"type":"IstioReady","status":"True"}},`, count-1) +
			`{"op":"add","path":"/status/conditions/-","value":{"type":"IstioReady","status":"True"}}]`
	}
	manager := release.Namespace + "/istio-os-init"
	const bounds = "may write one condition IstioReady, with status True, False or Unknown, a reason of 128 and a message of 1024 characters at most"
	for _, row := range []struct {
		name, node, subresource, patch, denied string
	}{
		{"its node's condition", own, "status", status(`{"type":"IstioReady","status":"True","message":"by the token"}`), ""},
		{"nothing at all", own, "status", `{}`, ""},
		{"the longest message", own, "status", long("message", 1024), ""},
		{"a message by which the node becomes too large to be written", own, "status", long("message", 1_500_000), bounds},
		{"a message of one character too many", own, "status", long("message", 1025), bounds},
		{"a reason of one character too many", own, "status", long("reason", 129), bounds},
		{"a status that is none", own, "status", status(`{"type":"IstioReady","status":"` + strings.Repeat("x", 100_000) + `"}`), bounds},
		{"two conditions of the type", own, "status", added(2), bounds},
		{"5,000 conditions of the type", own, "status", added(5000), bounds},
		{"another node's condition", other, "status", status(`{"type":"IstioReady","status":"False"}`), "may change only the node that its pod runs on"},
		{"another node's taints", other, "", `{"spec":{"taints":[]}}`, "may change only the node that its pod runs on"},
		{"another condition", own, "status", status(`{"type":"Ready","status":"False"}`), "may change no condition but IstioReady"},
		{"another condition removed", own, "status", status(`{"type":"DiskPressure","$patch":"delete"}`), "may change no condition but IstioReady"},
		{"capacity", own, "status", `{"status":{"capacity":{"cpu":"1"}}}`, "may change nothing of a node's status but its conditions"},
		{"a new field of the status", own, "status", `{"status":{"volumesInUse":["x"]}}`, "may change nothing of a node's status but its conditions"},
		{"a label", own, "", `{"metadata":{"labels":{"a":"b"}}}`, "may not change a node's metadata"},
		{"a label by the status", own, "status", `{"metadata":{"labels":{"a":"b"}}}`, "may not change a node's metadata"},
		{"an annotation by the status", own, "status", `{"metadata":{"annotations":{"a":"b"}}}`, "may not change a node's metadata"},
		{"unschedulable", own, "", `{"spec":{"unschedulable":true}}`, "may change nothing of a node's spec but its taints"},
		{"a foreign taint added", own, "", `{"spec":{"taints":[{"key":"example.com/foreign","effect":"PreferNoSchedule"},{"key":"x","effect":"NoSchedule"}]}}`, "may change no taint"},
		{"a foreign taint removed", own, "", `{"spec":{"taints":[]}}`, "may change no taint"},
		{"our taint added", own, "", `{"spec":{"taints":[{"key":"example.com/foreign","effect":"PreferNoSchedule"},{"key":"` + ourTaint + `","effect":"NoExecute"}]}}`, "may change no taint"},
	} {
		t.Run(row.name, func(t *testing.T) {
			kind := types.StrategicMergePatchType
			if strings.HasPrefix(row.patch, "[") {
				kind = types.JSONPatchType
			}
			requireDenied(t, patchNode(t, pod, manager, row.node, kind, row.patch, row.subresource), row.denied)
		})
	}

	t.Run("under the names of many field managers, each of which the node would remember", func(t *testing.T) {
		for _, name := range []string{"", "another"} {
			requireDenied(t, patchNode(t, pod, name, own, types.StrategicMergePatchType, `{}`, "status"), "may write only as field manager "+manager)
		}
	})

	t.Run("what RBAC does not give", func(t *testing.T) {
		for what, err := range map[string]error{
			"delete a node": pod.CoreV1().Nodes().Delete(t.Context(), own, metav1.DeleteOptions{DryRun: []string{"All"}}),
			"list nodes":    second(pod.CoreV1().Nodes().List(t.Context(), metav1.ListOptions{})),
			"list pods":     second(pod.CoreV1().Pods(release.Namespace).List(t.Context(), metav1.ListOptions{})),
			"list secrets":  second(pod.CoreV1().Secrets(release.Namespace).List(t.Context(), metav1.ListOptions{})),
		} {
			require.True(t, apierrors.IsForbidden(err), "%s: %v", what, err)
		}
	})

	t.Run("the page's command removes what nobody keeps", func(t *testing.T) {
		page, err := os.ReadFile(filepath.Join(chart.Path(), "docs", "signals.md"))
		require.NoError(t, err)
		command := regexp.MustCompile("(?m)^kubectl patch node NODE .*$").FindString(string(page))
		require.NotEmpty(t, condition(t, own).Type)
		lab.Shell(t, strings.ReplaceAll(command, "NODE", own))
		require.Empty(t, condition(t, own).Type)
	})

	t.Run("a token of the same account that is bound to no pod", func(t *testing.T) {
		unbound, err := client.CoreV1().ServiceAccounts(release.Namespace).CreateToken(t.Context(), chart.Release, &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
		require.NoError(t, err)
		requireDenied(t, patchNode(t, bearer(t, unbound.Status.Token), manager, own, types.StrategicMergePatchType, `{}`, "status"), "may change only the node that its pod runs on")
	})
}

// Its token exists only while helm uninstall runs, and is not bound to a node.
func TestTheTokenOfUninstallIsGoodForTheRemovalOfConditionsOnly(t *testing.T) {
	release := lab.NewRelease(t)
	release.CreateNamespace()
	client, node := lab.Client(t), lab.Nodes(t)[0]
	hooks := chart.Render(t, "signals: {nodeCondition: {enabled: true}}", "--namespace", release.Namespace).Hooks
	ctx := context.WithoutCancel(t.Context())
	account, err := client.CoreV1().ServiceAccounts(release.Namespace).Create(ctx, &hooks.ServiceAccounts[0], metav1.CreateOptions{})
	require.NoError(t, err)
	_, err = client.RbacV1().ClusterRoles().Create(ctx, &hooks.ClusterRoles[0], metav1.CreateOptions{})
	require.NoError(t, err)
	t.Cleanup(func() {
		_ = client.RbacV1().ClusterRoles().Delete(ctx, hooks.ClusterRoles[0].Name, metav1.DeleteOptions{})
	})
	_, err = client.RbacV1().ClusterRoleBindings().Create(ctx, &hooks.ClusterRoleBindings[0], metav1.CreateOptions{})
	require.NoError(t, err)
	t.Cleanup(func() {
		_ = client.RbacV1().ClusterRoleBindings().Delete(ctx, hooks.ClusterRoleBindings[0].Name, metav1.DeleteOptions{})
	})
	policies, bindings := client.AdmissionregistrationV1().ValidatingAdmissionPolicies(), client.AdmissionregistrationV1().ValidatingAdmissionPolicyBindings()
	_, err = policies.Create(ctx, &hooks.Policies[0], metav1.CreateOptions{})
	require.NoError(t, err)
	t.Cleanup(func() { _ = policies.Delete(ctx, hooks.Policies[0].Name, metav1.DeleteOptions{}) })
	_, err = bindings.Create(ctx, &hooks.PolicyBindings[0], metav1.CreateOptions{})
	require.NoError(t, err)
	t.Cleanup(func() { _ = bindings.Delete(ctx, hooks.PolicyBindings[0].Name, metav1.DeleteOptions{}) })
	token, err := client.CoreV1().ServiceAccounts(release.Namespace).CreateToken(ctx, account.Name, &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	require.NoError(t, err)

	manager := release.Namespace + "/istio-os-init"
	written := []byte(`{"apiVersion":"v1","kind":"Node","status":{"conditions":[{"type":"IstioReady","status":"True"}]}}`)
	_, err = client.CoreV1().Nodes().Patch(ctx, node, types.ApplyPatchType, written, metav1.PatchOptions{FieldManager: manager, Force: new(true)}, "status")
	require.NoError(t, err)
	uninstall := bearer(t, token.Status.Token)
	release.WaitFor("the policy is not in force", func() bool {
		return patchNode(t, uninstall, "x", node, types.StrategicMergePatchType, `{}`, "status") != nil
	})
	for name, row := range map[string][2]string{
		"a condition of ours":       {`{"status":{"conditions":[{"type":"IstioReady","status":"False"}]}}`, "may only remove the condition IstioReady"},
		"another condition":         {`{"status":{"conditions":[{"type":"Ready","status":"False"}]}}`, "may change no condition but IstioReady"},
		"another condition removed": {`{"status":{"conditions":[{"type":"DiskPressure","$patch":"delete"}]}}`, "may change no condition but IstioReady"},
		"a label":                   {`{"metadata":{"labels":{"a":"b"}}}`, "may not change a node's metadata"},
		"capacity":                  {`{"status":{"capacity":{"cpu":"1"}}}`, "may change nothing of a node's status but its conditions"},
	} {
		t.Run(name, func(t *testing.T) {
			requireDenied(t, patchNode(t, uninstall, manager, node, types.StrategicMergePatchType, row[0], "status"), row[1])
		})
	}
	require.EqualValues(t, "True", condition(t, node).Status)
	require.NoError(t, patchNode(t, uninstall, manager, node, types.ApplyPatchType, `{"apiVersion":"v1","kind":"Node"}`, "status"))
	require.Empty(t, condition(t, node).Type)
}

// patchNode patches a node as a field manager, "" for none.
func patchNode(t *testing.T, client *kubernetes.Clientset, manager, node string, kind types.PatchType, patch, subresource string) error {
	t.Helper()
	var subresources []string
	if subresource != "" {
		subresources = []string{subresource}
	}
	_, err := client.CoreV1().Nodes().Patch(t.Context(), node, kind, []byte(patch), metav1.PatchOptions{FieldManager: manager}, subresources...)
	return err
}

// requireDenied requires that the policy denied a patch with this message; "": that it did not.
func requireDenied(t *testing.T, err error, message string) {
	t.Helper()
	if message == "" {
		require.NoError(t, err)
		return
	}
	require.True(t, apierrors.IsInvalid(err), "%v", err)
	require.ErrorContains(t, err, "denied request: "+message)
}

// A release that is uninstalled must not remove what another has written.
func TestUninstallForgetsOnlyTheConditionsOfTheRelease(t *testing.T) {
	nodes := lab.Nodes(t)
	var releases []*lab.Release
	for _, node := range nodes[:2] {
		release := lab.NewRelease(t)
		require.NoError(t, release.Upgrade("signals: {nodeCondition: {enabled: true}}\nnodeSelector: {kubernetes.io/hostname: "+node+"}\n"))
		releases = append(releases, release)
	}
	for i, release := range releases {
		release.WaitFor("the node says nothing", func() bool { return condition(t, nodes[i]).Status == corev1.ConditionTrue })
	}
	releases[0].Uninstall()
	require.Empty(t, condition(t, nodes[0]).Type)
	require.Equal(t, corev1.ConditionTrue, condition(t, nodes[1]).Status)
	releases[1].Uninstall()
	require.Empty(t, condition(t, nodes[1]).Type)
}

func second[T any](_ T, err error) error { return err }

// worker is a node that shares this machine's kernel and takes workload.
func worker(t *testing.T) string {
	t.Helper()
	nodes := slices.DeleteFunc(lab.Nodes(t), func(node string) bool { return node != "istio-os-init-worker" })
	require.Len(t, nodes, 1)
	return nodes[0]
}

// condition returns a node's condition IstioReady, an empty one where it has none.
func condition(t *testing.T, name string) corev1.NodeCondition {
	t.Helper()
	node, err := lab.Client(t).CoreV1().Nodes().Get(t.Context(), name, metav1.GetOptions{})
	require.NoError(t, err)
	for _, condition := range node.Status.Conditions {
		if condition.Type == "IstioReady" {
			return condition
		}
	}
	return corev1.NodeCondition{}
}

func taints(t *testing.T, name string) []corev1.Taint {
	t.Helper()
	node, err := lab.Client(t).CoreV1().Nodes().Get(t.Context(), name, metav1.GetOptions{})
	require.NoError(t, err)
	return node.Spec.Taints
}

func keys(taints []corev1.Taint) []string {
	var keys []string
	for _, taint := range taints {
		keys = append(keys, taint.Key)
	}
	return keys
}

// setTaints changes a node's taints as controllers do: what it has seen, changed, or nothing where somebody was faster.
func setTaints(t *testing.T, client *kubernetes.Clientset, name string, change func([]corev1.Taint) []corev1.Taint) {
	t.Helper()
	ctx, nodes := context.WithoutCancel(t.Context()), client.CoreV1().Nodes()
	err := retry.OnError(retry.DefaultBackoff, apierrors.IsConflict, func() error {
		node, err := nodes.Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		node.Spec.Taints = change(node.Spec.Taints)
		_, err = nodes.Update(ctx, node, metav1.UpdateOptions{})
		return err
	})
	if err != nil && !apierrors.IsConflict(err) {
		t.Errorf("taints of %s: %v", name, err)
	}
}

// startWorkload makes a pod that may run on the node as soon as its taints allow it, and returns its name.
func startWorkload(t *testing.T, release *lab.Release, node string) string {
	t.Helper()
	pod := lab.IstioInit(t, node, redirect)
	pod.Spec.NodeName, pod.Spec.Tolerations = "", nil
	pod.Spec.NodeSelector = map[string]string{"kubernetes.io/hostname": node}
	created, err := lab.Client(t).CoreV1().Pods(release.Namespace).Create(t.Context(), pod, metav1.CreateOptions{})
	require.NoError(t, err)
	return created.Name
}

// bearer returns a client that has nothing but a token.
func bearer(t *testing.T, token string) *kubernetes.Clientset {
	t.Helper()
	config := rest.AnonymousClientConfig(lab.Config(t))
	config.BearerToken = token
	client, err := kubernetes.NewForConfig(config)
	require.NoError(t, err)
	return client
}

// requireNothingClusterWide requires that nothing of a release is left that has no namespace.
func requireNothingClusterWide(t *testing.T, release *lab.Release) {
	t.Helper()
	client := lab.Client(t)
	for _, path := range []string{
		"/apis/rbac.authorization.k8s.io/v1/clusterroles", "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
		"/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies", "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings",
	} {
		release.WaitFor("uninstall leaves some of "+path, func() bool {
			raw, err := client.RESTClient().Get().AbsPath(path).DoRaw(t.Context())
			require.NoError(t, err)
			var list metav1.PartialObjectMetadataList
			require.NoError(t, json.Unmarshal(raw, &list))
			return !slices.ContainsFunc(list.Items, func(object metav1.PartialObjectMetadata) bool {
				return object.Name == "istio-os-init-"+release.Namespace || object.Name == "istio-os-init-"+release.Namespace+"-clean-up"
			})
		})
	}
}
