package render

import (
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"

	"github.com/istio-os-init/istio-os-init/test/internal/chart"
)

// Compared as a whole, so that a field added is as red as a field removed.
func TestEveryContainerMayDoOnlyWhatItMust(t *testing.T) {
	t.Parallel()
	var (
		yes, no       = new(true), new(false)
		root          = new(int64(0))
		proxy         = new(int64(1337))
		nobody        = new(int64(65534))
		dropAll       = []corev1.Capability{"ALL"}
		runtimeSecure = &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault}
	)
	want := map[string]*corev1.SecurityContext{
		"load": {
			RunAsUser: root, RunAsGroup: root, RunAsNonRoot: no,
			Privileged: no, AllowPrivilegeEscalation: no, ReadOnlyRootFilesystem: yes,
			Capabilities:   &corev1.Capabilities{Drop: dropAll, Add: []corev1.Capability{"SYS_MODULE", "SYS_CHROOT"}},
			SELinuxOptions: &corev1.SELinuxOptions{Type: "spc_t", Level: "s0"},
			SeccompProfile: runtimeSecure,
		},
		// istio-init's, from Istio's injection template
		"verify": {
			RunAsUser: root, RunAsGroup: root, RunAsNonRoot: no,
			Privileged: no, AllowPrivilegeEscalation: no, ReadOnlyRootFilesystem: no,
			Capabilities: &corev1.Capabilities{Drop: dropAll, Add: []corev1.Capability{"NET_ADMIN", "NET_RAW"}},
		},
		// istio-validation's, from the same template
		"verify-traffic": {
			RunAsUser: proxy, RunAsGroup: proxy, RunAsNonRoot: yes,
			Privileged: no, AllowPrivilegeEscalation: no, ReadOnlyRootFilesystem: yes,
			Capabilities: &corev1.Capabilities{Drop: dropAll},
		},
		// process 1's uid, to end it, and not one capability
		"watch": {
			RunAsUser: root, RunAsGroup: root, RunAsNonRoot: no,
			Privileged: no, AllowPrivilegeEscalation: no, ReadOnlyRootFilesystem: yes,
			Capabilities:   &corev1.Capabilities{Drop: dropAll},
			SeccompProfile: runtimeSecure,
		},
	}
	want["uninstall"] = want["watch"].DeepCopy()
	want["uninstall"].RunAsUser, want["uninstall"].RunAsGroup, want["uninstall"].RunAsNonRoot = nobody, nobody, yes
	// not watch's uid, which could read its token in the pod's one process namespace
	want["signal"] = want["uninstall"].DeepCopy()
	want["signal"].RunAsUser, want["signal"].RunAsGroup = new(int64(65532)), new(int64(1337))
	want["clean-up"] = &corev1.SecurityContext{
		RunAsUser: root, RunAsGroup: root, RunAsNonRoot: no,
		Privileged: no, AllowPrivilegeEscalation: no, ReadOnlyRootFilesystem: yes,
		Capabilities:   &corev1.Capabilities{Drop: dropAll},
		SELinuxOptions: &corev1.SELinuxOptions{Type: "spc_t", Level: "s0"}, // /etc is not a confined type's
		SeccompProfile: runtimeSecure,
	}
	// of load what looks only: not one capability, and a uid that owns nothing on a host
	looks := want["load"].DeepCopy()
	looks.RunAsUser, looks.RunAsGroup, looks.RunAsNonRoot = new(int64(65533)), new(int64(65533)), yes
	looks.Capabilities.Add = nil
	forEveryScenario(t, func(t *testing.T, objects chart.Objects) {
		uids := map[int64]string{}
		for _, pod := range pods(t, objects) {
			for _, container := range append(pod.Spec.InitContainers, pod.Spec.Containers...) {
				expected := want[container.Name]
				if looksOnly(container) {
					expected = looks
				}
				require.Equal(t, expected, container.SecurityContext, container.Name)
			}
		}
		for _, container := range objects.Pod(t).InitContainers {
			if uid := *container.SecurityContext.RunAsUser; uid != 0 {
				require.Empty(t, uids[uid], "%s has the uid of another container, whose processes it could read", container.Name)
				uids[uid] = container.Name
			}
		}
	})
}

// looksOnly is whether a container is load with load.enabled=false.
func looksOnly(container corev1.Container) bool {
	return container.Name == "load" && env(container)["ISTIO_OS_INIT_LOAD"] == "false"
}

func TestOnlyLoadSeesTheHost(t *testing.T) {
	t.Parallel()
	var (
		host    = corev1.VolumeMount{Name: "host", MountPath: "/host", ReadOnly: true}
		persist = corev1.VolumeMount{Name: "modules-load", MountPath: "/etc/modules-load.d"}
		config  = corev1.VolumeMount{Name: "config", MountPath: "/opt/istio-os-init", ReadOnly: true}
		token   = corev1.VolumeMount{Name: "token", MountPath: "/var/run/secrets/kubernetes.io/serviceaccount", ReadOnly: true}
	)
	writes := func(name string) corev1.VolumeMount {
		return corev1.VolumeMount{Name: name, MountPath: "/run/istio-os-init/" + name}
	}
	reads := func(name string) corev1.VolumeMount {
		mount := writes(name)
		mount.ReadOnly = true
		return mount
	}
	// each sees what was recorded before it, and nothing that comes from a container that runs after it
	want := map[string][]corev1.VolumeMount{
		"load":           {host, persist, writes("load"), config},
		"verify":         {reads("load"), writes("verify"), config},
		"verify-traffic": {reads("load"), reads("verify"), writes("traffic"), config},
		"watch":          {reads("load"), reads("verify"), reads("traffic"), writes("watch"), config},
		"signal":         {reads("load"), reads("verify"), reads("traffic"), reads("watch"), config, token},
	}
	withoutVerify := map[string][]corev1.VolumeMount{
		"load":  want["load"],
		"watch": {reads("load"), writes("watch"), config},
	}
	forEveryScenario(t, func(t *testing.T, objects chart.Objects) {
		pod := objects.Pod(t)
		for _, container := range append(pod.InitContainers, pod.Containers...) {
			mounts := want[container.Name]
			if env(objects.Container(t, "load"))["ISTIO_OS_INIT_NAMES_DECIDE"] == "true" {
				mounts = withoutVerify[container.Name]
			}
			if looksOnly(container) {
				mounts = []corev1.VolumeMount{host, writes("load"), config}
			}
			require.Equal(t, mounts, container.VolumeMounts, container.Name)
			require.Empty(t, container.EnvFrom, container.Name)
		}
		root := volume(t, pod, "host").HostPath
		require.Equal(t, "/", root.Path)
		require.Equal(t, corev1.HostPathDirectory, *root.Type)
		if !looksOnly(objects.Container(t, "load")) {
			persist := volume(t, pod, "modules-load").HostPath
			require.Equal(t, "/etc/modules-load.d", persist.Path)
			// Directory would keep the pod from starting where it is missing
			require.Equal(t, corev1.HostPathDirectoryOrCreate, *persist.Type)
		}
		require.Equal(t, objects.ConfigMap(t).Name, volume(t, pod, "config").ConfigMap.Name)
		for _, volume := range pod.Volumes {
			loads := !looksOnly(objects.Container(t, "load"))
			require.Equal(t, volume.Name == "host" || loads && volume.Name == "modules-load", volume.HostPath != nil, volume.Name)
		}
	})
}

func TestThePodSharesNoNamespaceWithItsNodeAndHoldsNoToken(t *testing.T) {
	t.Parallel()
	forEveryScenario(t, func(t *testing.T, objects chart.Objects) {
		pod := objects.Pod(t)
		require.False(t, pod.HostNetwork)
		require.False(t, pod.HostPID)
		require.False(t, pod.HostIPC)
		require.False(t, *pod.EnableServiceLinks)
		require.False(t, *pod.AutomountServiceAccountToken)
		for _, account := range objects.ServiceAccounts {
			require.False(t, *account.AutomountServiceAccountToken)
		}
		for _, container := range append(pod.InitContainers, pod.Containers...) {
			require.Empty(t, container.Ports, container.Name)
		}
	})
}

// tokens are the pod's volumes with a token.
func tokens(pod corev1.PodSpec) []corev1.Volume {
	var volumes []corev1.Volume
	for _, volume := range pod.Volumes {
		if volume.Projected != nil {
			volumes = append(volumes, volume)
		}
	}
	return volumes
}

// CRI-O refuses it for a root that has its own storage below it, so it is for those who ask.
func TestTheHostsSubmountsAreReadOnlyWhereThatIsAskedForAndTheClusterKnowsIt(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		version, values string
		want            *corev1.RecursiveReadOnlyMode
	}{
		{"1.25.0", "load: {recursiveReadOnly: true}", nil},
		{"1.30.9", "load: {recursiveReadOnly: true}", nil},
		{"1.31.0", "load: {recursiveReadOnly: true}", new(corev1.RecursiveReadOnlyIfPossible)},
		{"1.31.0", "", nil},
	} {
		t.Run(row.version+" "+row.values, func(t *testing.T) {
			t.Parallel()
			objects := chart.Render(t, row.values, "--kube-version", row.version)
			require.Equal(t, row.want, objects.Container(t, "load").VolumeMounts[0].RecursiveReadOnly)
		})
	}
}

// volume is a volume of a pod by its name.
func volume(t *testing.T, pod corev1.PodSpec, name string) corev1.Volume {
	t.Helper()
	for _, volume := range pod.Volumes {
		if volume.Name == name {
			return volume
		}
	}
	require.Failf(t, "no such volume", "%q is not among the pod's volumes", name)
	return corev1.Volume{}
}

func forEveryScenario(t *testing.T, check func(*testing.T, chart.Objects)) {
	t.Helper()
	for _, name := range chart.Scenarios(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			check(t, chart.RenderFiles(t, []string{chart.Scenario(name)}))
		})
	}
}
