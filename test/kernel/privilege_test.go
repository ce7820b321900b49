package kernel

import (
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/istio-os-init/istio-os-init/test/internal/lab"
)

// That it works with both is what every other test shows.
func TestLoadCanDoNothingWithoutEitherOfItsCapabilities(t *testing.T) {
	vm := lab.TheVM(t)
	vm.DenyAutoload()
	for capability, other := range map[string]string{"SYS_MODULE": "SYS_CHROOT", "SYS_CHROOT": "SYS_MODULE"} {
		t.Run(capability, func(t *testing.T) {
			if capability == "SYS_CHROOT" {
				lab.NotInTheCover(t, "that load can do nothing without SYS_CHROOT")
			}
			vm.On(t).Unload()
			before := vm.On(t).Modules()
			release := lab.NewRelease(t)
			release.UpgradeChanged(briefly, vm.Name, loadMayOnly(other))
			require.Regexp(t, "^CapabilityRefused: "+capability+`\. Fix: `, release.WaitRefused(vm.Name).Line)
			require.Equal(t, names(before), names(vm.On(t).Modules()))
			require.Zero(t, release.DaemonSet().Status.NumberReady)
		})
	}
}

func TestNothingOfTheHostCanBeWrittenThroughTheMount(t *testing.T) {
	vm := lab.TheVM(t)
	// CRI-O refuses to mount submounts read only (docs: load.recursiveReadOnly), and says that it can
	recursive := !strings.HasPrefix(vm.Runtime(), "cri-o ")
	log := lab.NewRelease(t).TouchTheHost(vm.Name, recursive)
	// bits 16 and 18 of linux/capability.h: SYS_MODULE and SYS_CHROOT
	require.Contains(t, log, "CAPABILITIES 0000000000050000")
	require.Contains(t, log, "TRIED root /host/etc")
	require.NotContains(t, log, "WRITTEN root")
	if recursive {
		require.Contains(t, log, "TRIED submount /host/run")
		require.NotContains(t, log, "WRITTEN submount")
	}
}

const kernelsWords = `(Failed to initialize nft|Could not fetch rule set|no loaded kernel support|RULE_APPEND failed|unable to initialize table)`

func TestAFaultOnOneNodeLeavesTheOthersReady(t *testing.T) {
	lab.NotInTheCover(t, "that a fault on one node leaves the others Ready")
	vm := lab.TheVM(t)
	vm.DenyAutoload()
	vm.Fault("no-modprobe")
	vm.Unload()
	release := lab.NewRelease(t)
	require.NoError(t, release.Upgrade(""))
	outcome := release.WaitRefused(vm.Name)
	require.Regexp(t, `^ModprobeMissing: .* Fix: .+`, outcome.Line)
	require.Regexp(t, kernelsWords, outcome.Error)
	others := len(lab.Nodes(t)) - 1
	release.WaitFor("the other nodes are not Ready", func() bool { return int(release.DaemonSet().Status.NumberReady) == others })
	for node, pod := range release.Pods() {
		require.Equal(t, node != vm.Name, lab.Ready(pod), node)
	}
}

// A mesh pod that is already there must not notice: no rule of the host's or of any pod's network namespace changes.
func TestNoRuleOfAnotherNamespaceChanges(t *testing.T) {
	lab.NotInTheCover(t, "that no rule of another network namespace changes")
	vm := lab.TheVM(t)
	bystander := lab.NewRelease(t)
	require.NoError(t, bystander.Upgrade(onlyBriefly(vm)))
	bystander.WaitReadyOn(1) // its pod holds istio-init's rules, as a mesh pod does

	// as a host's firewall or a kubelet would have
	vm.Run("iptables-nft -t nat -A OUTPUT -p tcp --dport 1 -j RETURN; iptables-legacy -A INPUT -p tcp --dport 1 -j RETURN; nft add table inet bystander")
	t.Cleanup(func() {
		vm.Run("iptables-nft -t nat -D OUTPUT -p tcp --dport 1 -j RETURN; iptables-legacy -D INPUT -p tcp --dport 1 -j RETURN; nft delete table inet bystander")
	})
	before := rules(vm)
	require.Contains(t, perNamespace(before)["host"], "table inet bystander")
	require.Contains(t, before, "ISTIO_REDIRECT")
	release := lab.NewRelease(t)
	require.NoError(t, release.Upgrade(onlyBriefly(vm)))
	release.WaitReadyOn(1)
	after := rules(vm)
	for namespace, text := range perNamespace(before) {
		require.Equal(t, text, perNamespace(after)[namespace], namespace)
	}
}

// rules returns all rules of every network namespace on the VM, without counters and dates.
func rules(vm *lab.VM) string {
	return vm.Run(`
show() { for save in iptables-nft-save ip6tables-nft-save iptables-legacy-save ip6tables-legacy-save; do "$@" $save 2>/dev/null; done; "$@" nft list ruleset; }
echo "NAMESPACE host"; show env
for namespace in /var/run/netns/*; do echo "NAMESPACE $namespace"; show ip netns exec "${namespace##*/}"; done
` + "true | cat") // the last namespace may have gone meanwhile
}

func perNamespace(rules string) map[string]string {
	namespaces := map[string]string{}
	for _, part := range strings.Split(rules, "NAMESPACE ")[1:] {
		name, text, _ := strings.Cut(part, "\n")
		var lines []string
		for line := range strings.Lines(text) {
			if !strings.HasPrefix(line, "#") {
				lines = append(lines, counters.ReplaceAllString(line, ""))
			}
		}
		namespaces[name] = strings.Join(lines, "")
	}
	return namespaces
}

var counters = regexp.MustCompile(`\[\d+:\d+\]|packets \d+ bytes \d+`)

func onlyOn(vm *lab.VM) string { return "nodeSelector: {kubernetes.io/hostname: " + vm.Name + "}" }

// briefly are the values of tests that are not about persistence: with them nothing is to be cleaned up on any node.
const briefly = "persist: {enabled: false}"

// onlyBriefly is briefly on the VM alone.
func onlyBriefly(vm *lab.VM) string { return onlyOn(vm) + "\n" + briefly }

// loadMayOnly is the change of a pod by a platform that takes away load's capabilities but one.
func loadMayOnly(capability string) string {
	return `{"initContainers": [{"name": "load", "securityContext": {"capabilities": {"add": ["` + capability + `"]}}}]}`
}
