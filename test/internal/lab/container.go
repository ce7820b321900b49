package lab

import (
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
)

// Container is one that runs on a node, as the node's kernel sees it.
type Container struct {
	t    *testing.T
	node string
	// ID is containerd's.
	ID string
}

// Status is what a pod's status says of a container, by its name; empty if it says nothing.
func Status(pod corev1.Pod, container string) corev1.ContainerStatus {
	for _, status := range slices.Concat(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses) {
		if status.Name == container {
			return status
		}
	}
	return corev1.ContainerStatus{}
}

// ContainerOf returns a pod's container that runs, by its name.
func ContainerOf(t *testing.T, pod corev1.Pod, name string) Container {
	t.Helper()
	_, id, _ := strings.Cut(Status(pod, name).ContainerID, "://")
	require.NotEmpty(t, id)
	return Container{t: t, node: pod.Spec.NodeName, ID: id}
}

// run runs a shell command on the node in the directory of the container's cgroup.
func (c Container) run(command string) string {
	c.t.Helper()
	// cgroup v2 has one directory for a container, v1 one for each controller
	return RunOn(c.t, c.node, `for directory in $(find /sys/fs/cgroup/ -type d -name '*`+c.ID+`*'); do
  cd "$directory" || exit
  { [ -e cpuacct.usage ] || grep -q '^usage_usec ' cpu.stat; } 2>/dev/null || continue
  `+command+`
  exit
done
echo "no cgroup of container `+c.ID+`" >&2
exit 1`)
}

// ProcessorTime returns what the container has used since its start, the processes that have ended included.
func (c Container) ProcessorTime() time.Duration {
	c.t.Helper()
	said := c.run(`if [ -e cpuacct.usage ]; then cat cpuacct.usage; else sed -n 's/^usage_usec \(.*\)/\1000/p' cpu.stat; fi`)
	nanoseconds, err := strconv.ParseInt(said, 10, 64)
	require.NoError(c.t, err, said)
	require.Positive(c.t, nanoseconds)
	return time.Duration(nanoseconds)
}

// Memory returns the sum of the proportional set sizes of the container's processes, in MiB. A page counts half where a process of
// another container maps it too.
func (c Container) Memory() float64 {
	c.t.Helper()
	sum := 0.0
	for line := range strings.Lines(c.run(`for process in $(cat cgroup.procs); do sed -n 's/^Pss: *\([0-9]*\) kB$/\1/p' "/proc/$process/smaps_rollup"; done`)) {
		kibibytes, err := strconv.ParseFloat(strings.TrimSpace(line), 64)
		require.NoError(c.t, err)
		sum += kibibytes / 1024
	}
	require.Positive(c.t, sum)
	return sum
}

// Cache reads the programs and libraries of the container. The kernel maps what it has of a file around a page that is needed, so a
// process is the larger the more of its files somebody has read before.
func (c Container) Cache() {
	c.t.Helper()
	c.run(`for process in $(cat cgroup.procs); do
    sed -n 's,^[^/]* \(/.*\)$,/proc/'"$process"'/root\1,p' "/proc/$process/maps"
  done | sort -u | xargs cat >/dev/null`)
}
