package render

import (
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"

	"github.com/istio-os-init/istio-os-init/test/internal/chart"
)

func TestOnRequestNoPodTalksToAnybodyButUninstallToTheAPIServer(t *testing.T) {
	t.Parallel()
	require.Empty(t, chart.Render(t, "").NetworkPolicies)
	require.Empty(t, chart.Render(t, "").Hooks.NetworkPolicies)
	require.Empty(t, chart.Render(t, "global: {networkPolicy: {enabled: false}}").NetworkPolicies)

	objects := chart.Render(t, "global: {networkPolicy: {enabled: true}}")
	require.Len(t, objects.NetworkPolicies, 1)
	require.Len(t, objects.Hooks.NetworkPolicies, 2)
	both := []networkingv1.PolicyType{networkingv1.PolicyTypeIngress, networkingv1.PolicyTypeEgress}
	for _, row := range []struct {
		name   string
		policy networkingv1.NetworkPolicy
		pods   corev1.PodTemplateSpec
		egress []networkingv1.NetworkPolicyEgressRule
	}{
		{"release", objects.NetworkPolicies[0], objects.DaemonSet(t).Spec.Template, nil},
		{"clean-up", objects.Hooks.NetworkPolicies[0], objects.Hooks.DaemonSet(t).Spec.Template, nil},
		{"uninstall", objects.Hooks.NetworkPolicies[1], objects.Hooks.Job(t).Spec.Template, []networkingv1.NetworkPolicyEgressRule{
			{Ports: []networkingv1.NetworkPolicyPort{{Protocol: new(corev1.ProtocolTCP)}}},
		}},
	} {
		require.Equal(t, chart.Namespace, row.policy.Namespace, row.name)
		require.Equal(t, both, row.policy.Spec.PolicyTypes, row.name)
		require.Empty(t, row.policy.Spec.Ingress, row.name)
		require.Equal(t, row.egress, row.policy.Spec.Egress, row.name)
		require.Empty(t, row.policy.Spec.PodSelector.MatchExpressions, row.name)
		require.Len(t, row.policy.Spec.PodSelector.MatchLabels, 2, "%s: an empty selector is the whole namespace", row.name)
		require.Subset(t, row.pods.Labels, row.policy.Spec.PodSelector.MatchLabels, row.name)
	}
}

func TestAQuotaAdmitsThePriorityClassWhereThePlatformAsksForOne(t *testing.T) {
	t.Parallel()
	for _, row := range []struct{ name, values, class string }{
		{"elsewhere", "", ""},
		{"another platform", "global: {platform: openshift}", ""},
		{"GKE", "global: {platform: gke}", "system-node-critical"},
		{"on request", "resourceQuotas: {enabled: true}", "system-node-critical"},
		{"another class of the system's", "{global: {platform: gke}, priorityClassName: system-cluster-critical}", "system-cluster-critical"},
		{"a class of one's own", "{global: {platform: gke}, priorityClassName: mesh}", ""},
		{"no class", "{global: {platform: gke}, priorityClassName: \"\"}", ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			objects := chart.Render(t, row.values)
			require.Empty(t, objects.Hooks.ResourceQuotas, "Helm deletes the release's own only after the hooks")
			if row.class == "" {
				require.Empty(t, objects.ResourceQuotas)
				return
			}
			require.Len(t, objects.ResourceQuotas, 1)
			quota := objects.ResourceQuotas[0]
			require.Equal(t, chart.Namespace, quota.Namespace)
			pods := quota.Spec.Hard[corev1.ResourcePods]
			require.Len(t, quota.Spec.Hard, 1)
			require.EqualValues(t, 5000, pods.Value())
			require.Equal(t, []corev1.ScopedResourceSelectorRequirement{{
				ScopeName: corev1.ResourceQuotaScopePriorityClass, Operator: corev1.ScopeSelectorOpIn, Values: []string{row.class},
			}}, quota.Spec.ScopeSelector.MatchExpressions)
		})
	}
}
