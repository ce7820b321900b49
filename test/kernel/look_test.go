package kernel

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/istio-os-init/istio-os-init/test/internal/lab"
)

// A node whose OS loads the modules: the pod says which, the OS loads them by what report prints, and the same pod proves the node.
func TestANodeThatIsOnlyLookedAtSaysWhatToLoadAndIsProvenOnceItsOSHasLoadedIt(t *testing.T) {
	lab.NotInTheCover(t, "that a node that is only looked at becomes proven once its OS has loaded the modules")
	vm := lab.TheVM(t)
	vm.DenyAutoload()
	vm.Unload()
	release := lab.NewRelease(t)
	require.NoError(t, release.Upgrade(onlyBriefly(vm)+"\nload: {enabled: false}"))
	require.Equal(t, "ModuleNotLoaded", release.WaitRefused(vm.Name).Reason)
	require.False(t, vm.Modules()["xt_owner"], "load has loaded it")
	uid := release.Pods()[vm.Name].UID

	const file = "/etc/modules-load.d/istio.conf" // as docs/look-only.md names it
	t.Cleanup(func() { vm.Run("rm -f " + file) })
	vm.Run("cat >" + file + " <<'END'\n" + release.Exec(vm.Name, "report", "--config", "modules-load") + "END\nsystemctl restart systemd-modules-load")
	release.WaitReadyOn(1)
	require.Equal(t, uid, release.Pods()[vm.Name].UID)
	outcome, found := release.Outcome(vm.Name)
	require.True(t, found)
	require.Equal(t, "NodePrepared", outcome.Reason)
	require.Equal(t, "gone", lab.RunOn(t, vm.Name, "[ -e "+lab.Persisted+" ] || echo gone"))
}
