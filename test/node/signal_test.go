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
// RBAC and the policy's expressions, is test/cluster's to prove.
type apiStandIn struct {
	sync.Mutex
	*httptest.Server
	t      *testing.T
	node   corev1.Node
	old    []corev1.Taint // what the API server has in memory, if that is old
	writes []string       // the bodies that changed something
	// before runs ahead of every json-patch: others are faster
	before func(*corev1.Node)
	fail   int // answers that are a failure first
	// denies are the policy's messages, by which it denies the probe; without them every change passes
	denies []string
	hang   chan struct{} // if there is one, answers wait for its end
	asked  int           // requests
}

func newAPIStandIn(t *testing.T, s *sandbox) *apiStandIn {
	t.Helper()
	need(t, "curl")
	a := &apiStandIn{t: t, node: corev1.Node{
		ObjectMeta: metav1.ObjectMeta{
			Name: "node-1",
			// what may mislead a reader without a parser
			Annotations: map[string]string{"example.com/note": `{"type":"IstioReady","status":"False"} "taints":[{"key":"` + ourTaint + `"}]`},
			ManagedFields: []metav1.ManagedFieldsEntry{{Manager: "kubelet", FieldsV1: &metav1.FieldsV1{
				Raw: []byte(`{"f:status":{"f:conditions":{"k:{\"type\":\"IstioReady\"}":{".":{},"f:status":{}}}}}`)}}},
		},
		Status: corev1.NodeStatus{Conditions: []corev1.NodeCondition{{Type: "Ready", Status: "True", Message: `kubelet is "ready"`}}},
	}}
	for _, policy := range s.objects.Policies {
		for _, validation := range policy.Spec.Validations {
			a.denies = append(a.denies, validation.Message)
		}
	}
	a.Server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a.Lock()
		a.asked++
		hang := a.hang
		a.Unlock()
		if hang != nil {
			<-hang
		}
		a.Lock()
		defer a.Unlock()
		if r.Header.Get("Authorization") != "Bearer the-token" {
			refuse(w, http.StatusUnauthorized, "Unauthorized")
			return
		}
		if a.fail > 0 {
			a.fail--
			refuse(w, http.StatusServiceUnavailable, "not now")
			return
		}
		if code, message := a.serve(r); code != http.StatusOK {
			refuse(w, code, message)
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

// refuse answers with an error as the API server does.
func refuse(w http.ResponseWriter, code int, message string) {
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: "Failure", Message: message, Reason: "x", Code: int32(code)})
}

// serve applies a request to the node and returns the code of its answer, and the message of an error.
func (a *apiStandIn) serve(r *http.Request) (int, string) {
	status := r.URL.Path == "/api/v1/nodes/node-1/status"
	if !status && r.URL.Path != "/api/v1/nodes/node-1" {
		return http.StatusNotFound, "not found"
	}
	if r.Method == http.MethodGet && !status {
		return http.StatusOK, ""
	}
	body, err := io.ReadAll(r.Body)
	query, kind := r.URL.Query(), r.Header.Get("Content-Type")
	if err != nil || r.Method != http.MethodPatch || query.Get("fieldManager") != "istio-system/istio-os-init" {
		return http.StatusMethodNotAllowed, "no such method"
	}
	if query.Get("dryRun") == "All" {
		return a.tryOut(string(body))
	}
	if kind == "application/json-patch+json" && a.before != nil {
		a.before(&a.node)
	}
	before, _ := json.Marshal(a.node)
	var after []byte
	switch kind {
	case "application/json-patch+json":
		patch, err := jsonpatch.DecodePatch(body)
		if err != nil {
			return http.StatusBadRequest, err.Error()
		}
		if after, err = patch.Apply(before); err != nil {
			return http.StatusUnprocessableEntity, "the server rejected our request due to an error in our request"
		}
	case "application/apply-patch+yaml": // what it applies has the list's key, and so merges as a strategic patch does
		if !status || query.Get("force") != "true" {
			return http.StatusConflict, "conflict"
		}
		fallthrough
	case "application/strategic-merge-patch+json":
		if after, err = strategicpatch.StrategicMergePatch(before, body, corev1.Node{}); err != nil {
			return http.StatusBadRequest, err.Error()
		}
	}
	var node corev1.Node
	if err := json.Unmarshal(after, &node); err != nil {
		return http.StatusBadRequest, err.Error()
	}
	node.TypeMeta = metav1.TypeMeta{}
	if status {
		node.Spec = a.node.Spec
	} else {
		node.Status = a.node.Status
	}
	a.node = node
	if now, _ := json.Marshal(node); string(now) != string(before) {
		a.writes = append(a.writes, string(body))
	}
	return http.StatusOK, ""
}

// tryOut answers the probe: by the message of the rendered policy that is about what the body changes.
func (a *apiStandIn) tryOut(body string) (int, string) {
	about := "condition but IstioReady"
	if strings.Contains(body, "metadata") {
		about = "metadata"
	}
	for _, message := range a.denies {
		if strings.Contains(message, about) {
			return http.StatusUnprocessableEntity, `nodes "node-1" is forbidden: ValidatingAdmissionPolicy 'x' with binding 'x' denied request: ` + message
		}
	}
	return http.StatusOK, ""
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
		soon, 20*time.Millisecond, "not %s %s", status, reason)
	return a.condition()
}

// waitForRequests waits until signal has asked so often.
func (a *apiStandIn) waitForRequests(count int) {
	a.t.Helper()
	require.Eventually(a.t, func() bool { a.Lock(); defer a.Unlock(); return a.asked >= count }, soon, 10*time.Millisecond)
}

// newSignal is a node that was booted an hour ago, with its signal running.
func newSignal(t *testing.T, values string, prepare ...func(*sandbox, *apiStandIn)) (*sandbox, *apiStandIn, func() string) {
	t.Helper()
	s := newSandbox(t, values)
	a := newAPIStandIn(t, s)
	s.write("host/proc/stat", fmt.Sprintf("cpu  1 2 3\nbtime %d\n", time.Now().Add(-time.Hour).Unix()))
	s.write("host/proc/uptime", "3600.00 1.00\n")
	for _, writer := range []string{"load", "verify", "traffic", "watch"} {
		require.NoError(t, os.MkdirAll(s.path("state/"+writer), 0o755))
	}
	for _, prepare := range prepare {
		prepare(s, a)
	}
	command, log := s.startAs(s.objects.Container(t, "signal"), "ISTIO_OS_INIT_NODE=node-1")
	return s, a, func() string {
		require.NoError(t, command.Process.Signal(syscall.SIGTERM))
		wait(t, command, time.Second)
		return log.String()
	}
}

// tell records what the writers conclude in their volumes, as outcome.sh does: whole or not at all. load has begun the round.
func (s *sandbox) tell(round int, writer, status, reason, message string) {
	s.t.Helper()
	records := map[string]string{"load": "status Unknown\nline x\nmessage The host's modprobe has been asked for the plan.\nreason ModulesLoaded\n"}
	if status != "" {
		records[writer] = fmt.Sprintf("status %s\nline %s\nmessage %s\nreason %[2]s\n", status, reason, message)
	}
	for writer, record := range records {
		file := "state/" + writer + "/outcome"
		s.write(file+".new", fmt.Sprintf("round %d\nuptime 1\n%s", round, record))
		require.NoError(s.t, os.Rename(s.path(file+".new"), s.path(file)))
	}
}

const oneCondition = "signals: {nodeCondition: {enabled: true}}"

func TestTheConditionFollowsWhatThePodConcludes(t *testing.T) {
	t.Parallel()
	s, a, stop := newSignal(t, signals)
	first := a.waitFor("Unknown", "Proving")
	require.WithinDuration(t, time.Now(), first.LastTransitionTime.Time, 5*time.Second)

	s.tell(1, "verify", "False", "ModuleNotOnDisk", `Kernel 5 has no "nat" \ table. Fix: dnf install it. Also ModuleBlocklisted: A list. Fix: remove it.`)
	failed := a.waitFor("False", "ModuleNotOnDisk")
	require.Equal(t, `Kernel 5 has no "nat" \ table. Fix: dnf install it. Also ModuleBlocklisted: A list. Fix: remove it.`, failed.Message)

	// another reason, the same status
	time.Sleep(time.Second)
	s.tell(1, "verify", "False", "RulesRejected", "The kernel refuses them. Fix: look.")
	changed := a.waitFor("False", "RulesRejected")
	require.Equal(t, failed.LastTransitionTime, changed.LastTransitionTime)
	require.True(t, changed.LastHeartbeatTime.After(failed.LastHeartbeatTime.Time))

	s.tell(2, "traffic", "True", "RedirectionProven", "It works.")
	proven := a.waitFor("True", "RedirectionProven")
	require.True(t, proven.LastTransitionTime.After(failed.LastTransitionTime.Time))

	time.Sleep(4500 * time.Millisecond)
	require.Len(t, a.writes, 4, "it writes although nothing has changed: %s", a.writes)
	require.Contains(t, stop(), "IstioReady True RedirectionProven: It works.\n")
	require.Equal(t, proven, a.condition(), "it writes at its end")
	require.Len(t, a.node.Status.Conditions, 2)
}

// A roll of the DaemonSet must not make every node's condition Unknown for a while; a boot is another matter.
func TestAProofOfThePodBeforeIsLeftOnlyIfItIsOfThisBoot(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		ago  time.Duration
		want corev1.ConditionStatus
	}{
		"in this boot":              {30 * time.Minute, "True"},
		"before the boot":           {2 * time.Hour, "Unknown"},
		"by a clock that was wrong": {-2 * time.Hour, "Unknown"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, a, stop := newSignal(t, oneCondition, provenBefore(row.ago))
			a.waitForRequests(2) // the policy, and the node as it is
			time.Sleep(1500 * time.Millisecond)
			require.Eventually(t, func() bool { return row.want == a.condition().Status }, soon, 20*time.Millisecond)
			stop()
		})
	}
}

// provenBefore gives the node the proof of a pod that was there before.
func provenBefore(ago time.Duration) func(*sandbox, *apiStandIn) {
	at := metav1.NewTime(time.Now().Add(-ago).Truncate(time.Second))
	return func(_ *sandbox, a *apiStandIn) {
		a.node.Status.Conditions = append(a.node.Status.Conditions, corev1.NodeCondition{
			Type: "IstioReady", Status: "True", LastHeartbeatTime: at, LastTransitionTime: at, Reason: "RedirectionProven", Message: `a } "brace"`})
	}
}

func TestAnOldProofIsLeftForTenMinutesBesideAPodThatConcludesNothing(t *testing.T) {
	t.Parallel()
	s, a, stop := newSignal(t, oneCondition, provenBefore(time.Minute))
	s.tell(1, "load", "Unknown", "Loading", "The modules are being loaded.")
	time.Sleep(2500 * time.Millisecond)
	s.write("host/proc/uptime", "4199.99 1.00\n") // 599 seconds on
	time.Sleep(2500 * time.Millisecond)
	require.EqualValues(t, "True", a.condition().Status)
	s.write("host/proc/uptime", "4201.00 1.00\n")
	a.waitFor("Unknown", "NotProven")

	s.tell(1, "traffic", "True", "RedirectionProven", "It works.")
	a.waitFor("True", "RedirectionProven")
	// a new round begins, and its own ten minutes
	s.write("host/proc/uptime", "9000.00 1.00\n")
	time.Sleep(2500 * time.Millisecond)
	s.tell(2, "", "", "", "")
	time.Sleep(2500 * time.Millisecond)
	require.EqualValues(t, "True", a.condition().Status)
	s.write("host/proc/uptime", "9601.00 1.00\n")
	a.waitFor("Unknown", "NotProven")
	stop()
}

func TestTheTaintIsRemovedWithTheProofAndNoOtherTaintIs(t *testing.T) {
	t.Parallel()
	others := []corev1.Taint{{Key: "a", Effect: "NoSchedule"}, {Key: ourTaint + "-of-another", Effect: "NoSchedule"}, {Key: "b", Value: ourTaint, Effect: "NoExecute", TimeAdded: new(metav1.Now().Rfc3339Copy())}}
	s, a, stop := newSignal(t, signals, func(_ *sandbox, a *apiStandIn) {
		a.node.Spec.Taints = []corev1.Taint{others[0], {Key: ourTaint, Value: "x", Effect: "NoSchedule"}, others[1], {Key: ourTaint, Effect: "NoExecute"}, others[2]}
	})
	a.waitFor("Unknown", "Proving")
	s.tell(1, "verify", "False", "RulesRejected", "No.")
	a.waitFor("False", "RulesRejected")
	time.Sleep(2500 * time.Millisecond)
	require.Len(t, a.taints(), 5, "the taint of a node that is not proven is removed")

	s.tell(2, "traffic", "True", "RedirectionProven", "Yes.")
	require.Eventually(t, func() bool { return len(a.taints()) == 3 }, soon, 20*time.Millisecond)
	require.Equal(t, []string{"a", ourTaint + "-of-another", "b"}, a.taints())
	require.Contains(t, stop(), `taint removed: {"key":"`+ourTaint+`","value":"x","effect":"NoSchedule"}`)
}

// Between the look and the patch others may do anything.
func TestATaintThatIsAddedAtTheSameMomentIsNotLost(t *testing.T) {
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
	s.tell(1, "traffic", "True", "RedirectionProven", "Yes.")
	require.Eventually(t, func() bool { return len(a.taints()) == 7 && times == 7 }, soon, 20*time.Millisecond)
	require.Equal(t, []string{"new-6", "new-5", "new-4", "new-3", "new-2", "new-1", "there"}, a.taints())
	require.Contains(t, stop(), "422")
}

func TestATaintIsFoundAlthoughTheAPIServersMemoryIsOld(t *testing.T) {
	t.Parallel()
	s, a, stop := newSignal(t, signals, func(_ *sandbox, a *apiStandIn) {
		a.node.Spec.Taints = []corev1.Taint{{Key: "there"}, {Key: ourTaint}}
		a.old = []corev1.Taint{{Key: ourTaint}}
	})
	s.tell(1, "traffic", "True", "RedirectionProven", "Yes.")
	a.waitFor("True", "RedirectionProven")
	require.Eventually(t, func() bool { return len(a.taints()) == 1 }, soon, 20*time.Millisecond)
	require.Equal(t, []string{"there"}, a.taints(), "the patch has hit another taint")
	stop()
}

func TestSignalTriesAgainAndSaysOnceWhyItCannotWrite(t *testing.T) {
	t.Parallel()
	s, a, stop := newSignal(t, oneCondition, func(_ *sandbox, a *apiStandIn) { a.fail = 2 })
	s.tell(1, "traffic", "True", "RedirectionProven", "Yes.")
	require.Eventually(t, func() bool { return a.condition().Status == "True" }, soon, 50*time.Millisecond)
	log := stop()
	require.Equal(t, 1, strings.Count(log, "warning: "))
	require.Regexp(t, `warning: check_policy: curl: .*503: not now\n`, log, "the API server's own message is missing")
}

// Helm applies the policy after the pods, and an administrator may forbid policies: a token that nothing limits is not used.
func TestSignalWritesNothingUntilAPolicyLimitsItsToken(t *testing.T) {
	t.Parallel()
	for name, values := range map[string]string{
		"the condition": oneCondition,
		"the taint":     "signals: {startupTaint: {remove: true}}",
		"both":          signals,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var messages []string
			s, a, stop := newSignal(t, values, func(_ *sandbox, a *apiStandIn) {
				a.node.Spec.Taints = []corev1.Taint{{Key: ourTaint, Effect: "NoSchedule"}}
				messages, a.denies = a.denies, nil
			})
			s.tell(1, "traffic", "True", "RedirectionProven", "Yes.")
			time.Sleep(3 * time.Second)
			a.Lock()
			require.Empty(t, a.writes)
			a.denies = messages
			a.Unlock()
			require.Eventually(t, func() bool { a.Lock(); defer a.Unlock(); return len(a.writes) > 0 }, soon, 20*time.Millisecond)
			require.Regexp(t, `^warning: check_policy: no ValidatingAdmissionPolicy limits this pod's token .*helm upgrade`, stop())
		})
	}
}

func TestSignalEndsWithinASecondWhileTheAPIServerDoesNotAnswer(t *testing.T) {
	t.Parallel()
	hang := make(chan struct{})
	_, a, stop := newSignal(t, oneCondition, func(_ *sandbox, a *apiStandIn) { a.hang = hang })
	t.Cleanup(func() { close(hang) }) // before the server is closed, which waits for its answers
	a.waitForRequests(1)
	stop()
}

// Whatever a record contains, the API server gets JSON, and in it only that.
func TestWhatARecordContainsCannotBecomeAnotherField(t *testing.T) {
	t.Parallel()
	const hostile = `\","status":"True","x":"\u0041$(touch pwned)\\`
	s, a, stop := newSignal(t, oneCondition)
	s.tell(1, "verify", "False", "RulesRejected", hostile+strings.Repeat("y", 3000))
	written := a.waitFor("False", "RulesRejected")
	require.Contains(t, written.Message, hostile)
	require.LessOrEqual(t, len(written.Message), 1000)
	for _, row := range [][]string{{"True\"}", "RulesRejected"}, {"Maybe", "RulesRejected"}, {"True", `Redirection","status":"True`}, {"True", strings.Repeat("A", 200)}} {
		s.tell(1, "verify", row[0], row[1], "x")
		time.Sleep(2200 * time.Millisecond)
		require.NotEqualValues(t, "True", a.condition().Status, "%v", row)
	}
	require.Len(t, a.node.Status.Conditions, 2)
	stop()
}
