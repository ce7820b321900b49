package node

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// A whole fleet starts at once: what load starts on each node is work that is done as often as there are nodes.
func TestLoadStartsAtMostSixteenProcessesOnAHealthyNode(t *testing.T) {
	t.Parallel()
	needNamespaces(t)
	need(t, "strace")
	s := newSandbox(t, smallPlan).loadable("nf_tables", "xt_owner", "nft_counter")
	got := s.run("load")
	require.Regexp(t, "not found: nothing$", got.conclusion)
	output, err := s.tracedLoad("-o", s.path("notes/trace"), "-e", "trace=fork,vfork,clone,clone3,execve").CombinedOutput()
	require.NoError(t, err, string(output))
	started := 0
	for call := range strings.Lines(s.read("notes/trace")) {
		if strings.Contains(call, "clone(") || strings.Contains(call, "fork(") {
			started++
		}
	}
	t.Logf("%d processes", started)
	require.Positive(t, started)
	// as process 1 it starts itself once more (outcome.sh)
	require.LessOrEqual(t, started, 16, s.read("notes/trace"))
}
