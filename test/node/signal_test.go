package node

import (
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
)

const (
	ourTaint = "startup-taint.cluster-autoscaler.kubernetes.io/istio-os-init"
	signals  = "signals: {nodeCondition: {enabled: true}, startupTaint: {remove: true}}"
)

// apiStandIn answers for one node as the API server does: real patches of Kubernetes' own types, over TLS. What it does not have,
// RBAC and the policy, is test/cluster's to prove.
type apiStandIn struct {
	sync.Mutex
	*httptest.Server
	t      *testing.T
	node   corev1.Node
	old    []corev1.Taint // what the API server has in memory, where that is old
	writes []string       // the bodies that changed something
	reads  int
	// before runs ahead of every json-patch: others are faster
	before func(*corev1.Node)
	fail   int // answers that are a failure first
}

func newAPIStandIn(t *testing.T, s *sandbox) *apiStandIn {
	t.Helper()
	need(t, "curl")
	a := &apiStandIn{t: t, node: corev1.Node{
		ObjectMeta: metav1.ObjectMeta{
			Name: "node-1",
			// what may mislead whoever reads it without a parser
			Annotations: map[string]string{"example.com/note": `{"type":"IstioReady","status":"False"} "taints":[{"key":"` + ourTaint + `"}]`},
			ManagedFields: []metav1.ManagedFieldsEntry{{Manager: "kubelet", FieldsV1: &metav1.FieldsV1{
				Raw: []byte(`{"f:status":{"f:conditions":{"k:{\"type\":\"IstioReady\"}":{".":{},"f:status":{}}}}}`)}}},
		},
		Status: corev1.NodeStatus{Conditions: []corev1.NodeCondition{{Type: "Ready", Status: "True", Message: `kubelet is "ready"`}}},
	}}
	a.Server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a.Lock()
		defer a.Unlock()
		if r.Header.Get("Authorization") != "Bearer the-token" {
			http.Error(w, "Unauthorized", http.StatusUnauthorized)
			return
		}
		if a.fail > 0 {
			a.fail--
			http.Error(w, "not now", http.StatusServiceUnavailable)
			return
		}
		if code := a.serve(r); code != http.StatusOK {
			http.Error(w, "refused", code)
			return
		}
		shown := *a.node.DeepCopy()
		if r.Method == http.MethodGet && a.old != nil && r.URL.Query().Get("resourceVersion") == "0" {
			shown.Spec.Taints = a.old
		}
		answer(w, r, shown)
	}))
	t.Cleanup(a.Close)
	require.NoError(t, os.Mkdir(s.path("account"), 0o755))
	s.write("account/token", "the-token")
	s.write("account/ca.crt", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.Certificate().Raw})))
	s.env = append(s.env, "ISTIO_OS_INIT_API="+a.URL, "ISTIO_OS_INIT_ACCOUNT="+s.path("account"))
	return a
}

// serve applies a request to the node and returns the code of its answer.
func (a *apiStandIn) serve(r *http.Request) int {
	status := r.URL.Path == "/api/v1/nodes/node-1/status"
	if !status && r.URL.Path != "/api/v1/nodes/node-1" {
		return http.StatusNotFound
	}
	if r.Method == http.MethodGet && !status {
		a.reads++
		return http.StatusOK
	}
	body, err := io.ReadAll(r.Body)
	if err != nil || r.Method != http.MethodPatch || r.URL.Query().Get("fieldManager") != "istio-system/istio-os-init" {
		return http.StatusMethodNotAllowed
	}
	jsonPatch := r.Header.Get("Content-Type") == "application/json-patch+json"
	if jsonPatch && a.before != nil {
		a.before(&a.node)
	}
	before, _ := json.Marshal(a.node)
	var after []byte
	if jsonPatch {
		patch, err := jsonpatch.DecodePatch(body)
		if err != nil {
			return http.StatusBadRequest
		}
		if after, err = patch.Apply(before); err != nil {
			return http.StatusUnprocessableEntity // "the server rejected our request due to an error in our request"
		}
	} else if after, err = strategicpatch.StrategicMergePatch(before, body, corev1.Node{}); err != nil {
		return http.StatusBadRequest
	}
	var node corev1.Node
	if json.Unmarshal(after, &node) != nil {
		return http.StatusBadRequest
	}
	if status {
		node.Spec = a.node.Spec
	} else {
		node.Status = a.node.Status
	}
	a.node = node
	if now, _ := json.Marshal(node); string(now) != string(before) {
		a.writes = append(a.writes, string(body))
	}
	return http.StatusOK
}

func (a *apiStandIn) condition() corev1.NodeCondition {
	a.Lock()
	defer a.Unlock()
	for _, condition := range a.node.Status.Conditions {
		if condition.Type == "IstioReady" {
			return condition
		}
	}
	return corev1.NodeCondition{}
}

func (a *apiStandIn) taints() []string {
	a.Lock()
	defer a.Unlock()
	var keys []string
	for _, taint := range a.node.Spec.Taints {
		keys = append(keys, taint.Key)
	}
	return keys
}

func (a *apiStandIn) waitFor(status corev1.ConditionStatus, reason string) corev1.NodeCondition {
	a.t.Helper()
	require.Eventually(a.t, func() bool { now := a.condition(); return now.Status == status && now.Reason == reason },
		8*time.Second, 20*time.Millisecond, "not %s %s", status, reason)
	return a.condition()
}

// newSignal is a node that was booted an hour ago, with its signal running.
func newSignal(t *testing.T, values string, prepare ...func(*sandbox, *apiStandIn)) (*sandbox, *apiStandIn, func() string) {
	t.Helper()
	s := newSandbox(t, values)
	a := newAPIStandIn(t, s)
	s.write("host/proc/stat", fmt.Sprintf("cpu  1 2 3\nbtime %d\n", time.Now().Add(-time.Hour).Unix()))
	for _, prepare := range prepare {
		prepare(s, a)
	}
	command, log := s.startAs(s.objects.Container(t, "signal"), "ISTIO_OS_INIT_NODE=node-1")
	return s, a, func() string {
		require.NoError(t, command.Process.Signal(syscall.SIGTERM))
		require.Zero(t, wait(t, command, time.Second))
		return log.String()
	}
}

func (s *sandbox) tell(line string) { s.write("state/condition", line+"\n") }

func TestTheConditionFollowsWhatTheScriptsFindOut(t *testing.T) {
	t.Parallel()
	s, a, stop := newSignal(t, signals)
	first := a.waitFor("Unknown", "Proving")
	require.WithinDuration(t, time.Now(), first.LastTransitionTime.Time, 5*time.Second)

	s.write("state/verdict", "verdict refused\nwords x\nreason ModuleNotOnDisk\nsentence Kernel 5 has no \"nat\" \\ table.\nfix dnf install it\n"+
		"reason ModuleBlocklisted\nsentence A list.\nfix remove it\n")
	s.tell("False ModuleNotOnDisk: iptable_nat. Fix: dnf install it. Also: ModuleBlocklisted")
	failed := a.waitFor("False", "ModuleNotOnDisk")
	require.Equal(t, `Kernel 5 has no "nat" \ table. Fix: dnf install it. Also ModuleBlocklisted: A list. Fix: remove it.`, failed.Message)

	// another reason, the same status
	time.Sleep(time.Second)
	s.tell("False TrafficNotRedirected: rules are applied. Fix: look")
	changed := a.waitFor("False", "TrafficNotRedirected")
	require.Equal(t, "rules are applied. Fix: look", changed.Message, "the verdict is about something else")
	require.Equal(t, failed.LastTransitionTime, changed.LastTransitionTime)
	require.True(t, changed.LastHeartbeatTime.After(failed.LastHeartbeatTime.Time))

	s.tell("True RedirectionProven: it works")
	proven := a.waitFor("True", "RedirectionProven")
	require.True(t, proven.LastTransitionTime.After(failed.LastTransitionTime.Time))

	time.Sleep(4500 * time.Millisecond)
	require.Len(t, a.writes, 4, "it writes although nothing has changed: %s", a.writes)
	require.Contains(t, stop(), "IstioReady True RedirectionProven: it works\n")
	require.Equal(t, proven, a.condition(), "it writes at its end")
	require.Len(t, a.node.Status.Conditions, 2)
}

// Whoever rolls the DaemonSet must not see every node as not proven for a while; a boot is another matter.
func TestAProofOfThePodBeforeStandsUntilTheNextOneUnlessTheNodeWasBooted(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		told time.Duration
		want corev1.ConditionStatus
	}{
		"in this boot":    {30 * time.Minute, "True"},
		"before the boot": {2 * time.Hour, "Unknown"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			told := metav1.NewTime(time.Now().Add(-row.told).Truncate(time.Second))
			_, a, stop := newSignal(t, "signals: {nodeCondition: {enabled: true}}", func(_ *sandbox, a *apiStandIn) {
				a.node.Status.Conditions = append(a.node.Status.Conditions, corev1.NodeCondition{
					Type: "IstioReady", Status: "True", LastHeartbeatTime: told, LastTransitionTime: told, Reason: "RedirectionProven", Message: "a } brace"})
			})
			time.Sleep(1500 * time.Millisecond)
			require.Equal(t, row.want, a.condition().Status)
			stop()
		})
	}
}

func TestTheTaintGoesWithTheProofAndNoOtherTaintDoes(t *testing.T) {
	t.Parallel()
	others := []corev1.Taint{{Key: "a", Effect: "NoSchedule"}, {Key: ourTaint + "-of-another", Effect: "NoSchedule"}, {Key: "b", Value: ourTaint, Effect: "NoExecute", TimeAdded: new(metav1.Now().Rfc3339Copy())}}
	s, a, stop := newSignal(t, signals, func(_ *sandbox, a *apiStandIn) {
		a.node.Spec.Taints = []corev1.Taint{others[0], {Key: ourTaint, Value: "x", Effect: "NoSchedule"}, others[1], {Key: ourTaint, Effect: "NoExecute"}, others[2]}
	})
	a.waitFor("Unknown", "Proving")
	s.tell("False RulesRejected: no")
	a.waitFor("False", "RulesRejected")
	time.Sleep(2500 * time.Millisecond)
	require.Len(t, a.taints(), 5, "the taint of a node that is not proven is gone")

	s.tell("True RedirectionProven: yes")
	require.Eventually(t, func() bool { return len(a.taints()) == 3 }, 6*time.Second, 20*time.Millisecond)
	require.Equal(t, []string{"a", ourTaint + "-of-another", "b"}, a.taints())
	require.Contains(t, stop(), `taint removed: {"key":"`+ourTaint+`","value":"x","effect":"NoSchedule"}`)
}

// Between the look and the patch others may do anything.
func TestATaintThatComesAtTheSameMomentIsNotLost(t *testing.T) {
	t.Parallel()
	times := 0
	s, a, stop := newSignal(t, signals, func(_ *sandbox, a *apiStandIn) {
		a.node.Spec.Taints = []corev1.Taint{{Key: ourTaint, Effect: "NoSchedule"}, {Key: "there"}}
		a.before = func(node *corev1.Node) {
			if times++; times <= 6 {
				node.Spec.Taints = append([]corev1.Taint{{Key: fmt.Sprint("new-", times), Effect: "NoExecute"}}, node.Spec.Taints...)
			}
		}
	})
	s.tell("True RedirectionProven: yes")
	require.Eventually(t, func() bool { return len(a.taints()) == 7 && times == 7 }, 20*time.Second, 20*time.Millisecond)
	require.Equal(t, []string{"new-6", "new-5", "new-4", "new-3", "new-2", "new-1", "there"}, a.taints())
	require.Contains(t, stop(), "422")
}

func TestATaintIsFoundAlthoughTheAPIServersMemoryIsOld(t *testing.T) {
	t.Parallel()
	s, a, stop := newSignal(t, signals, func(_ *sandbox, a *apiStandIn) {
		a.node.Spec.Taints = []corev1.Taint{{Key: "there"}, {Key: ourTaint}}
		a.old = []corev1.Taint{{Key: ourTaint}}
	})
	s.tell("True RedirectionProven: yes")
	a.waitFor("True", "RedirectionProven")
	require.Eventually(t, func() bool { return len(a.taints()) == 1 }, 20*time.Second, 20*time.Millisecond)
	require.Equal(t, []string{"there"}, a.taints(), "the patch has hit another taint")
	stop()
}

func TestSignalGoesOnTryingAndSaysOnceWhyItCannot(t *testing.T) {
	t.Parallel()
	s, a, stop := newSignal(t, "signals: {nodeCondition: {enabled: true}}", func(_ *sandbox, a *apiStandIn) { a.fail = 2 })
	s.tell("True RedirectionProven: yes")
	require.Eventually(t, func() bool { return a.condition().Status == "True" }, 20*time.Second, 50*time.Millisecond)
	require.Equal(t, 1, strings.Count(stop(), "warning: "))
}

func TestAPodThatFindsNothingOutSaysSo(t *testing.T) {
	t.Parallel()
	s := newSandbox(t, "signals: {nodeCondition: {enabled: true}}")
	script := s.read("config/signal.sh")
	require.Contains(t, script, "waited=0\n")
	s.write("config/signal.sh", strings.Replace(script, "waited=0\n", "waited=298\n", 1)) // five minutes are too long for a test
	a := newAPIStandIn(t, s)
	s.write("host/proc/stat", "btime 1\n")
	s.startAs(s.objects.Container(t, "signal"), "ISTIO_OS_INIT_NODE=node-1")
	a.waitFor("Unknown", "Proving")
	a.waitFor("Unknown", "NotProven")
}

// The scripts tell it in the file that signal reads, whatever the pod does about it.
func TestWhatEndsAContainerIsTheNodesCondition(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		values, container, want string
		exit                    int
	}{
		"names decide and one is missing": {"{repair: never, verify: {enabled: false}}", "load", "False ModuleNotOnDisk: ", 1},
		"names decide and all are there":  {"{repair: never, verify: {enabled: false}, backend: legacy, mesh: {dns: false, ipv6: false}, modules: {base: {legacy: [loop_stand_in]}}}", "load", "True ModulesFound: ", 0},
		"os-release leaves it out":        {"nodes: {osRelease: [rhel]}", "load", "True NotSelected: the host has no os-release", 0},
		"the plan is damaged":             {"repair: never", "load", "False PlanUnreadable: ", 2},
		"traffic is not redirected":       {"repair: never", "verify-traffic", "False TrafficNotRedirected: ", 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSandbox(t, row.values).loadable("loop_stand_in")
			if strings.Contains(name, "damaged") {
				require.NoError(t, os.Remove(s.path("config/plan")))
			}
			result := s.run(row.container)
			require.Equal(t, row.exit, result.exit, result.log)
			require.Regexp(t, "^"+row.want+".*\n$", s.read("state/condition"))
		})
	}
}

func TestADriftIsTheNodesConditionUntilTheModuleIsBack(t *testing.T) {
	t.Parallel()
	s := newSandbox(t, "{repair: never, watch: {interval: 1}}")
	const before = "True RedirectionProven: it works\n"
	s.write("state/proven", before)
	s.write("state/condition", before)
	s.write("state/loaded", "xt_owner\n")
	s.write("host/proc/modules", "")
	command, _ := s.start()
	require.Equal(t, 1, wait(t, command, 3*time.Second))
	require.Regexp(t, "^False ModuleGone: no longer loaded: xt_owner", s.read("state/condition"))

	s.write("host/proc/modules", "xt_owner 1 0 - Live 0x0\n")
	s.start()
	require.Eventually(t, func() bool { return s.read("state/condition") == before }, 3*time.Second, 20*time.Millisecond)
}
