package release

import (
	"crypto/sha256"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"sigs.k8s.io/yaml"

	"github.com/istio-os-init/istio-os-init/test/internal/chart"
)

// What a release says of itself. Chart.yaml's own keys are helm lint --strict's business.
type metadata struct {
	Version     string            `json:"version"`
	Home        string            `json:"home"`
	Sources     []string          `json:"sources"`
	Annotations map[string]string `json:"annotations"`
}

func chartMetadata(t *testing.T) metadata {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(chart.Path(), "Chart.yaml"))
	require.NoError(t, err)
	var data metadata
	require.NoError(t, yaml.Unmarshal(content, &data))
	return data
}

func version(t *testing.T) string {
	t.Helper()
	return chartMetadata(t).Version
}

// The format is https://artifacthub.io/docs/topics/annotations/helm: what it does not know, Artifact Hub passes over in silence.
func TestTheAnnotationsAreWhatArtifactHubReads(t *testing.T) {
	t.Parallel()
	data := chartMetadata(t)
	for name, value := range data.Annotations {
		switch name {
		case "artifacthub.io/category":
			require.Contains(t, []string{"ai-machine-learning", "database", "integration-delivery", "monitoring-logging", "networking",
				"security", "storage", "streaming-messaging", "skip-prediction"}, value)
		case "artifacthub.io/license":
			require.Equal(t, "Apache-2.0", value)
		case "artifacthub.io/operator":
			require.Equal(t, "false", value)
		case "artifacthub.io/changes":
			for _, change := range list[struct{ Kind, Description string }](t, value) {
				require.Contains(t, []string{"added", "changed", "deprecated", "removed", "fixed", "security"}, change.Kind)
				require.NotEmpty(t, change.Description)
			}
		case "artifacthub.io/images":
			for _, image := range list[struct{ Name, Image string }](t, value) {
				require.NotEmpty(t, image.Name)
				require.NotEmpty(t, image.Image)
			}
		case "artifacthub.io/links":
			for _, link := range list[struct{ Name, URL string }](t, value) {
				require.NotEmpty(t, link.Name)
				requireOurs(t, link.URL)
			}
		default:
			require.Failf(t, "unknown annotation", "%s: is it in Artifact Hub's documentation?", name)
		}
	}
	requireOurs(t, data.Home)
	for _, source := range data.Sources {
		requireOurs(t, source)
	}
}

func TestTheImagesOfTheAnnotationAreThoseOfTheDefaultRendering(t *testing.T) {
	t.Parallel()
	objects := chart.Render(t, "")
	rendered := map[string]bool{}
	pod := objects.Pod(t)
	for _, container := range append(pod.InitContainers, pod.Containers...) {
		rendered[container.Image] = true
	}
	annotated := map[string]bool{}
	for _, image := range list[struct{ Name, Image string }](t, chartMetadata(t).Annotations["artifacthub.io/images"]) {
		annotated[image.Image] = true
	}
	require.Equal(t, rendered, annotated)
}

// That each change stands in the changelog is scripts/generate's doing and scripts/lint's check.
func TestTheNewestSectionOfTheChangelogIsTheVersions(t *testing.T) {
	t.Parallel()
	content, err := os.ReadFile(filepath.Join(chart.Path(), "CHANGELOG.md"))
	require.NoError(t, err)
	_, newest, found := strings.Cut(string(content), "\n## [")
	require.True(t, found)
	require.True(t, strings.HasPrefix(newest, version(t)+"]"), "the newest section is [%.20s", newest)
}

func TestTheLicenseIsApachesToTheLetter(t *testing.T) {
	t.Parallel()
	content, err := os.ReadFile(filepath.Join(chart.Path(), "LICENSE"))
	require.NoError(t, err)
	// https://www.apache.org/licenses/LICENSE-2.0.txt
	require.Equal(t, "cfc7749b96f63bd31c3c42b5c471bf756814053e847c10f3eb003417bc523d30", fmt.Sprintf("%x", sha256.Sum256(content)))
}

// requireOurs: an address of the repository that go.mod names.
func requireOurs(t *testing.T, address string) {
	t.Helper()
	module, err := os.ReadFile(filepath.Join(chart.Root(), "go.mod"))
	require.NoError(t, err)
	parsed, err := url.Parse(address)
	require.NoError(t, err)
	require.Equal(t, "https", parsed.Scheme)
	require.Contains(t, string(module), "module "+strings.TrimSuffix(parsed.Host+parsed.Path, "/issues")+"\n")
}

// list decodes an annotation that is YAML, a list of objects that have no other keys than T.
func list[T any](t *testing.T, value string) []T {
	t.Helper()
	var objects []T
	require.NoError(t, yaml.UnmarshalStrict([]byte(value), &objects))
	require.NotEmpty(t, objects)
	return objects
}
