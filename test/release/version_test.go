package release

import (
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestAChartThatDiffersFromItsReleaseNeedsAHigherVersion(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("NOT PROVEN in a short run: that lint refuses a changed chart of a released version. Run: make test")
	}
	if _, err := exec.LookPath("yamllint"); err != nil {
		t.Skip("NOT PROVEN: that lint refuses a changed chart of a released version, since there is no yamllint. Debian: apt-get install yamllint")
	}
	for name, row := range map[string]struct {
		change  func(*testing.T, repository)
		refused bool
	}{
		"a template has changed": {func(t *testing.T, r repository) {
			r.replace(t, filepath.Join(chartDir, "templates", "NOTES.txt"), "Why one is not", "Why not")
		}, true},
		"a template and the version have changed": {func(t *testing.T, r repository) {
			r.replace(t, filepath.Join(chartDir, "templates", "NOTES.txt"), "Why one is not", "Why not")
			r.replace(t, filepath.Join(chartDir, "Chart.yaml"), "\nversion: 0.1.0", "\nversion: 0.1.1")
		}, false},
		"a page that is not packaged has changed": {func(t *testing.T, r repository) {
			r.write(t, filepath.Join(chartDir, "docs", "new.md"), "# New")
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRepository(t)
			// ct lints every scenario each time, and the version is looked at in any case
			r.git(t, "rm", "--quiet", "--force", "-r", filepath.Join(chartDir, "ci"))
			r.commit(t)
			if row.refused {
				output, err := r.run(t, nil, "scripts/lint-chart")
				require.NoError(t, err, "before the first release: %s", output)
			}
			r.git(t, "tag", "v0.1.0")
			row.change(t, r)
			r.commit(t)
			output, err := r.run(t, nil, "scripts/lint-chart")
			if row.refused {
				require.Error(t, err)
				require.Contains(t, output, "Needs a version bump!")
			} else {
				require.NoError(t, err, output)
			}
		})
	}
}

func TestATagThatIsNotTheVersionsOrHasNoNotesIsNotReleased(t *testing.T) {
	t.Parallel()
	r, key := newRepository(t), newKey(t, "")
	r.trust(t, key)
	notes, err := r.run(t, nil, "scripts/release-notes", "v"+version(t))
	require.NoError(t, err, notes)
	require.Regexp(t, `^### Added\n\n- A DaemonSet that `, notes)
	require.NotContains(t, notes, "\n## ")
	require.Contains(t, notes, "The key `"+key.fingerprint+"` signs this release.")

	output, err := r.run(t, nil, "scripts/release-notes", "v9.9.9")
	require.Error(t, err)
	require.Contains(t, output, "error: the tag is v9.9.9 and the chart's version "+version(t))

	r.replace(t, filepath.Join(chartDir, "Chart.yaml"), "\nversion: "+version(t), "\nversion: 9.9.9")
	output, err = r.run(t, nil, "scripts/release-notes", "v9.9.9")
	require.Error(t, err)
	require.Contains(t, output, "error: CHANGELOG.md has nothing on 9.9.9")
}
