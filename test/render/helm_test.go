package render

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/istio-os-init/istio-os-init/test/internal/chart"
	_ "github.com/istio-os-init/istio-os-init/test/internal/chart/inprocess"
)

func TestEveryHelmRendersTheSame(t *testing.T) {
	t.Parallel()
	for _, name := range chart.Scenarios(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			files := []string{chart.Scenario(name)}
			want, err := chart.Helm3.Manifest(t, chart.Path(), files)
			require.NoError(t, err)
			command, err := chart.Helm3.Template(t, chart.Path(), files, "--namespace", chart.Namespace, "--kube-version", chart.KubeVersion)
			require.NoError(t, err)
			require.Equal(t, command, want, "the library in this process renders something else than the command")
			got, err := chart.Helm4.Manifest(t, chart.Path(), files)
			require.NoError(t, err)
			require.Equal(t, chart.Decode(t, want), chart.Decode(t, got))
		})
	}
}

// Built without what its own Makefile tells the linker, a helm renders for a Kubernetes of long ago.
func TestEveryHelmBelievesInARecentKubernetes(t *testing.T) {
	t.Parallel()
	for _, helm := range chart.Helms {
		t.Run(string(helm), func(t *testing.T) {
			t.Parallel()
			manifest, err := helm.Template(t, chart.Path(), nil, "--set", "load.recursiveReadOnly=true")
			require.NoError(t, err)
			require.Contains(t, manifest, "recursiveReadOnly: IfPossible", "which Kubernetes has from 1.31 on")
		})
	}
}
