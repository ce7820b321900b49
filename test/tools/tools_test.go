// Package tools asks one question: are the tools that the tests need built once, and does an interrupted run leave nothing behind?
package tools

import (
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/istio-os-init/istio-os-init/test/internal/chart"
)

// tree is a repository of its own with the scripts that build tools, two tools in its go.mod, a cache, and on its PATH a go that
// compiles nothing: it notes that it was called, starts a compiler, waits until the file `finish` is there, and writes the tool.
type tree struct {
	t    *testing.T
	root string
}

const standIn = `#!/bin/sh
while [ $# -gt 0 ]; do
  case $1 in
    -o) out=$2 ;;
  esac
  shift
done
echo "$out" >>"$TREE/builds"
sleep 600 &
echo "$! $$" >"$TREE/compiler"
printf half >"$out"
until [ -e "$TREE/finish" ]; do sleep 0.05; done
kill "$!"
printf '#!/bin/sh\necho a tool\n' >"$out"
chmod +x "$out"
`

func newTree(t *testing.T) tree {
	t.Helper()
	tr := tree{t, t.TempDir()}
	for _, dir := range []string{"scripts", "bin", "ci/tools/third", "cache"} {
		require.NoError(t, os.MkdirAll(tr.path(dir), 0o755))
	}
	for _, script := range []string{"tool", "leash"} {
		content, err := os.ReadFile(filepath.Join(chart.Root(), "scripts", script))
		require.NoError(t, err)
		tr.write("scripts/"+script, string(content))
	}
	tr.write("go.mod", "module example.com/tree\n\ntool (\n\texample.com/first\n\texample.com/cmd/second/v2\n)\n")
	tr.write("go.sum", "")
	tr.write("ci/tools/third/go.mod", "module example.com/tree/ci/tools/third\n\ntool example.com/third\n")
	tr.write("ci/tools/third/go.sum", "")
	tr.write("bin/go", standIn)
	return tr
}

func (tr tree) path(name string) string { return filepath.Join(tr.root, name) }

func (tr tree) write(name, content string) {
	tr.t.Helper()
	require.NoError(tr.t, os.WriteFile(tr.path(name), []byte(content), 0o755))
}

// command is one in the tree, with variables besides.
func (tr tree) command(env []string, name string, args ...string) *exec.Cmd {
	command := exec.Command(name, args...)
	command.Dir = tr.root
	command.Env = append(append(os.Environ(), "TREE="+tr.root, "XDG_CACHE_HOME="+tr.path("cache"), "PATH="+tr.path("bin")+":"+os.Getenv("PATH"), "ISTIO_OS_INIT_BUILD="), env...)
	return command
}

// run runs scripts/tool and returns what it prints, and its exit code.
func (tr tree) run(env []string, names ...string) (stdout, stderr string, exit int) {
	tr.t.Helper()
	var out, err strings.Builder
	command := tr.command(env, "scripts/tool", names...)
	command.Stdout, command.Stderr = &out, &err
	_ = command.Run()
	return out.String(), err.String(), command.ProcessState.ExitCode()
}

// call is one of scripts/tool that goes on.
type call struct {
	*exec.Cmd
	t      *testing.T
	stderr string // a file
}

func (tr tree) start(names ...string) call {
	tr.t.Helper()
	stderr, err := os.CreateTemp(tr.root, "stderr-")
	require.NoError(tr.t, err)
	defer stderr.Close()
	started := call{tr.command(nil, "scripts/tool", names...), tr.t, stderr.Name()}
	started.Stderr = stderr
	require.NoError(tr.t, started.Start())
	tr.t.Cleanup(func() { _ = started.Process.Kill() })
	return started
}

func (c call) said() string {
	c.t.Helper()
	content, err := os.ReadFile(c.stderr)
	require.NoError(c.t, err)
	return string(content)
}

// finish lets every build end.
func (tr tree) finish() { tr.write("finish", "") }

// builds are the paths that have been built.
func (tr tree) builds() []string {
	content, _ := os.ReadFile(tr.path("builds"))
	return strings.Fields(string(content))
}

// building waits for the build's processes, the compiler's first.
func (tr tree) building() []int {
	tr.t.Helper()
	var processes []int
	tr.eventually("nothing is built", func() bool {
		content, _ := os.ReadFile(tr.path("compiler"))
		processes = nil
		for _, word := range strings.Fields(string(content)) {
			process, err := strconv.Atoi(word)
			require.NoError(tr.t, err)
			processes = append(processes, process)
		}
		return len(processes) == 2
	})
	tr.t.Cleanup(func() { // where the test fails, nothing else ends them
		for _, process := range processes {
			_ = syscall.Kill(process, syscall.SIGKILL)
		}
	})
	return processes
}

// made are the tools in the cache.
func (tr tree) made() []string {
	tr.t.Helper()
	made, err := filepath.Glob(tr.path("cache/istio-os-init/tools/*/*"))
	require.NoError(tr.t, err)
	var tools []string
	for _, file := range made {
		if filepath.Ext(file) == "" {
			tools = append(tools, file)
		}
	}
	return tools
}

func (tr tree) eventually(otherwise string, condition func() bool) {
	tr.t.Helper()
	require.Eventually(tr.t, condition, 5*time.Minute, 20*time.Millisecond, otherwise)
}

// runs tells whether a process does more than wait to be reaped.
func runs(process int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", process))
	if err != nil {
		return false
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	return !strings.HasPrefix(rest, "Z")
}

func TestAToolThatManyAskForAtOnceIsBuiltOnce(t *testing.T) {
	t.Parallel()
	tr := newTree(t)
	first := tr.start("first")
	tr.building()
	waiting := []call{tr.start("first"), tr.start("first")}
	for _, call := range waiting {
		tr.eventually("it does not say that it waits", func() bool { return call.said() == "tools: waiting for first, which another run builds\n" })
	}
	tr.finish()
	for _, call := range append(waiting, first) {
		require.NoError(t, call.Wait(), call.said())
	}
	require.Len(t, tr.made(), 1)
	require.Len(t, tr.builds(), 1)
	require.Equal(t, "tools: building first, 1 of 1 (cold: seconds to minutes)\n", first.said())
}

func TestSeveralToolsAreBuiltInTurnAndTheirPathsPrintedInOrder(t *testing.T) {
	t.Parallel()
	tr := newTree(t)
	tr.finish()
	stdout, stderr, exit := tr.run(nil, "second", "third")
	require.Zero(t, exit, stderr)
	require.Regexp(t, `^\S+/second\n\S+/third\n$`, stdout)
	require.Regexp(t, `^tools: building second, 1 of 2 .*\ntools: building third, 2 of 2 .*\ntools: 2 built in \d+ s\n$`, stderr)

	stdout, stderr, exit = tr.run(nil, "--all")
	require.Zero(t, exit, stderr)
	require.Regexp(t, `^\S+/third\n\S+/first\n\S+/second\n$`, stdout)
	require.Equal(t, "tools: building first, 2 of 3 (cold: seconds to minutes)\n", stderr)

	again, stderr, exit := tr.run(nil, "--all")
	require.Zero(t, exit)
	require.Equal(t, stdout, again)
	require.Empty(t, stderr)
	require.Len(t, tr.builds(), 3)
}

func TestAnInterruptedBuildLeavesNothingRunningAndNoHalfATool(t *testing.T) {
	t.Parallel()
	// What this process does not ignore its children do not: a shell lets what it starts in the background ignore Ctrl-C.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGINT)
	for name, interruption := range map[string]syscall.Signal{"Ctrl-C": syscall.SIGINT, "kill": syscall.SIGTERM, "kill -9": syscall.SIGKILL} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tr := newTree(t)
			call := tr.start("first")
			processes := tr.building()
			require.NoError(t, call.Process.Signal(interruption))
			require.Error(t, call.Wait())
			tr.eventually("the build goes on", func() bool { return !runs(processes[0]) && !runs(processes[1]) })
			require.Empty(t, tr.made())

			tr.finish()
			stdout, stderr, exit := tr.run(nil, "first")
			require.Zero(t, exit, stderr)
			require.Len(t, tr.builds(), 2)
			said, err := exec.Command(strings.TrimSpace(stdout)).Output()
			require.NoError(t, err)
			require.Equal(t, "a tool\n", string(said))
		})
	}
}

func TestABuildEndsWithTheMakeThatAskedForIt(t *testing.T) {
	t.Parallel()
	tr := newTree(t)
	tr.write("Makefile", "tools:\n\t@scripts/tool first\n")
	command := tr.command(nil, "make", "tools")
	require.NoError(t, command.Start())
	processes := tr.building()
	require.NoError(t, command.Process.Kill())
	_ = command.Wait()
	tr.eventually("the build goes on", func() bool { return !runs(processes[0]) && !runs(processes[1]) })
}

func TestATestBuildsNoToolAndSaysWhatDoes(t *testing.T) {
	t.Parallel()
	tr := newTree(t)
	tr.finish()
	stdout, stderr, exit := tr.run([]string{"ISTIO_OS_INIT_BUILD=no"}, "first")
	require.Equal(t, 3, exit)
	require.Empty(t, stdout)
	require.Equal(t, "error: first is not built, and a test does not build it. Run: make tools\n", stderr)
	require.Empty(t, tr.builds())

	built, stderr, exit := tr.run(nil, "first")
	require.Zero(t, exit, stderr)
	stdout, stderr, exit = tr.run([]string{"ISTIO_OS_INIT_BUILD=no"}, "first")
	require.Zero(t, exit, stderr)
	require.Equal(t, built, stdout)
	require.Equal(t, "no", os.Getenv("ISTIO_OS_INIT_BUILD"), "every test of the suite")
}

func TestAToolThatDoesNotBuildIsAnErrorWithGosWords(t *testing.T) {
	t.Parallel()
	tr := newTree(t)
	tr.write("bin/go", "#!/bin/sh\necho 'go: no such package' >&2\nexit 1\n")
	stdout, stderr, exit := tr.run(nil, "first")
	require.Equal(t, 1, exit)
	require.Empty(t, stdout)
	require.Contains(t, stderr, "go: no such package\nerror: first does not build\n")
	require.Empty(t, tr.made())

	_, stderr, exit = tr.run(nil, "fourth")
	require.Equal(t, 2, exit)
	require.Equal(t, "scripts/tool: there is no tool 'fourth' in go.mod, ci or test\n", stderr)
}
