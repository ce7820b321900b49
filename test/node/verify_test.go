package node

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/istio-os-init/istio-os-init/test/internal/chart"
)

// Real rules of Istio's own code in the real kernel, and a real connection through them.
func TestVerifyProvesEachBackendAndMode(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name    string
		values  string
		backend string
	}{
		{"REDIRECT as istio-init chooses", "mesh: {dns: false}", "nft"},
		{"REDIRECT with DNS capture", "", "nft"},
		{"TPROXY", "mesh: {tproxy: true}", "nft"},
		{"nft", "backend: nft", "nft"},
		{"legacy", "backend: legacy", "legacy"},
		{"legacy TPROXY", "{backend: legacy, mesh: {tproxy: true}}", "legacy"},
		{"native-nft", "backend: native-nft", "native-nft"},
		{"a host of istio-cni", "mesh: {cni: true}", "nft"},
		{"a host of istio-cni with legacy", "{backend: legacy, mesh: {cni: true}}", "legacy"},
		{"native-nft TPROXY", "{backend: native-nft, mesh: {tproxy: true}}", "native-nft"},
	} {
		t.Run(row.name, func(t *testing.T) {
			if testing.Short() && row.name != row.backend {
				t.Skip("NOT PROVEN: the modes of each backend. Run make test.")
			}
			t.Parallel()
			s := newSandbox(t, row.values).withIstio()
			got := s.run("load", "verify", "verify", "verify-traffic", "verify")
			require.Equal(t, "Unknown RulesApplied", s.outcome("verify").says(), "a later verify in a pod proves as much as the first: %s", got.log)
			require.Equal(t, "works", s.outcome("verify").backends[row.backend])
			require.Equal(t, "RulesApplied: "+row.backend, got.conclusion)
			require.Equal(t, "True RedirectionProven", s.outcome("traffic").says(), "after a second verify: %s", got.log)
			report := s.json()
			require.Equal(t, "True", report.Status)
			require.Equal(t, "works", report.Backends[row.backend])
		})
	}
}

// verify runs verify on a node where load has found nothing that would explain a failure.
func (s *sandbox) verify() result {
	s.t.Helper()
	s.recorded("load", 1, "Unknown", "ModulesLoaded", "nothing")
	return s.run("verify")
}

func TestVerifyProvesTheFamiliesThatTheMeshRedirects(t *testing.T) {
	t.Parallel()
	const ipv6, noIPv4 = "ip -6 address add 2001:db8::1/128 dev lo", "ip address del 192.0.2.1/32 dev lo"
	for _, row := range []struct {
		name, values, addresses string
		ipv4, ipv6              bool
	}{
		{"a pod with IPv4", "", "", true, false},
		{"a pod with IPv4 in a dual-stack mesh", "mesh: {dualStack: true}", "", true, false},
		{"a pod with both", "", ipv6, true, false},
		{"a pod with both in a dual-stack mesh", "mesh: {dualStack: true}", ipv6, true, true},
		{"a pod with IPv6 alone", "", ipv6 + "\n" + noIPv4, true, true},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			s := newSandbox(t, row.values).withIstio()
			s.before = row.addresses
			s.after = "echo IPv4; iptables-nft -t nat -S OUTPUT; echo IPv6; ip6tables-nft -t nat -S OUTPUT"
			got := s.verify()
			require.Equal(t, "Unknown RulesApplied", s.outcome("verify").says(), got.log)
			_, rules, _ := strings.Cut(got.log, "\nIPv4\n")
			ipv4, ipv6, _ := strings.Cut(rules, "\nIPv6\n")
			require.Equal(t, row.ipv4, strings.Contains(ipv4, "-j ISTIO_OUTPUT"), got.log)
			require.Equal(t, row.ipv6, strings.Contains(ipv6, "-j ISTIO_OUTPUT"), got.log)
		})
	}
}

func TestVerifyProvesThatInvalidPacketsAreDropped(t *testing.T) {
	t.Parallel()
	for backend, look := range map[string]string{
		"nft":        "iptables-nft -t mangle -S PREROUTING",
		"legacy":     "iptables-legacy -t mangle -S PREROUTING",
		"native-nft": "nft list ruleset",
	} {
		t.Run(backend, func(t *testing.T) {
			t.Parallel()
			s := newSandbox(t, "{backend: "+backend+", mesh: {dropInvalid: true}}").withIstio()
			s.after = "echo in place:; " + look
			got := s.verify()
			require.Equal(t, "Unknown RulesApplied", s.outcome("verify").says(), got.log)
			_, inPlace, _ := strings.Cut(got.log, "\nin place:\n")
			require.Regexp(t, `(--ctstate INVALID -j ISTIO_DROP|ct state invalid)`, inPlace, got.log)
		})
	}
}

// Before FORCE_IPTABLES_BINARY, or where a node has not what auto expects.
func TestABackendThatThePlanDoesNotServeIsNoSuccess(t *testing.T) {
	t.Parallel()
	s := newSandbox(t, "").withIstio().imageWith("legacy").program("iptables-nft-save", "exit 1")
	got := s.verify()
	require.Equal(t, "False BackendMismatch", s.outcome("verify").says(), got.log)
	require.Equal(t, "BackendMismatch: legacy. Fix: set backend=legacy (nft: from Istio 1.25.4 on)", got.conclusion)
	require.Contains(t, s.outcome("verify").message, "Istio uses legacy on this node, and the plan serves nft: ")
	require.Equal(t, map[string]string{"legacy": "works"}, s.outcome("verify").backends)
	require.Equal(t, 1, newSandbox(t, "").withIstio().imageWith("legacy").program("iptables-nft-save", "exit 1").run(helmTest).exit)
}

// Istio looks for a backend for each family: this image's nft does not work for IPv6.
func TestABackendThatIstioUsesForIPv6AloneIsNoSuccessEither(t *testing.T) {
	t.Parallel()
	s := newSandbox(t, "mesh: {dualStack: true}").withIstio().withFamilies().imageWith("legacy").program("ip6tables-nft-save", "exit 1")
	got := s.verify()
	require.Contains(t, got.log, "Running iptables restore with: iptables-nft-restore")
	require.Equal(t, "False BackendMismatch", s.outcome("verify").says(), got.log)
	require.Equal(t, "BackendMismatch: legacy. Fix: set backend=legacy (nft: from Istio 1.25.4 on)", got.conclusion)
}

// The negative control: real rules that this kernel refuses, with the kernel's own words.
func TestVerifyFailsWithTheKernelsWordsWhereARuleIsRefused(t *testing.T) {
	t.Parallel()
	for extension, rule := range map[string]string{"ipvs": "-m ipvs --ipvs -j RETURN", "LED": "-j LED --led-trigger-id x"} {
		t.Run(extension, func(t *testing.T) {
			t.Parallel()
			s := newSandbox(t, "backend: nft").withIstio().refusing(rule)
			got := s.verify()
			require.Zero(t, got.exit, got.log)
			words := "xtables resource problem: Extension " + extension + " revision 0 not supported, missing kernel module?"
			require.Equal(t, "RulesRejected: "+words+". Fix: see the log of verify\n  the kernel says: "+words, got.conclusion)
			outcome := s.outcome("verify")
			require.Equal(t, "False RulesRejected", outcome.says())
			require.Equal(t, words, outcome.kernel)
			require.Equal(t, map[string]string{"nft": "refused"}, outcome.backends)
		})
	}
}

// Without load there is nothing but what the kernel does and says.
func TestHelmTestSaysOfTheNodeWhatItFinds(t *testing.T) {
	t.Parallel()
	got := newSandbox(t, "{backend: nft, verify: {enabled: false}}").withIstio().run(helmTest)
	require.Zero(t, got.exit, got.log)
	require.Contains(t, got.log, "\nRulesApplied: nft\n")
	const passed = "\npassed: istio-init's rules apply on node stand-in, "
	require.Contains(t, got.log, passed)

	s := newSandbox(t, "backend: nft").withIstio().refusing("-m ipvs --ipvs -j RETURN")
	got = s.run(helmTest)
	require.Equal(t, 1, got.exit, got.log)
	require.Contains(t, got.log, "\nRulesRejected: xtables resource problem")
	require.NotContains(t, got.log, passed)
	require.Regexp(t, "^RulesRejected: ", got.conclusion)

	s = newSandbox(t, "backend: nft").withIstio()
	s.before = "mount -t tmpfs -o ro none " + s.path("state/verify")
	got = s.run(helmTest)
	require.Equal(t, 1, got.exit, got.log)
	require.Contains(t, got.log, "StateUnwritable: ")
	require.NotContains(t, got.log, passed)
}

// As Linux 7.2 did: its refusal was none of those known before.
func TestVerifyGivesTheWordsOfARefusalThatItDoesNotKnow(t *testing.T) {
	t.Parallel()
	s := newSandbox(t, "backend: nft").withIstio()
	s.write("istio/iptables-nft-save", "#!/bin/sh\necho 'iptables-nft-save v1.8.9 (nf_tables): words of a stand-in' >&2\nexit 4\n")
	require.NoError(t, os.Chmod(s.path("istio/iptables-nft-save"), 0o755))
	got := s.verify()
	require.Equal(t, "False RulesRejected", s.outcome("verify").says(), got.log)
	require.Regexp(t, `\n  the kernel says: iptables-nft-save v1\.8\.9 \(nf_tables\): words of a stand-in$`, got.conclusion)
}

// refusing has the negative control add a rule to Istio's own that this machine's kernel refuses, and skips the test where it
// does not.
func (s *sandbox) refusing(rule string) *sandbox {
	s.t.Helper()
	control := filepath.Join(chart.Root(), "test", "internal", "refusedrule", "iptables-nft-restore")
	require.NoError(s.t, os.Symlink(control, s.path("istio/iptables-nft-restore")))
	s.env = append(s.env, "REFUSED_RULE="+rule)
	if got := s.verify(); s.outcome("verify").status != "False" {
		s.t.Log(got.log)
		s.t.Skipf("NOT PROVEN: that a refused rule is reported, since this kernel accepts %q. Run on a kernel without it.", rule)
	}
	s.newState()
	return s
}

func TestVerifyFailsWithoutTheCapabilitiesOfIstioInit(t *testing.T) {
	t.Parallel()
	for _, backend := range []string{"nft", "legacy", "native-nft"} {
		t.Run(backend, func(t *testing.T) {
			t.Parallel()
			s := newSandbox(t, "backend: "+backend).withIstio()
			s.rendered("verify").SecurityContext.Capabilities.Add = nil
			got := s.verify()
			require.Regexp(t, `^RulesRejected: .* Fix: `, got.conclusion, got.log)
			require.Equal(t, "False RulesRejected", s.outcome("verify").says())
			require.Regexp(t, `(not permitted|denied)`, s.outcome("verify").kernel)
		})
	}
}

func TestVerifyTrafficFailsWhereNothingIsRedirected(t *testing.T) {
	t.Parallel()
	s := newSandbox(t, "").withIstio()
	s.recorded("load", 1, "Unknown", "ModulesLoaded", "modules")
	s.recorded("verify", 1, "Unknown", "RulesApplied", "nft") // although there are no rules
	got := s.run("verify-traffic")
	require.Zero(t, got.exit, got.log)
	require.Regexp(t, `^TrafficNotRedirected: exit code 126\. Fix: `, got.conclusion)
	require.Equal(t, "False TrafficNotRedirected", s.outcome("traffic").says())
	text := s.report()
	require.Contains(t, text, "CANNOT run the mesh")
	require.NotContains(t, text, "can run the mesh")
	require.Equal(t, "False", s.json().Status)
}
