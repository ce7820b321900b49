package lab

import (
	"bytes"
	"os"
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
	buildOnTop(t, filepath.Join(chart.Root(), "test", "internal", "refusedrule"), name+":"+tag)
	archive := run(t, "docker", "save", name+":"+tag)
	for _, node := range Containers(t) {
		load := exec.CommandContext(t.Context(), "docker", "exec", "-i", node, "ctr", "--namespace", "k8s.io", "images", "import", "-")
		load.Stdin = bytes.NewReader(archive)
		output, err := load.CombinedOutput()
		require.NoError(t, err, string(output))
	}
	return name, tag
}

// CNIAgentImage builds the mesh's image with the stand-in for Istio's CNI agent in PATH and a kubelet of root's in /host/proc, loads it onto
// the VM and returns its name.
func (vm *VM) CNIAgentImage() string {
	vm.t.Helper()
	const name = "localhost/istio-os-init/cni-agent-stand-in:lab"
	dir := vm.t.TempDir()
	run(vm.t, "cp", chart.Tool(vm.t, "cni-agent-stand-in"), filepath.Join(dir, "cni-agent-stand-in"))
	// with nftables the agent looks for the kubelet's user in the host's proc, which SELinux hides from a confined container
	kubelet := filepath.Join(dir, "proc", "1")
	require.NoError(vm.t, os.MkdirAll(kubelet, 0o755))
	for file, content := range map[string]string{
		filepath.Join(kubelet, "comm"): "kubelet\n", filepath.Join(kubelet, "cmdline"): "/usr/bin/kubelet\x00", filepath.Join(kubelet, "status"): "Uid:\t0\t0\t0\t0\n",
		filepath.Join(dir, "Dockerfile"): "ARG IMAGE\nFROM ${IMAGE}\nCOPY cni-agent-stand-in /usr/local/bin/\nCOPY proc /host/proc\n",
	} {
		require.NoError(vm.t, os.WriteFile(file, []byte(content), 0o644))
	}
	buildOnTop(vm.t, dir, name)
	run(vm.t, filepath.Join(chart.Root(), "scripts", "lab", "node"), "load", name)
	return name
}

// buildOnTop builds an image on top of the mesh's, from a folder whose Dockerfile takes that as IMAGE.
func buildOnTop(t *testing.T, folder, image string) {
	t.Helper()
	base := chart.RenderFiles(t, []string{Values(t)}).Container(t, "verify").Image
	run(t, "docker", "build", "--quiet", "--build-arg", "IMAGE="+base, "--tag", image, folder)
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
