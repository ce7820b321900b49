package kubernetes

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/istio-os-init/istio-os-init/test/internal/chart"
)

// node is one of the fleet: only its object exists.
type node struct {
	name  string
	minor int // of its kubelet
}

// addFleet adds a node for each minor of the kubelet that the API server's version supports: since 1.28 up to three older, before up to two.
func (p *plane) addFleet(ctx context.Context) error {
	oldest := p.minor - 3
	if p.minor < 28 {
		oldest = p.minor - 2
	}
	room := corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("4"), corev1.ResourceMemory: resource.MustParse("16Gi"), corev1.ResourcePods: resource.MustParse("110")}
	for minor := oldest; minor <= p.minor; minor++ {
		one := node{fmt.Sprintf("kubelet-1-%d", minor), minor}
		object := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: one.name, Labels: map[string]string{corev1.LabelOSStable: "linux", corev1.LabelHostname: one.name}}}
		// Its status comes as a kubelet's does, by an update: the API server then knows the writer of each field.
		created, err := p.client.CoreV1().Nodes().Create(ctx, object, metav1.CreateOptions{})
		if err != nil {
			return err
		}
		now := metav1.Now()
		created.Status = corev1.NodeStatus{
			Capacity: room, Allocatable: room, NodeInfo: corev1.NodeSystemInfo{KubeletVersion: fmt.Sprintf("v1.%d.0", minor), OperatingSystem: "linux"},
			Conditions: []corev1.NodeCondition{
				{Type: corev1.NodeDiskPressure, Status: corev1.ConditionFalse, Reason: "Simulated", LastHeartbeatTime: now, LastTransitionTime: now},
				{Type: corev1.NodeReady, Status: corev1.ConditionTrue, Reason: "Simulated", LastHeartbeatTime: now, LastTransitionTime: now},
			},
		}
		// What the scheduler looks at since 1.36. An older kubelet declares nothing.
		if minor >= 36 {
			created.Status.DeclaredFeatures = []string{restartAll}
		}
		if _, err := p.client.CoreV1().Nodes().UpdateStatus(ctx, created, metav1.UpdateOptions{}); err != nil {
			return err
		}
		// The API server taints what is new, and nothing here removes that.
		if _, err := p.client.CoreV1().Nodes().Patch(ctx, one.name, types.MergePatchType, []byte(`{"spec":{"taints":null}}`), metav1.PatchOptions{}); err != nil {
			return err
		}
		p.nodes = append(p.nodes, one)
	}
	return nil
}

// playKubelets makes each pod that has a node Ready, and removes each that is deleted, until the context ends.
func (p *plane) playKubelets(ctx context.Context) {
	for ctx.Err() == nil {
		list, err := p.client.CoreV1().Pods(metav1.NamespaceAll).List(ctx, metav1.ListOptions{ResourceVersion: "0"})
		if err == nil {
			for _, pod := range list.Items {
				switch {
				case pod.Spec.NodeName == "":
				case pod.DeletionTimestamp != nil:
					_ = p.client.CoreV1().Pods(pod.Namespace).Delete(ctx, pod.Name, metav1.DeleteOptions{GracePeriodSeconds: new(int64(0)), Preconditions: &metav1.Preconditions{UID: &pod.UID}})
				case pod.Status.Phase == corev1.PodPending:
					now := metav1.Now()
					pod.Status.Phase, pod.Status.StartTime = corev1.PodRunning, &now
					for _, condition := range []corev1.PodConditionType{corev1.PodInitialized, corev1.ContainersReady, corev1.PodReady} {
						pod.Status.Conditions = append(pod.Status.Conditions, corev1.PodCondition{Type: condition, Status: corev1.ConditionTrue, LastTransitionTime: now})
					}
					_, _ = p.client.CoreV1().Pods(pod.Namespace).UpdateStatus(ctx, &pod, metav1.UpdateOptions{})
				}
			}
		}
		time.Sleep(interval)
	}
}

// pods returns the pods of a release's DaemonSet that are Ready and not being deleted, by their nodes.
func (p *plane) pods(t *testing.T, namespace string) map[string]corev1.Pod {
	t.Helper()
	list, err := p.client.CoreV1().Pods(namespace).List(t.Context(), metav1.ListOptions{})
	require.NoError(t, err)
	ready := map[string]corev1.Pod{}
	for _, pod := range list.Items {
		if pod.Spec.NodeName != "" && pod.Status.Phase == corev1.PodRunning && pod.DeletionTimestamp == nil {
			ready[pod.Spec.NodeName] = pod
		}
	}
	return ready
}

// rolledOut waits until every node has a Ready pod of the DaemonSet's newest template, and returns the pods by their nodes.
func (p *plane) rolledOut(t *testing.T, namespace string) map[string]corev1.Pod {
	t.Helper()
	var daemonSet *appsv1.DaemonSet
	require.NoError(t, eventually(t.Context(), func() bool {
		var err error
		daemonSet, err = p.client.AppsV1().DaemonSets(namespace).Get(t.Context(), chart.Release, metav1.GetOptions{})
		status := daemonSet.Status
		return err == nil && status.ObservedGeneration == daemonSet.Generation &&
			int(status.UpdatedNumberScheduled) == len(p.nodes) && int(status.NumberAvailable) == len(p.nodes) && len(p.pods(t, namespace)) == len(p.nodes)
	}), "%s: not every node has its pod: %+v", namespace, &daemonSet.Status)
	return p.pods(t, namespace)
}

func TestEveryNodeOfAMixedFleetGetsItsPodAndARolloutGoesThrough(t *testing.T) {
	t.Parallel()
	p := start(t)
	releases := map[string]string{"mixed": "{}"}
	if p.policies() {
		releases["mixed-signals"] = signals
	}
	t.Run("releases", func(t *testing.T) {
		for namespace, values := range releases {
			t.Run(namespace, func(t *testing.T) {
				t.Parallel()
				p.install(t, namespace, values)
				before := p.rolledOut(t, namespace)
				p.install(t, namespace, values, "--set", "modules.extra={dummy}")
				after := p.rolledOut(t, namespace)
				for _, node := range p.nodes {
					require.NotEqual(t, before[node.name].UID, after[node.name].UID, "%s has the pod that it had", node.name)
				}
			})
		}
	})
	proven.Store("fleet", fmt.Sprintf("kubelets 1.%d to 1.%d", p.nodes[0].minor, p.minor))
}

// restartAll is a feature of the kubelet by which a pod's containers all start again, and one that the chart does without.
const restartAll = "RestartAllContainersOnContainerExits"

// The control: the scheduler looks at what a kubelet declares. With this rule older nodes get no pod, and the rollout ends there.
func TestAPodThatNeedsANewerKubeletIsKeptOffOlderNodes(t *testing.T) {
	t.Parallel()
	p := start(t)
	if p.minor < 36 {
		t.Skipf("NOT PROVEN: that a scheduler %s keeps pods off nodes by what their kubelets declare, since it is older than that. Run: make test-kubernetes", p.version)
	}
	const namespace = "restart-all"
	p.namespace(t, namespace, nil)
	daemonSet := chart.Render(t, "").DaemonSet(t)
	daemonSet.Namespace = namespace
	spec := &daemonSet.Spec.Template.Spec
	spec.ServiceAccountName = ""
	spec.Containers[0].RestartPolicy = new(corev1.ContainerRestartPolicyAlways)
	spec.Containers[0].RestartPolicyRules = []corev1.ContainerRestartRule{{
		Action:    corev1.ContainerRestartRuleActionRestartAllContainers,
		ExitCodes: &corev1.ContainerRestartRuleOnExitCodes{Operator: corev1.ContainerRestartRuleOnExitCodesOpIn, Values: []int32{1}},
	}}
	_, err := p.client.AppsV1().DaemonSets(namespace).Create(t.Context(), &daemonSet, metav1.CreateOptions{})
	require.NoError(t, err)

	old := 0
	for _, node := range p.nodes {
		if node.minor < 36 {
			old++
		}
	}
	pending := 0
	require.NoError(t, eventually(t.Context(), func() bool {
		list, err := p.client.CoreV1().Pods(namespace).List(t.Context(), metav1.ListOptions{})
		require.NoError(t, err)
		pending = 0
		for _, pod := range list.Items {
			for _, condition := range pod.Status.Conditions {
				if condition.Type == corev1.PodScheduled && condition.Reason == corev1.PodReasonUnschedulable {
					pending++
				}
			}
		}
		return pending == old && len(p.pods(t, namespace)) == len(p.nodes)-old
	}), "%d pods of %d are unschedulable", pending, old)
}
