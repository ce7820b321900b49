package node

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// hurried has every time limit end after a second, and notes which the scripts ask for.
func (s *sandbox) hurried() *sandbox {
	s.write("notes/limits", "")
	return s.program("timeout", `[ "$1" != -k ] || shift 2; echo "$1 $2" >>`+s.path("notes/limits")+`; shift; exec /usr/bin/timeout -k 1 3 "$@"`)
}

// slowFiles lets nothing be known of the files that tell of modules.
func (s *sandbox) slowFiles() *sandbox {
	s.t.Helper()
	awk, err := exec.LookPath("awk")
	require.NoError(s.t, err)
	return s.program("awk", "case $* in *modules.awk*) exec sleep 60 ;; esac; exec "+awk+` "$@"`)
}

// within fails the test if a container takes longer.
func (s *sandbox) within(limit time.Duration, run func() result) result {
	s.t.Helper()
	start := time.Now()
	got := run()
	require.Less(s.t, time.Since(start), limit, got.log)
	return got
}

const soon = 40 * time.Second // of a minute that a hanging program would take, on a machine that does other things too

func TestAModprobeThatHangsIsAReasonAndSaidToBeAwaitedBefore(t *testing.T) {
	t.Parallel()
	// nft_counter|nf_tables would be asked for twice
	s := newSandbox(t, smallPlan+"verify: {enabled: false}").hurried()
	s.hit(fault{files: map[string]string{"lib/modules/5.14.0-0.el9.stand-in/modules.dep": "kernel/xt_owner.ko:\nkernel/nf_tables.ko:\nkernel/nft_counter.ko:\n"}})
	s.write("host/stand-in/busy", "")
	got := s.within(soon, func() result { return s.run("load") })
	require.Regexp(t, `(?s)asking the host's modprobe, for at most 60 s: nf_tables xt_owner nft_counter\n.*ModprobeHangs: nf_tables, xt_owner, nft_counter\. Fix: `, got.log)
	require.Equal(t, "False ModprobeHangs", s.outcome("load").says())
	require.Len(t, s.outcome("load").reasons, 1)
	require.Equal(t, []string{"hangs"}, s.facts("modprobe"))
	require.Equal(t, "60 env\n", s.read("notes/limits")[strings.Index(s.read("notes/limits"), "60 "):], "once")

	// behaviour decides
	s = newSandbox(t, smallPlan).hurried().program("pilot-agent", "exit 0")
	s.write("host/stand-in/busy", "")
	s.run("load", "verify", "verify-traffic")
	require.Equal(t, "True RedirectionProven", s.outcome("traffic").says())
	require.Equal(t, "True", s.json().Status)
}

func TestAModprobeThatLeavesADaemonBehindHoldsNothingUp(t *testing.T) {
	t.Parallel()
	s := newSandbox(t, smallPlan).loadable("nf_tables", "xt_owner", "nft_counter")
	s.write("host/stand-in/daemon", "")
	got := s.within(soon, func() result { return s.run("load") })
	require.Equal(t, "Unknown ModulesLoaded", s.outcome("load").says(), got.log)
	require.Contains(t, got.conclusion, "loaded now: nf_tables xt_owner nft_counter;")
}

func TestAPilotAgentThatHangsIsAReasonAndSaidToBeAwaitedBefore(t *testing.T) {
	t.Parallel()
	for name, agent := range map[string]string{
		"it hangs":                      "echo begins; exec sleep 60",
		"it hangs and minds no SIGTERM": "trap '' TERM; echo begins; while :; do sleep 1; done",
		"it leaves a child behind, too": "echo begins; sleep 60 & exec sleep 60",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSandbox(t, "backend: nft").hurried().program("pilot-agent", agent)
			s.recorded("load", 1, "Unknown", "ModulesLoaded", "x")
			got := s.within(soon, func() result { return s.run("verify") })
			require.Equal(t, "False RulesHang", s.outcome("verify").says(), got.log)
			require.Regexp(t, `(?s)applying istio-init's rules, for at most 60 s\n.*begins\n.*RulesHang: nft\. Fix: `, got.log)
			require.Contains(t, s.read("notes/limits"), "60 pilot-agent\n")

			s.recorded("verify", 1, "Unknown", "RulesApplied", "nft")
			got = s.within(soon, func() result { return s.run("verify-traffic") })
			require.Equal(t, "False TrafficHangs", s.outcome("traffic").says(), got.log)
			require.Regexp(t, `(?s)sending Istio's probe through the rules, for at most 60 s\n.*begins\n.*TrafficHangs: `, got.log)
			require.Equal(t, "False", s.json().Status)
		})
	}
}

func TestAPilotAgentThatLeavesADaemonBehindHoldsNothingUp(t *testing.T) {
	t.Parallel()
	s := newSandbox(t, "backend: nft").program("pilot-agent", "sleep 60 & exit 0")
	got := s.within(soon, func() result { return s.run("load", "verify", "verify-traffic") })
	require.Equal(t, "True RedirectionProven", s.outcome("traffic").says(), got.log)
}

func TestAHostWhoseFilesCannotBeReadInTimeIsAReason(t *testing.T) {
	t.Parallel()
	s := newSandbox(t, plan+"backend: nft\nverify: {enabled: false}").hurried().slowFiles()
	s.hit(fault{})
	got := s.within(soon, func() result { return s.run("load") })
	outcome := s.outcome("load")
	require.Equal(t, "False HostUnreadable", outcome.says(), got.log)
	require.Len(t, outcome.reasons, 1, "no other cause can be named")
	require.Contains(t, s.read("notes/limits"), "30 /bin/sh\n")
}

// What would hold its reader up for ever, in the place of each file that is read of the host.
func TestAFIFOInThePlaceOfAFileOfTheHostHoldsNothingUp(t *testing.T) {
	t.Parallel()
	for _, name := range []string{
		"etc/modprobe.d/x.conf", "usr/lib/modprobe.d/x.conf", "etc/modules-load.d/istio-os-init.conf", "etc/modules-load.d/x.conf", "etc/os-release",
		"usr/lib/os-release", "lib/modules/5.14.0-0.el9.stand-in/modules.dep", "lib/modules/5.14.0-0.el9.stand-in/modules.builtin",
		"sys/fs/selinux/enforce", "sys/fs/selinux/booleans/secure_mode_insmod", "sys/kernel/security/lockdown", "sys/kernel/security/lsm", "boot/config-5.14.0-0.el9.stand-in", "proc/cmdline", "proc/sys/kernel/modules_disabled", "proc/1/net/ip_tables_names",
	} {
		for kind, lay := range map[string]func(path string) error{
			"FIFO": func(path string) error { return syscall.Mkfifo(path, 0o666) },
			"a link to": func(path string) error {
				return firstError(syscall.Mkfifo(path+".fifo", 0o666), os.Symlink(filepath.Base(path)+".fifo", path))
			},
		} {
			if kind == "a link to" && !strings.HasPrefix(name, "etc/") {
				continue
			}
			t.Run(kind+" "+name, func(t *testing.T) {
				t.Parallel()
				s := newPersisting(t, smallPlan+"nodes: {osRelease: [rocky]}\nverify: {enabled: false}")
				s.osRelease(map[string]string{"etc/os-release": rocky9, "usr/lib/os-release": rocky9})
				path := s.path("host/" + name)
				require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
				if strings.Contains(name, "modprobe.d") { // beside what is read
					require.NoError(t, os.WriteFile(filepath.Dir(path)+"/y.conf", []byte("blacklist nf_tables\n"), 0o644))
				}
				require.NoError(t, os.RemoveAll(path))
				require.NoError(t, lay(path))
				got := s.within(soon, func() result { return s.run("load") })
				require.Equal(t, "True ModulesFound", s.outcome("load").says(), got.log)
				require.Contains(t, s.loaded(), "nft_counter")
				require.Empty(t, s.facts("unread"), "something was waited for")
			})
		}
	}
}

func TestWhatModprobeSaysIsBoundedInTheLog(t *testing.T) {
	t.Parallel()
	s := newSandbox(t, smallPlan).loadable("nf_tables")
	s.write("host/stand-in/noise", "10000000")
	got := s.within(soon, func() result { return s.run("load") })
	require.Less(t, len(got.log), 300_000)
	require.Contains(t, got.log, "noise noise")
	require.Equal(t, "Unknown ModulesLoaded", s.outcome("load").says())
	require.LessOrEqual(t, len(s.read("state/load/facts")), 65_536)
	require.LessOrEqual(t, len(s.read("state/load/.output")), 262_144)
	require.Less(t, len(s.report()), 65_536)
}

func TestLongWordsOfTheKernelLeaveReasonAndFixInTheTerminationMessage(t *testing.T) {
	t.Parallel()
	words := strings.Repeat("Exec format error ", 280) // 5,000 characters
	for _, values := range []string{"verify: {enabled: false}", ""} {
		s := newSandbox(t, plan+"backend: nft\n"+values).program("pilot-agent", "echo 'error "+words+"not permitted' >&2; exit 1")
		s.hit(fault{loadable: []string{"nf_tables", "xt_CT"}, refused: "xt_owner " + words + "\n", files: map[string]string{
			"lib/modules/5.14.0-0.el9.stand-in/modules.dep": "kernel/xt_owner.ko:\n",
		}})
		got := s.run(s.initContainers()...)
		require.LessOrEqual(t, len(s.read("termination-log")), 3000)
		require.Regexp(t, `^ModuleRefused: xt_owner\. Fix: compare modinfo -F vermagic xt_owner with uname -r: the file is another kernel's(\n|$)`, got.conclusion)
		message := s.json().Message
		require.Contains(t, message, "The kernel refuses xt_owner: Exec format error")
		require.Regexp(t, `(Exec|format|error)\.\.\.$`, message, "cut inside a word")
	}

	s := newSandbox(t, "backend: nft").program("pilot-agent", "echo 'error "+words+"not permitted' >&2; exit 1")
	s.recorded("load", 1, "Unknown", "ModulesLoaded", "x")
	got := s.run("verify")
	require.LessOrEqual(t, len(s.read("termination-log")), 3000)
	require.Regexp(t, `^RulesRejected: error Exec format error .*\. Fix: see the log of verify\n  the kernel says: error Exec`, got.conclusion)
}

// Each file is looked at once: in CPU time, since the machine may have other things to do.
func TestTenThousandFilesOfModprobeAreReadWithinFiveSeconds(t *testing.T) {
	t.Parallel()
	needNamespaces(t)
	s := newSandbox(t, plan+"backend: nft\nverify: {enabled: false}")
	s.hit(fault{refused: "xt_owner Invalid argument\n", files: map[string]string{
		"lib/modules/5.14.0-0.el9.stand-in/modules.dep": "kernel/xt_owner.ko:\n", "etc/modprobe.d/zz.conf": "install xt_owner /bin/false\n",
	}})
	for i := range 10_000 {
		s.write(fmt.Sprintf("host/etc/modprobe.d/%05d-hardening-of-a-benchmark.conf", i), "install cramfs /bin/false\nblacklist cramfs\n")
	}
	words := s.contained(s.container("load"), s.command(s.container("load"))...)
	command := exec.CommandContext(t.Context(), words[0], words[1:]...)
	command.Env = s.env
	command.SysProcAttr = mountNamespace()
	got := s.ended(command)
	require.Regexp(t, `^ModuleOverridden: xt_owner\. Fix: remove line 1 of /etc/modprobe\.d/zz\.conf`, got.conclusion, got.log)
	spent := command.ProcessState.UserTime() + command.ProcessState.SystemTime()
	t.Logf("%v of CPU", spent)
	require.Less(t, spent, 5*time.Second)
}
