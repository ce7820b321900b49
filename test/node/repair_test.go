package node

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// sandboxEnded is the exit code of the stand-in for pause that has got a SIGTERM: the kubelet would make a new sandbox.
const (
	sandboxEnded = 42
	endsOnTERM   = "trap 'exit 42' TERM"
)

// inSandbox runs watch beside process 1 of the pod, a stand-in for pause, and returns the exit code of the first that ends.
func (s *sandbox) inSandbox() result {
	s.t.Helper()
	return s.ended(s.sandboxCommand(endsOnTERM))
}

// sandboxCommand is that. trap: what pause does about SIGTERM; become: setpriv's arguments if it is not to be root.
func (s *sandbox) sandboxCommand(trap string, become ...string) *exec.Cmd {
	s.t.Helper()
	needNamespaces(s.t)
	s.write("termination-log", "")
	s.write("notes/sleeps", "")
	s.write("notes/code", "")
	code := quoted([]string{s.path("notes/code")})[0]
	pause := slices.Concat([]string{"/usr/bin/setpriv", "--no-new-privs"}, become,
		[]string{"/bin/sh", "-c", trap + "; while [ ! -s " + code + " ]; do /bin/sleep 0.05; done; read -r code <" + code + `; exit "$code"`})
	script := `("$@"; echo $? >` + code + ") & exec " + strings.Join(quoted(pause), " ")
	watch := s.container("watch")
	words := append([]string{"-c", script, "pod"}, s.contained(watch, s.command(watch)...)...)
	command := exec.CommandContext(s.t.Context(), "/bin/sh", words...)
	command.Env = s.env
	command.SysProcAttr = mountNamespace()
	command.SysProcAttr.Cloneflags |= syscall.CLONE_NEWPID
	return command
}

// sleepless has sleep note how long it is asked to sleep for, and return at once, but for those that wait for ever, and for process 1
// to end.
func (s *sandbox) sleepless() *sandbox {
	s.write("notes/sleeps", "")
	return s.program("sleep", `echo "$1" >>`+s.path("notes/sleeps")+`; case $1 in 3600) exec /bin/sleep 3600 ;; 30) exec /bin/sleep 3 ;; *) exec /bin/sleep 0.01 ;; esac`)
}

// pauses are those that watch has made, but for what lasts no time, and for the time that it gives process 1 to end.
func (s *sandbox) pauses() []string {
	return slices.DeleteFunc(strings.Fields(s.read("notes/sleeps")), func(pause string) bool { return pause == "0" || pause == "30" })
}

// failed is the state of a node whose kernel refuses the rules.
func (s *sandbox) failed(round int) {
	s.recorded("load", round, "Unknown", "ModulesLoaded", "modules")
	s.recorded("verify", round, "False", "RulesRejected", "no")
}

func TestAFailedProofEndsTheSandboxAfterAPauseThatGrows(t *testing.T) {
	t.Parallel()
	s := newSandbox(t, "").sleepless()
	for i, want := range []string{"10", "20", "40", "80", "160", "300", "300"} {
		s.failed(i + 1)
		got := s.inSandbox()
		require.Equal(t, sandboxEnded, got.exit, got.log)
		require.Equal(t, []string{want}, s.pauses())
		require.Contains(t, got.log, "RulesRejected: no\n")
		require.Contains(t, got.log, fmt.Sprintf("attempt %d: load and verify run again in %s s\n", i+1, want))
		require.Contains(t, got.conclusion, "RulesRejected: no", "the reason stays in the termination message")
		require.Regexp(t, fmt.Sprintf("^%d .*RulesRejected", i+1), s.read("state/watch/attempts"))
		if i > 0 {
			require.Contains(t, got.log, fmt.Sprintf("proven anew %d times since the last hour of proof, last because of RulesRejected\n", i))
		}
	}
}

func TestTheFirstDriftEndsTheSandboxAtOnceAndTheNextOnesAfterAPause(t *testing.T) {
	t.Parallel()
	s := newSandbox(t, "").sleepless()
	s.proven("xt_owner")
	got := s.inSandbox()
	require.Equal(t, sandboxEnded, got.exit, got.log)
	require.Empty(t, s.pauses())
	require.Regexp(t, "^1 .*ModuleGone", s.read("state/watch/attempts"))
	require.Equal(t, "False ModuleGone", s.outcome("watch").says())

	for i, want := range []string{"10", "20", "40"} {
		round := i + 2
		for _, writer := range []string{"load", "verify", "traffic"} {
			s.write("state/"+writer+"/outcome", strings.Replace(s.read("state/"+writer+"/outcome"), "round "+fmt.Sprint(round-1)+"\n", "round "+fmt.Sprint(round)+"\n", 1))
		}
		require.Equal(t, "True", s.json().Status, "what watch said of the round before counts no more")
		got = s.inSandbox()
		require.Equal(t, 1, got.exit, "the pod must not be Ready in the pause: %s", got.log)
		require.Empty(t, s.pauses())
		require.Equal(t, "False", s.json().Status)

		got = s.inSandbox()
		require.Equal(t, sandboxEnded, got.exit, got.log)
		require.Equal(t, []string{want}, s.pauses())
		require.Regexp(t, fmt.Sprintf("^%d .*ModuleGone", round), s.read("state/watch/attempts"))
	}
}

func TestAnHourOfProofForgetsTheAttempts(t *testing.T) {
	t.Parallel()
	s := newSandbox(t, "").sleepless()
	s.failed(1)
	require.Equal(t, sandboxEnded, s.inSandbox().exit)
	require.FileExists(t, s.path("state/watch/attempts"))

	for _, writer := range []string{"load", "verify"} {
		require.NoError(t, os.Remove(s.path("state/"+writer+"/outcome")))
	}
	s.proven("xt_owner")
	s.write("host/proc/modules", "xt_owner 1 0 - Live 0x0\n")
	s.write("notes/sleeps", "")
	s.start()
	require.Eventually(t, func() bool {
		_, err := os.Lstat(s.path("state/watch/attempts"))
		return os.IsNotExist(err)
	}, 30*time.Second, 10*time.Millisecond)
	looks := len(s.pauses())
	require.GreaterOrEqual(t, looks, 59, "an hour is sixty looks")
}

func TestAnHourIsNotOverSooner(t *testing.T) {
	t.Parallel()
	s := newSandbox(t, "").sleepless()
	s.write("state/watch/attempts", "3 40 ModuleGone\n")
	s.proven("xt_owner")
	s.write("host/proc/modules", "xt_owner 1 0 - Live 0x0\n")
	s.program("sleep", `echo >>`+s.path("notes/sleeps")+`; [ "$(wc -l <`+s.path("notes/sleeps")+`)" -lt 59 ] || exec /bin/sleep 3600`)
	s.start()
	require.Eventually(t, func() bool { return len(s.read("notes/sleeps")) == 59 }, 30*time.Second, 10*time.Millisecond)
	require.FileExists(t, s.path("state/watch/attempts"))
}

func TestWithoutRepairThePodStaysAndSaysWhatToDo(t *testing.T) {
	t.Parallel()
	const advice = "repair.enabled is false: delete this pod to load and prove again\n"
	s := newSandbox(t, "repair: {enabled: false}").sleepless()
	s.failed(1)
	command, log := s.start()
	require.Eventually(t, func() bool { return strings.Contains(log.String(), advice) }, 10*time.Second, 10*time.Millisecond)
	require.NoError(t, command.Process.Signal(syscall.SIGTERM))
	require.Zero(t, wait(t, command, 2*time.Second))
	require.NoFileExists(t, s.path("state/watch/attempts"))

	// after a drift it says so when it has started again: of a container that has started the probe is not asked again
	s.newState()
	s.proven("xt_owner")
	command, _ = s.start()
	require.Equal(t, 1, wait(t, command, 10*time.Second))
	_, log = s.start()
	require.Eventually(t, func() bool { return strings.Contains(log.String(), advice) }, 10*time.Second, 10*time.Millisecond)
	require.Contains(t, log.String(), "ModuleGone: xt_owner. Fix: ")
	require.Equal(t, 1, s.tryReport("--ready").exit)
}

func TestASandboxThatDoesNotEndIsAReasonOfItsOwn(t *testing.T) {
	t.Parallel()
	needNamespaces(t)
	if os.Geteuid() != 0 {
		t.Skip("NOT PROVEN: that process 1 may have another uid, which only root can give it. Run as root.")
	}
	for name, row := range map[string]struct {
		trap   string
		become []string
	}{
		"process 1 has another uid":      {endsOnTERM, []string{"--reuid=65534", "--bounding-set=-all"}},
		"process 1 does nothing of it":   {`trap "" TERM`, nil},
		"process 1 is the script itself": {},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSandbox(t, "").sleepless()
			s.failed(1)
			if row.trap == "" {
				s.start()
			} else {
				command := s.sandboxCommand(row.trap, row.become...)
				require.NoError(t, command.Start())
				t.Cleanup(func() { _ = command.Process.Kill(); _ = command.Wait() })
			}
			require.Eventually(t, func() bool {
				_, err := os.Lstat(s.path("state/watch/outcome"))
				return err == nil
			}, 20*time.Second, 20*time.Millisecond)
			outcome := s.outcome("watch")
			require.Equal(t, "False RulesRejected", outcome.says(), "the cause comes first")
			require.Equal(t, "SandboxNotEnded", outcome.reasons[1].name)
			require.Contains(t, s.json().Message, "Fix: delete this pod")
		})
	}
}

// Without a count it could be a loop.
func TestAnAttemptThatCannotBeCountedComesAfterTheLongestPause(t *testing.T) {
	t.Parallel()
	s := newSandbox(t, "").sleepless()
	s.proven("xt_owner")
	require.NoError(t, os.MkdirAll(s.path("state/watch/attempts/x"), 0o755))
	got := s.inSandbox()
	require.Equal(t, 1, got.exit, "the pod would be Ready during the pause:\n%s", got.log)
	require.Empty(t, s.pauses())
	got = s.inSandbox()
	require.Equal(t, sandboxEnded, got.exit, got.log)
	require.Equal(t, []string{"300"}, s.pauses())
}

// The startup probe of a container that has started is not asked again.
func TestAPodWhoseSandboxDoesNotEndAfterADriftIsNotReady(t *testing.T) {
	t.Parallel()
	s := newSandbox(t, "").sleepless()
	s.proven("xt_owner")
	got := s.ended(s.sandboxCommand(`trap "" TERM`))
	require.Equal(t, 1, got.exit, got.log)
	require.Equal(t, "False ModuleGone", s.outcome("watch").says())
	require.Equal(t, "SandboxNotEnded", s.outcome("watch").reasons[1].name)
	require.Equal(t, 1, s.tryReport("--ready").exit)
}

// As after a container whose volume is full, or that was killed.
func TestAVerdictThatNobodyRecordedIsAReason(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		prepare func(*sandbox)
		silent  string
	}{
		"load":          {func(*sandbox) {}, "load"},
		"load half way": {func(s *sandbox) { s.recorded("load", 1, "Unknown", "Loading", "round 1") }, "load"},
		"verify":        {func(s *sandbox) { s.recorded("load", 1, "Unknown", "ModulesLoaded", "x") }, "verify"},
		"verify of a round before": {func(s *sandbox) {
			s.recorded("load", 2, "Unknown", "ModulesLoaded", "x")
			s.recorded("verify", 1, "Unknown", "RulesApplied", "x")
		}, "verify"},
		"verify half way": {func(s *sandbox) {
			s.recorded("load", 1, "Unknown", "ModulesLoaded", "x")
			s.recorded("verify", 1, "Unknown", "Applying", "x")
		}, "verify"},
		"traffic": {func(s *sandbox) {
			s.recorded("load", 1, "Unknown", "ModulesLoaded", "x")
			s.recorded("verify", 1, "Unknown", "RulesApplied", "x")
		}, "verify-traffic"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSandbox(t, "repair: {enabled: false}").sleepless()
			row.prepare(s)
			_, log := s.start()
			require.Eventually(t, func() bool { return strings.Contains(log.String(), "repair.enabled is false: ") }, 10*time.Second, 10*time.Millisecond)
			outcome := s.outcome("watch")
			require.Equal(t, "False StateUnwritable", outcome.says(), log)
			require.Equal(t, row.silent, outcome.reasons[0].subject)
			require.Equal(t, "StateUnwritable", s.json().Reason)
			require.Equal(t, 1, s.tryReport("--ready").exit)
		})
	}
}

// Each container as the kubelet runs it, until the node is proven again.
func TestADriftIsRepairedByAWholeNewRound(t *testing.T) {
	t.Parallel()
	s := newSandbox(t, "{backend: nft, watch: {interval: 1}}").withIstio().loadable("nf_tables", "xt_owner")
	s.run("load", "verify", "verify-traffic")
	require.Equal(t, "True", s.json().Status)
	s.write("host/proc/modules", "xt_owner 1 0 - Live 0x0\n")
	got := s.inSandbox()
	require.Equal(t, sandboxEnded, got.exit, got.log)
	report := s.json()
	require.Equal(t, "False ModuleGone", report.Status+" "+report.Reason)

	s.run("load", "verify", "verify-traffic")
	report = s.json()
	require.Equal(t, "True RedirectionProven", report.Status+" "+report.Reason)
	require.Equal(t, 2, report.Round)
	require.Contains(t, s.loaded(), "nf_tables")
}

func TestTheStartupProbeTellsAFreshVerdictAtOnceAndAnOldOneLater(t *testing.T) {
	t.Parallel()
	s := newSandbox(t, "").sleepless()
	probe := s.container("watch").StartupProbe
	require.Equal(t, []string{"/bin/sh", "/opt/istio-os-init/report", "--ready"}, probe.Exec.Command)
	s.proven()
	got := s.tryReport("--ready")
	require.Equal(t, "RedirectionProven: a connection\n", got.log)
	require.Zero(t, got.exit)

	s.newState()
	s.run("load")
	s.recorded("verify", 1, "False", "RulesRejected", "no") // soon after the boot
	got = s.tryReport("--ready")
	require.Equal(t, "RulesRejected: no\n", got.log)
	require.Equal(t, 1, got.exit)
	require.Equal(t, []string{"290"}, s.pauses())
	require.Greater(t, probe.TimeoutSeconds, int32(290))

	s.write("notes/sleeps", "")
	uptime, err := os.ReadFile("/proc/uptime")
	require.NoError(t, err)
	now, _, _ := strings.Cut(string(uptime), ".")
	s.write("state/verify/outcome", strings.Replace(s.read("state/verify/outcome"), "uptime 1\n", "uptime "+now+"\n", 1))
	got = s.tryReport("--ready")
	require.Equal(t, 1, got.exit)
	require.Empty(t, s.pauses(), "a fresh one is told at once")

	s.newState()
	got = s.tryReport("--ready")
	require.Equal(t, 1, got.exit)
	require.Equal(t, "Proving: load and verify have not ended yet.\n", got.log)
}

// As process 1, which the kernel spares a SIGTERM without a handler, and in the middle of the work of another program.
func TestEveryScriptEndsAtOnceOnSIGTERM(t *testing.T) {
	t.Parallel()
	needNamespaces(t)
	for name, want := range map[string]int{"load": 143, "verify": 143, "verify-traffic": 143, "watch": 0} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSandbox(t, "")
			busy := "echo >" + s.path("notes/busy") + "; exec sleep 60"
			s.program("pilot-agent", busy).program("sleep", "echo >"+s.path("notes/busy")+"; exec /bin/sleep 60")
			s.write("host/stand-in/busy", "") // modprobe, in its root
			switch name {
			case "verify":
				s.recorded("load", 1, "Unknown", "ModulesLoaded", "x")
			case "verify-traffic":
				s.recorded("load", 1, "Unknown", "ModulesLoaded", "x")
				s.recorded("verify", 1, "Unknown", "RulesApplied", "x")
			case "watch":
				s.proven()
			}
			command, log := s.startAs(s.container(name))
			require.Eventually(t, func() bool {
				called, _ := os.ReadFile(s.path("host/stand-in/calls"))
				_, err := os.Stat(s.path("notes/busy"))
				return len(called) > 0 || err == nil
			}, 20*time.Second, 10*time.Millisecond, "%s", log)
			start := time.Now()
			require.NoError(t, command.Process.Signal(syscall.SIGTERM))
			code := wait(t, command, 2*time.Second)
			require.Less(t, time.Since(start), time.Second)
			require.Equal(t, want, code, log.String())
		})
	}
}

// program puts a shell script first on the PATH, in the place of a program.
func (s *sandbox) program(name, script string) *sandbox {
	s.t.Helper()
	require.NoError(s.t, os.MkdirAll(s.path("bin"), 0o755))
	if name == "pilot-agent" { // a stand-in that applies no rules, so what sends traffic through them is one too
		s.program("perl", "echo path outbound 4 arrived")
	}
	require.NoError(s.t, os.WriteFile(s.path("bin/"+name), []byte("#!/bin/sh\n"+script+"\n"), 0o755))
	if !strings.HasPrefix(s.env[0], "PATH="+s.path("bin")) {
		s.env[0] = "PATH=" + s.path("bin") + ":" + strings.TrimPrefix(s.env[0], "PATH=")
	}
	return s
}
