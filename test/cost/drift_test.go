package cost

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/istio-os-init/istio-os-init/test/internal/lab"
)

const (
	interval  = 5 * time.Second
	driftRuns = 5
)

// measureDrift unloads a module on the VM, and waits until the pod is Ready again. The runs are spread over watch's interval.
func measureDrift(t *testing.T, b *bench) {
	vm := lab.TheVM(t)
	vm.DenyAutoload()
	lab.Label(t, vm.Name, label("drift"), "on")
	values := fmt.Sprintf("watch: {interval: %.0f}", interval.Seconds())
	d := deploy(t, ours, label("drift"), "on", values)
	seen := d.follow()
	d.proven(1)
	ahead := vm.Ahead()
	var noticed, started, again []float64
	for run := range driftRuns {
		if run > 0 { // a second drift in one pod's life makes the kubelet wait longer
			d.renewed()
		}
		time.Sleep(interval * time.Duration(run) / driftRuns)
		gone := vm.Remove("xt_owner").Add(-ahead)
		notReady := seen.first(gone, "nobody notices that the module has gone", func(s sighting) bool { return !lab.Ready(s.pod) })
		ready := seen.ready(notReady.at, notReady.pod.UID)
		require.True(t, vm.Modules()["xt_owner"])
		noticed = append(noticed, notReady.at.Sub(gone).Seconds())
		started = append(started, spansOf(t, vm, ready.pod, ahead)[d.loader].started.Sub(gone).Seconds())
		again = append(again, ready.at.Sub(gone).Seconds())
		t.Logf("NotReady after %.2f s, load runs again after %.2f s, Ready after %.2f s", noticed[run], started[run], again[run])
	}
	floor, elsewhere := endOfSandbox(t, vm.Name, ahead), endOfSandbox(t, lab.ControlPlane, 0)
	b.record(t, row{
		what: fmt.Sprintf("drift → Ready again (VM, rmmod, interval %v)", interval), unit: "s",
		ours: median(again), theirs: math.NaN(), limit: interval.Seconds() + 5, absolute: true,
		beside: fmt.Sprintf("%s; NotReady after %.3g s, load runs again after %.3g s; the floor, from the sandbox's end to Ready with scripts "+
			"that do nothing: %.3g s, %s; without emulation, on %s: %.3g s, %s",
			spread(again, "s"), median(noticed), median(started), median(floor), spread(floor, "s"), lab.ControlPlane, median(elsewhere), spread(elsewhere, "s")),
	})
}

// measureMended takes the VM's modprobe away, lets the proof fail once, and returns it: how long until the same pod is Ready.
func measureMended(t *testing.T, b *bench) {
	vm := lab.TheVM(t)
	vm.DenyAutoload()
	lab.Label(t, vm.Name, label("mended"), "on")
	var took []float64
	for range asideRuns {
		vm.Unload()
		d, outer := &deployment{}, t
		t.Run("broken", func(t *testing.T) {
			vm.On(t).Fault("no-modprobe")
			d = deploy(outer, ours, label("mended"), "on", "persist: {enabled: false}")
			d.WaitRefused(vm.Name)
		})
		mended := time.Now()
		took = append(took, d.follow().ready(mended, d.pods()[0].UID).at.Sub(mended).Seconds())
		t.Logf("Ready %.2f s after the node was mended", took[len(took)-1])
		d.Uninstall()
	}
	b.record(t, row{
		what: "mended node → Ready (VM, after the first failed proof)", unit: "s",
		ours: median(took), theirs: math.NaN(), limit: 40, absolute: true, beside: spread(took, "s"),
	})
}

// endOfSandbox measures what the kubelet takes whatever the containers do: from the end of the pod's process 1 to Ready. ahead: the
// node's clock.
func endOfSandbox(t *testing.T, node string, ahead time.Duration) []float64 {
	t.Helper()
	d := deployCopy(t, idle(t, `ended=/run/istio-os-init/watch/ended
[ -r "$ended" ] || {
  sleep 3
  date +%s%N >"$ended"
  kill -TERM 1
}
cat "$ended"
`+sleeps), "kubernetes.io/hostname", node, "")
	seen := d.follow()
	var took []float64
	for run := range asideRuns {
		start := time.Now()
		if run == 0 {
			d.proven(1)
		} else {
			d.renewed()
		}
		pod := d.pods()[0]
		var ended time.Time
		d.until(lab.Patience, "the containers do not run again", func() bool {
			nanoseconds, err := strconv.ParseInt(strings.TrimSpace(d.Log(pod.Name, "watch")), 10, 64)
			ended = time.Unix(0, nanoseconds)
			return err == nil
		})
		ended = ended.Add(-ahead)
		require.True(t, ended.After(start) || run == 0)
		// what is told first may still be from before
		notReady := seen.first(ended, "the pod stays Ready", func(s sighting) bool { return s.pod.UID == pod.UID && !lab.Ready(s.pod) })
		took = append(took, seen.ready(notReady.at, pod.UID).at.Sub(ended).Seconds())
	}
	return took
}
