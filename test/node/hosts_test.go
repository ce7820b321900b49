package node

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"

	ignition "github.com/coreos/ignition/v2/config/v3_2"
	machineconfigv1 "github.com/openshift/api/machineconfiguration/v1"
	"github.com/stretchr/testify/require"
	"github.com/vincent-petithory/dataurl"
	corev1 "k8s.io/api/core/v1"

	"github.com/istio-os-init/istio-os-init/test/internal/chart"
	"github.com/istio-os-init/istio-os-init/test/internal/docs"
)

const (
	legacyMesh = "backend: legacy\n"
	native     = "BackendUnavailable: set global.nativeNftables (Istio 1.27 on)"
	dmesg      = "see the host's kernel log (dmesg) for what it refused"
	takenType  = "allow container load the SELinux type spc_t (SCC, admission policy), or load the modules at boot"
	allow      = "allow these capabilities (SCC, admission policy), or load the modules at boot"
	k9         = "5.14.0-503.11.1.el9_5.x86_64"
)

func missing(names, fix string) string { return "ModuleNotOnDisk: " + names + ". Fix: " + fix }
func overridden(names, fix string) string {
	return "ModuleOverridden: " + names + ". Fix: " + fix
}

// conf is a file of modprobe.d.
func conf(lines ...string) map[string]string {
	return map[string]string{"etc/modprobe.d/x.conf": strings.Join(lines, "\n") + "\n"}
}

// hosts is the table. The names say what is the matter; docs/systems.md has each row.
var hosts = []host{
	// As installed.
	{name: "as installed", system: "rhel8"},
	{name: "as installed", system: "rhel9"},
	{
		name: "as installed", system: "rhel10", values: "backend: nft\n",
		want: want{line: missing("nft_compat, xt_comment, xt_CT", "dnf install kernel-modules-extra-6.12.0-211.26.1.el10_2.x86_64"), also: []string{native}},
	},
	{
		name: "as installed, and a mesh before Istio 1.25.4", system: "rhel10", values: legacyMesh,
		want: want{
			line: "BackendUnavailable: no legacy, but native-nft. Fix: set global.nativeNftables (Istio 1.27 on)",
			also: []string{"ModuleNotOnDisk: dnf install kernel-modules-extra-6.12.0-211.26.1.el10_2.x86_64"},
		},
	},
	{name: "as installed", system: "rhcos9"},
	{
		name: "as installed", system: "rhcos10",
		want: want{line: missing("nft_compat, xt_comment, xt_CT", "bring kernel-modules-extra-6.12.0-211.47.1.el10_2.x86_64 into the OS image")},
	},
	{name: "as installed", system: "rocky8"},
	{name: "as installed", system: "rocky9"},
	{
		name: "as installed", system: "rocky10",
		want: want{line: missing("nft_compat, xt_comment, xt_CT", "dnf install kernel-modules-extra-6.12.0-211.26.1.el10_2.aarch64")},
	},
	{name: "as installed", system: "alma8"},
	{
		name: "as installed", system: "alma10",
		want: want{line: missing("nft_compat, xt_comment, xt_CT", "dnf install kernel-modules-extra-6.12.0-124.52.2.el10_1.x86_64")},
	},
	{name: "as installed", system: "ol9"},
	{
		name: "as installed", system: "ol10",
		want: want{line: missing("nft_compat, xt_comment, xt_CT", "dnf install kernel-modules-extra-6.12.0-55.40.1.0.1.el10_0.x86_64")},
	},
	{name: "as installed", system: "amzn2"},
	{name: "as installed", system: "amzn2023"},
	{name: "as installed", system: "amzn2023-6.18"},
	{
		name: "as installed, and a mesh before Istio 1.25.4", system: "amzn2023-6.18", values: legacyMesh,
		want: want{
			line: "BackendUnavailable: no legacy, but nft, native-nft. Fix: use Istio 1.25.4 or later, and set backend=nft",
			also: []string{"ModuleNotOnDisk: dnf install kernel6.18-modules-extra-6.18.15-14.217.amzn2023.x86_64"},
		},
	},
	{name: "as installed", system: "fcos"},
	{name: "as installed", system: "fedora"},
	{name: "as installed", system: "sles"},
	{name: "as installed", system: "sle-micro"},
	{name: "as installed", system: "sl-micro"},
	{name: "as installed", system: "leap"},
	{name: "as installed, with AKS's rules", system: "ubuntu22"},
	{name: "as installed", system: "ubuntu24", zst: true},
	{name: "as installed", system: "ubuntu26", zst: true},
	{name: "as installed", system: "debian13"},
	{name: "as installed", system: "raspios"},
	{name: "as installed", system: "proxmox"},
	{name: "as installed", system: "flatcar"},
	{name: "as installed", system: "bottlerocket"},
	{name: "as installed", system: "talos"},
	{
		name: "as installed, and a mesh before Istio 1.25.4", system: "talos", values: legacyMesh,
		want: want{
			line: "BackendUnavailable: no legacy, but nft, native-nft. Fix: use Istio 1.25.4 or later, and set backend=nft",
			also: []string{"ModuleNotOnDisk: use a release of the system whose kernel has them"},
		},
	},
	{name: "as installed", system: "cos"},
	{
		name: "as installed, with linux-esx", system: "photon",
		want: want{line: missing("nf_tables, nft_counter", "tdnf install linux, boot that kernel in place of linux-esx")},
	},
	{name: "as installed", system: "openeuler"},
	{name: "as installed, with AKS's rules", system: "azurelinux"},
	{
		name: "modprobe is where NixOS has it", system: "nixos",
		breaks: func(s *sandbox) {
			require.NoError(s.t, os.MkdirAll(s.path("host/run/current-system/sw/bin"), 0o755))
			require.NoError(s.t, os.Rename(s.path("host/usr/sbin/modprobe"), s.path("host/run/current-system/sw/bin/modprobe")))
		},
	},
	{name: "as installed, and a mesh before Istio 1.25.4", system: "centos7", values: legacyMesh},
	{
		name: "a kernel without modules, and nothing proven", system: "orbstack", none: true, breaks: gone("proc/modules"),
		want: want{line: "ModuleMissing: nf_tables, nft_compat, nft_chain_nat and 7 more. Fix: set verify.enabled=true to let behaviour decide"},
	},

	// Modules that are not on disk.
	{
		name: "UEK without its extra modules", system: "ol9", without: []string{"xt_owner"},
		want: want{line: missing("xt_owner", "dnf install kernel-uek-modules-extra-netfilter-6.12.0-103.40.4.4.el9uek.x86_64")},
	},
	{
		name: "a kernel of one's own", system: "rocky9", kernel: "6.6.0-mine", without: []string{"xt_owner"},
		want: want{line: missing("xt_owner", "install the package that has all modules of kernel 6.6.0-mine")},
	},
	{
		name: "a module is missing", system: "fcos", without: []string{"xt_owner"},
		want: want{line: missing("xt_owner", "bring kernel-modules-extra-6.4.12-200.fc38.aarch64 into the OS image")},
	},
	{
		name: "a module is missing from an image made of ostree", system: "fedora", without: []string{"xt_owner"}, files: map[string]string{"run/ostree-booted": ""},
		want: want{line: missing("xt_owner", "rpm-ostree install kernel-modules-extra-6.4.12-200.fc38.x86_64, then reboot")},
	},
	{
		name: "a module is missing", system: "sles", without: []string{"xt_owner"},
		want: want{line: missing("xt_owner", "zypper install --force kernel-default")},
	},
	{
		name: "a module is missing", system: "sle-micro", without: []string{"xt_owner"},
		want: want{line: missing("xt_owner", "transactional-update pkg install kernel-default, then reboot")},
	},
	{
		name: "a module is missing", system: "sl-micro", without: []string{"xt_owner"},
		want: want{line: missing("xt_owner", "transactional-update pkg install kernel-default, then reboot")},
	},
	{
		name: "a module is missing", system: "ubuntu22", without: []string{"xt_owner"},
		want: want{line: missing("xt_owner", "apt-get install linux-modules-extra-5.15.0-1042-azure")},
	},
	{
		name: "a module is missing", system: "ubuntu26", without: []string{"xt_owner"},
		want: want{line: missing("xt_owner", "apt-get install --reinstall linux-modules-7.0.0-15-generic")},
	},
	{
		name: "a module is missing", system: "ubuntu-raspi", without: []string{"xt_CT"},
		want: want{line: missing("xt_CT", "apt-get install linux-modules-extra-5.13.0-1008-raspi")},
	},
	{
		name: "a module is missing", system: "debian13", without: []string{"xt_owner"},
		want: want{line: missing("xt_owner", "apt-get install --reinstall linux-image-6.12.118+deb13-cloud-amd64")},
	},
	{
		name: "a module is missing", system: "raspios", without: []string{"xt_owner"},
		want: want{line: missing("xt_owner", "apt-get install --reinstall raspberrypi-kernel, then reboot")},
	},
	{
		name: "a module is missing", system: "proxmox", without: []string{"xt_owner"},
		want: want{line: missing("xt_owner", "reinstall the package that dpkg -S /lib/modules/6.5.11-8-pve names")},
	},
	{
		name: "a module is missing", system: "flatcar", without: []string{"xt_owner"},
		want: want{line: missing("xt_owner", "use a release of the system whose kernel has them")},
	},
	{
		name: "a module is missing", system: "openeuler", without: []string{"xt_owner"},
		want: want{line: missing("xt_owner", "install the package that has all modules of kernel 6.6.0-132.0.0.111.oe2403sp3.x86_64")},
	},
	{
		name: "an upgrade has removed the running kernel's modules", system: "raspios", none: true, loaded: []string{"bridge"}, files: map[string]string{"usr/lib/modules/4.19.75-v8+/modules.dep": "x\n"},
		want: want{line: missing("nf_tables, nft_compat, nft_chain_nat and 7 more", "reboot the node: kernel 4.19.67-v8+ runs, but its modules are not on disk"), sentence: "the modules of the running kernel are gone"},
	},
	{
		name: "only a module of DKMS is left", system: "proxmox", none: true, loaded: []string{"bridge"},
		breaks: func(s *sandbox) {
			s.put("usr/lib/modules/6.5.11-8-pve/updates/dkms/wireguard.ko", string(module{name: "wireguard", release: "6.5.11-8-pve"}.bytes()))
			s.put("usr/lib/modules/6.5.11-8-pve/modules.builtin", "")
			s.put("usr/lib/modules/6.5.11-8-pve/modules.order", "")
			s.put("usr/lib/modules/6.5.11-8-pve/modules.builtin.modinfo", "")
			s.depmod("6.5.11-8-pve")
		},
		want: want{line: missing("nf_tables, nft_compat, nft_chain_nat and 7 more", "reboot the node: kernel 6.5.11-8-pve runs, but its modules are not on disk")},
	},
	{
		name: "the node is a container of LXC", system: "proxmox", none: true, loaded: []string{"bridge"}, files: map[string]string{"run/systemd/container": "lxc\n"},
		want: want{line: missing("nf_tables, nft_compat, nft_chain_nat and 7 more", "load them on the machine that runs this node as a container (lxc)"), sentence: "this node is a container"},
	},
	{
		name: "the list of modules is missing", system: "rocky9", breaks: gone("usr/lib/modules/"+k9+"/modules.dep", "usr/lib/modules/"+k9+"/modules.dep.bin"),
		want: want{line: missing("nf_tables, nft_compat, nft_chain_nat and 7 more", "depmod -a "+k9), sentence: "the list of modules is missing or older than the files"},
	},
	{
		name: "the list that modprobe reads is missing", system: "rocky9", breaks: gone("usr/lib/modules/" + k9 + "/modules.dep.bin"),
		want: want{line: missing("nf_tables, nft_compat, nft_chain_nat and 6 more", "depmod -a "+k9)},
	},
	{
		name: "a file on the list is gone", system: "rocky9", breaks: gone("usr/lib/modules/" + k9 + "/kernel/net/netfilter/xt_owner.ko"),
		want: want{line: missing("xt_owner", "reinstall what rpm -qf /usr/lib/modules/"+k9+"/kernel/net/netfilter/xt_owner.ko names"), sentence: "is on the list of modules, but not there"},
	},
	{
		name: "a file on the list is gone", system: "azurelinux", breaks: gone("usr/lib/modules/6.6.130.1-3.azl3/kernel/net/netfilter/xt_owner.ko"),
		want: want{line: missing("xt_owner", "reinstall the package that has /usr/lib/modules/6.6.130.1-3.azl3/kernel/net/netfilter/xt_owner.ko")},
	},
	{
		name: "a file that two modules need is gone", system: "debian13", breaks: gone("usr/lib/modules/6.12.118+deb13-cloud-amd64/kernel/net/netfilter/nf_conntrack.ko"),
		want: want{line: missing("nf_conntrack (needed by nft_chain_nat, xt_REDIRECT, xt_CT)", "reinstall what dpkg -S /usr/lib/modules/6.12.118+deb13-cloud-amd64/kernel/net/netfilter/nf_conntrack.ko names")},
	},
	{
		name: "a kernel that is built without a module", system: "debian13", without: []string{"xt_owner"},
		files: map[string]string{"boot/config-6.12.118+deb13-cloud-amd64": "CONFIG_MODULES=y\n# CONFIG_NETFILTER_XT_MATCH_OWNER is not set\nCONFIG_NETFILTER_XT_TARGET_CT=m\n"},
		want: want{
			line:     missing("xt_owner", "boot a kernel that is built with it, or use another backend"),
			sentence: "the kernel is built without (CONFIG_NETFILTER_XT_MATCH_OWNER in /boot/config-6.12.118+deb13-cloud-amd64)",
		},
	},

	// Rules of modprobe.d.
	{
		name: "a vendor's rules on what the plan's modules need", system: "rocky9", files: conf("install nf_conntrack /bin/true", "install nf_nat /bin/true"),
		want: want{
			line:   overridden("nf_conntrack (needed by nft_chain_nat, xt_REDIRECT, xt_CT)", "remove line 1 of /etc/modprobe.d/x.conf"),
			config: map[string]string{"/etc/modprobe.d/x.conf": ""},
		},
	},
	{
		name: "Cloudera's rules against iptables", system: "centos7", values: legacyMesh,
		files: map[string]string{"etc/modprobe.d/iptables-blacklist.conf": "# Ensure that the ip_tables and iptable_filter modules are not able to load\ninstall ip_tables /bin/false\ninstall iptable_filter /bin/false\n"},
		want: want{
			line:   overridden("ip_tables (needed by iptable_nat, iptable_raw), iptable_filter", "remove line 2 of /etc/modprobe.d/iptables-blacklist.conf; remove line 3 of /etc/modprobe.d/iptables-blacklist.conf"),
			config: map[string]string{"/etc/modprobe.d/iptables-blacklist.conf": "# Ensure that the ip_tables and iptable_filter modules are not able to load"},
		},
	},
	{
		name: "a pattern", system: "ubuntu24", zst: true, files: conf("install nf_conn* /bin/false"),
		want: want{
			line:   overridden("nf_conntrack (needed by nft_chain_nat, xt_REDIRECT, xt_CT)", "remove line 1 of /etc/modprobe.d/x.conf"),
			config: map[string]string{"/etc/modprobe.d/x.conf": ""},
		},
	},
	{
		name: "a pattern that only modprobe understands", system: "debian13", files: conf("install xt_own[a-z]r /bin/false"),
		want: want{line: overridden("xt_owner", "remove the line that shows in modprobe --showconfig | grep xt_owner"), sentence: "this instead of loading xt_owner: /bin/false."},
	},
	{
		name: "a rule on two lines, with CRLF", system: "rhel9", files: conf("# CIS\r", "install \\", "xt-owner /bin/false\r", "options nf_conntrack hashsize=1\r"),
		want: want{
			line:   overridden("xt_owner", "remove line 2 of /etc/modprobe.d/x.conf"),
			config: map[string]string{"/etc/modprobe.d/x.conf": "# CIS\noptions nf_conntrack hashsize=1"},
		},
	},
	{
		name: "an alias leads nowhere", system: "sles", files: conf("options a b=c", "alias xt_owner off"),
		want: want{
			line:   overridden("xt_owner", "remove line 2 of /etc/modprobe.d/x.conf"),
			config: map[string]string{"/etc/modprobe.d/x.conf": "options a b=c"},
		},
	},
	{
		name: "rules through an absolute link", system: "debian13", files: map[string]string{"etc/modprobe.d/x.conf": "-> /opt/x.conf", "opt/x.conf": "install xt_owner /bin/false\n"},
		want: want{line: overridden("xt_owner", "remove line 1 of /etc/modprobe.d/x.conf"), config: map[string]string{"/etc/modprobe.d/x.conf": ""}},
	},
	{
		name: "rules that a configuration manager writes", system: "alma8", files: conf("# Ansible managed", "install xt_owner /bin/false"),
		want: want{
			line:   overridden("xt_owner", "remove line 2 of /etc/modprobe.d/x.conf (there: Ansible managed)"),
			config: map[string]string{"/etc/modprobe.d/x.conf": "# Ansible managed"},
		},
	},
	{
		name: "rules that come with a package", system: "leap", files: map[string]string{"usr/lib/modprobe.d/50-no-tracking.conf": "# no tracking\ninstall nf_conntrack /bin/true\n"},
		want: want{
			line:   overridden("nf_conntrack (needed by nft_chain_nat, xt_REDIRECT, xt_CT)", "copy /usr/lib/modprobe.d/50-no-tracking.conf to /etc/modprobe.d without line 2"),
			config: map[string]string{"/etc/modprobe.d/50-no-tracking.conf": "# no tracking"},
		},
	},
	{
		name: "rules of a hardening profile", system: "rhcos9", files: map[string]string{"etc/modprobe.d/hardening.conf": "blacklist usb-storage\ninstall xt_owner /bin/false\n"},
		want: want{
			line:   overridden("xt_owner", "apply report --config machineconfig, which is without line 2 of /etc/modprobe.d/hardening.conf"),
			config: map[string]string{"/etc/modprobe.d/hardening.conf": "blacklist usb-storage"},
		},
	},
	{
		name: "a setting forbids a module", system: "bottlerocket", files: map[string]string{"etc/modprobe.d/modprobe.conf": "install nf_conntrack /bin/true\n"},
		want: want{
			line:   overridden("nf_conntrack (needed by nft_chain_nat, xt_REDIRECT, xt_CT)", "apiclient set kernel.modules.nf_conntrack.allowed=true"),
			config: map[string]string{"/etc/modprobe.d/modprobe.conf": ""},
		},
	},
	{
		name: "the kernel's command line forbids what a module needs", system: "rhel8", files: map[string]string{"proc/cmdline": "quiet module_blacklist=floppy,nf_conntrack\n"},
		want: want{line: "ModuleBlocklisted: nf_conntrack (needed by nft_chain_nat, xt_REDIRECT, xt_CT). Fix: take nf_conntrack out of module_blacklist= on the kernel's command line and reboot"},
	},
	{
		name: "a module is blocklisted", system: "debian13", files: conf("blacklist xt_owner"),
		want: want{
			warnings: []string{"xt_owner is blocklisted (/etc/modprobe.d/x.conf:1): loaded by its name now, but not at boot"},
			config:   map[string]string{"/etc/modprobe.d/x.conf": ""},
		},
	},
	{
		name: "a module is blocklisted on the command line", system: "ubuntu24", files: map[string]string{"proc/cmdline": "ro modprobe.blacklist=xt_owner,nf_conntrack"},
		want: want{warnings: []string{"xt_owner is blocklisted (/proc/cmdline:modprobe.blacklist): loaded by its name now, but not at boot"}},
	},
	{
		name: "a rule on a module that is loaded", system: "rocky9", loaded: []string{"nf_defrag_ipv4", "nf_defrag_ipv6", "libcrc32c", "nf_conntrack"}, files: conf("install nf_conntrack /bin/true"),
		want: want{
			warnings: []string{"nf_conntrack is overridden (/etc/modprobe.d/x.conf:1): loaded now, but not after a reboot"},
			config:   map[string]string{"/etc/modprobe.d/x.conf": ""},
		},
	},
	{name: "rules on modules that no backend of this mesh needs", system: "rhel9", files: conf("install iptable_nat /bin/false", "blacklist nft_redir", "alias ip6table_nat off")},
	{
		name: "a rule that loads the module in the end", system: "debian13", files: conf("install xt_owner /sbin/modprobe --ignore-install xt_owner"),
		want: want{config: map[string]string{"/etc/modprobe.d/x.conf": ""}},
	},
	{name: "a name in quotes, which modprobe does not take", system: "fedora", files: conf(`install "xt_owner" /bin/false`)},
	{name: "a rule without a command, which modprobe passes over", system: "alma8", files: conf("install xt_owner")},
	{name: "a rule that a comment swallows", system: "sles", files: conf(`# see below \`, "install xt_owner /bin/false")},
	{name: "a rule that a link to nothing hides", system: "rocky8", files: map[string]string{"etc/modprobe.d/x.conf": "-> /dev/null", "usr/lib/modprobe.d/x.conf": "install xt_owner /bin/false\n"}},
	{name: "options and soft dependencies", system: "flatcar", files: conf("softdep nf_conntrack pre: nothing_of_this_name", "options xt_owner none=1")},

	// Files as people and tools write them.
	{
		name: "a name with a space", system: "rocky9", aside: true, files: map[string]string{"etc/modprobe.d/my own rules.conf": "\ninstall xt_owner /bin/false\n"},
		want: want{line: overridden("xt_owner", "remove line 2 of /etc/modprobe.d/my own rules.conf"), config: map[string]string{"/etc/modprobe.d/my own rules.conf": ""}},
	},
	{
		name: "a name with a colon", system: "rocky9", aside: true, files: map[string]string{"etc/modprobe.d/10:cis:2.conf": "install xt_owner /bin/false\n"},
		want: want{line: overridden("xt_owner", "remove line 1 of /etc/modprobe.d/10:cis:2.conf"), config: map[string]string{"/etc/modprobe.d/10:cis:2.conf": ""}},
	},
	{
		name: "a name with what a shell expands", system: "rocky9", aside: true, files: map[string]string{"etc/modprobe.d/$(touch x) *.conf": "install xt_owner /bin/false\n"},
		want: want{line: overridden("xt_owner", "remove line 1 of /etc/modprobe.d/$(touch x) *.conf"), config: map[string]string{"/etc/modprobe.d/$(touch x) *.conf": ""}},
	},
	{name: "rules on a part of a name", system: "rocky9", aside: true, files: conf("install xt_owner2 /bin/false", "install xt /bin/false")},
	{name: "a file of another kind", system: "rocky9", aside: true, files: map[string]string{"etc/modprobe.d/x.conf.bak": "install xt_owner /bin/false\n"}},
	{
		name: "a relative link to a name of another kind", system: "rocky9", aside: true, files: map[string]string{"etc/modprobe.d/x.conf": "-> ../../opt/x", "opt/x": "install xt_owner /bin/false\n"},
		want: want{line: overridden("xt_owner", "remove line 1 of /etc/modprobe.d/x.conf"), config: map[string]string{"/etc/modprobe.d/x.conf": ""}},
	},
	{
		name: "an absolute link of the directory", system: "rocky9", aside: true, files: map[string]string{"etc/modprobe.d": "-> /opt/rules", "opt/rules/x.conf": "install xt_owner /bin/false\n"},
		want: want{line: overridden("xt_owner", "remove line 1 of /opt/rules/x.conf"), config: map[string]string{"/etc/modprobe.d/x.conf": ""}},
	},
	{
		name: "a link to itself", system: "rocky9", aside: true, files: map[string]string{"etc/modprobe.d/a.conf": "-> a.conf", "etc/modprobe.d/x.conf": "install xt_owner /bin/false\n"},
		want: want{line: overridden("xt_owner", "remove line 1 of /etc/modprobe.d/x.conf"), config: map[string]string{"/etc/modprobe.d/x.conf": ""}},
	},
	{name: "a link to this container's files", system: "rocky9", aside: true, files: map[string]string{"etc/modprobe.d/x.conf": "-> /proc/self/environ"}},
	{name: "an absolute link of the modules", system: "rocky9", aside: true, breaks: func(s *sandbox) {
		require.NoError(s.t, os.Mkdir(s.path("host/opt"), 0o755))
		require.NoError(s.t, os.Rename(s.path("host/usr/lib/modules"), s.path("host/opt/modules")))
		s.put("usr/lib/modules", "-> /opt/modules")
	}},
	{name: "an absolute link of the kernel's modules", system: "rocky9", aside: true, breaks: func(s *sandbox) {
		require.NoError(s.t, os.Mkdir(s.path("host/opt"), 0o755))
		require.NoError(s.t, os.Rename(s.path("host/usr/lib/modules/"+k9), s.path("host/opt/kernel")))
		s.put("usr/lib/modules/"+k9, "-> /opt/kernel")
	}},
	{
		name: "a link of the modules that leads nowhere", system: "rocky9", aside: true, none: true, loaded: []string{"bridge"}, files: map[string]string{"usr/lib/modules": "-> /opt/modules"},
		want: want{line: missing("nf_tables, nft_compat, nft_chain_nat and 7 more", "reboot the node: kernel "+k9+" runs, but its modules are not on disk")},
	},

	// What the kernel answers.
	{
		name: "lockdown, and a file without a signature", system: "bottlerocket",
		breaks: func(s *sandbox) {
			s.put("usr/lib/modules/5.10.118/kernel/net/netfilter/xt_owner.ko", string(module{name: "xt_owner", release: "5.10.118", needs: []string{"x_tables"}, unsigned: true}.bytes()))
		},
		want: want{line: "ModuleUnsigned: xt_owner. Fix: sign the modules with a key that the kernel trusts (mokutil --list-enrolled)", sentence: "Operation not permitted. Its lockdown is integrity."},
	},
	{
		name: "lockdown, and a rule", system: "bottlerocket", files: map[string]string{"etc/modprobe.d/modprobe.conf": "install xt_owner /bin/false\n"},
		want: want{line: overridden("xt_owner", "apiclient set kernel.modules.xt_owner.allowed=true"), config: map[string]string{"/etc/modprobe.d/modprobe.conf": ""}},
	},
	{
		name: "a key that the kernel does not know", system: "rhel9", errors: map[string]syscall.Errno{"xt_owner": syscall.EKEYREJECTED},
		want: want{line: "ModuleUnsigned: xt_owner. Fix: sign the modules with a key that the kernel trusts (mokutil --list-enrolled)", sentence: "Key was rejected by service"},
	},
	{
		name: "no key of this name", system: "sles", errors: map[string]syscall.Errno{"xt_owner": syscall.ENOKEY},
		want: want{line: "ModuleUnsigned: xt_owner. Fix: sign the modules with a key that the kernel trusts (mokutil --list-enrolled)", sentence: "Required key not available"},
	},
	{
		name: "a file of another kernel", system: "debian13",
		breaks: func(s *sandbox) {
			s.put("usr/lib/modules/6.12.118+deb13-cloud-amd64/kernel/net/netfilter/xt_owner.ko", string(module{name: "xt_owner", release: "6.12.90", needs: []string{"x_tables"}}.bytes()))
		},
		want: want{line: "ModuleRefused: xt_owner. Fix: compare modinfo -F vermagic xt_owner with uname -r: the file is another kernel's", sentence: "Exec format error"},
	},
	{
		name: "a file of another kernel, lockdown, and a rule on a loaded module that it needs", system: "bottlerocket", loaded: []string{"x_tables"}, files: conf("install x_tables /bin/false"),
		errors: map[string]syscall.Errno{"xt_owner": syscall.ENOEXEC},
		want: want{
			line:   "ModuleRefused: xt_owner. Fix: compare modinfo -F vermagic xt_owner with uname -r: the file is another kernel's",
			config: map[string]string{"/etc/modprobe.d/x.conf": ""},
		},
	},
	{
		name: "a file that the kernel cannot read", system: "ubuntu24", errors: map[string]syscall.Errno{"xt_owner": syscall.EINVAL},
		want: want{line: "ModuleRefused: xt_owner. Fix: " + dmesg, sentence: "Invalid argument"},
	},
	{
		name: "kernel.modules_disabled", system: "ubuntu24", files: map[string]string{"proc/sys/kernel/modules_disabled": "1\n"},
		want: want{line: "ModulesDisabled: nf_tables, nft_compat, nft_chain_nat and 6 more. Fix: remove kernel.modules_disabled from sysctl.d and reboot"},
	},
	{
		name: "SELinux denies it", system: "rhel9", files: map[string]string{"sys/fs/selinux/enforce": "1"}, errors: map[string]syscall.Errno{"xt_owner": syscall.EACCES},
		want: want{
			line: "ModuleDenied: xt_owner. Fix: restorecon -R /lib/modules, or see the denial with ausearch -m avc -ts recent",
		},
	},
	{
		name: "SELinux bans it", system: "rhel9", files: map[string]string{
			"sys/fs/selinux/enforce": "1", "sys/fs/selinux/booleans/secure_mode_insmod": "1 1", "sys/kernel/security/lsm": "capability,selinux",
		}, errors: map[string]syscall.Errno{"xt_owner": syscall.EPERM},
		want: want{
			line: "ModuleDenied: xt_owner. Fix: setsebool -P secure_mode_insmod off",
		},
	},
	{
		name: "the platform takes the SELinux type of load, which then sees no list of modules", system: "rhel9", errors: map[string]syscall.Errno{"xt_owner": syscall.EPERM},
		files:  map[string]string{"proc/self/attr/current": "system_u:system_r:container_t:s0:c412,c812"},
		breaks: func(s *sandbox) { require.NoError(s.t, os.Remove(s.path("host/usr/lib/modules/"+k9+"/modules.dep"))) },
		want:   want{line: "LoadConfined: container_t. Fix: " + takenType},
	},
	{
		name: "the platform takes the SELinux type of load, and the kernel refuses what it asks for", system: "rhcos9", errors: map[string]syscall.Errno{"xt_owner": syscall.EPERM},
		files: map[string]string{"proc/self/attr/current": "system_u:system_r:container_t:s0", "sys/fs/selinux/enforce": "1"},
		want:  want{line: "LoadConfined: container_t. Fix: " + takenType},
	},
	{
		name: "the runtime sets no label, and a module is missing", system: "rhel9",
		files: map[string]string{"proc/self/attr/current": "system_u:system_r:unconfined_service_t:s0", "sys/fs/selinux/enforce": "1", "etc/modprobe.d/x.conf": "install xt_owner /bin/false\n"},
		want:  want{line: overridden("xt_owner", "remove line 1 of /etc/modprobe.d/x.conf"), config: map[string]string{"/etc/modprobe.d/x.conf": ""}},
	},
	{
		name: "Bottlerocket's name of the type", system: "rhel9", errors: map[string]syscall.Errno{"xt_owner": syscall.EINVAL},
		files: map[string]string{"proc/self/attr/current": "system_u:system_r:control_t:s0-s0:c0.c1023", "sys/fs/selinux/enforce": "1"},
		want:  want{line: "ModuleRefused: xt_owner. Fix: " + dmesg, sentence: "Invalid argument"},
	},
	{
		name: "a type of the platform's own, by udica", system: "rhcos9", errors: map[string]syscall.Errno{"xt_owner": syscall.EPERM},
		files: map[string]string{"proc/self/attr/current": "system_u:system_r:nodes.process:s0", "sys/fs/selinux/enforce": "1"},
		want:  want{line: "LoadConfined: nodes.process. Fix: " + takenType},
	},
	{
		name: "load may not enter the host's root", system: "debian13",
		breaks: func(s *sandbox) { require.NoError(s.t, os.Chmod(s.path("host"), 0)) },
		want:   want{line: "LoadConfined: chroot to the host. Fix: allow container load chroot (crictl inspect shows its profiles), or load the modules at boot"},
	},
	{
		name: "the platform takes the SELinux type of load, SELinux is permissive, and a file is another kernel's", system: "rhel9", errors: map[string]syscall.Errno{"xt_owner": syscall.ENOEXEC},
		files: map[string]string{"proc/self/attr/current": "system_u:system_r:container_t:s0:c412,c812", "sys/fs/selinux/enforce": "0"},
		want:  want{line: "ModuleRefused: xt_owner. Fix: compare modinfo -F vermagic xt_owner with uname -r: the file is another kernel's"},
	},
	{
		name: "load has its SELinux type, and there is a rule", system: "rhel9", want: want{line: overridden("xt_owner", "remove line 1 of /etc/modprobe.d/x.conf"), config: map[string]string{"/etc/modprobe.d/x.conf": ""}},
		files: map[string]string{
			"proc/self/attr/current": "system_u:system_r:spc_t:s0", "sys/fs/selinux/enforce": "1", "etc/modprobe.d/x.conf": "install xt_owner /bin/false\n",
		},
	},
	{
		name: "AppArmor confines load, and there is a rule", system: "ubuntu24", want: want{line: overridden("xt_owner", "remove line 1 of /etc/modprobe.d/x.conf"), config: map[string]string{"/etc/modprobe.d/x.conf": ""}},
		files: map[string]string{"proc/self/attr/current": "cri-containerd.apparmor.d (enforce)", "etc/modprobe.d/x.conf": "install xt_owner /bin/false\n"},
	},
	{
		name: "something else than SELinux denies it", system: "ubuntu24", errors: map[string]syscall.Errno{"xt_owner": syscall.EACCES},
		want: want{line: "ModuleRefused: xt_owner. Fix: " + dmesg, sentence: "Permission denied"},
	},
	{
		name: "LoadPin denies it", system: "cos", errors: map[string]syscall.Errno{"*": syscall.EPERM},
		want: want{line: "ModuleRefused: nf_tables, nft_compat, nft_chain_nat and 7 more. Fix: see dmesg for the security module that denies it"},
	},
	{
		name: "the runtime's seccomp profile denies it", system: "openeuler", errors: map[string]syscall.Errno{"*": syscall.EPERM},
		want: want{
			line:     "SeccompDenied: nf_tables, nft_compat, nft_chain_nat and 6 more. Fix: allow init_module and finit_module in the container runtime's seccomp profile (crictl inspect shows it)",
			sentence: "(lockdown,capability,yama,apparmor,bpf)",
		},
	},
	{
		name: "the pod has a user namespace of its own", system: "ubuntu24", files: map[string]string{"proc/self/uid_map": "         0     100000      65536\n"}, errors: map[string]syscall.Errno{"*": syscall.EPERM},
		want: want{line: "CapabilityRefused: hostUsers. Fix: " + allow},
	},
	{
		name: "the platform refuses SYS_MODULE", system: "talos", builtin: nil, without: nil, kernel: "6.1.61-talos",
		breaks: func(s *sandbox) {
			require.NoError(s.t, os.RemoveAll(s.path("host/usr/lib/modules")))
			s.modules(host{kernel: "6.1.61-talos"}, nil, nil, nil)
			s.rendered("load").SecurityContext.Capabilities.Add = []corev1.Capability{"SYS_CHROOT"}
		},
		want: want{line: "CapabilityRefused: SYS_MODULE. Fix: " + allow},
	},

	// Without a modprobe that answers.
	{name: "as installed, with busybox's modprobe", system: "alpine", breaks: busybox},
	{
		name: "an alias leads busybox's modprobe nowhere", system: "alpine", breaks: busybox, files: conf("alias xt_owner off"),
		want: want{line: overridden("xt_owner", "remove line 1 of /etc/modprobe.d/x.conf"), config: map[string]string{"/etc/modprobe.d/x.conf": ""}},
	},
	{
		name: "a module is missing, and modprobe is busybox's", system: "alpine", breaks: busybox, without: []string{"xt_owner"},
		want: want{line: missing("xt_owner", "install the package that has all modules of kernel 6.6.94-0-lts")},
	},
	{
		name: "a file on the list is gone, and modprobe is busybox's", system: "alpine", breaks: func(s *sandbox) {
			busybox(s)
			gone("usr/lib/modules/6.6.94-0-lts/kernel/net/netfilter/xt_owner.ko")(s)
		},
		want: want{line: missing("xt_owner", "reinstall what apk info --who-owns /usr/lib/modules/6.6.94-0-lts/kernel/net/netfilter/xt_owner.ko names")},
	},
	{
		name: "the kernel refuses what busybox's modprobe loads first", system: "alpine", breaks: busybox, errors: map[string]syscall.Errno{"nf_conntrack": syscall.EKEYREJECTED},
		want: want{
			line:     "ModuleUnsigned: nft_chain_nat, xt_REDIRECT, xt_CT. Fix: sign the modules with a key that the kernel trusts (mokutil --list-enrolled)",
			sentence: "nft_chain_nat, xt_REDIRECT, xt_CT: Key was rejected by service.",
		},
	},
	{
		name: "no modprobe", system: "alma10", breaks: gone("usr/sbin/modprobe"),
		want: want{line: "ModprobeMissing: nf_tables, nft_compat, nft_chain_nat and 6 more. Fix: install kmod on the host, or load the modules at boot",
			also: []string{"ModuleNotOnDisk: dnf install kernel-modules-extra-6.12.0-124.52.2.el10_1.x86_64"}},
	},
	{
		name: "a modprobe that is no program", system: "debian13", breaks: func(s *sandbox) {
			require.NoError(s.t, os.Remove(s.path("host/usr/sbin/modprobe")))
			s.put("usr/sbin/modprobe", "\x7fELF")
			require.NoError(s.t, os.Chmod(s.path("host/usr/sbin/modprobe"), 0o755))
		},
		want: want{line: "ModprobeMissing: nf_tables, nft_compat, nft_chain_nat and 6 more. Fix: install kmod on the host, or load the modules at boot"},
	},
}

// Each host of the table as load, report and report --config machineconfig tell of it.
func TestEveryHostOfTheTableIsExplained(t *testing.T) {
	t.Parallel()
	needNamespaces(t)
	require.GreaterOrEqual(t, len(hosts), 60)
	names := map[string]bool{}
	for _, h := range hosts {
		require.False(t, names[h.system+h.name], "%s: %s is there twice", h.system, h.name)
		names[h.system+h.name] = true
		t.Run(h.system+" "+h.name, func(t *testing.T) {
			t.Parallel()
			h.isExplained(t)
		})
	}
}

func (h host) isExplained(t *testing.T) {
	t.Helper()
	s := h.on(t)
	got := s.loads()
	require.Zero(t, got.exit, got.log)
	if h.values != "" && h.want.line != "" {
		got = s.refuses()
	}
	if h.want.line == "" {
		require.Contains(t, []string{"True ModulesFound", "Unknown ModulesLoaded"}, s.outcome("load").says(), got.log)
		require.Empty(t, s.facts("missing"))
		if h.want.config == nil && h.want.warnings == nil { // what report says is made of this
			require.Empty(t, s.facts("rule"))
			return
		}
	}
	report, config := s.reports()
	line, _, _ := strings.Cut(report.Line, ". Also: ")
	if h.want.line != "" {
		require.Equal(t, h.want.line, line, got.log)
		require.Equal(t, "False", report.Status)
		require.Contains(t, report.Reasons[0].Sentence, h.want.sentence)
		var also []string
		for _, reason := range report.Reasons[1:] {
			also = append(also, reason.Reason+": "+reason.Fix)
		}
		require.Equal(t, h.want.also, also)
	}
	require.Equal(t, h.want.warnings, report.Warnings[:len(report.Warnings):len(report.Warnings)], got.log)
	require.Equal(t, h.want.config, config)
}

// refuses runs verify where the kernel refuses every rule, as it does without the modules.
func (s *sandbox) refuses() result {
	s.t.Helper()
	s.kernel = nil
	s.program("pilot-agent", "echo 'error: not permitted' >&2; exit 1")
	return s.run("verify")
}

// reports are report --json and, of report --config machineconfig, the files but the list of modules.
func (s *sandbox) reports() (jsonReport, map[string]string) {
	s.t.Helper()
	program := s.path("config/report")
	got := s.exec("watch", "/usr/bin/env", "ISTIO_OS_INIT_NODE=stand-in", "/bin/sh", "-c", program+" --json && "+program+" --config machineconfig")
	require.Zero(s.t, got.exit, got.log)
	var report jsonReport
	decoder := json.NewDecoder(strings.NewReader(got.log))
	decoder.DisallowUnknownFields()
	require.NoError(s.t, decoder.Decode(&report), got.log)
	if len(report.Warnings) == 0 {
		report.Warnings = nil
	}
	if strings.Contains(got.log[decoder.InputOffset():], " has nothing to load at boot: ") {
		return report, nil
	}
	object := chart.DecodeStrict[machineconfigv1.MachineConfig](s.t, got.log[decoder.InputOffset():])
	parsed, _, err := ignition.Parse(object.Spec.Config.Raw)
	require.NoError(s.t, err)
	var files map[string]string
	for _, file := range parsed.Storage.Files {
		if file.Path == "/etc/modules-load.d/istio.conf" {
			continue
		}
		url, err := dataurl.DecodeString(*file.Contents.Source)
		require.NoError(s.t, err)
		if files == nil {
			files = map[string]string{}
		}
		files[file.Path] = strings.TrimSpace(string(url.Data))
	}
	return report, files
}

// The page that lists for each system what its users see and do.
func TestThePageOfSystemsIsTheTable(t *testing.T) {
	t.Parallel()
	table := `| system | host | you see | what to do |
|---|---|---|---|
`
	var used []string
	for _, h := range hosts {
		if h.aside {
			continue
		}
		sees, do := "Ready", "nothing"
		if h.want.line != "" {
			reason, fix, _ := strings.Cut(h.want.line, ". Fix: ")
			sees, do = "`"+reason+"`", fix
			for _, also := range h.want.also {
				reason, fix, _ := strings.Cut(also, ": ")
				sees += "<br>`" + reason + "`"
				do += "<br>" + fix
			}
		}
		for _, warning := range h.want.warnings {
			sees, do = sees+"<br>warning: "+warning, "remove that rule"
		}
		table += fmt.Sprintf("| %s | %s | %s | %s |\n", systems[h.system].title, h.name, sees, strings.ReplaceAll(do, "|", `\|`))
		if !slices.Contains(used, h.system) {
			used = append(used, h.system)
		}
	}
	sources := "| system | kernel | sources |\n|---|---|---|\n"
	slices.Sort(used)
	for _, name := range used {
		sources += fmt.Sprintf("| %s | %s | %s |\n", systems[name].title, systems[name].kernel, strings.Join(systems[name].sources, "; "))
		require.NotEmpty(t, systems[name].sources, name)
	}
	for name := range systems {
		require.Contains(t, used, name, "no host is one")
	}
	docs.Section{Page: "systems.md", Name: "hosts"}.Is(t, table, "make generate")
	docs.Section{Page: "systems.md", Name: "sources"}.Is(t, sources, "make generate")
}
