package cost

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/istio-os-init/istio-os-init/test/internal/lab"
)

const (
	// defaultQPS is how many requests a second kube-controller-manager grants each of its controllers (its flag --kube-api-qps).
	defaultQPS = 20
	// raisedQPS is what it gets instead.
	raisedQPS = 100
	// windowOfTheirs is how many nodes theirs is watched on: it goes from node to node, so that more of them take no other time.
	windowOfTheirs = 3
	// farther is the size that is not measured but follows from the others.
	farther = 10000
)

// measureFleet measures rollouts on simulated nodes, beside which only the control plane is real.
func measureFleet(t *testing.T, b *bench) {
	toReady, toGone := map[subject]float64{}, map[subject]float64{}
	t.Run("delays", func(t *testing.T) {
		started, ended := livesOnContainers(t)
		for s := range started {
			toReady[s], toGone[s] = median(started[s]), median(ended[s])
			t.Logf("%s: Ready after %.3g s, %s, gone after %.3g s, %s", s, toReady[s], spread(started[s], "s"), toGone[s], spread(ended[s], "s"))
		}
	})
	require.Len(t, toReady, 2)
	f := newFleet(t, toReady, toGone)
	sizes := []int{100, 300, 1000}
	f.grow(t, sizes[0])
	var window *rollout
	if !t.Run("theirs", func(t *testing.T) { window = f.window(t) }) {
		return
	}
	theirTime := func(size int) float64 { return window.took / windowOfTheirs * float64(size) }
	b.theirsBySize = []point{{float64(sizes[0]), theirTime(sizes[0])}, {farther, theirTime(farther)}}
	var restarts []*rollout
	for _, size := range sizes {
		limit := math.NaN()
		if size == 1000 {
			limit = 0.01
		}
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			d, restart := f.measure(t, b, size, limit, theirTime, window.perNode())
			restarts = append(restarts, restart)
			if size == slices.Max(sizes) {
				restarts = append(restarts, f.measureRaised(t, b, d, restart, limit, theirTime))
			}
		})
	}
	if t.Failed() {
		return
	}
	waves := fit(b.oursBySize)
	largest := restarts[len(sizes)-1] // at kube-controller-manager's default
	requests := float64(len(largest.byClient()["daemon-set-controller"])) / float64(largest.replaced)
	b.estimate = func(size float64) float64 { return max(waves(size), requests*size/defaultQPS) }
	b.record(t, row{what: nodes(farther) + ": rolling restart, not measured", unit: "s", ours: b.estimate(farther), theirs: theirTime(farther),
		limit: math.NaN(), beside: fmt.Sprintf("the longer of two: %s by the fit of the three (%s + %s for each node), %s by %s requests of the DaemonSet controller for each node at %d/s",
			figure(waves(farther), "s"), figure(waves(0), "s"), figure(waves(1)-waves(0), "s"), figure(requests*farther/defaultQPS, "s"), figure(requests, ""), defaultQPS)})
	for _, r := range restarts {
		// What does not depend on the nodes, such as the DaemonSet's own events, weighs most in the smallest fleet.
		require.LessOrEqual(t, r.perNode(), restarts[0].perNode(), "requests grow faster than the fleet")
		require.LessOrEqual(t, r.mostUnavailable, wave(r.nodes), "more than a tenth of the nodes were unready at once")
	}
}

// measure measures ours on a fleet of a size: its start everywhere at once, and a rolling restart. theirTime: how long the other's takes.
func (f *fleet) measure(t *testing.T, b *bench, size int, limit float64, theirTime func(int) float64, theirRequests float64) (*deployment, *rollout) {
	t.Helper()
	f.grow(t, size)
	install := newRollout(size)
	d := deploy(t, ours, fleetLabel, f.run, "")
	f.clear(t, d)
	f.follow(t, d, install, size, false)
	b.record(t, row{what: nodes(size) + ": install → all Ready", unit: "s", ours: install.took, theirs: math.NaN(), limit: math.NaN(),
		beside: fmt.Sprintf("simulated pods, each Ready after %s and gone after %s, as those of the nodes that are containers", figure(f.toReady[ours], "s"), figure(f.toGone[ours], "s"))})

	restart := f.restart(t, d, size, size)
	b.oursBySize = append(b.oursBySize, point{float64(size), restart.took})
	b.record(t, row{what: nodes(size) + ": rolling restart", unit: "s", ours: restart.took, theirs: theirTime(size), limit: limit,
		beside: fmt.Sprintf("%d waves of at most %d nodes; theirs from a window of %d nodes, each %s", (size+restart.mostUnavailable-1)/restart.mostUnavailable,
			restart.mostUnavailable, windowOfTheirs, figure(theirTime(1), "s"))})
	b.record(t, row{what: nodes(size) + ": API requests per node in a rolling restart", ours: restart.perNode(), theirs: theirRequests,
		limit: math.NaN(), beside: restart.clients()})
	b.record(t, row{what: nodes(size) + ": API server's CPU in a rolling restart", unit: "s", ours: restart.cpu, theirs: math.NaN(),
		limit: math.NaN(), beside: fmt.Sprintf("and %s for the nodes' signs of life", figure(restart.idle, "s"))})
	return d, restart
}

// measureRaised measures the rolling restart again with a higher rate of kube-controller-manager.
func (f *fleet) measureRaised(t *testing.T, b *bench, d *deployment, before *rollout, limit float64, theirTime func(int) float64) *rollout {
	t.Helper()
	defer f.raise(t, d)()
	raised := f.restart(t, d, before.nodes, before.nodes)
	b.record(t, row{what: fmt.Sprintf("%s: rolling restart, kube-controller-manager at %d requests/s", nodes(before.nodes), raisedQPS), unit: "s", ours: raised.took,
		theirs: theirTime(before.nodes), limit: limit, beside: fmt.Sprintf("%s kept each request waiting for %s at its default of %d requests/s, now for %s",
			controllerManager.name, figure(before.held[controllerManager], "s"), defaultQPS, figure(raised.held[controllerManager], "s"))})
	b.raisedBySize = []point{{float64(before.nodes), raised.took}}
	b.rollouts = map[string][]point{fmt.Sprintf("default: %d requests/s", defaultQPS): before.available, fmt.Sprintf("raised: %d requests/s", raisedQPS): raised.available}
	return raised
}

// nodes names a size.
func nodes(size int) string {
	if size < 1000 {
		return fmt.Sprintf("%d nodes", size)
	}
	return fmt.Sprintf("%d,%03d nodes", size/1000, size%1000)
}

// wave is how many nodes may be unready at once: the tenth that is the chart's default, rounded up.
func wave(size int) int { return (size + 9) / 10 }

// window watches theirs replace the pods of some nodes.
func (f *fleet) window(t *testing.T) *rollout {
	t.Helper()
	start := newRollout(f.size)
	d := deploy(t, theirs, fleetLabel, f.run, "")
	f.clear(t, d)
	f.follow(t, d, start, f.size, false)
	window := f.restart(t, d, f.size, windowOfTheirs)
	require.Equal(t, 1, window.mostUnavailable)
	return window
}

// rollout is what was seen of one.
type rollout struct {
	nodes, replaced int
	start           time.Time
	took            float64 // seconds
	// mostUnavailable is how many nodes had no Ready pod at the worst moment.
	mostUnavailable int
	// available is how many new pods were Ready, over time.
	available []point
	pods      map[types.UID]*life
	requests  []lab.Request
	// cpu is the API server's seconds of CPU for the rollout, idle those which it would have used anyway.
	cpu, idle float64
	// held is for how long a component held each of its requests on average, for the sake of its own rate limit.
	held map[component]float64
}

// life is when something happened to a pod, in seconds since the start; NaN: it has not.
type life struct {
	node                                 string
	created, bound, ready, deleted, gone float64
	old                                  bool // it was there before
}

func newRollout(size int) *rollout {
	return &rollout{nodes: size, start: time.Now(), pods: map[types.UID]*life{}}
}

// restart restarts a deployment and follows it until so many nodes have their new pod.
func (f *fleet) restart(t *testing.T, d *deployment, size, until int) *rollout {
	t.Helper()
	const idle = 10 * time.Second
	before := f.cpu(t)
	time.Sleep(idle)
	perSecond := (f.cpu(t) - before) / idle.Seconds()

	held := map[component]limiter{controllerManager: f.limiter(t, controllerManager), scheduler: f.limiter(t, scheduler)}
	from := lab.AuditEnd(t)
	before = f.cpu(t)
	r := newRollout(size)
	f.follow(t, d, r, until, true)
	r.idle = perSecond * r.took
	r.cpu = f.cpu(t) - before - r.idle
	r.held = map[component]float64{}
	for c, then := range held {
		now := f.limiter(t, c)
		r.held[c] = math.Round((now.seconds-then.seconds)/(now.requests-then.requests)*1000) / 1000 // microseconds are its own work
	}
	// that have been answered: a watch only begins
	r.requests = slices.DeleteFunc(lab.Requests(t, from, d.Namespace), func(request lab.Request) bool { return request.Stage != "ResponseComplete" })
	r.log(t)
	return r
}

// follow watches a deployment's pods until so many nodes have a new one that is Ready. restart: the pods that are there are old
// ones, and the start is now.
func (f *fleet) follow(t *testing.T, d *deployment, r *rollout, until int, restart bool) {
	t.Helper()
	pods := f.client.CoreV1().Pods(d.Namespace)
	list, err := pods.List(t.Context(), metav1.ListOptions{LabelSelector: d.selector})
	require.NoError(t, err)
	watcher := watchPods(t, pods, d.selector, list.ResourceVersion)
	defer watcher.Stop()
	for i := range list.Items {
		r.see(watch.Added, &list.Items[i], restart)
	}
	if restart {
		r.start = time.Now()
		r.mostUnavailable = 0
		d.restart()
	}
	patience := time.After(10 * time.Minute)
	for {
		if len(r.available) > 0 && int(r.available[len(r.available)-1].y) >= until {
			r.took, r.replaced = r.available[len(r.available)-1].x, until
			return
		}
		select {
		case event, open := <-watcher.ResultChan():
			pod, isPod := event.Object.(*corev1.Pod)
			require.True(t, open && isPod, "the watch ends: %v", event.Object)
			r.see(event.Type, pod, false)
		case <-patience:
			require.Fail(t, "the rollout does not end", "%d of %d after %s", len(r.available), until, figure(since(r.start), "s"))
		}
	}
}

// see takes note of what the API server says about a pod.
func (r *rollout) see(event watch.EventType, pod *corev1.Pod, old bool) {
	now := since(r.start)
	p := r.pods[pod.UID]
	if p == nil {
		p = &life{created: now, bound: math.NaN(), ready: math.NaN(), deleted: math.NaN(), gone: math.NaN(), old: old}
		r.pods[pod.UID] = p
	}
	once := func(moment *float64, has bool) {
		if has && math.IsNaN(*moment) {
			*moment = now
		}
	}
	wasReady := !math.IsNaN(p.ready)
	p.node = pod.Spec.NodeName
	once(&p.bound, pod.Spec.NodeName != "")
	once(&p.ready, lab.Ready(*pod))
	once(&p.deleted, pod.DeletionTimestamp != nil)
	once(&p.gone, event == watch.Deleted)
	ready := 0
	for _, q := range r.pods {
		if !math.IsNaN(q.ready) && math.IsNaN(q.deleted) && math.IsNaN(q.gone) {
			ready++
		}
	}
	r.mostUnavailable = max(r.mostUnavailable, r.nodes-ready)
	if !p.old && !wasReady && !math.IsNaN(p.ready) {
		r.available = append(r.available, point{now, float64(len(r.available) + 1)})
	}
}

// perNode is the number of requests about the deployment for each node that got a new pod.
func (r *rollout) perNode() float64 { return float64(len(r.requests)) / float64(r.replaced) }

// byClient are the requests' times, in seconds, by whose they are.
func (r *rollout) byClient() map[string][]float64 {
	times := map[string][]float64{}
	for _, request := range r.requests {
		times[client(request)] = append(times[client(request)], request.Received.Sub(r.start).Seconds())
	}
	return times
}

// clients tells whose requests there were for each node, and how fast they came in their busiest half minute.
func (r *rollout) clients() string {
	times := r.byClient()
	var texts []string
	for _, client := range slices.SortedFunc(maps.Keys(times), func(a, b string) int { return len(times[b]) - len(times[a]) }) {
		if perNode := float64(len(times[client])) / float64(r.replaced); perNode >= 0.05 {
			texts = append(texts, fmt.Sprintf("%s %s (%s/s at most)", client, figure(perNode, ""), figure(busiest(times[client], 30), "")))
		}
	}
	return strings.Join(texts, ", ")
}

// busiest is the highest rate per second over a span of seconds.
func busiest(times []float64, span float64) float64 {
	sorted := slices.Sorted(slices.Values(times))
	most, first := 0, 0
	for i, now := range sorted {
		for sorted[first] < now-span {
			first++
		}
		most = max(most, i-first+1)
	}
	return float64(most) / span
}

// log tells where the time went: for each step from one pod to the next who takes it and how long, median and slowest.
func (r *rollout) log(t *testing.T) {
	t.Helper()
	steps := map[string][]float64{}
	add := func(name string, from, to float64) {
		if !math.IsNaN(from) && !math.IsNaN(to) {
			steps[name] = append(steps[name], to-from)
		}
	}
	left := map[string]float64{} // when a node's old pod had gone
	for _, p := range r.pods {
		if p.old && !math.IsNaN(p.gone) {
			left[p.node] = p.gone
			add("4 deleted → gone (kwok)", p.deleted, p.gone)
		}
	}
	for _, p := range r.pods {
		if !p.old {
			add("1 old pod gone → new one created (daemon-set-controller)", left[p.node], p.created)
			add("2 created → bound (kube-scheduler)", p.created, p.bound)
			add("3 bound → Ready (kwok)", p.bound, p.ready)
		}
	}
	text := fmt.Sprintf("%d nodes in %s, at most %d unready at once\nrequests per node: %s", r.replaced, figure(r.took, "s"), r.mostUnavailable, r.clients())
	for _, name := range slices.Sorted(maps.Keys(steps)) {
		text += fmt.Sprintf("\n%s: %s, slowest %s", name, figure(median(steps[name]), "s"), figure(slices.Max(steps[name]), "s"))
	}
	for c, seconds := range r.held {
		text += fmt.Sprintf("\n%s's own limiter held each request for %s", c.name, figure(seconds, "s"))
	}
	refused := 0
	for _, request := range r.requests {
		if request.Status.Code == 429 {
			refused++
		}
	}
	t.Logf("%s\nrefused by the API server for its own sake: %d", text, refused)
}

// client is whose the request is: a controller, if it is one's of kube-controller-manager, each of which has its own rate.
func client(r lab.Request) string {
	if name, found := strings.CutPrefix(r.User.Username, "system:serviceaccount:kube-system:"); found {
		return name
	}
	if strings.HasPrefix(r.Agent, "kwok/") {
		return "kwok"
	}
	return strings.TrimPrefix(r.User.Username, "system:")
}

// cpu is how many seconds of CPU the API server has used since it began.
func (f *fleet) cpu(t *testing.T) float64 {
	t.Helper()
	metrics, err := f.client.RESTClient().Get().AbsPath("/metrics").DoRaw(t.Context())
	require.NoError(t, err)
	return metric(t, string(metrics), "process_cpu_seconds_total")
}

// component is one of the control plane, with a port of its own for metrics.
type component struct {
	name string
	port int
}

var (
	controllerManager = component{"kube-controller-manager", 10257}
	scheduler         = component{"kube-scheduler", 10259}
)

// limiter is for how long a component has held requests back for the sake of its own limit, and how many it has sent.
type limiter struct{ seconds, requests float64 }

func (f *fleet) limiter(t *testing.T, c component) limiter {
	t.Helper()
	metrics := lab.RunOn(t, lab.ControlPlane, fmt.Sprintf("kubectl --kubeconfig=/etc/kubernetes/admin.conf --server=https://127.0.0.1:%d --insecure-skip-tls-verify "+
		"get --raw /metrics", c.port))
	return limiter{metric(t, metrics, "rest_client_rate_limiter_duration_seconds_sum"), metric(t, metrics, "rest_client_rate_limiter_duration_seconds_count")}
}

// metric adds up a metric's values over all of its labels.
func metric(t *testing.T, metrics, name string) float64 {
	t.Helper()
	sum, found := 0.0, false
	for line := range strings.Lines(metrics) {
		rest, is := strings.CutPrefix(line, name)
		if !is || (rest[0] != '{' && rest[0] != ' ') {
			continue
		}
		fields := strings.Fields(line)
		value, err := strconv.ParseFloat(fields[len(fields)-1], 64)
		require.NoError(t, err, line)
		sum, found = sum+value, true
	}
	require.True(t, found, "no metric %s", name)
	return sum
}

// raise gives kube-controller-manager a higher rate and returns what takes it back. d: a deployment by which it is seen that its
// DaemonSet controller is at work again.
func (f *fleet) raise(t *testing.T, d *deployment) (back func()) {
	t.Helper()
	f.editManager(t, fmt.Sprintf(`s/^\( *- \)kube-controller-manager$/&\n\1--kube-api-qps=%d\n\1--kube-api-burst=%d/`, raisedQPS, 2*raisedQPS))
	patch := fmt.Sprintf(`{"spec":{"revisionHistoryLimit":%d}}`, *d.daemonSet().Spec.RevisionHistoryLimit+1) // which no pod has to know
	changed, err := f.client.AppsV1().DaemonSets(d.Namespace).Patch(t.Context(), d.name, types.MergePatchType, []byte(patch), metav1.PatchOptions{})
	require.NoError(t, err)
	require.Eventually(t, func() bool { return d.daemonSet().Status.ObservedGeneration >= changed.Generation }, time.Minute, time.Second,
		"the new kube-controller-manager does nothing")
	return func() { f.lower(t) }
}

// lower takes the rate back, if it is raised.
func (f *fleet) lower(t *testing.T) {
	t.Helper()
	if lab.RunOn(t, lab.ControlPlane, "grep -e --kube-api-qps= "+managerManifest+" || true") != "" {
		f.editManager(t, `/- --kube-api-qps=/d; /- --kube-api-burst=/d`)
	}
}

const managerManifest = "/etc/kubernetes/manifests/kube-controller-manager.yaml"

// editManager changes kube-controller-manager's manifest, as sed does, and waits until the new one leads.
func (f *fleet) editManager(t *testing.T, sed string) {
	t.Helper()
	leader := func() string {
		lease, err := f.client.CoordinationV1().Leases(metav1.NamespaceSystem).Get(t.Context(), controllerManager.name, metav1.GetOptions{})
		if err != nil || lease.Spec.HolderIdentity == nil {
			return ""
		}
		return *lease.Spec.HolderIdentity
	}
	before := leader()
	// the kubelet reads every file of that folder: it must see neither half of one nor two
	lab.RunOn(t, lab.ControlPlane, fmt.Sprintf("sed '%s' %s >/etc/kubernetes/manifest.new && mv /etc/kubernetes/manifest.new %[2]s", sed, managerManifest))
	require.Eventually(t, func() bool { now := leader(); return now != "" && now != before }, 2*time.Minute, time.Second,
		"no new kube-controller-manager leads")
}

// fit returns the line that is nearest to the points.
func fit(points []point) func(float64) float64 {
	var n, x, y, xx, xy float64
	for _, p := range points {
		n, x, y, xx, xy = n+1, x+p.x, y+p.y, xx+p.x*p.x, xy+p.x*p.y
	}
	slope := (n*xy - x*y) / (n*xx - x*x)
	return func(at float64) float64 { return (y-slope*x)/n + slope*at }
}
