package chart

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// A test's time limit is for what it tests: no script that a test runs, in a clone or not, builds a tool.
func init() { _ = os.Setenv("ISTIO_OS_INIT_BUILD", "no") }

// tools are the paths that scripts/tool has printed, by the tools' names.
var tools sync.Map

// Tool returns the path of a tool by the name that scripts/tool knows it by. The test fails if `make tools` has not built it.
func Tool(t *testing.T, name string) string {
	t.Helper()
	once, _ := tools.LoadOrStore(name, sync.OnceValues(func() (string, error) {
		var stderr strings.Builder
		command := exec.CommandContext(context.Background(), filepath.Join(Root(), "scripts", "tool"), name)
		command.Stderr = &stderr
		path, err := command.Output()
		if err != nil {
			return "", fmt.Errorf("%s", strings.TrimSpace(stderr.String()))
		}
		return strings.TrimSpace(string(path)), nil
	}))
	path, err := once.(func() (string, error))()
	require.NoError(t, err)
	return path
}
