// Package kubernetes asks one question: does a version of Kubernetes take what the chart renders, and does each node get its pod, whatever the
// version of its kubelet? etcd, the API server, the scheduler and the controllers run on loopback. Nodes exist only in the API.
package kubernetes

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/util/version"

	"github.com/istio-os-init/istio-os-init/test/internal/chart"
	"github.com/istio-os-init/istio-os-init/test/internal/controlplane"
	"github.com/istio-os-init/istio-os-init/test/internal/docs"
)

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
	if code == 0 && *docs.Update {
		if err := document(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	controlplane.Stop()
	os.Exit(code)
}

// document puts the version's row in the place of its minor's. A minor whose schema is pinned and that has no row was not run.
func document() error {
	p, err := controlplane.Shared()
	if err != nil {
		return err
	}
	cells := []string{p.Version}
	for _, column := range []string{"scenarios", "signals", "fleet"} {
		cell, ok := proven.Load(column)
		if !ok {
			return fmt.Errorf("no test has said what the column %s is to say", column)
		}
		cells = append(cells, cell.(string))
	}
	section := docs.Section{Page: "kubernetes.md", Name: "kubernetes"}
	old, err := section.Rows()
	if err != nil {
		return err
	}
	pinned, err := os.ReadFile(filepath.Join(chart.Root(), "ci", "kubernetes", "schemas", "go.mod"))
	if err != nil {
		return err
	}
	var rows []string
	for _, pin := range regexp.MustCompile(`=> k8s\.io/client-go v0\.(\S+)`).FindAllStringSubmatch(string(pinned), -1) {
		rows = append(rows, "| 1."+pin[1]+" | schema only | not run | not run |")
	}
	old = slices.DeleteFunc(old, func(row string) bool { return strings.Contains(row, "schema only") })
	rows = docs.Merged(rows, docs.Merged(old, []string{"| " + strings.Join(cells, " | ") + " |"}, minor), minor)
	slices.SortFunc(rows, func(a, b string) int { return cmp.Compare(minor(a), minor(b)) })
	return section.Write("The newest rows are of " + time.Now().UTC().Format(time.DateOnly) + ".\n\n" +
		"| Kubernetes | scenarios | signals | fleet |\n|---|---|---|---|\n" + strings.Join(rows, "\n") + "\n")
}

// minor is the second number of a row's version.
func minor(row string) uint { return version.MustParseGeneric(strings.Fields(row)[1]).Minor() }
