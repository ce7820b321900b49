package chart

import (
	"context"
	"fmt"
	"os/exec"
	"strings"
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
