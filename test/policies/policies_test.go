// Package policies asks one question: which of the policies that clusters commonly enforce do the chart's pods violate, and does the page say
// why? The Pod Security Standards are judged by Kubernetes' own evaluator; Kyverno's and Gatekeeper's pod security policies are the same
// controls.
package policies

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"

	"github.com/istio-os-init/istio-os-init/test/internal/chart"
)

// violation is one control that one container violates.
type violation struct{ control, container string }

// documented are the exceptions of docs/policies.md: "| control | container | reason |".
func documented(t *testing.T) map[violation]string {
	t.Helper()
	page, err := os.ReadFile(filepath.Join(chart.Path(), "docs", "policies.md"))
	require.NoError(t, err)
	exceptions := map[violation]string{}
	for _, row := range regexp.MustCompile("(?m)^\\| (.+) \\| `([a-z-]+)` \\| (.+) \\|$").FindAllStringSubmatch(string(page), -1) {
		exception := violation{row[1], row[2]}
		require.NotContains(t, exceptions, exception, "twice")
		exceptions[exception] = row[3]
	}
	require.NotEmpty(t, exceptions)
	return exceptions
}

// pods are all that a release makes in its life.
func pods(objects chart.Objects) (all []corev1.PodTemplateSpec) {
	for _, some := range []*chart.Objects{&objects, objects.Hooks} {
		if some == nil {
			continue
		}
		for _, daemonSet := range some.DaemonSets {
			all = append(all, daemonSet.Spec.Template)
		}
		for _, job := range some.Jobs {
			all = append(all, job.Spec.Template)
		}
	}
	for _, test := range objects.Tests {
		all = append(all, corev1.PodTemplateSpec{ObjectMeta: test.ObjectMeta, Spec: test.Spec})
	}
	return all
}

// alone is a pod with one of its containers and that container's volumes. Each container says for itself what the pod says for all.
func alone(pod corev1.PodTemplateSpec, container corev1.Container) corev1.PodTemplateSpec {
	one := *pod.DeepCopy()
	container.RestartPolicy = nil
	one.Spec.SecurityContext = nil
	one.Spec.InitContainers, one.Spec.Containers = nil, []corev1.Container{container}
	one.Spec.Volumes = slices.DeleteFunc(one.Spec.Volumes, func(volume corev1.Volume) bool {
		return !slices.ContainsFunc(container.VolumeMounts, func(mount corev1.VolumeMount) bool { return mount.Name == volume.Name })
	})
	return one
}

func containers(pod corev1.PodTemplateSpec) []corev1.Container {
	return slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers)
}

func TestThePodsViolateOnlyWhatThePageGivesAReasonFor(t *testing.T) {
	t.Parallel()
	evaluator, err := policy.NewEvaluator(policy.DefaultChecks(), nil)
	require.NoError(t, err)
	exceptions, used := documented(t), map[violation]bool{}
	found := func(control, container string) {
		used[violation{control, container}] = true
	}
	for _, scenario := range chart.Scenarios(t) {
		for _, pod := range pods(chart.RenderFiles(t, []string{chart.Scenario(scenario)})) {
			for _, container := range containers(pod) {
				one := alone(pod, container)
				for _, level := range []api.Level{api.LevelBaseline, api.LevelRestricted} {
					for _, result := range evaluator.EvaluatePod(api.LevelVersion{Level: level, Version: api.LatestVersion()}, &one.ObjectMeta, &one.Spec) {
						if !result.Allowed {
							found(result.ForbiddenReason, container.Name)
						}
					}
				}
			}
		}
	}
	// The scenario policies is what to set where limits, probes and labels are demanded.
	for _, pod := range pods(chart.RenderFiles(t, []string{chart.Scenario("policies")})) {
		require.NotEmpty(t, pod.Labels["app.kubernetes.io/name"])
		require.Equal(t, "platform", pod.Labels["owner"])
		for _, container := range containers(pod) {
			for _, resource := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceEphemeralStorage} {
				require.Contains(t, container.Resources.Requests, resource, container.Name)
				require.Contains(t, container.Resources.Limits, resource, container.Name)
			}
			require.NotRegexp(t, `(:latest|/[^:]*)$`, container.Image)
		}
		for _, container := range pod.Spec.Containers { // of a workload that stays: a container that ends has no probes
			if pod.Spec.RestartPolicy != corev1.RestartPolicyNever && (container.ReadinessProbe == nil || container.LivenessProbe == nil) {
				found("readiness and liveness probes", container.Name)
			}
		}
	}
	for exception := range used {
		require.NotEmpty(t, exceptions[exception], "docs/policies.md has no reason why %s violates: %s", exception.container, exception.control)
	}
	for exception := range exceptions {
		require.True(t, used[exception], "nothing needs the exception of docs/policies.md: %v", exception)
	}
}

// On a cluster that only has to be looked at, load violates no more than that it looks.
func TestWhatLooksOnlyViolatesLess(t *testing.T) {
	t.Parallel()
	evaluator, err := policy.NewEvaluator(policy.DefaultChecks(), nil)
	require.NoError(t, err)
	reasons := func(scenario string) (found []string) {
		objects := chart.RenderFiles(t, []string{chart.Scenario(scenario)})
		one := alone(objects.DaemonSet(t).Spec.Template, objects.Container(t, "load"))
		for _, result := range evaluator.EvaluatePod(api.LevelVersion{Level: api.LevelRestricted, Version: api.LatestVersion()}, &one.ObjectMeta, &one.Spec) {
			if !result.Allowed {
				found = append(found, result.ForbiddenReason)
			}
		}
		return found
	}
	looks := reasons("look-only")
	require.Subset(t, reasons("default"), looks)
	require.ElementsMatch(t, []string{"seLinuxOptions", "restricted volume types"}, looks)
}
