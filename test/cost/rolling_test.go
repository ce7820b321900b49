package cost

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/istio-os-init/istio-os-init/test/internal/lab"
)

// measureRollingRestart restarts the pods of all nodes, as kubectl rollout restart does, and waits until each node has a new one that is
// available. Of theirs one run, since its grace period is half a minute a node; and one of the floor, ours with scripts that do nothing.
func measureRollingRestart(t *testing.T, b *bench) {
	nodes := append(lab.Containers(t), lab.TheVM(t).Name)
	lab.Untaint(t) // theirs tolerates nothing
	took, parts := map[subject][]float64{}, map[subject]phases{}
	for _, s := range []subject{ours, theirs} {
		for _, node := range nodes {
			lab.Label(t, node, label(s), "on")
		}
	}
	measure := func(d *deployment, times int) (took []float64, last phases) {
		seen := d.follow()
		d.until(lab.Patience, "not every node has its pod", func() bool { return lab.RolledOut(d.daemonSet(), len(nodes)) })
		for range times {
			d.proven(len(nodes))
			start := time.Now()
			d.restart()
			d.until(5*time.Minute, "the restart does not come to its end", func() bool { return lab.RolledOut(d.daemonSet(), len(nodes)) })
			took, last = append(took, since(start)), phasesOf(seen.since(start))
			t.Logf("%.1f s: %v", since(start), last)
		}
		return took, last
	}
	took[ours], parts[ours] = measure(deploy(t, ours, label(ours), "on", ""), 3)
	floor, _ := measure(deployCopy(t, idle(t, sleeps), label(ours), "on", ""), 1)
	took[theirs], parts[theirs] = measure(deploy(t, theirs, label(theirs), "on", ""), 1)
	b.record(t, row{
		what: fmt.Sprintf("rolling restart, %d real nodes", len(nodes)), unit: "s", ours: median(took[ours]), theirs: median(took[theirs]), limit: 0.15,
		beside: fmt.Sprintf("ours %s, the last %v; theirs %v; the floor, ours with scripts that do nothing: %s", spread(took[ours], "s"), parts[ours], parts[theirs],
			figure(floor[0], "s")),
	})
}

// phases are what a rolling restart consists of, by node: how long its old pod took to go, and its new one until Ready, in seconds.
type phases map[string]*struct{ end, start float64 }

func (p phases) String() string {
	var parts []string
	sum := 0.0
	for _, node := range slices.Sorted(maps.Keys(p)) {
		parts = append(parts, fmt.Sprintf("%s %.1f + %.1f s", node, p[node].end, p[node].start))
		sum += p[node].end + p[node].start
	}
	return fmt.Sprintf("(end of the old pod + start of the new one: %s; sum %.1f s)", strings.Join(parts, ", "), sum)
}

func phasesOf(seen []sighting) phases {
	type life struct{ created, deleted time.Time }
	lives, nodes := map[types.UID]*life{}, phases{}
	for _, s := range seen {
		pod, known := lives[s.pod.UID]
		if !known {
			pod = &life{created: s.at}
			lives[s.pod.UID] = pod
		}
		node := nodes[s.pod.Spec.NodeName]
		if node == nil {
			node = &struct{ end, start float64 }{}
			nodes[s.pod.Spec.NodeName] = node
		}
		switch {
		case s.gone:
			if !pod.deleted.IsZero() {
				node.end = s.at.Sub(pod.deleted).Seconds()
			}
		case s.pod.DeletionTimestamp != nil:
			if pod.deleted.IsZero() {
				pod.deleted = s.at
			}
		case lab.Ready(s.pod) && known && node.start == 0: // the old one is Ready when it is first seen
			node.start = s.at.Sub(pod.created).Seconds()
		}
	}
	delete(nodes, "") // not scheduled yet
	return nodes
}
