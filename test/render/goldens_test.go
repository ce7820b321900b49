package render

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	helmchart "helm.sh/helm/v3/pkg/chart"
	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	helmvalues "helm.sh/helm/v3/pkg/cli/values"
	"helm.sh/helm/v3/pkg/engine"
	"helm.sh/helm/v3/pkg/getter"
	"sigs.k8s.io/yaml"

	"github.com/istio-os-init/istio-os-init/test/internal/chart"
	"github.com/istio-os-init/istio-os-init/test/internal/docs"
)

// goldens are for "nothing else has changed"; what a value does has a test of its own. Of each its scenarios, of which a later one wins, and
// what no scenario has. Together they go through every branch of the templates.
var goldens = map[string]struct {
	scenarios []string
	values    string
}{
	"default":         {scenarios: []string{"default"}},
	"unknown-version": {scenarios: []string{"legacy", "unknown-version", "no-repair"}},
	"native-nft":      {scenarios: []string{"native-nft", "gke"}},
	"look-only":       {scenarios: []string{"openshift", "look-only", "ambient"}},
	"openshift":       {scenarios: []string{"signals", "openshift"}},
	"everything":      {scenarios: []string{"everything", "signals", "own-image", "policies", "gke", "tproxy", "rhel-nfd", "os-release"}, values: everythingElse},
}

// A name that has to be cut, mounts that not every Kubernetes has, and a term that selects no node, beside which the chart refuses a rule of
// signals.
const everythingElse = `
load: {recursiveReadOnly: true}
signals: {nodeReadinessRule: {enabled: false}}
fullnameOverride: a-name-of-sixty-three-characters-which-is-what-kubernetes-takes
affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [{}, {matchExpressions: [{key: zone, operator: Exists}]}]}}}
`

// goldenFiles are the values files of a golden.
func goldenFiles(t *testing.T, name string) (files []string) {
	t.Helper()
	for _, scenario := range goldens[name].scenarios {
		files = append(files, chart.Scenario(scenario))
	}
	return append(files, chart.ValuesFile(t, goldens[name].values))
}

func TestEachGoldenIsWhatItsScenariosRender(t *testing.T) {
	t.Parallel()
	for name := range goldens {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			golden := filepath.Join("testdata", name+".golden.yaml")
			got := normalised(t, goldenFiles(t, name))
			if *docs.Update {
				require.NoError(t, os.WriteFile(golden, []byte(got), 0o644))
				return
			}
			want, err := os.ReadFile(golden)
			require.NoError(t, err, "make generate writes it")
			require.YAMLEq(t, string(want), got, "if the change is meant: make generate")
		})
	}
}

func TestNoGoldenIsLeftOver(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob(filepath.Join("testdata", "*.golden.yaml"))
	require.NoError(t, err)
	require.Len(t, files, len(goldens))
}

// branch is a place where a template goes one of several ways: behind an if, else, range or with.
type branch struct {
	template  *helmchart.File
	line, end int // of the action: its line, and the offset behind it
}

// Not parallel, as it changes the chart that it has loaded. Refusals render no object, and the notes are none.
func TestTheGoldensGoThroughEveryBranchOfTheTemplates(t *testing.T) {
	loaded, err := loader.Load(chart.Path())
	require.NoError(t, err)
	values, capabilities := map[string]chartutil.Values{}, chartutil.DefaultCapabilities.Copy()
	version, err := chartutil.ParseKubeVersion(chart.KubeVersion)
	require.NoError(t, err)
	capabilities.KubeVersion = *version
	for name := range goldens {
		merged, err := (&helmvalues.Options{ValueFiles: goldenFiles(t, name)}).MergeValues(getter.Providers{})
		require.NoError(t, err)
		release := chartutil.ReleaseOptions{Name: chart.Release, Namespace: "istio-system", IsInstall: true}
		values[name], err = chartutil.ToRenderValues(loaded, merged, release, capabilities)
		require.NoError(t, err, name)
	}
	action := regexp.MustCompile(`\{\{-? *(if|else|range|with)\b.*?-?\}\}`)
	found := 0
	for _, template := range loaded.Templates {
		if strings.HasSuffix(template.Name, "NOTES.txt") || strings.HasSuffix(template.Name, "refusals.yaml") {
			continue
		}
		for _, at := range action.FindAllIndex(template.Data, -1) {
			if before := template.Data[bytes.LastIndexByte(template.Data[:at[0]], '\n')+1 : at[0]]; bytes.Contains(before, []byte(`printf "`)) {
				continue // Prometheus', in a text
			}
			found++
			b := branch{template, 1 + strings.Count(string(template.Data[:at[0]]), "\n"), at[1]}
			through := slices.ContainsFunc(slices.Sorted(maps.Keys(values)), func(name string) bool { return b.takes(t, loaded, values[name]) })
			if !through {
				t.Errorf("%s:%d: no golden goes there", template.Name, b.line)
			}
		}
	}
	require.Greater(t, found, 100)
}

// takes tells whether values go through the branch: whether they render no longer if it fails.
func (b branch) takes(t *testing.T, loaded *helmchart.Chart, values chartutil.Values) bool {
	t.Helper()
	whole, mark := b.template.Data, fmt.Sprintf("branch %s:%d", b.template.Name, b.line)
	b.template.Data = slices.Concat(whole[:b.end], []byte(`{{ fail "`+mark+`" }}`), whole[b.end:])
	defer func() { b.template.Data = whole }()
	_, err := engine.Render(loaded, values)
	if err != nil {
		require.ErrorContains(t, err, mark)
	}
	return err != nil
}

// normalised returns the objects of values files as one YAML document without what changes for other reasons than the values: the
// chart's version, and the scripts with their catalogue of reasons, which have tests of their own.
func normalised(t *testing.T, files []string) string {
	t.Helper()
	objects := chart.RenderFiles(t, files)
	configs := objects.ConfigMaps
	if objects.Hooks != nil {
		configs = append(configs, objects.Hooks.ConfigMaps...)
	}
	for _, config := range configs {
		for key := range config.Data {
			if key != "plan" && key != "backends" {
				config.Data[key] = "files/" + key
			}
		}
	}
	document, err := yaml.Marshal(objects)
	require.NoError(t, err)
	text := regexp.MustCompile(`istio-os-init-\d+\.\d+\.\d+\S*`).ReplaceAllString(string(document), "istio-os-init-x.y.z")
	for _, config := range objects.ConfigMaps {
		text = strings.ReplaceAll(text, config.Name, config.Name[:len(config.Name)-8]+"x")
	}
	return text
}
