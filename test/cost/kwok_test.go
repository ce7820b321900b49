package cost

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/util/retry"

	"github.com/istio-os-init/istio-os-init/test/internal/chart"
	"github.com/istio-os-init/istio-os-init/test/internal/lab"
)

// fleetLabel marks the simulated nodes. Its value is one run's own: a kwok that a killed run has left manages no node of another.
const fleetLabel = "cost.istio-os-init/fleet"

// fleet is nodes of the lab's cluster that exist only in its API: kwok plays their kubelets.
type fleet struct {
	client *kubernetes.Clientset
	// run is the label's value, and what the nodes' names begin with.
	run  string
	size int
	// real is what a real node says of itself, which the others take after.
	real corev1.NodeStatus
	// What the pods take: seconds from creation to Ready, and from deletion to their end.
	toReady, toGone map[subject]float64
}

// newFleet returns a fleet without nodes. toReady and toGone: what its pods take, in seconds. All there is of it goes when the test ends.
func newFleet(t *testing.T, toReady, toGone map[subject]float64) *fleet {
	t.Helper()
	config := lab.Config(t)
	config.QPS, config.Burst = 2000, 2000 // ours is not the client that limits
	client, err := kubernetes.NewForConfig(config)
	require.NoError(t, err)
	plane, err := client.CoreV1().Nodes().Get(t.Context(), lab.ControlPlane, metav1.GetOptions{})
	require.NoError(t, err)
	f := &fleet{client: client, run: fmt.Sprintf("fleet-%d", time.Now().Unix()), real: plane.Status, toReady: toReady, toGone: toGone}

	ctx := context.WithoutCancel(t.Context()) // the test's own context ends before its clean-up
	require.NoError(t, f.remove(ctx), "what a killed run has left does not go")
	f.lower(t)
	f.keepOff(t)
	t.Cleanup(func() { require.NoError(t, f.remove(ctx)) })
	f.startKwok(t)
	return f
}

// keepOff keeps the lab's own DaemonSets, such as kube-proxy, off the simulated nodes until the test ends. Their pods on real
// nodes stay as they are: a new template replaces none where the strategy is OnDelete, and at the end they are of the newest again.
func (f *fleet) keepOff(t *testing.T) {
	t.Helper()
	ctx := context.WithoutCancel(t.Context()) // the test's own context ends before its clean-up
	daemonSets := f.client.AppsV1().DaemonSets(metav1.NamespaceSystem)
	list, err := daemonSets.List(ctx, metav1.ListOptions{})
	require.NoError(t, err)
	const note = "cost.istio-os-init/as-it-was" // also for the run after one that is killed
	for _, one := range list.Items {
		change := func(change func(*appsv1.DaemonSet) error) {
			require.NoError(t, retry.RetryOnConflict(retry.DefaultRetry, func() error {
				daemonSet, err := daemonSets.Get(ctx, one.Name, metav1.GetOptions{})
				if err == nil {
					err = change(daemonSet)
				}
				if err == nil {
					_, err = daemonSets.Update(ctx, daemonSet, metav1.UpdateOptions{})
				}
				return err
			}))
		}
		back := func(daemonSet *appsv1.DaemonSet) error {
			content, noted := daemonSet.Annotations[note]
			if !noted {
				return nil
			}
			delete(daemonSet.Annotations, note)
			daemonSet.Spec = appsv1.DaemonSetSpec{}
			return json.Unmarshal([]byte(content), &daemonSet.Spec)
		}
		t.Cleanup(func() { change(back) })
		change(func(daemonSet *appsv1.DaemonSet) error {
			if err := back(daemonSet); err != nil {
				return err
			}
			content, err := json.Marshal(daemonSet.Spec)
			metav1.SetMetaDataAnnotation(&daemonSet.ObjectMeta, note, string(content))
			daemonSet.Spec.UpdateStrategy = appsv1.DaemonSetUpdateStrategy{Type: appsv1.OnDeleteDaemonSetStrategyType}
			only(&daemonSet.Spec.Template.Spec, corev1.NodeSelectorRequirement{Key: fleetLabel, Operator: corev1.NodeSelectorOpDoesNotExist})
			return err
		})
	}
}

// only adds to what a pod demands of its node.
func only(pod *corev1.PodSpec, requirement corev1.NodeSelectorRequirement) {
	if pod.Affinity == nil {
		pod.Affinity = &corev1.Affinity{}
	}
	if pod.Affinity.NodeAffinity == nil {
		pod.Affinity.NodeAffinity = &corev1.NodeAffinity{}
	}
	required := &pod.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution
	if *required == nil {
		*required = &corev1.NodeSelector{NodeSelectorTerms: make([]corev1.NodeSelectorTerm, 1)}
	}
	for i := range (*required).NodeSelectorTerms { // one of which a node has to fulfil
		term := &(*required).NodeSelectorTerms[i]
		term.MatchExpressions = append(term.MatchExpressions, requirement)
	}
}

// startKwok starts kwok for the run's nodes, until the test ends.
func (f *fleet) startKwok(t *testing.T) {
	t.Helper()
	dir := t.TempDir()
	config, log := filepath.Join(dir, "kwok.yaml"), filepath.Join(dir, "kwok.log")
	content := kwokConfig
	for s, label := range map[subject]string{ours: `{"app.kubernetes.io/name": "istio-os-init"}`, theirs: `{"app": "istio-os-init"}`} {
		name := map[subject]string{ours: "ours", theirs: "theirs"}[s]
		content += fmt.Sprintf(podStages, name, label, int(f.toReady[s]*1000), int(f.toGone[s]*1000))
	}
	require.NoError(t, os.WriteFile(config, []byte(content), 0o644))
	output, err := os.Create(log)
	require.NoError(t, err)
	kwok := exec.Command(chart.Tool(t, "kwok"), "--kubeconfig", lab.Kubectl(t, "").ConfigPath, "--config", config,
		"--manage-nodes-with-label-selector", fleetLabel+"="+f.run, "--v", "WARN")
	kwok.Env = append(os.Environ(), "HOME="+dir) // no configuration of the user's
	kwok.Stdout, kwok.Stderr = output, output
	require.NoError(t, kwok.Start())
	t.Cleanup(func() {
		_ = kwok.Process.Kill()
		_ = kwok.Wait()
		output.Close()
		if content, err := os.ReadFile(log); t.Failed() && err == nil {
			t.Logf("kwok:\n%s", content[max(0, len(content)-4000):])
		}
	})
}

// kwokConfig is what kwok does to the nodes. Its clients have no rate limits of their own; its workers are more than the default 4.
// A lease is renewed every 30 s, the longest that the control plane's patience of 50 s allows: a real kubelet does it every 10 s,
// which is load, but none that has to do with a DaemonSet.
const kwokConfig = `
apiVersion: config.kwok.x-k8s.io/v1alpha1
kind: KwokConfiguration
options:
  nodeLeaseDurationSeconds: 120
  podPlayStageParallelism: 32
  nodePlayStageParallelism: 16
  nodeLeaseParallelism: 16
  podsOnNodeSyncParallelism: 16
---
apiVersion: kwok.x-k8s.io/v1alpha1
kind: Stage
metadata: {name: node-ready}
spec:
  resourceRef: {apiGroup: v1, kind: Node}
  selector:
    matchExpressions:
      - jq: {key: '.status.conditions.[] | select( .type == "Ready" ) | .status', operator: NotIn, values: ["True"]}
  steps:
    - patch:
        subresource: status
        root: status
        template: |
          conditions:
            - {type: Ready, status: "True", reason: Simulated, lastHeartbeatTime: {{ Now | Quote }}, lastTransitionTime: {{ Now | Quote }}}
`

// podStages is what kwok does to a subject's pods: with name and labels, and the delays in milliseconds. One request makes a pod
// Ready and one ends it; a real kubelet makes several, as the pod's containers come and go.
const podStages = `
---
apiVersion: kwok.x-k8s.io/v1alpha1
kind: Stage
metadata: {name: %[1]s-ready}
spec:
  resourceRef: {apiGroup: v1, kind: Pod}
  selector:
    matchLabels: %[2]s
    matchExpressions:
      - jq: {key: .metadata.deletionTimestamp, operator: DoesNotExist}
      - jq: {key: .status.phase, operator: In, values: [Pending]}
  delay: {durationMilliseconds: %[3]d}
  steps:
    - patch:
        subresource: status
        root: status
        template: |
          conditions:
            - {type: Initialized, status: "True", lastTransitionTime: {{ Now | Quote }}}
            - {type: Ready, status: "True", lastTransitionTime: {{ Now | Quote }}}
            - {type: ContainersReady, status: "True", lastTransitionTime: {{ Now | Quote }}}
          phase: Running
          startTime: {{ Now | Quote }}
---
apiVersion: kwok.x-k8s.io/v1alpha1
kind: Stage
metadata: {name: %[1]s-gone}
spec:
  resourceRef: {apiGroup: v1, kind: Pod}
  selector:
    matchLabels: %[2]s
    matchExpressions:
      - jq: {key: .metadata.deletionTimestamp, operator: Exists}
  delay: {durationMilliseconds: %[4]d}
  steps:
    - delete: true
`

// grow adds nodes until there are so many, and waits until kwok plays all of them.
func (f *fleet) grow(t *testing.T, size int) {
	t.Helper()
	nodes, before := f.client.CoreV1().Nodes(), f.size
	require.NoError(t, each(size-before, func(i int) error {
		node, err := nodes.Create(t.Context(), f.node(before+i), metav1.CreateOptions{})
		if err != nil {
			return err
		}
		// The API server taints what is new, and the control plane would take that off twenty times in a second.
		_, err = nodes.Patch(t.Context(), node.Name, types.MergePatchType, []byte(`{"spec":{"taints":null}}`), metav1.PatchOptions{})
		return err
	}))
	f.size = size
	require.Eventually(t, func() bool {
		leases, err := f.leases(t.Context())
		return err == nil && len(leases) == size
	}, 2*time.Minute, time.Second, "kwok does not take the nodes")
}

// node is one that is Ready from the start. A pod network of its own would cost the control plane requests, and a network of this
// size has none for so many: they share one, which nobody uses.
func (f *fleet) node(number int) *corev1.Node {
	name := fmt.Sprintf("%s-%04d", f.run, number)
	room := corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("4"), corev1.ResourceMemory: resource.MustParse("16Gi"), corev1.ResourcePods: resource.MustParse("110")}
	now := metav1.Now()
	return &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{fleetLabel: f.run, corev1.LabelOSStable: "linux", corev1.LabelHostname: name}},
		Spec:       corev1.NodeSpec{PodCIDR: "10.244.255.0/24", PodCIDRs: []string{"10.244.255.0/24"}},
		Status: corev1.NodeStatus{
			Capacity: room, Allocatable: room,
			Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue, Reason: "Simulated", LastHeartbeatTime: now, LastTransitionTime: now}},
			NodeInfo:   f.real.NodeInfo,
			// the scheduler looks here for what the chart's restart rules need
			DeclaredFeatures: f.real.DeclaredFeatures,
		},
	}
}

// leases returns the names of the leases of simulated nodes, of any run.
func (f *fleet) leases(ctx context.Context) ([]string, error) {
	list, err := f.client.CoordinationV1().Leases(corev1.NamespaceNodeLease).List(ctx, metav1.ListOptions{})
	var names []string
	if err == nil {
		for _, lease := range list.Items {
			if strings.HasPrefix(lease.Name, "fleet-") {
				names = append(names, lease.Name)
			}
		}
	}
	return names, err
}

// remove removes the simulated nodes of any run, with their pods and leases.
func (f *fleet) remove(ctx context.Context) error {
	pods, err := f.client.CoreV1().Pods(metav1.NamespaceAll).List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	if err := f.client.CoreV1().Nodes().DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{LabelSelector: fleetLabel}); err != nil {
		return err
	}
	if err := each(len(pods.Items), func(i int) error {
		pod := &pods.Items[i]
		if !strings.HasPrefix(pod.Spec.NodeName, "fleet-") {
			return nil
		}
		return gone(f.client.CoreV1().Pods(pod.Namespace).Delete(ctx, pod.Name, metav1.DeleteOptions{GracePeriodSeconds: new(int64(0))}))
	}); err != nil {
		return err
	}
	leases, err := f.leases(ctx)
	if err != nil {
		return err
	}
	return each(len(leases), func(i int) error {
		return gone(f.client.CoordinationV1().Leases(corev1.NamespaceNodeLease).Delete(ctx, leases[i], metav1.DeleteOptions{}))
	})
}

// clear removes a subject's pods when the test ends, faster than the control plane would, and what Helm knows of the release: its
// uninstall would have a pod clean each node.
func (f *fleet) clear(t *testing.T, d *deployment) {
	t.Helper()
	ctx := context.WithoutCancel(t.Context()) // the test's own context ends before its clean-up
	t.Cleanup(func() {
		require.NoError(t, f.client.CoreV1().Secrets(d.Namespace).DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{LabelSelector: "owner=helm"}))
		require.NoError(t, gone(f.client.AppsV1().DaemonSets(d.Namespace).Delete(ctx, d.name, metav1.DeleteOptions{})))
		require.NoError(t, f.client.CoreV1().Pods(d.Namespace).DeleteCollection(ctx, metav1.DeleteOptions{GracePeriodSeconds: new(int64(0))},
			metav1.ListOptions{LabelSelector: d.selector}))
	})
}

// gone returns the error of a deletion, if it is another than that there is nothing to delete.
func gone(err error) error {
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// each calls do with every number below n, sixteen at a time, and returns one of the errors, if there are any.
func each(n int, do func(int) error) error {
	var next atomic.Int64
	var failed atomic.Pointer[error]
	var workers sync.WaitGroup
	for range 16 {
		workers.Go(func() {
			for i := int(next.Add(1)) - 1; i < n && failed.Load() == nil; i = int(next.Add(1)) - 1 {
				if err := do(i); err != nil {
					failed.Store(&err)
				}
			}
		})
	}
	workers.Wait()
	if err := failed.Load(); err != nil {
		return *err
	}
	return nil
}
