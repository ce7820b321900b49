package chart

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/structured-merge-diff/v6/typed"
	"sigs.k8s.io/yaml"
)

// Schema is what a version of Kubernetes knows: its kinds and their fields.
type Schema struct {
	// Version is the Kubernetes version, as 1.N.z, and Minor its N.
	Version string
	Minor   int
	types   *typed.Parser
}

// Schemas returns the schemas of the versions that ci/kubernetes/schemas pins, oldest first.
func Schemas(t *testing.T) []Schema {
	t.Helper()
	all, err := schemas()
	require.NoError(t, err)
	return all
}

var schemas = sync.OnceValues(func() ([]Schema, error) {
	list := exec.Command("go", "list", "-m", "-f", "{{with .Replace}}{{.Version}} {{.Dir}}{{end}}", "all")
	list.Dir = filepath.Join(Root(), "ci", "kubernetes", "schemas")
	output, err := list.CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("go list: %w: %s", err, output)
	}
	var all []Schema
	for line := range strings.Lines(string(output)) {
		words := strings.Fields(line)
		switch len(words) {
		case 0: // the module itself
			continue
		case 1:
			return nil, fmt.Errorf("client-go %s is not downloaded, and a test does not download it. Run: make tools", words[0])
		}
		content, err := constant(filepath.Join(words[1], "applyconfigurations", "internal", "internal.go"), "schemaYAML")
		if err != nil {
			return nil, err
		}
		types, err := typed.NewParser(typed.YAMLObject(content))
		if err != nil {
			return nil, err
		}
		version, found := strings.CutPrefix(words[0], "v0.")
		minor, err := strconv.Atoi(strings.Split(version, ".")[0])
		if !found || err != nil {
			return nil, fmt.Errorf("client-go %s is no release of Kubernetes", words[0])
		}
		all = append(all, Schema{"1." + version, minor, types})
	}
	return all, nil
})

// constant returns the string in a conversion to which a Go file sets a variable: client-go exports its schema to nobody.
func constant(file, variable string) (string, error) {
	parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
	if err != nil {
		return "", err
	}
	var found string
	ast.Inspect(parsed, func(node ast.Node) bool {
		spec, ok := node.(*ast.ValueSpec)
		if !ok || spec.Names[0].Name != variable || len(spec.Values) != 1 {
			return true
		}
		if call, ok := spec.Values[0].(*ast.CallExpr); ok && len(call.Args) == 1 {
			if literal, ok := call.Args[0].(*ast.BasicLit); ok {
				found, err = strconv.Unquote(literal.Value)
			}
		}
		return false
	})
	if err == nil && found == "" {
		err = fmt.Errorf("%s sets no %s", file, variable)
	}
	return found, err
}

// Check returns an error if this version does not know one of a manifest's kinds, or a field of an object, or if a key is repeated. Kinds
// of other projects are not checked: Decode does that.
func (s Schema) Check(manifest string) error {
	for document := range strings.SplitSeq("\n"+manifest, "\n---\n") {
		var head metav1.TypeMeta
		if err := yaml.Unmarshal([]byte(document), &head); err != nil {
			return err
		}
		kind := schema.FromAPIVersionAndKind(head.APIVersion, head.Kind)
		group, suffix, dotted := strings.Cut(kind.Group, ".")
		if head.Kind == "" || dotted && suffix != "k8s.io" && !strings.HasSuffix(suffix, ".k8s.io") {
			continue
		}
		if group == "" {
			group = "core"
		}
		of := s.types.Type(fmt.Sprintf("io.k8s.api.%s.%s.%s", group, kind.Version, kind.Kind))
		if !of.IsValid() {
			return fmt.Errorf("Kubernetes %s has no %s", s.Version, kind)
		}
		if _, err := of.FromYAML(typed.YAMLObject(document)); err != nil {
			return fmt.Errorf("Kubernetes %s refuses a %s: %w", s.Version, kind.Kind, err)
		}
	}
	return nil
}
