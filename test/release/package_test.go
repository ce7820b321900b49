package release

import (
	"archive/tar"
	"compress/gzip"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/istio-os-init/istio-os-init/test/internal/chart"
)

const chartDir = "charts/istio-os-init"

func TestAPackageHoldsWhatInstallsTheChartAndNothingElse(t *testing.T) {
	t.Parallel()
	r := newRepository(t)
	want := []string{"Chart.yaml", "README.md", "values.yaml", "values.schema.json"}
	for _, dir := range []string{"files", "templates"} {
		require.NoError(t, filepath.WalkDir(r.path(filepath.Join(chartDir, dir)), func(path string, entry os.DirEntry, err error) error {
			if err == nil && !entry.IsDir() {
				path, err = filepath.Rel(r.path(chartDir), path)
				want = append(want, path)
			}
			return err
		}))
	}
	// helm itself, whose only measure is .helmignore: scripts/package would not have seen what is not committed
	for _, stray := range []string{"values.yaml~", "templates/.daemonset.yaml.swp", "files/load.sh.orig", "Chart.yaml.new", "istio-os-init-0.1.0.tgz", "istio-os-init-0.1.0.tgz.prov", ".DS_Store", ".idea/x.xml"} {
		r.write(t, filepath.Join(chartDir, stray), "stray")
	}
	to := t.TempDir()
	output, err := r.run(t, nil, chart.Tool(t, "helm"), "package", chartDir, "--destination", to)
	require.NoError(t, err, output)
	packages, err := filepath.Glob(filepath.Join(to, "*.tgz"))
	require.NoError(t, err)
	require.Len(t, packages, 1)
	require.ElementsMatch(t, want, contents(t, packages[0]))
}

func TestTwoClonesMakeTheSamePackage(t *testing.T) {
	t.Parallel()
	r := newRepository(t)
	clone := func(umask string) repository {
		dir := t.TempDir()
		output, err := r.run(t, nil, "sh", "-c", "umask "+umask+" && git clone --quiet . "+dir)
		require.NoError(t, err, output)
		return repository(dir)
	}
	packed := func(r repository) (sums []string) {
		for _, file := range r.pack(t) {
			sums = append(sums, fmt.Sprintf("%s %x", filepath.Base(file), sha256.Sum256([]byte(read(t, file)))))
		}
		require.Len(t, sums, 3, "the package, its manifest and its bill of materials")
		return sums
	}
	first := packed(clone("022"))
	time.Sleep(time.Second) // that which the times in a package are given in

	second := clone("077")
	second.write(t, "README.md", "a later commit that does not touch the chart")
	second.commit(t)
	second.write(t, ".git/info/exclude", "*~\n")
	second.write(t, filepath.Join(chartDir, "docs.md~"), "ignored by git")
	require.Equal(t, first, packed(second))
}

func TestThePackagesREADMEHasNoDeadLink(t *testing.T) {
	t.Parallel()
	r := newRepository(t)
	readme, err := exec.CommandContext(t.Context(), "tar", "-xOf", r.pack(t)[0], "istio-os-init/README.md").Output()
	require.NoError(t, err)
	pages := "https://github.com/istio-os-init/istio-os-init/blob/v" + version(t) + "/"
	ours := 0
	for _, link := range regexp.MustCompile(`\]\(([^)#]+)`).FindAllStringSubmatch(string(readme), -1) {
		require.True(t, strings.HasPrefix(link[1], "https://"), "the package does not have %s", link[1])
		if path, found := strings.CutPrefix(link[1], pages); found {
			require.FileExists(t, r.path(path))
			ours++
		}
	}
	require.Greater(t, ours, 10)
}

// What is applied is what helm installs, by test/kubernetes.
func TestThePackageComesWithAManifestForKubectlThatBelongsToNoRelease(t *testing.T) {
	t.Parallel()
	made := newRepository(t).pack(t)
	require.Equal(t, strings.TrimSuffix(made[0], ".tgz")+".yaml", made[1])
	manifest := read(t, made[1])
	require.Regexp(t, `(?m)^kind: DaemonSet$`, manifest)
	require.NotContains(t, manifest, "managed-by")
	require.NotContains(t, manifest, "helm.sh/hook")
}

func TestAChartWithChangesThatAreNotCommittedIsNotPackaged(t *testing.T) {
	t.Parallel()
	r := newRepository(t)
	r.replace(t, filepath.Join(chartDir, "values.yaml"), "backend: auto", "backend: legacy")
	output, err := r.run(t, nil, "scripts/package", t.TempDir())
	require.Error(t, err)
	require.Contains(t, output, "error: "+chartDir+" has changes that are not committed")
}

func TestASignedPackageIsVerifiedAndATamperedOneIsRefused(t *testing.T) {
	t.Parallel()
	ours, others := newKey(t, "one phrase"), newKey(t, "")
	r := newRepository(t)
	r.trust(t, ours)
	made := r.pack(t, "CHART_SIGNING_KEY="+ours.secret, "CHART_SIGNING_PASSPHRASE=one phrase")
	require.Len(t, made, 4)
	require.Equal(t, made[0]+".prov", made[1])
	signed := []byte(read(t, made[0]))
	require.Equal(t, read(t, r.pack(t)[0]), string(signed), "a signature changes nothing in the package")

	output, err := r.run(t, []string{"CHART_SIGNING_KEY=" + ours.secret, "CHART_SIGNING_PASSPHRASE=another"}, "scripts/package", t.TempDir())
	require.Error(t, err, output)

	for _, helm := range chart.Helms {
		t.Run(string(helm), func(t *testing.T) {
			verify := func(path, keyring string) (string, error) {
				return r.run(t, nil, chart.Tool(t, string(helm)), "verify", "--keyring", keyring, path)
			}
			output, err := verify(made[0], ours.public)
			require.NoError(t, err, output)
			require.Contains(t, output, "Signed by: test <test@example.com>")

			output, err = verify(made[0], others.public)
			require.Error(t, err, "another's key: %s", output)

			tampered := filepath.Join(t.TempDir(), filepath.Base(made[0]))
			content := append([]byte{}, signed...)
			content[len(content)/2] ^= 1
			require.NoError(t, os.WriteFile(tampered, content, 0o600))
			provenance, err := os.ReadFile(made[1])
			require.NoError(t, err)
			require.NoError(t, os.WriteFile(tampered+".prov", provenance, 0o600))
			output, err = verify(tampered, ours.public)
			require.Error(t, err)
			require.Contains(t, output, "sha256 sum does not match")
		})
	}
}

// read returns a file's content.
func read(t *testing.T, path string) string {
	t.Helper()
	content, err := os.ReadFile(path)
	require.NoError(t, err)
	return string(content)
}

// contents returns the paths in a package, without the chart's name before them.
func contents(t *testing.T, path string) []string {
	t.Helper()
	file, err := os.Open(path)
	require.NoError(t, err)
	defer file.Close()
	archive, err := gzip.NewReader(file)
	require.NoError(t, err)
	var names []string
	for reader := tar.NewReader(archive); ; {
		header, err := reader.Next()
		if err == io.EOF {
			return names
		}
		require.NoError(t, err)
		names = append(names, strings.TrimPrefix(header.Name, "istio-os-init/"))
	}
}
