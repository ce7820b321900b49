package lab

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/istio-os-init/istio-os-init/test/internal/chart"
)

// Shell runs a command line in the repository with the pinned helm, the lab's kubeconfig and the control plane's kubectl, and
// requires that it succeeds. It returns what the command prints.
func Shell(t *testing.T, command string) string {
	t.Helper()
	return ShellIn(t, chart.Root(), command)
}

// ShellIn is Shell in another directory.
func ShellIn(t *testing.T, dir, command string) string {
	t.Helper()
	output, err := shell(t, dir, command)
	require.NoError(t, err, "%s:\n%s", command, output)
	return output
}

// TryShell is Shell for a command that may fail.
func TryShell(t *testing.T, command string) (string, error) {
	t.Helper()
	return shell(t, chart.Root(), command)
}

func shell(t *testing.T, dir, command string) (string, error) {
	t.Helper()
	chart.UseHelm(t)
	bin := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(bin, "kubectl"), []byte(`#!/bin/sh
exec docker exec -i `+ControlPlane+` kubectl --kubeconfig=/etc/kubernetes/admin.conf "$@"
`), 0o755))
	if strings.HasPrefix(command, "ct ") { // which asks git
		require.NoError(t, os.Symlink(chart.Tool(t, "ct"), filepath.Join(bin, "ct")))
		dir = chart.Root()
	}
	process := exec.CommandContext(t.Context(), "/bin/sh", "-c", command)
	process.Dir = dir
	process.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"), "KUBECONFIG="+Kubectl(t, "").ConfigPath)
	output, err := process.CombinedOutput()
	return string(output), err
}
