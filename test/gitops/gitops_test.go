// Package gitops asks one question: what do Argo CD and Flux make of the chart's objects, by their own code? The page docs/gitops.md says so.
package gitops

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/argoproj/argo-cd/gitops-engine/pkg/health"
	"github.com/argoproj/argo-cd/gitops-engine/pkg/sync/common"
	"github.com/argoproj/argo-cd/gitops-engine/pkg/sync/hook"
	"github.com/fluxcd/cli-utils/pkg/kstatus/status"
	helmv2 "github.com/fluxcd/helm-controller/api/v2"
	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/json"
	"sigs.k8s.io/yaml"

	"github.com/istio-os-init/istio-os-init/test/internal/chart"
	"github.com/istio-os-init/istio-os-init/test/internal/docs"
)

// objects are those that the chart renders with these values, as both tools see them. The hooks of uninstall are apart; that of
// `helm test` is among the others.
func objects(t *testing.T, values string) (own, hooks []*unstructured.Unstructured) {
	t.Helper()
	manifest, err := chart.Manifest(t, chart.Path(), []string{chart.ValuesFile(t, values)})
	require.NoError(t, err)
	for _, document := range regexp.MustCompile(`(?m)^---$`).Split(manifest, -1) {
		var object unstructured.Unstructured
		require.NoError(t, yaml.Unmarshal([]byte(document), &object.Object))
		switch {
		case object.Object == nil:
		case object.GetAnnotations()["helm.sh/hook"] == "pre-delete":
			hooks = append(hooks, &object)
		default:
			own = append(own, &object)
		}
	}
	return own, hooks
}

// everything renders every kind of object that the chart has.
func everything(t *testing.T) string {
	t.Helper()
	values, err := os.ReadFile(chart.Scenario("everything"))
	require.NoError(t, err)
	return string(values)
}

// named returns the only object of a kind.
func named(t *testing.T, kind string, objects []*unstructured.Unstructured) *unstructured.Unstructured {
	t.Helper()
	var found *unstructured.Unstructured
	for _, object := range objects {
		if object.GetKind() == kind {
			require.Nil(t, found, "two of %s", kind)
			found = object
		}
	}
	require.NotNil(t, found, kind)
	return found
}

// with returns a copy of the object that has this status.
func with(t *testing.T, object *unstructured.Unstructured, values string) *unstructured.Unstructured {
	t.Helper()
	raw, err := yaml.YAMLToJSON([]byte(values))
	require.NoError(t, err)
	var state map[string]any
	require.NoError(t, json.Unmarshal(raw, &state)) // with whole numbers
	object = object.DeepCopy()
	object.SetGeneration(1)
	object.Object["status"] = state
	return object
}

// The statuses of a DaemonSet on three nodes.
const (
	onAll    = "{observedGeneration: 1, desiredNumberScheduled: 3, currentNumberScheduled: 3, updatedNumberScheduled: 3, numberReady: 3, numberAvailable: 3}"
	onAllBut = "{observedGeneration: 1, desiredNumberScheduled: 3, currentNumberScheduled: 3, updatedNumberScheduled: 3, numberReady: 2, numberAvailable: 2, numberUnavailable: 1}"
)

func inArgoCD(t *testing.T, object *unstructured.Unstructured) health.HealthStatusCode {
	t.Helper()
	found, err := health.GetResourceHealth(object, nil)
	require.NoError(t, err)
	if found == nil { // a kind without health: its controller takes it for healthy
		return health.HealthStatusHealthy
	}
	return found.Status
}

// The controller knows the value pre-delete, from 3.3 on (controller/hook.go); its engine knows that no sync runs such an object.
func TestArgoCDLeavesTheHooksOfUninstallOutOfASyncAndRemovesThemHoweverTheyEnd(t *testing.T) {
	t.Parallel()
	own, hooks := objects(t, everything(t))
	require.NotEmpty(t, hooks)
	for _, object := range hooks {
		require.True(t, hook.IsHook(object), object.GetName())
		require.Empty(t, hook.Types(object), "%s would be part of a sync", object.GetName())
		require.Subset(t, hook.DeletePolicies(object), []common.HookDeletePolicy{common.HookDeletePolicyHookSucceeded, common.HookDeletePolicyHookFailed}, object.GetName())
	}
	for _, object := range own {
		require.Equal(t, object.GetKind() == "Pod", hook.IsHook(object), "%s: all but the pod of helm test are synced", object.GetName())
		require.Empty(t, hook.Types(object), object.GetName())
	}
}

func TestArgoCDWaitsForTheJobOfUninstallAndNotForANodeThatIsDown(t *testing.T) {
	t.Parallel()
	_, hooks := objects(t, everything(t))
	require.Equal(t, health.HealthStatusHealthy, inArgoCD(t, with(t, named(t, "DaemonSet", hooks), onAllBut)))
	job := named(t, "Job", hooks)
	require.Equal(t, health.HealthStatusProgressing, inArgoCD(t, with(t, job, "{active: 1}")))
	require.Equal(t, health.HealthStatusHealthy, inArgoCD(t, with(t, job, `{conditions: [{type: Complete, status: "True"}]}`)))
	require.Equal(t, health.HealthStatusDegraded, inArgoCD(t, with(t, job, `{conditions: [{type: Failed, status: "True"}]}`)))
	for _, object := range hooks {
		if kind := object.GetKind(); kind != "DaemonSet" && kind != "Job" {
			require.Equal(t, health.HealthStatusHealthy, inArgoCD(t, object), "Argo CD would wait for %s %s", kind, object.GetName())
		}
	}
}

func TestBothToolsWaitForEveryNodeToBeProven(t *testing.T) {
	t.Parallel()
	own, _ := objects(t, "")
	daemonSet := named(t, "DaemonSet", own)
	for nodes, want := range map[string]struct {
		argo health.HealthStatusCode
		flux status.Status
	}{
		onAll:    {health.HealthStatusHealthy, status.CurrentStatus},
		onAllBut: {health.HealthStatusProgressing, status.InProgressStatus},
	} {
		object := with(t, daemonSet, nodes)
		require.Equal(t, want.argo, inArgoCD(t, object))
		result, err := status.Compute(object)
		require.NoError(t, err)
		require.Equal(t, want.flux, result.Status)
	}
}

// page returns the YAML blocks of docs/gitops.md, each under its kind.
func page(t *testing.T) map[string]string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(chart.Path(), "docs", "gitops.md"))
	require.NoError(t, err)
	blocks := map[string]string{}
	for _, block := range docs.Blocks(string(content), "yaml") {
		_, kind, found := strings.Cut(block, "\nkind: ")
		require.True(t, found, block)
		kind, _, _ = strings.Cut(kind, "\n")
		blocks[kind] = block
	}
	return blocks
}

func TestThePagesHelmReleaseIsOneForFluxAndItsValuesAreTheCharts(t *testing.T) {
	t.Parallel()
	var release helmv2.HelmRelease
	require.NoError(t, yaml.UnmarshalStrict([]byte(page(t)["HelmRelease"]), &release))
	require.True(t, release.GetInstall().DisableWait)
	require.True(t, release.GetUpgrade().DisableWait)
	require.Equal(t, "charts/istio-os-init", release.Spec.Chart.Spec.Chart)
	own, _ := objects(t, string(release.Spec.Values.Raw))
	require.NotEmpty(t, own)
}

// Argo CD's own type takes half of Kubernetes with it; only what the page says of the chart is checked.
func TestTheValuesOfThePagesApplicationCleanAlsoAfterPersistenceIsOff(t *testing.T) {
	t.Parallel()
	var application unstructured.Unstructured
	require.NoError(t, yaml.UnmarshalStrict([]byte(page(t)["Application"]), &application.Object))
	values, found, err := unstructured.NestedMap(application.Object, "spec", "source", "helm", "valuesObject")
	require.NoError(t, err)
	require.True(t, found)
	off := func(values map[string]any) []*unstructured.Unstructured {
		values["persist"] = map[string]any{"enabled": false}
		raw, err := yaml.Marshal(values)
		require.NoError(t, err)
		_, hooks := objects(t, string(raw))
		return hooks
	}
	named(t, "DaemonSet", off(values))
	delete(values, "uninstall")
	require.Empty(t, off(values), "the value would not be needed")
}
