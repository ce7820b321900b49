package render

import (
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/istio-os-init/istio-os-init/test/internal/chart"
)

// What a container may write decides what it could make another container do.
func TestEveryVolumeHasOneWriter(t *testing.T) {
	t.Parallel()
	may := map[string][]string{
		"load":           {"/etc/modules-load.d", "/run/istio-os-init/load"},
		"verify":         {"/run/istio-os-init/verify"},
		"verify-traffic": {"/run/istio-os-init/traffic"},
		"watch":          {"/run/istio-os-init/watch"},
		"clean-up":       {"/etc/modules-load.d"},
	}
	forEveryScenario(t, func(t *testing.T, objects chart.Objects) {
		for _, pod := range pods(t, objects) {
			writer := map[string]string{}
			for _, container := range append(pod.Spec.InitContainers, pod.Spec.Containers...) {
				var writes []string
				for _, mount := range container.VolumeMounts {
					require.Empty(t, mount.SubPath+mount.SubPathExpr, "%s: a link in the volume could lead out of it", container.Name)
					require.Nil(t, mount.MountPropagation, container.Name)
					if mount.ReadOnly {
						continue
					}
					writes = append(writes, mount.MountPath)
					require.Empty(t, writer[mount.Name], "%s and %s write to volume %s", writer[mount.Name], container.Name, mount.Name)
					writer[mount.Name] = container.Name
				}
				expected := may[container.Name]
				if looksOnly(container) {
					expected = []string{"/run/istio-os-init/load"}
				}
				require.Equal(t, expected, writes, "what %s writes to", container.Name)
				require.Empty(t, container.VolumeDevices, container.Name)
			}
			for _, volume := range pod.Spec.Volumes {
				if volume.EmptyDir == nil {
					continue
				}
				require.NotEmpty(t, writer[volume.Name], "nothing writes to %s", volume.Name)
				require.Equal(t, corev1.StorageMediumMemory, volume.EmptyDir.Medium, volume.Name)
				require.NotNil(t, volume.EmptyDir.SizeLimit, volume.Name)
				require.Equal(t, resource.MustParse("1Mi"), *volume.EmptyDir.SizeLimit, volume.Name)
			}
		}
	})
}

// pods are all that a release makes in its life: its own, that of helm test, and those of uninstall.
func pods(t *testing.T, objects chart.Objects) []corev1.PodTemplateSpec {
	t.Helper()
	all := []corev1.PodTemplateSpec{objects.DaemonSet(t).Spec.Template}
	for _, test := range objects.Tests {
		all = append(all, corev1.PodTemplateSpec{ObjectMeta: test.ObjectMeta, Spec: test.Spec})
	}
	if hooks := objects.Hooks; hooks != nil {
		for _, daemonSet := range hooks.DaemonSets {
			all = append(all, daemonSet.Spec.Template)
		}
		for _, job := range hooks.Jobs {
			all = append(all, job.Spec.Template)
		}
	}
	return all
}
