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

const (
	rocky9 = "NAME=\"Rocky Linux\"\nID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"\nVERSION_ID=\"9.5\"\nPRETTY_NAME=\"Rocky Linux 9.5 (Blue Onyx)\"\n"
	plan   = "modules: {base: {nft: [nf_tables, xt_owner, xt_CT]}}\nmesh: {dns: false}\n"
)

// fault is a host that is broken, as load finds it.
type fault struct {
	name     string
	values   string
	loadable []string          // modules that the stand-in loads; default: all of plan but xt_owner
	refused  string            // modules that the kernel refuses, with its words
	files    map[string]string // of the host
	breaks   func(*sandbox)
	want     string
}

// Every reason from real rules that are refused (by the negative control) on a host that is not real: what load finds there
// explains the refusal.
func TestVerifyExplainsAFailureByWhatLoadFoundOnTheHost(t *testing.T) {
	t.Parallel()
	dnf := "dnf install kernel-modules-extra-5.14.0-0.el9.stand-in"
	for _, row := range []fault{
		{name: "not on disk", want: "ModuleNotOnDisk: xt_owner. Fix: " + dnf},
		{
			name: "the modules of the running kernel are gone", loadable: []string{"none"},
			files:  map[string]string{"proc/modules": "bridge 1 0 - Live 0x0\n"},
			breaks: func(s *sandbox) { require.NoError(s.t, os.RemoveAll(s.path("host/lib/modules/5.14.0-0.el9.stand-in"))) },
			want:   "ModuleNotOnDisk: nf_tables, xt_owner, xt_CT. Fix: reboot the node: kernel 5.14.0-0.el9.stand-in runs, but its modules are not on disk",
		},
		{
			name: "install rule", refused: "xt_owner Invalid argument\n",
			files: map[string]string{
				"lib/modules/5.14.0-0.el9.stand-in/modules.dep": "kernel/net/netfilter/xt_owner.ko.xz: kernel/net/netfilter/x_tables.ko.xz\n",
				"etc/modprobe.d/hardening.conf":                 "# CIS\n  install xt-owner /bin/false\n",
			},
			want: "ModuleOverridden: xt_owner. Fix: remove line 2 of /etc/modprobe.d/hardening.conf",
		},
		{
			name: "blocklisted by the kernel", refused: "xt_owner Operation not permitted\n",
			files: map[string]string{
				"lib/modules/5.14.0-0.el9.stand-in/modules.dep": "kernel/net/netfilter/xt_owner.ko.xz:\n",
				"proc/cmdline": "BOOT_IMAGE=/vmlinuz quiet module_blacklist=floppy,xt_owner\n",
			},
			want: "ModuleBlocklisted: xt_owner. Fix: take xt_owner out of module_blacklist= on the kernel's command line and reboot",
		},
		{
			name: "refused by signature", refused: "xt_owner Key was rejected by service\n",
			files: map[string]string{
				"lib/modules/5.14.0-0.el9.stand-in/modules.dep": "kernel/net/netfilter/xt_owner.ko:\n",
				"sys/kernel/security/lockdown":                  "none [integrity] confidentiality\n",
			},
			want: "ModuleUnsigned: xt_owner. Fix: sign the modules with a key that the kernel trusts (mokutil --list-enrolled)",
		},
		{
			name: "refused for another cause", refused: "xt_owner Exec format error\n",
			files: map[string]string{"lib/modules/5.14.0-0.el9.stand-in/modules.dep": "kernel/net/netfilter/xt_owner.ko:\n"},
			want:  "ModuleRefused: xt_owner. Fix: compare modinfo -F vermagic xt_owner with uname -r: the file is another kernel's",
		},
		{
			name: "kernel.modules_disabled", refused: "xt_owner Operation not permitted\n",
			files: map[string]string{
				"lib/modules/5.14.0-0.el9.stand-in/modules.dep": "kernel/net/netfilter/xt_owner.ko:\n",
				"proc/sys/kernel/modules_disabled":              "1\n",
			},
			want: "ModulesDisabled: xt_owner. Fix: remove kernel.modules_disabled from sysctl.d and reboot",
		},
		{
			name:   "no modprobe",
			files:  map[string]string{"lib/modules/5.14.0-0.el9.stand-in/modules.dep": "kernel/xt_owner.ko:\nkernel/nf_tables.ko:\nkernel/xt_CT.ko:\n"},
			breaks: func(s *sandbox) { require.NoError(s.t, os.Remove(s.path("host/usr/sbin/modprobe"))) },
			want:   "ModprobeMissing: nf_tables, xt_owner, xt_CT. Fix: install kmod on the host, or load the modules at boot",
		},
		{
			name:  "the platform refuses the capabilities",
			files: map[string]string{"lib/modules/5.14.0-0.el9.stand-in/modules.dep": "kernel/xt_owner.ko:\nkernel/nf_tables.ko:\nkernel/xt_CT.ko:\n"},
			breaks: func(s *sandbox) {
				s.rendered("load").SecurityContext.Capabilities.Add = nil
			},
			want: "CapabilityRefused: SYS_MODULE, SYS_CHROOT. Fix: allow these capabilities (SCC, admission policy), or load the modules at boot",
		},
		{
			name:   "one backend only",
			values: plan + "backend: nft",
			files:  map[string]string{"lib/modules/5.14.0-0.el9.stand-in/modules.dep": "kernel/nft_chain_nat.ko.xz:\nkernel/nft_redir.ko.xz:\nkernel/nf_tables.ko.xz:\n"},
			want:   "ModuleNotOnDisk: xt_owner. Fix: " + dnf + ". Also: BackendUnavailable",
		},
		{
			name:   "more modules than a line holds",
			values: "backend: nft",
			want:   "ModuleNotOnDisk: nft_compat, nft_chain_nat, xt_REDIRECT and 4 more. Fix: " + dnf,
		},
		{
			name: "two faults at once", refused: "xt_owner Invalid argument\n", loadable: []string{"nf_tables"},
			files: map[string]string{
				"lib/modules/5.14.0-0.el9.stand-in/modules.dep": "kernel/net/netfilter/xt_owner.ko:\n",
				"usr/lib/modprobe.d/x.conf":                     "install xt_owner /bin/true\n",
			},
			want: "ModuleNotOnDisk: xt_CT. Fix: " + dnf + ". Also: ModuleOverridden",
		},
		{
			name: "a kernel that has no modules", loadable: []string{"none"},
			breaks: func(s *sandbox) {
				require.NoError(s.t, os.Remove(s.path("host/proc/modules")))
				require.NoError(s.t, os.RemoveAll(s.path("host/lib/modules")))
			},
			want: "RulesRejected: xtables resource problem: Extension ipvs revision 0 not supported, missing kernel module?. Fix: see the log of verify",
		},
		{
			name: "a rule that another file hides", loadable: []string{"nf_tables", "xt_owner", "xt_CT"},
			files: map[string]string{
				"usr/lib/modprobe.d/x.conf": "install xt_owner /bin/true\n",
				"etc/modprobe.d/x.conf":     "\n",
			},
			want: "RulesRejected: xtables resource problem: Extension ipvs revision 0 not supported, missing kernel module?. Fix: see the log of verify",
		},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			if row.values == "" {
				row.values = plan + "backend: nft"
			}
			s := newSandbox(t, row.values).withIstio().refusing("-m ipvs --ipvs -j RETURN")
			s.hit(row)
			got := s.run("load", "verify")
			require.Zero(t, got.exit, got.log)
			line, words, _ := strings.Cut(got.conclusion, "\n")
			require.Equal(t, row.want, line)
			require.LessOrEqual(t, len(line), 140)
			require.Regexp(t, "^  the kernel says: .*Extension ipvs revision 0 not supported", words)
			require.Contains(t, got.log, got.conclusion, "the termination message is in the log too")
			require.Equal(t, got.conclusion, s.run("verify-traffic").conclusion, "the last container's message, which the list of nodes shows")
			outcome := s.outcome("verify")
			name, _, _ := strings.Cut(row.want, ":")
			require.Equal(t, "False "+name, outcome.says())
			require.Contains(t, row.want, outcome.reasons[0].fix)
			text := s.report()
			require.Contains(t, text, "CANNOT run the mesh")
			for _, reason := range outcome.reasons {
				require.NotEmpty(t, reason.sentence)
				require.Contains(t, text, "\n  "+reason.name+": "+reason.sentence+"\n    Fix: "+reason.fix+"\n", "each reason with its fix")
			}
		})
	}
}

// The fix can be typed as it stands: the package that has the missing module for the kernel that runs, named as its distribution does.
func TestTheFixNamesThePackageOfTheRunningKernel(t *testing.T) {
	t.Parallel()
	rocky := "os-id rocky\nos-like rhel centos fedora\n"
	oracle := "os-id ol\nos-like fedora\n"
	amazon := "os-id amzn\nos-like fedora\n"
	coreos := "os-id rhel\nos-like fedora\nos-variant coreos\n"
	for _, row := range []struct{ name, facts, kernel, fix string }{
		{"Rocky", rocky, "5.14.0-503.el9.x86_64", "dnf install kernel-modules-extra-5.14.0-503.el9.x86_64"},
		{"RHEL 9 real-time", rocky, "5.14.0-503.el9.x86_64+rt", "dnf install kernel-rt-modules-extra-5.14.0-503.el9.x86_64"},
		{"RHEL 9 pages of 64k", rocky, "5.14.0-503.el9.aarch64+64k", "dnf install kernel-64k-modules-extra-5.14.0-503.el9.aarch64"},
		{"RHEL 9 real-time with pages of 64k", rocky, "5.14.0-570.el9.aarch64+rt-64k", "dnf install kernel-rt-64k-modules-extra-5.14.0-570.el9.aarch64"},
		{"RHEL 10 pages of 64k, debug", rocky, "6.12.0-55.el10.aarch64+64k-debug", "dnf install kernel-64k-debug-modules-extra-6.12.0-55.el10.aarch64"},
		{"RHEL 8 real-time", rocky, "4.18.0-553.8.1.rt7.349.el8_10.x86_64", "dnf install kernel-rt-modules-extra-4.18.0-553.8.1.rt7.349.el8_10.x86_64"},
		{"OpenShift by VARIANT_ID", coreos, "5.14.0-503.el9.x86_64", "bring kernel-modules-extra-5.14.0-503.el9.x86_64 into the OS image"},
		{"OpenShift real-time", coreos, "5.14.0-427.18.1.el9_4.x86_64+rt", "bring kernel-rt-modules-extra-5.14.0-427.18.1.el9_4.x86_64 into the OS image"},
		{"OpenShift by ID", "os-id rhcos\nos-like rhel fedora\n", "5.14.0-503.el9.x86_64", "bring kernel-modules-extra-5.14.0-503.el9.x86_64 into the OS image"},
		{"Oracle RHEL's kernel", oracle, "5.14.0-503.el9.x86_64", "dnf install kernel-modules-extra-5.14.0-503.el9.x86_64"},
		{"Oracle, UEK 8", oracle, "6.12.0-103.40.4.4.el9uek.x86_64", "dnf install kernel-uek-modules-extra-netfilter-6.12.0-103.40.4.4.el9uek.x86_64"},
		{"Oracle UEK 8 pages of 64k", oracle, "6.12.0-0.20.20.el9uek.aarch64.64k", "dnf install kernel-uek64k-modules-extra-netfilter-6.12.0-0.20.20.el9uek.aarch64"},
		{"Oracle UEK 7", oracle, "5.15.0-306.177.4.1.el9uek.x86_64", "dnf install kernel-uek-modules-5.15.0-306.177.4.1.el9uek.x86_64"},
		{"Oracle UEK 7 pages of 64k", oracle, "5.15.0-306.177.4.1.el9uek.aarch64.64k", "dnf install kernel-uek64k-modules-5.15.0-306.177.4.1.el9uek.aarch64"},
		{"Oracle UEK 6", oracle, "5.4.17-2136.341.3.el8uek.x86_64", "dnf install kernel-uek-5.4.17-2136.341.3.el8uek.x86_64"},
		{"Amazon 2023 its first kernel", amazon, "6.1.61-85.141.amzn2023.x86_64", "dnf install kernel-modules-extra-6.1.61-85.141.amzn2023.x86_64"},
		{"Amazon 2023 a later one", amazon, "6.12.20-23.97.amzn2023.x86_64", "dnf install kernel6.12-modules-extra-6.12.20-23.97.amzn2023.x86_64"},
		{"ELRepo", rocky, "6.15.4-1.el9.elrepo.x86_64", "dnf install 'kernel-[lm][lt]-modules-extra-6.15.4-1.el9.elrepo.x86_64'"},
		{"Ubuntu", "os-id ubuntu\nos-like debian\n", "6.8.0-31-generic", "apt-get install linux-modules-extra-6.8.0-31-generic"},
		{"Debian", "os-id debian\n", "6.12.48+deb13-amd64", "apt-get install --reinstall linux-image-6.12.48+deb13-amd64"},
		{"SUSE", "os-id sles\nos-like suse\n", "6.4.0-150600.23.25-default", "zypper install --force kernel-default"},
		{"SUSE on Azure", "os-id sles\nos-like suse\n", "6.4.0-150600.8.20-azure", "zypper install --force kernel-azure"},
		{"unknown", "os-id linux\n", "6.6.0-1", "install the package that has all modules of kernel 6.6.0-1"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			require.Contains(t, "\n"+explained(t, "kernel "+row.kernel+"\n"+row.facts+"modules-disabled 0\nmodprobe failed\nmodules-dir /x\nkernel-files 9\nmissing xt_owner not-on-disk x\n"),
				"\nline ModuleNotOnDisk: xt_owner. Fix: "+row.fix+"\n")
		})
	}
}

// explained is the record that load makes of facts.
func explained(t *testing.T, facts string) string {
	t.Helper()
	command := exec.CommandContext(t.Context(), "awk", "-f", chart.Script("text.awk"), "-f", chart.Script("explain.awk"), "-f", chart.Script("outcome.awk"))
	command.Env = []string{"PATH=" + os.Getenv("PATH"), "files=" + filepath.Dir(chart.Script("reasons")), "given=explain", "round=1", "uptime=1"}
	command.Stdin = strings.NewReader(facts)
	output, err := command.CombinedOutput()
	require.NoError(t, err, string(output))
	return string(output)
}

// hit breaks the host.
func (s *sandbox) hit(broken fault) {
	s.t.Helper()
	require.NoError(s.t, os.MkdirAll(s.path("host/etc"), 0o755))
	s.write("host/etc/os-release", rocky9)
	for name, content := range broken.files {
		require.NoError(s.t, os.MkdirAll(filepath.Dir(s.path("host/"+name)), 0o755))
		s.write("host/"+name, content)
	}
	if broken.loadable == nil {
		broken.loadable = []string{"nf_tables", "xt_CT"}
	}
	s.loadable(broken.loadable...)
	s.write("host/stand-in/refused", broken.refused)
	if broken.breaks != nil {
		broken.breaks(s)
	}
}

// RHEL 10 with a mesh that uses iptables-legacy: no package helps.
func TestVerifyNamesTheBackendThatANodeHasInstead(t *testing.T) {
	t.Parallel()
	s := newSandbox(t, "backend: legacy").withIstio()
	s.rendered("verify").SecurityContext.Capabilities.Add = nil // refuses every rule
	s.hit(fault{files: map[string]string{"lib/modules/5.14.0-0.el9.stand-in/modules.dep": "kernel/nft_chain_nat.ko.xz:\nkernel/nft_redir.ko.xz:\nkernel/nf_tables.ko.xz:\nkernel/nft_ct.ko.xz:\nkernel/nft_counter.ko:\n"}})
	got := s.run("load", "verify")
	require.Regexp(t, `^BackendUnavailable: no legacy, but native-nft\. Fix: set global\.nativeNftables \(Istio 1\.27 on\)\. Also: ModuleNotOnDisk\n  the kernel says: `, got.conclusion, got.log)
	outcome := s.outcome("verify")
	require.Equal(t, "False BackendUnavailable", outcome.says())
	require.Equal(t, "legacy cannot work on this node, whose kernel has no iptable_nat, xt_REDIRECT, xt_owner and 8 more; the modules of native-nft are available.", outcome.reasons[0].sentence)
	require.Equal(t, "has its modules on disk", outcome.backends["native-nft"])
	require.Regexp(t, "^lacks nft_compat", outcome.backends["nft"])
	require.Contains(t, s.report(), "  backend native-nft has its modules on disk\n")
}

func TestVerifyTellsWhichOtherBackendsWork(t *testing.T) {
	t.Parallel()
	s := newSandbox(t, "").withIstio()
	s.write("host/lib/modules/5.14.0-0.el9.stand-in/modules.builtin", "kernel/nf_tables.ko\nkernel/nft_chain_nat.ko\nkernel/nft_redir.ko\nkernel/nft_counter.ko\nkernel/nft_ct.ko\n")
	got := s.run("load", "verify", "verify-traffic")
	want := map[string]string{
		"nft":        "works",
		"legacy":     "lacks iptable_nat xt_REDIRECT xt_owner xt_tcpudp iptable_filter ip6table_nat ip6table_mangle ip6table_raw ip6table_filter iptable_raw xt_CT xt_multiport",
		"native-nft": "works", // tried, since its modules are in the kernel
	}
	require.Equal(t, want, s.outcome("verify").backends, got.log)
	require.Equal(t, want, s.outcome("traffic").backends, "the last outcome has it too")

	want["native-nft"] = "has its modules" // no more can be said without the program
	require.NoError(t, os.RemoveAll(s.path("state")))
	s.newState()
	got = s.program("nft", "exit 127").run("load", "verify")
	require.Equal(t, want, s.outcome("verify").backends, "an image without nft: %s", got.log)

	s = newSandbox(t, "{backend: native-nft, mesh: {dns: false}}").withIstio()
	got = s.run("load", "verify")
	const lacks = "lacks nf_tables nft_compat nft_chain_nat xt_REDIRECT xt_owner xt_tcpudp xt_comment nft_counter"
	require.Equal(t, lacks, s.outcome("verify").backends["nft"], "two entries begin with nft_chain_nat: %s", got.log)
}

// What is wrong by name and yet no failure.
func TestNoFalseAlarmWhereTheRulesApply(t *testing.T) {
	t.Parallel()
	for name, broken := range map[string]fault{
		"no lists of modules, but a modprobe that works": {breaks: func(s *sandbox) {
			require.NoError(s.t, os.Remove(s.path("host/proc/modules")))
			require.NoError(s.t, os.RemoveAll(s.path("host/lib/modules")))
		}},
		"a monolithic kernel": {breaks: func(s *sandbox) {
			require.NoError(s.t, os.Remove(s.path("host/proc/modules")))
			require.NoError(s.t, os.RemoveAll(s.path("host/lib/modules")))
			require.NoError(s.t, os.Remove(s.path("host/usr/sbin/modprobe")))
		}},
		"built in":                  {files: map[string]string{"lib/modules/5.14.0-0.el9.stand-in/modules.builtin": "kernel/xt-owner.ko\n"}},
		"a name that no kernel has": {values: "modules: {extra: [no_kernel_has_this]}"},
		"loaded by somebody else":   {files: map[string]string{"proc/modules": "xt_owner 1 0 - Live 0x0\nnf_tables 1 0 - Live 0x0\nxt_CT 1 0 - Live 0x0\n"}},
		"no modprobe":               {breaks: func(s *sandbox) { require.NoError(s.t, os.Remove(s.path("host/usr/sbin/modprobe"))) }},
		"modules disabled":          {files: map[string]string{"proc/sys/kernel/modules_disabled": "1\n"}},
		"no capability": {breaks: func(s *sandbox) {
			s.rendered("load").SecurityContext.Capabilities.Add = nil
		}},
		"an empty host": {breaks: func(s *sandbox) { require.NoError(s.t, os.RemoveAll(s.path("host/etc"))) }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSandbox(t, plan+broken.values).withIstio()
			s.hit(broken)
			got := s.run("load", "verify", "verify-traffic")
			require.Equal(t, "True RedirectionProven", s.outcome("traffic").says(), got.log)
			require.NotContains(t, got.log, "Fix: ")
			text := s.report()
			require.Contains(t, text, "node stand-in can run the mesh: RedirectionProven: ")
			require.NotContains(t, text, "Fix: ")
			require.Equal(t, name == "a monolithic kernel", strings.Contains(text, "  missing: xt_owner; this kernel has no modules, so only the proof tells\n"), text)
		})
	}
}

func TestReportIsForPeopleAndForPrograms(t *testing.T) {
	t.Parallel()
	s := newSandbox(t, plan+"backend: nft").withIstio().refusing("-m ipvs --ipvs -j RETURN")
	s.hit(fault{
		refused: "xt_owner Invalid argument\n",
		files: map[string]string{
			"lib/modules/5.14.0-0.el9.stand-in/modules.dep": "kernel/net/netfilter/xt_owner.ko:\n",
			"etc/modprobe.d/x.conf":                         "install xt_owner /bin/sh -c \"echo 'no' \\\\ no\"\nblacklist nf_tables\n",
		},
		breaks: func(s *sandbox) {
			require.NoError(s.t, os.MkdirAll(s.path("host/run/systemd/units"), 0o755))
			require.NoError(s.t, os.Symlink("x", s.path("host/run/systemd/units/invocation:firewalld.service")))
		},
	})
	got := s.run("load", "verify", "verify-traffic")
	require.Regexp(t, "^ModuleOverridden: xt_owner", got.conclusion, "verify-traffic repeats what is decided")

	text := s.report()
	for _, want := range []string{
		"node stand-in CANNOT run the mesh", "backend nft refused", "the kernel says: xtables resource problem",
		"ModuleOverridden: modprobe.d has modprobe do this instead of loading xt_owner: /bin/sh", "Fix: remove line 1 of /etc/modprobe.d/x.conf",
		"warning: nf_tables is blocklisted (/etc/modprobe.d/x.conf:2)", "warning: firewalld is active",
		"os Rocky Linux 9.5 (Blue Onyx); kernel 5.14.0-0.el9.stand-in", "loaded-now: nf_tables xt_CT", "missing: xt_owner, on-disk; modprobe: ERROR: could not insert 'xt_owner': Invalid argument",
		"modules of the kernel on disk: 1, in /lib/modules/5.14.0-0.el9.stand-in\n", "gone: xt_owner /lib/modules/5.14.0-0.el9.stand-in/kernel/net/netfilter/xt_owner.ko\n",
	} {
		require.Contains(t, text, want)
	}

	report := s.json()
	require.Equal(t, "stand-in", report.Node)
	require.Equal(t, "False", report.Status)
	require.Equal(t, "ModuleOverridden", report.Reason)
	require.Equal(t, 1, report.Round)
	require.Equal(t, "ModuleOverridden: xt_owner. Fix: remove line 1 of /etc/modprobe.d/x.conf", report.Line)
	require.Equal(t, `modprobe.d has modprobe do this instead of loading xt_owner: /bin/sh -c "echo 'no' \\ no". Fix: remove line 1 of /etc/modprobe.d/x.conf.`, report.Message)
	require.Contains(t, report.Error, "Extension ipvs")
	require.Equal(t, "refused", report.Backends["nft"])
	require.Equal(t, "5.14.0-0.el9.stand-in", report.Facts["kernel"])
	require.Equal(t, map[string]bool{"SYS_MODULE": true, "SYS_CHROOT": true}, report.Capabilities)
	require.Equal(t, []jsonReason{{
		Reason: "ModuleOverridden", Subject: "xt_owner", Fix: "remove line 1 of /etc/modprobe.d/x.conf",
		Sentence: `modprobe.d has modprobe do this instead of loading xt_owner: /bin/sh -c "echo 'no' \\ no".`,
	}}, report.Reasons)
	require.Equal(t, []string{
		"nf_tables is blocklisted (/etc/modprobe.d/x.conf:2): loaded by its name now, but not at boot",
		"firewalld is active: when it stops or reloads completely, it may unload modules (always before 1.0)",
	}, report.Warnings)
	require.Equal(t, []string{"firewalld"}, report.Services)
	require.Equal(t, []jsonModule{{"nf_tables", "loaded-now"}, {"xt_CT", "loaded-now"}}, report.Modules)
	require.Equal(t, []jsonMissing{{"xt_owner", "on-disk", "ERROR: could not insert 'xt_owner': Invalid argument"}}, report.Missing)
	require.Equal(t, []jsonRule{
		{"install", "xt_owner", "/etc/modprobe.d/x.conf:1", `/bin/sh -c "echo 'no' \\ no"`},
		{"blacklist", "nf_tables", "/etc/modprobe.d/x.conf:2", ""},
	}, report.Rules)
}
