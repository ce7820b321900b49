package cluster

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/istio-os-init/istio-os-init/test/internal/chart"
	"github.com/istio-os-init/istio-os-init/test/internal/lab"
)

// The nodes' kernel has no module that could be unloaded, so load records one that is not there, in the pod's first round: watch and the
// sandbox are as shipped. test/kernel does it with a real module.
func TestADriftIsRepairedAndProvenAgainWithoutAnyonesHelp(t *testing.T) {
	t.Parallel()
	release := lab.NewRelease(t)
	node := lab.Nodes(t)[0]
	require.NoError(t, release.UpgradeTo(driftingLoad(t, `[ "$round" -gt 1 ]`), lab.OnOneNode(t)))
	start := time.Now()
	var uid types.UID
	release.WaitFor("the drift is not repaired", func() bool {
		pod, found := release.Pods()[node]
		if !found {
			return false
		}
		if uid == "" {
			uid = pod.UID
		}
		return lab.Rounds(pod) == 2 && lab.Ready(pod)
	})
	t.Logf("loaded, drifted and repaired within %v", time.Since(start).Round(time.Second))
	pod := release.Pods()[node]
	require.Equal(t, uid, pod.UID, "repaired in the same pod")
	require.Contains(t, release.Log(pod.Name, "watch"), "proven anew 1 times since the last hour of proof, last because of ModuleGone")
	outcome, _ := release.Outcome(node)
	require.Equal(t, 2, outcome.Round)
	require.Equal(t, "RedirectionProven", outcome.Reason)
	require.Equal(t, "works", outcome.Backends["nft"])
}

// A node that stays broken must neither be hammered nor lose its reason.
func TestALastingDriftAndALastingFailureAreRetriedAtGrowingIntervals(t *testing.T) {
	lab.NotInTheCover(t, "that a kubelet keeps the pace of the attempts, which test/node has of watch alone")
	t.Parallel()
	for _, row := range []struct {
		name, container, reason, chart, values string
		pauses                                 time.Duration // before the second and the third round
	}{
		{"drift", "watch", "ModuleGone", driftingLoad(t, "false"), "", 10 * time.Second},
		{"proof", "verify", "RulesRejected", chart.Path(), lab.Unprovable, 30 * time.Second},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			release := lab.NewRelease(t)
			node := lab.Nodes(t)[0]
			require.NoError(t, release.UpgradeTo(row.chart, lab.OnOneNode(t)+row.values))
			samples, told, begin := 0, 0, time.Now()
			release.WaitFor("load does not run a third time", func() bool {
				pod, found := release.Pods()[node]
				if !found || lab.Rounds(pod) < 1 {
					begin = time.Now()
					return false
				}
				samples++
				if strings.HasPrefix(lab.Conclusions(pod)[row.container], row.reason+": ") {
					told++
				}
				time.Sleep(time.Second)
				return lab.Rounds(pod) > 2
			})
			took := time.Since(begin)
			t.Logf("three rounds in %v; the reason stood in the pod's status %d of %d times", took.Round(time.Second), told, samples)
			require.Greater(t, took, row.pauses, "a loop")
			require.Greater(t, told, samples/2, "most of the time")
			release.WaitFor("the attempts are not counted", func() bool {
				attempts, err := release.TryExecIn(node, "watch", "cat", "/run/istio-os-init/watch/attempts")
				return err == nil && strings.Contains(attempts, " "+row.reason)
			})
		})
	}
}

// What people see without a log: the pod runs and is not ready, its events say why, and report works in it.
func TestANodeThatIsNotProvenIsExplainedByEventsAndByReport(t *testing.T) {
	t.Parallel()
	for name, values := range map[string]string{"and proves again": "", "and is left alone": "repair: {enabled: false}\n"} {
		t.Run(name, func(t *testing.T) {
			if values != "" {
				lab.NotInTheCover(t, "that with repair off a kubelet proves nothing again, which test/node has of watch alone")
			}
			t.Parallel()
			release := lab.NewRelease(t)
			node := lab.Nodes(t)[0]
			require.NoError(t, release.Upgrade(lab.OnOneNode(t)+lab.Unprovable+values))
			outcome := release.WaitRefused(node)
			require.Equal(t, "RulesRejected", outcome.Reason)
			release.WaitFor("report does not say so", func() bool { // watch may just be started again
				said, err := release.TryExecIn(node, "watch", "report")
				return err == nil && strings.Contains(said, "node "+node+" CANNOT run the mesh")
			})

			pod := release.Pods()[node]
			require.False(t, lab.Ready(pod))
			release.WaitFor("no event says why", func() bool {
				events, err := lab.Client(t).CoreV1().Events(release.Namespace).List(t.Context(), metav1.ListOptions{FieldSelector: "reason=Unhealthy"})
				require.NoError(t, err)
				for _, event := range events.Items {
					if strings.Contains(event.Message, "Startup probe failed: "+outcome.Line) {
						return true
					}
				}
				return false
			})
			for _, status := range pod.Status.InitContainerStatuses {
				require.Zero(t, status.State.Terminated.ExitCode, "%s fails the pod", status.Name)
			}
			if values != "" {
				time.Sleep(20 * time.Second)
				again, runs := release.Outcome(node)
				require.True(t, runs)
				require.Equal(t, 1, again.Round, "it proves again although repair is off")
				require.Zero(t, lab.Status(release.Pods()[node], "watch").RestartCount)
			}
		})
	}
}

// driftingLoad returns a copy of the chart whose load, after all that the shipped one does, records a module that is not there, unless a shell
// condition on round holds.
func driftingLoad(t *testing.T, unless string) string {
	t.Helper()
	drifting := chart.Copy(t)
	load := filepath.Join(drifting, "files", "load.sh")
	require.NoError(t, os.Rename(load, filepath.Join(drifting, "files", "load-as-shipped.awk"))) // the ConfigMap takes whatever ends so
	require.NoError(t, os.WriteFile(load, []byte(`/bin/sh "${0%/*}/load-as-shipped.awk"
round=$(sed -n 's/^round //p' /run/istio-os-init/load/outcome)
`+unless+` || echo 'module never_there loaded-now' >>/run/istio-os-init/load/facts
`), 0o600))
	return drifting
}
