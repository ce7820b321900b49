package cluster

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/istio-os-init/istio-os-init/test/internal/chart"
	"github.com/istio-os-init/istio-os-init/test/internal/docs"
	"github.com/istio-os-init/istio-os-init/test/internal/lab"
)

// somePod is the pages' name for a pod, which is another on each cluster.
const somePod = "istio-os-init-q9d4c"

// Every line of the pages' sh blocks is run, but those that run this test or take its cluster away: scripts/test is
// `make test`, and ends with `make down`. The lab's faults are of the VM, so test/kernel runs them. It uses the release that users are told
// to make, as only tests do that are not parallel.
func TestEveryCommandOfThePagesWorks(t *testing.T) {
	t.Parallel()
	poolsOfNodes.Lock()
	t.Cleanup(poolsOfNodes.Unlock) // behind that of the labels
	elsewhere := map[string]bool{"make up": true, "make status": true, "make check": true, "make test": true}
	targets := lab.Shell(t, "make help")
	// what the lab's image is, for each release that a page makes; all else as a user types it
	values := map[string]string{
		"helm install istio-os-init ": lab.Values(t), "helm install mesh ": lab.MeshValues(t),
		"helm template istio-os-init ./charts/istio-os-init --namespace istio-system --show-only ": lab.Values(t),
	}
	for i, pool := range []string{"core", "edge"} { // those of mesh-instance
		lab.Label(t, lab.Nodes(t)[i], "pool", pool)
	}
	for _, page := range []string{
		"README.md", "charts/istio-os-init/README.md", "charts/istio-os-init/docs/look-only.md", "charts/istio-os-init/docs/policies.md",
		"charts/istio-os-init/docs/uses.md", "charts/istio-os-init/docs/gitops.md",
	} {
		dir := chart.Workspace(t)
		_, _ = lab.TryShell(t, "helm uninstall istio-os-init --namespace istio-system --wait") // where a page before this one has installed it
		for _, block := range docs.Commands(t, filepath.Join(chart.Root(), page)) {
			for _, command := range block {
				if elsewhere[command] {
					require.Contains(t, targets, command)
					continue
				}
				if strings.HasPrefix(command, "scripts/lab/") {
					continue
				}
				require.NotContains(t, command, "make ", "who runs it?")
				if strings.Contains(command, somePod) {
					lab.ShellIn(t, dir, "kubectl --namespace istio-system rollout status daemonset/istio-os-init --timeout 120s")
					pod := lab.ShellIn(t, dir, "kubectl --namespace istio-system get pods --selector app.kubernetes.io/name=istio-os-init --output jsonpath='{.items[0].metadata.name}'")
					command = strings.ReplaceAll(command, somePod, pod)
				}
				for install, file := range values {
					if strings.HasPrefix(command, install) {
						command += " --values " + file
					}
				}
				lab.ShellIn(t, dir, command)
			}
		}
	}
}
