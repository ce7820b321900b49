package render

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/istio-os-init/istio-os-init/test/internal/chart"
)

// catalogue returns each reason's status and when it is given, by its name.
func catalogue(t *testing.T) map[string][2]string {
	t.Helper()
	entries := map[string][2]string{}
	for _, entry := range regexp.MustCompile(`(?m)^reason (.+)\nstatus (.+)\nwhen (.+)\nsentence .`).FindAllStringSubmatch(source(t, "reasons"), -1) {
		entries[entry[1]] = [2]string{entry[2], entry[3]}
	}
	require.Len(t, entries, strings.Count(source(t, "reasons"), "\nreason "), "an entry has another form")
	return entries
}

// Alerts and people match on the reasons.
func TestThePageListsTheCatalogueOfReasons(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile(filepath.Join(chart.Path(), "README.md"))
	require.NoError(t, err)
	listed := map[string][2]string{}
	for _, row := range regexp.MustCompile("(?m)^\\| `(\\w+)` \\| (True|False|Unknown) \\| (.+) \\|$").FindAllStringSubmatch(string(page), -1) {
		listed[row[1]] = [2]string{row[2], row[3]}
	}
	require.Equal(t, catalogue(t), listed)
}

func TestThePagesShowOnlyReasonsOfTheCatalogue(t *testing.T) {
	t.Parallel()
	pages, err := filepath.Glob(filepath.Join(chart.Path(), "docs", "*.md"))
	require.NoError(t, err)
	known, shown := catalogue(t), 0
	for _, page := range append(pages, filepath.Join(chart.Path(), "README.md"), filepath.Join(chart.Root(), "README.md")) {
		content, err := os.ReadFile(page)
		require.NoError(t, err)
		for _, match := range regexp.MustCompile("(?:`|<br>|failed: |Also: )([A-Z][a-z]+(?:[A-Z][a-z]+)+): ").FindAllStringSubmatch(string(content), -1) {
			require.Contains(t, known, match[1], page)
			shown++
		}
	}
	require.NotZero(t, shown)
}
