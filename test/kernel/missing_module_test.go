package kernel

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/istio-os-init/istio-os-init/test/internal/lab"
)

// A proof never says more than it has proven: whatever a mode needs beyond the others, a node without it is not proven for this mode.
func TestANodeThatLacksOneModuleOfAModeIsNotProvenForIt(t *testing.T) {
	lab.NotInTheCover(t, "that a node which lacks one module of a mode is not proven for it")
	vm := lab.TheVM(t)
	vm.DenyAutoload()
	base := map[string]string{"nft": "xt_owner", "legacy": "iptable_nat", "native-nft": "nft_redir"}
	for _, mode := range []struct {
		name, mesh string
		own        map[string]string // by backend: what only this mode needs; nft serves IPv6 with the modules of every mode
	}{
		{"REDIRECT", "dns: false, ipv6: false", nil},
		{"DNS capture", "dns: true, ipv6: false", map[string]string{"nft": "xt_CT", "legacy": "iptable_raw", "native-nft": "nft_ct"}},
		{"INVALID_DROP", "dropInvalid: true, dns: false, ipv6: false", map[string]string{"nft": "xt_conntrack", "legacy": "iptable_mangle", "native-nft": "nft_ct"}},
		{"TPROXY", "tproxy: true, dns: false, ipv6: false", map[string]string{"nft": "xt_TPROXY", "legacy": "xt_connmark", "native-nft": "nft_tproxy"}},
		{"IPv6", "dualStack: true, ipv6: true, dns: false", map[string]string{"legacy": "ip6table_nat"}},
		{"ambient", "ambient: true, dns: false, ipv6: false", map[string]string{"nft": "ip_set_hash_ip", "legacy": "ip6table_raw", "native-nft": "nft_nat"}},
	} {
		for _, needed := range []map[string]string{base, mode.own} {
			for backend, module := range needed {
				t.Run(mode.name+" with "+backend+" without "+module, func(t *testing.T) {
					vm := vm.On(t)
					vm.Unload()
					vm.Fault("modules-gone=" + module)
					release := lab.NewRelease(t)
					require.NoError(t, release.Upgrade(fmt.Sprintf("backend: %s\nmesh: {%s}\n", backend, mode.mesh)+onlyBriefly(vm)))
					// of legacy the first reason is that another backend would do
					var names []string
					for _, reason := range release.WaitRefused(vm.Name).Reasons {
						if reason.Reason == "ModuleNotOnDisk" {
							names = strings.Split(reason.Subject, ", ")
						}
					}
					require.Equal(t, []string{module}, names)
				})
			}
		}
	}
}
