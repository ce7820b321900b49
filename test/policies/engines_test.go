package policies

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/rego"
	"github.com/stretchr/testify/require"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/admission/plugin/cel"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
	"k8s.io/apiserver/pkg/cel/environment"
	"k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"
	"sigs.k8s.io/yaml"

	celtypes "github.com/google/cel-go/cel"

	"github.com/istio-os-init/istio-os-init/test/internal/chart"
)

// engine judges a pod by a set of policies. What it returns are the names of those that the pod violates.
type engine func(t *testing.T, pod *corev1.Pod) []string

// podSecurity is Kubernetes' own evaluator of the Pod Security Standards, baseline and restricted. It names a policy by what it finds.
func podSecurity(t *testing.T) engine {
	t.Helper()
	evaluator, err := policy.NewEvaluator(policy.DefaultChecks(), nil)
	require.NoError(t, err)
	return func(_ *testing.T, pod *corev1.Pod) (violated []string) {
		for _, level := range []api.Level{api.LevelBaseline, api.LevelRestricted} {
			for _, result := range evaluator.EvaluatePod(api.LevelVersion{Level: level, Version: api.LatestVersion()}, &pod.ObjectMeta, &pod.Spec) {
				if !result.Allowed {
					violated = append(violated, result.ForbiddenReason)
				}
			}
		}
		slices.Sort(violated)
		return slices.Compact(violated) // restricted contains baseline
	}
}

// expression is one of CEL.
type expression struct {
	name, text string
	returns    []*celtypes.Type
}

func (e expression) GetExpression() string         { return e.text }
func (e expression) ReturnTypes() []*celtypes.Type { return e.returns }
func (e expression) GetName() string               { return e.name }

// kyvernoChart is the chart of Kyverno's pod security policies, of the release that ci/policies/kyverno pins.
func kyvernoChart(t *testing.T) string {
	t.Helper()
	dir, err := chart.ModuleDir(t.Context(), filepath.Join(chart.Root(), "ci", "policies", "kyverno"), "github.com/kyverno/kyverno")
	require.NoError(t, err)
	manifest, err := chart.Manifest(t, filepath.Join(dir, "charts", "kyverno-policies"), []string{chart.ValuesFile(t, "podSecurityStandard: restricted\nincludeOtherPolicies: [require-non-root-groups]\n")})
	require.NoError(t, err)
	return manifest
}

// kyverno runs policies of kind ValidatingPolicy by Kubernetes' own evaluator of CEL, as Kyverno does.
func kyverno(t *testing.T, manifests ...string) engine {
	t.Helper()
	conditions := map[string]cel.ConditionEvaluator{}
	for _, document := range strings.Split(strings.Join(manifests, "\n---\n"), "\n---\n") {
		var validating struct {
			Kind     string
			Metadata metav1.ObjectMeta
			Spec     admissionregistrationv1.ValidatingAdmissionPolicySpec
		}
		require.NoError(t, yaml.Unmarshal([]byte(document), &validating))
		if validating.Kind == "" { // comments
			continue
		}
		name := validating.Metadata.Name
		require.Equal(t, "ValidatingPolicy", validating.Kind, name)
		require.Contains(t, validating.Spec.MatchConstraints.ResourceRules[0].Resources, "pods", name)
		require.Empty(t, validating.Spec.MatchConditions, "%s: this test knows none", name)
		compiler, err := cel.NewCompositedCompiler(environment.MustBaseEnvSet(environment.DefaultCompatibilityVersion()))
		require.NoError(t, err)
		for _, variable := range validating.Spec.Variables {
			compiler.CompileAndStoreVariable(expression{variable.Name, variable.Expression, []*celtypes.Type{celtypes.AnyType}}, cel.OptionalVariableDeclarations{}, environment.StoredExpressions)
		}
		var expressions []cel.ExpressionAccessor
		for _, validation := range validating.Spec.Validations {
			expressions = append(expressions, expression{text: validation.Expression, returns: []*celtypes.Type{celtypes.BoolType}})
		}
		condition := compiler.CompileCondition(expressions, cel.OptionalVariableDeclarations{}, environment.StoredExpressions)
		require.Empty(t, condition.CompilationErrors(), name)
		require.NotContains(t, conditions, name, "twice")
		conditions[name] = condition
	}
	return func(t *testing.T, pod *corev1.Pod) (violated []string) {
		kind, resource := corev1.SchemeGroupVersion.WithKind("Pod"), corev1.SchemeGroupVersion.WithResource("pods")
		attributes := admission.NewAttributesRecord(pod, nil, kind, pod.Namespace, pod.Name, resource, "", admission.Create, nil, false, nil)
		versioned := &admission.VersionedAttributes{Attributes: attributes, VersionedObject: admission.NewLazyObject(pod), VersionedKind: kind}
		request := cel.CreateAdmissionRequest(attributes, metav1.GroupVersionResource(resource), metav1.GroupVersionKind(kind))
		for name, condition := range conditions {
			results, _, err := condition.ForInput(t.Context(), versioned, request, cel.OptionalVariableBindings{}, nil, celconfig.RuntimeCELCostBudget)
			require.NoError(t, err, name)
			for _, result := range results {
				require.NoError(t, result.Error, name)
				if result.EvalResult.Value() != true {
					violated = append(violated, name)
					break
				}
			}
		}
		return violated
	}
}

// gatekeeper runs templates of Gatekeeper's library by its own engine. Constraints are "TEMPLATE: PARAMETERS", by the name of the file.
func gatekeeper(t *testing.T, constraints string) engine {
	t.Helper()
	var parameters map[string]map[string]any
	require.NoError(t, yaml.Unmarshal([]byte(constraints), &parameters))
	library := func(name string) string {
		text, err := os.ReadFile(filepath.Join("testdata", "gatekeeper", name+".rego"))
		require.NoError(t, err)
		return string(text)
	}
	type template struct {
		query      rego.PreparedEvalQuery
		parameters map[string]any
	}
	templates := map[string]template{}
	for name, given := range parameters {
		text := library(name)
		title, _, _ := strings.Cut(strings.TrimPrefix(text, "package "), "\n")
		query, err := rego.New(rego.Query("data."+title+".violation[_].msg"), rego.SetRegoVersion(ast.RegoV0), rego.Module(name, text),
			rego.Module("update", library("lib_exclude_update")), rego.Module("exempt", library("lib_exempt_container"))).PrepareForEval(t.Context())
		require.NoError(t, err, name)
		templates[title] = template{query, given}
	}
	return func(t *testing.T, pod *corev1.Pod) (violated []string) {
		object, err := runtime.DefaultUnstructuredConverter.ToUnstructured(pod)
		require.NoError(t, err)
		for title, template := range templates {
			results, err := template.query.Eval(t.Context(), rego.EvalInput(map[string]any{
				"parameters": template.parameters,
				"review":     map[string]any{"operation": "CREATE", "kind": map[string]any{"kind": "Pod"}, "object": object},
			}))
			require.NoError(t, err, title)
			if len(results) > 0 {
				violated = append(violated, title)
			}
		}
		return violated
	}
}
