package node

import (
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const smallPlan = "modules: {base: {nft: [nf_tables, xt_owner, nft_counter|nf_tables]}}\nmesh: {dns: false}\n"

// facts are the values of a key among load's facts.
func (s *sandbox) facts(key string) []string {
	s.t.Helper()
	var values []string
	for line := range strings.Lines(s.read("state/load/facts")) {
		if value, found := strings.CutPrefix(strings.TrimSpace(line), key+" "); found {
			values = append(values, value)
		}
	}
	return values
}

func TestLoadLoadsThePlanAndRecordsWhatIsThere(t *testing.T) {
	t.Parallel()
	s := newSandbox(t, smallPlan).loadable("nf_tables nfnetlink", "xt_owner x_tables", "nft_counter nf_tables")
	s.write("host/proc/modules", "bridge 1 0 - Live 0x0\n")
	got := s.run("load")
	require.Zero(t, got.exit, got.log)
	require.Equal(t, []string{"bridge", "nfnetlink", "nf_tables", "x_tables", "xt_owner", "nft_counter"}, s.loaded())
	require.Equal(t, []string{"nf_tables loaded-now", "xt_owner loaded-now", "nft_counter loaded-now"}, s.facts("module"))
	require.Empty(t, s.facts("missing"))
	require.Equal(t, []string{"works"}, s.facts("modprobe"))
	require.Equal(t, "nf_tables xt_owner nft_counter\n", s.read("host/stand-in/calls"), "modprobe runs once for all")
	require.Equal(t, "ModulesLoaded: loaded now: nf_tables xt_owner nft_counter; loaded before: nothing; built in: nothing known; not found: nothing", got.conclusion)
	outcome := s.outcome("load")
	require.Equal(t, "Unknown ModulesLoaded", outcome.says(), "verify decides")
	require.Equal(t, 1, outcome.round)
	uptime, err := os.ReadFile("/proc/uptime")
	require.NoError(t, err)
	seconds, err := strconv.ParseFloat(strings.Fields(string(uptime))[0], 64)
	require.NoError(t, err)
	require.InDelta(t, seconds, outcome.uptime, 60)
}

func TestLoadLeavesALoadedNodeAlone(t *testing.T) {
	t.Parallel()
	s := newSandbox(t, smallPlan)
	s.write("host/proc/modules", "nf_tables 1 0 - Live 0x0\nxt_owner 1 0 - Live 0x0\nnft_counter 1 0 - Live 0x0\n")
	got := s.run("load")
	require.Zero(t, got.exit, got.log)
	require.NoFileExists(t, s.path("host/stand-in/calls"), "modprobe has nothing to do")
	require.Contains(t, got.conclusion, "loaded before: nf_tables xt_owner nft_counter;")
}

func TestLoadCountsBuiltInAsLoaded(t *testing.T) {
	t.Parallel()
	s := newSandbox(t, "modules: {base: {nft: [nf_tables, crc-t10dif-common]}}\nmesh: {dns: false}\n")
	// RHEL compresses its modules, and a file's name may have the dash that the kernel never shows
	s.write("host/lib/modules/5.14.0-0.el9.stand-in/modules.builtin", "kernel/net/netfilter/nf_tables.ko.xz\nkernel/lib/crc-t10dif-common.ko\n")
	got := s.run("load")
	require.Zero(t, got.exit, got.log)
	require.Contains(t, got.conclusion, "built in: nf_tables crc_t10dif_common; not found: nothing")
	require.Equal(t, []string{"nf_tables built-in", "crc_t10dif_common built-in"}, s.facts("module"), "watch must not wait for what cannot go")
	require.NoFileExists(t, s.path("host/stand-in/calls"))
}

func TestLoadTakesTheSecondNameWhereTheKernelHasNotTheFirst(t *testing.T) {
	t.Parallel()
	s := newSandbox(t, smallPlan).loadable("nf_tables", "xt_owner")
	got := s.run("load")
	require.Zero(t, got.exit, got.log)
	require.Equal(t, []string{"nf_tables", "xt_owner"}, s.loaded())
	require.Contains(t, got.conclusion, "not found: nothing")
	require.Equal(t, []string{"nf_tables loaded-now", "xt_owner loaded-now"}, s.facts("module"), "each name once")
}

// As on a node whose kube-proxy has loaded the second.
func TestLoadAsksForTheFirstNameAlthoughTheSecondIsLoaded(t *testing.T) {
	t.Parallel()
	s := newSandbox(t, smallPlan).loadable("nf_tables", "xt_owner", "nft_counter")
	s.write("host/proc/modules", "nf_tables 1 0 - Live 0x0\n")
	s.run("load")
	require.Equal(t, []string{"xt_owner loaded-now", "nft_counter loaded-now", "nf_tables loaded-before"}, s.facts("module"))
}

func TestLoadGoesOnAfterANameThatFailsAndKeepsModprobesWords(t *testing.T) {
	t.Parallel()
	s := newSandbox(t, "modules: {base: {nft: [nf_tables, xt_CT, xt_CTX, xt_owner]}}\nmesh: {dns: false}\n").loadable("nf_tables", "xt_owner")
	s.write("host/stand-in/refused", "xt_CTX Operation not permitted\n")
	got := s.run("load")
	require.Zero(t, got.exit, "behaviour decides, not names: %s", got.log)
	require.Equal(t, []string{"nf_tables", "xt_owner"}, s.loaded())
	require.Equal(t, []string{
		"xt_CT not-on-disk WARNING: Module xt_CT not found in directory /lib/modules/5.14.0-0.el9.stand-in",
		"xt_CTX not-on-disk ERROR: could not insert 'xt_CTX': Operation not permitted",
	}, s.facts("missing"))
	require.Contains(t, got.conclusion, "not found: xt_CT xt_CTX")
}

func TestWithoutVerifyAMissingModuleDecides(t *testing.T) {
	t.Parallel()
	s := newSandbox(t, smallPlan+"verify: {enabled: false}").loadable("nf_tables")
	got := s.run("load")
	require.Zero(t, got.exit, got.log)
	require.Regexp(t, `^ModuleNotOnDisk: xt_owner\. Fix: `, got.conclusion)
	require.Equal(t, "False", s.json().Status)

	s = newSandbox(t, smallPlan+"verify: {enabled: false}").loadable("nf_tables", "xt_owner")
	require.Zero(t, s.run("load").exit)
	require.Equal(t, "True ModulesFound", s.outcome("load").says())
	require.Equal(t, "True", s.json().Status)
}

func TestWithoutVerifyEveryReasonHasItsFixInTheReport(t *testing.T) {
	t.Parallel()
	s := newSandbox(t, plan+"backend: nft\nverify: {enabled: false}")
	s.hit(fault{loadable: []string{"nf_tables"}, refused: "xt_owner Exec format error\n", files: map[string]string{
		"lib/modules/5.14.0-0.el9.stand-in/modules.dep": "kernel/xt_owner.ko:\n",
	}})
	got := s.run("load")
	require.Regexp(t, `^ModuleNotOnDisk: xt_CT\. Fix: dnf .*\. Also: ModuleRefused$`, got.conclusion)
	text := s.report()
	require.Contains(t, text, "ModuleRefused: The kernel refuses xt_owner: Exec format error.\n    Fix: compare modinfo -F vermagic xt_owner with uname -r: the file is another kernel's\n")
	report := s.json()
	require.Len(t, report.Reasons, 2)
	require.Contains(t, report.Message, "Fix: dnf install kernel-modules-extra-5.14.0-0.el9.stand-in. Also ModuleRefused: The kernel refuses xt_owner: Exec format error. Fix: compare modinfo -F vermagic xt_owner with uname -r: the file is another kernel's.")
}

func TestLoadSaysWhenTheHostHasNoModprobe(t *testing.T) {
	t.Parallel()
	s := newSandbox(t, smallPlan)
	require.NoError(t, os.Remove(s.path("host/usr/sbin/modprobe")))
	got := s.run("load")
	require.Zero(t, got.exit, got.log)
	require.Contains(t, got.log, "warning: the host has no modprobe")
}

func TestLoadSaysWhenItMayNotEnterTheHost(t *testing.T) {
	t.Parallel()
	s := newSandbox(t, smallPlan).loadable("nf_tables", "xt_owner")
	load := s.rendered("load")
	load.SecurityContext.Capabilities.Add = nil
	got := s.run("load")
	require.Zero(t, got.exit, got.log)
	require.Contains(t, got.log, "warning: the host's modprobe cannot be run")
	require.Contains(t, got.log, "Operation not permitted")
	require.Empty(t, s.loaded())
}

func TestAPlanThatIsGoneDecides(t *testing.T) {
	t.Parallel()
	s := newSandbox(t, smallPlan)
	require.NoError(t, os.Remove(s.path("config/plan")))
	got := s.run("load")
	require.Zero(t, got.exit, got.log)
	require.Contains(t, got.conclusion, "PlanUnreadable: ")
	require.Equal(t, "False PlanUnreadable", s.outcome("load").says())
}

func TestLoadEndsInTheSameStateWhenItRunsAgain(t *testing.T) {
	t.Parallel()
	s := newSandbox(t, smallPlan).loadable("nf_tables", "xt_owner")
	require.Zero(t, s.run("load").exit)
	first := s.read("state/load/facts")
	require.Zero(t, s.run("load").exit)
	require.Equal(t, strings.ReplaceAll(first, "loaded-now", "loaded-before"), s.read("state/load/facts"))
	require.Equal(t, 2, s.outcome("load").round)
}

// Else what verify found in the first round would count in the one after the loss.
func TestARoundWhoseCountIsLostIsNoneThatHasBeen(t *testing.T) {
	t.Parallel()
	s := newSandbox(t, smallPlan).loadable("nf_tables", "xt_owner")
	s.run("load")
	s.recorded("verify", 1, "Unknown", "RulesApplied", "x")
	s.recorded("traffic", 1, "True", "RedirectionProven", "x")
	require.Equal(t, "True", s.json().Status)
	require.NoError(t, os.Remove(s.path("state/load/outcome")))
	s.run("load")
	require.Greater(t, s.outcome("load").round, 1)
	require.Equal(t, "Unknown", s.json().Status)
	s.program("pilot-agent", "exit 126").run("verify-traffic")
	require.Equal(t, "Unknown", s.json().Status)
}

// The real thing as far as a kernel that is not ours goes: kmod's own modprobe, through the real root, for a name that no
// kernel has.
func TestLoadRunsTheMachinesOwnModprobe(t *testing.T) {
	t.Parallel()
	need(t, "modprobe")
	s := newSandbox(t, "modules: {base: {nft: [no_kernel_has_this]}}\nmesh: {dns: false}\n")
	s.env = append(s.env, "ISTIO_OS_INIT_HOST=/", "ISTIO_OS_INIT_PROC=/proc")
	got := s.run("load")
	require.Zero(t, got.exit, got.log)
	release, err := os.ReadFile("/proc/sys/kernel/osrelease")
	require.NoError(t, err)
	require.Len(t, s.facts("missing"), 1)
	require.Contains(t, s.facts("missing")[0], "Module no_kernel_has_this not found in directory /lib/modules/"+strings.TrimSpace(string(release)))
}
