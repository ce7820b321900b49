package render

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/gruntwork-io/terratest/modules/helm"
	securityv1 "github.com/openshift/api/security/v1"
	"github.com/stretchr/testify/require"

	"github.com/istio-os-init/istio-os-init/test/internal/chart"
	"github.com/istio-os-init/istio-os-init/test/internal/docs"
)

func TestAsADependencyItTakesTheMeshsGlobals(t *testing.T) {
	t.Parallel()
	objects := renderMesh(t, `
global: {hub: mesh.example/istio, tag: 1.25.3, imagePullPolicy: Always, imagePullSecrets: [mesh], proxy: {}}
edge: {enabled: false}
`)
	pod := objects.Pod(t)
	watch := objects.Container(t, "watch")
	require.Equal(t, "mesh.example/istio/proxyv2:1.25.3", watch.Image)
	require.Equal(t, "Always", string(watch.ImagePullPolicy))
	require.Equal(t, "mesh", pod.ImagePullSecrets[0].Name)
	require.Contains(t, objects.Plan(t), "iptable_nat", "the mesh's version decides the backend")
	require.Equal(t, watch.Image, objects.TestContainer(t).Image)

	native := renderMesh(t, "{global: {nativeNftables: true}, edge: {enabled: false}}")
	require.Contains(t, native.Plan(t), "nft_redir")
}

func TestAsADependencyItIsSwitchedByItsCondition(t *testing.T) {
	t.Parallel()
	require.Len(t, renderMesh(t, "").DaemonSets, 2)
	require.Equal(t, "istio-os-init-edge", renderMesh(t, "istio-os-init: {enabled: false}").DaemonSet(t).Name)
	require.Equal(t, chart.Release, renderMesh(t, "edge: {enabled: false}").DaemonSet(t).Name)
	none := renderMesh(t, "{istio-os-init: {enabled: false}, edge: {enabled: false}}")
	require.Equal(t, chart.Objects{}, none)
}

func TestAMeshChartPassesHelmLint(t *testing.T) {
	t.Parallel()
	for _, which := range chart.Helms {
		output, err := which.Lint(t, chart.Mesh(t))
		require.NoError(t, err, output)
	}
}

// Whatever the release and the alias are called: a release may have the name of an alias, aliases may both be part of it, and names
// that are too long for Kubernetes may begin alike.
func TestTwoInstancesOfOneReleaseDoNotClash(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("a-long-release-", 3) + "name"
	for _, names := range [][2]string{
		{"istio-os-init", "edge"}, {"edge", "edge"}, {"mesh", "edge"}, {"istio-os-init-edge", "edge"}, {"istio-os-init", "os-init"},
		{long, "istio-os-init-edge"},
	} {
		release, alias := names[0], names[1]
		t.Run("alias "+alias+" in release "+release, func(t *testing.T) {
			t.Parallel()
			dir := chart.Mesh(t)
			file := filepath.Join(dir, "Chart.yaml")
			metadata, err := os.ReadFile(file)
			require.NoError(t, err)
			require.NoError(t, os.WriteFile(file, []byte(strings.ReplaceAll(string(metadata), "alias: edge", "alias: "+alias)), 0o600))
			manifest, err := helm.RenderTemplateContextE(t, t.Context(), chart.Options(t), dir, release, nil)
			require.NoError(t, err)
			requireTwoInstances(t, chart.Decode(t, manifest))
		})
	}
}

func requireTwoInstances(t *testing.T, objects chart.Objects) {
	t.Helper()
	require.Len(t, objects.DaemonSets, 2)
	require.Len(t, objects.Hooks.DaemonSets, 2)
	require.Len(t, objects.Hooks.Jobs, 2)
	require.Len(t, objects.Tests, 2)

	var names []string
	add := func(kind, name string) {
		require.LessOrEqual(t, len(name), 63, kind)
		names = append(names, kind+"/"+name)
	}
	for _, objects := range []*chart.Objects{&objects, objects.Hooks} {
		for i := range 2 {
			add("DaemonSet", objects.DaemonSets[i].Name)
			add("ConfigMap", objects.ConfigMaps[i].Name)
			add("ServiceAccount", objects.ServiceAccounts[i].Name)
		}
	}
	for i := range 2 {
		add("Role", objects.Hooks.Roles[i].Name)
		add("RoleBinding", objects.Hooks.RoleBindings[i].Name)
		add("Job", objects.Hooks.Jobs[i].Name)
		add("Pod", objects.Tests[i].Name)
	}
	requireDistinct(t, names, "objects")

	// Every pod of the release, and which DaemonSets select it: its own or none.
	for i := range 2 {
		pods := map[string]map[string]string{
			"the DaemonSet's":     objects.DaemonSets[i].Spec.Template.Labels,
			"the cleaner's":       objects.Hooks.DaemonSets[i].Spec.Template.Labels,
			"the waiter":          objects.Hooks.Jobs[i].Spec.Template.Labels,
			"that of helm test's": objects.Tests[i].Labels,
		}
		for owner, labels := range pods {
			for j := range 2 {
				for ofWhom, selector := range map[string]map[string]string{
					"the DaemonSet's": objects.DaemonSets[j].Spec.Selector.MatchLabels,
					"the cleaner's":   objects.Hooks.DaemonSets[j].Spec.Selector.MatchLabels,
				} {
					if i == j && owner == ofWhom {
						require.Subset(t, labels, selector, owner)
						continue
					}
					require.NotSubset(t, labels, selector, "instance %d selects as %s instance %d's %s pod", j, ofWhom, i, owner)
				}
			}
		}
		require.Equal(t, objects.DaemonSets[i].Spec.Template.Spec.NodeSelector, objects.Tests[i].Spec.NodeSelector)
		require.Equal(t, volume(t, objects.DaemonSets[i].Spec.Template.Spec, "config"), volume(t, objects.Tests[i].Spec, "config"))
	}
	require.NotEqual(t, objects.DaemonSets[0].Spec.Template.Spec.NodeSelector, objects.DaemonSets[1].Spec.Template.Spec.NodeSelector)
}

func TestAsADependencyItStillRefusesBadValues(t *testing.T) {
	t.Parallel()
	dir := chart.Mesh(t)
	_, err := chart.Manifest(t, dir, []string{chart.ValuesFile(t, "istio-os-init: {imge: {}}")})
	require.ErrorContains(t, err, "additional properties 'imge' not allowed")
	_, err = chart.Manifest(t, dir, []string{chart.ValuesFile(t, "global: {tag: 1.31.1-distroless}")})
	require.ErrorContains(t, err, "has no shell")
}

// The example of docs/uses.md, with the charts of the Istio that our stand-in is built from.
func TestBesideIstiosOwnChartsItTakesWhatTheyTake(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile(filepath.Join(chart.Path(), "docs", "uses.md"))
	require.NoError(t, err)
	_, example, found := strings.Cut(string(page), "### Beside Istio's own charts")
	require.True(t, found)
	blocks := docs.Blocks(example, "yaml")
	theirCharts := filepath.Join(chart.IstioModule(t), "manifests", "charts")
	dir := t.TempDir()
	for from, to := range map[string]string{
		filepath.Join(theirCharts, "base"):                             "base",
		filepath.Join(theirCharts, "istio-control", "istio-discovery"): "istiod",
		filepath.Join(theirCharts, "istio-cni"):                        "cni",
		filepath.Join(theirCharts, "ztunnel"):                          "ztunnel",
		chart.Path():                                                   "istio-os-init",
	} {
		require.NoError(t, os.CopyFS(filepath.Join(dir, "charts", to), os.DirFS(from).(fs.ReadDirFS)))
	}
	metadata := strings.ReplaceAll(blocks[0], "version: 1.31.1", "version: 1.0.0") // theirs until their release
	require.NoError(t, os.WriteFile(filepath.Join(dir, "Chart.yaml"), []byte(metadata), 0o600))
	values := []string{chart.ValuesFile(t, blocks[1])}
	_, err = chart.Manifest(t, dir, values)
	require.NoError(t, err)
	theirs, err := chart.Manifest(t, dir, values, "--show-only", "charts/cni/templates/daemonset.yaml")
	require.NoError(t, err)
	require.Contains(t, theirs, `registry.istio.io/release/install-cni:1.31.1`)
	ours, err := chart.Manifest(t, dir, values, "--show-only", "charts/istio-os-init/templates/daemonset.yaml", "--show-only", "charts/istio-os-init/templates/configmap.yaml")
	require.NoError(t, err)
	objects := chart.Decode(t, ours)
	require.Equal(t, "registry.istio.io/release/proxyv2:1.31.1", objects.Container(t, "watch").Image)
	require.Contains(t, objects.Plan(t), "xt_set", "ambient's plan")
	require.NotEmpty(t, objects.DaemonSet(t).Spec.Template.Annotations[securityv1.RequiredSCCAnnotation], "OpenShift, as global.platform says")
}

// Istio's charts render for one of two people where global.resourceScope says so; a mesh chart of both says it to all.
func TestTheMeshsResourceScopeSplitsTheRelease(t *testing.T) {
	t.Parallel()
	all := chart.Render(t, "")
	require.Equal(t, all, chart.Render(t, "global: {resourceScope: all}"))
	require.Equal(t, all, chart.Render(t, "global: {resourceScope: namespace}"), "by default all that the chart makes has a namespace")
	signals := chart.RenderFiles(t, []string{chart.Scenario("signals")}, "--set", "global.resourceScope=namespace", "--is-upgrade")
	require.Empty(t, len(signals.ClusterRoles)+len(signals.ClusterRoleBindings)+len(signals.Policies)+len(signals.PolicyBindings)+len(signals.NodeReadinessRules))
	require.Empty(t, signals.Hooks.ClusterRoles)
	openshift := chart.RenderFiles(t, []string{chart.Scenario("openshift")}, "--set", "global.resourceScope=namespace")
	require.Empty(t, openshift.SCCs)
	require.NotContains(t, openshift.DaemonSet(t).Spec.Template.Annotations, "openshift.io/required-scc")
	for _, name := range chart.Scenarios(t) {
		cluster := chart.RenderFiles(t, []string{chart.Scenario(name)}, "--set", "global.resourceScope=cluster", "--is-upgrade")
		require.Equal(t, name == "signals", len(cluster.ClusterRoles)*len(cluster.ClusterRoleBindings)*len(cluster.Policies)*len(cluster.PolicyBindings)*len(cluster.NodeReadinessRules) > 0, name)
		cluster.ClusterRoles, cluster.ClusterRoleBindings, cluster.Policies, cluster.PolicyBindings, cluster.NodeReadinessRules = nil, nil, nil, nil, nil
		require.Equal(t, chart.Objects{}, cluster, "%s: the other person's release has them", name)
	}
}

// Whoever builds a mesh chart copies it from the page.
func TestThePageShowsTheChartThatTheTestsUse(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile(filepath.Join(chart.Path(), "docs", "uses.md"))
	require.NoError(t, err)
	for _, name := range []string{"Chart.yaml", "values.yaml", "templates/NOTES.txt"} {
		content, err := os.ReadFile(filepath.Join(chart.MeshInstance(), name))
		require.NoError(t, err)
		shown := regexp.MustCompile("(?s)`mesh-instance/" + regexp.QuoteMeta(name) + "`[^`]*```[a-z]+\n(.*?)```").FindSubmatch(page)
		require.NotNil(t, shown, name)
		require.Equal(t, string(content), string(shown[1]), name)
	}
}

func renderMesh(t *testing.T, values string) chart.Objects {
	t.Helper()
	manifest, err := chart.Manifest(t, chart.Mesh(t), []string{chart.ValuesFile(t, values)})
	require.NoError(t, err)
	return chart.Decode(t, manifest)
}
