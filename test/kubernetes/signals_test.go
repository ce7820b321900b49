package kubernetes

import (
	"context"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/istio-os-init/istio-os-init/test/internal/chart"
	"github.com/istio-os-init/istio-os-init/test/internal/controlplane"
)

const (
	// signals are the values by which pods may write to their nodes.
	signals  = "{signals: {nodeCondition: {enabled: true}, startupTaint: {remove: true}}}"
	ourTaint = "startup-taint.cluster-autoscaler.kubernetes.io/istio-os-init"
	// bounds is what the policy says to a condition that it does not take.
	bounds = "may write one condition IstioReady, with status True, False or Unknown, a reason of 128 and a message of 1024 characters at most"
)

// What a shell in `signal` could do with its token.
func TestATokenOfOneNodesPodIsGoodForThatNodesConditionAndTaintOnly(t *testing.T) {
	t.Parallel()
	p := start(t)
	const namespace = "signals"
	if !p.Policies() {
		output, err := p.Helm(t, namespace, "install", "--create-namespace", "--values", chart.ValuesFile(t, signals), chart.Release, chart.Path())
		require.Error(t, err)
		require.Contains(t, output+err.Error(), "need Kubernetes 1.30 or later, and this is v"+p.Version)
		proven.Store("signals", "refused: they need 1.30")
		return
	}
	p.Install(t, namespace, signals)
	own, other := p.Nodes[0].Name, p.Nodes[len(p.Nodes)-1].Name
	p.setTaints(t, own, corev1.Taint{Key: "example.com/foreign", Effect: corev1.TaintEffectPreferNoSchedule})
	pod := p.RolledOut(t, namespace, chart.Release)[own]
	token := p.bearer(t, namespace, pod.Spec.ServiceAccountName, &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: pod.Name, UID: pod.UID})
	const manager = namespace + "/" + chart.Release
	p.waitForPolicy(t, func() error { return patchNode(t, token, manager, other, `{}`, "status") })

	status := func(conditions string) string { return `{"status":{"conditions":[` + conditions + `]}}` }
	long := func(field string, length int) string {
		return status(`{"type":"IstioReady","status":"True","` + field + `":"` + strings.Repeat("x", length) + `"}`)
	}
	added := func(count int) string {
		one := `{"op":"add","path":"/status/conditions/-","value":{"type":"IstioReady","status":"True"}}`
		return "[" + strings.Repeat(one+",", count-1) + one + "]"
	}
	taints := func(added string) string {
		return `{"spec":{"taints":[{"key":"example.com/foreign","effect":"PreferNoSchedule"},` + added + `]}}`
	}
	for _, row := range []struct {
		name, node, subresource, patch, denied string
	}{
		{"its node's condition", own, "status", status(`{"type":"IstioReady","status":"True","message":"by the token"}`), ""},
		{"nothing at all", own, "status", `{}`, ""},
		{"the longest message", own, "status", long("message", 1024), ""},
		{"a message by which the node becomes too large to be written", own, "status", long("message", 1_500_000), bounds},
		{"a message of one character too many", own, "status", long("message", 1025), bounds},
		{"a reason of one character too many", own, "status", long("reason", 129), bounds},
		{"a status that is none", own, "status", status(`{"type":"IstioReady","status":"` + strings.Repeat("x", 100_000) + `"}`), bounds},
		{"two conditions of the type", own, "status", added(2), bounds},
		{"5,000 conditions of the type", own, "status", added(5000), bounds},
		{"another node's condition", other, "status", status(`{"type":"IstioReady","status":"False"}`), "may change only the node that its pod runs on"},
		{"another node's taints", other, "", `{"spec":{"taints":[]}}`, "may change only the node that its pod runs on"},
		{"another condition", own, "status", status(`{"type":"Ready","status":"False"}`), "may change no condition but IstioReady"},
		{"another condition removed", own, "status", status(`{"type":"DiskPressure","$patch":"delete"}`), "may change no condition but IstioReady"},
		{"capacity", own, "status", `{"status":{"capacity":{"cpu":"1"}}}`, "may change nothing of a node's status but its conditions"},
		{"a new field of the status", own, "status", `{"status":{"volumesInUse":["x"]}}`, "may change nothing of a node's status but its conditions"},
		{"a label", own, "", `{"metadata":{"labels":{"a":"b"}}}`, "may not change a node's metadata"},
		{"a label by the status", own, "status", `{"metadata":{"labels":{"a":"b"}}}`, "may not change a node's metadata"},
		{"an annotation by the status", own, "status", `{"metadata":{"annotations":{"a":"b"}}}`, "may not change a node's metadata"},
		{"unschedulable", own, "", `{"spec":{"unschedulable":true}}`, "may change nothing of a node's spec but its taints"},
		{"a foreign taint added", own, "", taints(`{"key":"x","effect":"NoSchedule"}`), "may change no taint"},
		{"a foreign taint removed", own, "", `{"spec":{"taints":[]}}`, "may change no taint"},
		{"our taint added", own, "", taints(`{"key":"` + ourTaint + `","effect":"NoExecute"}`), "may change no taint"},
	} {
		t.Run(row.name, func(t *testing.T) {
			requireDenied(t, patchNode(t, token, manager, row.node, row.patch, row.subresource), row.denied)
		})
	}

	t.Run("our taint removed", func(t *testing.T) {
		foreign := corev1.Taint{Key: "example.com/foreign", Effect: corev1.TaintEffectPreferNoSchedule}
		p.setTaints(t, own, foreign, corev1.Taint{Key: ourTaint, Effect: corev1.TaintEffectPreferNoSchedule})
		require.NoError(t, patchNode(t, token, manager, own, `[{"op":"remove","path":"/spec/taints/1"}]`, ""))
	})

	t.Run("under the names of many field managers, each of which the node would remember", func(t *testing.T) {
		for _, name := range []string{"", "another"} {
			requireDenied(t, patchNode(t, token, name, own, `{}`, "status"), "may write only as field manager "+manager)
		}
	})

	t.Run("what RBAC does not give", func(t *testing.T) {
		for what, err := range map[string]error{
			"delete a node": token.CoreV1().Nodes().Delete(t.Context(), own, metav1.DeleteOptions{DryRun: []string{"All"}}),
			"list nodes":    second(token.CoreV1().Nodes().List(t.Context(), metav1.ListOptions{})),
			"list pods":     second(token.CoreV1().Pods(namespace).List(t.Context(), metav1.ListOptions{})),
			"list secrets":  second(token.CoreV1().Secrets(namespace).List(t.Context(), metav1.ListOptions{})),
		} {
			require.True(t, apierrors.IsForbidden(err), "%s: %v", what, err)
		}
	})

	t.Run("a token of the same account that is bound to no pod", func(t *testing.T) {
		unbound := p.bearer(t, namespace, pod.Spec.ServiceAccountName, nil)
		requireDenied(t, patchNode(t, unbound, manager, own, `{}`, "status"), "may change only the node that its pod runs on")
	})
	p.requireExpressionsInOrder(t)
	proven.Store("signals", "installed, and the policy is in force")
}

// Its token exists only while helm uninstall runs, and is not bound to a node.
func TestTheTokenOfUninstallIsGoodForTheRemovalOfConditionsOnly(t *testing.T) {
	t.Parallel()
	p := start(t)
	if !p.Policies() {
		t.Skipf("NOT PROVEN: what uninstall's token may do, since Kubernetes %s has no ValidatingAdmissionPolicies and the chart refuses signals there. Run: make test-kubernetes", p.Version)
	}
	const namespace = "uninstall"
	const manager = namespace + "/" + chart.Release
	node := p.Nodes[len(p.Nodes)-1].Name
	p.Namespace(t, namespace, nil)
	hooks := chart.Render(t, signals, "--namespace", namespace, "--kube-version", p.Version).Hooks
	account := p.createHooks(t, namespace, hooks)

	written := []byte(`{"apiVersion":"v1","kind":"Node","status":{"conditions":[{"type":"IstioReady","status":"True"}]}}`)
	apply := metav1.PatchOptions{FieldManager: manager, Force: new(true)}
	_, err := p.Client.CoreV1().Nodes().Patch(t.Context(), node, types.ApplyPatchType, written, apply, "status")
	require.NoError(t, err)
	uninstall := p.bearer(t, namespace, account, nil)
	p.waitForPolicy(t, func() error { return patchNode(t, uninstall, "x", node, `{}`, "status") })
	for name, row := range map[string][2]string{
		"a condition of ours":       {`{"status":{"conditions":[{"type":"IstioReady","status":"False"}]}}`, "may only remove the condition IstioReady"},
		"another condition":         {`{"status":{"conditions":[{"type":"Ready","status":"False"}]}}`, "may change no condition but IstioReady"},
		"another condition removed": {`{"status":{"conditions":[{"type":"DiskPressure","$patch":"delete"}]}}`, "may change no condition but IstioReady"},
		"a label":                   {`{"metadata":{"labels":{"a":"b"}}}`, "may not change a node's metadata"},
		"capacity":                  {`{"status":{"capacity":{"cpu":"1"}}}`, "may change nothing of a node's status but its conditions"},
	} {
		t.Run(name, func(t *testing.T) {
			requireDenied(t, patchNode(t, uninstall, manager, node, row[0], "status"), row[1])
		})
	}
	require.Equal(t, corev1.ConditionTrue, p.istioReady(t, node))
	_, err = uninstall.CoreV1().Nodes().Patch(t.Context(), node, types.ApplyPatchType, []byte(`{"apiVersion":"v1","kind":"Node"}`), apply, "status")
	require.NoError(t, err)
	require.Empty(t, p.istioReady(t, node))
	p.requireExpressionsInOrder(t)
}

func second[T any](_ T, err error) error { return err }

// createHooks creates what uninstall's hooks bring besides the Job, and returns the service account's name.
func (p plane) createHooks(t *testing.T, namespace string, hooks *chart.Objects) string {
	t.Helper()
	ctx := t.Context()
	account, err := p.Client.CoreV1().ServiceAccounts(namespace).Create(ctx, &hooks.ServiceAccounts[0], metav1.CreateOptions{})
	require.NoError(t, err)
	for _, err := range []error{
		second(p.Client.RbacV1().ClusterRoles().Create(ctx, &hooks.ClusterRoles[0], metav1.CreateOptions{})),
		second(p.Client.RbacV1().ClusterRoleBindings().Create(ctx, &hooks.ClusterRoleBindings[0], metav1.CreateOptions{})),
		second(p.Client.AdmissionregistrationV1().ValidatingAdmissionPolicies().Create(ctx, &hooks.Policies[0], metav1.CreateOptions{})),
		second(p.Client.AdmissionregistrationV1().ValidatingAdmissionPolicyBindings().Create(ctx, &hooks.PolicyBindings[0], metav1.CreateOptions{})),
	} {
		require.NoError(t, err)
	}
	return account.Name
}

// setTaints gives a node these taints and no others.
func (p plane) setTaints(t *testing.T, node string, taints ...corev1.Taint) {
	t.Helper()
	require.NoError(t, controlplane.Eventually(t.Context(), func() bool {
		object, err := p.Client.CoreV1().Nodes().Get(t.Context(), node, metav1.GetOptions{})
		require.NoError(t, err)
		object.Spec.Taints = taints
		_, err = p.Client.CoreV1().Nodes().Update(t.Context(), object, metav1.UpdateOptions{})
		return err == nil
	}), node)
	t.Cleanup(func() {
		_, _ = p.Client.CoreV1().Nodes().Patch(context.WithoutCancel(t.Context()), node, types.MergePatchType, []byte(`{"spec":{"taints":null}}`), metav1.PatchOptions{})
	})
}

// istioReady returns the status of a node's condition IstioReady, "" where the node has none.
func (p plane) istioReady(t *testing.T, name string) corev1.ConditionStatus {
	t.Helper()
	node, err := p.Client.CoreV1().Nodes().Get(t.Context(), name, metav1.GetOptions{})
	require.NoError(t, err)
	for _, condition := range node.Status.Conditions {
		if condition.Type == "IstioReady" {
			return condition.Status
		}
	}
	return ""
}

// bearer returns a client that has nothing but a service account's token, bound to an object or, with nil, to none.
func (p plane) bearer(t *testing.T, namespace, account string, bound *authenticationv1.BoundObjectReference) *kubernetes.Clientset {
	t.Helper()
	token, err := p.Client.CoreV1().ServiceAccounts(namespace).CreateToken(t.Context(), account,
		&authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{BoundObjectRef: bound}}, metav1.CreateOptions{})
	require.NoError(t, err)
	config := rest.AnonymousClientConfig(p.Config)
	config.BearerToken = token.Status.Token
	client, err := kubernetes.NewForConfig(config)
	require.NoError(t, err)
	return client
}

// waitForPolicy waits until a patch that a policy must deny is denied: the API server takes note of policies and of roles by and by.
func (p plane) waitForPolicy(t *testing.T, patch func() error) {
	t.Helper()
	var err error
	require.NoError(t, controlplane.Eventually(t.Context(), func() bool {
		err = patch()
		return apierrors.IsInvalid(err)
	}), "the policy is not in force: %v", err)
}

// requireExpressionsInOrder requires that the API server's own check of types has found nothing in the policies.
func (p plane) requireExpressionsInOrder(t *testing.T) {
	t.Helper()
	var policies *admissionv1.ValidatingAdmissionPolicyList
	require.NoError(t, controlplane.Eventually(t.Context(), func() bool {
		var err error
		policies, err = p.Client.AdmissionregistrationV1().ValidatingAdmissionPolicies().List(t.Context(), metav1.ListOptions{})
		require.NoError(t, err)
		for _, policy := range policies.Items {
			if policy.Status.ObservedGeneration != policy.Generation || policy.Status.TypeChecking == nil {
				return false
			}
		}
		return true
	}), "no controller looks at the policies")
	for _, policy := range policies.Items {
		require.Empty(t, policy.Status.TypeChecking.ExpressionWarnings, policy.Name)
	}
}

// patchNode patches a node as a field manager, "" for none: with JSON patch if the patch is a list, else by strategic merge.
func patchNode(t *testing.T, client *kubernetes.Clientset, manager, node, patch, subresource string) error {
	t.Helper()
	kind := types.StrategicMergePatchType
	if strings.HasPrefix(patch, "[") {
		kind = types.JSONPatchType
	}
	var subresources []string
	if subresource != "" {
		subresources = []string{subresource}
	}
	_, err := client.CoreV1().Nodes().Patch(t.Context(), node, kind, []byte(patch), metav1.PatchOptions{FieldManager: manager}, subresources...)
	return err
}

// requireDenied requires that the policy denied a patch with this message; "": that it did not.
func requireDenied(t *testing.T, err error, message string) {
	t.Helper()
	if message == "" {
		require.NoError(t, err)
		return
	}
	require.True(t, apierrors.IsInvalid(err), "%v", err)
	require.ErrorContains(t, err, "denied request: "+message)
}
