package cost

import (
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/istio-os-init/istio-os-init/test/internal/chart"
	"github.com/istio-os-init/istio-os-init/test/internal/lab"
)

// steadyWindow is for how long at least nothing happens to the pods.
const steadyWindow = 30 * time.Minute

// steady is a pod of each subject that is left alone while everything else is measured.
type steady map[subject]*steadyPod

// steadyPod is one to which nothing happens.
type steadyPod struct {
	*deployment
	node string
	pod  types.UID
	main lab.Container
	// The window's beginning, and the processor time that the container had used by then.
	since time.Time
	used  time.Duration
	audit int64 // where the audit log ended before the pod was there
}

// beginSteady deploys both, ours to the control plane and theirs, which tolerates nothing, to a worker.
//
// Two nodes, since PSS halves a page that two processes map. Nodes share the kernel, but not the page cache of an image: each node's
// containerd has unpacked its own copy. So each container pays for all of its programs and libraries, as on a node without a mesh pod.
func beginSteady(t *testing.T) steady {
	workers := slices.DeleteFunc(lab.Containers(t), func(node string) bool { return node == lab.ControlPlane })
	require.NotEmpty(t, workers)
	s, audit := steady{}, lab.AuditEnd(t)
	for who, node := range map[subject]string{ours: lab.ControlPlane, theirs: workers[0]} {
		s[who] = &steadyPod{deployment: deploy(t, who, "kubernetes.io/hostname", node, ""), node: node, audit: audit}
	}
	for _, p := range s {
		p.identify()
		p.main.Cache()
		p.renewed()
		p.identify()
	}
	time.Sleep(10 * time.Second) // the kubelet's last words on a pod that has just become Ready
	for _, p := range s {
		p.since, p.used = time.Now(), p.main.ProcessorTime()
	}
	return s
}

// end waits for the rest of the window, and records what the two have cost in it.
func (s steady) end(t *testing.T, b *bench) {
	time.Sleep(time.Until(s[ours].since.Add(steadyWindow)))
	used, memory := map[subject]float64{}, map[subject]float64{}
	window := time.Since(s[ours].since).Round(time.Second)
	for who, p := range s {
		pods := p.proven(1)
		require.Equal(t, p.pod, pods[0].UID, "somebody made a new pod")
		require.Contains(t, lab.Status(pods[0], p.container).ContainerID, p.main.ID, "its container was started anew")
		// the window is as long as everything else takes
		used[who] = float64(p.main.ProcessorTime()-p.used) / float64(time.Millisecond) * float64(steadyWindow) / float64(time.Since(p.since))
		memory[who] = p.memory()
	}
	b.record(t, row{
		what: "memory of the long-lived container (PSS)", unit: "MiB", ours: memory[ours], theirs: memory[theirs],
		limit: memory[theirs] + 0.5, absolute: true, beside: fmt.Sprintf("the limit is theirs + 0.5 MiB; a shell that does nothing but wait for its sleep, "+
			"on the same node: %s", figure(s.memoryOfAShell(t), "MiB")),
	})
	b.record(t, row{
		what: "CPU of the long-lived container over 30 min, default interval", unit: "ms", ours: used[ours], theirs: used[theirs],
		limit: 10, absolute: true, beside: "from " + window.String(),
	})
}

// memoryOfAShell is what ours would take, in MiB, if it watched nothing. It takes the place of ours on its node.
func (s steady) memoryOfAShell(t *testing.T) float64 {
	t.Helper()
	s[ours].Uninstall()
	shell := &steadyPod{deployment: deployCopy(t, idle(t, sleeps), "kubernetes.io/hostname", s[ours].node, ""), node: s[ours].node}
	shell.identify()
	shell.main.Cache()
	shell.renewed()
	shell.identify()
	return shell.memory()
}

// measureRequests records what the two have cost the API server so far. Before the fleet, for which kube-controller-manager is restarted
// and looks at every owner anew.
func (s steady) measureRequests(t *testing.T, b *bench) {
	window := time.Since(s[ours].since).Round(time.Second)
	perHour, which := map[subject]float64{}, map[subject]string{}
	for who, p := range s {
		perHour[who], which[who] = p.requests()
	}
	b.record(t, row{
		what: "API requests per node per hour, steady", unit: "", ours: perHour[ours], theirs: perHour[theirs], limit: 0, absolute: true,
		beside: fmt.Sprintf("in %v ours: %s; theirs: %s", window, which[ours], which[theirs]),
	})
}

// identify takes note of which pod it is.
func (p *steadyPod) identify() {
	p.t.Helper()
	pod := p.proven(1)[0]
	require.Equal(p.t, p.node, pod.Spec.NodeName)
	p.pod = pod.UID
	p.main = lab.ContainerOf(p.t, pod, p.container)
}

// memory is the long-lived container's, in MiB, once no other pod on the node runs programs of the same image.
func (p *steadyPod) memory() float64 {
	p.t.Helper()
	own := p.pods()[0]
	image := chart.ContainerOf(p.t, &own.Spec, p.container).Image
	p.until(lab.Patience, "another pod of the same image stays on the node", func() bool {
		pods, err := lab.Client(p.t).CoreV1().Pods("").List(p.t.Context(), metav1.ListOptions{FieldSelector: "spec.nodeName=" + p.node})
		require.NoError(p.t, err)
		same := 0
		for _, pod := range pods.Items {
			if slices.ContainsFunc(pod.Spec.Containers, func(other corev1.Container) bool { return other.Image == image }) {
				same++
			}
		}
		return same == 1
	})
	return p.main.Memory()
}

// requests are how many an hour the pod causes: whoever makes them, about anything in the subject's namespace, and those of its service
// accounts about anything; and which they are. A watch lasts longer than the window, so none may begin in it; but the request says after
// how many seconds the API server will end it, and then there is a next one. So one that is open at the window's end counts as often.
func (p *steadyPod) requests() (perHour float64, which string) {
	p.t.Helper()
	var requests []string
	open := map[string]lab.Request{}
	for _, r := range lab.Requests(p.t, p.audit, p.Namespace) {
		if r.Stage == "ResponseStarted" {
			open[r.ID] = r
			continue
		}
		delete(open, r.ID)
		if r.Received.After(p.since) {
			requests = append(requests, r.Verb+" "+r.Object.Resource+" by "+r.User.Username)
		}
	}
	perHour = float64(len(requests)) / time.Since(p.since).Hours()
	for _, r := range open {
		uri, err := url.Parse(r.URI)
		require.NoError(p.t, err)
		seconds, err := strconv.ParseFloat(uri.Query().Get("timeoutSeconds"), 64)
		require.NoError(p.t, err, r.URI)
		perHour += 3600 / seconds
		requests = append(requests, fmt.Sprintf("%s of %s %s by %s, open for %.0f s", r.Verb, r.Object.Resource, uri.Query().Get("fieldSelector"), r.User.Username, seconds))
	}
	return perHour, counted(requests)
}

// counted tells how often each is there.
func counted(all []string) string {
	times := map[string]int{}
	for _, one := range all {
		times[one]++
	}
	var parts []string
	for _, one := range slices.Sorted(maps.Keys(times)) {
		parts = append(parts, fmt.Sprintf("%d %s", times[one], one))
	}
	if len(parts) == 0 {
		return "none"
	}
	return strings.Join(parts, ", ")
}
