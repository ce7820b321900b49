package lab

import (
	"context"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/istio-os-init/istio-os-init/test/internal/chart"
)

// vmName is the VM's name as a node (scripts/lab/vm.sh).
const vmName = "istio-os-init-vm"

// VM is the lab's worker with a kernel of its own.
type VM struct {
	t *testing.T
	// Name is the node's name in the cluster.
	Name string
	// expected are denials of SELinux that the test causes itself.
	expected *[]string
}

// TheVM returns the lab's VM, and skips the test where there is none. When the test ends, SELinux must have denied the chart nothing.
func TheVM(t *testing.T) *VM {
	t.Helper()
	vm := &VM{t: t, Name: vmName, expected: new([]string)}
	for _, node := range Nodes(t) {
		if node == vm.Name {
			leftovers.Do(vm.removeLeftovers)
			if vm.SELinux() {
				mark := vm.AuditMark()
				t.Cleanup(func() { vm.requireNoDenialOfOurs(mark) })
			}
			return vm
		}
	}
	t.Skip("NOT PROVEN: that modules get loaded, which needs a node with a kernel of its own. Run make node, as root on Linux.")
	return nil
}

var leftovers sync.Once

// removeLeftovers removes from the VM what a killed test has left there: its release would load and prove beside this one's. Before this
// process makes a release of its own, whatever of tests is on the VM is a leftover.
func (vm *VM) removeLeftovers() {
	vm.t.Helper()
	ctx, client := vm.t.Context(), Client(vm.t)
	left := func() []string {
		pods, err := client.CoreV1().Pods("").List(ctx, metav1.ListOptions{FieldSelector: "spec.nodeName=" + vm.Name})
		require.NoError(vm.t, err)
		var namespaces []string
		for _, pod := range pods.Items {
			if strings.HasPrefix(pod.Namespace, testNamespace) && !slices.Contains(namespaces, pod.Namespace) {
				namespaces = append(namespaces, pod.Namespace)
			}
		}
		return namespaces
	}
	for _, namespace := range left() {
		vm.t.Logf("removing namespace %s, which a killed test has left", namespace)
		err := client.CoreV1().Namespaces().Delete(ctx, namespace, metav1.DeleteOptions{})
		require.True(vm.t, err == nil || apierrors.IsNotFound(err), "%v", err)
	}
	require.Eventually(vm.t, func() bool { return len(left()) == 0 }, Patience, time.Second, "a killed test's pods do not leave %s", vm.Name)
	vm.Run(removePersisted(testNamespace + "[a-z0-9]*"))
}

// On returns the VM for a sub-test, which its failures then belong to.
func (vm *VM) On(t *testing.T) *VM { return &VM{t: t, Name: vm.Name, expected: vm.expected} }

// Unload unloads every module of netfilter, rules and all.
func (vm *VM) Unload() {
	vm.t.Helper()
	output, err := vm.script(vm.t.Context(), "node", "unload")
	require.NoError(vm.t, err, output)
}

// Load loads what a plan names, by the host's modprobe. Of alternatives (a|b) it takes the first that the VM has; all must load.
func (vm *VM) Load(plan []string) {
	vm.t.Helper()
	vm.Run("for entry in '" + strings.Join(plan, "' '") + "'; do for m in $(echo $entry | tr '|' ' '); do modprobe $m 2>/dev/null && continue 2; done; echo \"$entry\"; exit 1; done")
}

// Remove unloads a module that the pods' rules hold, the rules first, and returns when it had gone, by the VM's clock.
func (vm *VM) Remove(module string) time.Time {
	vm.t.Helper()
	// the last rule's module is let go only after a moment
	return vm.clock(`for process in $(lsns --type net --noheadings --output PID); do nsenter --net="/proc/$process/ns/net" nft flush ruleset; done
for i in 1 2 3 4 5 6 7 8 9 10; do rmmod ` + module + ` 2>/dev/null && date +%s%N && exit; sleep 0.2; done; exit 1`)
}

// Written returns when a file of the VM's host was written last, by the VM's clock. file: a pattern of the shell that one file matches.
func (vm *VM) Written(file string) time.Time {
	vm.t.Helper()
	return vm.clock("date --reference " + file + " +%s%N")
}

// clock runs a command that prints what the VM's clock says, in nanoseconds.
func (vm *VM) clock(command string) time.Time {
	vm.t.Helper()
	nanoseconds, err := strconv.ParseInt(strings.TrimSpace(vm.Run(command)), 10, 64)
	require.NoError(vm.t, err)
	return time.Unix(0, nanoseconds)
}

// Run runs a shell command as root on the VM's host, outside of Kubernetes, and returns what it prints.
func (vm *VM) Run(command string) string {
	vm.t.Helper()
	output, err := vm.script(context.WithoutCancel(vm.t.Context()), "on-node", "sh", "-c", command) // in clean-ups too
	require.NoError(vm.t, err, "on the VM: %s\n%s", command, output)
	return output
}

// Fault switches a fault of the VM on, and off again when the test ends. name: as scripts/lab/fault takes it, NAME or
// NAME=MODULE,...
func (vm *VM) Fault(name string) {
	vm.t.Helper()
	output, err := vm.script(vm.t.Context(), "fault", name, "on")
	require.NoError(vm.t, err, output)
	vm.t.Cleanup(func() {
		bare, _, _ := strings.Cut(name, "=")
		output, err := vm.script(context.WithoutCancel(vm.t.Context()), "fault", bare, "off")
		require.NoError(vm.t, err, output)
	})
}

// Ahead returns by how much the VM's clock is ahead of this host's, to within a tenth of a second or so: the VM is asked in between two
// looks at ours, and the closest of some such pairs counts.
func (vm *VM) Ahead() time.Duration {
	vm.t.Helper()
	var ahead time.Duration
	closest := time.Hour
	for range 5 {
		before := time.Now()
		said := vm.clock("date +%s%N")
		if took := time.Since(before); took < closest {
			closest, ahead = took, said.Sub(before.Add(took/2))
		}
	}
	return ahead
}

// Reboot reboots the VM and waits until its node is Ready again.
func (vm *VM) Reboot() {
	vm.t.Helper()
	output, err := vm.script(vm.t.Context(), "node", "reboot")
	require.NoError(vm.t, err, output)
}

// Runtime returns the name and version of the node's container runtime, as the node itself reports.
func (vm *VM) Runtime() string {
	vm.t.Helper()
	return strings.ReplaceAll(vm.node().Status.NodeInfo.ContainerRuntimeVersion, "://", " ")
}

// node returns the VM's object, as the API has it now.
func (vm *VM) node() *corev1.Node {
	vm.t.Helper()
	node, err := Client(vm.t).CoreV1().Nodes().Get(vm.t.Context(), vm.Name, metav1.GetOptions{})
	require.NoError(vm.t, err)
	return node
}

// Modules returns the names in the VM's /proc/modules.
func (vm *VM) Modules() map[string]bool {
	vm.t.Helper()
	modules := map[string]bool{}
	for line := range strings.Lines(vm.Run("cat /proc/modules")) {
		modules[strings.Fields(line)[0]] = true
	}
	return modules
}

// WithDependencies returns what the VM's modprobe would load for names, dependencies included; a name that the kernel has built
// in, or has not, adds nothing. Of alternatives (a|b) it takes the first that the VM has.
func (vm *VM) WithDependencies(entries []string) map[string]bool {
	vm.t.Helper()
	modules := map[string]bool{}
	script := "for entry in '" + strings.Join(entries, "' '") + "'; do for m in $(echo $entry | tr '|' ' '); do modprobe --show-depends $m 2>/dev/null && break; done; done; true"
	for line := range strings.Lines(vm.Run(script)) {
		if path, found := strings.CutPrefix(line, "insmod "); found {
			name, _, _ := strings.Cut(filepath.Base(strings.Fields(path)[0]), ".")
			modules[strings.ReplaceAll(name, "-", "_")] = true
		}
	}
	return modules
}

func (vm *VM) script(ctx context.Context, name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Minute)
	defer cancel()
	output, err := exec.CommandContext(ctx, filepath.Join(chart.Root(), "scripts", "lab", name), args...).CombinedOutput()
	return string(output), err
}
