package chart

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// tools are the paths that scripts/tool has printed, by the tools' names.
var tools sync.Map

// Tool returns the path of a tool that a go.mod pins, building it first if need be.
func Tool(t *testing.T, name string) string {
	t.Helper()
	once, _ := tools.LoadOrStore(name, sync.OnceValues(func() (string, error) {
		var stderr strings.Builder
		command := exec.CommandContext(context.Background(), filepath.Join(Root(), "scripts", "tool"), name)
		command.Stderr = &stderr
		path, err := command.Output()
		if err != nil {
			return "", fmt.Errorf("scripts/tool %s: %w: %s", name, err, &stderr)
		}
		return strings.TrimSpace(string(path)), nil
	}))
	path, err := once.(func() (string, error))()
	require.NoError(t, err)
	return path
}
