package cluster

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/istio-os-init/istio-os-init/test/internal/chart"
	"github.com/istio-os-init/istio-os-init/test/internal/lab"
)

// The nodes' kernel has no module that could go, so load records one that is not there, once in a pod's life: watch, the rule and
// the sandbox are as shipped. test/kernel does it with a real module.
func TestADriftIsRepairedAndProvenAgainWithoutAnyonesHelp(t *testing.T) {
	t.Parallel()
	for _, repair := range []string{"auto", "sandbox"} {
		t.Run(repair, func(t *testing.T) {
			t.Parallel()
			drifting := brokenLoad(t, `
[ -e "$state/drift" ] || echo never_there >>"$state/loaded"
runs=0; [ ! -r "$state/runs" ] || read -r runs <"$state/runs"; runs=$((runs + 1)); echo "$runs" >"$state/runs"; seq -f "run %g" "$runs"`)
			release := lab.NewRelease(t)
			require.NoError(t, release.UpgradeTo(drifting, onOneNode(t)+"repair: "+repair))
			start := time.Now()
			var uid types.UID
			var pod corev1.Pod
			release.WaitFor("the drift is not repaired", func() bool {
				for _, pod = range release.Pods() {
					if uid == "" {
						uid = pod.UID
					}
					return lab.Ready(pod) && strings.Contains(release.Log(pod.Name, "watch"), "modules had gone 1 times")
				}
				return false
			})
			t.Logf("loaded, drifted and repaired within %v", time.Since(start).Round(time.Second))
			require.Equal(t, uid, pod.UID, "repaired in the same pod")
			require.Contains(t, release.Log(pod.Name, "watch"), "never_there")
			require.Contains(t, release.Log(pod.Name, "load"), "run 1\nrun 2\n", "load has not run again")
			conclusions := lab.Conclusions(pod)
			require.Regexp(t, `^nft works(;|$)`, conclusions["verify"])
			require.Contains(t, conclusions["verify-traffic"], "redirected: ")
		})
	}
}

// A node that stays broken must neither be hammered nor lose its reason.
func TestALastingDriftAndALastingFailureAreRetriedAtGrowingIntervals(t *testing.T) {
	t.Parallel()
	for _, row := range []struct{ name, container, reason, load, values string }{
		{"drift", "load", "ModuleGone: ", `echo never_there >>"$state/loaded"; `, ""},
		{"proof", "verify", "RulesRejected: ", "", "extraEnv: [{name: FORCE_IPTABLES_BINARY, value: none}]"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			broken := brokenLoad(t, row.load+`echo run >>"$state/runs"; cat "$state/runs"`)
			release := lab.NewRelease(t)
			require.NoError(t, release.UpgradeTo(broken, onOneNode(t)+row.values))
			runs, told := 0, 0
			for range 90 {
				time.Sleep(time.Second)
				for _, pod := range release.Pods() {
					if strings.HasPrefix(lab.Conclusions(pod)[row.container], row.reason) {
						told++
					}
					runs = max(runs, strings.Count("\n"+release.Log(pod.Name, "load"), "\nrun"))
				}
			}
			t.Logf("load has run %d times in 90 s; the reason stood in the pod's status in %d of them", runs, told)
			require.Greater(t, runs, 2, "load has not run again")
			require.Less(t, runs, 8, "a loop")
			require.Greater(t, told, 45, "most of the time")
		})
	}
}

// onOneNode are the values of a release on the lab's first node: one is enough where every node does the same.
func onOneNode(t *testing.T) string {
	t.Helper()
	return "nodeSelector: {kubernetes.io/hostname: " + lab.Nodes(t)[0] + "}\n"
}

// brokenLoad returns a copy of the chart whose load does one thing more at its end.
func brokenLoad(t *testing.T, command string) string {
	t.Helper()
	broken := chart.Copy(t)
	file, behind := filepath.Join(broken, "files", "load.sh"), "\n} >\"$state/facts\"\n"
	content, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Contains(t, string(content), behind)
	require.NoError(t, os.WriteFile(file, []byte(strings.Replace(string(content), behind, behind+command+"\n", 1)), 0o600))
	return broken
}
