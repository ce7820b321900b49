package lab

import (
	"fmt"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/istio-os-init/istio-os-init/test/internal/chart"
)

// TouchTheHost runs a container as load on a node, with load's mount of the host's root and its rights, and returns what it prints:
// "TRIED root|submount DIRECTORY" for each place of the host where it tries to make a file, "WRITTEN root|submount DIRECTORY" if it could, and
// "CAPABILITIES MASK", its effective ones. recursive: with the value load.recursiveReadOnly.
func (r *Release) TouchTheHost(node string, recursive bool) string {
	r.t.Helper()
	objects := chart.RenderFiles(r.t, []string{Values(r.t), chart.ValuesFile(r.t, fmt.Sprintf("load: {recursiveReadOnly: %t}", recursive))})
	load := objects.Container(r.t, "load")
	load.Command = []string{"/bin/sh", "-c", `
for directory in /host /host/etc /host/usr /host/root /host/var /host/var/lib /host/run /host/tmp /host/dev /host/dev/shm /host/sys /host/proc/sys/kernel; do
  [ -d "$directory" ] || continue
  kind=submount
  [ "$(stat -c %d "$directory")" != "$(stat -c %d /host)" ] || kind=root
  echo "TRIED $kind $directory"
  if touch "$directory/istio-os-init-was-here"; then
    rm "$directory/istio-os-init-was-here"
    echo "WRITTEN $kind $directory"
  fi
done
echo "CAPABILITIES $(sed -n 's/^CapEff:[[:space:]]*//p' /proc/self/status)"`}
	load.Env = nil
	load.VolumeMounts = load.VolumeMounts[:1]
	pod := objects.Pod(r.t)
	r.CreateNamespace()
	phase, log := r.RunPod(&corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "load-"},
		Spec: corev1.PodSpec{
			NodeName:      node,
			RestartPolicy: corev1.RestartPolicyNever,
			Containers:    []corev1.Container{load},
			Volumes:       pod.Volumes[:1],
			Tolerations:   pod.Tolerations,
		},
	})
	require.Equal(r.t, corev1.PodSucceeded, phase, log)
	return log
}
