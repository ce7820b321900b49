// Package node asks one question: what do the shipped scripts do on a node? They run as the chart renders them, with the
// capabilities and the volumes that the chart gives them, in network and mount namespaces of their own.
package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"

	"github.com/istio-os-init/istio-os-init/test/internal/chart"
	_ "github.com/istio-os-init/istio-os-init/test/internal/chart/inprocess"
)

// sandbox is a node as the scripts see it: a fake host root with a proc, a kernel release and a modprobe-stand-in, the volumes of
// one pod, and the ConfigMap of one rendering.
type sandbox struct {
	t       *testing.T
	dir     string
	objects chart.Objects
	env     []string
	// before and after are shell commands that run as root in the pod's namespaces, around its containers: for mounts.
	before, after string
	kernel        *kernel // that the containers which exec runs have in the place of this machine's; as a rule none
}

// writers are the directories below state: a volume for each container that records an outcome.
var writers = []string{"load", "verify", "traffic", "watch"}

// newSandbox renders the chart with values, a YAML document, and lays out a node whose kernel has no module at all.
func newSandbox(t *testing.T, values string) *sandbox {
	t.Helper()
	s := newPod(t, values)
	for _, dir := range []string{"host/usr/sbin", "host/stand-in", "host/lib/modules/5.14.0-0.el9.stand-in"} {
		require.NoError(t, os.MkdirAll(s.path(dir), 0o755))
	}
	s.write("host/proc/sys/kernel/osrelease", "5.14.0-0.el9.stand-in\n")
	modprobe, err := os.ReadFile(program(t, "modprobe-stand-in"))
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(s.path("host/usr/sbin/modprobe"), modprobe, 0o755))
	return s
}

// newPod renders the chart with values and lays out the volumes of a pod on a host that has no file but those of a kernel without modules.
func newPod(t *testing.T, values string) *sandbox {
	t.Helper()
	s := &sandbox{t: t, dir: t.TempDir(), objects: chart.Render(t, values)}
	require.NoError(t, os.Chmod(filepath.Dir(s.dir), 0o755)) // for the containers that are not root
	for _, dir := range []string{"host/proc/sys/kernel", "host/proc/net", "host/sys", "host/etc/modules-load.d", "config", "proc", "sys", "notes"} {
		require.NoError(t, os.MkdirAll(s.path(dir), 0o755))
	}
	require.NoError(t, os.Chmod(s.path("notes"), 0o777))
	s.newState()
	s.write("host/proc/modules", "")
	s.write("host/proc/net/if_inet6", "")
	s.write("termination-log", "")
	for name, content := range s.objects.ConfigMap(t).Data {
		s.write("config/"+name, content)
		require.NoError(t, os.Chmod(s.path("config/"+name), 0o555)) // the volume's defaultMode
	}
	s.env = []string{
		"PATH=" + os.Getenv("PATH"),
		"ISTIO_OS_INIT_HOST=" + s.path("host"),
		"ISTIO_OS_INIT_PROC=" + s.path("proc"),
		"ISTIO_OS_INIT_SYS=" + s.path("sys"),
		"ISTIO_OS_INIT_STATE=" + s.path("state"),
		"ISTIO_OS_INIT_TERMINATION_LOG=" + s.path("termination-log"),
		"ISTIO_OS_INIT_MODULES_LOAD=" + s.path("host/etc/modules-load.d"),
	}
	return s
}

// newState lays out the volumes of a new pod.
func (s *sandbox) newState() {
	s.t.Helper()
	require.NoError(s.t, os.RemoveAll(s.path("state")))
	for _, writer := range writers {
		require.NoError(s.t, os.MkdirAll(s.path("state/"+writer), 0o755))
		require.NoError(s.t, os.Chmod(s.path("state/"+writer), 0o777)) // as the kubelet makes an emptyDir
	}
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
// the last. Each has its own mounts, uid, capabilities, arguments and environment as rendered.
func (s *sandbox) run(containers ...string) result {
	s.t.Helper()
	commands := make([][]string, len(containers))
	for i, name := range containers {
		container := s.container(name)
		commands[i] = s.contained(container, s.command(container)...)
	}
	return s.inPod(commands...)
}

// as runs a shell script with what container name may do and see.
func (s *sandbox) as(name, script string) result {
	s.t.Helper()
	return s.inPod(s.contained(s.container(name), "/bin/sh", "-c", script))
}

// inPod runs commands one after the other in the namespaces of one pod, until one fails.
func (s *sandbox) inPod(commands ...[]string) result {
	s.t.Helper()
	needNamespaces(s.t)
	s.write("termination-log", "")
	// 192.0.2.1: Istio wants an address that is not loopback (tools/common/config)
	script := []string{"set -e", "mount --make-rprivate /", "ip link set lo up", "ip address add 192.0.2.1/32 dev lo", s.before}
	for _, words := range commands {
		script = append(script, strings.Join(quoted(words), " "))
	}
	script = append(script, s.after)
	command := exec.CommandContext(s.patience(), "/bin/sh", "-c", strings.Join(script, "\n"))
	command.Env = s.env
	command.Dir = "/"
	command.SysProcAttr = namespaces()
	return s.ended(command)
}

// initContainers are the names of those that end.
func (s *sandbox) initContainers() []string {
	var names []string
	for _, container := range s.objects.Pod(s.t).InitContainers {
		if container.RestartPolicy == nil {
			names = append(names, container.Name)
		}
	}
	return names
}

// contained is a command that, in a mount namespace of its own, becomes the container with the command in it.
func (s *sandbox) contained(container corev1.Container, command ...string) []string {
	s.t.Helper()
	setpriv, err := exec.LookPath("setpriv")
	require.NoError(s.t, err)
	return slices.Concat([]string{program(s.t, "contain")}, s.mounts(container),
		[]string{"--", setpriv}, asContainer(container), []string{"/usr/bin/env"}, s.environment(container), command)
}

// mounts are contain's arguments that leave of the sandbox what the container's volumeMounts show, to be written where they say
// so. What stands for the kernel, for /dev and for the test itself (notes) can be written too.
func (s *sandbox) mounts(container corev1.Container) []string {
	volumes := map[string]corev1.VolumeMount{}
	for _, mount := range container.VolumeMounts {
		volumes[mount.Name] = mount
	}
	mounts := []string{"see " + s.path("host/proc") + " " + s.path("proc"), "see " + s.path("host/sys") + " " + s.path("sys"),
		"own " + s.path("termination-log"), "own " + s.path("notes")}
	var hidden []string
	for _, writer := range writers {
		if mount, found := volumes[writer]; !found {
			hidden = append(hidden, "hide "+s.path("state/"+writer))
		} else if !mount.ReadOnly {
			mounts = append(mounts, "own "+s.path("state/"+writer))
		} else {
			mounts = append(mounts, "lock "+s.path("state/"+writer))
		}
	}
	_, host := volumes["host"]
	_, modulesLoad := volumes["modules-load"]
	if modulesLoad {
		mounts = append(mounts, "own "+s.path("host/etc/modules-load.d"))
	}
	if host {
		mounts = append(mounts, "own "+s.path("host/proc"), "own "+s.path("host/stand-in"))
	} else if !modulesLoad {
		hidden = append(hidden, "hide "+s.path("host"))
	}
	mounts = append(append(mounts, "lock "+s.dir), hidden...)
	if readOnly := container.SecurityContext.ReadOnlyRootFilesystem; readOnly != nil && *readOnly {
		mounts = append(mounts, "lock /")
	}
	if s.kernel != nil {
		mounts = append(mounts, "ask")
	}
	return mounts
}

// helmTest is the name for run of the only container of helm test's pod, which has the name of another.
const helmTest = "helm test"

func (s *sandbox) container(name string) corev1.Container {
	s.t.Helper()
	if name == helmTest {
		return s.objects.TestContainer(s.t)
	}
	return s.objects.Container(s.t, name)
}

// rendered is a container of the DaemonSet by its name, for tests that change what it may do or is told.
func (s *sandbox) rendered(name string) *corev1.Container {
	s.t.Helper()
	return chart.ContainerOf(s.t, &s.objects.DaemonSets[0].Spec.Template.Spec, name)
}

// report runs what `kubectl exec ... -- report` runs, which must end well.
func (s *sandbox) report(arguments ...string) string {
	s.t.Helper()
	got := s.tryReport(arguments...)
	require.Zero(s.t, got.exit, got.log)
	return got.log
}

// tryReport: with ISTIO_OS_INIT_NODE, which comes from the API server.
func (s *sandbox) tryReport(arguments ...string) result {
	s.t.Helper()
	return s.exec("watch", append([]string{"/usr/bin/env", "ISTIO_OS_INIT_NODE=stand-in", s.path("config/report")}, arguments...)...)
}

// exec runs a command in a container, in this machine's network.
func (s *sandbox) exec(name string, command ...string) result {
	s.t.Helper()
	needNamespaces(s.t)
	words := s.contained(s.container(name), command...)
	running := exec.CommandContext(s.patience(), words[0], words[1:]...)
	running.Env = s.env
	running.SysProcAttr = mountNamespace()
	if s.kernel != nil {
		defer s.kernel.listen(running)()
	}
	return s.ended(running)
}

// patience ends what hangs before it ends the whole run.
func (s *sandbox) patience() context.Context {
	patience, cancel := context.WithTimeout(s.t.Context(), 3*time.Minute)
	s.t.Cleanup(cancel)
	return patience
}

// ended runs a command to its end.
func (s *sandbox) ended(command *exec.Cmd) result {
	s.t.Helper()
	command.WaitDelay = 20 * time.Second // for who holds its output still
	output, err := command.CombinedOutput()
	var failure *exec.ExitError
	if err != nil && !errors.As(err, &failure) {
		require.NoError(s.t, err)
	}
	return result{exit: command.ProcessState.ExitCode(), log: string(output), conclusion: strings.TrimSpace(s.read("termination-log"))}
}

// record is what a container leaves as outcome.
type record struct {
	round, uptime         int
	status, line, message string
	reasons               []reason
	kernel                string
	backends              map[string]string
	paths                 map[string]string // by path and family: arrived, lost or untried
	ambient               string            // of ambient's rules: applies or refused; empty if they were not asked for
}

type reason struct{ name, subject, sentence, fix string }

// outcome reads the record of a writer. What outcome.sh does not document fails the test.
func (s *sandbox) outcome(writer string) record {
	s.t.Helper()
	content := s.read("state/" + writer + "/outcome")
	r := record{backends: map[string]string{}, paths: map[string]string{}}
	number := func(text string) int {
		n, err := strconv.Atoi(text)
		require.NoError(s.t, err, content)
		return n
	}
	for line := range strings.Lines(content) {
		key, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		if key == "subject" || key == "sentence" || key == "fix" {
			require.NotEmpty(s.t, r.reasons, content)
		}
		switch key {
		case "round":
			r.round = number(value)
		case "uptime":
			r.uptime = number(value)
		case "status":
			r.status = value
		case "line":
			r.line = value
		case "message":
			r.message = value
		case "reason":
			require.Regexp(s.t, `^[A-Z][A-Za-z]+$`, value, content)
			r.reasons = append(r.reasons, reason{name: value})
		case "subject":
			r.reasons[len(r.reasons)-1].subject = value
		case "sentence":
			r.reasons[len(r.reasons)-1].sentence = value
		case "fix":
			r.reasons[len(r.reasons)-1].fix = value
		case "error":
			r.kernel = value
		case "backend":
			name, verdict, _ := strings.Cut(value, " ")
			r.backends[name] = verdict
		case "ambient":
			r.ambient = value
		case "path":
			words := strings.SplitN(value, " ", 3)
			require.Len(s.t, words, 3, content)
			r.paths[words[0]+" IPv"+words[1]] = words[2]
		default:
			require.Failf(s.t, "unknown key", "%q in:\n%s", key, content)
		}
	}
	require.Contains(s.t, []string{"True", "False", "Unknown"}, r.status, content)
	require.NotEmpty(s.t, r.reasons, content)
	require.True(s.t, strings.HasPrefix(r.line, r.reasons[0].name+": "), content)
	require.NotEmpty(s.t, r.message, content)
	return r
}

// says is the status and the name of the first reason, e.g. "False ModuleGone".
func (r record) says() string { return r.status + " " + r.reasons[0].name }

// recordOf is an outcome as a container records it.
func recordOf(round, status, reason, subject string) string {
	return fmt.Sprintf("round %s\nuptime 1\nstatus %s\nline %s: %s\nmessage A sentence on %s.\nreason %[3]s\nsubject %[4]s\nsentence A sentence on %[4]s.\n", round, status, reason, subject, subject)
}

// recorded writes an outcome as a container would.
func (s *sandbox) recorded(writer string, round int, status, reason, subject string) {
	s.t.Helper()
	s.write("state/"+writer+"/outcome", recordOf(strconv.Itoa(round), status, reason, subject))
}

// proven is the state of a node that is proven, with modules that load has seen loaded.
func (s *sandbox) proven(modules ...string) *sandbox {
	s.t.Helper()
	s.recorded("load", 1, "Unknown", "ModulesLoaded", "modules")
	s.recorded("verify", 1, "Unknown", "RulesApplied", "nft")
	s.recorded("traffic", 1, "True", "RedirectionProven", "a connection")
	facts := "os Stand-in\n"
	for _, module := range modules {
		facts += "module " + module + " loaded-now\n"
	}
	s.write("state/load/facts", facts)
	return s
}

// environment is the container's, as NAME=value, but for its PATH, as the programs are the sandbox's. What the kubelet fills in is the node's
// name.
func (s *sandbox) environment(container corev1.Container) []string {
	var env []string
	for _, variable := range container.Env {
		switch {
		case variable.ValueFrom != nil:
			require.Equal(s.t, "spec.nodeName", variable.ValueFrom.FieldRef.FieldPath)
			env = append(env, variable.Name+"=stand-in")
		case variable.Name != "PATH":
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

// asContainer are setpriv's arguments that leave a process with just what the container's securityContext grants.
func asContainer(container corev1.Container) []string {
	context := container.SecurityContext
	capabilities := "-all"
	for _, capability := range context.Capabilities.Add {
		capabilities += ",+" + strings.ToLower(string(capability))
	}
	arguments := []string{"--no-new-privs", "--bounding-set=" + capabilities, "--inh-caps=" + capabilities}
	if uid := *context.RunAsUser; uid != 0 && os.Geteuid() == 0 {
		id := strconv.FormatInt(uid, 10)
		arguments = append(arguments, "--reuid="+id, "--regid="+id, "--clear-groups")
	}
	return arguments
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

// mountNamespace: only its own mounts.
func mountNamespace() *syscall.SysProcAttr {
	attributes := namespaces()
	attributes.Cloneflags &^= syscall.CLONE_NEWNET
	return attributes
}

// tryNamespaces asks the kernel once: to make and to end a network namespace costs it more than most of what a test runs.
var tryNamespaces = sync.OnceValue(func() error {
	probe := exec.CommandContext(context.Background(), "true")
	probe.SysProcAttr = namespaces()
	return probe.Run()
})

// needNamespaces skips a test where neither root nor user namespaces are to be had.
func needNamespaces(t *testing.T) {
	t.Helper()
	need(t, "ip", "setpriv")
	if err := tryNamespaces(); err != nil {
		t.Skipf("NOT PROVEN: the scripts on a node, which need namespaces of their own (%v). Run as root, or allow user namespaces.", err)
	}
}

// need skips a test where a program is missing.
func need(t *testing.T, programs ...string) {
	t.Helper()
	for _, program := range programs {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("NOT PROVEN: what needs %s, which is not installed. Debian: apt-get install iproute2 iptables nftables kmod strace util-linux busybox-static.", program)
		}
	}
}

// withIstio puts Istio's own pilot-agent on the PATH, that of the lab's stand-in for proxyv2, and lets
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
	require.NoError(s.t, os.Symlink(program(s.t, "proxyv2-stand-in"), filepath.Join(dir, "pilot-agent")))
	for i, variable := range s.env {
		if path, found := strings.CutPrefix(variable, "PATH="); found {
			s.env[i] = "PATH=" + dir + ":" + path + ":/usr/sbin:/sbin"
		}
	}
	return s
}

var programs sync.Map

// program returns the path of a static program of our own that every user can read: the cache of scripts/tool may be root's alone.
func program(t *testing.T, name string) string {
	t.Helper()
	tool := chart.Tool(t, name)
	copied, _ := programs.LoadOrStore(name, sync.OnceValues(func() (string, error) {
		content, err := os.ReadFile(tool)
		if err != nil {
			return "", err
		}
		path := filepath.Join(programDir, name)
		return path, os.WriteFile(path, content, 0o755)
	}))
	path, err := copied.(func() (string, error))()
	require.NoError(t, err)
	return path
}

var programDir string

func TestMain(m *testing.M) {
	var err error
	if programDir, err = os.MkdirTemp("", "istio-os-init-node-"); err != nil {
		panic(err)
	}
	if err = os.Chmod(programDir, 0o755); err != nil {
		panic(err)
	}
	code := m.Run()
	_ = os.RemoveAll(programDir)
	os.Exit(code)
}

func quoted(words []string) []string {
	for i, word := range words {
		words[i] = "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
	}
	return words
}
