package node

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
)

// start starts watch, with more of an environment if need be.
func (s *sandbox) start(env ...string) (*exec.Cmd, *bytes.Buffer) {
	s.t.Helper()
	return s.startAs(s.objects.Container(s.t, "watch"), env...)
}

// startAs starts a container that does not end by itself, as process 1.
func (s *sandbox) startAs(container corev1.Container, env ...string) (*exec.Cmd, *bytes.Buffer) {
	s.t.Helper()
	needNamespaces(s.t)
	words := s.contained(container, slices.Concat([]string{"/usr/bin/env"}, env, s.command(container))...)
	command := exec.CommandContext(s.t.Context(), words[0], words[1:]...)
	command.Env = s.env
	command.SysProcAttr = mountNamespace()
	command.SysProcAttr.Setpgid = true
	command.SysProcAttr.Cloneflags |= syscall.CLONE_NEWPID // process 1 of its own, and never this machine's in reach
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
	s := newSandbox(t, "{watch: {interval: 1}, repair: {enabled: false}}").proven("nf_tables", "xt_owner")
	s.write("host/proc/modules", "nf_tables 1 0 - Live 0x0\nxt_owner 1 0 - Live 0x0\n")
	command, log := s.start()
	require.Eventually(t, func() bool { return strings.Contains(log.String(), "watching every 1 s: nf_tables xt_owner\n") }, 10*time.Second, 10*time.Millisecond)
	time.Sleep(1500 * time.Millisecond)
	require.NoError(t, command.Process.Signal(syscall.Signal(0)), "watch ended although nothing had gone")
	require.NoFileExists(t, s.path("state/watch/outcome"))

	s.write("host/proc/modules", "nf_tables 1 0 - Live 0x0\nxt_owner_other 1 0 - Live 0x0\n")
	require.Equal(t, 1, wait(t, command, 10*time.Second))
	require.Equal(t, "ModuleGone: xt_owner. Fix: find what unloads modules (firewalld?)\n", s.read("termination-log"))
	outcome := s.outcome("watch")
	require.Equal(t, "False ModuleGone", outcome.says())
	require.Equal(t, 1, outcome.round)
	require.Equal(t, "xt_owner", outcome.reasons[0].subject)
	require.Equal(t, "False", s.json().Status)
}

func TestWatchThatStartsAfterTheLossEndsAtOnce(t *testing.T) {
	t.Parallel()
	s := newSandbox(t, "repair: {enabled: false}").proven("xt_owner")
	command, _ := s.start()
	require.Equal(t, 1, wait(t, command, 10*time.Second))
	require.Equal(t, "False ModuleGone", s.outcome("watch").says())
}

func TestWatchEndsAtOnceOnSIGTERM(t *testing.T) {
	t.Parallel()
	s := newSandbox(t, "").proven()
	command, log := s.start()
	require.Eventually(t, func() bool { return strings.Contains(log.String(), "watching every 60 s") }, 10*time.Second, 10*time.Millisecond, "watch says nothing")
	require.NoError(t, command.Process.Signal(syscall.SIGTERM))
	start := time.Now()
	// waiting includes the sleep that watch has started: it holds the log open as long as it lives
	require.Zero(t, wait(t, command, 2*time.Second), log)
	require.Less(t, time.Since(start), time.Second)
}

func TestWatchAsksSysfsAndReadsProcModulesOnlyWhereSysfsKnowsNothing(t *testing.T) {
	t.Parallel()
	s := newSandbox(t, "{watch: {interval: 1}, repair: {enabled: false}}").proven("nf_tables", "xt_owner")
	for _, module := range []string{"nf_tables", "xt_owner"} {
		require.NoError(t, os.MkdirAll(s.path("host/sys/module/"+module), 0o755))
	}
	require.NoError(t, os.Remove(s.path("host/proc/modules")))
	command, log := s.start()
	require.Eventually(t, func() bool { return strings.Contains(log.String(), "watching") }, 10*time.Second, 10*time.Millisecond)
	time.Sleep(1200 * time.Millisecond)
	require.NoError(t, command.Process.Signal(syscall.Signal(0)), "watch ended although nothing had gone")

	s.write("host/proc/modules", "nf_tables 1 0 - Live 0x0\nxt_owner 1 0 - Live 0x0\n")
	require.NoError(t, os.RemoveAll(s.path("host/sys/module")))
	time.Sleep(1200 * time.Millisecond)
	require.NoError(t, command.Process.Signal(syscall.Signal(0)), "watch ended although /proc/modules has them all")

	s.write("host/proc/modules", "nf_tables 1 0 - Live 0x0\n")
	require.Equal(t, 1, wait(t, command, 10*time.Second))
	require.Equal(t, "xt_owner", s.outcome("watch").reasons[0].subject)
}

// A look is what watch itself does; the sleep between two is a process of its own, the only one: its PATH has no other program.
func TestALookCostsLessThanAMillisecondAndStartsNothingButASleep(t *testing.T) {
	t.Parallel()
	s := newSandbox(t, "{backend: legacy, mesh: {tproxy: true, ambient: true}}")
	var modules []string
	for _, entry := range s.objects.Plan(t) {
		module, _, _ := strings.Cut(entry, "|")
		modules = append(modules, module)
		require.NoError(t, os.MkdirAll(s.path("host/sys/module/"+module), 0o755))
	}
	require.Greater(t, len(modules), 15, "the longest plan")
	s.proven(modules...)
	s.write("notes/looks", "")
	s.program("sleep", "echo >>"+s.path("notes/looks")+"\nexec /bin/sleep 0.01")
	for _, program := range []string{"dd", "rm"} { // of its start, and of a first hour that is over
		path, err := exec.LookPath(program)
		require.NoError(t, err)
		require.NoError(t, os.Symlink(path, s.path("bin/"+program)))
	}
	before := files(t, s.path("state/watch"))

	command, log := s.start("PATH=" + s.path("bin"))
	require.Eventually(t, func() bool { return strings.Contains(log.String(), "watching") }, 10*time.Second, 10*time.Millisecond)
	cost := s.costOfALook(command) // the sleep with it
	idle := exec.CommandContext(t.Context(), "/bin/sh", "-c", `while :; do sleep 60 & wait "$!"; done`)
	idle.Env = []string{"PATH=" + s.path("bin")}
	idle.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	require.NoError(t, idle.Start())
	sleep := s.costOfALook(idle)
	require.NoError(t, idle.Process.Kill())
	_ = idle.Wait()
	require.NoError(t, command.Process.Signal(syscall.SIGTERM))
	require.Zero(t, wait(t, command, 2*time.Second), log)

	t.Logf("%v of CPU a look with %d modules, beside %v for the sleep", cost-sleep, len(modules), sleep)
	if sleep < 500*time.Microsecond { // else the machine is too busy to measure anything
		require.Less(t, cost-sleep, time.Millisecond)
	}
	require.Equal(t, 2, strings.Count(log.String(), "\n"), "watch said more than its first words: %s", log)
	require.Equal(t, before, files(t, s.path("state/watch")), "watch wrote something")
}

// costOfALook is what a shell that notes its sleeps spends of the CPU on each: the least of some, since the machine does other things.
func (s *sandbox) costOfALook(command *exec.Cmd) time.Duration {
	s.t.Helper()
	spent := func() (looks, nanoseconds float64) {
		stat, err := os.ReadFile("/proc/" + strconv.Itoa(command.Process.Pid) + "/schedstat")
		require.NoError(s.t, err)
		nanoseconds, err = strconv.ParseFloat(strings.Fields(string(stat))[0], 64)
		require.NoError(s.t, err)
		return float64(strings.Count(s.read("notes/looks"), "\n")), nanoseconds
	}
	cost := time.Hour
	for range 8 {
		firstLooks, first := spent()
		var looks, last float64
		require.Eventually(s.t, func() bool { looks, last = spent(); return looks-firstLooks > 20 }, 60*time.Second, 10*time.Millisecond)
		cost = min(cost, time.Duration((last-first)/(looks-firstLooks)))
	}
	return cost
}

// files are the names of a directory's files with their times.
func files(t *testing.T, dir string) map[string]time.Time {
	t.Helper()
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	times := map[string]time.Time{}
	for _, entry := range entries {
		info, err := entry.Info()
		require.NoError(t, err)
		times[filepath.Base(entry.Name())] = info.ModTime()
	}
	return times
}

// A kernel without loadable modules has no /proc/modules.
func TestWatchHasNothingToDoOnAMonolithicKernel(t *testing.T) {
	t.Parallel()
	s := newSandbox(t, "watch: {interval: 1}")
	require.NoError(t, os.Remove(s.path("host/proc/modules")))
	require.Zero(t, s.run("load").exit)
	s.recorded("traffic", 1, "True", "RedirectionProven", "a connection")
	command, log := s.start()
	require.Eventually(t, func() bool { return strings.Contains(log.String(), "watching every 1 s: nothing") }, 10*time.Second, 10*time.Millisecond)
	time.Sleep(1200 * time.Millisecond)
	require.NoError(t, command.Process.Signal(syscall.Signal(0)))
}
