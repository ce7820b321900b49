package node

import (
	"bytes"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
)

// start starts watch and waits for its first words.
func (s *sandbox) start() (*exec.Cmd, *bytes.Buffer) {
	s.t.Helper()
	return s.startAs(s.objects.Container(s.t, "watch"))
}

// startAs starts a container that does not end by itself.
func (s *sandbox) startAs(container corev1.Container) (*exec.Cmd, *bytes.Buffer) {
	s.t.Helper()
	command := exec.CommandContext(s.t.Context(), "/bin/sh", s.command(container)[1:]...)
	command.Env = append(s.env, environment(container)...)
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	log := &bytes.Buffer{}
	command.Stdout, command.Stderr = log, log
	s.write("termination-log", "")
	require.NoError(s.t, command.Start())
	s.t.Cleanup(func() { _ = syscall.Kill(-command.Process.Pid, syscall.SIGKILL) })
	return command, log
}

// wait waits for watch to end and returns its exit code.
func wait(t *testing.T, command *exec.Cmd, limit time.Duration) int {
	t.Helper()
	ended := make(chan struct{})
	go func() {
		_ = command.Wait()
		close(ended)
	}()
	select {
	case <-ended:
		return command.ProcessState.ExitCode()
	case <-time.After(limit):
		require.Failf(t, "watch goes on", "it should have ended within %v", limit)
		return -1
	}
}

func TestWatchEndsAndNamesTheModuleThatHasGone(t *testing.T) {
	t.Parallel()
	s := newSandbox(t, "watch: {interval: 1}")
	s.write("state/loaded", "nf_tables\nxt_owner\n")
	s.write("host/proc/modules", "nf_tables 1 0 - Live 0x0\nxt_owner 1 0 - Live 0x0\n")
	command, _ := s.start()
	time.Sleep(1500 * time.Millisecond)
	require.NoError(t, command.Process.Signal(syscall.Signal(0)), "watch ended although nothing had gone")

	s.write("host/proc/modules", "nf_tables 1 0 - Live 0x0\nxt_owner_other 1 0 - Live 0x0\n")
	require.Equal(t, 1, wait(t, command, 3*time.Second))
	require.Regexp(t, `^ModuleGone: no longer loaded: xt_owner\. Fix: `, s.read("termination-log"))
}

func TestWatchThatStartsAfterTheLossEndsAtOnce(t *testing.T) {
	t.Parallel()
	s := newSandbox(t, "")
	s.write("state/loaded", "xt_owner\n")
	command, _ := s.start()
	require.Equal(t, 1, wait(t, command, time.Second))
}

func TestWatchEndsAtOnceOnSIGTERM(t *testing.T) {
	t.Parallel()
	s := newSandbox(t, "")
	s.write("state/loaded", "")
	command, log := s.start()
	require.Eventually(t, func() bool { return strings.Contains(log.String(), "watching every 60 s") }, 2*time.Second, 10*time.Millisecond, "watch says nothing")
	require.NoError(t, command.Process.Signal(syscall.SIGTERM))
	start := time.Now()
	// waiting includes the sleep that watch has started: it holds the log open as long as it lives
	require.Zero(t, wait(t, command, time.Second), log)
	require.Less(t, time.Since(start), 500*time.Millisecond)
}

// A kernel without loadable modules has no /proc/modules.
func TestWatchHasNothingToDoOnAMonolithicKernel(t *testing.T) {
	t.Parallel()
	s := newSandbox(t, "watch: {interval: 1}")
	require.NoError(t, os.Remove(s.path("host/proc/modules")))
	require.Zero(t, s.run("load").exit)
	command, _ := s.start()
	time.Sleep(1200 * time.Millisecond)
	require.NoError(t, command.Process.Signal(syscall.Signal(0)))
}
