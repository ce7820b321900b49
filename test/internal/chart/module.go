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

// ModuleDir returns the directory in Go's cache of a module, by its path, in the version that the go.mod of directory dir pins; "" is the
// test's own directory. A module that is not downloaded is an error: a test downloads nothing.
func ModuleDir(ctx context.Context, dir, module string) (string, error) {
	list := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", module)
	list.Dir = dir
	output, err := list.Output()
	if err != nil {
		return "", fmt.Errorf("go list -m %s: %w", module, err)
	}
	found := strings.TrimSpace(string(output))
	if found == "" {
		return "", fmt.Errorf("%s is not downloaded, and a test does not download it. Run: make tools", module)
	}
	return found, nil
}

// askForIstio asks Go once, which takes a second.
var askForIstio = sync.OnceValues(func() (string, error) {
	return ModuleDir(context.Background(), filepath.Join(Root(), "ci", "proxyv2-stand-in"), "istio.io/istio")
})

// IstioModule returns the directory of Istio's module that the stand-in for proxyv2 is built from.
func IstioModule(t *testing.T) string {
	t.Helper()
	dir, err := askForIstio()
	require.NoError(t, err)
	return dir
}
