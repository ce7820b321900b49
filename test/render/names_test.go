package render

import (
	"fmt"
	"strings"
	"testing"

	"github.com/gruntwork-io/terratest/modules/helm"
	"github.com/stretchr/testify/require"

	"github.com/istio-os-init/istio-os-init/test/internal/chart"
)

// Strictly decoded: an unquoted 123 is no string for Kubernetes, and 1e3 becomes 1000.
func TestANameThatYAMLTakesForANumberOrABooleanIsAString(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"123", "1e3", "true", "null", "0x10", "1.5"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			namespace := strings.ReplaceAll(name, ".", "-") // a namespace has no dot
			values := chart.ValuesFile(t, fmt.Sprintf(`
fullnameOverride: %q
nodeSelector: {pool: "%[1]s"}
podLabels: {team: "%[1]s"}
podAnnotations: {example.com/team: "%[1]s"}
priorityClassName: "system-%[1]s"
serviceAccount: {name: "%[1]s"}
extraEnv: [{name: A, value: "%[1]s"}]
nodes: {osRelease: ["%[1]s"]}
signals: {nodeCondition: {enabled: true}, startupTaint: {remove: true, key: "%[1]s"}, nodeReadinessRule: {enabled: true, taintKey: "%[1]s"}, prometheusRule: {enabled: true, force: true}}
global: {platform: openshift, networkPolicy: {enabled: true}}
resourceQuotas: {enabled: true}
`, name))
			manifest, err := helm.RenderTemplateContextE(t, t.Context(), chart.Options(t, values), chart.Path(), name, nil,
				"--namespace", namespace, "--kube-version", chart.KubeVersion)
			require.NoError(t, err)
			objects := chart.Decode(t, manifest)
			require.Equal(t, name, objects.DaemonSet(t).Name)
			require.Equal(t, namespace, objects.DaemonSet(t).Namespace)
			require.Equal(t, name, objects.DaemonSet(t).Spec.Template.Labels["app.kubernetes.io/instance"])
			require.Equal(t, name, objects.Pod(t).ServiceAccountName)
			require.Equal(t, "app.kubernetes.io/instance="+name+",app.kubernetes.io/name=istio-os-init-clean-up",
				env(objects.Hooks.Uninstaller(t))["ISTIO_OS_INIT_CLEANER_PODS"])
		})
	}
}
