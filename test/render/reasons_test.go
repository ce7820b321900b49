package render

import (
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/istio-os-init/istio-os-init/test/internal/chart"
)

// Users and alerts match on the reasons: the page lists those that the scripts give, and no others.
func TestThePageListsEveryReasonThatTheScriptsGive(t *testing.T) {
	t.Parallel()
	given := map[string]bool{}
	scripts, err := filepath.Glob(filepath.Join(chart.Path(), "files", "*.sh"))
	require.NoError(t, err)
	for _, script := range scripts {
		content, err := os.ReadFile(script)
		require.NoError(t, err)
		for _, match := range regexp.MustCompile(`(?m)(?:^ *reason |(?:fail|conclude) "|reason=")([A-Z][a-z]+[A-Z]\w+)\b`).FindAllStringSubmatch(string(content), -1) {
			given[match[1]] = true
		}
	}
	page, err := os.ReadFile(filepath.Join(chart.Path(), "README.md"))
	require.NoError(t, err)
	listed := map[string]bool{}
	for _, match := range regexp.MustCompile("(?m)^\\| `([A-Z][a-z]+[A-Z]\\w+)` \\|").FindAllStringSubmatch(string(page), -1) {
		listed[match[1]] = true
	}
	require.NotEmpty(t, given)
	require.Equal(t, given, listed)
}
