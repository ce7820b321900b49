package render

import (
	"math"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/yaml"

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

// Objects that Helm creates for an event are objects too. Pods of a workload have podLabels and podAnnotations.
func TestLabelsAndAnnotationsOfEveryObjectAreOnEveryObject(t *testing.T) {
	t.Parallel()
	const values = `
commonLabels: {team: mesh, app.kubernetes.io/name: other}
commonAnnotations: {kustomize.toolkit.fluxcd.io/substitute: disabled, helm.sh/hook: post-install}
serviceAccount: {annotations: {a: b}}
signals: {nodeCondition: {enabled: true}, startupTaint: {remove: true}, nodeReadinessRule: {enabled: true}, prometheusRule: {enabled: true, force: true, annotations: {a: b}}}
global: {platform: openshift, networkPolicy: {enabled: true}}
resourceQuotas: {enabled: true}
`
	manifest, err := chart.Manifest(t, chart.Path(), []string{chart.ValuesFile(t, strings.Replace(values, ", helm.sh/hook: post-install", "", 1))})
	require.NoError(t, err)
	kinds := map[string]bool{}
	for document := range strings.SplitSeq("\n"+manifest, "\n---\n") {
		if strings.TrimSpace(document) == "" {
			continue
		}
		var object metav1.PartialObjectMetadata
		require.NoError(t, yaml.Unmarshal([]byte(document), &object))
		name := object.Kind + " " + object.Name
		kinds[object.Kind] = true
		require.Equal(t, "mesh", object.Labels["team"], name)
		require.NotEqual(t, "other", object.Labels["app.kubernetes.io/name"], "%s: the chart's own win", name)
		require.Equal(t, "disabled", object.Annotations["kustomize.toolkit.fluxcd.io/substitute"], name)
		if object.Name == chart.Release && (object.Kind == "ServiceAccount" || object.Kind == "PrometheusRule") {
			require.Equal(t, "b", object.Annotations["a"], name)
		}
	}
	require.GreaterOrEqual(t, len(kinds), 14, kinds)

	objects := chart.Decode(t, manifest)
	plain := chart.Render(t, "")
	require.Equal(t, plain.DaemonSet(t).Spec.Selector, objects.DaemonSet(t).Spec.Selector, "a DaemonSet's selector is immutable")
	require.NotContains(t, objects.DaemonSet(t).Spec.Template.Labels, "team")
	require.NotContains(t, objects.DaemonSet(t).Spec.Template.Annotations, "kustomize.toolkit.fluxcd.io/substitute")
	hooks := chart.Render(t, values).Hooks
	require.Equal(t, "pre-delete", hooks.Job(t).Annotations["helm.sh/hook"], "the chart's own win")
}

func TestProbesAreWhatTheValuesSay(t *testing.T) {
	t.Parallel()
	watch := chart.Render(t, "").Container(t, "watch")
	verdict := corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"/bin/sh", "/opt/istio-os-init/report", "--ready"}}}
	startup := &corev1.Probe{ProbeHandler: verdict, PeriodSeconds: 1, TimeoutSeconds: 300, FailureThreshold: math.MaxInt32}
	require.Equal(t, startup, watch.StartupProbe)
	require.Nil(t, watch.ReadinessProbe, "a proven node runs no probe")
	require.Nil(t, watch.LivenessProbe)

	watch = chart.Render(t, "watch: {startupProbe: {periodSeconds: 5, timeoutSeconds: 340}, readinessProbe: {periodSeconds: 60}, livenessProbe: {failureThreshold: 5, timeoutSeconds: 2}}").Container(t, "watch")
	startup.PeriodSeconds, startup.TimeoutSeconds = 5, 340
	require.Equal(t, startup, watch.StartupProbe)
	require.Equal(t, &corev1.Probe{ProbeHandler: verdict, PeriodSeconds: 60, TimeoutSeconds: 10}, watch.ReadinessProbe)
	require.Equal(t, &corev1.Probe{ProbeHandler: corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"/bin/true"}}}, FailureThreshold: 5, TimeoutSeconds: 2}, watch.LivenessProbe)

	watch = chart.Render(t, "watch: {readinessProbe: {exec: {command: [ls]}}}").Container(t, "watch")
	require.Equal(t, &corev1.Probe{ProbeHandler: corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"ls"}}}}, watch.ReadinessProbe, "a handler of the user's own is theirs")
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
