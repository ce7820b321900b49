package lab

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/istio-os-init/istio-os-init/test/internal/openshiftapi"
)

// OpenShiftAPI gives the cluster the API of OpenShift's SecurityContextConstraints until the test ends, and returns the path of
// its objects. Nothing in the lab admits pods by them. While it is there every release of the chart uses it: not for tests that
// run beside others.
func OpenShiftAPI(t *testing.T) string {
	t.Helper()
	client := Client(t).RESTClient()
	t.Cleanup(func() {
		require.NoError(t, openshiftapi.Remove(context.WithoutCancel(t.Context()), client, Patience)) // the test's own context ends before its clean-up
	})
	require.NoError(t, openshiftapi.Serve(t.Context(), client, Patience))
	return openshiftapi.Path
}
