package node

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestAnOSReleaseWithCRLFSelectsTheNode(t *testing.T) {
	t.Parallel()
	s := newPersisting(t, smallPlan+"nodes: {osRelease: [rocky]}")
	s.osRelease(map[string]string{"etc/os-release": strings.ReplaceAll(rocky9, "\n", "\r\n")})
	require.Contains(t, s.load().conclusion, "loaded now: nf_tables")
	require.Equal(t, "Rocky Linux 9.5 (Blue Onyx)", s.json().Facts["os"])
	require.Equal(t, "rhel centos fedora", s.json().Facts["os-like"])
}

// Escape sequences, control characters and other alphabets in whatever the host says.
func TestNothingOfTheHostReachesATerminalButPrintableText(t *testing.T) {
	t.Parallel()
	const evil = "\x1b]0;title\x07\x1b[31mred\x1b[0m\x9b2J\u202eé\xff\x00"
	for _, values := range []string{"verify: {enabled: false}", "", "nodes: {osRelease: [rhel]}"} {
		s := newSandbox(t, plan+"backend: nft\n"+values).program("pilot-agent", "printf 'error \\033[31m not permitted \\377\\n' >&2; exit 1")
		s.hit(fault{refused: "xt_owner Exec " + evil + " error\n", files: map[string]string{
			"etc/os-release": "ID=" + evil + "\nPRETTY_NAME=\"" + evil + "\"\nID_LIKE=" + evil + "\n",
			"lib/modules/5.14.0-0.el9.stand-in/modules.dep": "kernel/" + evil + "/xt_owner.ko:\n",
			"etc/modprobe.d/x.conf":                         "install xt_CT /bin/sh " + evil + "\nblacklist nf_tables " + evil + "\n",
			"proc/cmdline":                                  "quiet module_blacklist=nf_tables," + evil + " " + evil,
			"sys/kernel/security/lockdown":                  "none [" + evil + "] x\n",
			"proc/sys/kernel/modprobe":                      evil + "\n",
			"proc/1/net/ip_tables_names":                    evil + "\n",
		}})
		s.write("host/etc/modules-load.d/istio-os-init.conf", "# owner: "+evil+"\n")
		got := s.run(s.initContainers()...)
		report := s.json()
		require.Equal(t, strings.Contains(values, "osRelease"), report.Status == "True", got.log)
		for what, printed := range map[string]string{
			"log": got.log, "report": s.report(), "termination message": got.conclusion, "facts": s.read("state/load/facts"), "outcome": s.read("state/load/outcome"),
		} {
			require.NotRegexp(t, `[^ -~\n]`, printed, what)
		}
	}
}
