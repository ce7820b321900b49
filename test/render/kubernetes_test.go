package render

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/istio-os-init/istio-os-init/test/internal/chart"
)

// What is the same for the oldest and for the newest version is not rendered once more for those between.
func TestEveryVersionOfKubernetesKnowsEveryFieldOfEveryScenario(t *testing.T) {
	t.Parallel()
	schemas := chart.Schemas(t)
	for _, scenario := range chart.Scenarios(t) {
		t.Run(scenario, func(t *testing.T) {
			t.Parallel()
			render := func(schema chart.Schema) (string, error) {
				return chart.Manifest(t, chart.Path(), []string{chart.Scenario(scenario)}, "--kube-version", schema.Version)
			}
			newest, err := render(schemas[len(schemas)-1])
			require.NoError(t, err)
			oldest, _ := render(schemas[0])
			for _, schema := range schemas {
				manifest := newest
				if oldest != newest {
					manifest, err = render(schema)
				}
				if scenario == "signals" && schema.Minor < 30 {
					require.ErrorContains(t, err, "need Kubernetes 1.30 or later")
					continue
				}
				require.NoError(t, err, schema.Version)
				require.NoError(t, schema.Check(manifest), schema.Version)
			}
		})
	}
}

// The control: each version refuses a field that came after it, by its name. The chart itself renders the second for a later version.
func TestAFieldIsRefusedThatAVersionOfKubernetesDoesNotHave(t *testing.T) {
	t.Parallel()
	fields := map[int][2]string{
		25: {"resizePolicy", "resizePolicy: []"},
		28: {"appArmorProfile", "securityContext: {appArmorProfile: {type: RuntimeDefault}}"},
		30: {"stopSignal", "lifecycle: {stopSignal: SIGTERM}"},
		33: {"restartPolicyRules", "restartPolicyRules: []"},
		37: {"nothingLikeIt", "nothingLikeIt: {}"},
	}
	schemas := chart.Schemas(t)
	require.Len(t, schemas, len(fields))
	for i, schema := range schemas {
		field := fields[schema.Minor]
		manifest := "apiVersion: v1\nkind: Pod\nspec:\n  containers:\n    - name: watch\n      " + field[1] + "\n"
		require.ErrorContains(t, schema.Check(manifest), field[0]+": field not declared in schema")
		if i+1 < len(schemas) {
			require.NoError(t, schemas[i+1].Check(manifest), "the next version has it")
		}
	}

	oldest := schemas[0]
	newer, err := chart.Manifest(t, chart.Path(), nil, "--set", "load.recursiveReadOnly=true")
	require.NoError(t, err)
	require.ErrorContains(t, oldest.Check(newer), "recursiveReadOnly: field not declared in schema")
	policy, err := chart.Manifest(t, chart.Path(), []string{chart.Scenario("signals")})
	require.NoError(t, err)
	_, policy, found := strings.Cut(policy, "kind: ValidatingAdmissionPolicy\n")
	require.True(t, found)
	require.ErrorContains(t, oldest.Check("apiVersion: admissionregistration.k8s.io/v1\nkind: ValidatingAdmissionPolicy\n"+policy), "has no admissionregistration.k8s.io/v1, Kind=ValidatingAdmissionPolicy")
}

// The table is written by make test-kubernetes, which says in each row what was proven.
func TestTheOldestVersionOfTheTableIsTheOldestThatTheChartAllows(t *testing.T) {
	t.Parallel()
	table, err := os.ReadFile(filepath.Join(chart.Path(), "docs", "kubernetes.md"))
	require.NoError(t, err)
	rows := regexp.MustCompile(`(?m)^\| 1\.(\d+)\.\d+ \| `).FindAllStringSubmatch(string(table), -1)
	require.NotEmpty(t, rows)
	metadata, err := os.ReadFile(filepath.Join(chart.Path(), "Chart.yaml"))
	require.NoError(t, err)
	require.Contains(t, string(metadata), fmt.Sprintf("kubeVersion: \">=1.%s.0-0\"\n", rows[0][1]))
	schemas := chart.Schemas(t)
	require.Equal(t, rows[0][1], fmt.Sprint(schemas[0].Minor), "the oldest schema")
	for _, schema := range schemas {
		require.Contains(t, string(table), fmt.Sprintf("\n| 1.%d.", schema.Minor))
	}
}
