package cost

import (
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"

	"github.com/istio-os-init/istio-os-init/test/internal/chart"
	"github.com/istio-os-init/istio-os-init/test/internal/lab"
)

// deployment is one subject's DaemonSet on the lab's cluster, in a namespace of its own until the test ends.
type deployment struct {
	*lab.Release // of ours; of the other only its namespace
	t            *testing.T
	name         string
	selector     string
	// container is the long-lived one, loader the one that asks for the modules.
	container, loader string
}

// deploy brings a subject to the nodes with a label. values: more of them for the chart, as YAML.
func deploy(t *testing.T, s subject, key, value, values string) *deployment {
	t.Helper()
	if s == ours {
		return deployCopy(t, chart.Path(), key, value, values)
	}
	release := lab.NewRelease(t)
	content, err := os.ReadFile("testdata/copied.yaml")
	require.NoError(t, err)
	var daemonSet appsv1.DaemonSet
	require.NoError(t, yaml.UnmarshalStrict(content, &daemonSet))
	release.CreateNamespace()
	daemonSet.Namespace = release.Namespace
	pod := &daemonSet.Spec.Template.Spec
	pod.NodeSelector = map[string]string{key: value}
	mesh := chart.RenderFiles(t, []string{lab.Values(t)}).Container(t, "verify")
	for _, containers := range [][]corev1.Container{pod.InitContainers, pod.Containers} {
		for i := range containers {
			containers[i].Image, containers[i].ImagePullPolicy = mesh.Image, mesh.ImagePullPolicy
		}
	}
	_, err = lab.Client(t).AppsV1().DaemonSets(release.Namespace).Create(t.Context(), &daemonSet, metav1.CreateOptions{})
	require.NoError(t, err)
	return &deployment{Release: release, t: t, name: daemonSet.Name, selector: "app=istio-os-init", container: "sleep", loader: "fix-modprobe"}
}

// deployCopy is deploy of ours with a copy of the chart.
func deployCopy(t *testing.T, path, key, value, values string) *deployment {
	t.Helper()
	release := lab.NewRelease(t)
	require.NoError(t, release.UpgradeTo(path, fmt.Sprintf("nodeSelector: {%s: %q}\n%s", key, value, values)))
	return &deployment{Release: release, t: t, name: chart.Release, selector: lab.Selector, container: "watch", loader: "load"}
}

// daemonSet returns it as it is now.
func (d *deployment) daemonSet() *appsv1.DaemonSet {
	d.t.Helper()
	daemonSet, err := lab.Client(d.t).AppsV1().DaemonSets(d.Namespace).Get(d.t.Context(), d.name, metav1.GetOptions{})
	require.NoError(d.t, err)
	return daemonSet
}

// pods returns all of its pods, those that are being deleted too.
func (d *deployment) pods() []corev1.Pod {
	d.t.Helper()
	list, err := lab.Client(d.t).CoreV1().Pods(d.Namespace).List(d.t.Context(), metav1.ListOptions{LabelSelector: d.selector})
	require.NoError(d.t, err)
	return list.Items
}

// restart asks for new pods everywhere, as kubectl rollout restart does.
func (d *deployment) restart() {
	d.t.Helper()
	patch := fmt.Sprintf(`{"spec":{"template":{"metadata":{"annotations":{"kubectl.kubernetes.io/restartedAt":%q}}}}}`, time.Now().Format(time.RFC3339Nano))
	_, err := lab.Client(d.t).AppsV1().DaemonSets(d.Namespace).Patch(d.t.Context(), d.name, types.StrategicMergePatchType, []byte(patch), metav1.PatchOptions{})
	require.NoError(d.t, err)
}

// until waits until a condition holds.
func (d *deployment) until(patience time.Duration, otherwise string, condition func() bool) {
	d.t.Helper()
	deadline := time.Now().Add(patience)
	for !condition() {
		require.True(d.t, time.Now().Before(deadline), "%s after %v", otherwise, patience)
		time.Sleep(50 * time.Millisecond)
	}
}
