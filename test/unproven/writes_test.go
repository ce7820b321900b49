// Package unproven asks one question: what does a node cost the API server that stays unproven? It needs the lab's cluster for up to 20
// minutes, nearly all of which it waits, so that other tests can run beside it.
package unproven

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/istio-os-init/istio-os-init/test/internal/lab"
)

// A fleet of a thousand nodes that all fail stays under 50 writes a second: three a minute for each. The kubelet tells the first 25 events of
// a pod and then one in five minutes (client-go's EventCorrelator), so the first rounds cost more than the later ones: they have to have gone by.
func TestANodeThatIsNotProvenCostsAtMostThreeWritesAMinute(t *testing.T) {
	release := lab.NewRelease(t)
	require.NoError(t, release.Upgrade(lab.OnOneNode(t)+lab.Unprovable))
	time.Sleep(5 * time.Minute)
	node := lab.Nodes(t)[0]
	// From the pause after one round to the pause after the next, when nothing is written: the writes of a round come in one burst, and a window
	// that begins or ends in a burst would count more or less than a round's.
	const intoThePause = 150 * time.Second
	pause := func() (int64, time.Time) {
		before, deadline := lab.Rounds(release.Pods()[node]), time.Now().Add(15*time.Minute)
		for lab.Rounds(release.Pods()[node]) <= before {
			require.True(t, time.Now().Before(deadline), "it does not prove again")
			time.Sleep(5 * time.Second)
		}
		time.Sleep(intoThePause)
		return lab.AuditEnd(t), time.Now()
	}
	begin, first := pause()
	_, last := pause()
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
