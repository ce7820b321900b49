package lab

import (
	"context"
	"encoding/json"
	"os/exec"
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

// Label gives a node a label, which goes when the test ends.
func Label(t *testing.T, node, key, value string) {
	t.Helper()
	set := func(ctx context.Context, value any) error {
		patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"labels": map[string]any{key: value}}})
		require.NoError(t, err)
		_, err = Client(t).CoreV1().Nodes().Patch(ctx, node, types.MergePatchType, patch, metav1.PatchOptions{})
		return err
	}
	// the test's own context ends before its clean-up
	t.Cleanup(func() { require.NoError(t, set(context.WithoutCancel(t.Context()), nil)) })
	require.NoError(t, set(t.Context(), value))
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
