package kubernetes

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/istio-os-init/istio-os-init/test/internal/chart"
)

// signals are the values by which pods may write to their nodes.
const signals = "{signals: {nodeCondition: {enabled: true}, startupTaint: {remove: true}}}"

// What the policy bounds in detail, test/cluster asks. Here: whether this version understands it, and knows a token's node.
func TestWithSignalsATokenMayWriteToItsOwnNodeAlone(t *testing.T) {
	t.Parallel()
	p := start(t)
	const namespace = "signals"
	if !p.policies() {
		output, err := p.helm(t, namespace, "install", "--create-namespace", "--values", chart.ValuesFile(t, signals), chart.Release, chart.Path())
		require.Error(t, err)
		require.Contains(t, output+err.Error(), "need Kubernetes 1.30 or later, and this is v"+p.version)
		proven.Store("signals", "refused: they need 1.30")
		return
	}
	p.install(t, namespace, signals)
	pods := p.rolledOut(t, namespace)
	own, other := p.nodes[0].name, p.nodes[len(p.nodes)-1].name
	client := p.as(t, pods[own])

	patch := []byte(`{"status": {"conditions": [{"type": "IstioReady", "status": "True", "reason": "RulesApplied"}]}}`)
	write := func(node string, patch []byte) error {
		_, err := client.CoreV1().Nodes().Patch(t.Context(), node, types.StrategicMergePatchType, patch,
			metav1.PatchOptions{FieldManager: namespace + "/" + chart.Release}, "status")
		return err
	}
	var err error
	require.NoError(t, eventually(t.Context(), func() bool {
		err = write(other, patch)
		return apierrors.IsInvalid(err) || apierrors.IsForbidden(err)
	}), "%s may be written: %v", other, err)
	require.ErrorContains(t, err, "may change only the node that its pod runs on")
	require.NoError(t, write(own, patch))
	require.ErrorContains(t, write(own, []byte(`{"status": {"conditions": [{"type": "Ready", "status": "False"}]}}`)), "may change no condition but IstioReady")
	require.ErrorContains(t, write(own, []byte(`{"status": {"phase": "Terminated"}}`)), "may change nothing of a node's status but its conditions")

	// the startup taint goes, and nothing else
	taint := corev1.Taint{Key: "startup-taint.cluster-autoscaler.kubernetes.io/istio-os-init", Effect: corev1.TaintEffectPreferNoSchedule}
	node, err := p.client.CoreV1().Nodes().Get(t.Context(), own, metav1.GetOptions{})
	require.NoError(t, err)
	node.Spec.Taints = []corev1.Taint{taint}
	_, err = p.client.CoreV1().Nodes().Update(t.Context(), node, metav1.UpdateOptions{})
	require.NoError(t, err)
	change := func(patch string) error {
		_, err := client.CoreV1().Nodes().Patch(t.Context(), own, types.JSONPatchType, []byte(patch), metav1.PatchOptions{FieldManager: namespace + "/" + chart.Release})
		return err
	}
	require.ErrorContains(t, change(`[{"op": "add", "path": "/spec/unschedulable", "value": true}]`), "may change nothing of a node's spec but its taints")
	require.NoError(t, change(`[{"op": "remove", "path": "/spec/taints/0"}]`))

	policies := p.client.AdmissionregistrationV1().ValidatingAdmissionPolicies()
	require.NoError(t, eventually(t.Context(), func() bool {
		list, err := policies.List(t.Context(), metav1.ListOptions{})
		require.NoError(t, err)
		for _, policy := range list.Items {
			if policy.Status.ObservedGeneration != policy.Generation || policy.Status.TypeChecking == nil {
				return false
			}
			require.Empty(t, policy.Status.TypeChecking.ExpressionWarnings, policy.Name)
		}
		return true
	}), "no controller looks at the policies")
	proven.Store("signals", "installed, and the policy is in force")
}

// as returns a client with the token that the kubelet gives a pod of the DaemonSet.
func (p *plane) as(t *testing.T, pod corev1.Pod) *kubernetes.Clientset {
	t.Helper()
	token, err := p.client.CoreV1().ServiceAccounts(pod.Namespace).CreateToken(t.Context(), pod.Spec.ServiceAccountName, &authenticationv1.TokenRequest{
		Spec: authenticationv1.TokenRequestSpec{BoundObjectRef: &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: pod.Name, UID: pod.UID}},
	}, metav1.CreateOptions{})
	require.NoError(t, err)
	config := rest.AnonymousClientConfig(p.config)
	config.BearerToken = token.Status.Token
	client, err := kubernetes.NewForConfig(config)
	require.NoError(t, err, fmt.Sprint(pod.Name))
	return client
}
