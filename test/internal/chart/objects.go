package chart

import (
	"os"
	"strings"
	"testing"

	securityv1 "github.com/openshift/api/security/v1"
	monitoringv1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	"github.com/stretchr/testify/require"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/json"
	"sigs.k8s.io/yaml"
)

// Objects are the chart's objects, strictly decoded: an unknown or repeated key fails the test.
type Objects struct {
	DaemonSets      []appsv1.DaemonSet
	ConfigMaps      []corev1.ConfigMap
	ServiceAccounts []corev1.ServiceAccount
	Roles           []rbacv1.Role
	RoleBindings    []rbacv1.RoleBinding
	Jobs            []batchv1.Job
	NetworkPolicies []networkingv1.NetworkPolicy            `json:",omitempty"`
	ResourceQuotas  []corev1.ResourceQuota                  `json:",omitempty"`
	SCCs            []securityv1.SecurityContextConstraints `json:",omitempty"`

	ClusterRoles        []rbacv1.ClusterRole                           `json:",omitempty"`
	ClusterRoleBindings []rbacv1.ClusterRoleBinding                    `json:",omitempty"`
	Policies            []admissionv1.ValidatingAdmissionPolicy        `json:",omitempty"`
	PolicyBindings      []admissionv1.ValidatingAdmissionPolicyBinding `json:",omitempty"`
	NodeReadinessRules  []NodeReadinessRule                            `json:",omitempty"`
	PrometheusRules     []monitoringv1.PrometheusRule                  `json:",omitempty"`
	// Hooks are the objects that Helm makes at an event of the release and that are no part of it; nil where there are none.
	Hooks *Objects
	// Tests are the pods of `helm test`, which are no part of it either.
	Tests []corev1.Pod
}

// NodeReadinessRule is what kubernetes-sigs/node-readiness-controller's CRD allows in v1alpha1, as far as a chart may write it. Its
// module cannot be had from the Go proxy.
type NodeReadinessRule struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	Spec              struct {
		Conditions []struct {
			Type           string                 `json:"type"`
			RequiredStatus corev1.ConditionStatus `json:"requiredStatus"`
		} `json:"conditions"`
		EnforcementMode string               `json:"enforcementMode,omitempty"`
		Taint           corev1.Taint         `json:"taint"`
		NodeSelector    metav1.LabelSelector `json:"nodeSelector"`
		DryRun          bool                 `json:"dryRun,omitempty"`
	} `json:"spec"`
}

// Decode decodes a manifest. A kind that Objects does not have fails the test: nothing may be rendered unseen.
func Decode(t *testing.T, manifest string) Objects {
	t.Helper()
	var objects Objects
	for document := range strings.SplitSeq("\n"+manifest, "\n---\n") {
		if strings.TrimSpace(document) == "" {
			continue
		}
		var head metav1.PartialObjectMetadata
		require.NoError(t, yaml.Unmarshal([]byte(document), &head))
		into := &objects
		if event, hook := head.Annotations["helm.sh/hook"]; hook && event != "test" {
			if objects.Hooks == nil {
				objects.Hooks = &Objects{}
			}
			into = objects.Hooks
		}
		switch head.APIVersion + "/" + head.Kind {
		case "apps/v1/DaemonSet":
			into.DaemonSets = append(into.DaemonSets, DecodeStrict[appsv1.DaemonSet](t, document))
		case "v1/ConfigMap":
			into.ConfigMaps = append(into.ConfigMaps, DecodeStrict[corev1.ConfigMap](t, document))
		case "v1/ServiceAccount":
			into.ServiceAccounts = append(into.ServiceAccounts, DecodeStrict[corev1.ServiceAccount](t, document))
		case "rbac.authorization.k8s.io/v1/Role":
			into.Roles = append(into.Roles, DecodeStrict[rbacv1.Role](t, document))
		case "rbac.authorization.k8s.io/v1/RoleBinding":
			into.RoleBindings = append(into.RoleBindings, DecodeStrict[rbacv1.RoleBinding](t, document))
		case "batch/v1/Job":
			into.Jobs = append(into.Jobs, DecodeStrict[batchv1.Job](t, document))
		case "networking.k8s.io/v1/NetworkPolicy":
			into.NetworkPolicies = append(into.NetworkPolicies, DecodeStrict[networkingv1.NetworkPolicy](t, document))
		case "v1/ResourceQuota":
			into.ResourceQuotas = append(into.ResourceQuotas, DecodeStrict[corev1.ResourceQuota](t, document))
		case "security.openshift.io/v1/SecurityContextConstraints":
			into.SCCs = append(into.SCCs, DecodeStrict[securityv1.SecurityContextConstraints](t, document))
		case "rbac.authorization.k8s.io/v1/ClusterRole":
			into.ClusterRoles = append(into.ClusterRoles, DecodeStrict[rbacv1.ClusterRole](t, document))
		case "rbac.authorization.k8s.io/v1/ClusterRoleBinding":
			into.ClusterRoleBindings = append(into.ClusterRoleBindings, DecodeStrict[rbacv1.ClusterRoleBinding](t, document))
		case "admissionregistration.k8s.io/v1/ValidatingAdmissionPolicy":
			into.Policies = append(into.Policies, DecodeStrict[admissionv1.ValidatingAdmissionPolicy](t, document))
		case "admissionregistration.k8s.io/v1/ValidatingAdmissionPolicyBinding":
			into.PolicyBindings = append(into.PolicyBindings, DecodeStrict[admissionv1.ValidatingAdmissionPolicyBinding](t, document))
		case "readiness.node.x-k8s.io/v1alpha1/NodeReadinessRule":
			into.NodeReadinessRules = append(into.NodeReadinessRules, DecodeStrict[NodeReadinessRule](t, document))
		case "monitoring.coreos.com/v1/PrometheusRule":
			into.PrometheusRules = append(into.PrometheusRules, DecodeStrict[monitoringv1.PrometheusRule](t, document))
		case "v1/Pod":
			require.Equal(t, "test", head.Annotations["helm.sh/hook"], "a pod that nothing manages")
			into.Tests = append(into.Tests, DecodeStrict[corev1.Pod](t, document))
		default:
			require.Failf(t, "unexpected object", "%s/%s in:\n%s", head.APIVersion, head.Kind, document)
		}
	}
	return objects
}

// DaemonSet returns the only DaemonSet.
func (o Objects) DaemonSet(t *testing.T) appsv1.DaemonSet {
	t.Helper()
	require.Len(t, o.DaemonSets, 1)
	return o.DaemonSets[0]
}

// ConfigMap returns the only ConfigMap.
func (o Objects) ConfigMap(t *testing.T) corev1.ConfigMap {
	t.Helper()
	require.Len(t, o.ConfigMaps, 1)
	return o.ConfigMaps[0]
}

// Job returns the only Job.
func (o Objects) Job(t *testing.T) batchv1.Job {
	t.Helper()
	require.Len(t, o.Jobs, 1)
	return o.Jobs[0]
}

// Uninstaller returns the container of the only Job.
func (o Objects) Uninstaller(t *testing.T) corev1.Container {
	t.Helper()
	job := o.Job(t)
	return *ContainerOf(t, &job.Spec.Template.Spec, "uninstall")
}

// TestContainer returns the container of `helm test`'s only pod.
func (o Objects) TestContainer(t *testing.T) corev1.Container {
	t.Helper()
	pod := o.Test(t)
	return *ContainerOf(t, &pod.Spec, "verify")
}

// Test returns the only pod of `helm test`.
func (o Objects) Test(t *testing.T) corev1.Pod {
	t.Helper()
	require.Len(t, o.Tests, 1)
	return o.Tests[0]
}

// Pod returns the spec of the DaemonSet's pods.
func (o Objects) Pod(t *testing.T) corev1.PodSpec {
	t.Helper()
	return o.DaemonSet(t).Spec.Template.Spec
}

// Container returns a container or init container of the pods by its name.
func (o Objects) Container(t *testing.T, name string) corev1.Container {
	t.Helper()
	pod := o.Pod(t)
	return *ContainerOf(t, &pod, name)
}

// ContainerOf returns a container or init container of a pod by its name, for tests that change it.
func ContainerOf(t *testing.T, pod *corev1.PodSpec, name string) *corev1.Container {
	t.Helper()
	for _, containers := range [][]corev1.Container{pod.InitContainers, pod.Containers} {
		for i := range containers {
			if containers[i].Name == name {
				return &containers[i]
			}
		}
	}
	require.Failf(t, "no such container", "%q is not among the pod's containers", name)
	return nil
}

// Plan returns the plan's entries, without comments, in their order.
func (o Objects) Plan(t *testing.T) []string {
	t.Helper()
	var entries []string
	for line := range strings.Lines(o.ConfigMap(t).Data["plan"]) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			entries = append(entries, line)
		}
	}
	return entries
}

// DecodeStrict decodes one object; an unknown or repeated key fails the test, and so does one whose case is wrong.
func DecodeStrict[T any](t *testing.T, document string) T {
	t.Helper()
	var object T
	raw, err := yaml.YAMLToJSONStrict([]byte(document))
	require.NoError(t, err, "in:\n%s", document)
	strict, err := json.UnmarshalStrict(raw, &object)
	require.NoError(t, err, "in:\n%s", document)
	require.Empty(t, strict, "in:\n%s", document)
	return object
}

func read(t *testing.T, file string, into any) {
	t.Helper()
	content, err := os.ReadFile(file)
	require.NoError(t, err)
	require.NoError(t, yaml.Unmarshal(content, into), file)
}
