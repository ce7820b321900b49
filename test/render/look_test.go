package render

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/istio-os-init/istio-os-init/test/internal/chart"
)

// What the mode takes away is in security_test.go and volumes_test.go, which every scenario runs through.
func TestLookOnlyChangesLoadAlone(t *testing.T) {
	t.Parallel()
	loads, looks := chart.Render(t, ""), chart.RenderFiles(t, []string{chart.Scenario("look-only")})
	for _, name := range []string{"verify", "verify-traffic", "watch"} {
		require.Equal(t, loads.Container(t, name), looks.Container(t, name))
	}
	require.Equal(t, loads.ConfigMap(t), looks.ConfigMap(t), "the plan, and what reads it")
	require.Equal(t, loads.Tests, looks.Tests)
	variables := env(looks.Container(t, "load"))
	require.Equal(t, map[string]string{"ISTIO_OS_INIT_NAMES_DECIDE": "false", "ISTIO_OS_INIT_LOAD": "false"}, variables, "no owner, so no file is touched")
	require.Equal(t, looks, chart.Render(t, "{load: {enabled: false}, persist: {enabled: false}}"), "persist has no effect")
}
