// Package kubernetes asks one question: does a version of Kubernetes take what the chart renders, and does each node get its pod, whatever the
// version of its kubelet? etcd, the API server, the scheduler and the controllers run on loopback. Nodes exist only in the API.
package kubernetes

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/istio-os-init/istio-os-init/test/internal/controlplane"
)

// table names the file to which the version's row is appended if all tests pass.
const table = "KUBERNETES_TABLE"

// plane is the control plane that all tests share, and what they ask of it.
type plane struct{ *controlplane.Plane }

// start starts it.
func start(t *testing.T) plane {
	t.Helper()
	return plane{controlplane.Start(t, "that API servers take the chart, and nodes of mixed versions get their pods", "make test-kubernetes")}
}

// proven is what the table says of this version: set by the tests.
var proven sync.Map

func TestMain(m *testing.M) {
	code := m.Run()
	if file := os.Getenv(table); code == 0 && file != "" {
		code = document(file)
	}
	controlplane.Stop()
	os.Exit(code)
}

// document appends the version's row.
func document(file string) int {
	p, err := controlplane.Shared()
	if err != nil {
		return 1
	}
	cells := []string{p.Version}
	for _, column := range []string{"scenarios", "signals", "fleet"} {
		cell, ok := proven.Load(column)
		if !ok {
			return 1
		}
		cells = append(cells, cell.(string))
	}
	output, err := os.OpenFile(file, os.O_APPEND|os.O_WRONLY|os.O_CREATE, 0o644)
	if err == nil {
		_, err = fmt.Fprintf(output, "| %s |\n", strings.Join(cells, " | "))
	}
	if err == nil {
		err = output.Close()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}
