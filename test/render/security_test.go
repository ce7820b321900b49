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
			SELinuxOptions: &corev1.SELinuxOptions{Type: "spc_t"},
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
		"watch": {
			RunAsUser: nobody, RunAsGroup: nobody, RunAsNonRoot: yes,
			Privileged: no, AllowPrivilegeEscalation: no, ReadOnlyRootFilesystem: yes,
			Capabilities:   &corev1.Capabilities{Drop: dropAll},
			SeccompProfile: runtimeSecure,
		},
	}
	want["wait"] = want["watch"]
	want["forget"] = want["watch"]
	// not watch's uid, which could read its token where the pod's processes share a namespace
	want["signal"] = want["watch"].DeepCopy()
	want["signal"].RunAsUser, want["signal"].RunAsGroup = new(int64(65532)), new(int64(1337))
	want["clean-up"] = &corev1.SecurityContext{
		RunAsUser: root, RunAsGroup: root, RunAsNonRoot: no,
		Privileged: no, AllowPrivilegeEscalation: no, ReadOnlyRootFilesystem: yes,
		Capabilities:   &corev1.Capabilities{Drop: dropAll},
		SELinuxOptions: &corev1.SELinuxOptions{Type: "spc_t"}, // /etc is not a confined type's
		SeccompProfile: runtimeSecure,
	}
	forEveryScenario(t, func(t *testing.T, objects chart.Objects) {
		pod := objects.Pod(t)
		containers := append(pod.InitContainers, pod.Containers...)
		if hooks := objects.Hooks; hooks != nil {
			containers = append(containers, hooks.Container(t, "clean-up"), hooks.Job(t).Spec.Template.Spec.Containers[0])
		}
		if forget := objects.Forget; forget != nil {
			containers = append(containers, forget.Job(t).Spec.Template.Spec.Containers[0])
		}
		for _, container := range containers {
			require.Equal(t, want[container.Name], container.SecurityContext, container.Name)
		}
		if !repairsBySandbox(t, objects) {
			require.Nil(t, pod.SecurityContext, "the pod's own security context would change what verify proves")
		}
	})
}

func TestOnlyLoadSeesTheHost(t *testing.T) {
	t.Parallel()
	var (
		recursive = new(corev1.RecursiveReadOnlyIfPossible)
		host      = corev1.VolumeMount{Name: "host", MountPath: "/host", ReadOnly: true, RecursiveReadOnly: recursive}
		state     = corev1.VolumeMount{Name: "state", MountPath: "/run/istio-os-init"}
		persist   = corev1.VolumeMount{Name: "modules-load", MountPath: "/etc/modules-load.d"}
		config    = corev1.VolumeMount{Name: "config", MountPath: "/opt/istio-os-init", ReadOnly: true}
	)
	want := map[string][]corev1.VolumeMount{
		"load":           {host, persist, state, config},
		"verify":         {state, config},
		"verify-traffic": {state, config},
		"watch":          {state, config},
		"signal": {
			{Name: "state", MountPath: "/run/istio-os-init", ReadOnly: true}, config,
			{Name: "token", MountPath: "/var/run/secrets/kubernetes.io/serviceaccount", ReadOnly: true},
		},
	}
	forEveryScenario(t, func(t *testing.T, objects chart.Objects) {
		pod := objects.Pod(t)
		for _, container := range append(pod.InitContainers, pod.Containers...) {
			require.Equal(t, want[container.Name], container.VolumeMounts, container.Name)
			require.Empty(t, container.VolumeDevices, container.Name)
			require.Empty(t, container.EnvFrom, container.Name)
		}
		require.Len(t, pod.Volumes, 4+len(tokens(pod)))
		require.Equal(t, "/", pod.Volumes[0].HostPath.Path)
		require.Equal(t, corev1.HostPathDirectory, *pod.Volumes[0].HostPath.Type)
		require.Equal(t, "/etc/modules-load.d", pod.Volumes[1].HostPath.Path)
		// Directory would keep the pod from starting where it is missing
		require.Equal(t, corev1.HostPathDirectoryOrCreate, *pod.Volumes[1].HostPath.Type)
		require.Equal(t, corev1.StorageMediumMemory, pod.Volumes[2].EmptyDir.Medium)
		require.Equal(t, objects.ConfigMap(t).Name, pod.Volumes[3].ConfigMap.Name)
	})
}

func TestThePodSharesNoNamespaceWithItsNodeAndHoldsNoToken(t *testing.T) {
	t.Parallel()
	forEveryScenario(t, func(t *testing.T, objects chart.Objects) {
		pod := objects.Pod(t)
		require.False(t, pod.HostNetwork)
		require.False(t, pod.HostPID)
		require.False(t, pod.HostIPC)
		require.Equal(t, repairsBySandbox(t, objects), pod.ShareProcessNamespace != nil)
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

func TestAClusterWithoutRecursiveReadOnlyMountsIsNotAskedForThem(t *testing.T) {
	t.Parallel()
	for version, want := range map[string]*corev1.RecursiveReadOnlyMode{
		"1.25.0": nil,
		"1.30.9": nil,
		"1.31.0": new(corev1.RecursiveReadOnlyIfPossible),
	} {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			objects := chart.Render(t, "", "--kube-version", version)
			require.Equal(t, want, objects.Container(t, "load").VolumeMounts[0].RecursiveReadOnly)
		})
	}
}

// What such a pod shares, and its security context, are the subject of a test of their own.
func repairsBySandbox(t *testing.T, objects chart.Objects) bool {
	t.Helper()
	return env(objects.Container(t, "watch"))["ISTIO_OS_INIT_REPAIR"] == "sandbox"
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
