package chart

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/gruntwork-io/terratest/modules/helm"
	"github.com/gruntwork-io/terratest/modules/logger"
	"github.com/stretchr/testify/require"
)

// Helm is one of the helms that users have, by the name that scripts/tool knows it by.
type Helm string

// Helm3 is what every function uses that does not say otherwise.
const (
	Helm3 Helm = "helm"
	Helm4 Helm = "helm4"
)

// Helms are those that have to do the same with the chart.
var Helms = []Helm{Helm3, Helm4}

// Options returns terratest's options for values files and for this helm, as go.mod pins it.
func (h Helm) Options(t *testing.T, files ...string) *helm.Options {
	t.Helper()
	UseHelm(t)
	return &helm.Options{ValuesFiles: files, Logger: logger.Discard, EnvVars: map[string]string{helmVariable: Tool(t, string(h))}}
}

// manifests are those of our chart: many tests look at the same ones, and nothing changes it while they do.
var manifests sync.Map

// InProcess renders as `helm template` does, without the command; the package inprocess sets it.
var InProcess func(path string, files []string, helmArgs ...string) (string, error)

// ErrNotInProcess says that it takes the command.
var ErrNotInProcess = errors.New("only the command knows one of these flags")

// Template returns what `helm template` prints for a chart, or helm's error.
func (h Helm) Template(t *testing.T, path string, files []string, helmArgs ...string) (string, error) {
	t.Helper()
	return helm.RenderTemplateContextE(t, t.Context(), h.Options(t, files...), path, Release, nil, helmArgs...)
}

// Manifest is the function of this name with this helm.
func (h Helm) Manifest(t *testing.T, path string, files []string, helmArgs ...string) (string, error) {
	t.Helper()
	args := append([]string{"--namespace", Namespace, "--kube-version", KubeVersion}, helmArgs...)
	render := func() (string, error) {
		if InProcess != nil && h == Helm3 {
			if manifest, err := InProcess(path, files, args...); !errors.Is(err, ErrNotInProcess) {
				return manifest, err
			}
		}
		return h.Template(t, path, files, args...)
	}
	if path != Path() {
		return render()
	}
	key := string(h) + " " + strings.Join(args, " ")
	for _, file := range files {
		values, err := os.ReadFile(file)
		require.NoError(t, err)
		key += "\n" + string(values)
	}
	once, _ := manifests.LoadOrStore(key, sync.OnceValues(render))
	return once.(func() (string, error))()
}

// Lint runs `helm lint --strict` on a chart and returns what it prints; files may be none.
func (h Helm) Lint(t *testing.T, path string, files ...string) (string, error) {
	t.Helper()
	args := []string{"--strict", "--kube-version", KubeVersion}
	for _, file := range files {
		args = append(args, "--values", file)
	}
	return helm.RunHelmCommandAndGetOutputContextE(t, t.Context(), h.Options(t), "lint", append(args, path)...)
}

// helmVariable names the helm that testdata/bin/helm runs: terratest runs what PATH has under the name helm.
const helmVariable = "ISTIO_OS_INIT_HELM"

// UseHelm puts the pinned helms first on PATH, where terratest looks for one; of them Helm3, unless Options say otherwise.
func UseHelm(t *testing.T) {
	t.Helper()
	path := Tool(t, string(Helm3))
	useHelm.Do(func() {
		_ = os.Setenv(helmVariable, path)
		_ = os.Setenv("PATH", filepath.Join(Root(), "test", "internal", "chart", "testdata", "bin")+string(os.PathListSeparator)+os.Getenv("PATH"))
	})
}

var useHelm sync.Once
