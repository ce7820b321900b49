package cost

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/istio-os-init/istio-os-init/test/internal/chart"
	"github.com/istio-os-init/istio-os-init/test/internal/lab"
)

// measureRelease measures what the chart costs Helm: bytes in etcd for each revision, and the time of a rendering.
func measureRelease(t *testing.T, b *bench) {
	deployed := deploy(t, ours, "kubernetes.io/hostname", "none", "")
	secrets, err := lab.Client(t).CoreV1().Secrets(deployed.Namespace).List(t.Context(), metav1.ListOptions{LabelSelector: "owner=helm"})
	require.NoError(t, err)
	require.Len(t, secrets.Items, 1)
	release := secrets.Items[0].Data["release"]
	b.record(t, row{what: "release in etcd, each revision", unit: "KiB", ours: float64(len(release)) / 1024, theirs: math.NaN(), limit: 24, absolute: true,
		beside: "of it " + shares(t, release)})

	helm, dir := chart.Tool(t, string(chart.Helm3)), t.TempDir()
	create := exec.CommandContext(t.Context(), helm, "create", "fresh")
	create.Dir = dir
	require.NoError(t, create.Run())
	// the scripts in a ConfigMap and nothing else: what Helm takes for bytes, whatever the templates do
	scripts := filepath.Join(dir, "scripts")
	require.NoError(t, os.MkdirAll(filepath.Join(scripts, "templates"), 0o755))
	require.NoError(t, os.CopyFS(filepath.Join(scripts, "files"), os.DirFS(filepath.Join(chart.Path(), "files"))))
	for name, content := range map[string]string{
		"Chart.yaml":            "{apiVersion: v2, name: scripts, version: 0.0.0}",
		"templates/config.yaml": "{apiVersion: v1, kind: ConfigMap, metadata: {name: scripts}, data: {{ (.Files.Glob \"files/**\").AsConfig | fromYaml | toJson }}}",
	} {
		require.NoError(t, os.WriteFile(filepath.Join(scripts, name), []byte(content), 0o600))
	}
	took := map[string][]float64{}
	for range 50 {
		for _, path := range []string{chart.Path(), filepath.Join(dir, "fresh"), scripts} {
			start := time.Now()
			output, err := exec.CommandContext(t.Context(), helm, "template", "istio-os-init", path).CombinedOutput()
			require.NoError(t, err, string(output))
			took[path] = append(took[path], since(start)*1000)
		}
	}
	b.record(t, row{what: "`helm template`, beside a fresh `helm create`", unit: "ms", ours: median(took[chart.Path()]), theirs: median(took[filepath.Join(dir, "fresh")]), limit: 1.3,
		beside: fmt.Sprintf("50 runs each; a chart of nothing but our scripts: %s", figure(median(took[scripts]), "ms"))})
}

// shares tells what a release consists of: by how much smaller it is without each part.
func shares(t *testing.T, release []byte) string {
	t.Helper()
	compressed, err := base64.StdEncoding.DecodeString(string(release))
	require.NoError(t, err)
	reader, err := gzip.NewReader(bytes.NewReader(compressed))
	require.NoError(t, err)
	content, err := io.ReadAll(reader)
	require.NoError(t, err)
	without := func(remove func(release, chart map[string]any)) string {
		var whole map[string]any
		require.NoError(t, json.Unmarshal(content, &whole))
		before := packed(t, whole)
		remove(whole, whole["chart"].(map[string]any))
		return figure(float64(before-packed(t, whole))/1024, "")
	}
	// files of the chart are in it in base64, in which gzip finds little that repeats
	files := func(prefix string) func(release, chart map[string]any) {
		return func(_, chart map[string]any) {
			var kept []any
			for _, file := range chart["files"].([]any) {
				if !strings.HasPrefix(file.(map[string]any)["name"].(string), prefix) {
					kept = append(kept, file)
				}
			}
			chart["files"] = kept
		}
	}
	return fmt.Sprintf("the scripts as files of the chart %s, the templates %s, README %s, LICENSE %s, schema %s, manifest and hooks %s KiB",
		without(files("files/")), without(func(_, chart map[string]any) { chart["templates"] = nil }), without(files("README")), without(files("LICENSE")),
		without(func(_, chart map[string]any) { chart["schema"] = nil }),
		without(func(release, _ map[string]any) { release["manifest"], release["hooks"] = "", nil }))
}

// packed returns how many bytes Helm makes of a release.
func packed(t *testing.T, release map[string]any) int {
	t.Helper()
	content, err := json.Marshal(release)
	require.NoError(t, err)
	var compressed bytes.Buffer
	writer, err := gzip.NewWriterLevel(&compressed, gzip.BestCompression)
	require.NoError(t, err)
	_, err = writer.Write(content)
	require.NoError(t, err)
	require.NoError(t, writer.Close())
	return base64.StdEncoding.EncodedLen(compressed.Len())
}
