// Package docs is about the pages of the chart, Markdown files: what a test executes of them, and what it writes into them.
package docs

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/istio-os-init/istio-os-init/test/internal/chart"
)

// Update is the flag -update of the tests that import this package. `make generate` sets it, and so do the commands that measure.
var Update = flag.Bool("update", false, "write golden files and the generated sections of the chart's pages, instead of comparing with them")

// Section is a part of a page that a program writes: what stands between the lines `<!-- generated: NAME -->` and `<!-- end -->`.
type Section struct {
	Page string // a file in the chart's docs
	Name string // unique in the page
}

// split returns the page before the section's content, the content, and the page behind it.
func (s Section) split() (before, content, behind string, err error) {
	written, err := os.ReadFile(s.file())
	if err != nil {
		return "", "", "", err
	}
	begin := fmt.Sprintf("<!-- generated: %s -->\n", s.Name)
	before, rest, begins := strings.Cut(string(written), begin)
	content, behind, ends := strings.Cut(rest, "<!-- end -->\n")
	if !begins || !ends {
		return "", "", "", fmt.Errorf("%s has no section %s: lines %q and <!-- end -->", s.file(), s.Name, strings.TrimSpace(begin))
	}
	return before + begin, content, "<!-- end -->\n" + behind, nil
}

func (s Section) file() string { return filepath.Join(chart.Path(), "docs", s.Page) }

// Write makes content the section's, if -update is set.
func (s Section) Write(content string) error {
	before, _, behind, err := s.split()
	if err != nil || !*Update {
		return err
	}
	return os.WriteFile(s.file(), []byte(before+content+behind), 0o644)
}

// Is fails t unless the section is content. With -update it writes it instead. remedy: the command that does so.
func (s Section) Is(t *testing.T, content, remedy string) {
	t.Helper()
	require.NoError(t, s.Write(content))
	_, written, _, err := s.split()
	require.NoError(t, err)
	require.Equal(t, written, content, "%s writes it anew", remedy)
}

// Rows are the rows of the section's table, without its head.
func (s Section) Rows() ([]string, error) {
	_, content, _, err := s.split()
	_, rows, _ := strings.Cut(content, "|---|")
	_, rows, _ = strings.Cut(rows, "\n")
	return strings.Split(strings.TrimSuffix(rows, "\n"), "\n"), err
}

// Merged are new rows, and those old ones that have the key of no new one.
func Merged[K comparable](old, new []string, key func(row string) K) (rows []string) {
	keys := map[K]bool{}
	for _, row := range new {
		keys[key(row)] = true
	}
	for _, row := range old {
		if row != "" && !keys[key(row)] {
			rows = append(rows, row)
		}
	}
	return append(rows, new...)
}
