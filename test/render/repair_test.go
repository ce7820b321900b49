package render

import (
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"

	"github.com/istio-os-init/istio-os-init/test/internal/chart"
)

// The API server refuses the rule before 1.36, and the field before 1.34.
func TestTheRestartRuleIsAskedForOnlyWhereKubernetesHasIt(t *testing.T) {
	t.Parallel()
	rule := []corev1.ContainerRestartRule{{
		Action:    corev1.ContainerRestartRuleActionRestartAllContainers,
		ExitCodes: &corev1.ContainerRestartRuleOnExitCodes{Operator: corev1.ContainerRestartRuleOnExitCodesOpIn, Values: []int32{3}},
	}}
	for _, row := range []struct {
		version, values, want string
		rule                  []corev1.ContainerRestartRule
	}{
		{"1.25.0", "", "never", nil},
		{"1.35.9", "", "never", nil},
		{"1.36.0-beta.1", "", "rule", rule},
		{"1.36.3", "", "rule", rule},
		{"1.36.3", "repair: never", "never", nil},
		{"1.36.3", "repair: sandbox", "sandbox", nil},
		{"1.35.9", "repair: sandbox", "sandbox", nil},
	} {
		t.Run(row.version+" "+row.values, func(t *testing.T) {
			t.Parallel()
			objects := chart.Render(t, row.values, "--kube-version", row.version)
			require.Nil(t, objects.Container(t, "load").RestartPolicyRules, "its failure runs load again anyway")
			for name, policy := range map[string]corev1.ContainerRestartPolicy{
				"verify":         corev1.ContainerRestartPolicyOnFailure,
				"verify-traffic": corev1.ContainerRestartPolicyOnFailure,
				"watch":          corev1.ContainerRestartPolicyAlways,
			} {
				container := objects.Container(t, name)
				require.Equal(t, row.want, env(container)["ISTIO_OS_INIT_REPAIR"], name)
				require.Equal(t, row.rule, container.RestartPolicyRules, name)
				if row.rule != nil {
					require.Equal(t, policy, *container.RestartPolicy, name)
				} else {
					require.Nil(t, container.RestartPolicy, name)
				}
			}
		})
	}
}

// watch may end process 1 only where it has its uid and sees it.
func TestOnlyRepairBySandboxSharesProcessesAndOnlyWithinThePod(t *testing.T) {
	t.Parallel()
	objects := chart.Render(t, "repair: sandbox")
	pod, nobody := objects.Pod(t), objects.Container(t, "watch").SecurityContext.RunAsUser
	require.True(t, *pod.ShareProcessNamespace)
	require.False(t, pod.HostPID)
	require.Equal(t, &corev1.PodSecurityContext{RunAsUser: nobody, RunAsGroup: nobody}, pod.SecurityContext)
	for _, container := range append(pod.InitContainers, pod.Containers...) {
		require.NotNil(t, container.SecurityContext.RunAsUser, "%s would take the pod's", container.Name)
		require.NotNil(t, container.SecurityContext.RunAsGroup, "%s would take the pod's", container.Name)
	}
}
