package kernel

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/istio-os-init/istio-os-init/test/internal/chart"
	"github.com/istio-os-init/istio-os-init/test/internal/lab"
)

// A reason in the report, and its fix.
var reasonAndFix = regexp.MustCompile(`(?m)^  ([A-Z]\w+): .+\n    Fix: (.+)$`)

// What a user sees of each fault, from a host that really has it. The rows are docs/faults.md.
func TestEachFaultIsExplainedWithItsFix(t *testing.T) {
	vm := lab.TheVM(t)
	vm.Fault("autoload-denied")
	kernel := strings.TrimSpace(vm.Run("uname -r"))
	document := "" +
		"# What you see when a node cannot run the mesh, and what to do\n\n" +
		"Written and checked by `make test` on a node whose host really has the fault. The first line is what `kubectl describe pod`\n" +
		"shows as the message of container `verify`; the whole report is in its log. `<kernel>` stands for the node's `uname -r`; the\n" +
		"host is a Debian, elsewhere the fix names that system's package.\n\n" +
		"| fault of the host | first line | all reasons, each with its fix |\n|---|---|---|\n"
	for _, row := range []struct {
		name   string
		faults []string
		values string
		breaks func(t *testing.T, copied string)
		want   string   // the conclusion of verify; empty: the node is Ready
		also   []string // reasons besides the one in the conclusion
		report string   // a part of the report, where the node is Ready
	}{
		{
			name: "a module is not on disk", faults: []string{"modules-gone=xt_owner"},
			want: "ModuleNotOnDisk: xt_owner. Fix: apt-get install --reinstall linux-image-<kernel>. And 1 more",
		},
		{
			name: "`install xt_owner /bin/false` in modprobe.d", faults: []string{"install-false=xt_owner"},
			want: "ModuleOverridden: xt_owner. Fix: remove line 1 of /etc/modprobe.d/lab-install-false.conf",
		},
		{
			name: "two faults at once", faults: []string{"modules-gone=xt_CT", "install-false=xt_owner"},
			want: "ModuleNotOnDisk: xt_CT. Fix: apt-get install --reinstall linux-image-<kernel>. And 2 more",
			also: []string{"ModuleOverridden: remove line 1 of /etc/modprobe.d/lab-install-false.conf", "BackendUnavailable: "},
		},
		{
			name: "`blacklist xt_owner` in modprobe.d", faults: []string{"blocklisted=xt_owner"},
			report: "warning: xt_owner is blocklisted (/etc/modprobe.d/lab-blocklisted.conf:1): loaded by its name now, but not at boot",
		},
		{
			name: "no modprobe", faults: []string{"no-modprobe"},
			want: "ModprobeMissing: nf_tables, nft_compat, nft_chain_nat and 6 more. Fix: install kmod on the host, or load them at boot",
		},
		{
			name: "RHEL 10 without the modules of iptables-legacy and a mesh that uses them", faults: []string{"el10"}, values: "backend: legacy",
			want: "BackendUnavailable: no legacy, but nft, native-nft. Fix: use Istio 1.26 or newer, and backend nft here. And 1 more",
		},
		{
			name: "the same and a mesh that leaves the choice to Istio", faults: []string{"el10"},
			report: "backend legacy lacks iptable_nat",
		},
		{
			name: "the platform refuses SYS_MODULE",
			breaks: func(t *testing.T, copied string) {
				replace(t, filepath.Join(copied, "templates", "daemonset.yaml"), "                - SYS_MODULE\n", "")
			},
			want: "CapabilityRefused: SYS_MODULE. Fix: let the platform grant them (SCC, admission policy), or load at boot",
		},
		{
			name: "`kernel.modules_disabled=1`", faults: []string{"modules-disabled"},
			want: "ModulesDisabled: nf_tables, nft_compat and 7 more. Fix: take it out of sysctl.d, or load them before it is set; reboot",
		},
	} {
		t.Run(row.name, func(t *testing.T) {
			vm := vm.On(t)
			vm.Unload()
			for _, fault := range row.faults {
				vm.Fault(fault)
			}
			copied := chart.Path()
			if row.breaks != nil {
				copied = chart.Copy(t)
				row.breaks(t, copied)
			}
			release := lab.NewRelease(t)
			require.NoError(t, release.UpgradeTo(copied, row.values+"\n"+onlyBriefly(vm)))
			sees, fixes := "", "none needed"
			if row.want == "" {
				release.WaitReadyOn(1)
				report := release.Exec(vm.Name, "report")
				require.Contains(t, report, "can run the mesh")
				require.Contains(t, report, row.report)
				sees = "Ready; `report` says: " + strings.ReplaceAll(row.report, kernel, "<kernel>")
			} else {
				conclusion, words, _ := strings.Cut(waitForVerify(release, vm.Name), "\n")
				require.Regexp(t, "^  the kernel says: .", words)
				require.LessOrEqual(t, len(conclusion), 120, conclusion)
				conclusion = strings.ReplaceAll(conclusion, kernel, "<kernel>")
				require.Equal(t, row.want, conclusion)
				sees, fixes = "`"+conclusion+"`", ""
				log := ""
				release.WaitFor("verify has no report in its log", func() bool { // which comes and goes with the container
					log = release.Log(release.Pods()[vm.Name].Name, "verify")
					return reasonAndFix.MatchString(log)
				})
				for _, reason := range reasonAndFix.FindAllStringSubmatch(log, -1) {
					fixes += fmt.Sprintf("%s: %s<br>", reason[1], strings.ReplaceAll(reason[2], kernel, "<kernel>"))
				}
				for _, also := range row.also {
					require.Contains(t, fixes, also)
				}
			}
			document += fmt.Sprintf("| %s | %s | %s |\n", row.name, sees, strings.TrimSuffix(fixes, "<br>"))
		})
	}
	if t.Failed() {
		return
	}
	file := filepath.Join(chart.Path(), "docs", "faults.md")
	if os.Getenv("UPDATE") != "" {
		require.NoError(t, os.WriteFile(file, []byte(document), 0o644))
	}
	written, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, string(written), document, "UPDATE=1 go test ./test/kernel -run TestEachFault writes it anew")
}
