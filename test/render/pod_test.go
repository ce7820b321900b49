package render

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/istio-os-init/istio-os-init/test/internal/chart"
)

func TestThePodIsLoadThenVerifyThenVerifyTrafficThenWatch(t *testing.T) {
	t.Parallel()
	pod := chart.Render(t, "").Pod(t)
	var names []string
	for _, container := range append(pod.InitContainers, pod.Containers...) {
		names = append(names, container.Name)
		require.Equal(t, []string{"/bin/sh", "/opt/istio-os-init/" + container.Name + ".sh"}, container.Command)
		require.Equal(t, corev1.TerminationMessageFallbackToLogsOnError, container.TerminationMessagePolicy)
	}
	require.Equal(t, []string{"load", "verify", "verify-traffic", "watch"}, names)
	for _, container := range pod.InitContainers {
		require.False(t, container.RestartPolicy != nil && *container.RestartPolicy == corev1.ContainerRestartPolicyAlways, "%s is no sidecar", container.Name)
	}
	require.Len(t, pod.Containers, 1)
}

func TestThePodStaysOutOfTheMeshItPrepares(t *testing.T) {
	t.Parallel()
	// the opt-outs win over the user's own labels
	labels := chart.Render(t, `podLabels: {"sidecar.istio.io/inject": "true", team: platform}`).DaemonSet(t).Spec.Template.Labels
	require.Equal(t, "false", labels["sidecar.istio.io/inject"])
	require.Equal(t, "none", labels["istio.io/dataplane-mode"])
	require.Equal(t, "platform", labels["team"])
}

func TestTheSelectorIsInThePodsLabelsAndFreeOfWhatAnUpgradeChanges(t *testing.T) {
	t.Parallel()
	daemonSet := chart.Render(t, `podLabels: {"app.kubernetes.io/name": other}`).DaemonSet(t)
	require.Equal(t, map[string]string{"app.kubernetes.io/name": "istio-os-init", "app.kubernetes.io/instance": chart.Release},
		daemonSet.Spec.Selector.MatchLabels)
	require.Subset(t, daemonSet.Spec.Template.Labels, daemonSet.Spec.Selector.MatchLabels)
}

func TestValuesOfKubernetesPassThrough(t *testing.T) {
	t.Parallel()
	objects := chart.RenderFiles(t, []string{chart.Scenario("everything")})
	daemonSet, pod := objects.DaemonSet(t), objects.Pod(t)
	require.Equal(t, "mesh-os-init", daemonSet.Name)
	require.Regexp(t, "^mesh-os-init-[0-9a-f]{8}$", objects.ConfigMap(t).Name)
	require.Equal(t, "os-init", daemonSet.Spec.Selector.MatchLabels["app.kubernetes.io/name"])
	require.Equal(t, appsv1.OnDeleteDaemonSetStrategyType, daemonSet.Spec.UpdateStrategy.Type)
	require.Equal(t, "platform", daemonSet.Spec.Template.Labels["team"])
	require.Equal(t, "platform", daemonSet.Spec.Template.Annotations["example.com/owner"])
	require.Equal(t, []corev1.Toleration{{Key: "node.kubernetes.io/not-ready", Operator: corev1.TolerationOpExists}}, pod.Tolerations)
	require.Empty(t, pod.PriorityClassName)
	require.EqualValues(t, 30, *pod.TerminationGracePeriodSeconds)
	require.Equal(t, "prepared", pod.ServiceAccountName)
	require.Empty(t, objects.ServiceAccounts)
	for _, container := range append(pod.InitContainers, pod.Containers...) {
		require.Equal(t, "true", env(container)["ISTIO_META_DNS_CAPTURE"], container.Name)
		require.Equal(t, resource.MustParse("50Mi"), container.Resources.Limits[corev1.ResourceMemory], container.Name)
		require.Equal(t, resource.MustParse("100m"), container.Resources.Limits[corev1.ResourceCPU], container.Name)
	}
	require.Equal(t, "10", env(objects.Container(t, "watch"))["ISTIO_OS_INIT_INTERVAL"])
}

func TestDefaultsSuitAFleet(t *testing.T) {
	t.Parallel()
	objects := chart.Render(t, "")
	pod, strategy := objects.Pod(t), objects.DaemonSet(t).Spec.UpdateStrategy
	require.Equal(t, appsv1.RollingUpdateDaemonSetStrategyType, strategy.Type)
	require.Equal(t, intstr.FromString("10%"), *strategy.RollingUpdate.MaxUnavailable)
	require.Equal(t, "system-node-critical", pod.PriorityClassName)
	require.Equal(t, []corev1.Toleration{{Operator: corev1.TolerationOpExists}}, pod.Tolerations)
	require.Equal(t, map[string]string{"kubernetes.io/os": "linux"}, pod.NodeSelector)
	require.Equal(t, asked(), nodeTerms(pod)[0].MatchExpressions)
	require.LessOrEqual(t, *pod.TerminationGracePeriodSeconds, int64(5))
	for _, container := range append(pod.InitContainers, pod.Containers...) {
		require.NotContains(t, container.Resources.Limits, corev1.ResourceCPU, "a CPU limit would only delay %s", container.Name)
	}
}

func env(container corev1.Container) map[string]string {
	values := map[string]string{}
	for _, variable := range container.Env {
		values[variable.Name] = variable.Value
	}
	return values
}

func source(t *testing.T, script string) string {
	t.Helper()
	content, err := os.ReadFile(chart.Script(script))
	require.NoError(t, err)
	return string(content)
}

func appendTo(t *testing.T, file, text string) {
	t.Helper()
	content, err := os.ReadFile(file)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(file, append(content, text...), 0o600))
}
