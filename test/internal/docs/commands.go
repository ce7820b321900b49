package docs

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Blocks returns the code blocks of a Markdown text that are marked as this language, without their fences.
func Blocks(text, language string) (blocks []string) {
	for _, block := range regexp.MustCompile("(?s)```"+regexp.QuoteMeta(language)+"\n(.*?)```").FindAllStringSubmatch(text, -1) {
		blocks = append(blocks, block[1])
	}
	return blocks
}

// Commands returns the commands of a page, a Markdown file: for each block that is marked as sh its lines. A page without one fails the test.
func Commands(t *testing.T, page string) [][]string {
	t.Helper()
	content, err := os.ReadFile(page)
	require.NoError(t, err)
	var blocks [][]string
	for _, block := range Blocks(string(content), "sh") {
		blocks = append(blocks, strings.Split(strings.TrimSpace(block), "\n"))
	}
	require.NotEmpty(t, blocks, page)
	return blocks
}
