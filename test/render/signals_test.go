package render

import (
	"slices"
	"testing"

	securityv1 "github.com/openshift/api/security/v1"
	"github.com/stretchr/testify/require"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"

	"github.com/istio-os-init/istio-os-init/test/internal/chart"
)

const (
	condition = "{signals: {nodeCondition: {enabled: true}}}"
	taint     = "{signals: {startupTaint: {remove: true}}}"
	both      = "{signals: {nodeCondition: {enabled: true}, startupTaint: {remove: true}}}"
)

func TestNothingIsSignalledUnlessAskedFor(t *testing.T) {
	t.Parallel()
	objects := chart.Render(t, "", "--api-versions", "monitoring.coreos.com/v1", "--api-versions", "readiness.node.x-k8s.io/v1alpha1")
	require.Empty(t, objects.ClusterRoles)
	require.Empty(t, objects.ClusterRoleBindings)
	require.Empty(t, objects.Policies)
	require.Empty(t, objects.PolicyBindings)
	require.Empty(t, objects.NodeReadinessRules)
	require.Empty(t, objects.PrometheusRules)
	require.Empty(t, tokens(objects.Pod(t)))
}

// A failed verify keeps every later container from starting: who reports it has to run before, and go on running.
func TestSignalIsASidecarThatStartsBeforeAllOthers(t *testing.T) {
	t.Parallel()
	for _, values := range []string{condition, taint, both} {
		first := chart.Render(t, values).Pod(t).InitContainers[0]
		require.Equal(t, "signal", first.Name)
		require.Equal(t, corev1.ContainerRestartPolicyAlways, *first.RestartPolicy)
		require.Empty(t, first.RestartPolicyRules)
	}
}

func TestOnlySignalHasATokenAndItExpires(t *testing.T) {
	t.Parallel()
	for _, values := range []string{condition, taint, "{repair: {enabled: false}, signals: {nodeCondition: {enabled: true}}}"} {
		objects := chart.Render(t, values)
		pod := objects.Pod(t)
		require.False(t, *pod.AutomountServiceAccountToken)
		require.False(t, *objects.ServiceAccounts[0].AutomountServiceAccountToken)
		require.Len(t, tokens(pod), 1)
		sources := tokens(pod)[0].Projected.Sources
		require.Len(t, sources, 2)
		require.Equal(t, &corev1.ServiceAccountTokenProjection{Path: "token", ExpirationSeconds: new(int64(3600))}, sources[0].ServiceAccountToken)
		require.Equal(t, "kube-root-ca.crt", sources[1].ConfigMap.Name)
		for _, container := range append(pod.InitContainers, pod.Containers...) {
			for _, mount := range container.VolumeMounts {
				require.True(t, mount.Name != tokens(pod)[0].Name || container.Name == "signal", "%s has the token", container.Name)
			}
			if container.Name != "signal" {
				require.NotEqual(t, objects.Container(t, "signal").SecurityContext.RunAsUser, container.SecurityContext.RunAsUser, "%s could read its memory and files", container.Name)
			}
		}
	}
}

func TestSignalHasTheRightsOfWhatIsSwitchedOnAndNoMore(t *testing.T) {
	t.Parallel()
	status := rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"nodes/status"}, Verbs: []string{"patch"}}
	nodes := rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"nodes"}, Verbs: []string{"get", "patch"}}
	for values, rules := range map[string][]rbacv1.PolicyRule{condition: {status}, taint: {nodes}, both: {status, nodes}} {
		objects := chart.Render(t, values)
		require.Len(t, objects.ClusterRoles, 1)
		require.Equal(t, "istio-os-init-istio-system", objects.ClusterRoles[0].Name, "two releases must not share it")
		require.Equal(t, rules, objects.ClusterRoles[0].Rules)
		require.Len(t, objects.ClusterRoleBindings, 1)
		require.Equal(t, rbacv1.RoleRef{APIGroup: "rbac.authorization.k8s.io", Kind: "ClusterRole", Name: objects.ClusterRoles[0].Name}, objects.ClusterRoleBindings[0].RoleRef)
		require.Equal(t, []rbacv1.Subject{{Kind: "ServiceAccount", Name: objects.Pod(t).ServiceAccountName, Namespace: chart.Namespace}}, objects.ClusterRoleBindings[0].Subjects)
		require.Empty(t, objects.Roles)
	}
}

// What the policy's expressions do is for a real API server to say: test/cluster.
func TestEveryRightOnNodesIsUnderAPolicyThatFailsClosed(t *testing.T) {
	t.Parallel()
	objects := chart.Render(t, both)
	for account, under := range map[string]*chart.Objects{"istio-os-init": &objects, "istio-os-init-clean-up": objects.Hooks} {
		require.Len(t, under.Policies, 1, account)
		policy, binding := under.Policies[0], under.PolicyBindings[0]
		require.Equal(t, admissionv1.Fail, *policy.Spec.FailurePolicy)
		require.Equal(t, []string{"nodes", "nodes/status"}, policy.Spec.MatchConstraints.ResourceRules[0].Resources)
		require.Len(t, policy.Spec.MatchConditions, 1)
		require.Equal(t, `request.userInfo.username == "system:serviceaccount:istio-system:`+account+`"`, policy.Spec.MatchConditions[0].Expression)
		own := slices.ContainsFunc(policy.Spec.Validations, func(v admissionv1.Validation) bool {
			return v.Message == "may change only the node that its pod runs on"
		})
		require.Equal(t, account == "istio-os-init", own, "uninstall changes every node, a pod its own")
		require.Equal(t, policy.Name, binding.Spec.PolicyName)
		require.Equal(t, []admissionv1.ValidationAction{admissionv1.Deny}, binding.Spec.ValidationActions)
		require.Nil(t, binding.Spec.MatchResources)
		require.Equal(t, "ServiceAccount", under.ClusterRoleBindings[0].Subjects[0].Kind)
		require.Equal(t, account, under.ClusterRoleBindings[0].Subjects[0].Name)
	}
}

func TestUninstallMayRemoveConditionsAndNothingElseOfANode(t *testing.T) {
	t.Parallel()
	objects := chart.Render(t, condition)
	hooks := objects.Hooks
	require.Equal(t, []rbacv1.PolicyRule{
		{APIGroups: []string{""}, Resources: []string{"nodes"}, Verbs: []string{"list"}},
		{APIGroups: []string{""}, Resources: []string{"nodes/status"}, Verbs: []string{"patch"}},
		{APIGroups: []string{"rbac.authorization.k8s.io"}, Resources: []string{"clusterrolebindings"}, ResourceNames: []string{objects.ClusterRoleBindings[0].Name}, Verbs: []string{"delete"}},
	}, hooks.ClusterRoles[0].Rules)
	require.Equal(t, objects.ClusterRoleBindings[0].Name, env(hooks.Uninstaller(t))["ISTIO_OS_INIT_BINDING"])
	require.Equal(t, "istio-os-init-istio-system-clean-up", hooks.ClusterRoles[0].Name, "two releases must not share it")
	require.Equal(t, env(objects.Container(t, "signal"))["ISTIO_OS_INIT_OWNER"], env(hooks.Uninstaller(t))["ISTIO_OS_INIT_OWNER"],
		"it looks for another writer's condition")
}

// Before 1.30 there is no policy that keeps a pod to its own node; a sidecar came with 1.29.
func TestSignalsAreRefusedWhereKubernetesHasNotWhatTheyNeed(t *testing.T) {
	t.Parallel()
	for _, values := range []string{condition, taint} {
		_, err := chart.Manifest(t, chart.Path(), []string{chart.ValuesFile(t, values)}, "--kube-version", "1.29.9")
		require.ErrorContains(t, err, "signals.nodeCondition and signals.startupTaint need Kubernetes 1.30 or later, and this is v1.29.9: allowed is to leave them off.")
		require.ErrorContains(t, err, "or upgrade the cluster.")
		require.NotEmpty(t, chart.Render(t, values, "--kube-version", "1.30.0").Policies)
	}
	require.NotEmpty(t, chart.Render(t, "signals: {prometheusRule: {enabled: true, force: true}}", "--kube-version", "1.25.0").PrometheusRules)
}

func TestTheTaintIsTheOneThatTheUserNamesAndSafeForTheAutoscalerByDefault(t *testing.T) {
	t.Parallel()
	require.NotContains(t, env(chart.Render(t, condition).Container(t, "signal")), "ISTIO_OS_INIT_TAINT")
	require.Equal(t, "startup-taint.cluster-autoscaler.kubernetes.io/istio-os-init", env(chart.Render(t, taint).Container(t, "signal"))["ISTIO_OS_INIT_TAINT"])
	objects := chart.Render(t, "signals: {startupTaint: {remove: true, key: example.com/mesh}}")
	require.Equal(t, "example.com/mesh", env(objects.Container(t, "signal"))["ISTIO_OS_INIT_TAINT"])
	expressions := ""
	for _, validation := range objects.Policies[0].Spec.Validations {
		expressions += validation.Expression
	}
	require.Contains(t, expressions, `t.key != "example.com/mesh"`)
}

func TestTheReadinessRuleAsksForTheConditionOnTheNodesThatGetAPod(t *testing.T) {
	t.Parallel()
	objects := chart.Render(t, "{signals: {nodeCondition: {enabled: true}, nodeReadinessRule: {enabled: true}}, nodes: {preset: openshift}, nodeSelector: {pool: mesh}}")
	require.Len(t, objects.NodeReadinessRules, 1)
	rule := objects.NodeReadinessRules[0]
	require.Equal(t, "istio-os-init-istio-system", rule.Name)
	require.Len(t, rule.Spec.Conditions, 1)
	require.Equal(t, "IstioReady", rule.Spec.Conditions[0].Type)
	require.Equal(t, corev1.ConditionTrue, rule.Spec.Conditions[0].RequiredStatus)
	require.Equal(t, corev1.Taint{Key: "readiness.k8s.io/istio-os-init", Effect: corev1.TaintEffectNoSchedule}, rule.Spec.Taint)
	require.Equal(t, "bootstrap-only", rule.Spec.EnforcementMode)
	require.Equal(t, objects.Pod(t).NodeSelector, rule.Spec.NodeSelector.MatchLabels)
	require.Len(t, rule.Spec.NodeSelector.MatchExpressions, 3)
	for i, expression := range nodeTerms(objects.Pod(t))[0].MatchExpressions {
		require.Equal(t, expression.Key, rule.Spec.NodeSelector.MatchExpressions[i].Key)
		require.EqualValues(t, expression.Operator, rule.Spec.NodeSelector.MatchExpressions[i].Operator)
		require.Equal(t, expression.Values, rule.Spec.NodeSelector.MatchExpressions[i].Values)
	}
}

// What deny-all and OpenShift's admission would take from who speaks to the API server.
func TestSignalsWorkUnderThePlatformsRestrictions(t *testing.T) {
	t.Parallel()
	objects := chart.Render(t, "{global: {platform: openshift, networkPolicy: {enabled: true}}, signals: {nodeCondition: {enabled: true}}}")
	require.Contains(t, objects.SCCs[0].Volumes, securityv1.FSProjected)
	require.Equal(t, corev1.ProtocolTCP, *objects.NetworkPolicies[0].Spec.Egress[0].Ports[0].Protocol)
	require.Empty(t, objects.NetworkPolicies[0].Spec.Ingress)

	hooks := chart.Render(t, "{persist: {enabled: false}, global: {platform: openshift, networkPolicy: {enabled: true}}, signals: {nodeCondition: {enabled: true}}}").Hooks
	pod := hooks.Job(t).Spec.Template
	require.False(t, hooks.SCCs[0].AllowHostDirVolumePlugin, "there is nothing to clean on nodes")
	require.Equal(t, []securityv1.FSType{securityv1.FSTypeConfigMap, securityv1.FSProjected}, hooks.SCCs[0].Volumes)
	require.Subset(t, pod.Labels, hooks.NetworkPolicies[0].Spec.PodSelector.MatchLabels)
	require.Len(t, hooks.NetworkPolicies[0].Spec.Egress, 1)

	without := chart.Render(t, "global: {platform: openshift, networkPolicy: {enabled: true}}")
	require.NotContains(t, without.SCCs[0].Volumes, securityv1.FSProjected)
	require.Empty(t, without.NetworkPolicies[0].Spec.Egress)
}
