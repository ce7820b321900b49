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
	metadata := map[string]metav1.ObjectMeta{"ConfigMap": hooks.ConfigMap(t).ObjectMeta, "Job": hooks.Job(t).ObjectMeta}
	add := func(kind string, object metav1.ObjectMeta) {
		require.NotContains(t, metadata, kind)
		metadata[kind] = object
	}
	for i := range hooks.ServiceAccounts {
		add("ServiceAccount", hooks.ServiceAccounts[i].ObjectMeta)
	}
	for i := range hooks.Roles {
		add("Role", hooks.Roles[i].ObjectMeta)
	}
	for i := range hooks.RoleBindings {
		add("RoleBinding", hooks.RoleBindings[i].ObjectMeta)
	}
	for i := range hooks.DaemonSets {
		add("DaemonSet", hooks.DaemonSets[i].ObjectMeta)
	}
	for i := range hooks.SCCs {
		add("SecurityContextConstraints", hooks.SCCs[i].ObjectMeta)
	}
	for i := range hooks.ClusterRoles {
		add("ClusterRole", hooks.ClusterRoles[i].ObjectMeta)
	}
	for i := range hooks.ClusterRoleBindings {
		add("ClusterRoleBinding", hooks.ClusterRoleBindings[i].ObjectMeta)
	}
	for i := range hooks.Policies {
		add("ValidatingAdmissionPolicy", hooks.Policies[i].ObjectMeta)
	}
	for i := range hooks.PolicyBindings {
		add("ValidatingAdmissionPolicyBinding", hooks.PolicyBindings[i].ObjectMeta)
	}
	for i, policy := range hooks.NetworkPolicies {
		add("NetworkPolicy "+strconv.Itoa(i), policy.ObjectMeta)
	}
	return metadata
}

// Helm forgets a release after its post-delete hooks, also after one that has failed; after a pre-delete hook that has failed it does not, and
// the next uninstall runs all of them again.
func TestUninstallMakesItsObjectsInOrderBeforeTheReleaseIsDeletedAndLeavesNone(t *testing.T) {
	t.Parallel()
	cluster := []string{"SecurityContextConstraints", "ClusterRole", "ClusterRoleBinding", "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"}
	forEveryScenario(t, func(t *testing.T, objects chart.Objects) {
		if objects.Hooks == nil {
			return // of the scenarios that need none there is a test of its own
		}
		weight := map[string]int{}
		for kind, metadata := range hookMetadata(t, objects) {
			if slices.Contains(cluster, kind) {
				require.Empty(t, metadata.Namespace, "it is the cluster's")
			} else {
				require.Regexp(t, "^"+objects.DaemonSet(t).Name+"-clean-up(-wait)?$", metadata.Name, kind)
				require.Equal(t, chart.Namespace, metadata.Namespace, kind)
			}
			require.Equal(t, chart.Release, metadata.Labels["app.kubernetes.io/instance"], kind)
			require.Equal(t, "pre-delete", metadata.Annotations["helm.sh/hook"], kind)
			// Helm would keep what fails, and trip over it at the next uninstall
			require.Equal(t, "before-hook-creation,hook-succeeded,hook-failed", metadata.Annotations["helm.sh/hook-delete-policy"], kind)
			var err error
			weight[kind], err = strconv.Atoi(metadata.Annotations["helm.sh/hook-weight"])
			require.NoError(t, err, kind)
		}
		// what a pod needs is there before the pod, and nodes are being cleaned before the Job waits for them
		for kind := range weight {
			if kind != "DaemonSet" && kind != "Job" {
				require.Less(t, weight[kind], weight["Job"]-1, kind)
			}
		}
		require.Less(t, weight["Role"], weight["RoleBinding"])
		require.LessOrEqual(t, weight["ClusterRole"], weight["ClusterRoleBinding"])
		require.Less(t, weight["DaemonSet"], weight["Job"])
		require.Equal(t, "hook-succeeded,hook-failed", objects.Hooks.Job(t).Annotations["helm.sh/hook-output-log-policy"])
	})
}

// Each of the two tasks is rendered alone, together, or not at all; the ConfigMap contains only the scripts that are run.
func TestUninstallRendersOnlyWhatThereIsToDo(t *testing.T) {
	t.Parallel()
	const off, on = "{persist: {enabled: false}}", "{persist: {enabled: false}, signals: {nodeCondition: {enabled: true}}}"
	for _, row := range []struct {
		name, values  string
		args          []string
		clean, forget bool
	}{
		{"files", "", nil, true, false},
		{"nothing: a first install that persists nothing", off, nil, false, false},
		{"files of an earlier revision", off, []string{"--is-upgrade"}, true, false},
		{"nothing: a first install that looks only, whatever persist is", "load: {enabled: false}", nil, false, false},
		{"files of an earlier revision that loaded", "load: {enabled: false}", []string{"--is-upgrade"}, true, false},
		{"files of an earlier revision, which Argo CD does not tell", "{persist: {enabled: false}, uninstall: {hooks: always}}", nil, true, false},
		{"nothing, as wanted", "{signals: {nodeCondition: {enabled: true}}, uninstall: {hooks: never}}", []string{"--is-upgrade"}, false, false},
		{"conditions", on, nil, false, true},
		{"both", condition, nil, true, true},
		{"a taint that is removed leaves nothing", "{persist: {enabled: false}, signals: {startupTaint: {remove: true}}}", nil, false, false},
		{"the namespace's release has no right to conditions", "{global: {resourceScope: namespace}, signals: {nodeCondition: {enabled: true}}}", nil, true, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			hooks := chart.Render(t, row.values, row.args...).Hooks
			if !row.clean && !row.forget {
				require.Nil(t, hooks)
				return
			}
			count := map[bool]int{true: 1}
			require.Len(t, hooks.DaemonSets, count[row.clean])
			require.Len(t, hooks.ClusterRoles, count[row.forget])
			require.Len(t, hooks.Policies, count[row.forget])
			variables := env(hooks.Uninstaller(t))
			require.Equal(t, row.clean, variables["ISTIO_OS_INIT_CLEANER_PODS"] != "")
			require.Equal(t, row.forget, variables["ISTIO_OS_INIT_OWNER"] != "")
			scripts := []string{"api.sh", "outcome.sh", "uninstall.sh"}
			if row.clean {
				scripts = append(scripts, "clean-up.sh", "persist.sh")
			}
			require.ElementsMatch(t, scripts, slices.Collect(maps.Keys(hooks.ConfigMap(t).Data)))
		})
	}
}

func TestUninstallHasNoMoreRightsThanItNeeds(t *testing.T) {
	t.Parallel()
	hooks := chart.RenderFiles(t, []string{chart.Scenario("everything")}).Hooks
	require.Equal(t, []rbacv1.PolicyRule{
		{APIGroups: []string{"batch"}, Resources: []string{"jobs"}, ResourceNames: []string{"mesh-os-init-clean-up"}, Verbs: []string{"get"}},
		{APIGroups: []string{"apps"}, Resources: []string{"daemonsets"}, ResourceNames: []string{"mesh-os-init"}, Verbs: []string{"delete"}},
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
	}, chart.ContainerOf(t, &cleaner, "clean-up").VolumeMounts)
	require.Equal(t, "/etc/modules-load.d", cleaner.Volumes[0].HostPath.Path)
	require.Equal(t, []corev1.VolumeMount{{Name: "config", MountPath: "/opt/istio-os-init", ReadOnly: true}}, chart.ContainerOf(t, &waiter, "uninstall").VolumeMounts)
	require.Len(t, cleaner.Volumes, 2)
	require.Len(t, waiter.Volumes, 1)
}

func TestUninstallReachesEveryLinuxNodeWhateverTheReleaseSelects(t *testing.T) {
	t.Parallel()
	for _, scenario := range []string{"openshift", "rhel-nfd", "everything"} {
		pod := chart.RenderFiles(t, []string{chart.Scenario(scenario)}).Hooks.Pod(t)
		require.Equal(t, map[string]string{"kubernetes.io/os": "linux"}, pod.NodeSelector, scenario)
		require.Equal(t, asked(), nodeTerms(pod)[0].MatchExpressions, scenario)
		require.Equal(t, []corev1.Toleration{{Operator: corev1.TolerationOpExists}}, pod.Tolerations, scenario)
	}
}

func TestTheJobOfUninstallKeepsOffNodesThatAreDown(t *testing.T) {
	t.Parallel()
	job := chart.Render(t, "").Hooks.Job(t)
	// node.kubernetes.io/unreachable and not-ready come as NoExecute too
	require.Equal(t, []corev1.Toleration{{Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoSchedule}}, job.Spec.Template.Spec.Tolerations)
	require.Equal(t, "node-role.kubernetes.io/control-plane",
		job.Spec.Template.Spec.Affinity.NodeAffinity.PreferredDuringSchedulingIgnoredDuringExecution[0].Preference.MatchExpressions[0].Key)
}

func TestUninstallIsBoundedAndKnowsItsBound(t *testing.T) {
	t.Parallel()
	for values, want := range map[string][2]int64{"": {45, 290}, "persist: {cleanUpSeconds: 240}": {240, 290}} {
		hooks := chart.Render(t, values).Hooks
		job, variables := hooks.Job(t), env(hooks.Uninstaller(t))
		require.Equal(t, strconv.FormatInt(want[0], 10), variables["ISTIO_OS_INIT_PATIENCE"])
		require.Equal(t, strconv.FormatInt(want[1], 10), variables["ISTIO_OS_INIT_LIMIT"])
		require.Equal(t, want[1], *job.Spec.ActiveDeadlineSeconds, "a Job whose pod cannot start ends too")
		require.Less(t, want[1], int64(300), "Helm waits no longer")
	}
}

func TestThePodsOfUninstallAreNobodyElses(t *testing.T) {
	t.Parallel()
	forEveryScenario(t, func(t *testing.T, objects chart.Objects) {
		if objects.Hooks == nil || len(objects.Hooks.DaemonSets) == 0 {
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
		variables := env(objects.Hooks.Uninstaller(t))
		require.Equal(t, selectorOf(own), variables["ISTIO_OS_INIT_PODS"])
		require.Equal(t, selectorOf(selector), variables["ISTIO_OS_INIT_CLEANER_PODS"])
		require.Equal(t, cleaner.Name, variables["ISTIO_OS_INIT_HOOK"])
		require.Equal(t, objects.Hooks.Job(t).Name, variables["ISTIO_OS_INIT_HOOK"])
		require.Equal(t, objects.DaemonSet(t).Name, variables["ISTIO_OS_INIT_DAEMONSET"])
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
		if objects.Hooks == nil || len(objects.Hooks.DaemonSets) == 0 {
			return
		}
		own, load := objects.Pod(t), objects.Container(t, "load")
		for name, template := range map[string]corev1.PodTemplateSpec{
			"clean-up": objects.Hooks.DaemonSet(t).Spec.Template, "uninstall": objects.Hooks.Job(t).Spec.Template,
		} {
			require.Equal(t, own.ImagePullSecrets, template.Spec.ImagePullSecrets)
			require.Equal(t, own.PriorityClassName, template.Spec.PriorityClassName)
			require.Equal(t, own.TerminationGracePeriodSeconds, template.Spec.TerminationGracePeriodSeconds)
			require.Len(t, template.Spec.Containers, 1)
			container := *chart.ContainerOf(t, &template.Spec, name)
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
