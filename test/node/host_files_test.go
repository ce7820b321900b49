package node

import (
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Files of a host as people, tools and other distributions write them.
func TestTheHostsFilesAreReadAsModprobeReadsThem(t *testing.T) {
	t.Parallel()
	const dep = "lib/modules/5.14.0-stand-in/modules.dep"
	onDisk := "kernel/net/netfilter/xt_owner.ko:\n"
	remove := func(place string) string { return "ModuleOverridden: xt_owner. Fix: remove line " + place }
	for _, row := range []struct {
		name  string
		files map[string]string // of the host; "-> TARGET" for a link
		want  string
	}{
		{"a name with a space", map[string]string{dep: onDisk, "etc/modprobe.d/my own rules.conf": "\ninstall xt_owner /bin/false\n"}, remove("2 of /etc/modprobe.d/my own rules.conf")},
		{"a name with a colon", map[string]string{dep: onDisk, "etc/modprobe.d/10:cis:2.conf": "install xt_owner /bin/false\n"}, remove("1 of /etc/modprobe.d/10:cis:2.conf")},
		{"a name with what a shell expands", map[string]string{dep: onDisk, "etc/modprobe.d/$(touch x) *.conf": "install xt_owner /bin/false\n"}, remove("1 of /etc/modprobe.d/$(touch x) *.conf")},
		{"CRLF", map[string]string{dep: onDisk, "etc/modprobe.d/x.conf": "# CIS\r\ninstall xt_owner /bin/false\r\n"}, remove("2 of /etc/modprobe.d/x.conf")},
		{"a rule without a command", map[string]string{dep: onDisk, "etc/modprobe.d/x.conf": "install xt_owner\n"}, remove("1 of /etc/modprobe.d/x.conf")},
		{"a part of a name", map[string]string{dep: onDisk, "etc/modprobe.d/x.conf": "install xt_owner2 /bin/false\ninstall xt /bin/false\n"}, "ModuleRefused: xt_owner. "},
		{"a file of another kind", map[string]string{dep: onDisk, "etc/modprobe.d/x.conf.bak": "install xt_owner /bin/false\n"}, "ModuleRefused: xt_owner. "},
		{"a relative link", map[string]string{dep: onDisk, "etc/modprobe.d/x.conf": "-> ../../opt/x.conf", "opt/x.conf": "install xt_owner /bin/false\n"}, remove("1 of /etc/modprobe.d/x.conf")},
		{"an absolute link", map[string]string{dep: onDisk, "etc/modprobe.d/x.conf": "-> /opt/x.conf", "opt/x.conf": "install xt_owner /bin/false\n"}, remove("1 of /etc/modprobe.d/x.conf")},
		{"an absolute link to a name of another kind", map[string]string{dep: onDisk, "etc/modprobe.d/x.conf": "-> /opt/x", "opt/x": "install xt_owner /bin/false\n"}, remove("1 of /etc/modprobe.d/x.conf")},
		{"an absolute link of the directory", map[string]string{dep: onDisk, "etc/modprobe.d": "-> /opt/rules", "opt/rules/x.conf": "install xt_owner /bin/false\n"}, remove("1 of /opt/rules/x.conf")},
		{"a link to nothing hides", map[string]string{dep: onDisk, "etc/modprobe.d/x.conf": "-> /dev/null", "usr/lib/modprobe.d/x.conf": "install xt_owner /bin/false\n"}, "ModuleRefused: xt_owner. "},
		{"a link to itself", map[string]string{dep: onDisk, "etc/modprobe.d/a.conf": "-> a.conf", "etc/modprobe.d/x.conf": "install xt_owner /bin/false\n"}, remove("1 of /etc/modprobe.d/x.conf")},
		{"a link to this container's files", map[string]string{dep: onDisk, "etc/modprobe.d/x.conf": "-> /proc/self/environ"}, "ModuleRefused: xt_owner. "},
		{"an absolute link of the modules", map[string]string{"lib/modules": "-> /opt/modules", "opt/modules/5.14.0-stand-in/modules.dep": onDisk}, "ModuleRefused: xt_owner. "},
		{"an absolute link of the kernel's modules", map[string]string{"lib/modules/5.14.0-stand-in": "-> /opt/kernel", "opt/kernel/modules.dep": onDisk}, "ModuleRefused: xt_owner. "},
		{"a link of the modules that leads nowhere", map[string]string{"lib/modules": "-> /opt/modules"}, "ModuleNotOnDisk: nf_tables, xt_owner, xt_CT. Fix: reboot the node"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			s := newSandbox(t, plan+"backend: nft\nverify: {enabled: false}")
			if strings.Contains(row.name, "nowhere") {
				s.hit(fault{loadable: []string{"none"}, files: map[string]string{"proc/modules": "bridge 1 0 - Live 0x0\n"}})
			} else {
				s.hit(fault{refused: "xt_owner Invalid argument\n"})
			}
			require.NoError(t, os.RemoveAll(s.path("host/lib/modules")))
			if !strings.Contains(row.name, "modules") {
				require.NoError(t, os.MkdirAll(s.path("host/lib/modules/5.14.0-stand-in"), 0o755))
			}
			s.osRelease(row.files)
			got := s.run("load")
			require.Contains(t, got.conclusion, row.want, got.log)
			require.True(t, strings.HasPrefix(got.conclusion, row.want), got.conclusion)
		})
	}
}

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
			"lib/modules/5.14.0-stand-in/modules.dep": "kernel/" + evil + "/xt_owner.ko:\n",
			"etc/modprobe.d/x.conf":                   "install xt_CT /bin/sh " + evil + "\nblacklist nf_tables " + evil + "\n",
			"proc/cmdline":                            "quiet module_blacklist=nf_tables," + evil + " " + evil,
			"sys/kernel/security/lockdown":            "none [" + evil + "] x\n",
			"proc/sys/kernel/modprobe":                evil + "\n",
			"proc/1/net/ip_tables_names":              evil + "\n",
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
