package lab

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/yaml"
)

// OpenShiftAPI gives the cluster the API of OpenShift's SecurityContextConstraints until the test ends, and returns the path of
// its objects. Nothing in the lab admits pods by them. While it is there every release of the chart uses it: not for tests that
// run beside others.
func OpenShiftAPI(t *testing.T) string {
	t.Helper()
	module, err := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Dir}}", "github.com/openshift/api").Output()
	require.NoError(t, err)
	definition, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(module)), "security", "v1", "zz_generated.crd-manifests",
		"0000_03_config-operator_01_securitycontextconstraints.crd.yaml"))
	require.NoError(t, err)
	definition, err = yaml.YAMLToJSON(definition)
	require.NoError(t, err)

	const (
		definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
		objects     = "/apis/security.openshift.io/v1/securitycontextconstraints"
	)
	client := Client(t).RESTClient()
	served := func(ctx context.Context) error { return client.Get().AbsPath(objects).Do(ctx).Error() }
	t.Cleanup(func() {
		ctx := context.WithoutCancel(t.Context()) // the test's own context ends before its clean-up
		require.NoError(t, client.Delete().AbsPath(definitions, "securitycontextconstraints.security.openshift.io").Do(ctx).Error())
		require.Eventually(t, func() bool { return apierrors.IsNotFound(served(ctx)) }, Patience, 100*time.Millisecond, "the API does not go")
	})
	require.NoError(t, client.Post().AbsPath(definitions).SetHeader("Content-Type", "application/json").Body(definition).Do(t.Context()).Error())
	require.Eventually(t, func() bool { return served(t.Context()) == nil }, Patience, 100*time.Millisecond, "the API does not come")
	return objects
}
