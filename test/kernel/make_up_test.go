package kernel

import (
	"regexp"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

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
	if !up { // this host can have no VM
		requireTable(t, lab.Shell(t, "make up"))
	}
	start := time.Now()
	second := lab.Shell(t, "make up")
	took := time.Since(start)
	t.Logf("make up again: %v", took.Round(time.Millisecond))
	requireTable(t, second)
	require.Less(t, took, time.Minute)

	requireTable(t, lab.Shell(t, "make status"))
}

// requireTable requires the table's head and a proven row for each node.
func requireTable(t *testing.T, output string) {
	t.Helper()
	require.Regexp(t, `(?m)^NODE +OS IMAGE +KERNEL +RUNTIME +SELINUX +BACKEND +VERDICT +TIME$`, output)
	for _, node := range lab.Nodes(t) {
		require.Regexp(t, `(?m)^`+node+` .* (nft|legacy|native-nft) +Ready +\d+ s$`, output)
	}
}
