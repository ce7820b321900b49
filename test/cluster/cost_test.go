package cluster

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/istio-os-init/istio-os-init/test/internal/lab"
)

// A fleet of a thousand nodes that all fail stays under 50 writes a second: three a minute for each. The kubelet tells the first 25 events of
// a pod and then one in five minutes (client-go's EventCorrelator), so the first rounds cost more than the later ones: they have to have gone by.
func TestANodeThatIsNotProvenCostsAtMostThreeWritesAMinute(t *testing.T) {
	release := lab.NewRelease(t)
	require.NoError(t, release.Upgrade(onOneNode(t)+unprovable))
	began := time.Now()
	t.Parallel() // behind the tests that are not
	time.Sleep(time.Until(began.Add(5 * time.Minute)))
	node := lab.Nodes(t)[0]
	// from one round to the next: what each costs, and the pause after it
	next := func() (int64, time.Time) {
		before, deadline := lab.Rounds(release.Pods()[node]), time.Now().Add(15*time.Minute)
		for lab.Rounds(release.Pods()[node]) <= before {
			require.True(t, time.Now().Before(deadline), "it does not prove again")
			time.Sleep(time.Second)
		}
		return lab.AuditEnd(t), time.Now()
	}
	begin, first := next()
	_, last := next()
	measured := last.Sub(first)
	var writes []string
	for _, request := range lab.Requests(t, begin, release.Namespace) {
		if request.Stage == "ResponseComplete" && request.Received.Before(last) && request.Verb != "get" && request.Verb != "list" && request.Verb != "watch" {
			writes = append(writes, request.Received.Format(time.TimeOnly)+" "+request.User.Username+" "+request.Verb+" "+request.URI)
		}
	}
	t.Logf("%d writes in %v", len(writes), measured.Round(time.Second))
	require.LessOrEqual(t, float64(len(writes)), 3*measured.Minutes(), strings.Join(writes, "\n"))
}

// What every node asks the API server for on account of its pod, a fleet asks a thousand times.
func TestAReadyPodCostsTheAPIServerNothing(t *testing.T) {
	t.Parallel()
	release := lab.NewRelease(t)
	begin := lab.AuditEnd(t)
	require.NoError(t, release.Upgrade(onOneNode(t)))
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
			memory := lab.MainContainer(t, pod).Memory()
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
	// 228,152 measured: what sends verify's traffic is stored twice, as a file of the chart and in its ConfigMap
	require.Less(t, size, 240_000)
}
