package node

import "strings"

// system is what an operating system's nodes are like, as public sources show it: what its os-release says, the release of one of its
// kernels, and where the two come from.
type system struct {
	title     string // as the page names it
	osRelease string
	kernel    string
	sources   []string
	builtin   []string // modules of netfilter that are in the kernel; * for all
	without   []string // that the kernel as installed does not have
	old       []string // of those in older, that it has
	files     map[string]string
}

// release is an os-release with what load reads of it.
func release(id, like, version, variant, pretty string) string {
	var text strings.Builder
	for _, line := range [][2]string{{"NAME", pretty}, {"ID", id}, {"ID_LIKE", like}, {"VERSION_ID", version}, {"VARIANT_ID", variant}, {"PRETTY_NAME", pretty}} {
		if line[1] != "" {
			text.WriteString(line[0] + "=\"" + line[1] + "\"\n")
		}
	}
	return text.String()
}

const (
	// osReleases and chefs are collections of os-release files of real installations.
	osReleases = "github.com/which-distro/os-release at b92bccaf, "
	chefs      = "github.com/chef/os_release at 198876e0, "
)

// el10 are modules that the images of RHEL 10 leave to kernel-modules-extra.
var el10 = append([]string{"nft_compat", "xt_comment", "xt_CT", "ip_set", "xt_set", "ip_set_hash_ip"}, legacy...)

// cis are the rules that AKS writes to each of its nodes, shortened: none of them is on a module that a mesh needs.
const cis = "# 3.5.2 Ensure SCTP is disabled\ninstall sctp /bin/true\ninstall rds /bin/true\ninstall cramfs /bin/true\nblacklist cramfs\ninstall usb-storage /bin/true\nblacklist usb-storage\ninstall esp4 /bin/false\nblacklist esp4\n"

// systems. The names of packages in files/remedies are from uek-rpm/ol9 of oracle/linux-uek (core-*.list of release 7, modules.yaml.S of
// release 8), kernel.spec of RHEL (KVERREL+variant), the package lists of Amazon Linux 2023, of RHEL 8's real-time kernel and of ELRepo,
// and from the sources below.
var systems = map[string]system{
	"rhel8": {
		title: "Red Hat Enterprise Linux 8", osRelease: release("rhel", "fedora", "8.10", "", "Red Hat Enterprise Linux 8.10 (Ootpa)"),
		kernel: "4.18.0-305.3.1.el8.x86_64", sources: []string{osReleases + "rhel/8.10", "github.com/sctp/lksctp-tools/issues/40: kernel, and sctp-blacklist.conf"}, old: []string{"nft_counter"},
		files: map[string]string{"etc/modprobe.d/sctp-blacklist.conf": "# blocklisted until an administrator wants it\nblacklist sctp\n"},
	},
	"rhel9": {
		title: "Red Hat Enterprise Linux 9", osRelease: release("rhel", "fedora", "9.6", "", "Red Hat Enterprise Linux 9.6 (Plow)"),
		kernel: "5.14.0-503.11.1.el9_5.x86_64", sources: []string{osReleases + "rhel/9.6", "the kernel of Rocky Linux 9.5"},
	},
	"rhel10": {
		title: "Red Hat Enterprise Linux 10", osRelease: release("rhel", "centos fedora", "10.0", "", "Red Hat Enterprise Linux 10.0 (Coughlan)"),
		kernel: "6.12.0-211.26.1.el10_2.x86_64", without: el10,
		sources: []string{osReleases + "rhel/10.0", "github.com/kubernetes/kops/pull/18724 and github.com/openshift/microshift/pull/7069: what the images leave out"},
	},
	"rhcos9": {
		title: "Red Hat CoreOS 9 (OpenShift 4)", osRelease: release("rhcos", "rhel fedora", "4.13", "coreos", "Red Hat Enterprise Linux CoreOS 413.90.202212151724-0 (Plow)"),
		kernel: "5.14.0-687.39.1.el9_8.x86_64", files: map[string]string{"run/ostree-booted": ""},
		sources: []string{"github.com/red-hat-storage/ocs-ci/pull/16005: kernel"},
	},
	"rhcos10": {
		title: "Red Hat CoreOS 10 (OpenShift 5)", osRelease: release("rhel", "fedora", "10.2", "coreos", "Red Hat Enterprise Linux CoreOS 10.2.20260817-0 (Coughlan)"),
		kernel: "6.12.0-211.47.1.el10_2.x86_64", without: el10, files: map[string]string{"run/ostree-booted": ""},
		sources: []string{"github.com/red-hat-storage/ocs-ci/pull/16005: name and kernel", "github.com/openshift/microshift/pull/7069: what is left out"},
	},
	"rocky8": {
		title: "Rocky Linux 8", osRelease: release("rocky", "rhel centos fedora", "8.10", "", "Rocky Linux 8.10 (Green Obsidian)"),
		kernel: "4.18.0-305.19.1.el8_4.x86_64", sources: []string{osReleases + "rocky/8.10"}, old: []string{"nft_counter"},
	},
	"rocky9": {
		title: "Rocky Linux 9", osRelease: release("rocky", "rhel centos fedora", "9.5", "", "Rocky Linux 9.5 (Blue Onyx)"),
		kernel: "5.14.0-503.11.1.el9_5.x86_64", sources: []string{osReleases + "rocky/9.5"},
	},
	"rocky10": {
		title: "Rocky Linux 10", osRelease: release("rocky", "rhel centos fedora", "10.0", "", "Rocky Linux 10.0 (Red Quartz)"),
		kernel: "6.12.0-211.26.1.el10_2.aarch64", without: el10, sources: []string{osReleases + "rocky/10.0", "github.com/kubernetes/kops/pull/18724: kernel, and what the image leaves out"},
	},
	"alma8": {
		title: "AlmaLinux 8", osRelease: release("almalinux", "rhel centos fedora", "8.10", "", "AlmaLinux 8.10 (Cerulean Leopard)"),
		kernel: "4.18.0-305.19.1.el8_4.x86_64", old: []string{"nft_counter"}, sources: []string{osReleases + "almalinux/8.10", "github.com/canonical/lxd/issues/9424: kernel"},
	},
	"alma10": {
		title: "AlmaLinux 10", osRelease: release("almalinux", "rhel centos fedora", "10.0", "", "AlmaLinux 10.0 (Purple Lion)"),
		kernel: "6.12.0-124.52.2.el10_1.x86_64", without: el10, sources: []string{osReleases + "almalinux/10.0", "github.com/k3s-io/k3s-ansible/issues/536: kernel"},
	},
	"ol9": {
		title: "Oracle Linux 9 with UEK", osRelease: release("ol", "fedora", "9.5", "server", "Oracle Linux Server 9.5"),
		kernel: "6.12.0-103.40.4.4.el9uek.x86_64", sources: []string{osReleases + "ol/server/9.5", "github.com/oracle/linux-uek: package names"},
	},
	"ol10": {
		title: "Oracle Linux 10 with RHEL's kernel", osRelease: release("ol", "fedora", "10.0", "server", "Oracle Linux Server 10.0"),
		kernel: "6.12.0-55.40.1.0.1.el10_0.x86_64", without: el10, sources: []string{"github.com/longhorn/longhorn/issues/12317: kernel, what is left out, and the package that has it"},
	},
	"amzn2": {
		title: "Amazon Linux 2", osRelease: release("amzn", "centos rhel fedora", "2", "", "Amazon Linux 2"), kernel: "4.14.186-146.268.amzn2.x86_64",
		without: []string{"nft_chain_nat"}, old: []string{"nft_counter", "nft_chain_nat_ipv4", "nft_chain_nat_ipv6"},
		sources: []string{osReleases + "amzn/2", "github.com/falcosecurity/test-infra/pull/161: kernel"},
	},
	"amzn2023": {
		title: "Amazon Linux 2023", osRelease: release("amzn", "fedora", "2023", "", "Amazon Linux 2023"), kernel: "6.1.141-155.222.amzn2023.x86_64",
		sources: []string{osReleases + "amzn/2023", "github.com/amazonlinux/amazon-linux-2023/issues/994: kernel"},
	},
	"amzn2023-6.18": {
		title: "Amazon Linux 2023 with Linux 6.18", osRelease: release("amzn", "fedora", "2023", "", "Amazon Linux 2023"), kernel: "6.18.15-14.217.amzn2023.x86_64",
		without: legacy, sources: []string{osReleases + "amzn/2023", "github.com/replicatedhq/kURL/pull/5963: kernel, and that it has no ip_tables"},
	},
	"fcos": {
		title: "Fedora CoreOS", osRelease: release("fedora", "", "40", "coreos", "Fedora CoreOS 40"), kernel: "6.4.12-200.fc38.aarch64",
		files: map[string]string{"run/ostree-booted": ""}, sources: []string{osReleases + "fedora/coreos/40", "github.com/coreos/fedora-coreos-tracker/issues/1556: kernel, and rpm-ostree install"},
	},
	"fedora": {
		title: "Fedora 43", osRelease: release("fedora", "", "43", "server", "Fedora Linux 43 (Server Edition)"), kernel: "6.4.12-200.fc38.x86_64",
		sources: []string{chefs + "fedora_43", "the kernel's number is an example of its form"},
	},
	"sles": {
		title: "SUSE Linux Enterprise Server 15", osRelease: release("sles", "suse", "15.7", "", "SUSE Linux Enterprise Server 15 SP7"), kernel: "6.4.0-150600.23.25-default",
		sources: []string{osReleases + "sles/15.7", "the kernel's number is an example of its form"},
	},
	"sle-micro": {
		title: "SUSE Linux Enterprise Micro 5", osRelease: release("suse-microos", "suse", "5.1", "", "SUSE Linux Enterprise Micro 5.1"), kernel: "5.14.21-150400.24.63-default",
		sources: []string{osReleases + "suse-microos/5.1", "the kernel's number is an example of its form"},
	},
	"sl-micro": {
		title: "SUSE Linux Micro 6", osRelease: release("sl-micro", "suse", "6.0", "", "SUSE Linux Micro 6.0"), kernel: "6.4.0-28-default",
		sources: []string{"github.com/ansible/ansible at 7e19abea, .../fixtures/sl-micro.json: os-release", "github.com/rancher/rke2/issues/7458: kernel"},
	},
	"leap": {
		title: "openSUSE Leap 16", osRelease: release("opensuse-leap", "suse opensuse", "16.0", "", "openSUSE Leap 16.0"), kernel: "6.4.0-150600.23.25-default",
		sources: []string{osReleases + "opensuse-leap/16.0", "the kernel's number is an example of its form"},
	},
	"ubuntu22": {
		title: "Ubuntu 22.04 on Azure", osRelease: release("ubuntu", "debian", "22.04", "", "Ubuntu 22.04 LTS"), kernel: "5.15.0-1042-azure",
		files:   map[string]string{"etc/modprobe.d/CIS.conf": cis},
		sources: []string{osReleases + "ubuntu/22.04", "github.com/actions/runner-images/issues/8080: kernel and package", "github.com/Azure/AgentBaker at 06836ee2, .../modprobe-CIS.conf: rules"},
	},
	"ubuntu24": {
		title: "Ubuntu 24.04 on GKE", osRelease: release("ubuntu", "debian", "24.04", "", "Ubuntu 24.04 LTS"), kernel: "6.8.0-1029-gke",
		sources: []string{osReleases + "ubuntu/24.04", "github.com/NVIDIA/gpu-operator/issues/1726: kernel"},
	},
	"ubuntu26": {
		title: "Ubuntu 26.04", osRelease: release("ubuntu", "debian", "26.04", "", "Ubuntu 26.04 LTS"), kernel: "7.0.0-15-generic",
		sources: []string{"github.com/ccfos/huatuo/pull/248: name and kernel", "github.com/kairos-io/kairos/pull/3610: no linux-modules-extra since Linux 6.16"},
	},
	"ubuntu-raspi": {
		title: "Ubuntu on a Raspberry Pi", osRelease: release("ubuntu", "debian", "22.04", "", "Ubuntu 22.04 LTS"), kernel: "5.13.0-1008-raspi",
		sources: []string{osReleases + "ubuntu/22.04", "github.com/flannel-io/flannel/issues/1502: kernel, and the package that has the rest"},
	},
	"debian13": {
		title: "Debian 13", osRelease: release("debian", "", "13", "", "Debian GNU/Linux 13 (trixie)"), kernel: "6.12.118+deb13-cloud-amd64",
		sources: []string{osReleases + "debian/13", "the lab's kernel"},
	},
	"raspios": {
		title: "Raspberry Pi OS", osRelease: release("raspbian", "debian", "12", "", "Raspbian GNU/Linux 12 (bookworm)"), kernel: "4.19.67-v8+",
		without: []string{"nft_chain_nat"}, old: []string{"nft_counter", "nft_chain_nat_ipv4", "nft_chain_nat_ipv6"},
		sources: []string{osReleases + "raspbian/12", "github.com/TheRemote/Ubuntu-Server-raspi4-unofficial/issues/2: kernel"},
	},
	"proxmox": {
		title: "Proxmox VE", osRelease: release("debian", "", "12", "", "Debian GNU/Linux 12 (bookworm)"), kernel: "6.5.11-8-pve",
		sources: []string{osReleases + "debian/12", "github.com/ferrumgate/secure.install/issues/53: kernel"},
	},
	"flatcar": {
		title: "Flatcar Container Linux", osRelease: release("flatcar", "coreos", "4459.0.0", "", "Flatcar Container Linux by Kinvolk 4459.0.0 (Oklo)"), kernel: "6.12.81-flatcar",
		sources: []string{osReleases + "flatcar/4459.0.0", "github.com/flatcar/scripts/pull/3917: kernel; .../coreos-modules/files/commonconfig-6.12: netfilter as modules"},
	},
	"bottlerocket": {
		title: "Bottlerocket", osRelease: release("bottlerocket", "", "1.9.0", "aws-k8s-1.22", "Bottlerocket OS 1.9.0 (aws-k8s-1.22)"), kernel: "5.10.118", old: []string{"nft_counter"},
		sources: []string{"github.com/bottlerocket-os/bottlerocket/issues/2317: os-release", "github.com/bottlerocket-os/bottlerocket/pull/2274: kernel, and the file that a setting makes"},
		files:   map[string]string{"sys/kernel/security/lockdown": "none [integrity] confidentiality\n"},
	},
	"talos": {
		title: "Talos", osRelease: release("talos", "", "v1.13.3", "", "Talos (v1.13.3)"), kernel: "6.18.45-talos", builtin: []string{"*"}, without: legacy,
		sources: []string{"github.com/siderolabs/talos, pkg/machinery/version: os-release", "github.com/siderolabs/pkgs at 28f5f23c, kernel/build/config-amd64: netfilter built in, no iptables-legacy"},
	},
	"cos": {
		title: "Container-Optimized OS", osRelease: release("cos", "", "97", "", "Container-Optimized OS from Google"), kernel: "5.10.133+", old: []string{"nft_counter"},
		files:   map[string]string{"sys/kernel/security/lsm": "lockdown,capability,landlock,yama,loadpin,safesetid,bpf\n"},
		sources: []string{osReleases + "cos/97", "github.com/kubernetes-sigs/kernel-module-management/pull/151: kernel"},
	},
	"photon": {
		title: "Photon OS 5", osRelease: release("photon", "", "5.0", "", "VMware Photon OS/Linux"), kernel: "6.1.60-4.ph5-esx", without: append([]string{"nf_tables"}, legacy...),
		sources: []string{osReleases + "photon/5.0", "github.com/binhex/arch-qbittorrentvpn/issues/218: kernel", "github.com/vmware/photon/issues/1548: linux-esx leaves nf_tables out, linux has it"},
	},
	"openeuler": {
		title: "openEuler 24.03", osRelease: release("openEuler", "", "24.03", "", "openEuler 24.03 (LTS-SP3)"), kernel: "6.6.0-132.0.0.111.oe2403sp3.x86_64",
		files:   map[string]string{"sys/kernel/security/lsm": "lockdown,capability,yama,apparmor,bpf\n", "sys/kernel/security/lockdown": "[none] integrity confidentiality\n"},
		sources: []string{osReleases + "openEuler/24.03", "github.com/kubearmor/KubeArmor/pull/2688: kernel and security modules"},
	},
	"azurelinux": {
		title: "Azure Linux 3", osRelease: release("azurelinux", "", "3.0", "", "Microsoft Azure Linux 3.0"), kernel: "6.6.130.1-3.azl3",
		files:   map[string]string{"etc/modprobe.d/CIS.conf": cis},
		sources: []string{osReleases + "azurelinux/3.0", "github.com/cilium/cilium/issues/46023: kernel", "github.com/Azure/AgentBaker at 06836ee2, .../modprobe-CIS.conf: rules"},
	},
	"alpine": {
		title: "Alpine Linux", osRelease: release("alpine", "", "3.19.8", "", "Alpine Linux v3.19"), kernel: "6.6.94-0-lts",
		sources: []string{osReleases + "alpine/3.19.8", "the kernel's number is an example of its form"},
	},
	"nixos": {
		title: "NixOS", osRelease: release("nixos", "", "25.05", "", "NixOS 25.05 (Warbler)"), kernel: "6.12.41",
		sources: []string{osReleases + "nixos/25.05", "the kernel's number is an example of its form"},
	},
	"centos7": {
		title: "CentOS 7", osRelease: release("centos", "rhel fedora", "7", "", "CentOS Linux 7 (Core)"), kernel: "3.10.0-327.el7.x86_64",
		without: []string{"nft_chain_nat", "nft_compat", "nf_tables"}, sources: []string{osReleases + "centos/7", "github.com/opsnull/follow-me-install-kubernetes-cluster/issues/468: kernel"},
	},
	"orbstack": {
		title: "kind in OrbStack", osRelease: release("debian", "", "11", "", "Debian GNU/Linux 11 (bullseye)"), kernel: "6.3.13-orbstack-00217-g0f5ad12a9255",
		sources: []string{"github.com/orbstack/orbstack/issues/493: kernel, without a directory of modules"},
	},
}
