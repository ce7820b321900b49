package render

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/istio-os-init/istio-os-init/test/internal/chart"
)

// A new Istio whose ambient rules need something else turns this red. Values, chains and addresses are its own; what the kernel must
// have are matches, targets and their options, and of nft the words of a statement.
func TestTheProofOfAmbientHasEveryMatchAndTargetOfIstiosOwnRules(t *testing.T) {
	t.Parallel()
	module := chart.IstioModule(t)
	for backend, row := range map[string]struct {
		ours  string
		names *regexp.Regexp // what is no word: names, values and addresses, but for its group
		words *regexp.Regexp
		aside []string
	}{
		"iptables": {
			source(t, "ambient.iptables") + source(t, "ambient.sh"), regexp.MustCompile(`-j ISTIO_\w+`),
			regexp.MustCompile(`-m [a-z]+|-j [A-Z]+|--[a-z-]+`), nil,
		},
		"nftables": {
			source(t, "ambient.nft"), regexp.MustCompile(`#[^\n]*|"[^"]*"|istio-[a-z0-9-]+|([io]ifname) (?:!= )?\S+|0x[0-9a-f]+|[0-9a-f]*:[0-9a-f:]+`),
			regexp.MustCompile(`@|[a-z][a-z0-9_]*`), []string{"add", "flush", "rule", "jump"},
		},
	} {
		golden, err := filepath.Glob(filepath.Join(module, "cni", "pkg", backend, "testdata", "*.golden"))
		require.NoError(t, err)
		require.NotEmpty(t, golden)
		words := func(rules string) []string {
			return row.words.FindAllString(row.names.ReplaceAllString(rules, "$1 "), -1)
		}
		ours := append(words(row.ours), row.aside...)
		for _, file := range golden {
			rules, err := os.ReadFile(file)
			require.NoError(t, err)
			for _, word := range words(string(rules)) {
				require.Contains(t, ours, word, "%s has a word that the proof lacks", strings.TrimPrefix(file, module))
			}
		}
	}
}

func TestThePlanOfAmbientServesBothFamiliesAndPreloadsNoTableThatSwaysItsChoice(t *testing.T) {
	t.Parallel()
	plan := func(values string) []string { return chart.Render(t, values).Plan(t) }
	legacy := plan("{backend: legacy, mesh: {ambient: true, ipv6: false}}")
	for _, module := range []string{"ip6table_nat", "ip6table_mangle", "ip6table_raw", "iptable_filter", "ip6table_filter"} {
		require.Contains(t, legacy, module)
	}
	unknown := plan("{mesh: {ambient: true}, image: {tag: nightly}}")
	require.Contains(t, unknown, "xt_set")
	require.NotContains(t, unknown, "iptable_nat")
	require.Contains(t, plan("{image: {tag: nightly}}"), "iptable_nat")
}

func TestTheLabsCNIAgentIsOfTheSameIstioAsItsPilotAgent(t *testing.T) {
	t.Parallel()
	dir, err := chart.ModuleDir(t.Context(), filepath.Join(chart.Root(), "ci", "cni-agent-stand-in"), "istio.io/istio")
	require.NoError(t, err)
	require.Equal(t, chart.IstioModule(t), dir)
}
