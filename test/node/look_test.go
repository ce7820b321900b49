package node

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const lookOnly = "load: {enabled: false}\n"

// A node that its OS has prepared: what decides is behaviour, as ever.
func TestANodeThatOthersHavePreparedIsProvenAndNothingIsLoaded(t *testing.T) {
	t.Parallel()
	s := newPersisting(t, smallPlan+lookOnly).program("pilot-agent", "exit 0")
	s.write("host/proc/modules", "nf_tables 1 0 - Live 0x0\nnft_counter 1 0 - Live 0x0\n")
	s.write("host/lib/modules/5.14.0-0.el9.stand-in/modules.dep", "kernel/net/netfilter/xt_owner.ko:\n")
	s.write(persisted, "# owner: istio-system/istio-os-init\nnf_tables\n") // an earlier revision's, which loaded
	got := s.run("load")
	require.Zero(t, got.exit, got.log)
	require.Equal(t, "ModulesSeen: loaded: nf_tables nft_counter; built in: nothing known; not loaded: xt_owner", got.conclusion)
	require.Equal(t, "Unknown ModulesSeen", s.outcome("load").says(), "verify decides")
	require.Equal(t, []string{"off"}, s.facts("modprobe"))
	require.Empty(t, s.facts("capability"), "none is asked for")

	got = s.run("verify", "verify-traffic")
	require.Zero(t, got.exit, got.log)
	require.Equal(t, "NodePrepared: a connection of the proxy's user, outbound over IPv4", got.conclusion)
	require.Equal(t, "True NodePrepared", s.outcome("traffic").says())
	require.Zero(t, s.tryReport("--ready").exit, "the pod would not be Ready")
	report := s.json()
	require.Equal(t, "True", report.Status)
	require.Contains(t, report.Message, "load.enabled is false")
	require.Contains(t, s.report(), "node stand-in can run the mesh: NodePrepared: ")

	require.NoFileExists(t, s.path("host/stand-in/calls"), "modprobe was run")
	require.Equal(t, []string{"nf_tables", "nft_counter"}, s.loaded())
	require.Equal(t, "# owner: istio-system/istio-os-init\nnf_tables\n", s.read(persisted), "something was written on the host")
}

// What the node has to do, from its files alone: what is on disk by modules.dep, what hinders it by modprobe.d, in the language of its system.
func TestANodeThatNobodyHasPreparedIsToldWhatToLoad(t *testing.T) {
	t.Parallel()
	const dep = "kernel/net/xt_owner.ko: kernel/net/x_tables.ko\nkernel/net/x_tables.ko:\nkernel/net/nf_tables.ko:\nkernel/net/xt_CT.ko:\n"
	on := func(osRelease string) map[string]string {
		return map[string]string{"lib/modules/5.14.0-0.el9.stand-in/modules.dep": dep, "etc/os-release": osRelease}
	}
	with := func(name, content string) map[string]string {
		files := on(rocky9)
		files[name] = content
		return files
	}
	const all = "ModuleNotLoaded: nf_tables, xt_owner, xt_CT. Fix: add to the node's configuration what report --config "
	for _, row := range []fault{
		{name: "Rocky", files: on(rocky9), want: all + "modules-load prints"},
		{name: "no os-release", files: on(""), want: all + "modules-load prints"},
		{name: "Talos", files: on("ID=talos\n"), want: all + "talos prints"},
		{name: "Bottlerocket", files: on("ID=bottlerocket\nVARIANT_ID=aws-k8s-1.34\n"), want: all + "bottlerocket prints"},
		{name: "OpenShift by VARIANT_ID", files: on("ID=rhel\nID_LIKE=fedora\nVARIANT_ID=coreos\n"), want: all + "machineconfig prints"},
		{name: "OpenShift by ID", files: on("ID=rhcos\nID_LIKE='rhel fedora'\n"), want: all + "machineconfig prints"},
		{name: "Fedora CoreOS", files: on("ID=fedora\nVARIANT_ID=coreos\n"), want: all + "butane prints"},
		{name: "Flatcar", files: on("ID=flatcar\nID_LIKE=coreos\n"), want: all + "butane prints"},
		{
			name: "one is loaded, one is not on disk",
			files: map[string]string{
				"lib/modules/5.14.0-0.el9.stand-in/modules.dep": "kernel/net/xt_CT.ko:\n", "proc/modules": "nf_tables 1 0 - Live 0x0\n", "etc/os-release": rocky9,
			},
			want: "ModuleNotOnDisk: xt_owner. Fix: dnf install kernel-modules-extra-5.14.0-0.el9.stand-in. Also: ModuleNotLoaded",
		},
		{
			name: "a rule hinders what one of them needs", files: with("etc/modprobe.d/x.conf", "install x_tables /bin/false\n"),
			want: "ModuleOverridden: x_tables (needed by xt_owner). Fix: remove line 1 of /etc/modprobe.d/x.conf. Also: ModuleNotLoaded",
		},
		{
			name: "systemd obeys a blocklist", files: with("etc/modprobe.d/x.conf", "blacklist xt_owner\n"),
			want: "ModuleBlocklisted: xt_owner. Fix: remove line 1 of /etc/modprobe.d/x.conf. Also: ModuleNotLoaded",
		},
		{
			name: "the kernel loads none", files: with("proc/sys/kernel/modules_disabled", "1\n"),
			want: "ModulesDisabled: nf_tables, xt_owner, xt_CT. Fix: remove kernel.modules_disabled from sysctl.d and reboot",
		},
		{
			name: "the platform takes the SELinux type, and the look sees nothing", files: map[string]string{"proc/self/attr/current": "system_u:system_r:container_t:s0"},
			want: "LoadConfined: container_t. Fix: " + takenType,
		},
		{
			name: "the platform takes the SELinux type, and the look sees all the same", files: with("proc/self/attr/current", "system_u:system_r:container_t:s0"),
			want: all + "modules-load prints",
		},
		{
			name: "the modules of the running kernel are gone", files: map[string]string{"proc/modules": "bridge 1 0 - Live 0x0\n", "proc/sys/kernel/osrelease": "6.1.0\n"},
			want: "ModuleNotOnDisk: nf_tables, xt_owner, xt_CT. Fix: reboot the node: kernel 6.1.0 runs, but its modules are not on disk",
		},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			s := newSandbox(t, plan+"backend: nft\n"+lookOnly).program("pilot-agent", "echo 'error iptables: not permitted' >&2; exit 1")
			row.loadable = []string{"nf_tables", "xt_owner", "xt_CT"}
			s.hit(row)
			got := s.run("load", "verify")
			line, _, _ := strings.Cut(got.conclusion, "\n")
			require.Equal(t, row.want, line, got.log)
			require.NoFileExists(t, s.path("host/stand-in/calls"), "modprobe was run")
			require.Equal(t, "False", s.json().Status)
			// without verify the same names decide
			names := newSandbox(t, plan+"backend: nft\nverify: {enabled: false}\n"+lookOnly)
			names.hit(row)
			require.Equal(t, row.want, names.run("load").conclusion)
		})
	}
}

// The same script as load, once as it looks and once as it loads: the second shows that the script finds what there is to find.
func TestWhoeverLooksMayNeitherLoadNorWriteNorEnterTheHost(t *testing.T) {
	t.Parallel()
	const script = `
sed -n 's/^\(CapEff\|CapPrm\|CapBnd\|NoNewPrivs\):[[:space:]]*/\1 /p' /proc/self/status
echo "uid $(id -u)"
for file in /etc/modules-load.d/istio-os-init.conf /etc/x /lib/modules/x; do
  { echo x >"$ISTIO_OS_INIT_HOST$file"; } 2>/dev/null && echo "WRITTEN $file"
done
chroot "$ISTIO_OS_INIT_HOST" /usr/sbin/modprobe -a -- nf_tables 2>/dev/null && echo ENTERED
for writer in verify traffic watch; do
  { echo x >"$ISTIO_OS_INIT_STATE/$writer/x"; } 2>/dev/null && echo "WRITTEN $writer"
done
true`
	as := func(values string) string {
		s := newPersisting(t, smallPlan+values)
		return s.as("load", script).log
	}
	said := as(lookOnly)
	require.Contains(t, said, "CapEff 0000000000000000\n")
	require.Contains(t, said, "CapPrm 0000000000000000\n")
	require.Contains(t, said, "CapBnd 0000000000000000\n")
	require.Contains(t, said, "NoNewPrivs 1\n")
	require.NotContains(t, said, "WRITTEN")
	require.NotContains(t, said, "ENTERED")
	require.Contains(t, said, "uid 65533\n")

	said = as("")
	require.Contains(t, said, "ENTERED\n")
	require.Contains(t, said, "WRITTEN /etc/modules-load.d/istio-os-init.conf\n")
}

func TestAModuleThatIsUnloadedOnAPreparedNodeIsMissed(t *testing.T) {
	t.Parallel()
	s := newSandbox(t, smallPlan+lookOnly).program("pilot-agent", "exit 0")
	s.write("host/proc/modules", "nf_tables 1 0 - Live 0x0\nxt_owner 1 0 - Live 0x0\nnft_counter 1 0 - Live 0x0\n")
	require.Zero(t, s.run("load", "verify", "verify-traffic").exit)
	require.Equal(t, []string{"nf_tables loaded-before", "xt_owner loaded-before", "nft_counter loaded-before"}, s.facts("module"), "what watch looks for")
}
