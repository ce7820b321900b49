// Package render asks one question: which objects come out of which values?
package render

import (
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/istio-os-init/istio-os-init/test/internal/chart"
)

// Helm 3's is in scripts/lint-chart, as ct runs it.
func TestEveryScenarioPassesHelmLint(t *testing.T) {
	t.Parallel()
	for _, name := range chart.Scenarios(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			output, err := chart.Helm4.Lint(t, chart.Path(), chart.Scenario(name))
			require.NoError(t, err, output)
		})
	}
}

func TestEveryScenarioRendersCleanYAML(t *testing.T) {
	t.Parallel()
	for _, name := range chart.Scenarios(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			manifest, err := chart.Manifest(t, chart.Path(), []string{chart.Scenario(name)})
			require.NoError(t, err)
			for i, line := range strings.Split(manifest, "\n") {
				require.NotRegexp(t, `[ \t]$`, line, "line %d ends in white space", i+1)
				require.NotRegexp(t, `(: null|: ~|^ *- null)$`, line, "line %d is a null", i+1)
			}
			requireNothingTwice(t, chart.Decode(t, manifest))
		})
	}
}

// requireNothingTwice: lists that Kubernetes merges by name, where a repetition is lost or refused by a server-side apply.
// Repeated keys of maps fail the strict decoding.
func requireNothingTwice(t *testing.T, objects chart.Objects) {
	t.Helper()
	pod := objects.Pod(t)
	var containers, volumes []string
	for _, container := range append(pod.InitContainers, pod.Containers...) {
		containers = append(containers, container.Name)
		var env, mounts []string
		for _, variable := range container.Env {
			env = append(env, variable.Name)
		}
		for _, mount := range container.VolumeMounts {
			mounts = append(mounts, mount.MountPath)
		}
		requireDistinct(t, env, "environment of "+container.Name)
		requireDistinct(t, mounts, "mounts of "+container.Name)
	}
	for _, volume := range pod.Volumes {
		volumes = append(volumes, volume.Name)
	}
	requireDistinct(t, containers, "containers")
	requireDistinct(t, volumes, "volumes")
	requireDistinct(t, objects.Plan(t), "plan")
}

func requireDistinct(t *testing.T, names []string, what string) {
	t.Helper()
	seen := map[string]bool{}
	for _, name := range names {
		require.False(t, seen[name], "%s: %q stands there twice", what, name)
		seen[name] = true
	}
}

// Of processor time, so that the chart and helm count and hardly what else the machine is doing: 280 ms on a slow machine, and half as
// much again if it is busy. Twice as much is a mistake in a template.
func TestRenderingTakesLessThan600MillisecondsOfProcessorTime(t *testing.T) {
	const limit = 600 * time.Millisecond
	path, values := chart.Copy(t), []string{chart.Scenario("default")} // of a copy no rendering is kept
	used := func() time.Duration {
		var usage syscall.Rusage
		require.NoError(t, syscall.Getrusage(syscall.RUSAGE_CHILDREN, &usage))
		return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
	}
	best := time.Hour
	for range 5 {
		start := used()
		_, err := chart.Helm3.Template(t, path, values)
		require.NoError(t, err)
		best = min(best, used()-start)
	}
	t.Logf("one render: %v", best.Round(time.Millisecond))
	require.Less(t, best, limit)
}
