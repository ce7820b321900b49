// Command cyclonedx checks a bill of materials by the JSON schema that CycloneDX 1.6 publishes, and by its Go library.
//
// In:  the bill of materials, as JSON, on standard input; Go's module cache, for the schemas: they are files of the library's module.
// Out: nothing, or what is wrong. Exit: 0 valid; 1 not.
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"runtime"

	"github.com/CycloneDX/cyclonedx-go"
	"github.com/santhosh-tekuri/jsonschema/v6"
)

func main() {
	if err := check(os.Stdin); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func check(input io.Reader) error {
	content, err := io.ReadAll(input)
	if err != nil {
		return err
	}
	schema, err := compile()
	if err != nil {
		return err
	}
	document, err := jsonschema.UnmarshalJSON(bytes.NewReader(content))
	if err != nil {
		return err
	}
	if err := schema.Validate(document); err != nil {
		return err
	}
	return cyclonedx.NewBOMDecoder(bytes.NewReader(content), cyclonedx.BOMFileFormatJSON).Decode(&cyclonedx.BOM{})
}

// compile reads the schema and those that it refers to, each under the name that it gives itself.
func compile() (*jsonschema.Schema, error) {
	// The library's own source, which a build without -trimpath names.
	start := reflect.ValueOf(cyclonedx.NewBOM).Pointer()
	library, _ := runtime.FuncForPC(start).FileLine(start)
	compiler := jsonschema.NewCompiler()
	compiler.AssertFormat()
	for _, file := range []string{"bom-1.6.schema.json", "spdx.schema.json", "jsf-0.82.schemax.json"} {
		content, err := os.ReadFile(filepath.Join(filepath.Dir(library), "schema", file))
		if err != nil {
			return nil, fmt.Errorf("%w. Bring the module back: go mod download", err)
		}
		var named struct {
			ID string `json:"$id"`
		}
		if err := json.Unmarshal(content, &named); err != nil {
			return nil, err
		}
		document, err := jsonschema.UnmarshalJSON(bytes.NewReader(content))
		if err != nil {
			return nil, err
		}
		if err := compiler.AddResource(named.ID, document); err != nil {
			return nil, err
		}
	}
	return compiler.Compile("http://cyclonedx.org/schema/bom-1.6.schema.json")
}
