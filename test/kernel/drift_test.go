package kernel

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/istio-os-init/istio-os-init/test/internal/lab"
)

// The pod's own rules hold the module, so rules have to go before it can: it is what firewalld does when it stops (CleanupModulesOnExit).
func TestAModuleThatIsUnloadedMakesThePodNotReadyAndComesBackProven(t *testing.T) {
	vm := lab.TheVM(t)
	vm.DenyAutoload()
	vm.Unload()
	release := lab.NewRelease(t)
	require.NoError(t, release.Upgrade(onlyBriefly(vm)+"\nwatch: {interval: 5}"))
	release.WaitReadyOn(1)
	before := release.Pods()[vm.Name]
	proven := lab.Ended(before, "verify")
	require.True(t, vm.Modules()["xt_owner"])

	removed := vm.Remove("xt_owner")
	gone := time.Now()
	release.WaitFor("the pod stays Ready without xt_owner", func() bool { return !lab.Ready(release.Pods()[vm.Name]) })
	notReady := time.Since(gone)
	release.WaitReadyOn(1)
	noticed := vm.Written("/var/lib/kubelet/pods/" + string(before.UID) + "/volumes/kubernetes.io~empty-dir/watch/outcome").Sub(removed)
	t.Logf("noticed %.1f s after the module had gone, NotReady after %.1f s, Ready again after %.1f s", noticed.Seconds(), notReady.Seconds(), time.Since(gone).Seconds())
	require.Greater(t, noticed, -time.Second, "a record of before")
	require.Less(t, noticed, 15*time.Second, "the interval, and what a look and the record take where the processor is emulated")
	if lab.Emulated() {
		t.Log("NOT PROVEN: how soon the kubelet says so, since an emulated processor has no bound (3 to 29 s were seen). Run where there is /dev/kvm.")
	} else {
		require.Less(t, notReady, 8*time.Second, "the interval, and the kubelet's own time")
	}

	after := release.Pods()[vm.Name]
	require.Equal(t, before.UID, after.UID, "somebody made a new pod")
	require.True(t, vm.Modules()["xt_owner"])
	require.True(t, lab.Ended(after, "verify").After(proven), "verify has not run again")
	outcome, _ := release.Outcome(vm.Name)
	require.Equal(t, "RedirectionProven", outcome.Reason)
	require.Equal(t, 2, outcome.Round)
	require.Contains(t, release.Log(after.Name, "watch"), "proven anew 1 times since the last hour of proof, last because of ModuleGone")

	phase, istio := release.RunPod(lab.IstioInit(t, vm.Name, redirect))
	require.Equal(t, corev1.PodSucceeded, phase, istio)
}

// Mended by hand, as an operator would, and nothing else: the pod stays.
func TestAMendedNodeBecomesReadyInTheSamePod(t *testing.T) {
	vm := lab.TheVM(t)
	vm.DenyAutoload()
	vm.Unload()
	release := lab.NewRelease(t)
	uid := types.UID("")
	t.Run("while modprobe is missing the pod says why", func(t *testing.T) {
		vm.On(t).Fault("no-modprobe")
		require.NoError(t, release.Upgrade(onlyBriefly(vm)))
		require.Equal(t, "ModprobeMissing", release.WaitRefused(vm.Name).Reason)
		uid = release.Pods()[vm.Name].UID
	})
	mended := time.Now()
	release.WaitReadyOn(1)
	t.Logf("Ready %.1f s after the node was mended", time.Since(mended).Seconds())
	require.Equal(t, uid, release.Pods()[vm.Name].UID)
}
