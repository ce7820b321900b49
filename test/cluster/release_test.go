// Package cluster asks one question: does the chart keep its promise on a real cluster, under a real kubelet?
package cluster

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/istio-os-init/istio-os-init/test/internal/lab"
)

// What istio-init runs in a mesh that has changed nothing.
var redirect = strings.Split("-p 15001 -z 15006 -u 1337 -m REDIRECT -i * -x  -b * -d 15090,15021,15020 --log_output_level=default:info", " ")

func TestInstallProvesEveryNodeTheControlPlaneIncluded(t *testing.T) {
	t.Parallel()
	release := lab.NewRelease(t)
	require.NoError(t, release.Upgrade("terminationGracePeriodSeconds: 90"))
	release.WaitReady()

	pods := release.Pods()
	for _, node := range lab.Nodes(t) {
		require.Contains(t, pods, node)
		outcome, _ := release.Outcome(node)
		require.Equal(t, "RedirectionProven", outcome.Reason, node)
		require.Contains(t, outcome.Backends, "nft", node)
		conclusions := lab.Conclusions(pods[node])
		require.Regexp(t, `^RulesApplied: `, conclusions["verify"], node)
		require.Regexp(t, `^RedirectionProven: `, conclusions["verify-traffic"], node)
		require.Contains(t, conclusions["load"], "not found: ", node)
	}

	t.Run("istio-init then succeeds on every node", func(t *testing.T) {
		for _, node := range lab.Nodes(t) {
			phase, log := release.RunPod(lab.IstioInit(t, node, redirect))
			require.Equal(t, corev1.PodSucceeded, phase, log)
			require.Contains(t, log, "ISTIO_REDIRECT", node)
		}
	})

	t.Run("no pod holds a token or sees more than it asks for", func(t *testing.T) {
		for node, pod := range release.Pods() {
			require.Len(t, pod.Spec.Volumes, 7, node) // the API server would have added one more, with the token
		}
	})

	t.Run("a deleted pod does not wait for the end of its grace period", func(t *testing.T) {
		for _, pod := range release.Pods() {
			took := release.DeletePod(pod.Name)
			t.Logf("%s: %v", pod.Name, took.Round(time.Millisecond))
			require.Less(t, took, 45*time.Second) // on a busy machine; 2 s on an idle one
		}
		release.WaitReady()
	})
}

// The negative control: everything is real but one rule more, which this kernel refuses.
func TestANodeWhoseKernelRefusesTheRulesIsNotReadyAndSaysWhy(t *testing.T) {
	t.Parallel()
	name, tag := lab.RefusedRuleImage(t)
	release := lab.NewRelease(t)
	require.NoError(t, release.Upgrade("backend: nft\nimage: {name: "+name+", tag: "+tag+"}\n"+lab.OnOneNode(t)))

	verified := map[string]lab.Outcome{} // what is true of each at some time: the pods go on trying
	release.WaitFor("nothing is concluded", func() bool {
		for node := range release.Pods() {
			if outcome, _ := release.Outcome(node); outcome.Status == "False" || outcome.Status == "True" {
				verified[node] = outcome
			}
		}
		return len(verified) == 1
	})
	for node, pod := range release.Pods() {
		if verified[node].Status == "True" {
			t.Skip("NOT PROVEN: that a node which cannot run the mesh is not Ready, since this kernel has ipvs. Run on a kernel without it.")
		}
		require.Regexp(t, `^RulesRejected: .*Extension ipvs revision 0 not supported, .* Fix: `, verified[node].Line, node)
		for _, status := range pod.Status.ContainerStatuses {
			require.False(t, status.Ready, node)
		}
	}
	require.Zero(t, release.DaemonSet().Status.NumberReady)

	require.NoError(t, release.Upgrade(lab.OnOneNode(t)))
	release.WaitReadyOn(1) // the pod that waits in vain does not hold up the upgrade that helps it
}

func uids(release *lab.Release) map[string]types.UID {
	byNode := map[string]types.UID{}
	for node, pod := range release.Pods() {
		byNode[node] = pod.UID
	}
	return byNode
}

func requireAllNew(t *testing.T, before, after map[string]types.UID, what string) {
	t.Helper()
	require.Len(t, after, len(before), what)
	for node := range before {
		require.NotEqual(t, before[node], after[node], "%s: %s kept its pod", what, node)
	}
}
