package kernel

import (
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/istio-os-init/istio-os-init/test/internal/chart"
	"github.com/istio-os-init/istio-os-init/test/internal/docs"
	"github.com/istio-os-init/istio-os-init/test/internal/lab"
)

// On every node of the lab, of which the VM is one where there can be one.
func TestMakeUpProvesEveryNodeAndIsANoOpTheSecondTime(t *testing.T) {
	// it would repair what other tests unload
	defer func() { _, _ = lab.TryShell(t, "helm uninstall istio-os-init --namespace istio-system --wait") }()
	cure := regexp.MustCompile(`(?m)^istio-os-init-vm: load has loaded .*xt_owner.*, which istio-init needs`)
	up := false
	t.Run("on a node whose modules are not loaded it says what load has loaded", func(t *testing.T) {
		vm := lab.TheVM(t)
		_, _ = lab.TryShell(t, "helm uninstall istio-os-init --namespace istio-system --wait")
		vm.Unload()
		said := lab.Shell(t, "make up")
		requireTable(t, said)
		up = true
		require.Regexp(t, cure, said)
		if vm.SELinux() {
			require.Regexp(t, `(?m)^`+vm.Name+` .* cri-o \S+ +enforcing +\S+ +Ready`, said)
			require.Regexp(t, `(?m)^`+vm.Name+`: before the chart: .*unable to initialize table 'nat'; the cause: avc: denied { module_request } .*:container_t:`, said)
		}
	})
	t.Run("whose VM is as a node of OpenShift besides", func(t *testing.T) {
		vm := lab.TheVM(t)
		require.Equal(t, "cgroup2fs\n", vm.Run("stat --file-system --format %T /sys/fs/cgroup"))
		require.Len(t, strings.Split(strings.TrimSpace(vm.Run("cat /proc/swaps")), "\n"), 1, "nothing but the head: swap is off")
		if vm.SELinux() {
			require.NotContains(t, vm.Run("cat /proc/cmdline"), "enforcing=0")
			require.Equal(t, "/sbin/modprobe\n", vm.Run("cat /proc/sys/kernel/modprobe"))
		}
	})
	if !up { // this host can have no VM
		requireTable(t, lab.Shell(t, "make up"))
	}
	start := time.Now()
	// below make test, make says as its last line which directory it leaves
	second := lab.Shell(t, "make --no-print-directory up")
	export := regexp.MustCompile(`\nexport KUBECONFIG=(\S+) PATH=\$PATH:(\S+)\n$`).FindStringSubmatch(second)
	require.Len(t, export, 3, "README: the export line with which make up ends\n%s", second)
	require.FileExists(t, export[1])
	require.FileExists(t, filepath.Join(export[2], "helm"))
	took := time.Since(start)
	t.Logf("make up again: %v", took.Round(time.Millisecond))
	requireTable(t, second)
	require.Less(t, took, time.Minute)

	requireTable(t, lab.Shell(t, "make status"))

	t.Run("and README's fault is named, and mended", func(t *testing.T) {
		lab.NotInTheCover(t, "that the lab shows a node that fails as README says, and recovers")
		readmesFault(t, lab.TheVM(t))
	})
}

// readmesFault runs README's commands for a node that fails, and waits for what the page promises between them.
func readmesFault(t *testing.T, vm *lab.VM) {
	t.Helper()
	defer lab.Shell(t, "scripts/lab/fault all off")
	blocks := slices.DeleteFunc(docs.Commands(t, filepath.Join(chart.Root(), "README.md")), func(block []string) bool {
		return !strings.HasPrefix(block[0], "scripts/lab/")
	})
	require.Len(t, blocks, 2, "what breaks the VM, and what mends it")
	run := func(block []string) {
		for _, command := range block {
			lab.Shell(t, command)
		}
	}
	run(blocks[0])
	require.EventuallyWithT(t, func(c *assert.CollectT) {
		events, err := lab.TryShell(t, "kubectl --namespace istio-system get events --field-selector reason=Unhealthy")
		require.NoError(c, err)
		require.Regexp(c, `Startup probe failed: ModuleNotOnDisk: xt_owner\. Fix: `, events)
	}, lab.Patience, 5*time.Second)
	run(blocks[1])
	require.EventuallyWithT(t, func(c *assert.CollectT) {
		said, _ := lab.TryShell(t, "make status") // which fails as long as a node is not proven
		require.Regexp(c, `(?m)^`+vm.Name+` .* Ready +\d+ s$`, said)
	}, 5*time.Minute, 10*time.Second)
}

// requireTable requires the table's head and a proven row for each node.
func requireTable(t *testing.T, output string) {
	t.Helper()
	require.Regexp(t, `(?m)^NODE +OS IMAGE +KERNEL +RUNTIME +SELINUX +BACKEND +VERDICT +TIME$`, output)
	for _, node := range lab.Nodes(t) {
		require.Regexp(t, `(?m)^`+node+` .* (nft|legacy|native-nft) +Ready +\d+ s$`, output)
	}
}
