package controlplane

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
)

// Node is one of the fleet: only its object exists.
type Node struct {
	Name  string
	Minor int // of its kubelet
}

// addFleet adds a node for each minor of the kubelet that the API server's version supports: since 1.28 up to three older, before up to two.
func (p *Plane) addFleet(ctx context.Context) error {
	oldest := p.Minor - 3
	if p.Minor < 28 {
		oldest = p.Minor - 2
	}
	room := corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("4"), corev1.ResourceMemory: resource.MustParse("16Gi"), corev1.ResourcePods: resource.MustParse("110")}
	for minor := oldest; minor <= p.Minor; minor++ {
		one := Node{fmt.Sprintf("kubelet-1-%d", minor), minor}
		object := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: one.Name, Labels: map[string]string{corev1.LabelOSStable: "linux", corev1.LabelHostname: one.Name}}}
		// Its status comes as a kubelet's does, by an update: the API server then knows the writer of each field.
		created, err := p.Client.CoreV1().Nodes().Create(ctx, object, metav1.CreateOptions{})
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
		if _, err := p.Client.CoreV1().Nodes().UpdateStatus(ctx, created, metav1.UpdateOptions{}); err != nil {
			return err
		}
		// The API server taints what is new, and nothing here removes that.
		if _, err := p.Client.CoreV1().Nodes().Patch(ctx, one.Name, types.MergePatchType, []byte(`{"spec":{"taints":null}}`), metav1.PatchOptions{}); err != nil {
			return err
		}
		p.Nodes = append(p.Nodes, one)
	}
	return nil
}

// restartAll is a feature of the kubelet by which a pod's containers all start again, and one that the chart does without.
const restartAll = "RestartAllContainersOnContainerExits"

// playKubelets makes each pod that has a node Ready, and removes each that is deleted, until the context ends. None ends by itself: see End.
func (p *Plane) playKubelets(ctx context.Context) {
	for ctx.Err() == nil {
		list, err := p.Client.CoreV1().Pods(metav1.NamespaceAll).List(ctx, metav1.ListOptions{ResourceVersion: "0"})
		if err == nil {
			for _, pod := range list.Items {
				switch {
				case pod.Spec.NodeName == "":
				case pod.DeletionTimestamp != nil:
					_ = p.Client.CoreV1().Pods(pod.Namespace).Delete(ctx, pod.Name, metav1.DeleteOptions{GracePeriodSeconds: new(int64(0)), Preconditions: &metav1.Preconditions{UID: &pod.UID}})
				case pod.Status.Phase == corev1.PodPending:
					now := metav1.Now()
					pod.Status.Phase, pod.Status.StartTime = corev1.PodRunning, &now
					for _, condition := range []corev1.PodConditionType{corev1.PodInitialized, corev1.ContainersReady, corev1.PodReady} {
						pod.Status.Conditions = append(pod.Status.Conditions, corev1.PodCondition{Type: condition, Status: corev1.ConditionTrue, LastTransitionTime: now})
					}
					_, _ = p.Client.CoreV1().Pods(pod.Namespace).UpdateStatus(ctx, &pod, metav1.UpdateOptions{})
				}
			}
		}
		time.Sleep(interval)
	}
}

// End ends a pod as its kubelet does when all its containers have exited with 0.
func (p *Plane) End(t *testing.T, pod *corev1.Pod) {
	t.Helper()
	require.NoError(t, Eventually(t.Context(), func() bool {
		latest, err := p.Client.CoreV1().Pods(pod.Namespace).Get(t.Context(), pod.Name, metav1.GetOptions{})
		require.NoError(t, err)
		latest.Status.Phase = corev1.PodSucceeded
		for i := range latest.Status.Conditions {
			if condition := &latest.Status.Conditions[i]; condition.Type == corev1.PodReady || condition.Type == corev1.ContainersReady {
				condition.Status, condition.Reason = corev1.ConditionFalse, "PodCompleted"
			}
		}
		_, err = p.Client.CoreV1().Pods(pod.Namespace).UpdateStatus(t.Context(), latest, metav1.UpdateOptions{})
		return err == nil
	}), "%s/%s", pod.Namespace, pod.Name)
}

// Pods returns the pods of a DaemonSet that are Ready and not being deleted, by their nodes.
func (p *Plane) Pods(t *testing.T, namespace, daemonSet string) map[string]corev1.Pod {
	t.Helper()
	list, err := p.Client.CoreV1().Pods(namespace).List(t.Context(), metav1.ListOptions{})
	require.NoError(t, err)
	ready := map[string]corev1.Pod{}
	for _, pod := range list.Items {
		owner := metav1.GetControllerOf(&pod)
		if owner != nil && owner.Name == daemonSet && pod.Spec.NodeName != "" && pod.Status.Phase == corev1.PodRunning && pod.DeletionTimestamp == nil {
			ready[pod.Spec.NodeName] = pod
		}
	}
	return ready
}

// RolledOut waits until every node has a Ready pod of the DaemonSet's newest template, and returns the pods by their nodes.
func (p *Plane) RolledOut(t *testing.T, namespace, daemonSet string) map[string]corev1.Pod {
	t.Helper()
	var status appsv1.DaemonSetStatus
	require.NoError(t, Eventually(t.Context(), func() bool {
		object, err := p.Client.AppsV1().DaemonSets(namespace).Get(t.Context(), daemonSet, metav1.GetOptions{})
		status = object.Status
		return err == nil && status.ObservedGeneration == object.Generation &&
			int(status.UpdatedNumberScheduled) == len(p.Nodes) && int(status.NumberAvailable) == len(p.Nodes) && len(p.Pods(t, namespace, daemonSet)) == len(p.Nodes)
	}), "%s: not every node has its pod: %+v", namespace, &status)
	return p.Pods(t, namespace, daemonSet)
}
