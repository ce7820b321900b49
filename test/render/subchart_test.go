package render

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/gruntwork-io/terratest/modules/helm"
	"github.com/stretchr/testify/require"

	"github.com/istio-os-init/istio-os-init/test/internal/chart"
)

func TestAsADependencyItTakesTheMeshsImage(t *testing.T) {
	t.Parallel()
	objects := renderMesh(t, `
global: {hub: mesh.example/istio, tag: 1.25.5, imagePullPolicy: Always, imagePullSecrets: [mesh], proxy: {}}
`)
	pod := objects.Pod(t)
	require.Equal(t, "mesh.example/istio/proxyv2:1.25.5", pod.Containers[0].Image)
	require.Equal(t, "mesh", pod.ImagePullSecrets[0].Name)
	require.Contains(t, objects.Plan(t), "iptable_nat", "the mesh's version decides the backend")
}

func TestAsADependencyItIsSwitchedByItsCondition(t *testing.T) {
	t.Parallel()
	require.Empty(t, renderMesh(t, "istio-os-init: {enabled: false}").DaemonSets)
	require.Len(t, renderMesh(t, "istio-os-init: {enabled: true}").DaemonSets, 1)
}

func TestTwoInstancesOfOneReleaseDoNotClash(t *testing.T) {
	t.Parallel()
	objects := renderMesh(t, `
edge: {enabled: true, nodeSelector: {pool: edge}}
istio-os-init: {nodeSelector: {pool: core}}
`)
	require.Len(t, objects.DaemonSets, 2)
	require.Len(t, objects.ConfigMaps, 2)
	first, second := objects.DaemonSets[0], objects.DaemonSets[1]
	require.NotEqual(t, first.Name, second.Name)
	require.NotEqual(t, objects.ConfigMaps[0].Name, objects.ConfigMaps[1].Name)
	require.NotEqual(t, objects.ServiceAccounts[0].Name, objects.ServiceAccounts[1].Name)
	require.NotEqual(t, first.Spec.Selector, second.Spec.Selector, "each would fight for the other's pods")
	require.NotEqual(t, first.Spec.Template.Spec.NodeSelector, second.Spec.Template.Spec.NodeSelector)
}

func TestAsADependencyItStillRefusesBadValues(t *testing.T) {
	t.Parallel()
	_, err := chart.Manifest(t, mesh(t), []string{chart.ValuesFile(t, "istio-os-init: {imge: {}}")})
	require.ErrorContains(t, err, "additional properties 'imge' not allowed")
	_, err = chart.Manifest(t, mesh(t), []string{chart.ValuesFile(t, "global: {tag: 1.31.1-distroless}")})
	require.ErrorContains(t, err, "has no shell")
}

func renderMesh(t *testing.T, values string) chart.Objects {
	t.Helper()
	manifest, err := chart.Manifest(t, mesh(t), []string{chart.ValuesFile(t, values)})
	require.NoError(t, err)
	return chart.Decode(t, manifest)
}

// mesh writes a parent chart that depends on ours twice, once under an alias that is off by default, and builds its
// dependencies as a user would.
func mesh(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "Chart.yaml"), fmt.Appendf(nil, `
apiVersion: v2
name: mesh-instance
version: 0.0.1
dependencies:
  - {name: istio-os-init, version: ">=0.0.0-0", repository: "file://%[1]s", condition: istio-os-init.enabled}
  - {name: istio-os-init, version: ">=0.0.0-0", repository: "file://%[1]s", condition: edge.enabled, alias: edge}
`, chart.Path()), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "values.yaml"), []byte("edge: {enabled: false}\n"), 0o600))
	output, err := helm.RunHelmCommandAndGetOutputContextE(t, t.Context(), chart.Options(t), "dependency", "build", dir)
	require.NoError(t, err, output)
	return dir
}
