package lab

import (
	"bytes"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/istio-os-init/istio-os-init/test/internal/chart"
)

// RefusedRuleImage builds the lab's image with one rule more that the nodes' kernel refuses, loads it into every node and
// returns its name without the tag, and the tag.
func RefusedRuleImage(t *testing.T) (name, tag string) {
	t.Helper()
	name, tag = "localhost/istio-os-init/refused-rule", "negative-control"
	base := chart.RenderFiles(t, []string{Values(t)}).Container(t, "verify").Image
	run(t, "docker", "build", "--quiet", "--build-arg", "IMAGE="+base, "--tag", name+":"+tag,
		filepath.Join(chart.Root(), "test", "internal", "refusedrule"))
	archive := run(t, "docker", "save", name+":"+tag)
	for _, node := range Nodes(t) {
		if node == vmName { // not a container of Docker's
			run(t, filepath.Join(chart.Root(), "scripts", "lab", "node"), "load", name+":"+tag)
			continue
		}
		load := exec.CommandContext(t.Context(), "docker", "exec", "-i", node, "ctr", "--namespace", "k8s.io", "images", "import", "-")
		load.Stdin = bytes.NewReader(archive)
		output, err := load.CombinedOutput()
		require.NoError(t, err, string(output))
	}
	return name, tag
}

func run(t *testing.T, command ...string) []byte {
	t.Helper()
	var stderr strings.Builder
	process := exec.CommandContext(t.Context(), command[0], command[1:]...)
	process.Stderr = &stderr
	output, err := process.Output()
	require.NoError(t, err, "%s: %s", strings.Join(command, " "), &stderr)
	return output
}
