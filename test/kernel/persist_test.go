package kernel

import (
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"

	"github.com/istio-os-init/istio-os-init/test/internal/chart"
	"github.com/istio-os-init/istio-os-init/test/internal/lab"
)

// The order that hurts: after a boot with autoload denied from early on, the mesh's pod is there before ours.
func TestAfterARebootAMeshPodStartsBeforeOurs(t *testing.T) {
	vm := lab.TheVM(t)
	vm.DenyAutoload()
	vm.Unload()
	release := lab.NewRelease(t)
	const signals = "\nsignals: {nodeCondition: {enabled: true}}\n"
	require.NoError(t, release.Upgrade(onlyOn(vm)+signals))
	release.WaitReadyOn(1)
	require.Contains(t, vm.Run("cat "+lab.Persisted), "\nxt_owner\n")
	if vm.SELinux() {
		require.Equal(t, vm.Run("stat --format %C /etc/modules-load.d"), vm.Run("stat --format %C "+lab.Persisted), "not the directory's label and level")
	}
	require.NoError(t, release.Upgrade(onlyOn(vm)+signals+"watch: {interval: 20}"))
	release.WaitReadyOn(1)
	verify := chart.ContainerOf(t, &release.DaemonSet().Spec.Template.Spec, "verify")

	// the DaemonSet goes on, but for no node: what helm would remove stays, and our pod does not come back
	release.ChangePod(`{"nodeSelector": {"kubernetes.io/hostname": "nowhere"}}`)
	release.WaitFor("our pod does not go", func() bool { return len(release.Pods()) == 0 })

	vm.Reboot()
	require.True(t, vm.Modules()["xt_owner"], "the host has not loaded what the file names")
	requireAPIServer(t, release, vm.Name) // the node has its routes again
	phase, log := release.RunPod(lab.IstioInit(t, vm.Name, verify.Args))
	require.Equal(t, corev1.PodSucceeded, phase, log)
	require.Empty(t, release.Pods(), "our pod was there first")

	release.Uninstall()
	require.Equal(t, "gone", lab.RunOn(t, vm.Name, "[ -e "+lab.Persisted+" ] || echo gone"))
	require.True(t, vm.Modules()["xt_owner"], "modules are never unloaded")
}

func TestANodeWhoseEtcCannotBeWrittenIsReadyAndLoadSaysSo(t *testing.T) {
	lab.NotInTheCover(t, "that a node whose /etc cannot be written becomes Ready")
	vm := lab.TheVM(t)
	vm.DenyAutoload()
	vm.Unload()
	vm.Fault("readonly-etc")
	release := lab.NewRelease(t)
	require.NoError(t, release.Upgrade(onlyOn(vm)))
	release.WaitReadyOn(1)
	require.Contains(t, release.Log(release.Pods()[vm.Name].Name, "load"), "warning: "+lab.Persisted+" is not written, so after a reboot the modules are loaded only with this pod")
	require.Contains(t, release.Log(release.Pods()[vm.Name].Name, "load"), "Read-only file system")
}

// firewalld below 1.0 does so by default, above with CleanupModulesOnExit. Autoload is allowed: firewalld itself needs it.
func TestFirewalldThatUnloadsModulesIsNoticedAndRepaired(t *testing.T) {
	lab.NotInTheCover(t, "that what firewalld unloads is loaded again")
	vm := lab.TheVM(t)
	vm.Unload()
	vm.Run("sed -i 's/^CleanupModulesOnExit=.*/CleanupModulesOnExit=yes/' /etc/firewalld/firewalld.conf")
	vm.Fault("firewalld")
	require.Equal(t, "active", lab.RunOn(t, vm.Name, "systemctl is-active firewalld"))
	release := lab.NewRelease(t)
	require.NoError(t, release.Upgrade(onlyBriefly(vm)+"\nwatch: {interval: 2}\nmodules: {extra: [xt_statistic]}")) // which no rule holds
	release.WaitReadyOn(1)
	require.Contains(t, release.Exec(vm.Name, "report"), "warning: firewalld is active")
	require.True(t, vm.Modules()["xt_statistic"])

	vm.Run("systemctl restart firewalld")
	vm.Run("sed -i 's/^CleanupModulesOnExit=.*/CleanupModulesOnExit=no/' /etc/firewalld/firewalld.conf")
	release.WaitFor("watch has not noticed", func() bool {
		pod, found := release.Pods()[vm.Name]
		return found && lab.Ready(pod) && lab.Status(pod, "watch").RestartCount > 0
	})
	require.True(t, vm.Modules()["xt_statistic"])
	require.Contains(t, release.Log(release.Pods()[vm.Name].Name, "watch"), "proven anew 1 times since the last hour of proof, last because of ModuleGone")
}
