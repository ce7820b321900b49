package chart

import (
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"
)

// Objects are the chart's objects, strictly decoded: an unknown or repeated key fails the test.
type Objects struct {
	DaemonSets      []appsv1.DaemonSet
	ConfigMaps      []corev1.ConfigMap
	ServiceAccounts []corev1.ServiceAccount
}

// Decode decodes a manifest. A kind that Objects does not have fails the test: nothing may be rendered unseen.
func Decode(t *testing.T, manifest string) Objects {
	t.Helper()
	var objects Objects
	for document := range strings.SplitSeq("\n"+manifest, "\n---\n") {
		if strings.TrimSpace(document) == "" {
			continue
		}
		var kind metav1.TypeMeta
		require.NoError(t, yaml.Unmarshal([]byte(document), &kind))
		switch kind.APIVersion + "/" + kind.Kind {
		case "apps/v1/DaemonSet":
			objects.DaemonSets = append(objects.DaemonSets, decode[appsv1.DaemonSet](t, document))
		case "v1/ConfigMap":
			objects.ConfigMaps = append(objects.ConfigMaps, decode[corev1.ConfigMap](t, document))
		case "v1/ServiceAccount":
			objects.ServiceAccounts = append(objects.ServiceAccounts, decode[corev1.ServiceAccount](t, document))
		default:
			require.Failf(t, "unexpected object", "%s/%s in:\n%s", kind.APIVersion, kind.Kind, document)
		}
	}
	return objects
}

// DaemonSet returns the only DaemonSet.
func (o Objects) DaemonSet(t *testing.T) appsv1.DaemonSet {
	t.Helper()
	require.Len(t, o.DaemonSets, 1)
	return o.DaemonSets[0]
}

// ConfigMap returns the only ConfigMap.
func (o Objects) ConfigMap(t *testing.T) corev1.ConfigMap {
	t.Helper()
	require.Len(t, o.ConfigMaps, 1)
	return o.ConfigMaps[0]
}

// Pod returns the spec of the DaemonSet's pods.
func (o Objects) Pod(t *testing.T) corev1.PodSpec {
	t.Helper()
	return o.DaemonSet(t).Spec.Template.Spec
}

// Container returns a container or init container of the pods by its name.
func (o Objects) Container(t *testing.T, name string) corev1.Container {
	t.Helper()
	pod := o.Pod(t)
	for _, container := range append(pod.InitContainers, pod.Containers...) {
		if container.Name == name {
			return container
		}
	}
	require.Failf(t, "no such container", "%q is not among the pod's containers", name)
	return corev1.Container{}
}

// Plan returns the plan's entries, without comments, in their order.
func (o Objects) Plan(t *testing.T) []string {
	t.Helper()
	var entries []string
	for line := range strings.Lines(o.ConfigMap(t).Data["plan"]) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			entries = append(entries, line)
		}
	}
	return entries
}

func decode[T any](t *testing.T, document string) T {
	t.Helper()
	var object T
	require.NoError(t, yaml.UnmarshalStrict([]byte(document), &object), "in:\n%s", document)
	return object
}

func read(t *testing.T, file string, into any) {
	t.Helper()
	content, err := os.ReadFile(file)
	require.NoError(t, err)
	require.NoError(t, yaml.Unmarshal(content, into), file)
}
