package kernel

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/istio-os-init/istio-os-init/test/internal/chart"
	"github.com/istio-os-init/istio-os-init/test/internal/lab"
)

// The golden files of Istio's own tests have every rule that it writes, of sidecars and of ambient. The host's own programs apply them here,
// each file in a network namespace of its own.
func TestEveryRuleOfIstiosGoldenFilesAppliesWithThePlanOfItsMode(t *testing.T) {
	lab.NotInTheCover(t, "that every rule of Istio's golden files applies with the plan of its mode")
	vm := lab.TheVM(t)
	vm.Fault("autoload-denied") // SELinux would let the host's own programs load what they lack
	for _, backend := range []string{"nft", "legacy", "native-nft"} {
		byMode := map[string]map[string]string{}
		for name, rules := range goldenRules(t, backend) {
			mode := modeOf(name, rules)
			if byMode[mode] == nil {
				byMode[mode] = map[string]string{}
			}
			byMode[mode][name] = rules
		}
		require.Greater(t, len(byMode), 5)
		for _, mode := range slices.Sorted(maps.Keys(byMode)) {
			t.Run(backend+" "+mode, func(t *testing.T) {
				vm := vm.On(t)
				vm.Unload()
				plan := chart.Render(t, fmt.Sprintf("{backend: %s, mesh: {%s}}", backend, mode)).Plan(t)
				vm.Load(plan)
				for _, name := range slices.Sorted(maps.Keys(byMode[mode])) {
					vm.Run(applied(backend, byMode[mode][name]))
				}
				t.Logf("%d files with %d entries of the plan", len(byMode[mode]), len(plan))
			})
		}
	}
}

// goldenRules returns the rules of Istio's golden files for a backend by the files' names, without files whose rules need a named group,
// which no image has.
func goldenRules(t *testing.T, backend string) map[string]string {
	t.Helper()
	kind := map[bool]string{true: "nftables", false: "iptables"}[backend == "native-nft"]
	rules := map[string]string{}
	for _, pattern := range []string{"tools/istio-" + kind + "/pkg/capture/testdata/*.golden", "cni/pkg/" + kind + "/testdata/*.golden"} {
		files, err := filepath.Glob(filepath.Join(chart.IstioModule(t), pattern))
		require.NoError(t, err)
		require.NotEmpty(t, files)
		for _, file := range files {
			content, err := os.ReadFile(file)
			require.NoError(t, err)
			if !namedGroup.Match(content) {
				rules[strings.TrimPrefix(file, chart.IstioModule(t)+"/")] = string(content)
			}
		}
	}
	require.Greater(t, len(rules), 30)
	return rules
}

var (
	namedGroup = regexp.MustCompile(`(gid-owner|skgid) (!= )?[a-z]`)

	ofIPv4 = regexp.MustCompile(`\d+\.\d+\.\d+\.\d+`)
	ofIPv6 = regexp.MustCompile(`::|([0-9a-f]+:){7}|\bip6 |probes-v6`)
)

// modeOf returns the values of `mesh` that a mesh with such rules has.
func modeOf(name, rules string) string {
	has := func(expression string) bool { return regexp.MustCompile(expression).MatchString(rules) }
	ambient := strings.HasPrefix(name, "cni/")
	return fmt.Sprintf("ambient: %t, dns: %t, dropInvalid: %t, ipv6: %t, tproxy: %t",
		ambient, !ambient && has(`--zone|ct zone|15053`), has(`INVALID|ct state invalid`), ofIPv6.MatchString(rules), has(`(?i)\btproxy `) || strings.Contains(name, "tproxy"))
}

// applied returns a shell script that applies rules in a network namespace of their own, and fails if the kernel refuses one.
func applied(backend, rules string) string {
	// what ambient's rule for probes refers to, and the agent makes before
	const set = "istio-inpod-probes-v"
	script := "ip netns add rules && trap 'ip netns del rules' EXIT && set -e\n"
	in := func(command, text string) {
		script += "ip netns exec rules " + command + " <<'END'\n" + text + "\nEND\n"
	}
	if backend == "native-nft" {
		if strings.Contains(rules, "@"+set) {
			const table = "inet istio-ambient-nat"
			in("nft -f -", fmt.Sprintf("add table %[1]s\nadd set %[1]s %[2]s4 { type ipv4_addr; }\nadd set %[1]s %[2]s6 { type ipv6_addr; }", table, set))
		}
		in("nft -f -", rules)
		return script
	}
	if strings.Contains(rules, set) {
		in("ipset restore", fmt.Sprintf("create %[1]s4 hash:ip\ncreate %[1]s6 hash:ip family inet6", set))
	}
	for _, table := range regexp.MustCompile(`(?ms)^\* ?\w+$.*?^COMMIT$`).FindAllString(rules, -1) {
		if !ofIPv6.MatchString(table) {
			in("iptables-"+backend+"-restore", table)
		}
		// a table that has no address serves both families
		if !ofIPv4.MatchString(table) && ofIPv6.MatchString(rules) {
			in("ip6tables-"+backend+"-restore", table)
		}
	}
	return script
}
