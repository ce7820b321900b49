package render

import (
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"sigs.k8s.io/yaml"

	"github.com/istio-os-init/istio-os-init/test/internal/chart"
	"github.com/istio-os-init/istio-os-init/test/internal/docs"
)

const alerts = "signals: {prometheusRule: {enabled: true, force: true}}"

// The real promtool evaluates the rendered rules on what kube-state-metrics would say, as testdata/alerts.yaml has it.
func TestAlertsFireWhenTheyShouldAndOnlyThen(t *testing.T) {
	t.Parallel()
	promtool := chart.Tool(t, "promtool")
	for name, values := range map[string]string{
		"pods":      alerts,
		"condition": "signals: {nodeCondition: {enabled: true}, prometheusRule: {enabled: true, force: true}}",
		"by-hand":   "{updateStrategy: {type: OnDelete}, signals: {prometheusRule: {enabled: true, force: true}}}",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			write := func(file string, content []byte) {
				require.NoError(t, os.WriteFile(filepath.Join(dir, file), content, 0o600))
			}
			rules, err := yaml.Marshal(map[string]any{"groups": chart.Render(t, values).PrometheusRules[0].Spec.Groups})
			require.NoError(t, err)
			write("rules.yaml", rules)
			tests, err := os.ReadFile(filepath.Join("testdata", "alerts", name+".yaml"))
			require.NoError(t, err)
			write("tests.yaml", tests)
			for _, arguments := range [][]string{{"check", "rules", "--lint=all", "--lint-fatal", "rules.yaml"}, {"test", "rules", "tests.yaml"}} {
				command := exec.CommandContext(t.Context(), promtool, arguments...)
				command.Dir = dir
				output, err := command.CombinedOutput()
				require.NoError(t, err, "%v:\n%s\n%s", arguments, output, rules)
			}
		})
	}
}

func TestAlertsAreRenderedWhereTheOperatorIsOrWhereForced(t *testing.T) {
	t.Parallel()
	on := "signals: {prometheusRule: {enabled: true}}"
	require.Empty(t, chart.Render(t, on).PrometheusRules)
	require.Len(t, chart.Render(t, on, "--api-versions", "monitoring.coreos.com/v1").PrometheusRules, 1)
	require.Len(t, chart.Render(t, alerts).PrometheusRules, 1)
}

func TestAlertsCanBeLabelledForTheirPrometheusAndTheirReceiver(t *testing.T) {
	t.Parallel()
	rule := chart.Render(t, `signals: {prometheusRule: {enabled: true, force: true, additionalLabels: {release: prometheus}, annotations: {team: mesh},
  additionalRuleLabels: {severity: critical, team: mesh}, additionalRuleAnnotations: {runbook_url: https://example.com}}}`).PrometheusRules[0]
	require.Equal(t, "prometheus", rule.Labels["release"])
	require.Equal(t, chart.Release, rule.Labels["app.kubernetes.io/instance"])
	require.Equal(t, map[string]string{"team": "mesh"}, rule.Annotations)
	require.Len(t, rule.Spec.Groups[0].Rules, 3)
	for _, alert := range rule.Spec.Groups[0].Rules {
		require.Equal(t, map[string]string{"severity": "critical", "team": "mesh", "namespace": chart.Namespace}, alert.Labels, alert.Alert)
		require.Equal(t, "https://example.com", alert.Annotations["runbook_url"], alert.Alert)
		require.NotEmpty(t, alert.Annotations["summary"], alert.Alert)
		require.NotEmpty(t, alert.Annotations["description"], alert.Alert)
	}
}

func TestThePageOfSignalsNamesEveryAlertEveryMetricAndTheTaint(t *testing.T) {
	t.Parallel()
	content, err := os.ReadFile(filepath.Join(chart.Path(), "docs", "signals.md"))
	require.NoError(t, err)
	page := string(content)
	var named, rendered []string
	for _, match := range regexp.MustCompile("(?m)^\\| `(IstioOsInit\\w+)` \\|").FindAllStringSubmatch(page, -1) {
		named = append(named, match[1])
	}
	metric := regexp.MustCompile(`kube_\w+`)
	listed, used := metric.FindAllString(page, -1), map[string]bool{}
	for _, values := range []string{alerts, "signals: {nodeCondition: {enabled: true}, prometheusRule: {enabled: true, force: true}}"} {
		rendered = nil
		for _, alert := range chart.Render(t, values).PrometheusRules[0].Spec.Groups[0].Rules {
			rendered = append(rendered, alert.Alert)
			for _, name := range metric.FindAllString(alert.Expr.String(), -1) {
				used[regexp.MustCompile(`^kube_daemonset_status_.*`).ReplaceAllString(name, "kube_daemonset_status_")] = true
			}
		}
		require.Equal(t, rendered, named)
	}
	require.ElementsMatch(t, slices.Collect(maps.Keys(used)), listed)
	provisioners := docs.Blocks(page, "yaml")
	require.Len(t, provisioners, 3)
	key := env(chart.Render(t, taint).Container(t, "signal"))["ISTIO_OS_INIT_TAINT"]
	for _, provisioner := range provisioners {
		var object map[string]any
		require.NoError(t, yaml.UnmarshalStrict([]byte(provisioner), &object))
		require.Contains(t, provisioner, "key: "+key+"\n")
	}
}
