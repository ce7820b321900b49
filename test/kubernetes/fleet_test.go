package kubernetes

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/istio-os-init/istio-os-init/test/internal/chart"
	_ "github.com/istio-os-init/istio-os-init/test/internal/chart/inprocess"
	"github.com/istio-os-init/istio-os-init/test/internal/controlplane"
)

func TestEveryNodeOfAMixedFleetGetsItsPodAndARolloutGoesThrough(t *testing.T) {
	t.Parallel()
	p := start(t)
	releases := map[string]string{"mixed": "{}"}
	if p.Policies() {
		releases["mixed-signals"] = signals
	}
	t.Run("releases", func(t *testing.T) {
		for namespace, values := range releases {
			t.Run(namespace, func(t *testing.T) {
				t.Parallel()
				p.Install(t, namespace, values)
				before := p.RolledOut(t, namespace, chart.Release)
				p.Install(t, namespace, values, "--set", "modules.extra={dummy}")
				after := p.RolledOut(t, namespace, chart.Release)
				for _, node := range p.Nodes {
					require.NotEqual(t, before[node.Name].UID, after[node.Name].UID, "%s has the pod that it had", node.Name)
				}
			})
		}
	})
	proven.Store("fleet", fmt.Sprintf("kubelets 1.%d to 1.%d", p.Nodes[0].Minor, p.Minor))
}

// The control: the scheduler looks at what a kubelet declares. With this rule older nodes get no pod, and the rollout ends there.
func TestAPodThatNeedsANewerKubeletIsKeptOffOlderNodes(t *testing.T) {
	t.Parallel()
	p := start(t)
	if p.Minor < 36 {
		t.Skipf("NOT PROVEN: that a scheduler %s keeps pods off nodes by what their kubelets declare, since it is older than that. Run: make test-kubernetes", p.Version)
	}
	const namespace = "restart-all"
	p.Namespace(t, namespace, nil)
	daemonSet := chart.Render(t, "").DaemonSet(t)
	daemonSet.Namespace = namespace
	spec := &daemonSet.Spec.Template.Spec
	spec.ServiceAccountName = ""
	watch := chart.ContainerOf(t, spec, "watch")
	watch.RestartPolicy = new(corev1.ContainerRestartPolicyAlways)
	watch.RestartPolicyRules = []corev1.ContainerRestartRule{{
		Action:    corev1.ContainerRestartRuleActionRestartAllContainers,
		ExitCodes: &corev1.ContainerRestartRuleOnExitCodes{Operator: corev1.ContainerRestartRuleOnExitCodesOpIn, Values: []int32{1}},
	}}
	_, err := p.Client.AppsV1().DaemonSets(namespace).Create(t.Context(), &daemonSet, metav1.CreateOptions{})
	require.NoError(t, err)

	old := 0
	for _, node := range p.Nodes {
		if node.Minor < 36 {
			old++
		}
	}
	pending := 0
	require.NoError(t, controlplane.Eventually(t.Context(), func() bool {
		list, err := p.Client.CoreV1().Pods(namespace).List(t.Context(), metav1.ListOptions{})
		require.NoError(t, err)
		pending = 0
		for _, pod := range list.Items {
			for _, condition := range pod.Status.Conditions {
				if condition.Type == corev1.PodScheduled && condition.Reason == corev1.PodReasonUnschedulable {
					pending++
				}
			}
		}
		return pending == old && len(p.Pods(t, namespace, daemonSet.Name)) == len(p.Nodes)-old
	}), "%d pods of %d are unschedulable", pending, old)
}
