package cluster

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/istio-os-init/istio-os-init/test/internal/chart"
	"github.com/istio-os-init/istio-os-init/test/internal/lab"
)

// poolsOfNodes is for the label `pool`, by which mesh-instance chooses its nodes.
var poolsOfNodes sync.Mutex

// A mesh chart that has ours twice. Its image comes from the globals that Istio's own charts read.
func TestTwoPoolsOfOneMeshArePreparedEachByItsOwnInstance(t *testing.T) {
	t.Parallel()
	poolsOfNodes.Lock()
	t.Cleanup(poolsOfNodes.Unlock) // behind that of the labels
	client, release := lab.Client(t), lab.NewRelease(t)
	owner := map[string]string{}
	for i, instance := range []string{"istio-os-init", "istio-os-init-edge"} {
		node := lab.Nodes(t)[i]
		owner[node] = instance
		lab.Label(t, node, "pool", release.Namespace+"-"+instance)
	}
	values := fmt.Sprintf("istio-os-init: {nodeSelector: {pool: %[1]s-istio-os-init}}\nedge: {nodeSelector: {pool: %[1]s-istio-os-init-edge}}", release.Namespace)
	require.NoError(t, release.UpgradeTo(chart.Mesh(t), values, "--values", lab.MeshValues(t)))

	pods := func() []corev1.Pod {
		list, err := client.CoreV1().Pods(release.Namespace).List(t.Context(), metav1.ListOptions{})
		require.NoError(t, err)
		return list.Items
	}
	release.WaitFor("not every pool is proven", func() bool {
		ready := 0
		for _, pod := range pods() {
			if lab.Ready(pod) {
				ready++
			}
		}
		return ready == len(owner)
	})
	require.Len(t, pods(), len(owner), "one pod for a node of a pool, none for the others")
	for _, pod := range pods() {
		require.Equal(t, owner[pod.Spec.NodeName], pod.OwnerReferences[0].Name, "%s is prepared by the other pool's instance", pod.Spec.NodeName)
		mode := map[string]string{"istio-os-init": "REDIRECT", "istio-os-init-edge": "TPROXY"}[owner[pod.Spec.NodeName]]
		require.Contains(t, chart.ContainerOf(t, &pod.Spec, "verify").Args, mode, pod.Spec.NodeName)
	}

	output, err := release.Test()
	require.NoError(t, err, output)
	require.Equal(t, len(owner), strings.Count(output, "RulesApplied: "), output)
	for _, name := range owner {
		require.NoError(t, client.CoreV1().Pods(release.Namespace).Delete(t.Context(), name+"-test", metav1.DeleteOptions{}))
	}

	for node, instance := range owner {
		lab.RunOn(t, node, "printf '# owner: "+release.Namespace+"/"+instance+"\\n' >"+lab.Persisted)
	}
	release.Uninstall()
	for node := range owner {
		require.Equal(t, "gone", lab.RunOn(t, node, "grep -qs "+release.Namespace+" "+lab.Persisted+" || echo gone"), node)
	}
	release.WaitFor("uninstall leaves something", func() bool { return len(release.Left()) == 0 })
}
