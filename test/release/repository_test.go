// Package release asks one question: can what is committed be released, verified and had by others?
package release

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/istio-os-init/istio-os-init/test/internal/chart"
)

// repository is a git repository of the test's with this one's files, as they are now, in its only commit.
type repository string

func newRepository(t *testing.T) repository {
	t.Helper()
	r := repository(t.TempDir())
	list := exec.CommandContext(t.Context(), "git", "ls-files", "--cached", "--others", "--exclude-standard", "-z")
	list.Dir = chart.Root()
	files, err := list.Output()
	require.NoError(t, err)
	for file := range strings.SplitSeq(strings.TrimRight(string(files), "\x00"), "\x00") {
		content, err := os.ReadFile(filepath.Join(chart.Root(), file))
		if os.IsNotExist(err) {
			continue // deleted and not yet committed
		}
		require.NoError(t, err)
		info, err := os.Stat(filepath.Join(chart.Root(), file))
		require.NoError(t, err)
		r.write(t, file, string(content))
		require.NoError(t, os.Chmod(r.path(file), info.Mode()))
	}
	r.git(t, "init", "--quiet", "--initial-branch=main")
	r.commit(t)
	return r
}

func (r repository) path(file string) string { return filepath.Join(string(r), file) }

func (r repository) write(t *testing.T, file, content string) {
	t.Helper()
	require.NoError(t, os.MkdirAll(filepath.Dir(r.path(file)), 0o755))
	require.NoError(t, os.WriteFile(r.path(file), []byte(content), 0o644))
}

// replace puts one string in another's place, which the file must have.
func (r repository) replace(t *testing.T, file, old, by string) {
	t.Helper()
	content, err := os.ReadFile(r.path(file))
	require.NoError(t, err)
	require.Contains(t, string(content), old)
	r.write(t, file, strings.Replace(string(content), old, by, 1))
}

func (r repository) commit(t *testing.T) {
	t.Helper()
	r.git(t, "add", "--all")
	r.git(t, "-c", "user.name=test", "-c", "user.email=test@example.com", "-c", "commit.gpgsign=false", "commit", "--quiet", "--message", "test")
}

// clone clones the repository as it is now: main of the clone's origin.
func (r repository) clone(t *testing.T) repository {
	t.Helper()
	dir := t.TempDir()
	r.git(t, "clone", "--quiet", ".", dir)
	return repository(dir)
}

// trust makes a key the one that signs releases.
func (r repository) trust(t *testing.T, key key) {
	t.Helper()
	r.write(t, "ci/signing-key.asc", key.armored)
	r.commit(t)
}

func (r repository) git(t *testing.T, args ...string) {
	t.Helper()
	output, err := r.run(t, nil, "git", args...)
	require.NoError(t, err, output)
}

// run runs a command in the repository, with variables besides this process' own, and returns what it prints.
func (r repository) run(t *testing.T, env []string, command string, args ...string) (string, error) {
	t.Helper()
	process := exec.CommandContext(t.Context(), command, args...)
	process.Dir = string(r)
	process.Env = append(os.Environ(), env...)
	output, err := process.CombinedOutput()
	return string(output), err
}

// pack runs scripts/package and returns the paths of what it made.
func (r repository) pack(t *testing.T, env ...string) []string {
	t.Helper()
	needJq(t)
	to := t.TempDir()
	// of a tool that is built first its standard error tells
	output, err := r.run(t, env, "sh", "-c", `scripts/package "$0" 2>"$0.log" || { cat "$0.log"; exit 1; }`, to)
	require.NoError(t, err, output)
	made, err := filepath.Glob(filepath.Join(to, "*"))
	require.NoError(t, err)
	require.ElementsMatch(t, made, strings.Fields(output))
	return made
}

// needJq skips the test if there is no jq, without which scripts/package refuses to work.
func needJq(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("jq"); err != nil {
		t.Skip("NOT PROVEN: that the chart can be packaged, since there is no jq. Debian: apt-get install jq; make test installs it as root.")
	}
}
