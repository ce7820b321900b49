package cost

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
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

const (
	// startRuns are fewer than endRuns, since a start under emulation takes a minute.
	startRuns = 5
	endRuns   = 10
	// asideRuns are for what only stands beside.
	asideRuns = 3
)

// measureStart starts pods on a node whose kernel has all modules on disk and none loaded, by giving the node a label.
//
// The times: a pod is created, and is Ready, when the API says so to a watch of ours. Its loader is done when CRI-O on the node
// writes that down, to the nanosecond and by the node's clock, which is compared with ours first. The pod's status says the same in
// whole seconds, and stands beside. All of it is the same for both.
//
// Beside them two more: ours with scripts that do nothing, which is what its containers cost whatever they do; and theirs without its
// limit of a tenth of a processor, which an emulated one makes longer than it is.
func measureStart(t *testing.T, b *bench) {
	vm := lab.TheVM(t)
	vm.DenyAutoload()
	vm.Unload()
	bare, ahead := vm.Modules(), vm.Ahead() // loaded are dependencies, too, that are no part of netfilter
	start := func(label string, times int, deployed *deployment, names []string) *starter {
		modules := vm.WithDependencies(names)
		maps.DeleteFunc(modules, func(module string, _ bool) bool { return bare[module] })
		return &starter{
			sightings: deployed.follow(), vm: vm, ahead: ahead, label: label, times: times, modules: modules, timeline: map[string][]float64{},
		}
	}
	copied := deploy(t, theirs, label(theirs), "on", "")
	listed := modulesOf(t, *chart.ContainerOf(t, &copied.daemonSet().Spec.Template.Spec, "fix-modprobe"))
	own := start(label(ours), startRuns, deploy(t, ours, label(ours), "on", ""), chart.RenderFiles(t, []string{lab.Values(t)}).Plan(t))
	other := start(label(theirs), startRuns, copied, listed)
	floor := start(label("idle"), asideRuns, deployCopy(t, idle(t, sleeps), label("idle"), "on", ""), nil)
	unlimited := start(label("unlimited"), asideRuns, withoutLimit(deploy(t, theirs, label("unlimited"), "on", "")), listed)
	require.NotEmpty(t, own.modules)
	require.NotEmpty(t, other.modules)
	starters := []*starter{own, other, floor, unlimited}
	for run := range startRuns {
		for _, s := range starters {
			if run < s.times {
				s.run()
			}
		}
	}
	beside := "ours %s; theirs %s; by the pods' status, in whole seconds, %.3g and %.3g s; theirs without its CPU limit %.3g s, %s"
	b.record(t, row{
		what: "pod created → node's modules loaded (VM, all missing)", unit: "s", ours: median(own.loadedAfter), theirs: median(other.loadedAfter), limit: 1,
		beside: fmt.Sprintf(beside, spread(own.loadedAfter, "s"), spread(other.loadedAfter, "s"), median(own.loadedStatus), median(other.loadedStatus),
			median(unlimited.loadedAfter), spread(unlimited.loadedAfter, "s")),
	})
	b.record(t, row{
		what: "pod created → Ready, proof included (VM, all missing)", unit: "s", ours: median(own.readyAfter), theirs: median(other.readyAfter), limit: 2.5,
		beside: fmt.Sprintf(beside+"; the floor, ours with scripts that do nothing, %.3g s, %s", spread(own.readyAfter, "s"), spread(other.readyAfter, "s"),
			median(own.readyStatus), median(other.readyStatus), median(unlimited.readyAfter), spread(unlimited.readyAfter, "s"),
			median(floor.readyAfter), spread(floor.readyAfter, "s")),
	})
	for _, s := range starters {
		t.Logf("%s, seconds since the pod's creation:\n%s", s.label, s.medians())
	}
}

// label is of the nodes that a subject's pods go to.
func label(s subject) string {
	if s == theirs {
		s = "theirs"
	}
	return "cost.istio-os-init/" + string(s)
}

// starter is a deployment whose pod comes to the VM, and leaves it, as a label of the VM does.
type starter struct {
	*sightings
	vm    *lab.VM
	ahead time.Duration // the VM's clock
	label string        // on which its pod comes
	times int           // that it is to run
	// modules are those that its loader has to bring, dependencies included.
	modules map[string]bool
	// Seconds since the pod's creation, of each run.
	loadedAfter, readyAfter, loadedStatus, readyStatus []float64
	timeline                                           map[string][]float64
}

func (s *starter) run() {
	s.t.Helper()
	s.vm.Unload()
	before := s.vm.Modules()
	for module := range s.modules {
		require.NotContains(s.t, before, module, "loaded before the pod was there")
	}
	require.Empty(s.t, s.pods())
	start := time.Now()
	lab.Label(s.t, s.vm.Name, s.label, "on")
	created := s.created(start)
	ready := s.ready(start, created.pod.UID)
	after := s.vm.Modules()
	for module := range s.modules {
		require.Contains(s.t, after, module, "the pod is Ready without it")
	}

	spans := spansOf(s.t, s.vm, ready.pod, s.ahead)
	at := func(moment time.Time) float64 { return moment.Sub(created.at).Seconds() }
	s.loadedAfter, s.readyAfter = append(s.loadedAfter, at(spans[s.loader].finished)), append(s.readyAfter, at(ready.at))
	for name, span := range spans {
		for what, moment := range map[string]time.Time{"created": span.created, "started": span.started, "ended": span.finished} {
			if moment.After(created.at) {
				key := name + " " + what
				s.timeline[key] = append(s.timeline[key], at(moment))
			}
		}
	}
	s.timeline["Ready"] = s.readyAfter
	whole := func(moment time.Time) float64 { return moment.Sub(ready.pod.CreationTimestamp.Time).Seconds() }
	s.loadedStatus = append(s.loadedStatus, whole(lab.Ended(ready.pod, s.loader)))
	s.readyStatus = append(s.readyStatus, whole(readySince(ready.pod)))
	// Whole seconds of two clocks: otherwise one of the ways to tell the time is wrong.
	for _, pair := range [][2][]float64{{s.loadedAfter, s.loadedStatus}, {s.readyAfter, s.readyStatus}} {
		require.InDelta(s.t, pair[1][len(pair[1])-1]-s.ahead.Seconds(), pair[0][len(pair[0])-1], 2.5)
	}
	s.leave()
}

// leave takes the label off the VM, and the pod with it. A second of grace saves half a minute where a pod does not stop by itself;
// none at all would end the object before its containers.
func (s *starter) leave() {
	s.t.Helper()
	pods := s.pods()
	lab.Unlabel(s.t, s.vm.Name, s.label)
	for _, pod := range pods {
		s.remove(pod, new(int64(1)))
	}
	s.until(lab.Patience, "the pod does not go", func() bool { return len(s.pods()) == 0 && lab.RolledOut(s.daemonSet(), 0) })
}

// medians are of each moment that CRI-O has written down, in their order.
func (s *starter) medians() string {
	type moment struct {
		what string
		at   float64
	}
	var moments []moment
	for what, at := range s.timeline {
		moments = append(moments, moment{what, median(at)})
	}
	slices.SortFunc(moments, func(a, b moment) int { return int(math.Copysign(1, a.at-b.at)) })
	var text strings.Builder
	for _, m := range moments {
		fmt.Fprintf(&text, "%6.2f %s\n", m.at, m.what)
	}
	return text.String()
}

// span is a container's life by our clock; a moment that has not come yet is long ago.
type span struct{ created, started, finished time.Time }

// spansOf returns what CRI-O on the VM has written down of a pod's containers, by their names. ahead: the VM's clock.
func spansOf(t *testing.T, vm *lab.VM, pod corev1.Pod, ahead time.Duration) map[string]span {
	t.Helper()
	statuses := slices.Concat(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses)
	var script strings.Builder
	for _, status := range statuses {
		_, id, _ := strings.Cut(status.ContainerID, "://")
		fmt.Fprintf(&script, "cat /var/lib/containers/storage/overlay-containers/%s/userdata/state.json\n", id)
	}
	lines := strings.Split(vm.Run(script.String()), "\n")
	spans := map[string]span{}
	for i, status := range statuses {
		var record struct{ Created, Started, Finished time.Time }
		require.NoError(t, json.Unmarshal([]byte(lines[i]), &record), lines[i])
		spans[status.Name] = span{record.Created.Add(-ahead), record.Started.Add(-ahead), record.Finished.Add(-ahead)}
	}
	return spans
}

// readySince is when a pod became Ready, as its status says.
func readySince(pod corev1.Pod) time.Time {
	for _, condition := range pod.Status.Conditions {
		if condition.Type == corev1.PodReady {
			return condition.LastTransitionTime.Time
		}
	}
	return time.Time{}
}

// modulesOf are those that the copied DaemonSet's loader names.
func modulesOf(t *testing.T, loader corev1.Container) []string {
	t.Helper()
	var modules []string
	for _, command := range regexp.MustCompile(`(?m)^modprobe -v -a --first-time (.*?) \|\|`).FindAllStringSubmatch(strings.Join(loader.Args, "\n"), -1) {
		modules = append(modules, strings.Fields(command[1])...)
	}
	return modules
}

// withoutLimit lets theirs have as much of the processor as there is.
func withoutLimit(d *deployment) *deployment {
	d.t.Helper()
	const patch = `[{"op": "remove", "path": "/spec/template/spec/initContainers/0/resources/limits/cpu"},
		{"op": "remove", "path": "/spec/template/spec/containers/0/resources/limits/cpu"}]`
	_, err := lab.Client(d.t).AppsV1().DaemonSets(d.Namespace).Patch(d.t.Context(), d.name, types.JSONPatchType, []byte(patch), metav1.PatchOptions{})
	require.NoError(d.t, err)
	return d
}

// sleeps is what the long-lived container does where it has nothing to watch.
const sleeps = `sleep 100000 &
wait "$!"`

// idle returns a copy of the chart whose scripts do nothing: what its containers cost whatever they do. watch: what that one does.
func idle(t *testing.T, watch string) string {
	t.Helper()
	path := chart.Copy(t)
	watch = "trap 'exit 0' TERM\n" + watch
	for script, does := range map[string]string{"load.sh": "exit 0", "verify.sh": "exit 0", "verify-traffic.sh": "exit 0", "watch.sh": watch, "report": "exit 0"} {
		file := filepath.Join(path, "files", script)
		require.FileExists(t, file)
		require.NoError(t, os.WriteFile(file, []byte("#!/bin/sh\n"+does+"\n"), 0o600))
	}
	return path
}

// measureEnd measures how long a pod takes to go.
func measureEnd(t *testing.T, b *bench) {
	_, took := livesOnContainers(t)
	b.record(t, row{
		what: "delete one pod", unit: "s", ours: median(took[ours]), theirs: median(took[theirs]), limit: 0.1,
		beside: fmt.Sprintf("ours %s; theirs %s", spread(took[ours], "s"), spread(took[theirs], "s")),
	})
}

// livesOnContainers deletes pods on the nodes that are containers, all nodes' at once. It returns how long the API had them, and how long
// the pods after them took from their creation to Ready, in seconds.
func livesOnContainers(t *testing.T) (toReady, toGone map[subject][]float64) {
	t.Helper()
	lab.Untaint(t) // theirs tolerates nothing
	nodes := lab.Containers(t)
	toReady, toGone = map[subject][]float64{}, map[subject][]float64{}
	seen := map[subject]*sightings{}
	for _, s := range []subject{ours, theirs} {
		for _, node := range nodes {
			lab.Label(t, node, label(s), "on")
		}
		seen[s] = deploy(t, s, label(s), "on", "").follow()
	}
	for len(toGone[ours]) < endRuns {
		for _, s := range slices.Sorted(maps.Keys(seen)) {
			old, round, deleted := seen[s].proven(len(nodes)), time.Now(), map[types.UID]time.Time{}
			for _, pod := range old {
				deleted[pod.UID] = time.Now()
				seen[s].remove(pod, nil)
			}
			for pod, at := range deleted {
				toGone[s] = append(toGone[s], seen[s].gone(at, pod).at.Sub(at).Seconds())
			}
			for _, pod := range seen[s].proven(len(nodes)) {
				created := seen[s].first(round, "no pod comes", func(seen sighting) bool { return seen.pod.UID == pod.UID })
				toReady[s] = append(toReady[s], seen[s].ready(round, pod.UID).at.Sub(created.at).Seconds())
			}
		}
	}
	return toReady, toGone
}
