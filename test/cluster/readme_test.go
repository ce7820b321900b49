package cluster

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/istio-os-init/istio-os-init/test/internal/chart"
	"github.com/istio-os-init/istio-os-init/test/internal/lab"
)

// Not parallel: these use the release that users are told to make, and run before the tests that are.

func TestMakeUpProvesEveryNodeAndIsANoOpTheSecondTime(t *testing.T) {
	cure := regexp.MustCompile(`(?m)^istio-os-init-vm: load has loaded .*xt_owner.*, which istio-init needs`)
	t.Run("on a node whose modules are not loaded it says what load has loaded", func(t *testing.T) {
		vm := lab.TheVM(t)
		_, _ = run(t, "helm uninstall istio-os-init --namespace istio-system --wait")
		vm.Unload()
		require.Regexp(t, cure, shell(t, "make up"))
	})
	first := shell(t, "make up")
	requireTable(t, first)

	start := time.Now()
	second := shell(t, "make up")
	took := time.Since(start)
	t.Logf("make up again: %v", took.Round(time.Millisecond))
	requireTable(t, second)
	require.Less(t, took, 20*time.Second)

	requireTable(t, shell(t, "make status"))
}

// requireTable requires the table's head and a proven row for each node.
func requireTable(t *testing.T, output string) {
	t.Helper()
	require.Regexp(t, `(?m)^NODE +OS IMAGE +KERNEL +BACKEND +VERDICT +TIME$`, output)
	for _, node := range lab.Nodes(t) {
		require.Regexp(t, `(?m)^`+node+` .* (nft|legacy|native-nft) +Ready +\d+ s$`, output)
	}
}

// Every line of the pages' sh blocks is run, but those that run this test or take its cluster away: scripts/test is
// `make test`, and ends with `make down`.
func TestEveryCommandOfThePagesWorks(t *testing.T) {
	elsewhere := map[string]bool{"make up": true, "make status": true, "make check": true, "make test": true}
	targets := shell(t, "make help")
	// what the lab's image is, for each release that a page makes; all else as a user types it
	values := map[string]string{"helm install istio-os-init ": lab.Values(t), "helm install mesh ": lab.MeshValues(t)}
	for i, pool := range []string{"core", "edge"} { // those of mesh-instance
		label(t, lab.Nodes(t)[i], pool)
	}
	for _, page := range []string{"README.md", "charts/istio-os-init/README.md", "charts/istio-os-init/docs/uses.md"} {
		content, err := os.ReadFile(filepath.Join(chart.Root(), page))
		require.NoError(t, err)
		dir, commands := chart.Workspace(t), 0
		_, _ = run(t, "helm uninstall istio-os-init --namespace istio-system --wait") // where a page before this one has installed it
		for _, block := range regexp.MustCompile("(?s)```sh\n(.*?)```").FindAllStringSubmatch(string(content), -1) {
			for command := range strings.Lines(block[1]) {
				command = strings.TrimSpace(command)
				commands++
				if elsewhere[command] {
					require.Contains(t, targets, command)
					continue
				}
				require.NotContains(t, command, "make ", "who runs it?")
				for install, file := range values {
					if strings.HasPrefix(command, install) {
						command += " --values " + file
					}
				}
				shellIn(t, dir, command)
			}
		}
		require.NotZero(t, commands, page)
	}
}

// shell runs a command line in the repository with the pinned helm, the lab's kubeconfig and the control plane's kubectl, and
// requires that it succeeds.
func shell(t *testing.T, command string) string {
	t.Helper()
	return shellIn(t, chart.Root(), command)
}

// shellIn is shell in another directory.
func shellIn(t *testing.T, dir, command string) string {
	t.Helper()
	output, err := runIn(t, dir, command)
	require.NoError(t, err, "%s:\n%s", command, output)
	return output
}

func run(t *testing.T, command string) (string, error) {
	t.Helper()
	return runIn(t, chart.Root(), command)
}

func runIn(t *testing.T, dir, command string) (string, error) {
	t.Helper()
	chart.UseHelm(t)
	bin := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(bin, "kubectl"), []byte(`#!/bin/sh
exec docker exec -i istio-os-init-control-plane kubectl --kubeconfig=/etc/kubernetes/admin.conf "$@"
`), 0o755))
	if strings.HasPrefix(command, "ct ") { // which asks git
		require.NoError(t, os.Symlink(chart.Tool(t, "ct"), filepath.Join(bin, "ct")))
		dir = chart.Root()
	}
	process := exec.CommandContext(t.Context(), "/bin/sh", "-c", command)
	process.Dir = dir
	process.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"), "KUBECONFIG="+lab.Kubectl(t, "").ConfigPath)
	output, err := process.CombinedOutput()
	return string(output), err
}
