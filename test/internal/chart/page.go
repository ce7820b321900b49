package chart

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

var shell = regexp.MustCompile("(?s)```sh\n(.*?)```")

// Commands returns the commands of a page, a Markdown file: for each block that is marked as sh its lines. A page without one fails the test.
func Commands(t *testing.T, page string) [][]string {
	t.Helper()
	content, err := os.ReadFile(page)
	require.NoError(t, err)
	var blocks [][]string
	for _, block := range shell.FindAllStringSubmatch(string(content), -1) {
		blocks = append(blocks, strings.Split(strings.TrimSpace(block[1]), "\n"))
	}
	require.NotEmpty(t, blocks, page)
	return blocks
}
