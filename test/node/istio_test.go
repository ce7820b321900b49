package node

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/istio-os-init/istio-os-init/test/internal/chart"
)

// withOldIstio is withIstio for a version that can no longer be built from the module proxy: a stand-in of what was recorded from it. The
// image's iptables is iptables-legacy, as that of every Istio before 1.31.
func (s *sandbox) withOldIstio(version string) *sandbox {
	s.t.Helper()
	s.withIstio()
	recorded := filepath.Join(chart.Root(), "test", "node", "testdata", "istio")
	script := "RECORDED='" + filepath.Join(recorded, version) + "' PROBE='" + program(s.t, "proxyv2-stand-in") + "' exec '" + filepath.Join(recorded, "pilot-agent-stand-in") + `' "$@"`
	require.NoError(s.t, os.Remove(s.path("istio/pilot-agent")))
	require.NoError(s.t, os.WriteFile(s.path("istio/pilot-agent"), []byte("#!/bin/sh\n"+script+"\n"), 0o755))
	return s.imageWith("legacy").withFamilies() // its nameservers are those of the recordings
}

// imageWith lets the image's own iptables be of a kind.
func (s *sandbox) imageWith(kind string) *sandbox {
	s.t.Helper()
	for _, name := range []string{"iptables", "ip6tables"} {
		for _, part := range []string{"", "-save", "-restore"} {
			path, err := exec.LookPath(name + "-" + kind + part)
			require.NoError(s.t, err)
			require.NoError(s.t, os.Symlink(path, s.path("istio/"+name+part)))
		}
	}
	return s
}

// backends are those that the plan serves, with commas.
func (s *sandbox) backends() string {
	s.t.Helper()
	for _, variable := range s.environment(s.container("verify")) {
		if value, found := strings.CutPrefix(variable, "ISTIO_OS_INIT_BACKENDS="); found {
			return value
		}
	}
	s.t.Fatal("verify is told no backend")
	return ""
}

// oldIstios are the recorded versions.
func oldIstios(t *testing.T) []string {
	t.Helper()
	facts, err := filepath.Glob(filepath.Join(chart.Root(), "test", "node", "testdata", "istio", "*", "facts"))
	require.NoError(t, err)
	require.NotEmpty(t, facts)
	var versions []string
	for _, file := range facts {
		versions = append(versions, filepath.Base(filepath.Dir(file)))
	}
	return versions
}

// A second start used to apply the rules once more with an Istio that knows no CLEANUP_ONLY, which the kernel refuses.
func TestASecondStartOfAnOldIstioProvesAsMuchAsTheFirst(t *testing.T) {
	t.Parallel()
	for _, version := range oldIstios(t) {
		image := "image: {tag: " + version + "}\n"
		rows := map[string]string{"istio-init": image, "istio-cni": image + "mesh: {cni: true}", "TPROXY": image + "mesh: {tproxy: true}"}
		if version != "1.16.1" { // which has none
			rows["TPROXY in a dual-stack mesh"] = image + "mesh: {tproxy: true, dualStack: true}"
		}
		for name, values := range rows {
			t.Run(version+" "+name, func(t *testing.T) {
				t.Parallel()
				s := newSandbox(t, values).withOldIstio(version)
				backend := s.backends()
				s.after = "iptables-" + backend + " -t nat -S ISTIO_OUTPUT"
				got := s.run("load", "verify", "verify", "verify-traffic")
				require.Equal(t, "Unknown RulesApplied", s.outcome("verify").says(), got.log)
				require.Equal(t, "works", s.outcome("verify").backends[backend], got.log)
				require.Equal(t, "True RedirectionProven", s.outcome("traffic").says(), got.log)
				require.Equal(t, 2, strings.Count(got.log, "\nRulesApplied: "+backend+"\n"), got.log)
				require.Contains(t, got.log, "removing the rules of this container's last start")
				require.Contains(t, got.log, "\n-A ISTIO_OUTPUT -j ISTIO_REDIRECT\n", "the rules are in that backend")
				for path, result := range s.outcome("verify").paths {
					require.Equal(t, "arrived", result, path)
				}
				require.Len(t, s.outcome("verify").paths, map[bool]int{false: 3, true: 6}[strings.Contains(values, "dualStack")])
			})
		}
	}
}

// By a table of nft, even an empty one, an Istio before 1.25.4 would choose nft at a second start.
func TestWhereAnOldIstioHasSucceededWithLegacyNothingOfNftIsLeft(t *testing.T) {
	t.Parallel()
	s := newSandbox(t, "image: {tag: 1.25.3}").withOldIstio("1.25.3")
	builtin := "kernel/nf_conntrack.ko\n"
	for _, module := range strings.Fields("nf_tables nft_compat nft_chain_nat nft_counter xt_REDIRECT xt_owner xt_tcpudp xt_comment xt_CT xt_multiport xt_mark xt_connmark xt_conntrack") {
		builtin += "kernel/" + module + ".ko\n"
	}
	s.write("host/lib/modules/5.14.0-0.el9.stand-in/modules.builtin", builtin)
	s.after = "echo of nft:; iptables-nft-save"
	got := s.run("load", "verify")
	require.Equal(t, map[string]string{"legacy": "works", "nft": "has its modules", "native-nft": "lacks nft_redir nft_ct"}, s.outcome("verify").backends, got.log)
	_, left, _ := strings.Cut(got.log, "\nof nft:\n")
	require.NotContains(t, left, "*", got.log)
}

// Istio 1.25.4 to 1.27 use nft wherever it works, and cannot be told otherwise.
func TestABackendThatAnOldIstioDoesNotObeyIsNoSuccess(t *testing.T) {
	t.Parallel()
	s := newSandbox(t, "{backend: legacy, image: {tag: 1.25.4}}").withOldIstio("1.25.4")
	got := s.run("load", "verify", "verify")
	require.Equal(t, "False BackendMismatch", s.outcome("verify").says(), got.log)
	require.Equal(t, 2, strings.Count(got.log, "\nBackendMismatch: nft. Fix: set backend=nft (nft: from Istio 1.25.4 on)\n"), "the second start uses what the first did: %s", got.log)
}

func TestTheKernelsWordsAreWithoutWhatAnOldIstioPutsBeforeThem(t *testing.T) {
	t.Parallel()
	for _, version := range oldIstios(t) {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			s := newSandbox(t, "image: {tag: "+version+"}").withOldIstio(version)
			backend := s.backends()
			s.before = "iptables-" + backend + " -t nat -N ISTIO_REDIRECT"
			got := s.verify()
			require.Equal(t, "False RulesRejected", s.outcome("verify").says(), got.log)
			require.Regexp(t, `^(xtables \w+ problem: )?line \d+`, s.outcome("verify").kernel, got.log)
		})
	}
}
