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
		{"native-nft TPROXY", "{backend: native-nft, mesh: {tproxy: true}}", "native-nft"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			got := newSandbox(t, row.values).withIstio().run("verify")
			require.Zero(t, got.exit, got.log)
			require.Equal(t, row.backend+" works", strings.Split(got.conclusion, ";")[0])

			got = newSandbox(t, row.values).withIstio().run("verify", "verify-traffic", "verify")
			require.Zero(t, got.exit, got.log)
			require.Contains(t, got.conclusion, row.backend+" works", "the second verify in a pod proves as much as the first")

			got = newSandbox(t, row.values).withIstio().run("verify", "verify", "verify-traffic")
			require.Zero(t, got.exit, got.log)
			require.Contains(t, got.conclusion, "redirected: ")
		})
	}
}

func TestVerifyProvesIPv6WhereThePodHasAnAddress(t *testing.T) {
	t.Parallel()
	const global = "20010db8000000000000000000000001 02 40 00 80 eth0\n"
	const linkLocal = "fe80000000000000000000000000abcd 02 40 20 80 eth0\n"
	for _, row := range []struct {
		name      string
		values    string
		addresses string
		want      bool
	}{
		{"a global address", "", linkLocal + global, true},
		{"a link-local address only", "", linkLocal, false},
		{"no address", "", "", false},
		{"a mesh without IPv6", "mesh: {ipv6: false}", global, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			s := newSandbox(t, row.values).withIstio()
			s.write("host/proc/net/if_inet6", row.addresses)
			got := s.run("verify")
			require.Zero(t, got.exit, got.log)
			require.Contains(t, got.log, "DUAL_STACK="+map[bool]string{true: "true", false: "false"}[row.want])
		})
	}
}

// The negative control: real rules that this kernel refuses, with the kernel's own words.
func TestVerifyFailsWithTheKernelsWordsWhereARuleIsRefused(t *testing.T) {
	t.Parallel()
	for extension, rule := range map[string]string{"ipvs": "-m ipvs --ipvs -j RETURN", "LED": "-j LED --led-trigger-id x"} {
		t.Run(extension, func(t *testing.T) {
			t.Parallel()
			s := newSandbox(t, "backend: nft").withIstio().refusing(rule)
			got := s.run("verify")
			require.Equal(t, 1, got.exit, got.log)
			require.Regexp(t, "^RulesRejected: xtables resource problem: Extension "+extension+`.*\. Fix: see the log of verify\n  the kernel says: xtables resource problem: Extension `+extension+" revision 0 not supported, missing kernel module[?]$", got.conclusion)
			require.Contains(t, s.read("state/verdict"), "words xtables resource problem: Extension "+extension+" revision 0 not supported, missing kernel module?\n")
		})
	}
}

// Without load there is nothing but what the kernel does and says.
func TestHelmTestSaysOfTheNodeWhatItFinds(t *testing.T) {
	t.Parallel()
	got := newSandbox(t, "{backend: nft, verify: {enabled: false}}").withIstio().run(helmTest)
	require.Zero(t, got.exit, got.log)
	require.Regexp(t, `(?m)^node unknown can run the mesh\n  backend nft works\nnft works$`, got.log)

	s := newSandbox(t, "backend: nft").withIstio().refusing("-m ipvs --ipvs -j RETURN")
	got = s.run(helmTest)
	require.Equal(t, 1, got.exit, got.log)
	require.Contains(t, got.log, "node unknown CANNOT run the mesh")
	require.Contains(t, got.log, "what hinders it on the host: the log of verify in the DaemonSet's pod on this node")
	require.Contains(t, got.log, "Mend it, then run helm test again.")
	require.NotContains(t, got.log, "nothing is known")
	require.Regexp(t, "^RulesRejected: ", got.conclusion)
}

// As Linux 7.2 did: its refusal was none of those known before.
func TestVerifyGivesTheWordsOfARefusalThatItDoesNotKnow(t *testing.T) {
	t.Parallel()
	s := newSandbox(t, "backend: nft").withIstio()
	s.write("istio/iptables-nft-save", "#!/bin/sh\necho 'iptables-nft-save v1.8.9 (nf_tables): words of a stand-in' >&2\nexit 4\n")
	require.NoError(t, os.Chmod(s.path("istio/iptables-nft-save"), 0o755))
	got := s.run("verify")
	require.Equal(t, 1, got.exit, got.log)
	require.Regexp(t, `\n  the kernel says: iptables-nft-save v1\.8\.9 \(nf_tables\): words of a stand-in$`, got.conclusion)
}

// refusing has the negative control add a rule to Istio's own that this machine's kernel refuses, and skips the test where it
// does not.
func (s *sandbox) refusing(rule string) *sandbox {
	s.t.Helper()
	control := filepath.Join(chart.Root(), "test", "internal", "refusedrule", "iptables-nft-restore")
	require.NoError(s.t, os.Symlink(control, s.path("istio/iptables-nft-restore")))
	s.env = append(s.env, "REFUSED_RULE="+rule)
	if got := s.run("verify"); got.exit == 0 {
		s.t.Skipf("NOT PROVEN: that a refused rule is reported, since this kernel accepts %q. Run on a kernel without it.", rule)
	}
	require.NoError(s.t, os.RemoveAll(s.path("state")))
	require.NoError(s.t, os.Mkdir(s.path("state"), 0o755))
	return s
}

func TestVerifyFailsWithoutTheCapabilitiesOfIstioInit(t *testing.T) {
	t.Parallel()
	for _, backend := range []string{"nft", "legacy", "native-nft"} {
		t.Run(backend, func(t *testing.T) {
			t.Parallel()
			s := newSandbox(t, "backend: "+backend).withIstio()
			s.objects.DaemonSets[0].Spec.Template.Spec.InitContainers[1].SecurityContext.Capabilities.Add = nil
			got := s.run("verify")
			require.Equal(t, 1, got.exit, got.log)
			require.Regexp(t, `^RulesRejected: .* Fix: `, got.conclusion)
			require.Regexp(t, `(?m)^words .*(not permitted|denied)`, s.read("state/verdict"))
		})
	}
}

func TestVerifyTrafficFailsWhereNothingIsRedirected(t *testing.T) {
	t.Parallel()
	got := newSandbox(t, "").withIstio().run("verify-traffic") // no verify before it, so no rules
	require.Equal(t, 1, got.exit, got.log)
	require.Regexp(t, `^TrafficNotRedirected: .*exit code 126`, got.conclusion)
}
