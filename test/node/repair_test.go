package node

import (
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// What the kubelet does with the codes is test/cluster's question: after 1 it starts the container again, sooner or later, and
// after 3 every container.
func TestAFailureHandsOverToLoadWhenItsContainerStartsAgain(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"verify", "verify-traffic"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSandbox(t, "").program("pilot-agent", "echo no; exit 1")
			failed := s.run("load", name)
			require.Equal(t, 1, failed.exit, failed.log)
			require.Contains(t, failed.log, "; this pod loads and proves again by itself.")

			again := s.run(name)
			require.Equal(t, 3, again.exit, again.log)
			require.Equal(t, failed.conclusion, again.conclusion, "the reason stays in the termination message")
			if name == "verify" {
				require.Contains(t, again.log, "CANNOT run the mesh", "and the report in the log")
			}

			require.Zero(t, s.run("load").exit)
			require.Equal(t, 1, s.run(name).exit, "after load there is a new proof")
		})
	}
}

func TestWithoutTheRuleAFailureIsTriedAloneAndSaysThatThePodMustGo(t *testing.T) {
	t.Parallel()
	for _, repair := range []string{"never", "sandbox"} {
		t.Run(repair, func(t *testing.T) {
			t.Parallel()
			s := newSandbox(t, "repair: "+repair).program("pilot-agent", "echo no; exit 1")
			for range 2 {
				got := s.run("verify")
				require.Equal(t, 1, got.exit, got.log)
				require.Contains(t, got.log, ", then delete this pod to load and prove again.")
			}
		})
	}
}

func TestADriftAsksForTheRuleAndTheNextWatchTellsOfIt(t *testing.T) {
	t.Parallel()
	s := newSandbox(t, "")
	for times := 1; times <= 3; times++ {
		s.write("state/loaded", "nf_tables\nxt_owner\n")
		s.write("host/proc/modules", "nf_tables 1 0 - Live 0x0\n")
		command, _ := s.start()
		require.Equal(t, 3, wait(t, command, time.Second), "the code of the rule, at once")
		conclusion := strings.TrimSpace(s.read("termination-log"))
		require.Equal(t, "ModuleGone: no longer loaded: xt_owner. Fix: find what unloads modules (firewalld?); this pod loads and proves again by itself.", conclusion)

		if times > 1 { // the kubelet's pauses come after a failure only
			got := s.run("load")
			require.Equal(t, 1, got.exit, got.log)
			require.Equal(t, conclusion, got.conclusion)
		}
		require.Zero(t, s.run("load").exit)
		command, log := s.start()
		time.Sleep(300 * time.Millisecond)
		require.NoError(t, command.Process.Signal(syscall.SIGTERM))
		require.Zero(t, wait(t, command, time.Second))
		require.Regexp(t, `^modules had gone `+strconv.Itoa(times)+` times in this pod's life, last at \d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ: xt_owner\n`, log.String())
	}
}

// The rule knows no pause: what cannot be counted could be a loop.
func TestADriftThatCannotBeRecordedIsAnOrdinaryFailure(t *testing.T) {
	t.Parallel()
	s := newSandbox(t, "")
	s.write("state/loaded", "xt_owner\n")
	require.NoError(t, os.Mkdir(s.path("state/drift.new"), 0o755))
	command, _ := s.start()
	require.Equal(t, 1, wait(t, command, time.Second))
}

func TestADriftEndsTheSandboxWhereTheValuesSaySo(t *testing.T) {
	t.Parallel()
	needNamespaces(t)
	s := newSandbox(t, "repair: sandbox")
	s.write("state/loaded", "xt_owner\n")
	for _, row := range []struct {
		name, pause, become, want string
	}{
		{"process 1 has its uid", "65534", "", ""},
		{"process 1 has another", "0", "setpriv --reuid=65534 --bounding-set=-all", "warning: the pod's sandbox cannot be ended\n"},
	} {
		t.Run(row.name, func(t *testing.T) {
			s.write("termination-log", "")
			watch := s.objects.Container(t, "watch")
			// a stand-in for pause: as process 1 it ends on SIGTERM, and all with it
			command := exec.CommandContext(t.Context(), "setpriv", append([]string{"--reuid=" + row.pause, "/bin/sh", "-c",
				`trap 'exit 42' TERM; ` + row.become + ` "$@" & wait`, "pause"}, s.command(watch)...)...)
			command.Env = append(s.env, environment(watch)...)
			command.SysProcAttr = namespaces()
			command.SysProcAttr.Cloneflags |= syscall.CLONE_NEWPID
			output, _ := command.CombinedOutput()
			if row.want == "" {
				require.Equal(t, 42, command.ProcessState.ExitCode(), "%s", output)
				require.Contains(t, s.read("termination-log"), "; this pod loads and proves again by itself.")
			} else {
				require.Contains(t, string(output), row.want)
				require.Contains(t, s.read("termination-log"), ", then delete this pod to load and prove again.")
			}
			require.Regexp(t, `^\d \S+Z xt_owner\n$`, s.read("state/drift"))
		})
	}
}

// As process 1, which the kernel spares a SIGTERM without a handler, and in the middle of the work of another program.
func TestEveryScriptEndsAtOnceOnSIGTERM(t *testing.T) {
	t.Parallel()
	needNamespaces(t)
	for name, want := range map[string]int{"load": 143, "verify": 143, "verify-traffic": 143, "watch": 0} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSandbox(t, "")
			busy := "echo >" + s.path("busy") + "; exec sleep 60"
			s.program("pilot-agent", busy).program("sleep", "echo >"+s.path("busy")+"; exec /bin/sleep 60")
			s.write("host/stand-in/busy", "") // modprobe, in its root
			s.write("state/loaded", "")
			container := s.objects.Container(t, name)
			command := exec.CommandContext(t.Context(), "/bin/sh", s.command(container)[1:]...)
			command.Env = append(s.env, environment(container)...)
			command.SysProcAttr = namespaces()
			command.SysProcAttr.Cloneflags |= syscall.CLONE_NEWPID
			var log strings.Builder // read to its end: whoever holds it must have ended too
			command.Stdout, command.Stderr = &log, &log
			require.NoError(t, command.Start())
			require.Eventually(t, func() bool {
				called, _ := os.ReadFile(s.path("host/stand-in/calls"))
				_, err := os.Stat(s.path("busy"))
				return len(called) > 0 || err == nil
			}, 5*time.Second, 10*time.Millisecond)
			start := time.Now()
			require.NoError(t, command.Process.Signal(syscall.SIGTERM))
			code := wait(t, command, 2*time.Second)
			require.Less(t, time.Since(start), 500*time.Millisecond)
			require.Equal(t, want, code, log.String())
		})
	}
}

// program puts a shell script first on the PATH, in the place of a program.
func (s *sandbox) program(name, script string) *sandbox {
	s.t.Helper()
	require.NoError(s.t, os.MkdirAll(s.path("bin"), 0o755))
	require.NoError(s.t, os.WriteFile(s.path("bin/"+name), []byte("#!/bin/sh\n"+script+"\n"), 0o755))
	if !strings.HasPrefix(s.env[0], "PATH="+s.path("bin")) {
		s.env[0] = "PATH=" + s.path("bin") + ":" + strings.TrimPrefix(s.env[0], "PATH=")
	}
	return s
}
