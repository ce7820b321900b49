// Package chart is the only place in the suite that knows where the chart lies, how helm is called and how its output is
// decoded.
package chart

import (
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/gruntwork-io/terratest/modules/helm"
	"github.com/stretchr/testify/require"
)

// Release and Namespace are what Render uses: the names that users are told to use.
const (
	Release   = "istio-os-init"
	Namespace = "istio-system"
)

// KubeVersion is the Kubernetes version that Render renders for, as x.y.z: the lab's, so that goldens do not change with
// the helm that renders them.
const KubeVersion = "1.37.2"

// Root returns the absolute path of the repository.
func Root() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Join(filepath.Dir(file), "..", "..", "..")
}

// Path returns the absolute path of the chart.
func Path() string { return filepath.Join(Root(), "charts", "istio-os-init") }

// Script returns the absolute path of a script that the chart ships, by its name in files/, e.g. "load.sh".
func Script(name string) string { return filepath.Join(Path(), "files", name) }

// AppVersion returns the Istio version that the chart names, e.g. "1.31.1".
func AppVersion(t *testing.T) string {
	t.Helper()
	var metadata struct {
		AppVersion string `json:"appVersion"`
	}
	read(t, filepath.Join(Path(), "Chart.yaml"), &metadata)
	require.NotEmpty(t, metadata.AppVersion, "Chart.yaml has no appVersion")
	return metadata.AppVersion
}

// Scenarios returns the names of the scenarios beside the chart, e.g. "default" for ci/default-values.yaml. Every test layer
// and chart-testing share them.
func Scenarios(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(Path(), "ci", "*-values.yaml"))
	require.NoError(t, err)
	require.NotEmpty(t, files, "the chart has no scenario in ci/")
	names := make([]string, len(files))
	for i, file := range files {
		names[i] = strings.TrimSuffix(filepath.Base(file), "-values.yaml")
	}
	return names
}

// Scenario returns the values file of a scenario.
func Scenario(name string) string { return filepath.Join(Path(), "ci", name+"-values.yaml") }

// ValuesFile writes values, a YAML document, to a file of the test's and returns its path.
func ValuesFile(t *testing.T, values string) string {
	t.Helper()
	// Not t.TempDir, whose path has the test's name: helm splits what it takes for values files at commas.
	directory, err := os.MkdirTemp("", "values-")
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(directory) })
	file := filepath.Join(directory, "values.yaml")
	require.NoError(t, os.WriteFile(file, []byte(values), 0o600))
	return file
}

// Render renders the chart with values, a YAML document ("" for none), and returns its objects.
func Render(t *testing.T, values string, helmArgs ...string) Objects {
	t.Helper()
	return RenderFiles(t, []string{ValuesFile(t, values)}, helmArgs...)
}

// RenderFiles renders the chart with values files and returns its objects.
func RenderFiles(t *testing.T, files []string, helmArgs ...string) Objects {
	t.Helper()
	manifest, err := Manifest(t, Path(), files, helmArgs...)
	require.NoError(t, err)
	return Decode(t, manifest)
}

// Manifest returns what `helm template` prints for a chart, or helm's error.
func Manifest(t *testing.T, path string, files []string, helmArgs ...string) (string, error) {
	t.Helper()
	return Helm3.Manifest(t, path, files, helmArgs...)
}

// Options returns terratest's options for values files.
func Options(t *testing.T, files ...string) *helm.Options {
	t.Helper()
	return Helm3.Options(t, files...)
}

// Copy copies the chart to a directory of the test's, for tests that break it, and returns the copy's path.
func Copy(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "istio-os-init")
	require.NoError(t, os.CopyFS(dir, os.DirFS(Path()).(fs.ReadDirFS)))
	return dir
}

// Workspace returns a directory of the test's that has, as the pages assume, the chart in charts/ and beside it mesh-instance: a
// chart that depends on ours twice, once for each of two pools of nodes.
func Workspace(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for from, to := range map[string]string{Path(): "charts/istio-os-init", MeshInstance(): "mesh-instance"} {
		require.NoError(t, os.CopyFS(filepath.Join(dir, to), os.DirFS(from).(fs.ReadDirFS)))
	}
	return dir
}

// MeshInstance returns the absolute path of the chart that depends on ours.
func MeshInstance() string {
	return filepath.Join(Root(), "test", "internal", "chart", "testdata", "mesh-instance")
}

// Mesh returns the path of a copy of mesh-instance whose dependencies are there, built as a user would.
func Mesh(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(Workspace(t), "mesh-instance")
	output, err := helm.RunHelmCommandAndGetOutputContextE(t, t.Context(), Options(t), "dependency", "update", dir)
	require.NoError(t, err, output)
	return dir
}
