package render

import (
	"encoding/json"
	"maps"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/istio-os-init/istio-os-init/test/internal/chart"
)

// What kube-score asks for and the chart does not do, by check and container ("" for the pod), with the reason.
var exceptions = map[string]string{
	"container-image-pull-policy *":                            "the tag names one release of Istio, and the node has it already: a pull could only keep the pod from starting",
	"container-image-tag *":                                    "of the scenario unknown-version, whose subject such a tag is",
	"container-resources *":                                    "no CPU limit by default: throttled, a proof takes longer and proves no more; memory is limited",
	"container-ephemeral-storage-request-and-limit *":          "writes to memory only: a volume of one megabyte for each container",
	"pod-networkpolicy ":                                       "opt-in: verify proves redirection with traffic inside the pod, which no NetworkPolicy governs",
	"container-security-context-user-group-id load":            "uid 0, without which SYS_MODULE is not effective",
	"container-security-context-user-group-id verify":          "uid 0, as istio-init",
	"container-security-context-user-group-id watch":           "uid 0 without a capability: process 1 of the pod has it, and a signal needs the same",
	"container-security-context-user-group-id clean-up":        "uid 0, whose directory /etc/modules-load.d is",
	"container-security-context-user-group-id verify-traffic":  "uid 1337, the proxy's: what it sends is what is redirected to the probe",
	"container-security-context-user-group-id signal":          "gid 1337, the proxy's: what every other sends is redirected by the rules that verify has applied",
	"container-security-context-readonlyrootfilesystem verify": "to the letter istio-init's",
}

func TestKubeScoreAsksForNothingThatHasNoReason(t *testing.T) {
	t.Parallel()
	score := chart.Tool(t, "kube-score")
	minor := "v" + chart.KubeVersion[:strings.LastIndex(chart.KubeVersion, ".")]
	used := map[string]bool{}
	for _, name := range chart.Scenarios(t) {
		manifest, err := chart.Manifest(t, chart.Path(), []string{chart.Scenario(name)})
		require.NoError(t, err)
		command := exec.CommandContext(t.Context(), score, "score", "--kubernetes-version", minor, "--output-format", "json", "-")
		command.Stdin = strings.NewReader(manifest)
		output, err := command.Output()
		if err != nil {
			require.ErrorAs(t, err, new(*exec.ExitError)) // 1: something scored low
		}
		var objects []struct {
			Name   string `json:"object_name"`
			Checks []struct {
				Check    struct{ ID string }
				Grade    int
				Skipped  bool
				Comments []struct{ Path, Summary string }
			}
		}
		require.NoError(t, json.Unmarshal(output, &objects), string(output))
		require.NotEmpty(t, objects)
		for _, object := range objects {
			for _, check := range object.Checks {
				if check.Skipped || check.Grade == 10 {
					continue
				}
				for _, comment := range check.Comments {
					exception := check.Check.ID + " " + comment.Path
					if everywhere := check.Check.ID + " *"; exceptions[everywhere] != "" {
						exception = everywhere
					}
					require.NotEmpty(t, exceptions[exception], "%s of scenario %s: %s: %s", object.Name, name, exception, comment.Summary)
					used[exception] = true
				}
			}
		}
	}
	require.ElementsMatch(t, slices.Collect(maps.Keys(exceptions)), slices.Collect(maps.Keys(used)), "exceptions that nothing needs")
}
