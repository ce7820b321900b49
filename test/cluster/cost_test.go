package cluster

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/istio-os-init/istio-os-init/test/internal/lab"
)

// What every node asks the API server for on account of its pod, a fleet asks a thousand times.
func TestAReadyPodCostsTheAPIServerNothing(t *testing.T) {
	t.Parallel()
	release := lab.NewRelease(t)
	begin := lab.AuditEnd(t)
	require.NoError(t, release.Upgrade(lab.OnOneNode(t)))
	release.WaitReadyOn(1)

	// a kubelet reads the ConfigMap by a watch, and ends it when it sees that nothing can change
	release.WaitFor("a kubelet goes on watching", func() bool {
		time.Sleep(time.Second)
		begun, ended := map[string]string{}, map[string]bool{}
		for _, request := range lab.Requests(t, begin, release.Namespace) {
			if request.Object.Resource == "configmaps" && strings.HasPrefix(request.User.Username, "system:node:") {
				begun[request.ID] = request.User.Username
				ended[request.ID] = ended[request.ID] || request.Stage == "ResponseComplete"
			}
		}
		nodes := map[string]bool{}
		for id, node := range begun {
			nodes[node] = true
			if !ended[id] {
				return false
			}
		}
		return len(nodes) == 1
	})

	steady := lab.AuditEnd(t)
	time.Sleep(20 * time.Second)
	var asked []string
	for _, request := range lab.Requests(t, steady, release.Namespace) {
		asked = append(asked, request.User.Username+" "+request.Verb+" "+request.URI)
	}
	require.Empty(t, asked)
	t.Run("and its node little memory", func(t *testing.T) {
		for node, pod := range release.Pods() {
			memory := lab.ContainerOf(t, pod, "watch").Memory()
			t.Logf("%s: %.2f MiB", node, memory)
			require.Less(t, memory, 3.0, node) // a shell and its sleep: 2
		}
	})
}

// Helm keeps ten revisions, and the API server refuses a Secret of more than a mebibyte. docs/cost.md says what a revision consists of.
func TestARevisionInEtcdIsFarFromTheLimit(t *testing.T) {
	t.Parallel()
	release := lab.NewRelease(t)
	require.NoError(t, release.Upgrade("nodeSelector: {kubernetes.io/hostname: none}"))
	revisions, err := lab.Client(t).CoreV1().Secrets(release.Namespace).List(t.Context(), metav1.ListOptions{LabelSelector: "owner=helm"})
	require.NoError(t, err)
	require.Len(t, revisions.Items, 1)
	size := len(revisions.Items[0].Data["release"])
	t.Logf("%d bytes", size)
	// 235,632 measured: what sends verify's traffic is stored twice, as a file of the chart and in its ConfigMap
	require.Less(t, size, 240_000)
}
