package cluster

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/istio-os-init/istio-os-init/test/internal/chart"
	"github.com/istio-os-init/istio-os-init/test/internal/lab"
)

// plant writes the file that load writes where a module can be loaded; most of the lab's nodes share a kernel that has none.
func plant(t *testing.T, release *lab.Release, nodes ...string) {
	t.Helper()
	for _, node := range nodes {
		lab.RunOn(t, node, "printf '# owner: "+release.Namespace+"/istio-os-init\\n' >"+lab.Persisted)
	}
}

func TestUninstallReturnsWhenTheFileIsGoneFromEveryNode(t *testing.T) {
	t.Parallel()
	release := lab.NewRelease(t)
	require.NoError(t, release.Upgrade(""))
	release.WaitReady()
	plant(t, release, lab.Nodes(t)...)

	start := time.Now()
	output := release.UninstallSays()
	t.Logf("uninstall: %v", time.Since(start).Round(time.Millisecond))
	for _, node := range lab.Nodes(t) {
		require.Equal(t, "gone", lab.RunOn(t, node, "grep -qs "+release.Namespace+" "+lab.Persisted+" || echo gone"), node)
	}
	require.Contains(t, output, "clean: ")
	release.WaitFor("uninstall leaves something", func() bool { return len(release.Left()) == 0 })
}

// Argo CD creates the hooks of an application that is deleted all at once and in no order.
func TestHooksThatAreCreatedAllAtOnceAndInNoOrderCleanEveryNode(t *testing.T) {
	t.Parallel()
	release := lab.NewRelease(t)
	require.NoError(t, release.Upgrade(lab.OnOneNode(t)))
	release.WaitReadyOn(1)
	plant(t, release, lab.Nodes(t)...)
	hooks := strings.Split(lab.Shell(t, "helm get hooks istio-os-init --namespace "+release.Namespace), "\n---\n")
	hooks = slices.DeleteFunc(hooks, func(hook string) bool { return !strings.Contains(hook, "helm.sh/hook: pre-delete") })
	require.Contains(t, hooks[len(hooks)-1], "kind: Job")
	slices.Reverse(hooks)
	file := filepath.Join(t.TempDir(), "hooks.yaml")
	require.NoError(t, os.WriteFile(file, []byte(strings.Join(hooks, "\n---\n")), 0o600))
	lab.Shell(t, "kubectl create --filename - <"+file)
	release.WaitFor("the Job does not end well", func() bool {
		job, err := lab.Client(t).BatchV1().Jobs(release.Namespace).Get(t.Context(), chart.Release+"-clean-up", metav1.GetOptions{})
		require.NoError(t, err)
		return job.Status.Succeeded == 1
	})
	for _, node := range lab.Nodes(t) {
		require.Equal(t, "gone", lab.RunOn(t, node, "grep -qs "+release.Namespace+" "+lab.Persisted+" || echo gone"), node)
	}
	lab.Shell(t, "kubectl delete --filename - <"+file)
	output, err := release.TryUninstall("--no-hooks")
	require.NoError(t, err, output)
	release.WaitFor("something is left", func() bool { return len(release.Left()) == 0 })
}

// Not parallel: for a while one of the cluster's nodes is down.
func TestUninstallWithANodeDownNamesItWithinAMinute(t *testing.T) {
	release := lab.NewRelease(t)
	require.NoError(t, release.Upgrade(""))
	release.WaitReady()
	nodes := lab.Nodes(t)
	plant(t, release, nodes...)
	down := lab.StopWorker(t)

	start := time.Now()
	output := release.UninstallSays()
	took := time.Since(start)
	t.Logf("uninstall: %v:\n%s", took.Round(time.Millisecond), output)
	require.Less(t, took, time.Minute)
	require.Regexp(t, `warning: \d+ of \d+ nodes are known to be clean\. Left, .*: `+down.Name+` \(Pending\)\n`, output)
	for _, node := range nodes {
		if node != down.Name {
			require.NotContains(t, strings.ReplaceAll(output, down.Name, ""), node, "a node that is clean is not named")
			require.Equal(t, "gone", lab.RunOn(t, node, "[ -e "+lab.Persisted+" ] || echo gone"), node)
		}
	}

	down.Start()
	require.Empty(t, lab.RunOn(t, down.Name, "rm -f "+lab.Persisted), "what the message says to do")
	release.WaitFor("uninstall leaves something", func() bool { return len(release.Left()) == 0 })
}

// Helm is interrupted, its connection breaks, a quota refuses the hook's pod: whatever it was, the release is still there.
func TestAnUninstallThatHasFailedCleansWhenItIsRunAgain(t *testing.T) {
	t.Parallel()
	for _, helm := range chart.Helms {
		t.Run(string(helm), func(t *testing.T) {
			if helm != chart.Helm3 {
				lab.NotInTheCover(t, "that an uninstall by Helm 4 which has failed cleans when it is run again")
			}
			t.Parallel()
			release := lab.NewRelease(t)
			release.Helm = helm
			require.NoError(t, release.Upgrade(lab.OnOneNode(t)))
			release.WaitReadyOn(1)
			plant(t, release, lab.Nodes(t)...)
			output, err := release.TryUninstall("--timeout", "1s")
			require.Error(t, err, output)
			require.Equal(t, "1 uninstalling", release.Revision())
			requireUninstalled(t, release)
		})
	}
}
