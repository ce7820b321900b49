package release

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/istio-os-init/istio-os-init/test/internal/chart"
)

func TestAReleaseIsPushedToAndHadFromAnOCIRegistry(t *testing.T) {
	t.Parallel()
	key := newKey(t, "")
	r := newRepository(t)
	r.trust(t, key)
	made := r.pack(t, "CHART_SIGNING_KEY="+key.secret)
	charts := "oci://" + registry(t) + "/charts"
	output, err := r.run(t, nil, chart.Tool(t, "helm4"), "push", "--plain-http", made[0], charts)
	require.NoError(t, err, output)

	for _, helm := range chart.Helms {
		t.Run(string(helm), func(t *testing.T) {
			tool, to, reference := chart.Tool(t, string(helm)), t.TempDir(), charts+"/istio-os-init"
			output, err := r.run(t, nil, tool, "pull", "--plain-http", reference, "--version", version(t), "--verify", "--keyring", key.public, "--destination", to)
			require.NoError(t, err, output)
			pushed, err := os.ReadFile(made[0])
			require.NoError(t, err)
			pulled, err := os.ReadFile(filepath.Join(to, filepath.Base(made[0])))
			require.NoError(t, err)
			require.Equal(t, pushed, pulled)

			output, err = r.run(t, nil, tool, "pull", "--plain-http", reference, "--verify", "--keyring", newKey(t, "").public, "--destination", t.TempDir())
			require.Error(t, err, "another's key: %s", output)

			output, err = r.run(t, nil, tool, "template", "istio-os-init", reference, "--plain-http")
			require.NoError(t, err, output)
			require.Contains(t, output, "kind: DaemonSet")
		})
	}
}

// registry starts a registry on loopback, which ends with the test, and returns its address.
func registry(t *testing.T) string {
	t.Helper()
	command := exec.Command(chart.Tool(t, "registry"))
	stdin, err := command.StdinPipe()
	require.NoError(t, err)
	stdout, err := command.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, command.Start())
	t.Cleanup(func() {
		_ = stdin.Close() // its sign to end
		_ = command.Wait()
	})
	address, err := bufio.NewReader(stdout).ReadString('\n')
	require.NoError(t, err)
	return strings.TrimSpace(address)
}
