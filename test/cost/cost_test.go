// Package cost asks one question: what does the chart cost, beside the DaemonSet that users copy from page to page today?
//
// Both are measured in one run, on the same nodes: ratios count, absolute figures only stand beside them. It takes three quarters
// of an hour, on slow cores twice that, so make test leaves it to make bench, and asserts the cheap rows with slack in the packages
// beside this one.
package cost

import (
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/istio-os-init/istio-os-init/test/internal/chart"
	"github.com/istio-os-init/istio-os-init/test/internal/docs"
	"github.com/istio-os-init/istio-os-init/test/internal/lab"
)

// TestWhatANodeCosts runs the measurements in an order in which none disturbs another. It goes on behind one that fails, whose rows are
// missing then.
func TestWhatANodeCosts(t *testing.T) {
	b := newBench(t, "node")
	steady := beginSteady(t)
	for _, measurement := range []struct {
		name    string
		measure func(*testing.T, *bench)
	}{
		{"release", measureRelease},
		{"start", measureStart},
		{"end", measureEnd},
		{"rolling restart", measureRollingRestart},
		{"requests", steady.measureRequests},
		{"drift", measureDrift},
		{"mended", measureMended},
	} {
		t.Run(measurement.name, func(t *testing.T) { measurement.measure(t, b) })
	}
	steady.end(t, b)
	b.plotRatios(t)
}

// TestWhatAFleetCosts is a test of its own, with its own table, since both together take too long on slow cores.
func TestWhatAFleetCosts(t *testing.T) {
	b := newBench(t, "fleet")
	measureFleet(t, b)
	if !t.Failed() {
		b.plotFleet(t)
		b.plotRollouts(t)
	}
}

// newBench returns one whose table and plots go to the folder BENCH_OUT. part: what it measures, by which the table is named.
func newBench(t *testing.T, part string) *bench {
	t.Helper()
	out := os.Getenv("BENCH_OUT")
	if out == "" {
		t.Skipf("NOT PROVEN: what the chart costs, which takes half an hour and more. Run make bench PART=%s.", part)
	}
	require.NoError(t, os.MkdirAll(out, 0o755))
	b := &bench{out: out, part: part, conditions: conditions(t)}
	t.Cleanup(func() {
		t.Logf("\n%s", b.table())
		if !t.Failed() {
			require.NoError(t, docs.Section{Page: "cost.md", Name: part}.Write(b.table()))
		}
	})
	return b
}

// bench is one run: what it has measured so far.
type bench struct {
	out, part, conditions string
	rows                  []row
	curves
}

// subject is whose pods are measured.
type subject string

const (
	ours   subject = "ours"
	theirs subject = "the copied DaemonSet"
)

// row is one line of the table. Seconds, bytes and so on are in unit; theirs is NaN where there is no counterpart.
type row struct {
	what, unit   string
	ours, theirs float64
	// limit is the highest ratio that is good enough; of ours itself where absolute is set. NaN: the row stands beside another.
	limit    float64
	absolute bool
	// beside is what else was measured, e.g. the number of runs, or what forbids less.
	beside string
}

func (b *bench) record(t *testing.T, r row) {
	t.Helper()
	b.rows = append(b.rows, r)
	b.write(t) // what is measured is not lost with what comes later
	t.Logf("%s: %s", r.what, strings.Join(r.cells()[1:], " | "))
}

// value is what the limit is for.
func (r row) value() float64 {
	if r.absolute {
		return r.ours
	}
	return r.ours / r.theirs
}

func (r row) met() bool { return math.IsNaN(r.limit) || r.value() <= r.limit }

func (r row) cells() []string {
	ratio, target, verdict := figure(r.ours/r.theirs, ""), "", ""
	if !math.IsNaN(r.limit) {
		unit := "×"
		if r.absolute {
			unit = r.unit
		}
		target, verdict = "≤ "+figure(r.limit, unit), "met"
		if !r.met() {
			verdict = "**missed**"
		}
	}
	return []string{r.what, figure(r.ours, r.unit), figure(r.theirs, r.unit), ratio, target, verdict, r.beside}
}

// figure has three digits that count.
func figure(value float64, unit string) string {
	if math.IsNaN(value) || math.IsInf(value, 0) {
		return "—"
	}
	text := fmt.Sprintf("%.3g", value)
	if math.Abs(value) >= 100 {
		text = fmt.Sprintf("%.0f", value)
	}
	if unit == "" || unit == "×" {
		return text
	}
	return text + " " + unit
}

// conditions tells when and on what the run is.
func conditions(t *testing.T) string {
	t.Helper()
	nodes, err := lab.Client(t).CoreV1().Nodes().List(t.Context(), metav1.ListOptions{})
	require.NoError(t, err)
	var kernels []string
	for _, node := range nodes.Items {
		kernels = append(kernels, fmt.Sprintf("%s %s, %s", node.Name, node.Status.NodeInfo.KernelVersion, node.Status.NodeInfo.ContainerRuntimeVersion))
	}
	helm, err := exec.CommandContext(t.Context(), chart.Tool(t, string(chart.Helm3)), "version", "--short").Output()
	require.NoError(t, err)
	return fmt.Sprintf("Measured by `make bench` on %s: Kubernetes %s, Helm %s, %d processors; nodes: %s.", time.Now().UTC().Format(time.DateOnly),
		nodes.Items[0].Status.NodeInfo.KubeletVersion, strings.TrimSpace(string(helm)), runtime.NumCPU(), strings.Join(kernels, "; "))
}

// table is the table of what has been measured so far.
func (b *bench) table() string {
	lines := []string{"| what | ours | the copied DaemonSet | ratio | target | | beside |", "|---|---|---|---|---|---|---|"}
	for _, r := range b.rows {
		lines = append(lines, "| "+strings.Join(r.cells(), " | ")+" |")
	}
	return b.conditions + "\n\n" + strings.Join(lines, "\n") + "\n"
}

// write writes the table as PART.md.
func (b *bench) write(t *testing.T) {
	t.Helper()
	require.NoError(t, os.WriteFile(filepath.Join(b.out, b.part+".md"), []byte(b.table()), 0o644))
}

// median of at least one value.
func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	middle := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return sorted[middle]
	}
	return (sorted[middle-1] + sorted[middle]) / 2
}

// spread tells how far apart the values are, e.g. "10 runs, 4.1 to 5.3 s".
func spread(values []float64, unit string) string {
	return fmt.Sprintf("%d runs, %s to %s", len(values), figure(slices.Min(values), ""), figure(slices.Max(values), unit))
}

// since is in seconds.
func since(start time.Time) float64 { return time.Since(start).Seconds() }
