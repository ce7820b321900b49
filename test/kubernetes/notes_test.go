package kubernetes

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/istio-os-init/istio-os-init/test/internal/chart"
)

// OpenShift's admission adds the project's node selector, or the cluster's where the project sets none, to each pod. Its code is no part of
// Kubernetes. Here: that the notes read the namespace as it is.
func TestOnOpenShiftTheNotesWarnOfTheNamespacesNodeSelector(t *testing.T) {
	t.Parallel()
	p := start(t)
	const annotation = "openshift.io/node-selector"
	for name, row := range map[string]struct {
		annotations map[string]string
		want        string
	}{
		"no-selector":  {nil, "NOTE: if this cluster has a default node selector, it keeps the pods off"},
		"own-selector": {map[string]string{annotation: "pool=mesh"}, "WARNING: the annotation openshift.io/node-selector=pool=mesh of namespace own-selector keeps the pods off"},
		"lifted":       {map[string]string{annotation: ""}, ""},
	} {
		p.namespace(t, name, row.annotations)
		notes, err := p.helm(t, name, "install", "--dry-run=server", "--values", chart.ValuesFile(t, "{global: {platform: openshift}, openshift: {scc: {create: false}}}"), chart.Release, chart.Path())
		require.NoError(t, err, notes)
		remedy := "kubectl annotate --overwrite namespace " + name + " openshift.io/node-selector="
		if row.want == "" {
			require.NotContains(t, notes, "node-selector")
			continue
		}
		require.Contains(t, notes, row.want)
		require.Contains(t, notes, remedy)
	}
}
