// Package node asks one question: what do the shipped scripts do on a node? They run as the chart renders them, with the
// capabilities that the chart gives them, in network and mount namespaces of their own.
package node

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"

	"github.com/istio-os-init/istio-os-init/test/internal/chart"
)

// sandbox is a node as the scripts see it: a fake host root with a proc, a kernel release and a modprobe-stand-in, and the
// ConfigMap of one rendering.
type sandbox struct {
	t       *testing.T
	dir     string
	objects chart.Objects
	env     []string
	// before and after are shell commands that run as root in the containers' namespaces, around them: for mounts.
	before, after string
}

// newSandbox renders the chart with values, a YAML document, and lays out a node whose kernel has no module at all.
func newSandbox(t *testing.T, values string) *sandbox {
	t.Helper()
	s := &sandbox{t: t, dir: t.TempDir(), objects: chart.Render(t, values)}
	require.NoError(t, os.Chmod(filepath.Dir(s.dir), 0o755)) // for the containers that are not root
	for _, dir := range []string{"host/usr/sbin", "host/proc/sys/kernel", "host/proc/net", "host/stand-in", "host/lib/modules/5.14.0-stand-in", "host/etc/modules-load.d", "state", "config"} {
		require.NoError(t, os.MkdirAll(s.path(dir), 0o755))
	}
	require.NoError(t, os.Chmod(s.path("state"), 0o777)) // as the kubelet makes an emptyDir
	s.write("host/proc/sys/kernel/osrelease", "5.14.0-stand-in\n")
	s.write("host/proc/modules", "")
	for name, content := range s.objects.ConfigMap(t).Data {
		s.write("config/"+name, content)
		require.NoError(t, os.Chmod(s.path("config/"+name), 0o555)) // the volume's defaultMode
	}
	modprobe, err := os.ReadFile(goBuild(t, chart.Root(), "./test/node/modprobe-stand-in"))
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(s.path("host/usr/sbin/modprobe"), modprobe, 0o755))
	s.env = []string{
		"PATH=" + os.Getenv("PATH"),
		"ISTIO_OS_INIT_HOST=" + s.path("host"),
		"ISTIO_OS_INIT_PROC=" + s.path("host/proc"),
		"ISTIO_OS_INIT_SYS=" + s.path("host/sys"),
		"ISTIO_OS_INIT_STATE=" + s.path("state"),
		"ISTIO_OS_INIT_TERMINATION_LOG=" + s.path("termination-log"),
		"ISTIO_OS_INIT_MODULES_LOAD=" + s.path("host/etc/modules-load.d"),
	}
	return s
}

func (s *sandbox) path(name string) string { return filepath.Join(s.dir, name) }

func (s *sandbox) write(name, content string) {
	s.t.Helper()
	require.NoError(s.t, os.WriteFile(s.path(name), []byte(content), 0o666))
	require.NoError(s.t, os.Chmod(s.path(name), 0o666)) // kubelet makes the termination message writable for every user, whatever the umask
}

func (s *sandbox) read(name string) string {
	s.t.Helper()
	content, err := os.ReadFile(s.path(name))
	require.NoError(s.t, err)
	return string(content)
}

// loadable lets the stand-in load modules, each with its dependencies behind it.
func (s *sandbox) loadable(modules ...string) *sandbox {
	s.write("host/stand-in/loadable", strings.Join(modules, "\n")+"\n")
	return s
}

// loaded are modules in the order of /proc/modules.
func (s *sandbox) loaded() []string {
	var names []string
	for line := range strings.Lines(s.read("host/proc/modules")) {
		names = append(names, strings.Fields(line)[0])
	}
	return names
}

// result is what a container leaves behind.
type result struct {
	exit       int
	log        string
	conclusion string
}

// run runs one container of the pod after the other in the same network namespace, as a pod's are, and returns the result of
// the last. Each has its own uid, its own capabilities, its arguments and its environment as rendered.
func (s *sandbox) run(containers ...string) result {
	s.t.Helper()
	needNamespaces(s.t)
	s.write("termination-log", "")
	// 192.0.2.1: Istio wants an address that is not loopback (tools/common/config)
	script := []string{"set -e", "ip link set lo up", "ip address add 192.0.2.1/32 dev lo"}
	if s.before != "" {
		// what is mounted here is for these namespaces alone
		script = append(script, "mount --make-rprivate /", s.before)
	}
	env := s.env
	for _, name := range containers {
		container := s.container(name)
		env = append(env, environment(container)...)
		script = append(script, strings.Join(quoted(append(asContainer(container), s.command(container)...)), " "))
	}
	script = append(script, s.after)
	command := exec.CommandContext(s.t.Context(), "/bin/sh", "-c", strings.Join(script, "\n"))
	command.Env = env
	command.Dir = s.dir
	command.SysProcAttr = namespaces()
	output, err := command.CombinedOutput()
	var failure *exec.ExitError
	if err != nil && !errors.As(err, &failure) {
		require.NoError(s.t, err)
	}
	return result{exit: command.ProcessState.ExitCode(), log: string(output), conclusion: strings.TrimSpace(s.read("termination-log"))}
}

// helmTest is the name for run of the only container of helm test's pod, which has the name of another.
const helmTest = "helm test"

func (s *sandbox) container(name string) corev1.Container {
	s.t.Helper()
	if name == helmTest {
		return s.objects.Test(s.t).Spec.Containers[0]
	}
	return s.objects.Container(s.t, name)
}

// report runs what `kubectl exec ... -- report` runs.
func (s *sandbox) report(arguments ...string) string {
	s.t.Helper()
	command := exec.CommandContext(s.t.Context(), s.path("config/report"), arguments...)
	command.Env = append(append([]string{}, s.env...), "ISTIO_OS_INIT_NODE=stand-in")
	output, err := command.CombinedOutput()
	require.NoError(s.t, err, string(output))
	return string(output)
}

// environment is the container's, as NAME=value, but for its PATH: the programs are the sandbox's.
func environment(container corev1.Container) []string {
	var env []string
	for _, variable := range container.Env {
		if variable.Name != "PATH" {
			env = append(env, variable.Name+"="+variable.Value)
		}
	}
	return env
}

// command is what the container runs, with the ConfigMap where the sandbox has it.
func (s *sandbox) command(container corev1.Container) []string {
	command := append([]string{}, container.Command...)
	command[1] = s.path("config/" + filepath.Base(command[1]))
	return append(command, container.Args...)
}

// asContainer is the setpriv call that leaves a process with just what the container's securityContext grants.
func asContainer(container corev1.Container) []string {
	context := container.SecurityContext
	capabilities := "-all"
	for _, capability := range context.Capabilities.Add {
		capabilities += ",+" + strings.ToLower(string(capability))
	}
	command := []string{"setpriv", "--no-new-privs", "--bounding-set=" + capabilities, "--inh-caps=" + capabilities}
	if uid := *context.RunAsUser; uid != 0 && os.Geteuid() == 0 {
		id := strconv.FormatInt(uid, 10)
		command = append(command, "--reuid="+id, "--regid="+id, "--clear-groups")
	}
	return command
}

// namespaces: its own mounts and network; without root a user namespace that makes it root of these, and only these.
func namespaces() *syscall.SysProcAttr {
	attributes := &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	if os.Geteuid() != 0 {
		attributes.Cloneflags |= syscall.CLONE_NEWUSER
		attributes.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		attributes.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	return attributes
}

// needNamespaces skips a test where neither root nor user namespaces are to be had.
func needNamespaces(t *testing.T) {
	t.Helper()
	need(t, "ip", "setpriv")
	probe := exec.CommandContext(t.Context(), "true")
	probe.SysProcAttr = namespaces()
	if err := probe.Run(); err != nil {
		t.Skipf("NOT PROVEN: the scripts on a node, which need namespaces of their own (%v). Run as root, or allow user namespaces.", err)
	}
}

// need skips a test where a program is missing.
func need(t *testing.T, programs ...string) {
	t.Helper()
	for _, program := range programs {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("NOT PROVEN: what needs %s, which is not installed. Debian: apt-get install iproute2 iptables nftables kmod strace util-linux.", program)
		}
	}
}

// withIstio puts Istio's own istio-iptables on the PATH, as pilot-agent, built from the lab's stand-in for proxyv2, and lets
// the scripts see the sandbox's own proc. Its rules name uid 1337, which the kernel refuses ("Invalid argument") in a user
// namespace that has no such user.
func (s *sandbox) withIstio() *sandbox {
	s.t.Helper()
	need(s.t, "iptables-nft", "iptables-legacy", "nft")
	if os.Geteuid() != 0 {
		s.t.Skip("NOT PROVEN: Istio's rules and traffic of uid 1337, which only root can become. Run as root.")
	}
	dir := s.path("istio")
	require.NoError(s.t, os.MkdirAll(dir, 0o755))
	require.NoError(s.t, os.Symlink(goBuild(s.t, filepath.Join(chart.Root(), "ci", "proxyv2-stand-in"), "."), filepath.Join(dir, "pilot-agent")))
	for i, variable := range s.env {
		if path, found := strings.CutPrefix(variable, "PATH="); found {
			s.env[i] = "PATH=" + dir + ":" + path + ":/usr/sbin:/sbin"
		}
	}
	return s
}

var builds sync.Map

// goBuild builds a static program once a run and returns its path, readable for every user.
func goBuild(t *testing.T, module, pkg string) string {
	t.Helper()
	build, _ := builds.LoadOrStore(module+pkg, sync.OnceValues(func() (string, error) {
		dir, err := os.MkdirTemp(buildDir, "")
		if err != nil {
			return "", err
		}
		program := filepath.Join(dir, "program")
		command := exec.CommandContext(context.Background(), "go", "build", "-o", program, pkg)
		command.Dir = module
		command.Env = append(os.Environ(), "CGO_ENABLED=0")
		if output, err := command.CombinedOutput(); err != nil {
			return "", errors.New(string(output))
		}
		return program, os.Chmod(dir, 0o755)
	}))
	program, err := build.(func() (string, error))()
	require.NoError(t, err, "go build %s in %s", pkg, module)
	return program
}

var buildDir string

func TestMain(m *testing.M) {
	var err error
	if buildDir, err = os.MkdirTemp("", "istio-os-init-node-"); err != nil {
		panic(err)
	}
	if err = os.Chmod(buildDir, 0o755); err != nil {
		panic(err)
	}
	code := m.Run()
	_ = os.RemoveAll(buildDir)
	os.Exit(code)
}

func quoted(words []string) []string {
	for i, word := range words {
		words[i] = "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
	}
	return words
}
