package lab

import (
	"context"
	"encoding/json"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
)

// RunOn runs a shell command as root on a node's host and returns what it prints, without white space around it.
func RunOn(t *testing.T, node, command string) string {
	t.Helper()
	if node == vmName {
		return strings.TrimSpace((&VM{t: t, Name: node}).Run(command))
	}
	return strings.TrimSpace(string(run(t, "docker", "exec", node, "sh", "-c", command)))
}

// ControlPlane is the node that runs the API server and keeps its audit log, and the container that it is (scripts/lab/lib.sh).
const ControlPlane = "istio-os-init-control-plane"

// Containers returns the names of the nodes that are containers of Docker's: all but the VM, and those that are only simulated.
func Containers(t *testing.T) []string {
	t.Helper()
	running := strings.Fields(string(run(t, "docker", "ps", "--format", "{{.Names}}")))
	return slices.DeleteFunc(Nodes(t), func(node string) bool { return !slices.Contains(running, node) })
}

// Label gives a node a label, which goes when the test ends.
func Label(t *testing.T, node, key, value string) {
	t.Helper()
	// the test's own context ends before its clean-up
	t.Cleanup(func() { label(context.WithoutCancel(t.Context()), t, node, key, nil) })
	label(t.Context(), t, node, key, value)
}

// Unlabel takes a label off a node.
func Unlabel(t *testing.T, node, key string) {
	t.Helper()
	label(t.Context(), t, node, key, nil)
}

func label(ctx context.Context, t *testing.T, node, key string, value any) {
	t.Helper()
	patchNode(ctx, t, node, map[string]any{"metadata": map[string]any{"labels": map[string]any{key: value}}})
}

// Untaint takes the control plane's taints off it until the test ends, for pods that tolerate none.
func Untaint(t *testing.T) {
	t.Helper()
	node, err := Client(t).CoreV1().Nodes().Get(t.Context(), ControlPlane, metav1.GetOptions{})
	require.NoError(t, err)
	set := func(ctx context.Context, taints any) {
		patchNode(ctx, t, ControlPlane, map[string]any{"spec": map[string]any{"taints": taints}})
	}
	t.Cleanup(func() { set(context.WithoutCancel(t.Context()), node.Spec.Taints) }) // the test's own context ends before its clean-up
	set(t.Context(), nil)
}

func patchNode(ctx context.Context, t *testing.T, node string, change map[string]any) {
	t.Helper()
	patch, err := json.Marshal(change)
	require.NoError(t, err)
	_, err = Client(t).CoreV1().Nodes().Patch(ctx, node, types.MergePatchType, patch, metav1.PatchOptions{})
	require.NoError(t, err)
}

// Stopped is a worker that is down.
type Stopped struct {
	t      *testing.T
	client *kubernetes.Clientset
	Name   string
	up     bool
}

// StopWorker takes down a worker of the cluster, kubelet, pods and all, until Start or the end of the test. The API server goes
// on calling it Ready for most of a minute.
func StopWorker(t *testing.T) *Stopped {
	t.Helper()
	client := Client(t)
	nodes, err := client.CoreV1().Nodes().List(t.Context(), metav1.ListOptions{LabelSelector: "!node-role.kubernetes.io/control-plane"})
	require.NoError(t, err)
	for _, node := range nodes.Items {
		if node.Name == vmName { // not a container of Docker's
			continue
		}
		stopped := &Stopped{t: t, client: client, Name: node.Name}
		t.Cleanup(stopped.Start)
		run(t, "docker", "pause", node.Name)
		return stopped
	}
	require.Fail(t, "the lab has no worker")
	return nil
}

// Start brings it up again and waits until the cluster schedules on it as before.
func (s *Stopped) Start() {
	s.t.Helper()
	if s.up {
		return
	}
	ctx := context.WithoutCancel(s.t.Context()) // the test's own context ends before its clean-up
	output, err := exec.CommandContext(ctx, "docker", "unpause", s.Name).CombinedOutput()
	require.NoError(s.t, err, string(output))
	s.up = true
	since := time.Now()
	require.Eventually(s.t, func() bool {
		node, err := s.client.CoreV1().Nodes().Get(ctx, s.Name, metav1.GetOptions{})
		if err != nil || len(node.Spec.Taints) > 0 {
			return false
		}
		for _, condition := range node.Status.Conditions {
			if condition.Type == corev1.NodeReady {
				// told by the node itself since then: until now the API server may have believed in it
				return condition.Status == corev1.ConditionTrue && condition.LastHeartbeatTime.After(since.Add(-time.Second))
			}
		}
		return false
	}, Patience, time.Second, "%s does not come back", s.Name)
}
