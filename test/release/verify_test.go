package release

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/istio-os-init/istio-os-init/test/internal/chart"
)

func TestTheCommandsOnThePageVerifyARelease(t *testing.T) {
	t.Parallel()
	key := newKey(t, "")
	origin := newRepository(t)
	origin.trust(t, key)
	origin.git(t, "tag", "v"+version(t))
	address := registry(t)
	made := origin.pack(t, "CHART_SIGNING_KEY="+key.secret)
	output, err := origin.run(t, nil, chart.Tool(t, "helm4"), "push", "--plain-http", made[0], "oci://"+address+"/charts")
	require.NoError(t, err, output)
	origin.write(t, "README.md", "main has moved on")
	origin.commit(t)

	ours, services := pageCommands(t)
	require.Len(t, services, 6, "commands that need GitHub or Sigstore")
	for _, command := range services {
		if strings.HasPrefix(command, "gh release download ") {
			continue // which is verified by the next command
		}
		require.Regexp(t, `--(cert|certificate)-identity "\$identity"`, command)
	}
	require.Contains(t, ours, "version="+version(t)+"\n")
	require.FileExists(t, filepath.Join(chart.Root(), ".github", "workflows", "release.yaml"), "the identity's workflow")
	require.Contains(t, ours, "/.github/workflows/release.yaml@refs/tags/v$version\n")
	require.Contains(t, ours, "oci://ghcr.io/istio-os-init/charts/")
	ours = strings.ReplaceAll(ours, "oci://ghcr.io/istio-os-init/", "--plain-http oci://"+address+"/")

	verify := func(t *testing.T, helm chart.Helm) (string, error) {
		bin := t.TempDir()
		require.NoError(t, os.Symlink(chart.Tool(t, string(helm)), filepath.Join(bin, "helm")))
		reader := repository(t.TempDir())
		return reader.run(t, []string{"PATH=" + bin + ":" + os.Getenv("PATH"), "GNUPGHOME=" + t.TempDir(),
			"GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=url." + string(origin) + ".insteadOf", "GIT_CONFIG_VALUE_0=https://github.com/istio-os-init/istio-os-init"},
			"sh", "-eux", "-c", ours)
	}
	for _, helm := range chart.Helms {
		t.Run(string(helm), func(t *testing.T) {
			output, err := verify(t, helm)
			require.NoError(t, err, output)
			require.Contains(t, output, key.fingerprint)
		})
	}
	t.Run("another key in the repository", func(t *testing.T) {
		origin.trust(t, newKey(t, ""))
		output, err := verify(t, chart.Helms[0])
		require.Error(t, err, output)
		require.NotContains(t, output, "cmp")
	})
}

// pageCommands returns what docs/verify.md tells users to run: what this machine can run, as a script, and what it cannot.
func pageCommands(t *testing.T) (ours string, services []string) {
	t.Helper()
	output, err := repository(chart.Root()).run(t, nil, "scripts/page-commands", filepath.Join(chart.Path(), "docs", "verify.md"))
	require.NoError(t, err, output)
	for command := range strings.Lines(strings.ReplaceAll(output, "\\\n", "")) {
		if service.MatchString(command) {
			services = append(services, command)
		} else {
			ours += command
		}
	}
	return ours, services
}
