package node

import (
	"bytes"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const ours = "# owner: istio-system/istio-os-init\nnf_tables\n"

// newUninstall is a node after the release has gone: what the hook's ConfigMap ships is there, and nothing else.
func newUninstall(t *testing.T, values string) *sandbox {
	t.Helper()
	s := newSandbox(t, values)
	require.NoError(t, os.RemoveAll(s.path("config")))
	require.NoError(t, os.Mkdir(s.path("config"), 0o755))
	for name, content := range s.objects.Hooks.ConfigMap(t).Data {
		s.write("config/"+name, content)
	}
	return s
}

func (s *sandbox) startCleanUp() (*exec.Cmd, *bytes.Buffer) {
	s.t.Helper()
	return s.startAs(s.objects.Hooks.Container(s.t, "clean-up"))
}

// done runs the readiness probe and returns its exit code.
func (s *sandbox) done() int {
	s.t.Helper()
	container := s.objects.Hooks.Container(s.t, "clean-up")
	probe := container.ReadinessProbe.Exec.Command
	command := exec.CommandContext(s.t.Context(), "/bin/sh", append([]string{s.path("config/clean-up.sh")}, probe[2:]...)...)
	command.Env = append(s.env, environment(container)...)
	_ = command.Run()
	return command.ProcessState.ExitCode()
}

func (s *sandbox) requireGone(name string, limit time.Duration) {
	s.t.Helper()
	require.Eventually(s.t, func() bool {
		_, err := os.Lstat(s.path(name))
		return os.IsNotExist(err)
	}, limit, 20*time.Millisecond, "%s is still there", name)
}

func TestCleanUpRemovesTheReleasesFileAndStays(t *testing.T) {
	t.Parallel()
	s := newUninstall(t, "")
	s.write(persisted, ours)
	s.write(half, "# owner: ist")
	s.write("host/etc/modules-load.d/other.conf", "br_netfilter\n")
	require.Equal(t, 1, s.done(), "ready before anything is removed")
	command, _ := s.startCleanUp()
	s.requireGone(persisted, 2*time.Second)
	require.Equal(t, []string{"other.conf"}, s.left())
	require.Zero(t, s.done())

	// a pod of the release that was still ending
	s.write(persisted, ours)
	require.Equal(t, 1, s.done())
	s.requireGone(persisted, 2*time.Second)
	require.NoError(t, command.Process.Signal(syscall.Signal(0)), "a DaemonSet's pod that ends is started again")
}

func TestCleanUpLeavesWhatIsNotTheReleases(t *testing.T) {
	t.Parallel()
	s := newUninstall(t, "")
	const foreign = "# owner: other/istio-os-init\nnf_tables\n"
	s.write(persisted, foreign)
	s.startCleanUp()
	time.Sleep(1200 * time.Millisecond)
	require.Equal(t, foreign, s.read(persisted))
	require.Zero(t, s.done(), "uninstall waits for what is not its own")
}

func TestCleanUpEndsAtOnceOnSIGTERM(t *testing.T) {
	t.Parallel()
	s := newUninstall(t, "")
	s.write(persisted, ours)
	command, log := s.startCleanUp()
	s.requireGone(persisted, 2*time.Second)
	require.NoError(t, command.Process.Signal(syscall.SIGTERM))
	start := time.Now()
	require.Zero(t, wait(t, command, time.Second), log)
	require.Less(t, time.Since(start), 500*time.Millisecond)
}

func TestCleanUpThatCannotRemoveSaysSoOnceAndIsNotDone(t *testing.T) {
	t.Parallel()
	needNamespaces(t)
	s := newUninstall(t, "")
	s.write(persisted, ours)
	script := s.path("config/clean-up.sh")
	dir := s.path("host/etc/modules-load.d")
	command := exec.CommandContext(t.Context(), "/bin/sh", "-c",
		"mount --make-rprivate / && mount --bind "+dir+" "+dir+" && mount -o remount,bind,ro "+dir+" && { timeout 3 sh "+script+"; sh "+script+" --done; }")
	command.Env = append(s.env, environment(s.objects.Hooks.Container(t, "clean-up"))...)
	command.SysProcAttr = namespaces()
	output, err := command.CombinedOutput()
	require.Error(t, err)
	require.Equal(t, 1, command.ProcessState.ExitCode(), string(output))
	require.Len(t, warnings(string(output)), 1, string(output))
	require.Regexp(t, `istio-os-init\.conf is not removed, .*Read-only file system`, string(output))
}

// api answers as the API server does after helm has made the hook's objects, over TLS and with Kubernetes' own types.
type api struct {
	sync.Mutex
	*httptest.Server
	ready     map[string]bool // by node: whether its clean-up pod is
	ending    []string        // nodes where a pod of the release is still ending
	uncounted bool            // the DaemonSet's controller has not counted yet
	requests  int
}

// newAPI starts it, and points the waiter at it.
func newAPI(t *testing.T, s *sandbox) *api {
	t.Helper()
	need(t, "curl")
	a := &api{ready: map[string]bool{}}
	hooks := s.objects.Hooks
	cleaner := hooks.DaemonSet(t)
	mux := http.NewServeMux()
	mux.HandleFunc("/apis/apps/v1/namespaces/"+cleaner.Namespace+"/daemonsets/"+cleaner.Name, func(w http.ResponseWriter, r *http.Request) {
		now := *cleaner.DeepCopy()
		now.Generation = 1
		if !a.uncounted {
			now.Status = appsv1.DaemonSetStatus{ObservedGeneration: 1, DesiredNumberScheduled: int32(len(a.ready))}
			for _, ready := range a.ready {
				if ready {
					now.Status.NumberReady++
				}
			}
		}
		answer(w, r, now)
	})
	mux.HandleFunc("/api/v1/namespaces/"+cleaner.Namespace+"/pods", func(w http.ResponseWriter, r *http.Request) {
		selector, err := metav1.ParseToLabelSelector(r.URL.Query().Get("labelSelector"))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		pods := []corev1.Pod{}
		switch selector.MatchLabels["app.kubernetes.io/name"] {
		case cleaner.Spec.Selector.MatchLabels["app.kubernetes.io/name"]:
			for node, ready := range a.ready {
				pods = append(pods, podOn(node, cleaner.Spec.Template, ready))
			}
		case s.objects.DaemonSet(t).Spec.Selector.MatchLabels["app.kubernetes.io/name"]:
			for _, node := range a.ending {
				pods = append(pods, podOn(node, s.objects.DaemonSet(t).Spec.Template, false))
			}
		}
		answer(w, r, corev1.PodList{Items: pods})
	})
	a.Server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a.Lock()
		defer a.Unlock()
		a.requests++
		if r.Header.Get("Authorization") != "Bearer the-token" {
			http.Error(w, "Unauthorized", http.StatusUnauthorized)
			return
		}
		mux.ServeHTTP(w, r)
	}))
	t.Cleanup(a.Close)
	require.NoError(t, os.Mkdir(s.path("account"), 0o755))
	s.write("account/token", "the-token")
	s.write("account/ca.crt", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.Certificate().Raw})))
	s.env = append(s.env, "ISTIO_OS_INIT_API="+a.URL, "ISTIO_OS_INIT_ACCOUNT="+s.path("account"))
	return a
}

// podOn is a pod as the DaemonSet's controller makes it for a node, with what may mislead whoever reads it without a parser.
func podOn(node string, template corev1.PodTemplateSpec, ready bool) corev1.Pod {
	pod := corev1.Pod{ObjectMeta: *template.ObjectMeta.DeepCopy(), Spec: *template.Spec.DeepCopy()}
	pod.Annotations = map[string]string{"example.com/note": `"matchFields":[{"key":"metadata.name","operator":"In","values":["of-an-annotation"]}]`}
	pod.Spec.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{
		NodeSelectorTerms: []corev1.NodeSelectorTerm{{MatchFields: []corev1.NodeSelectorRequirement{{Key: "metadata.name", Operator: "In", Values: []string{node}}}}},
	}}}
	if ready {
		pod.Spec.NodeName = node
		pod.Status.Conditions = []corev1.PodCondition{{Type: "PodScheduled", Status: "True"}, {Type: "Ready", Status: "True", ObservedGeneration: 1}, {Type: "ContainersReady", Status: "True"}}
	} else {
		pod.Status.Conditions = []corev1.PodCondition{{Type: "Ready", Status: "False", Message: "containers with unready status"}, {Type: "PodScheduled", Status: "True"}}
	}
	return pod
}

// answer writes an object as the API server does: for curl in indented lines, unless it asks for others.
func answer(w http.ResponseWriter, r *http.Request, object any) {
	encoder := json.NewEncoder(w)
	if r.URL.Query().Get("pretty") != "false" && strings.HasPrefix(r.UserAgent(), "curl/") {
		encoder.SetIndent("", "  ")
	}
	_ = encoder.Encode(object)
}

func (a *api) set(change func()) {
	a.Lock()
	defer a.Unlock()
	change()
}

func (s *sandbox) startWait() (*exec.Cmd, *bytes.Buffer) {
	s.t.Helper()
	return s.startAs(s.objects.Hooks.Job(s.t).Spec.Template.Spec.Containers[0])
}

func TestUninstallWaitsUntilEveryNodeIsClean(t *testing.T) {
	t.Parallel()
	s := newUninstall(t, "")
	a := newAPI(t, s)
	a.ready = map[string]bool{"control-plane": true, "worker": false}
	command, log := s.startWait()
	time.Sleep(3500 * time.Millisecond)
	require.NoError(t, command.Process.Signal(syscall.Signal(0)), "it does not wait for worker")
	a.set(func() { a.ready["worker"] = true })
	require.Zero(t, wait(t, command, 6*time.Second), log)
	require.Regexp(t, `^clean: none of 2 nodes has /etc/modules-load\.d/istio-os-init\.conf any more`, log.String())
	require.Equal(t, 1, strings.Count(log.String(), "\n"), log)
}

func TestUninstallWaitsForPodsThatMayStillWrite(t *testing.T) {
	t.Parallel()
	s := newUninstall(t, "")
	a := newAPI(t, s)
	a.ready = map[string]bool{"worker": true}
	a.ending = []string{"worker"}
	command, log := s.startWait()
	time.Sleep(3500 * time.Millisecond)
	require.NoError(t, command.Process.Signal(syscall.Signal(0)), "it does not wait for the release's pod")
	a.set(func() { a.ending = nil })
	gone := time.Now()
	require.Zero(t, wait(t, command, 6*time.Second), log)
	require.GreaterOrEqual(t, time.Since(gone), 1900*time.Millisecond, "the cleaners have not looked again since")
	require.Contains(t, log.String(), "clean: ")
}

func TestUninstallDoesNotTakeNoNumbersForNoNodes(t *testing.T) {
	t.Parallel()
	s := newUninstall(t, "persist: {cleanUpSeconds: 3}")
	a := newAPI(t, s)
	a.ready = map[string]bool{"worker": true}
	a.uncounted = true
	command, log := s.startWait()
	require.Zero(t, wait(t, command, 8*time.Second), log)
	require.NotContains(t, log.String(), "clean: ")
	require.Contains(t, log.String(), "warning: after 3 s ")
}

func TestUninstallNamesTheNodesThatAreNotCleanAndEndsWell(t *testing.T) {
	t.Parallel()
	s := newUninstall(t, "persist: {cleanUpSeconds: 3}")
	a := newAPI(t, s)
	a.ready = map[string]bool{"control-plane": true, "worker-1": false, "worker-10": true, "worker-2": false}
	start := time.Now()
	command, log := s.startWait()
	require.Zero(t, wait(t, command, 8*time.Second), "a node that is down must not keep a release half deleted: %s", log)
	require.InDelta(t, 3.5, time.Since(start).Seconds(), 1.5)
	require.Equal(t, []string{
		"warning: after 3 s 2 of 4 nodes are clean; not clean, or not heard of: worker-1 worker-2",
		"Fix: as root on each such node, once it is back: rm -f /etc/modules-load.d/istio-os-init.conf",
	}, strings.Split(strings.TrimSpace(log.String()), "\n"))
}

func TestUninstallNamesTheNodeWhoseOldPodDoesNotEnd(t *testing.T) {
	t.Parallel()
	s := newUninstall(t, "persist: {cleanUpSeconds: 3}")
	a := newAPI(t, s)
	a.ready = map[string]bool{"control-plane": true, "worker": true}
	a.ending = []string{"worker"}
	command, log := s.startWait()
	require.Zero(t, wait(t, command, 8*time.Second), log)
	require.Regexp(t, `^warning: .*: worker\n`, log.String())
}

func TestUninstallSaysWhenItCannotTell(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		spoil func(*sandbox, *api)
		words string
	}{
		"no token that counts":  {func(s *sandbox, _ *api) { s.write("account/token", "another") }, "401"},
		"nobody answers":        {func(_ *sandbox, a *api) { a.Close() }, "connect"},
		"another one's answers": {func(s *sandbox, _ *api) { require.NoError(s.t, os.Remove(s.path("account/ca.crt"))) }, "ca.crt"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newUninstall(t, "persist: {cleanUpSeconds: 1}")
			a := newAPI(t, s)
			a.ready = map[string]bool{"worker": true}
			test.spoil(s, a)
			command, log := s.startWait()
			require.Zero(t, wait(t, command, 8*time.Second), log)
			require.Regexp(t, `^warning: not known which nodes are clean: .*curl: .*`+test.words, log.String())
			require.Contains(t, log.String(), "rm -f /etc/modules-load.d/istio-os-init.conf")
		})
	}
}

func TestTheWaiterEndsOnSIGTERM(t *testing.T) {
	t.Parallel()
	s := newUninstall(t, "")
	a := newAPI(t, s)
	a.ready = map[string]bool{"worker": false}
	command, log := s.startWait()
	require.Eventually(t, func() bool { a.Lock(); defer a.Unlock(); return a.requests > 0 }, 3*time.Second, 10*time.Millisecond)
	time.Sleep(200 * time.Millisecond)
	require.NoError(t, command.Process.Signal(syscall.SIGTERM))
	require.Zero(t, wait(t, command, 3*time.Second), log) // a request that is under way is waited for
	require.Empty(t, log.String())
}
