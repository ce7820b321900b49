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
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
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
	require.Regexp(t, `^The kernel refuses the mesh's rules: .* Fix: `, failed.Message)
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

	t.Run("the page's command removes what nobody keeps", func(t *testing.T) {
		page, err := os.ReadFile(filepath.Join(chart.Path(), "docs", "signals.md"))
		require.NoError(t, err)
		command := regexp.MustCompile("(?m)^kubectl patch node NODE .*$").FindString(string(page))
		require.NotEmpty(t, condition(t, node).Type)
		lab.Shell(t, strings.ReplaceAll(command, "NODE", node))
		require.Empty(t, condition(t, node).Type)
	})

	t.Run("uninstall leaves no condition and no right", func(t *testing.T) {
		require.Regexp(t, `IstioReady is removed from (\d+) of (\d+) nodes\n`, release.UninstallSays())
		require.Empty(t, condition(t, node).Type)
		requireNothingClusterWide(t, release)
	})
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
