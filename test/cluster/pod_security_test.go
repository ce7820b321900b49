package cluster

import (
	"context"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/istio-os-init/istio-os-init/test/internal/chart"
	"github.com/istio-os-init/istio-os-init/test/internal/lab"
)

// Not parallel: make status knows only the release that users are told to make.
func TestANamespaceWhichRefusesThePodsIsNamedWithTheRemedy(t *testing.T) {
	const label = "pod-security.kubernetes.io/enforce"
	_, _ = lab.TryShell(t, "helm uninstall istio-os-init --namespace istio-system --wait")
	_, _ = lab.TryShell(t, "kubectl create namespace istio-system")
	lab.Shell(t, "kubectl label --overwrite namespace istio-system "+label+"=baseline")
	namespaces := lab.Client(t).CoreV1().Namespaces()
	t.Cleanup(func() {
		patch := []byte(`{"metadata": {"labels": {"` + label + `": null}}}`)
		_, err := namespaces.Patch(context.WithoutCancel(t.Context()), "istio-system", types.MergePatchType, patch, metav1.PatchOptions{})
		require.NoError(t, err)
	})
	defer func() { _, _ = lab.TryShell(t, "helm uninstall istio-os-init --namespace istio-system --wait") }()

	notes := lab.Shell(t, "helm install istio-os-init ./charts/istio-os-init --namespace istio-system --values "+lab.Values(t))
	require.Contains(t, notes, "WARNING: the label "+label+"=baseline of namespace istio-system refuses the pods")
	command := func(part string) string {
		found := regexp.MustCompile(`(?m)^  (kubectl .*` + part + `.*)$`).FindStringSubmatch(notes)
		require.NotNil(t, found, notes)
		return found[1]
	}
	asked, remedy := command("get events .*FailedCreate"), command(`\blabel `)

	cause := `violates PodSecurity "baseline:latest"`
	require.Eventually(t, func() bool { return strings.Contains(lab.Shell(t, asked), cause) }, 30*time.Second, time.Second)
	table, err := lab.TryShell(t, "make status")
	require.Error(t, err, table)
	for _, node := range lab.Nodes(t) {
		require.Regexp(t, `(?m)^`+node+` .* no pod `, table)
		require.Regexp(t, `(?m)^`+node+`: .*`+regexp.QuoteMeta(cause)+`.* Fix: `+regexp.QuoteMeta(remedy)+`$`, table)
	}

	lab.Shell(t, remedy)
	// by itself the controller tries again too, at intervals that have grown by now
	lab.Shell(t, "kubectl --namespace istio-system rollout restart daemonset/istio-os-init")
	lab.Shell(t, "kubectl --namespace istio-system rollout status daemonset/istio-os-init --timeout 120s")
	require.NotContains(t, lab.Shell(t, "helm upgrade istio-os-init ./charts/istio-os-init --namespace istio-system --values "+lab.Values(t)), "WARNING: the label")
}

// The notes read the namespace, which such a person may.
func TestWhoMayAdministerTheNamespaceAloneCanInstall(t *testing.T) {
	t.Parallel()
	release := lab.NewRelease(t)
	release.CreateNamespace()
	user := "admin-of-" + release.Namespace
	_, err := lab.Client(t).RbacV1().RoleBindings(release.Namespace).Create(t.Context(), &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "admin"},
		RoleRef:    rbacv1.RoleRef{APIGroup: "rbac.authorization.k8s.io", Kind: "ClusterRole", Name: "admin"},
		Subjects:   []rbacv1.Subject{{APIGroup: "rbac.authorization.k8s.io", Kind: "User", Name: user}},
	}, metav1.CreateOptions{})
	require.NoError(t, err)
	lab.Shell(t, fmt.Sprintf("helm install istio-os-init ./charts/istio-os-init --namespace %s --kube-as-user %s --values %s --values %s", release.Namespace, user, lab.Values(t), chart.ValuesFile(t, lab.OnOneNode(t))))
	release.WaitReadyOn(1)
}
