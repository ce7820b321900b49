package node

import (
	"bytes"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/istio-os-init/istio-os-init/test/internal/chart"
)

const ours = "# owner: istio-system/istio-os-init\nnf_tables\n"

// newUninstall is a sandbox with what the hooks' ConfigMap ships, and nothing else.
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

// done runs the startup probe and returns its exit code.
func (s *sandbox) done() int {
	s.t.Helper()
	container := s.objects.Hooks.Container(s.t, "clean-up")
	probe := container.StartupProbe.Exec.Command
	command := exec.CommandContext(s.t.Context(), "/bin/sh", append([]string{s.path("config/clean-up.sh")}, probe[2:]...)...)
	command.Env = append(s.env, s.environment(container)...)
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
	s.requireGone(persisted, soon)
	require.Equal(t, []string{"other.conf"}, s.left())
	require.Zero(t, s.done())

	// a pod of the release that was still ending
	s.write(persisted, ours)
	require.Equal(t, 1, s.done())
	s.requireGone(persisted, soon)
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
	s.requireGone(persisted, soon)
	require.NoError(t, command.Process.Signal(syscall.SIGTERM))
	require.Equal(t, 143, wait(t, command, time.Second), log)
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
	command.Env = append(s.env, s.environment(s.objects.Hooks.Container(t, "clean-up"))...)
	command.SysProcAttr = namespaces()
	output, err := command.CombinedOutput()
	require.Error(t, err)
	require.Equal(t, 1, command.ProcessState.ExitCode(), string(output))
	require.Len(t, warnings(string(output)), 1, string(output))
	require.Regexp(t, `istio-os-init\.conf is not removed, .*Read-only file system`, string(output))
}

// The probe is not asked again: that a node is clean no more only a new start of the container can say.
func TestCleanUpStartsAnewIfItCannotRemoveWhatIsWrittenOnANodeThatWasClean(t *testing.T) {
	t.Parallel()
	needNamespaces(t)
	s := newUninstall(t, "")
	s.write("notes/ours", ours)
	script, file, dir, later := s.path("config/clean-up.sh"), s.path(persisted), s.path("host/etc/modules-load.d"), s.path("later")
	require.NoError(t, os.MkdirAll(later, 0o755))
	// What is written and that it cannot be removed come at once, in one mount.
	command := exec.CommandContext(s.patience(), "/bin/sh", "-ec", `mount --make-rprivate /
cp `+s.path("notes/ours")+" "+strings.Replace(file, dir, later, 1)+`
mount --bind `+later+" "+later+` && mount -o remount,bind,ro `+later+`
sh `+script+` &
sleep 2
kill -0 $! || exit 9
mount --bind `+later+" "+dir+`
wait $!`)
	command.Env = append(s.env, s.environment(s.objects.Hooks.Container(t, "clean-up"))...)
	command.SysProcAttr = namespaces()
	got := s.ended(command)
	require.Equal(t, 1, got.exit, got.log)
}

// api answers as the API server does once Helm has made the hooks' objects, over TLS and with Kubernetes' own types.
type api struct {
	sync.Mutex
	*httptest.Server
	t           *testing.T
	ready       map[string]bool   // by node: whether its clean-up pod is
	status      map[string]string // by node: the status of its pod, if it is another than Running or Pending
	unscheduled []string          // nodes that the scheduler has refused to the clean-up pod
	ending      []string          // nodes on which a pod of the release is still ending
	uncounted   bool              // the DaemonSet's controller has not counted yet
	started     time.Time         // the Job
	deleted     bool              // the release's DaemonSet
	mayWrite    bool              // whether its pods that have not ended yet may write conditions
	conditions  map[string]string // by node: the field manager of its condition IstioReady
	refuses     map[string]int    // by node: the code by which its patch is refused
	latency     time.Duration
	requests    int
	looks       int // at the DaemonSet that cleans
	connections map[string]bool
}

// newAPI starts it, and points uninstall at it.
func newAPI(t *testing.T, s *sandbox) *api {
	t.Helper()
	need(t, "curl")
	a := &api{t: t, ready: map[string]bool{}, started: time.Now(), mayWrite: true, conditions: map[string]string{}, connections: map[string]bool{}}
	mux := a.mux(t, s)
	a.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(a.latency)
		a.Lock()
		defer a.Unlock()
		a.requests++
		a.connections[r.RemoteAddr] = true
		if r.Header.Get("Authorization") != "Bearer the-token" {
			refuse(w, http.StatusUnauthorized, "Unauthorized")
			return
		}
		mux.ServeHTTP(w, r)
	}))
	a.EnableHTTP2 = true
	a.StartTLS()
	t.Cleanup(a.Close)
	require.NoError(t, os.Mkdir(s.path("account"), 0o755))
	s.write("account/token", "the-token")
	s.write("account/ca.crt", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.Certificate().Raw})))
	s.env = append(s.env, "ISTIO_OS_INIT_API="+a.URL, "ISTIO_OS_INIT_ACCOUNT="+s.path("account"))
	return a
}

func (a *api) mux(t *testing.T, s *sandbox) *http.ServeMux {
	t.Helper()
	const namespace = "/namespaces/" + chart.Namespace
	job, own := s.objects.Hooks.Job(t), s.objects.DaemonSet(t)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /apis/batch/v1"+namespace+"/jobs/"+job.Name, func(w http.ResponseWriter, r *http.Request) {
		now := *job.DeepCopy()
		now.Status.StartTime = new(metav1.NewTime(a.started))
		answer(w, r, now)
	})
	mux.HandleFunc("DELETE /apis/apps/v1"+namespace+"/daemonsets/"+own.Name, func(w http.ResponseWriter, r *http.Request) {
		if a.deleted {
			refuse(w, http.StatusNotFound, "not found")
			return
		}
		a.deleted = true
		answer(w, r, metav1.Status{Status: "Success"})
	})
	for _, binding := range s.objects.ClusterRoleBindings {
		mux.HandleFunc("DELETE /apis/rbac.authorization.k8s.io/v1/clusterrolebindings/"+binding.Name, func(w http.ResponseWriter, r *http.Request) {
			a.mayWrite = false
			answer(w, r, metav1.Status{Status: "Success"})
		})
	}
	mux.HandleFunc("GET /api/v1/nodes", func(w http.ResponseWriter, r *http.Request) {
		table := metav1.Table{}
		for _, node := range slices.Sorted(maps.Keys(a.conditions)) {
			table.Rows = append(table.Rows, metav1.TableRow{Cells: []any{node, "Ready", "<none>", "5d", "v1.36.3"}})
		}
		answer(w, r, table)
	})
	mux.HandleFunc("PATCH /api/v1/nodes/{node}/status", func(w http.ResponseWriter, r *http.Request) {
		node, body := r.PathValue("node"), map[string]any{}
		if json.NewDecoder(r.Body).Decode(&body) != nil || body["kind"] != "Node" || body["status"] != nil || r.Header.Get("Content-Type") != "application/apply-patch+yaml" {
			refuse(w, http.StatusBadRequest, "no apply of nothing")
			return
		}
		require.False(t, a.mayWrite, "a pod of the release may write it again")
		if code := a.refuses[node]; code != 0 {
			refuse(w, code, "refused")
			return
		}
		if a.conditions[node] == r.URL.Query().Get("fieldManager") {
			a.conditions[node] = ""
		}
		answer(w, r, corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: node}})
	})
	if len(s.objects.Hooks.DaemonSets) == 0 {
		return mux
	}
	cleaner := s.objects.Hooks.DaemonSet(t)
	mux.HandleFunc("GET /apis/apps/v1"+namespace+"/daemonsets/"+cleaner.Name, func(w http.ResponseWriter, r *http.Request) {
		a.looks++
		now := *cleaner.DeepCopy()
		now.Generation = 1
		if !a.uncounted {
			now.Status = appsv1.DaemonSetStatus{ObservedGeneration: 1, DesiredNumberScheduled: int32(len(a.ready) + len(a.unscheduled))}
			for _, ready := range a.ready {
				if ready {
					now.Status.NumberReady++
				}
			}
		}
		answer(w, r, now)
	})
	mux.HandleFunc("GET /api/v1"+namespace+"/pods", func(w http.ResponseWriter, r *http.Request) {
		selector, err := metav1.ParseToLabelSelector(r.URL.Query().Get("labelSelector"))
		if err != nil {
			refuse(w, http.StatusBadRequest, err.Error())
			return
		}
		ofCleaner := selector.MatchLabels["app.kubernetes.io/name"] == cleaner.Spec.Selector.MatchLabels["app.kubernetes.io/name"]
		if r.URL.Query().Get("fieldSelector") == "spec.nodeName=" {
			list := corev1.PodList{}
			for _, node := range a.unscheduled {
				if ofCleaner {
					list.Items = append(list.Items, unscheduledFor(node, cleaner.Spec.Template))
				}
			}
			answer(w, r, list)
			return
		}
		answer(w, r, a.podTable(ofCleaner))
	})
	return mux
}

// podTable is what kubectl get pods --output wide shows.
func (a *api) podTable(ofCleaner bool) metav1.Table {
	table := metav1.Table{}
	add := func(ready, status, node string) {
		table.Rows = append(table.Rows, metav1.TableRow{Cells: []any{"istio-os-init-x", ready, status, "0", "3s", "10.0.0.1", node, "<none>", "<none>"}})
	}
	if !ofCleaner {
		for _, node := range a.ending {
			add("2/2", "Terminating", node)
		}
		return table
	}
	for node, ready := range a.ready {
		switch status := a.status[node]; {
		case ready:
			add("1/1", "Running", node)
		case status != "":
			add("0/1", status, node)
		default:
			add("0/1", "Pending", node)
		}
	}
	for range a.unscheduled {
		add("0/1", "Pending", "<none>")
	}
	return table
}

// unscheduledFor is a pod as the DaemonSet's controller makes it for a node, with what may mislead a reader without a parser.
func unscheduledFor(node string, template corev1.PodTemplateSpec) corev1.Pod {
	pod := corev1.Pod{ObjectMeta: *template.ObjectMeta.DeepCopy(), Spec: *template.Spec.DeepCopy()}
	pod.Annotations = map[string]string{"example.com/note": `"matchFields":[{"key":"metadata.name","operator":"In","values":["of-an-annotation"]}]`}
	pod.Spec.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{
		NodeSelectorTerms: []corev1.NodeSelectorTerm{{MatchFields: []corev1.NodeSelectorRequirement{{Key: "metadata.name", Operator: "In", Values: []string{node}}}}},
	}}}
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

// waitForLooks waits until uninstall has looked so often at how far the cleaners are.
func (a *api) waitForLooks(count int) {
	a.t.Helper()
	require.Eventually(a.t, func() bool { a.Lock(); defer a.Unlock(); return a.looks >= count }, soon, 10*time.Millisecond)
}

// startUninstall starts the Job's container; more is an environment that wins over the rendered one.
func (s *sandbox) startUninstall(more ...string) (*exec.Cmd, *bytes.Buffer) {
	s.t.Helper()
	return s.startAs(s.objects.Hooks.Uninstaller(s.t), more...)
}

func lines(log *bytes.Buffer) []string { return strings.Split(strings.TrimSpace(log.String()), "\n") }

// patience is long enough for a few looks on a machine that does other things too.
const patience = "persist: {cleanUpSeconds: 15}"

const fileFix = "Fix: as root on each such node, once it is back: rm -f /etc/modules-load.d/istio-os-init.conf"

func TestUninstallWaitsUntilEveryNodeIsClean(t *testing.T) {
	t.Parallel()
	s := newUninstall(t, "")
	a := newAPI(t, s)
	a.ready = map[string]bool{"control-plane": true, "worker": false}
	command, log := s.startUninstall()
	a.waitForLooks(5)
	require.NoError(t, command.Process.Signal(syscall.Signal(0)), "it does not wait for worker")
	a.set(func() {
		require.True(t, a.deleted, "the release's pods could write again")
		a.ready["worker"] = true
	})
	require.Zero(t, wait(t, command, soon), log)
	require.Equal(t, []string{"clean: none of 2 nodes has /etc/modules-load.d/istio-os-init.conf any more; loaded modules stay loaded"}, lines(log))
}

func TestUninstallWaitsForPodsThatMayStillWrite(t *testing.T) {
	t.Parallel()
	s := newUninstall(t, "")
	a := newAPI(t, s)
	a.ready = map[string]bool{"worker": true}
	a.ending = []string{"worker"}
	command, log := s.startUninstall()
	a.waitForLooks(5)
	require.NoError(t, command.Process.Signal(syscall.Signal(0)), "it does not wait for the release's pod")
	a.set(func() { a.ending = nil })
	ended := time.Now()
	require.Zero(t, wait(t, command, soon), log)
	require.GreaterOrEqual(t, time.Since(ended), 1900*time.Millisecond, "the cleaners have not looked again since")
	require.Contains(t, log.String(), "clean: ")
}

func TestUninstallDoesNotTakeNoNumbersForNoNodes(t *testing.T) {
	t.Parallel()
	s := newUninstall(t, patience)
	a := newAPI(t, s)
	a.ready = map[string]bool{"worker": true}
	a.uncounted = true
	command, log := s.startUninstall()
	require.Zero(t, wait(t, command, soon), log)
	require.NotContains(t, log.String(), "clean: ")
	require.Contains(t, log.String(), "warning: 0 of 0 nodes are known to be clean")
}

// By the pod's status a reader sees which node is down, which is a virtual one, and which has a fault of its own.
func TestUninstallNamesEachNodeThatIsNotCleanWithTheReasonAndEndsWell(t *testing.T) {
	t.Parallel()
	s := newUninstall(t, patience)
	a := newAPI(t, s)
	a.ready = map[string]bool{"control-plane": true, "worker-1": false, "worker-10": true, "worker-2": false, "worker-3": false}
	a.status = map[string]string{"worker-2": "ImagePullBackOff", "worker-3": "Running"}
	a.unscheduled = []string{"none-virtual"}
	command, log := s.startUninstall()
	require.Zero(t, wait(t, command, soon), "a node that is down must not keep a release: %s", log)
	require.Equal(t, []string{
		"warning: 2 of 6 nodes are known to be clean. Left, with the status of the pod there (Pending: the node does not answer): " +
			"none-virtual (not scheduled), worker-1 (Pending), worker-2 (ImagePullBackOff), worker-3 (Running)",
		fileFix,
	}, lines(log))
}

func TestUninstallNamesTheNodeOnWhichAnOldPodDoesNotEnd(t *testing.T) {
	t.Parallel()
	s := newUninstall(t, patience)
	a := newAPI(t, s)
	a.ready = map[string]bool{"control-plane": true, "worker": true}
	a.ending = []string{"worker"}
	command, log := s.startUninstall()
	require.Zero(t, wait(t, command, soon), log)
	require.Regexp(t, `^warning: .*: worker \(Terminating\)\n`, log.String())
}

// Kubernetes counts from the Job's start: a pod that starts late has less time, and still says what is left.
func TestUninstallEndsBeforeTheJobsDeadlineHoweverLateItStarts(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		values string
		late   time.Duration
	}{
		"late":             {"", 255 * time.Second}, // Kubernetes' deadline is 290 seconds after the Job's start
		"too late":         {"", 400 * time.Second},
		"by another clock": {patience, -time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newUninstall(t, row.values)
			a := newAPI(t, s)
			a.ready = map[string]bool{"worker": false}
			a.started = time.Now().Add(-row.late)
			command, log := s.startUninstall()
			wait(t, command, soon)
			require.Contains(t, log.String(), "worker (Pending)")
		})
	}
}

func TestUninstallSaysWhenItCannotTellAndFailsSoThatItCanBeRunAgain(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		spoil func(*sandbox, *api)
		words string
	}{
		"no token that counts": {func(s *sandbox, _ *api) { s.write("account/token", "another") }, "401: Unauthorized"},
		"nothing answers":      {func(_ *sandbox, a *api) { a.Close() }, "connect"},
		// what a port begins with is no status
		"nothing answers at 404": {func(s *sandbox, _ *api) { s.env = append(s.env, "ISTIO_OS_INIT_API=https://127.0.0.1:40404") }, "connect"},
		"another one's answers":  {func(s *sandbox, _ *api) { require.NoError(s.t, os.Remove(s.path("account/ca.crt"))) }, "ca.crt"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newUninstall(t, patience)
			a := newAPI(t, s)
			a.ready = map[string]bool{"worker": true}
			test.spoil(s, a)
			command, log := s.startUninstall()
			require.Equal(t, 1, wait(t, command, soon), log)
			require.Regexp(t, `(?m)^warning: nothing is removed: .*curl: .*`+test.words, log.String())
			require.Regexp(t, `(?m)^Fix: run helm uninstall again\.`, log.String())
		})
	}
}

func TestUninstallNamesWhatIsLeftOnSIGTERM(t *testing.T) {
	t.Parallel()
	s := newUninstall(t, oneCondition)
	a := newAPI(t, s)
	a.ready = map[string]bool{"worker": false}
	a.conditions = map[string]string{"a": manager, "b": manager}
	a.refuses = map[string]int{"b": http.StatusForbidden}
	command, log := s.startUninstall()
	a.waitForLooks(2)
	require.NoError(t, command.Process.Signal(syscall.SIGTERM))
	require.Zero(t, wait(t, command, 10*time.Second), log)
	require.Equal(t, []string{
		"IstioReady is removed from 1 of 2 nodes",
		"warning: IstioReady is left on these nodes: b (HTTP status 403)",
		`Fix: for each such node: kubectl patch node NODE --subresource status --patch '{"status":{"conditions":[{"type":"IstioReady","$patch":"delete"}]}}'`,
		"warning: 0 of 1 nodes are known to be clean. Left, with the status of the pod there (Pending: the node does not answer): worker (Pending)",
		fileFix,
	}, lines(log))
}

// manager is the field manager of the release's conditions.
const manager = chart.Namespace + "/" + chart.Release

func TestUninstallRemovesTheReleasesConditionsAndNoOthers(t *testing.T) {
	t.Parallel()
	s := newUninstall(t, "{persist: {enabled: false}, "+oneCondition+"}")
	a := newAPI(t, s)
	a.conditions = map[string]string{"a": manager, "b": "other/istio-os-init", "c": ""}
	a.refuses = map[string]int{"deleted-meanwhile": http.StatusNotFound}
	a.conditions["deleted-meanwhile"] = ""
	command, log := s.startUninstall()
	require.Zero(t, wait(t, command, soon), log)
	require.Equal(t, map[string]string{"a": "", "b": "other/istio-os-init", "c": "", "deleted-meanwhile": ""}, a.conditions)
	require.Equal(t, []string{"IstioReady is removed from 4 of 4 nodes"}, lines(log))
	require.True(t, a.deleted)
}

// A fleet: each request costs a round trip, and a connection for each would be a storm of its own.
func TestUninstallRemovesFiveThousandConditionsInTimeOverFewConnectionsAndSaysHowFarItIs(t *testing.T) {
	t.Parallel()
	// 45 seconds by default; more here for a machine that does much else besides
	s := newUninstall(t, "{persist: {enabled: false, cleanUpSeconds: 240}, "+oneCondition+"}")
	a := newAPI(t, s)
	a.latency = 5 * time.Millisecond
	const nodes = 5000
	for i := range nodes {
		a.conditions[fmt.Sprintf("ip-10-0-%d-%d.eu-central-1.compute.internal", i/250, i%250)] = manager
	}
	start := time.Now()
	command, log := s.startUninstall()
	require.Zero(t, wait(t, command, 4*time.Minute), log)
	took := time.Since(start)
	t.Logf("%d nodes: %v, %d connections\n%s", nodes, took.Round(time.Millisecond), len(a.connections), log)
	for node, of := range a.conditions {
		require.Empty(t, of, node)
	}
	require.LessOrEqual(t, a.requests, nodes+20)
	require.LessOrEqual(t, len(a.connections), 100)
	require.Len(t, lines(log), 10, "progress, every 500 nodes")
	require.Equal(t, "IstioReady is removed from 5000 of 5000 nodes", lines(log)[9])
}
