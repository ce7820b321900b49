package node

import (
	"strings"
	"testing"

	ignition "github.com/coreos/ignition/v2/config/v3_2"
	machineconfigv1 "github.com/openshift/api/machineconfiguration/v1"
	"github.com/stretchr/testify/require"
	"github.com/vincent-petithory/dataurl"

	"github.com/istio-os-init/istio-os-init/test/internal/chart"
)

// Read with OpenShift's own types, and its config with Ignition itself.
func TestTheMachineConfigIsOneForOpenShiftAndForIgnition(t *testing.T) {
	t.Parallel()
	s := newSandbox(t, plan+"backend: nft")
	s.hit(fault{
		loadable: []string{"nf_tables"},
		refused:  "xt_owner Invalid argument\n",
		files: map[string]string{
			"proc/modules": "xt_CT 1 0 - Live 0x0\n",
			"lib/modules/5.14.0-0.el9.stand-in/modules.dep":     "kernel/net/netfilter/xt_owner.ko:\n",
			"lib/modules/5.14.0-0.el9.stand-in/modules.builtin": "kernel/nf_tables.ko\n",
			"usr/lib/modprobe.d/x.conf":                         "# vendor's \"own\" 100%\ninstall xt_owner /bin/false\nblacklist xt_owner\noptions nf_conntrack hashsize=1\n",
		},
	})
	require.Zero(t, s.run("load").exit)

	config := chart.DecodeStrict[machineconfigv1.MachineConfig](t, s.report("--machineconfig"))
	require.Equal(t, "machineconfiguration.openshift.io/v1", config.APIVersion)
	require.Equal(t, "MachineConfig", config.Kind)
	require.Equal(t, "worker", config.Labels[machineconfigv1.MachineConfigRoleLabelKey])

	parsed, report, err := ignition.Parse(config.Spec.Config.Raw)
	require.NoError(t, err, report.String())
	require.Empty(t, report.Entries, "Ignition has something to say")
	content := map[string]string{}
	for _, file := range parsed.Storage.Files {
		url, err := dataurl.DecodeString(*file.Contents.Source)
		require.NoError(t, err, file.Path)
		content[file.Path] = strings.TrimSpace(string(url.Data))
		require.Equal(t, 0o644, *file.Mode, file.Path)
		require.True(t, *file.Overwrite, file.Path)
	}
	require.Equal(t, map[string]string{
		"/etc/modules-load.d/istio.conf": "xt_CT\nxt_owner", // neither what is built in
		// hides the one under /usr/lib, and says what else that says
		"/etc/modprobe.d/x.conf": "# vendor's \"own\" 100%\noptions nf_conntrack hashsize=1",
	}, content)
}
