package node

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// Killed with all that it has started, as a container is, at a step of any of them: whenever one starts a program, writes, renames or
// removes a file, or waits. What is left must not keep the next run from ending as an undisturbed one does. A run takes each third step,
// another run others.
func TestLoadThatWasKilledAtAnyStepEndsTheNextTimeAsIfItHadNot(t *testing.T) {
	t.Parallel()
	needNamespaces(t)
	need(t, "strace")
	if testing.Short() {
		t.Skip("NOT PROVEN: that load may be killed at any step, which takes half a minute. Run make test.")
	}
	s := newSandbox(t, smallPlan).loadable("nf_tables", "nft_counter")
	s.hit(fault{loadable: []string{"nf_tables", "nft_counter"}})
	const lists = "host/etc/modules-load.d"
	uptime := regexp.MustCompile(`(?m)^uptime \d+$`)
	leaves := func() string {
		var left strings.Builder
		for _, dir := range []string{"state/load", lists} {
			entries, err := os.ReadDir(s.path(dir))
			require.NoError(t, err)
			for _, entry := range entries {
				if entry.Name() == ".output" { // of the last program, whatever it was
					continue
				}
				content := strings.ReplaceAll(s.read(dir+"/"+entry.Name()), "loaded-now", "loaded-before")
				switch entry.Name() {
				case "facts": // which begin with what was loaded now
					lines := strings.Split(content, "\n")
					slices.Sort(lines)
					content = strings.Join(lines, "\n")
				case "outcome": // whose subject tells of that too
					content = uptime.ReplaceAllString(content, "")
					content = regexp.MustCompile(`(?m)^(round|line|subject) .*$`).ReplaceAllString(content, "$1")
				}
				left.WriteString(dir + "/" + entry.Name() + ":\n" + content)
			}
		}
		return left.String()
	}
	anew := func() {
		s.newState()
		require.NoError(t, os.RemoveAll(s.path(lists)))
		require.NoError(t, os.Mkdir(s.path(lists), 0o777))
		s.write("host/proc/modules", "")
	}
	require.Zero(t, s.run("load").exit)
	want := leaves()
	require.Contains(t, want, "modules-load.d/istio-os-init.conf:\n")
	require.Contains(t, want, "state/load/outcome:\n")
	anew()

	const stride = 3
	step := 1 + newRandom(t).IntN(stride)
	for ; s.killedAtStep(step); step += stride {
		if conf, err := os.ReadFile(s.path("host/etc/modules-load.d/istio-os-init.conf")); err == nil {
			require.Contains(t, want, "modules-load.d/istio-os-init.conf:\n"+string(conf), "killed at step %d: half a file", step)
			require.Contains(t, string(conf), "nft_counter", "killed at step %d: half a file", step)
		}
		if outcome, err := os.ReadFile(s.path("state/load/outcome")); err == nil && len(outcome) > 0 {
			require.Contains(t, []string{"Unknown Loading", "Unknown ModulesLoaded"}, s.outcome("load").says(), "killed at step %d", step)
		}
		got := s.run("load")
		require.Zero(t, got.exit, "killed at step %d: %s", step, got.log)
		require.Equal(t, want, leaves(), "killed at step %d", step)
		anew()
	}
	t.Logf("killed at each third step, up to %d", step-stride)
	require.Greater(t, step, 30, "load has more steps than that")
}

// killedAtStep runs load and kills it at a step of itself or of what it has started, counted together: each call that reads or changes
// what outlasts it. False: it had ended before.
func (s *sandbox) killedAtStep(step int) bool {
	s.t.Helper()
	const calls = "openat,write,unlink,unlinkat,rename,renameat,renameat2,fsync"
	reading, writing, err := os.Pipe()
	require.NoError(s.t, err)
	defer reading.Close()
	// the delay leaves time to kill before the next step
	arguments := []string{"-o", "/dev/fd/3", "-e", "trace=" + calls, "-e", "inject=" + calls + ":delay_exit=3000"}
	for _, file := range []string{"state/load/outcome", "state/load/.outcome.new", "state/load/facts", "state/load/.facts.new", persisted, half, "host/proc/modules"} {
		arguments = append(arguments, "-P", s.path(file))
	}
	command := s.tracedLoad(arguments...)
	command.ExtraFiles = []*os.File{writing}
	command.SysProcAttr.Cloneflags |= syscall.CLONE_NEWPID // what load has started goes with it
	require.NoError(s.t, command.Start())
	require.NoError(s.t, writing.Close())
	lines := bufio.NewScanner(reading)
	for range step {
		if !lines.Scan() {
			require.NoError(s.t, command.Wait())
			return false
		}
	}
	_ = command.Process.Kill()
	_ = command.Wait()
	return true
}

// tracedLoad is load and all that it starts under strace, with arguments for that.
func (s *sandbox) tracedLoad(arguments ...string) *exec.Cmd {
	s.t.Helper()
	container := s.container("load")
	words := s.contained(container, slices.Concat([]string{"strace", "-f", "-qq"}, arguments, []string{"/bin/sh"}, s.command(container)[1:])...)
	command := exec.CommandContext(s.t.Context(), words[0], words[1:]...)
	command.Env = s.env
	command.SysProcAttr = namespaces()
	return command
}

// hostile is what somebody else has written on a node.
type hostile struct{ osRelease, modules, builtin, dep, modprobeD, cmdline, refused string }

// explains runs load on a host, where the names decide, and report: whatever is in those files, load ends well or with a reason.
func (h hostile) explains(t *testing.T, s *sandbox) {
	t.Helper()
	for name, content := range map[string]string{
		"etc/os-release": h.osRelease, "proc/modules": h.modules, "proc/cmdline": h.cmdline,
		"lib/modules/5.14.0-0.el9.stand-in/modules.builtin": h.builtin, "lib/modules/5.14.0-0.el9.stand-in/modules.dep": h.dep,
		"etc/modprobe.d/x.conf": h.modprobeD, "stand-in/refused": h.refused,
	} {
		require.NoError(t, os.MkdirAll(filepath.Dir(s.path("host/"+name)), 0o755))
		require.NoError(t, os.WriteFile(s.path("host/"+name), []byte(content), 0o644))
	}
	got := s.exec("load", s.command(s.container("load"))...)
	require.NotRegexp(t, `(?m)^\S+\.sh: \d+: `, got.log, "the shell complains: %q", h)
	require.Zero(t, got.exit, "load crashed: %s\n%q", got.log, h)
	require.NotRegexp(t, `[^ -~\n]`, got.log, "%q", h)
	require.LessOrEqual(t, len(s.read("termination-log")), 3001, "%q", h)
	outcome := s.outcome("load")
	switch outcome.status {
	case "True":
		require.Equal(t, "True ModulesFound", outcome.says(), "%q", h)
	case "False":
		require.Regexp(t, reasonAndFix, got.conclusion, "%q", h)
	default:
		require.Failf(t, "nothing is concluded", "%s\n%q", got.log, h)
	}
	program := s.path("config/report")
	text := s.exec("watch", "/usr/bin/env", "ISTIO_OS_INIT_NODE=stand-in", "/bin/sh", "-c", program+" --json && echo END && "+program)
	require.Zero(t, text.exit, text.log)
	object, page, _ := strings.Cut(text.log, "END\n")
	report := parsed(t, object)
	require.Equal(t, outcome.says(), report.Status+" "+report.Reason)
	require.Equal(t, got.conclusion, report.Line)
	require.NotRegexp(t, `[^ -~\n]`, page)
}

var reasonAndFix = regexp.MustCompile(`^[A-Z][A-Za-z]+: \S.*\. Fix: \S.*$`)

func hostileSandbox(t *testing.T) *sandbox {
	s := newSandbox(t, smallPlan+"verify: {enabled: false}")
	s.write("termination-log", "")
	if os.Geteuid() != 0 {
		t.Log("without root chroot is refused, so modprobe's words are not among what varies")
	}
	return s
}

// go test ./test/node -fuzz FuzzLoadExplainsAnyHost goes on for as long as one likes.
func FuzzLoadExplainsAnyHost(f *testing.F) {
	f.Add(rocky9, "nf_tables 1 0 - Live 0x0\n", "kernel/nf_tables.ko\n", "kernel/xt_owner.ko.xz:\n", "install xt_owner /bin/false\n", "module_blacklist=xt_owner", "xt_owner Key was rejected by service\n")
	f.Add("", "", "", "", "", "", "")
	f.Fuzz(func(t *testing.T, osRelease, modules, builtin, dep, modprobeD, cmdline, refused string) {
		hostile{osRelease, modules, builtin, dep, modprobeD, cmdline, refused}.explains(t, hostileSandbox(t))
	})
}

// Each run has other hosts, and says how to have them once more. For more of them: the fuzzer above, or ISTIO_OS_INIT_HOSTS.
func TestLoadExplainsRandomHosts(t *testing.T) {
	t.Parallel()
	s := hostileSandbox(t)
	count := 20
	if testing.Short() {
		count = 8
	}
	if more, err := strconv.Atoi(os.Getenv("ISTIO_OS_INIT_HOSTS")); err == nil {
		count = more
	}
	random := newRandom(t)
	for range count {
		hostile{random.text(), random.text(), random.text(), random.text(), random.text(), random.text(), random.text()}.explains(t, s)
	}
	require.NoFileExists(t, filepath.Join(s.dir, "x"), "something was executed")
}
