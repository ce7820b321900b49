package render

import (
	"maps"
	"slices"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/istio-os-init/istio-os-init/test/internal/chart"
)

// hookMetadata returns the metadata of every hook, by kind.
func hookMetadata(t *testing.T, objects chart.Objects) map[string]metav1.ObjectMeta {
	t.Helper()
	hooks := objects.Hooks
	require.NotNil(t, hooks, "there is no hook")
	require.Len(t, hooks.ServiceAccounts, 1)
	require.Len(t, hooks.Roles, 1)
	require.Len(t, hooks.RoleBindings, 1)
	metadata := map[string]metav1.ObjectMeta{
		"ServiceAccount": hooks.ServiceAccounts[0].ObjectMeta,
		"ConfigMap":      hooks.ConfigMap(t).ObjectMeta,
		"Role":           hooks.Roles[0].ObjectMeta,
		"RoleBinding":    hooks.RoleBindings[0].ObjectMeta,
		"DaemonSet":      hooks.DaemonSet(t).ObjectMeta,
		"Job":            hooks.Job(t).ObjectMeta,
	}
	for _, scc := range hooks.SCCs {
		metadata["SecurityContextConstraints"] = scc.ObjectMeta
	}
	for _, quota := range hooks.ResourceQuotas {
		metadata["ResourceQuota"] = quota.ObjectMeta
	}
	for i, policy := range hooks.NetworkPolicies {
		metadata["NetworkPolicy "+strconv.Itoa(i)] = policy.ObjectMeta
	}
	return metadata
}

func TestUninstallMakesItsObjectsInOrderAndLeavesNone(t *testing.T) {
	t.Parallel()
	forEveryScenario(t, func(t *testing.T, objects chart.Objects) {
		if objects.Hooks == nil {
			return // of the scenarios that need none there is a test of its own
		}
		weight := map[string]int{}
		for kind, metadata := range hookMetadata(t, objects) {
			if kind == "SecurityContextConstraints" {
				require.Empty(t, metadata.Namespace, "it is the cluster's")
			} else {
				require.Regexp(t, "^"+objects.DaemonSet(t).Name+"-clean-up(-wait)?$", metadata.Name, kind)
				require.Equal(t, chart.Namespace, metadata.Namespace, kind)
			}
			require.Equal(t, chart.Release, metadata.Labels["app.kubernetes.io/instance"], kind)
			require.Equal(t, "post-delete", metadata.Annotations["helm.sh/hook"], kind)
			// Helm would keep what fails, and trip over it at the next uninstall
			require.Equal(t, "before-hook-creation,hook-succeeded,hook-failed", metadata.Annotations["helm.sh/hook-delete-policy"], kind)
			var err error
			weight[kind], err = strconv.Atoi(metadata.Annotations["helm.sh/hook-weight"])
			require.NoError(t, err, kind)
		}
		// what a pod needs is there before the pod, and nodes are being cleaned before somebody waits for them
		for kind := range weight {
			if kind != "DaemonSet" && kind != "Job" {
				require.Less(t, weight[kind], weight["DaemonSet"], kind)
			}
		}
		require.Less(t, weight["Role"], weight["RoleBinding"])
		require.Less(t, weight["DaemonSet"], weight["Job"])
		require.Equal(t, "hook-succeeded,hook-failed", objects.Hooks.Job(t).Annotations["helm.sh/hook-output-log-policy"])
	})
}

func TestUninstallCleansWhereAFileMayBe(t *testing.T) {
	t.Parallel()
	off := "persist: {enabled: false}"
	require.NotNil(t, chart.Render(t, "").Hooks)
	require.Nil(t, chart.Render(t, off).Hooks, "a first install that persists nothing")
	require.NotNil(t, chart.Render(t, off, "--is-upgrade").Hooks, "an earlier revision may have persisted")
}

func TestUninstallHasNoMoreRightsThanItNeeds(t *testing.T) {
	t.Parallel()
	hooks := chart.RenderFiles(t, []string{chart.Scenario("everything")}).Hooks
	require.Equal(t, []rbacv1.PolicyRule{
		{APIGroups: []string{"apps"}, Resources: []string{"daemonsets"}, ResourceNames: []string{"mesh-os-init-clean-up"}, Verbs: []string{"get"}},
		{APIGroups: []string{""}, Resources: []string{"pods"}, Verbs: []string{"list"}},
	}, hooks.Roles[0].Rules)
	require.Equal(t, rbacv1.RoleRef{APIGroup: "rbac.authorization.k8s.io", Kind: "Role", Name: "mesh-os-init-clean-up"}, hooks.RoleBindings[0].RoleRef)
	require.Equal(t, []rbacv1.Subject{{Kind: "ServiceAccount", Name: "mesh-os-init-clean-up", Namespace: chart.Namespace}}, hooks.RoleBindings[0].Subjects)

	cleaner, waiter := hooks.Pod(t), hooks.Job(t).Spec.Template.Spec
	require.False(t, *hooks.ServiceAccounts[0].AutomountServiceAccountToken)
	require.False(t, *cleaner.AutomountServiceAccountToken)
	require.True(t, *waiter.AutomountServiceAccountToken, "it asks the API server")
	for _, pod := range []corev1.PodSpec{cleaner, waiter} {
		require.Equal(t, "mesh-os-init-clean-up", pod.ServiceAccountName)
		require.False(t, pod.HostNetwork || pod.HostPID || pod.HostIPC)
		require.Nil(t, pod.SecurityContext)
		require.Nil(t, pod.ShareProcessNamespace)
		require.False(t, *pod.EnableServiceLinks)
	}
	require.Equal(t, []corev1.VolumeMount{
		{Name: "modules-load", MountPath: "/etc/modules-load.d"},
		{Name: "config", MountPath: "/opt/istio-os-init", ReadOnly: true},
	}, cleaner.Containers[0].VolumeMounts)
	require.Equal(t, "/etc/modules-load.d", cleaner.Volumes[0].HostPath.Path)
	require.Equal(t, []corev1.VolumeMount{{Name: "config", MountPath: "/opt/istio-os-init", ReadOnly: true}}, waiter.Containers[0].VolumeMounts)
	require.Len(t, cleaner.Volumes, 2)
	require.Len(t, waiter.Volumes, 1)
}

func TestUninstallReachesEveryLinuxNodeWhateverTheReleaseSelects(t *testing.T) {
	t.Parallel()
	for _, scenario := range []string{"openshift", "rhel-nfd", "everything"} {
		pod := chart.RenderFiles(t, []string{chart.Scenario(scenario)}).Hooks.Pod(t)
		require.Equal(t, map[string]string{"kubernetes.io/os": "linux"}, pod.NodeSelector, scenario)
		require.Nil(t, pod.Affinity, scenario)
		require.Equal(t, []corev1.Toleration{{Operator: corev1.TolerationOpExists}}, pod.Tolerations, scenario)
	}
}

func TestTheWaiterKeepsOffNodesThatAreDown(t *testing.T) {
	t.Parallel()
	job := chart.Render(t, "").Hooks.Job(t)
	// node.kubernetes.io/unreachable and not-ready come as NoExecute too
	require.Equal(t, []corev1.Toleration{{Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoSchedule}}, job.Spec.Template.Spec.Tolerations)
	require.Equal(t, "node-role.kubernetes.io/control-plane",
		job.Spec.Template.Spec.Affinity.NodeAffinity.PreferredDuringSchedulingIgnoredDuringExecution[0].Preference.MatchExpressions[0].Key)
}

func TestUninstallIsBoundedToAMinute(t *testing.T) {
	t.Parallel()
	job := chart.Render(t, "").Hooks.Job(t)
	require.Equal(t, "45", env(job.Spec.Template.Spec.Containers[0])["ISTIO_OS_INIT_PATIENCE"])
	require.EqualValues(t, 55, *job.Spec.ActiveDeadlineSeconds, "a waiter that cannot start ends too")

	job = chart.Render(t, "persist: {cleanUpSeconds: 200}").Hooks.Job(t)
	require.Equal(t, "200", env(job.Spec.Template.Spec.Containers[0])["ISTIO_OS_INIT_PATIENCE"])
	require.EqualValues(t, 210, *job.Spec.ActiveDeadlineSeconds)
}

func TestThePodsOfUninstallAreNobodyElses(t *testing.T) {
	t.Parallel()
	forEveryScenario(t, func(t *testing.T, objects chart.Objects) {
		if objects.Hooks == nil {
			return
		}
		own := objects.DaemonSet(t).Spec.Selector.MatchLabels
		cleaner, waiter := objects.Hooks.DaemonSet(t), objects.Hooks.Job(t).Spec.Template
		selector := cleaner.Spec.Selector.MatchLabels
		require.Subset(t, cleaner.Spec.Template.Labels, selector)
		require.NotSubset(t, cleaner.Spec.Template.Labels, own, "the release's DaemonSet selects them")
		require.NotSubset(t, waiter.Labels, own, "the release's DaemonSet selects it")
		require.NotSubset(t, waiter.Labels, selector, "the DaemonSet that cleans selects it")
		for _, labels := range []map[string]string{cleaner.Spec.Template.Labels, waiter.Labels} {
			require.Equal(t, "false", labels["sidecar.istio.io/inject"])
			require.Equal(t, "none", labels["istio.io/dataplane-mode"])
		}
		variables := env(waiter.Spec.Containers[0])
		require.Equal(t, selectorOf(own), variables["ISTIO_OS_INIT_PODS"])
		require.Equal(t, selectorOf(selector), variables["ISTIO_OS_INIT_CLEANER_PODS"])
		require.Equal(t, cleaner.Name, variables["ISTIO_OS_INIT_CLEANERS"])
		require.Equal(t, cleaner.Namespace, variables["ISTIO_OS_INIT_NAMESPACE"])
	})
}

func selectorOf(labels map[string]string) string {
	selector := ""
	for _, key := range slices.Sorted(maps.Keys(labels)) {
		selector += "," + key + "=" + labels[key]
	}
	return selector[1:]
}

func TestThePodsOfUninstallAreMadeAsTheReleasesAre(t *testing.T) {
	t.Parallel()
	forEveryScenario(t, func(t *testing.T, objects chart.Objects) {
		if objects.Hooks == nil {
			return
		}
		own, load := objects.Pod(t), objects.Container(t, "load")
		for _, template := range []corev1.PodTemplateSpec{objects.Hooks.DaemonSet(t).Spec.Template, objects.Hooks.Job(t).Spec.Template} {
			require.Equal(t, own.ImagePullSecrets, template.Spec.ImagePullSecrets)
			require.Equal(t, own.PriorityClassName, template.Spec.PriorityClassName)
			require.Equal(t, own.TerminationGracePeriodSeconds, template.Spec.TerminationGracePeriodSeconds)
			require.Len(t, template.Spec.Containers, 1)
			container := template.Spec.Containers[0]
			require.Equal(t, load.Image, container.Image)
			require.Equal(t, load.ImagePullPolicy, container.ImagePullPolicy)
			require.Equal(t, load.Resources, container.Resources)
			require.Equal(t, env(load)["ISTIO_META_DNS_CAPTURE"], env(container)["ISTIO_META_DNS_CAPTURE"])
			require.Equal(t, objects.DaemonSet(t).Spec.Template.Labels["team"], template.Labels["team"])
			require.Equal(t, objects.DaemonSet(t).Spec.Template.Annotations["example.com/owner"], template.Annotations["example.com/owner"])
		}
		require.Equal(t, env(load)["ISTIO_OS_INIT_OWNER"], env(objects.Hooks.Container(t, "clean-up"))["ISTIO_OS_INIT_OWNER"],
			"whoever removes looks for another owner than whoever wrote")
	})
}

func TestOnlyTheReleasesOwnFileIsItsToRemove(t *testing.T) {
	t.Parallel()
	owner := func(args ...string) string {
		return env(chart.Render(t, "", args...).Container(t, "load"))["ISTIO_OS_INIT_OWNER"]
	}
	require.Equal(t, "istio-system/istio-os-init", owner())
	require.Equal(t, "other/istio-os-init", owner("--namespace", "other"))
	require.Equal(t, "istio-system/mine", owner("--set", "fullnameOverride=mine"))
}

func TestPersistenceIsOnUnlessSwitchedOff(t *testing.T) {
	t.Parallel()
	require.Equal(t, "true", env(chart.Render(t, "").Container(t, "load"))["ISTIO_OS_INIT_PERSIST"])
	off := chart.Render(t, "persist: {enabled: false}")
	require.Equal(t, "false", env(off.Container(t, "load"))["ISTIO_OS_INIT_PERSIST"])
	require.Contains(t, off.Container(t, "load").VolumeMounts, corev1.VolumeMount{Name: "modules-load", MountPath: "/etc/modules-load.d"},
		"what an earlier revision has left has to go")
}
