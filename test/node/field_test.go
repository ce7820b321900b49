package node

import (
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// What hinders modules on people's hosts, a row for each kind. modprobe is a stand-in that says what kmod says.
func TestTheCauseIsNamedAsItIsInTheField(t *testing.T) {
	t.Parallel()
	const modules = "lib/modules/5.14.0-stand-in/"
	dep := "kernel/net/netfilter/nf_tables.ko.xz:\n" +
		"kernel/net/netfilter/xt_owner.ko.xz: kernel/net/netfilter/x_tables.ko.xz\n" +
		"kernel/net/netfilter/xt_CT.ko.xz: kernel/net/netfilter/nf_conntrack.ko.xz kernel/net/netfilter/x_tables.ko.xz\n"
	// what kmod says if a module that it needs was not loaded
	const unmet = "xt_CT Unknown symbol in module, or unknown parameter (see dmesg)\n"
	file := func(name, content string) map[string]string {
		return map[string]string{modules + "modules.dep": dep, name: content}
	}
	for _, row := range []fault{
		{
			name: "a module that it needs is overridden", loadable: []string{"nf_tables", "xt_owner"}, refused: unmet,
			files: file("etc/modprobe.d/vendor.conf", "# no tracking\ninstall nf_conntrack /bin/true\n"),
			want:  "ModuleOverridden: nf_conntrack (needed by xt_CT). Fix: remove line 2 of /etc/modprobe.d/vendor.conf",
		},
		{
			name: "a module that two need is overridden", loadable: []string{"nf_tables"},
			refused: unmet + "xt_owner Unknown symbol in module, or unknown parameter (see dmesg)\n",
			files:   file("etc/modprobe.d/vendor.conf", "install x-tables /bin/false\n"),
			want:    "ModuleOverridden: x_tables (needed by xt_owner, xt_CT). Fix: remove line 1 of /etc/modprobe.d/vendor.conf",
		},
		{
			name: "a module that it needs is overridden, and is loaded", loadable: []string{"nf_tables", "xt_owner"}, refused: "xt_CT Exec format error\n",
			files: map[string]string{modules + "modules.dep": dep, "etc/modprobe.d/vendor.conf": "install nf_conntrack /bin/true\n", "proc/modules": "nf_conntrack 1 0 - Live 0x0\n"},
			want:  "ModuleRefused: xt_CT. Fix: see the host's kernel log (dmesg) for what it refused",
		},
		{
			name: "the kernel's command line forbids a module that it needs", loadable: []string{"nf_tables", "xt_owner"}, refused: "xt_CT Operation not permitted\n",
			files: file("proc/cmdline", "quiet module_blacklist=nf_conntrack\n"),
			want:  "ModuleBlocklisted: nf_conntrack (needed by xt_CT). Fix: take nf_conntrack out of module_blacklist= on the kernel's command line and reboot",
		},
		{
			name: "an alias leads elsewhere", loadable: []string{"nf_tables", "xt_CT"}, refused: "xt_owner Invalid argument\n",
			files: file("etc/modprobe.d/x.conf", "options a b=c\nalias xt-own* off\n"),
			want:  "ModuleOverridden: xt_owner. Fix: remove line 2 of /etc/modprobe.d/x.conf",
		},
		{
			name: "a rule on two lines", loadable: []string{"nf_tables", "xt_CT"}, refused: "xt_owner Invalid argument\n",
			files: file("etc/modprobe.d/x.conf", "# first\r\ninstall \\\nxt_owner /bin/false\r\n"),
			want:  "ModuleOverridden: xt_owner. Fix: remove line 2 of /etc/modprobe.d/x.conf",
		},
		{
			name: "lockdown, and another cause", loadable: []string{"nf_tables", "xt_CT"}, refused: "xt_owner Invalid argument\n",
			files: map[string]string{
				modules + "modules.dep": dep, "etc/modprobe.d/x.conf": "install xt_owner /bin/false\n", "sys/kernel/security/lockdown": "none [integrity] confidentiality\n",
			},
			want: "ModuleOverridden: xt_owner. Fix: remove line 1 of /etc/modprobe.d/x.conf",
		},
		{
			name: "lockdown, and a file of another kernel", loadable: []string{"nf_tables", "xt_CT"}, refused: "xt_owner Exec format error\n",
			files: file("sys/kernel/security/lockdown", "none [integrity] confidentiality\n"),
			want:  "ModuleRefused: xt_owner. Fix: see the host's kernel log (dmesg) for what it refused",
		},
		{
			name: "lockdown, and no other cause", loadable: []string{"nf_tables", "xt_CT"}, refused: "xt_owner Operation not permitted\n",
			files: file("sys/kernel/security/lockdown", "none [integrity] confidentiality\n"),
			want:  "ModuleUnsigned: xt_owner. Fix: sign the modules with a key that the kernel trusts (mokutil --list-enrolled)",
		},
		{
			name: "SELinux denies it", loadable: []string{"nf_tables", "xt_CT"}, refused: "xt_owner Permission denied\n",
			files: file("sys/fs/selinux/enforce", "1"),
			want: "ModuleDenied: xt_owner. Fix: see the denial with ausearch -m avc -ts recent; restorecon -R /lib/modules mends a wrong label, " +
				"setsebool secure_mode_insmod off lifts a ban",
		},
		{
			name: "the pod has a user namespace of its own", loadable: []string{"nf_tables", "xt_CT"}, refused: "xt_owner Operation not permitted\n",
			files: file("proc/self/uid_map", "         0     100000      65536\n"),
			want:  "CapabilityRefused: hostUsers. Fix: allow these capabilities (SCC, admission policy), or load the modules at boot",
		},
		{
			name: "modules of DKMS outlast the kernel's", loadable: []string{"none"},
			files: map[string]string{modules + "modules.dep": "updates/dkms/x.ko:\n", modules + "updates/dkms/x.ko": ""},
			want:  "ModuleNotOnDisk: nf_tables, xt_owner, xt_CT. Fix: reboot the node: kernel 5.14.0-stand-in runs, but its modules are not on disk",
		},
		{
			name: "the list of modules is missing", loadable: []string{"none"},
			files: map[string]string{modules + "modules.dep": "", modules + "kernel/net/xt_owner.ko": ""},
			want:  "ModuleNotOnDisk: nf_tables, xt_owner, xt_CT. Fix: depmod -a 5.14.0-stand-in",
		},
		{
			name: "the node is a container", loadable: []string{"none"},
			files:  map[string]string{"run/systemd/container": "lxc\n", "proc/modules": "bridge 1 0 - Live 0x0\n"},
			breaks: func(s *sandbox) { require.NoError(s.t, os.RemoveAll(s.path("host/lib/modules"))) },
			want:   "ModuleNotOnDisk: nf_tables, xt_owner, xt_CT. Fix: load them on the machine that runs this node as a container (lxc)",
		},
		{
			name:  "Flatcar, which is like CoreOS",
			files: file("etc/os-release", "ID=flatcar\nID_LIKE=coreos\n"), loadable: []string{"nf_tables", "xt_owner"},
			breaks: func(s *sandbox) { s.write("host/"+modules+"modules.dep", strings.ReplaceAll(dep, "xt_CT", "xt_other")) },
			want:   "ModuleNotOnDisk: xt_CT. Fix: use a release of Flatcar whose kernel has them",
		},
		{
			name:  "an image made of ostree",
			files: file("run/ostree-booted", ""), loadable: []string{"nf_tables", "xt_owner"},
			breaks: func(s *sandbox) { s.write("host/"+modules+"modules.dep", strings.ReplaceAll(dep, "xt_CT", "xt_other")) },
			want:   "ModuleNotOnDisk: xt_CT. Fix: rpm-ostree install kernel-modules-extra-5.14.0-stand-in, then reboot",
		},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			s := newSandbox(t, plan+"backend: nft\nverify: {enabled: false}")
			s.hit(row)
			got := s.run("load")
			require.Zero(t, got.exit, got.log)
			require.Equal(t, row.want, got.conclusion, got.log)
			require.Equal(t, "False", s.json().Status)
		})
	}
}

// Only what hinders the plan: neither a warning nor a file of the generated configuration for a module that is not loaded here.
func TestARuleOnAModuleThatIsNotNeededIsNotMentioned(t *testing.T) {
	t.Parallel()
	s := newSandbox(t, plan+"backend: nft\nverify: {enabled: false}")
	s.hit(fault{loadable: []string{"nf_tables", "xt_owner", "xt_CT"}, files: map[string]string{
		"etc/modprobe.d/hardening.conf": "install iptable_nat /bin/false\nblacklist nft_redir\nalias ip6table_nat off\n",
	}})
	got := s.run("load")
	require.Equal(t, "True ModulesFound", s.outcome("load").says(), got.log)
	report := s.json()
	require.Empty(t, report.Rules)
	require.Empty(t, report.Warnings)
	require.NotContains(t, s.report("--machineconfig"), "hardening.conf")
}
