package kernel

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"

	"github.com/istio-os-init/istio-os-init/test/internal/lab"
)

// enforcing returns the VM, and skips a test that is about SELinux where it is not enforcing.
func enforcing(t *testing.T) *lab.VM {
	t.Helper()
	vm := lab.TheVM(t)
	if !vm.SELinux() {
		t.Skip("NOT PROVEN: what SELinux has to do with it, which takes SELINUX=enforcing (scripts/lab/node).")
	}
	return vm
}

// The control of every test here that shows a failure before: SELinux is its cause, since without it the kernel loads the modules itself.
func TestAPermissiveSELinuxLeavesNothingForTheChartToDo(t *testing.T) {
	lab.NotInTheCover(t, "that SELinux is the cause of the failure")
	vm := enforcing(t)
	vm.Unload()
	vm.Run("setenforce 0")
	t.Cleanup(func() { vm.Run("setenforce 1") })
	release := lab.NewRelease(t)
	release.CreateNamespace()
	phase, log := release.RunPod(lab.IstioInit(t, vm.Name, redirect))
	require.Equal(t, corev1.PodSucceeded, phase, log)
}

// As on RHEL 10 and Fedora 40: of a kernel whose modules are on disk iptables-nft then needs no chart.
func TestWithTheBooleanOnTheKernelLoadsForAContainerWhatItUses(t *testing.T) {
	lab.NotInTheCover(t, "what the boolean domain_kernel_load_modules does")
	vm := enforcing(t)
	vm.Unload()
	vm.Fault("autoload-allowed")
	release := lab.NewRelease(t)
	release.CreateNamespace()
	mark := vm.AuditMark()
	phase, log := release.RunPod(lab.IstioInit(t, vm.Name, redirect))
	require.Equal(t, corev1.PodSucceeded, phase, log)
	require.NotContains(t, strings.Join(vm.Denials(mark), "\n"), "{ module_request }")
}

// containerd gives a container with options of its own and no level a level of its own, and the volumes with it.
func TestWithoutItsLevelLoadTakesTheVolumesFromSignal(t *testing.T) {
	lab.NotInTheCover(t, "what load's level is for")
	vm := enforcing(t)
	if strings.HasPrefix(vm.Runtime(), "cri-o ") {
		t.Skip("NOT PROVEN: what load's level is for, since CRI-O has one level for a pod. Run make test-kernel KERNEL=trixie/containerd.")
	}
	vm.ExpectDenial("container_file_t")
	vm.Unload()
	release := lab.NewRelease(t)
	mark := vm.AuditMark()
	release.UpgradeChanged("signals: {nodeCondition: {enabled: true}}", vm.Name, `{"initContainers": [{"name": "load", "securityContext": {"seLinuxOptions": {"level": null}}}]}`)
	release.WaitReadyOn(1)
	require.NotEqual(t, vm.Run("stat --format %C /etc/modules-load.d"), vm.Run("stat --format %C "+lab.Persisted), "the file has its directory's level all the same")
	release.WaitFor("signal is denied nothing", func() bool { // which looks at load's outcome now and then
		return strings.Contains(strings.Join(vm.Denials(mark), "\n"), ":container_file_t:")
	})
}
