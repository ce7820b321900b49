package kernel

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/istio-os-init/istio-os-init/test/internal/docs"
	"github.com/istio-os-init/istio-os-init/test/internal/lab"
)

// What a user sees of each fault, from a host that really has it. The rows are docs/faults.md.
func TestEachFaultIsExplainedWithItsFix(t *testing.T) {
	vm := lab.TheVM(t)
	vm.DenyAutoload()
	kernel := strings.TrimSpace(vm.Run("uname -r"))
	section := docs.Section{Page: "faults.md", Name: "faults"}
	written, err := section.Rows()
	require.NoError(t, err)
	table := "| fault of the host | line | all reasons, each with its fix |\n|---|---|---|\n"
	for _, row := range []struct {
		name   string
		cover  bool // also with -short: what no test of test/node can have
		faults []string
		denial string // a part of those of SELinux, which the fault causes; the row needs it enforcing
		values string
		change string   // of the pod, by the platform
		want   string   // the outcome's line; empty: the node is Ready
		also   []string // reasons besides the first
		report string   // a part of the report, where the node is Ready
	}{
		{
			name: "a module is not on disk", faults: []string{"modules-gone=xt_owner"},
			want: "ModuleNotOnDisk: xt_owner. Fix: apt-get install --reinstall linux-image-<kernel>. Also: BackendUnavailable",
		},
		{
			name: "`install xt_owner /bin/false` in modprobe.d", faults: []string{"install-false=xt_owner"},
			want: "ModuleOverridden: xt_owner. Fix: remove line 1 of /etc/modprobe.d/lab-install-false.conf",
		},
		{
			name: "the same of a module that others need", faults: []string{"install-false=nf_conntrack"},
			want: "ModuleOverridden: nf_conntrack (needed by nft_chain_nat, xt_REDIRECT, xt_CT). Fix: remove line 1 of /etc/modprobe.d/lab-install-false.conf",
		},
		{
			name: "`alias xt_owner off` in modprobe.d", faults: []string{"alias-off=xt_owner"},
			want: "ModuleOverridden: xt_owner. Fix: remove line 1 of /etc/modprobe.d/lab-alias-off.conf",
		},
		{
			name: "the directory of the running kernel's modules is gone, as after an update", faults: []string{"kernel-gone"},
			want: "ModuleNotOnDisk: nf_tables, nft_compat, nft_chain_nat and 7 more. Fix: reboot the node: kernel <kernel> runs, but its modules are not on disk",
		},
		{
			name: "a module's file is damaged", faults: []string{"damaged=xt_owner"},
			want: "ModuleRefused: xt_owner. Fix: see the host's kernel log (dmesg) for what it refused",
		},
		{
			name: "nothing has loaded the modules, and the chart may not", values: "load: {enabled: false}",
			want: "ModuleNotLoaded: nf_tables, nft_compat, nft_chain_nat and 6 more. Fix: add to the node's configuration what report --config modules-load prints",
		},
		{
			name: "two faults at once", faults: []string{"modules-gone=xt_CT", "install-false=xt_owner"},
			want: "ModuleNotOnDisk: xt_CT. Fix: apt-get install --reinstall linux-image-<kernel>. Also: ModuleOverridden, BackendUnavailable",
			also: []string{"ModuleOverridden: remove line 1 of /etc/modprobe.d/lab-install-false.conf", "BackendUnavailable: "},
		},
		{
			name: "`blacklist xt_owner` in modprobe.d", faults: []string{"blocklisted=xt_owner"},
			report: "warning: xt_owner is blocklisted (/etc/modprobe.d/lab-blocklisted.conf:1): loaded by its name now, but not at boot",
		},
		{
			name: "no modprobe", faults: []string{"no-modprobe"},
			want: "ModprobeMissing: nf_tables, nft_compat, nft_chain_nat and 6 more. Fix: install kmod on the host, or load the modules at boot",
		},
		{
			name: "RHEL 10 without the modules of iptables-legacy and a mesh that uses them", faults: []string{"el10"}, values: "backend: legacy",
			want: "BackendUnavailable: no legacy, but nft, native-nft. Fix: use Istio 1.25.4 or later, and set backend=nft. Also: ModuleNotOnDisk",
		},
		{
			name: "the same and a mesh that leaves the choice to Istio", faults: []string{"el10"},
			report: "backend legacy lacks iptable_nat",
		},
		{
			name:   "the platform refuses SYS_MODULE",
			change: loadMayOnly("SYS_CHROOT"),
			want:   "CapabilityRefused: SYS_MODULE. Fix: allow these capabilities (SCC, admission policy), or load the modules at boot",
		},
		{
			name: "`kernel.modules_disabled=1`", faults: []string{"modules-disabled"},
			want: "ModulesDisabled: nf_tables, nft_compat, nft_chain_nat and 6 more. Fix: remove kernel.modules_disabled from sysctl.d and reboot",
		},
		{
			name: "a module's file with the label of a home directory", cover: true, faults: []string{"wrong-label=xt_owner"}, denial: "module_load",
			want: "ModuleDenied: xt_owner. Fix: restorecon -R /lib/modules, or see the denial with ausearch -m avc -ts recent",
		},
		{
			name: "SELinux's boolean `secure_mode_insmod`", cover: true, faults: []string{"insmod-banned"}, denial: "sys_module",
			want: "ModuleDenied: nf_tables, nft_compat, nft_chain_nat and 6 more. Fix: setsebool -P secure_mode_insmod off",
		},
		{
			name: "SELinux's boolean `domain_kernel_load_modules`, as on RHEL 10", faults: []string{"autoload-allowed"}, denial: "module_request",
			report: "can run the mesh",
		},
		{
			name: "the platform takes the SELinux type of `load`", cover: true, denial: ":container_t:",
			change: `{"initContainers": [{"name": "load", "securityContext": {"seLinuxOptions": null}}]}`,
			want:   "LoadConfined: container_t. Fix: allow container load the SELinux type spc_t (SCC, admission policy), or load the modules at boot",
		},
	} {
		line := "" // what is written, unless it is measured now
		for _, old := range written {
			if strings.HasPrefix(old, "| "+row.name+" |") {
				line = old + "\n"
			}
		}
		if testing.Short() && !row.cover {
			table += line
			continue
		}
		t.Run(row.name, func(t *testing.T) {
			vm := vm.On(t)
			if row.denial != "" {
				if !vm.SELinux() {
					t.Skip("NOT PROVEN: how a denial by SELinux is explained, which takes SELINUX=enforcing (scripts/lab/node).")
				}
				vm.ExpectDenial(row.denial)
			}
			vm.Unload()
			for _, fault := range row.faults {
				vm.Fault(fault)
			}
			release := lab.NewRelease(t)
			if row.change != "" {
				release.UpgradeChanged(row.values+"\n"+briefly, vm.Name, row.change)
			} else {
				require.NoError(t, release.Upgrade(row.values+"\n"+onlyBriefly(vm)))
			}
			sees, fixes := "", "none needed"
			if row.want == "" {
				release.WaitReadyOn(1)
				report := release.Exec(vm.Name, "report")
				require.Contains(t, report, "can run the mesh")
				require.Contains(t, report, row.report)
				sees = "Ready; `report` says: " + strings.ReplaceAll(row.report, kernel, "<kernel>")
			} else {
				outcome := release.WaitRefused(vm.Name)
				require.NotEmpty(t, outcome.Error)
				line := strings.ReplaceAll(outcome.Line, kernel, "<kernel>")
				require.Equal(t, row.want, line)
				sees, fixes = "`"+line+"`", ""
				for _, reason := range outcome.Reasons {
					fixes += fmt.Sprintf("%s: %s<br>", reason.Reason, strings.ReplaceAll(reason.Fix, kernel, "<kernel>"))
				}
				for _, also := range row.also {
					require.Contains(t, fixes, also)
				}
			}
			line = fmt.Sprintf("| %s | %s | %s |\n", row.name, sees, strings.TrimSuffix(fixes, "<br>"))
		})
		table += line
	}
	if !t.Failed() {
		section.Is(t, table, "make test-kernel")
	}
}
