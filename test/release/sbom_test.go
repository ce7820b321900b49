package release

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/istio-os-init/istio-os-init/test/internal/chart"
)

// component is a part of a bill of materials, as https://cyclonedx.org/docs/1.6/json/ has it.
type component struct {
	Type, Name, Version, Purl string
	Hashes                    []struct{ Alg, Content string }
}

func TestTheBillOfMaterialsIsValidAndListsWhatThePackageHolds(t *testing.T) {
	t.Parallel()
	made := newRepository(t).pack(t)
	bom := read(t, made[2])
	require.NoError(t, valid(t, bom))
	require.Error(t, valid(t, strings.Replace(bom, `"container"`, `"image"`, 1)), "a check that takes everything")
	require.Error(t, valid(t, strings.Replace(bom, `"Apache-2.0"`, `"Apache-2"`, 1)), "a check without SPDX's list")

	var parsed struct {
		Metadata   struct{ Component component }
		Components []component
	}
	require.NoError(t, json.Unmarshal([]byte(bom), &parsed))
	subject := parsed.Metadata.Component
	require.Equal(t, "istio-os-init", subject.Name)
	require.Equal(t, version(t), subject.Version)
	require.Equal(t, fmt.Sprintf("%x", sha256.Sum256([]byte(read(t, made[0])))), subject.Hashes[0].Content)

	var files, images []string
	for _, part := range parsed.Components {
		switch part.Type {
		case "file":
			files = append(files, strings.TrimPrefix(part.Name, "istio-os-init/"))
			if part.Name == "istio-os-init/values.yaml" {
				require.Equal(t, fmt.Sprintf("%x", sha256.Sum256([]byte(read(t, chart.Path()+"/values.yaml")))), part.Hashes[0].Content)
			}
		case "container":
			require.Contains(t, part.Purl, "@"+part.Version+"?")
			images = append(images, strings.TrimPrefix(part.Purl, "pkg:docker/"))
		default:
			require.Failf(t, "unexpected component", "%+v", part)
		}
	}
	require.ElementsMatch(t, contents(t, made[0]), files)
	var annotated []string
	for _, image := range list[struct{ Name, Image string }](t, chartMetadata(t).Annotations["artifacthub.io/images"]) {
		registry, path, _ := strings.Cut(image.Image, "/")
		annotated = append(annotated, strings.Replace(path, ":", "@", 1)+"?repository_url="+registry)
	}
	require.ElementsMatch(t, annotated, images)
}

// valid checks a bill of materials by the schema that CycloneDX publishes.
func valid(t *testing.T, bom string) error {
	t.Helper()
	command := exec.CommandContext(t.Context(), chart.Tool(t, "cyclonedx"))
	command.Stdin = strings.NewReader(bom)
	output, err := command.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: %s", err, output)
	}
	return nil
}
