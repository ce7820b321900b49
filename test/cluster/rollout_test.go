package cluster

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/istio-os-init/istio-os-init/test/internal/lab"
)

// Of a bad upgrade a fleet loses its first wave, a tenth: on a cluster of this size that is one node.
func TestABadUpgradeStopsAtItsFirstWaveAndARollbackReturnsIt(t *testing.T) {
	t.Parallel()
	release := lab.NewRelease(t)
	require.NoError(t, release.Upgrade(""))
	release.WaitReady()
	before := release.Pods()

	// a backend that Istio does not know, and a plan of its own, so that the ConfigMap is another too
	require.NoError(t, release.Upgrade(lab.Unprovable+"modules: {extra: [dummy]}"))
	wave := ""
	release.WaitFor("no node has tried the upgrade", func() bool {
		for node := range release.Pods() {
			if outcome, _ := release.Outcome(node); outcome.Reason == "RulesRejected" {
				wave = node
			}
		}
		return wave != ""
	})
	for range 20 {
		for node, pod := range release.Pods() {
			require.Equal(t, node == wave, pod.UID != before[node].UID, "%s is not of the first wave, which is %s", node, wave)
			require.Equal(t, node != wave, lab.Ready(pod), node)
		}
		time.Sleep(time.Second)
	}
	// nor is what they were proven with another now, although their ConfigMap has gone from the API
	for node := range before {
		if node != wave {
			require.NotContains(t, release.Exec(node, "cat", "/opt/istio-os-init/plan"), "dummy", node)
		}
	}

	release.Rollback()
	release.WaitReady()
	for node, pod := range release.Pods() {
		require.Equal(t, node == wave, pod.UID != before[node].UID, "a rollback has no business on %s", node)
	}
}
