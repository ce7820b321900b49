package node

import (
	"os"
	"os/exec"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestVerifyProvesAmbientsRulesWithEachBackendAndARestartDoes(t *testing.T) {
	t.Parallel()
	for _, backend := range []string{"nft", "legacy", "native-nft"} {
		t.Run(backend, func(t *testing.T) {
			t.Parallel()
			s := newSandbox(t, "{backend: "+backend+", mesh: {ambient: true}}").withIstio()
			s.after = "ip rule; iptables-save -t nat"
			got := s.run("load", "verify", "verify", "verify-traffic")
			require.Equal(t, "True RedirectionProven", s.outcome("traffic").says(), got.log)
			require.Contains(t, s.outcome("traffic").reasons[0].subject, "; ambient's rules apply")
			require.NotContains(t, got.log, "fwmark 0x111", "the rule of routing is left behind")
			require.NotContains(t, got.log, "-j ISTIO_OS_INIT", "a hook leads to the chains of the proof")
			require.Equal(t, "applies", s.json().Ambient)
			require.Contains(t, s.report(), "sidecars and ambient: the rules of both apply")

			s = newSandbox(t, "backend: "+backend).withIstio()
			s.run("load", "verify", "verify-traffic")
			require.NotContains(t, s.outcome("traffic").reasons[0].subject, "ambient", "says more than was proven")
		})
	}
}

// The sidecar's rules apply, and one that ambient alone has is refused: by a stand-in for the kernel, since this one has all of it.
func TestANodeThatCanRunSidecarsAndNotAmbientIsNotReadyIfTheMeshIsAmbient(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct{ backend, program, words string }{
		"a match of iptables-nft":                  {"nft", "iptables-nft-restore", "Warning: Extension set revision 0 not supported, missing kernel module?"},
		"a target of ip6tables":                    {"nft", "ip6tables-nft-restore", "Warning: Extension SNAT revision 0 not supported, missing kernel module?"},
		"a table of legacy":                        {"legacy", "ip6tables-legacy-restore", "can't initialize ip6tables table 'filter': Table does not exist (not supported)"},
		"words that are new":                       {"legacy", "iptables-legacy-restore", "Bad argument COMMIT"},
		"native nftables":                          {"native-nft", "nft", "Error: Could not process rule: No such file or directory"},
		"a set of ambient's type":                  {"nft", "perl", "a set of type hash:ip is not supported: unknown type"},
		"a set that no agent of legacy could make": {"legacy", "perl", "a set of type hash:ip is not supported: Invalid argument"},
		"no routing by marks":                      {"nft", "ip", "Error: fib rules not supported by the kernel"},
		"an image without perl":                    {"nft", "perl", "the image has no perl, which makes the set of these rules"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			real, err := exec.LookPath(row.program)
			require.NoError(t, err)
			code := "1"
			if name == "an image without perl" {
				code = "127"
			}
			s := newSandbox(t, "{backend: "+row.backend+", mesh: {ambient: true}}").withIstio()
			// of these programs' calls only ours name a file behind --noflush or --check --file, ambient's mark, or ambient.pl
			s.program(row.program, `case "$1 $2 $*" in "--noflush /"* | "--check --file"* | *0x111* | *ambient.pl*) echo "`+row.words+`" >&2; exit `+code+` ;; esac; exec `+real+` "$@"`)
			got := s.verify()
			require.Equal(t, "False RulesRejected", s.outcome("verify").says(), got.log)
			require.Equal(t, "ambient: "+row.words, s.outcome("verify").kernel, got.log)
			require.Equal(t, "works", s.outcome("verify").backends[row.backend], "the sidecar's rules apply")
			require.Equal(t, "refused", s.json().Ambient)
			require.Contains(t, s.report(), "sidecars only")
		})
	}
}

// istio-cni's agent looks at the host's own tables, and takes iptables-legacy for pods too if some are there, unless it is told.
func TestAHostWithTablesOfLegacyNeedsTheirBackendForAmbient(t *testing.T) {
	t.Parallel()
	for backend, want := range map[string]string{"auto": "False BackendMismatch", "nft": "Unknown RulesApplied"} {
		s := newSandbox(t, "{backend: "+backend+", mesh: {ambient: true}}").withIstio()
		require.NoError(t, os.MkdirAll(s.path("host/proc/1/net"), 0o755))
		s.write("host/proc/1/net/ip_tables_names", "nat\n")
		got := s.run("load", "verify")
		require.Equal(t, want, s.outcome("verify").says(), got.log)
		if backend == "auto" {
			require.Equal(t, "BackendMismatch: legacy. Fix: set backend=legacy (nft: from Istio 1.25.4 on)", got.conclusion)
			require.Equal(t, "refused", s.json().Ambient)
		}
	}
	s := newSandbox(t, "").withIstio()
	require.NoError(t, os.MkdirAll(s.path("host/proc/1/net"), 0o755))
	s.write("host/proc/1/net/ip_tables_names", "nat\n")
	got := s.run("load", "verify")
	require.Equal(t, "Unknown RulesApplied", s.outcome("verify").says(), "of sidecars it is no matter: %s", got.log)
}

// The agent wants IPv6 on each node, unless its chart says otherwise; a node without it is imitated.
func TestAmbientNeedsIPv6UnlessTheMeshSaysOtherwise(t *testing.T) {
	t.Parallel()
	for values, want := range map[string]string{
		"": "False RulesRejected", `, extraEnv: [{name: AMBIENT_IPV6, value: "false"}]`: "Unknown RulesApplied",
	} {
		s := newSandbox(t, "{backend: nft, mesh: {ambient: true}"+values+"}").withIstio()
		require.NoError(t, os.Remove(s.path("host/proc/net/if_inet6")))
		got := s.verify()
		require.Equal(t, want, s.outcome("verify").says(), got.log)
		if values == "" {
			require.Contains(t, s.outcome("verify").kernel, "ambient: no IPv6 here")
		}
	}
}
