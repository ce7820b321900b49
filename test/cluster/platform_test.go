package cluster

import (
	"testing"

	securityv1 "github.com/openshift/api/security/v1"
	"github.com/stretchr/testify/require"
	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/istio-os-init/istio-os-init/test/internal/chart"
	"github.com/istio-os-init/istio-os-init/test/internal/lab"
)

// The lab's network enforces no policy, and its API server admits the priority class without a quota: what is proven is that neither
// stands in the way of the release or of its uninstall.
func TestPoliciesAndQuotasHinderNeitherTheReleaseNorItsUninstall(t *testing.T) {
	t.Parallel()
	release := lab.NewRelease(t)
	require.NoError(t, release.Upgrade(lab.OnOneNode(t)+"global: {platform: gke, networkPolicy: {enabled: true}}"))
	release.WaitReadyOn(1)
	require.Subset(t, release.Left(), []string{"networkpolicies/istio-os-init", "resourcequotas/istio-os-init"})
	require.Contains(t, release.UninstallSays(), "clean: ")
	release.WaitFor("uninstall leaves something", func() bool { return len(release.Left()) == 0 })
}

// Not parallel: while the cluster has OpenShift's API every release uses it. What admits pods by it is OpenShift's own and not here;
// test/render compares the two.
func TestTheAPIOfOpenShiftTakesTheSCCsAndUninstallLeavesNone(t *testing.T) {
	api := lab.OpenShiftAPI(t)
	sccs := func() (names []string) {
		raw, err := lab.Client(t).RESTClient().Get().AbsPath(api).DoRaw(t.Context())
		require.NoError(t, err)
		for _, scc := range chart.DecodeStrict[securityv1.SecurityContextConstraintsList](t, string(raw)).Items {
			names = append(names, scc.Name)
		}
		return names
	}
	release := lab.NewRelease(t)
	require.NoError(t, release.Upgrade(lab.OnOneNode(t))) // the API is there: that is enough
	release.WaitReadyOn(1)
	name := release.Namespace + "." + chart.Release
	require.Equal(t, []string{name}, sccs())
	for _, pod := range release.Pods() {
		require.Equal(t, name, pod.Annotations[securityv1.RequiredSCCAnnotation])
	}
	for account, want := range map[string]bool{chart.Release: true, "default": false} {
		review, err := lab.Client(t).AuthorizationV1().SubjectAccessReviews().Create(t.Context(), &authorizationv1.SubjectAccessReview{
			Spec: authorizationv1.SubjectAccessReviewSpec{
				User: "system:serviceaccount:" + release.Namespace + ":" + account,
				ResourceAttributes: &authorizationv1.ResourceAttributes{
					Namespace: release.Namespace, Verb: "use", Group: securityv1.GroupName, Resource: "securitycontextconstraints", Name: name,
				},
			},
		}, metav1.CreateOptions{})
		require.NoError(t, err)
		require.Equal(t, want, review.Status.Allowed, account)
	}

	require.NoError(t, release.Upgrade(lab.OnOneNode(t)+"repair: {enabled: false}"), "an upgrade of what the API has made of it")
	require.Contains(t, release.UninstallSays(), "clean: ")
	require.Empty(t, sccs(), "uninstall leaves some")
}
