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
			require.Equal(t, row.backend+" works: istio-iptables applied the rules of istio-init", got.conclusion)

			got = newSandbox(t, row.values).withIstio().run("verify", "verify-traffic", "verify")
			require.Zero(t, got.exit, got.log)
			require.Contains(t, got.conclusion, row.backend+" works: ", "the second verify in a pod proves as much as the first")

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
			s := newSandbox(t, "backend: nft").withIstio()
			control := filepath.Join(chart.Root(), "test", "internal", "refusedrule", "iptables-nft-restore")
			require.NoError(t, os.Symlink(control, s.path("istio/iptables-nft-restore")))
			s.env = append(s.env, "REFUSED_RULE="+rule)
			s.write("state/missing", "xt_owner: FATAL: Module xt_owner not found\nxt_CT: FATAL\n")
			got := s.run("verify")
			if strings.Contains(got.conclusion, "works") {
				t.Skipf("NOT PROVEN: that a refused rule is reported, since this kernel accepts %q. Run on a kernel without it.", rule)
			}
			require.Equal(t, 1, got.exit, got.log)
			require.Contains(t, got.conclusion, "RulesRejected: xtables resource problem: Extension "+extension+" revision 0 not supported, missing kernel module?; "+
				"not found by load: xt_owner xt_CT. Fix: ")
		})
	}
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
			require.Regexp(t, `^RulesRejected: .*(not permitted|denied)`, got.conclusion)
		})
	}
}

func TestVerifyTrafficFailsWhereNothingIsRedirected(t *testing.T) {
	t.Parallel()
	got := newSandbox(t, "").withIstio().run("verify-traffic") // no verify before it, so no rules
	require.Equal(t, 1, got.exit, got.log)
	require.Regexp(t, `^TrafficNotRedirected: .*exit code 126`, got.conclusion)
}
