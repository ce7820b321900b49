package lab

import (
	"encoding/json"
	"strings"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
)

// Outcome is what the containers of a pod have found on its node, as `report --json` prints it.
type Outcome struct {
	Node string
	// Status is True, the node can run the mesh; False; or Unknown, not concluded.
	Status string
	Reason string
	// Line is the reason, its subject and its fix; Message the sentences and fixes of all reasons; Error the kernel's own words.
	Line, Message, Error string
	// Round counts the sandboxes that load has run in.
	Round    int
	Backends map[string]string
	Paths    []struct{ Path, Family, Result string }
	// Ambient is whether ambient's rules apply: applies or refused; empty if verify did not ask.
	Ambient      string
	Facts        map[string]string
	Capabilities map[string]bool
	Reasons      []struct{ Reason, Subject, Sentence, Fix string }
	Warnings     []string
	Services     []string
	Modules      []struct{ Name, State string }
	Missing      []struct{ Name, Disk, Modprobe string }
	Rules        []struct{ Kind, Name, Where, Command string }
}

// Outcome asks the release's pod on a node; false while its container watch does not run.
func (r *Release) Outcome(node string) (Outcome, bool) {
	r.t.Helper()
	// a command costs a node more than all else here: none is sent in vain
	if pod, found := r.Pods()[node]; !found || Status(pod, "watch").State.Running == nil {
		return Outcome{}, false
	}
	output, err := r.TryExecIn(node, "watch", "report", "--json")
	if err != nil || !strings.HasSuffix(output, "}\n") { // ended with its container
		return Outcome{}, false
	}
	var outcome Outcome
	decoder := json.NewDecoder(strings.NewReader(output))
	decoder.DisallowUnknownFields()
	require.NoError(r.t, decoder.Decode(&outcome), output)
	return outcome, true
}

// WaitRefused waits until a node is found unable to run the mesh, and returns what was found.
func (r *Release) WaitRefused(node string) Outcome {
	r.t.Helper()
	var outcome Outcome
	r.WaitFor("nothing is concluded about "+node, func() bool {
		var found bool
		outcome, found = r.Outcome(node)
		if found && outcome.Status != "False" {
			time.Sleep(time.Second)
		}
		return found && outcome.Status == "False"
	})
	return outcome
}

// Rounds returns in how many sandboxes of a pod load has run, as the pod's status says.
func Rounds(pod corev1.Pod) int {
	if load := Status(pod, "load"); load.Name != "" {
		return int(load.RestartCount) + 1
	}
	return 0
}
