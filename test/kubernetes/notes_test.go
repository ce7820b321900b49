package kubernetes

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/istio-os-init/istio-os-init/test/internal/chart"
	"github.com/istio-os-init/istio-os-init/test/internal/controlplane"
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
		p.Namespace(t, name, row.annotations)
		notes, err := p.Helm(t, name, "install", "--dry-run=server", "--values", chart.ValuesFile(t, "{global: {platform: openshift}, openshift: {scc: {create: false}}}"), chart.Release, chart.Path())
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

// The controller counts a node without a Ready pod against maxUnavailable, proven or not before.
func TestTheNotesOfAnUpgradeSayThatUnprovenNodesStopIt(t *testing.T) {
	t.Parallel()
	p := start(t)
	const namespace = "unproven"
	p.Install(t, namespace, "")
	notes := func(values string) string {
		output, err := p.Helm(t, namespace, "upgrade", "--dry-run=server", "--values", chart.ValuesFile(t, values), chart.Release, chart.Path())
		require.NoError(t, err, output)
		return output
	}
	pod := p.RolledOut(t, namespace, chart.Release)[p.Nodes[0].Name]
	require.NotContains(t, notes(""), "cannot run the mesh before")

	for i := range pod.Status.Conditions {
		pod.Status.Conditions[i].Status = corev1.ConditionFalse
	}
	_, err := p.Client.CoreV1().Pods(namespace).UpdateStatus(t.Context(), &pod, metav1.UpdateOptions{})
	require.NoError(t, err)
	require.NoError(t, controlplane.Eventually(t.Context(), func() bool {
		daemonSet, err := p.Client.AppsV1().DaemonSets(namespace).Get(t.Context(), chart.Release, metav1.GetOptions{})
		require.NoError(t, err)
		return daemonSet.Status.NumberUnavailable == 1
	}), "the controller does not count the pod as unavailable")
	one := 100 / len(p.Nodes) // per cent that allow one node, rounded up as the controller does; one more allows two
	percent := func(share int) string {
		return fmt.Sprintf("updateStrategy: {rollingUpdate: {maxUnavailable: %d%%}}", share)
	}
	for values, want := range map[string]string{
		"": fmt.Sprintf("WARNING: 1 of %d nodes have no Ready pod before this upgrade.", len(p.Nodes)),
		"updateStrategy: {rollingUpdate: {maxUnavailable: 1}}": "maxUnavailable=2",
		percent(one):     fmt.Sprintf("only while fewer than 1 nodes have no Ready pod (updateStrategy.rollingUpdate.maxUnavailable is %d%%)", one),
		percent(one + 1): "",
		"updateStrategy: {rollingUpdate: {maxUnavailable: 2}}":  "",
		"updateStrategy: {type: OnDelete, rollingUpdate: null}": "",
	} {
		said := notes(values)
		if want == "" {
			require.NotContains(t, said, "cannot run the mesh before", values)
			continue
		}
		require.Contains(t, said, want, values)
	}
}
