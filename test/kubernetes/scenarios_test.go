package kubernetes

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
	"sigs.k8s.io/yaml"

	"github.com/istio-os-init/istio-os-init/test/internal/chart"
)

// others are the kinds of other projects, which no API server here serves; chart.Decode checks them.
var others = map[string]bool{"security.openshift.io": true, "monitoring.coreos.com": true, "readiness.node.x-k8s.io": true}

func TestTheAPIServerTakesEveryScenarioStrictly(t *testing.T) {
	t.Parallel()
	p := start(t)
	const namespace = "scenarios"
	p.Namespace(t, namespace, nil)
	taken, refused := 0, 0
	for _, scenario := range chart.Scenarios(t) {
		manifest, err := chart.Manifest(t, chart.Path(), []string{chart.Scenario(scenario)}, "--kube-version", p.Version, "--namespace", namespace)
		if scenario == "signals" && !p.Policies() {
			require.ErrorContains(t, err, "need Kubernetes 1.30 or later, and this is v"+p.Version)
			refused++
			continue
		}
		require.NoError(t, err, scenario)
		require.NoError(t, p.create(t, manifest), scenario)
		taken++
	}
	cell := fmt.Sprintf("%d of %d", taken, taken+refused)
	if refused > 0 {
		cell += "; the chart refuses signals"
	}
	proven.Store("scenarios", cell)
}

// The control.
func TestTheAPIServerRefusesAFieldThatItDoesNotKnow(t *testing.T) {
	t.Parallel()
	p := start(t)
	p.Namespace(t, "unknown-field", nil)
	manifest, err := chart.Manifest(t, chart.Path(), nil, "--kube-version", p.Version, "--namespace", "unknown-field")
	require.NoError(t, err)
	with := strings.Replace(manifest, "hostNetwork: false\n", "hostNetwork: false\n      nothingLikeIt: true\n", 1)
	require.NotEqual(t, manifest, with)
	require.NoError(t, p.create(t, manifest))
	require.ErrorContains(t, p.create(t, with), `unknown field "spec.template.spec.nothingLikeIt"`)
}

// warnings are those of an API server.
type warnings []string

func (w *warnings) HandleWarningHeader(_ int, _, text string) { *w = append(*w, text) }

// create asks the API server, by dry run with strict validation, to create a manifest's objects. A warning is an error.
func (p plane) create(t *testing.T, manifest string) error {
	t.Helper()
	var warned warnings
	config := rest.CopyConfig(p.Config)
	config.WarningHandler = &warned
	client, err := dynamic.NewForConfig(config)
	require.NoError(t, err)
	kinds := restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(p.Client.Discovery()))
	created := 0
	for document := range strings.SplitSeq("\n"+manifest, "\n---\n") {
		object := &unstructured.Unstructured{}
		if err := yaml.Unmarshal([]byte(document), &object.Object); err != nil {
			return err
		}
		kind := object.GroupVersionKind()
		if kind.Kind == "" || others[kind.Group] {
			continue
		}
		mapping, err := kinds.RESTMapping(kind.GroupKind(), kind.Version)
		if err != nil {
			return err
		}
		resource := dynamic.ResourceInterface(client.Resource(mapping.Resource))
		if mapping.Scope.Name() == meta.RESTScopeNameNamespace {
			resource = client.Resource(mapping.Resource).Namespace(object.GetNamespace())
		}
		if kind.Kind == "Pod" {
			// Admission refuses a pod without it.
			name, _, _ := unstructured.NestedString(object.Object, "spec", "serviceAccountName")
			account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: name}}
			if _, err := p.Client.CoreV1().ServiceAccounts(object.GetNamespace()).Create(t.Context(), account, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
				return err
			}
		}
		_, err = resource.Create(t.Context(), object, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}, FieldValidation: metav1.FieldValidationStrict})
		// Which the API server says last, of an object that it would take.
		if err != nil && !(kind.Kind == "ServiceAccount" && apierrors.IsAlreadyExists(err)) {
			return err
		}
		created++
	}
	require.NotZero(t, created)
	if len(warned) > 0 {
		return fmt.Errorf("the API server warns: %s", strings.Join(warned, "; "))
	}
	return nil
}
