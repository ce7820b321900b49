package cluster

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/istio-os-init/istio-os-init/test/internal/lab"
)

func TestOnlyANodeThatNFDCallsOneOfTheRHELFamilyGetsAPod(t *testing.T) {
	t.Parallel()
	nodes := lab.Nodes(t)
	const label = "feature.node.kubernetes.io/system-os_release.ID"
	lab.Label(t, nodes[0], label, "rocky")
	lab.Label(t, nodes[1], label, "debian")
	release := lab.NewRelease(t)
	// the user's own terms: the first selects both nodes, the second none
	require.NoError(t, release.Upgrade(`
nodes: {preset: rhel-nfd}
affinity:
  nodeAffinity:
    requiredDuringSchedulingIgnoredDuringExecution:
      nodeSelectorTerms:
        - matchExpressions: [{key: kubernetes.io/hostname, operator: In, values: [`+strings.Join(nodes[:2], ", ")+`]}]
        - {}
`))
	release.WaitReadyOn(1)
	require.Contains(t, release.Pods(), nodes[0])
	require.Len(t, release.Pods(), 1)
}

func TestANodeThatItsOwnOSReleaseLeavesOutIsReadyAndNothingIsDoneThere(t *testing.T) {
	t.Parallel()
	release := lab.NewRelease(t)
	node := lab.Nodes(t)[0]
	release.CreateNamespace()
	plant(t, release, node)
	require.NoError(t, release.Upgrade(lab.OnOneNode(t)+"nodes: {osRelease: [rhel, centos, fedora]}"))
	release.WaitReadyOn(1)
	const line = "NotSelected: the host's os-release says debian; nodes.osRelease is rhel centos fedora"
	for node, pod := range release.Pods() {
		conclusions := lab.Conclusions(pod)
		for _, container := range []string{"load", "verify", "verify-traffic"} {
			require.Equal(t, line, conclusions[container], "%s on %s", container, node)
		}
		require.Contains(t, release.Log(pod.Name, "watch"), line, node)
		outcome, _ := release.Outcome(node)
		require.Equal(t, "True", outcome.Status, node)
		require.Equal(t, "NotSelected", outcome.Reason, node)
		require.Contains(t, outcome.Message, "Nothing is loaded, written or proven on this node.", node)
	}
	require.Equal(t, "gone", lab.RunOn(t, node, "grep -qs "+release.Namespace+" "+lab.Persisted+" || echo gone"))
	table, _ := lab.TryShell(t, "root=$PWD; . scripts/lab/lib.sh; . scripts/lab/kind.sh; . scripts/lab/chart.sh; namespace="+release.Namespace+"; verdicts | table") // it fails for the node that has no pod
	require.Regexp(t, `(?m)^`+node+` .* - +not selected +\d+ s$`, table)
	require.Contains(t, table, node+": "+line)

	require.NoError(t, release.Upgrade(lab.OnOneNode(t)+"nodes: {osRelease: [debian]}"))
	release.WaitReadyOn(1)
	for node := range release.Pods() {
		outcome, _ := release.Outcome(node)
		require.Equal(t, "RedirectionProven", outcome.Reason, node)
	}
}
