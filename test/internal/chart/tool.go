package chart

import (
	"bytes"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Tool returns the path of a tool that a go.mod pins, building it first if need be.
func Tool(t *testing.T, name string) string {
	t.Helper()
	command := exec.CommandContext(t.Context(), filepath.Join(Root(), "scripts", "tool"), name)
	var stderr bytes.Buffer
	command.Stderr = &stderr
	path, err := command.Output()
	require.NoError(t, err, "scripts/tool %s: %s", name, &stderr)
	return strings.TrimSpace(string(path))
}
