package node

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/istio-os-init/istio-os-init/test/internal/chart"
)

const debian = "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nID=debian\n"

// osRelease lays out the host's files: content, or "-> TARGET" for a link.
func (s *sandbox) osRelease(files map[string]string) {
	s.t.Helper()
	for name, content := range files {
		file := s.path("host/" + name)
		require.NoError(s.t, os.MkdirAll(filepath.Dir(file), 0o755))
		if target, link := strings.CutPrefix(content, "-> "); link {
			require.NoError(s.t, os.Symlink(target, file))
		} else {
			s.write("host/"+name, content)
		}
	}
}

func TestANodeIsSelectedByItsOwnOSRelease(t *testing.T) {
	t.Parallel()
	one := func(content string) map[string]string { return map[string]string{"etc/os-release": content} }
	for _, row := range []struct {
		name, list string
		files      map[string]string
		leftOut    string // what load says; empty: the node is selected
	}{
		{"every node where nothing is asked", "[]", one(debian), ""},
		{"every node where nothing is asked or known", "[]", nil, ""},
		{"by ID", "[debian, rhel]", one(debian), ""},
		{"by ID without a line break", "[debian]", one("ID=debian"), ""},
		{"by a word of ID_LIKE", "[centos]", one(rocky9), ""},
		{"by the last word of ID_LIKE", "[fedora]", one(rocky9), ""},
		{"whatever the case", "[OpenEuler]", one("ID=\"openEuler\"\n"), ""},
		{"another system", "[rhel, centos, fedora]", one(debian), "the host's os-release says debian; nodes.osRelease is rhel centos fedora."},
		{"another family", "[suse]", one(rocky9), "the host's os-release says rocky, like rhel centos fedora; nodes.osRelease is suse."},
		{"a part of a word", "[rhel]", one("ID=rhel-like\nID_LIKE=\"notrhel\"\n"), "the host's os-release says rhel-like, like notrhel;"},
		{"no os-release", "[rhel]", nil, "the host has no os-release; nodes.osRelease is rhel."},
		{"no ID in it", "[rhel]", one("garbage"), "the host's os-release says linux;"},
		{"in /usr/lib only", "[rocky]", map[string]string{"usr/lib/os-release": rocky9}, ""},
		{"/etc before /usr/lib", "[rocky]", map[string]string{"etc/os-release": debian, "usr/lib/os-release": rocky9}, "the host's os-release says debian;"},
		{"behind a link", "[rocky]", map[string]string{"etc/os-release": "-> ../usr/lib/os-release", "usr/lib/os-release": rocky9}, ""},
		// not the container's own
		{"behind an absolute link", "[rocky]", map[string]string{"etc/os-release": "-> /usr/lib/os-release", "usr/lib/os-release": rocky9}, ""},
		{"behind links of directories", "[nixos]", map[string]string{
			"etc/os-release": "-> /etc/static/os-release", "etc/static": "-> /nix/store/x/etc", "nix/store/x/etc/os-release": "ID=nixos\n",
		}, ""},
		{"behind a link that goes above the host's root", "[rocky]", map[string]string{
			"etc/os-release": "-> ../../../../../../../../../../opt/os-release", "opt/os-release": rocky9,
		}, ""},
		{"behind a link that leads nowhere on the host", "[rocky]", map[string]string{"etc/os-release": "-> /proc/version"}, "the host has no os-release;"},
		{"behind a link to itself", "[rocky]", map[string]string{"etc/os-release": "-> os-release", "usr/lib/os-release": rocky9}, ""},
		{"a directory", "[rocky]", map[string]string{"etc/os-release/x": "", "usr/lib/os-release": rocky9}, ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			s := newPersisting(t, smallPlan+"nodes: {osRelease: "+row.list+"}")
			s.osRelease(row.files)
			got := s.load()
			if row.leftOut != "" {
				require.Contains(t, got.conclusion, "NotSelected: "+strings.TrimSuffix(row.leftOut, "."))
				require.Equal(t, "True NotSelected", s.outcome("load").says())
				require.NoFileExists(t, s.path("host/stand-in/calls"))
				return
			}
			require.Contains(t, got.conclusion, "loaded now: nf_tables xt_owner nft_counter;")
		})
	}
}

func TestAHostThatCannotBeKnownIsNotLeftOut(t *testing.T) {
	t.Parallel()
	s := newPersisting(t, smallPlan+"nodes: {osRelease: [rhel]}")
	s.osRelease(map[string]string{"etc/os-release": debian})
	require.NoError(t, os.Chmod(s.path("host/etc/os-release"), 0))
	got := s.load()
	require.Equal(t, []string{"warning: the host's os-release cannot be read, so this node counts as one of nodes.osRelease"}, warnings(got.log))
	require.Contains(t, got.conclusion, "loaded now: nf_tables")
}

// A look has another uid than root, and a hardened host's directories may be root's alone.
func TestADirectoryThatCannotBeSearchedIsNoHostWithoutOSRelease(t *testing.T) {
	t.Parallel()
	for _, directory := range []string{"host/etc", "host/usr"} {
		s := newSandbox(t, smallPlan+"nodes: {osRelease: [rhel]}\n"+lookOnly)
		file := map[string]string{"host/etc": "etc/os-release", "host/usr": "usr/lib/os-release"}[directory]
		s.osRelease(map[string]string{file: "ID=rhel\n"})
		require.NoError(t, os.Chmod(s.path(directory), 0o700))
		got := s.run("load")
		require.Contains(t, got.log, "warning: the host's os-release cannot be read", directory)
		require.NotContains(t, got.conclusion, "NotSelected", directory)
	}
}

func TestOnANodeThatIsNotSelectedNothingIsDoneAndEveryContainerSaysSo(t *testing.T) {
	t.Parallel()
	s := newPersisting(t, smallPlan+"nodes: {osRelease: [rhel, centos, fedora]}")
	s.osRelease(map[string]string{"etc/os-release": debian})
	s.write(persisted, "# owner: istio-system/istio-os-init\nnf_tables\n") // an earlier release's
	s.write("host/etc/modules-load.d/other.conf", "br_netfilter\n")
	const (
		line     = "NotSelected: the host's os-release says debian; nodes.osRelease is rhel centos fedora"
		sentence = "the host's os-release says debian; nodes.osRelease is rhel centos fedora. Nothing is loaded, written or proven on this node."
	)

	// without pilot-agent on the PATH verify would fail if it did anything
	for _, containers := range [][]string{{"load"}, {"load", "verify"}, {"load", "verify", "verify-traffic"}} {
		got := s.run(containers...)
		require.Zero(t, got.exit, got.log)
		require.Equal(t, line, got.conclusion)
	}
	require.Empty(t, s.loaded())
	require.NoFileExists(t, s.path("host/stand-in/calls"))
	require.Equal(t, []string{"other.conf"}, s.left())
	require.NoFileExists(t, s.path("state/verify/outcome"))
	require.NoFileExists(t, s.path("state/traffic/outcome"))

	watch, log := s.start()
	require.Eventually(t, func() bool { return strings.Contains(log.String(), "watching every 60 s: nothing") }, 10*time.Second, 10*time.Millisecond)
	require.Contains(t, log.String(), line)
	ready := s.tryReport("--ready")
	require.Zero(t, ready.exit, "the pod would not be Ready")
	require.Equal(t, line+"\n", ready.log)
	require.Equal(t, 2, strings.Count(log.String(), "\n"), log)
	require.NoError(t, watch.Process.Signal(syscall.SIGTERM))
	require.Zero(t, wait(t, watch, time.Second))

	text := s.report()
	require.Contains(t, text, "node stand-in can run the mesh: "+line+"\n")
	require.Contains(t, text, "os Debian GNU/Linux 12 (bookworm); kernel 5.14.0-0.el9.stand-in")
	require.NotContains(t, text, "not proven")
	report := s.json()
	require.Equal(t, "True", report.Status)
	require.Equal(t, "NotSelected", report.Reason)
	require.Equal(t, sentence, report.Message)
	require.Equal(t, "debian", report.Facts["os-id"])
	require.Empty(t, report.Modules)

	config := s.tryReport("--machineconfig")
	require.Equal(t, 1, config.exit, "a MachineConfig without a module")
	require.Contains(t, config.log, line+". Ask on a node that is selected.")
}

// With verify switched off too, where a module that is missing would fail load.
func TestOnANodeThatIsNotSelectedAMissingModuleIsNoFailure(t *testing.T) {
	t.Parallel()
	s := newSandbox(t, smallPlan+"verify: {enabled: false}\nnodes: {osRelease: [rhel]}")
	require.Zero(t, s.run("load").exit)
	require.Equal(t, "True NotSelected", s.outcome("load").says())
}

func TestAChangeOfTheListDecidesAgain(t *testing.T) {
	t.Parallel()
	s := newPersisting(t, smallPlan+"nodes: {osRelease: [rhel]}")
	s.osRelease(map[string]string{"etc/os-release": debian})
	require.Contains(t, s.load().conclusion, "NotSelected: ")

	s.objects = chart.Render(t, smallPlan+"nodes: {osRelease: [debian]}")
	require.Contains(t, s.load().conclusion, "loaded now: nf_tables")
	require.Contains(t, s.read(persisted), "nf_tables")
	require.NotContains(t, s.report(), "NotSelected")
	s.recorded("traffic", 2, "False", "TrafficNotRedirected", "exit code 1")
	require.Equal(t, "TrafficNotRedirected", s.json().Reason)

	s.objects = chart.Render(t, smallPlan+"nodes: {osRelease: [rhel]}")
	require.Contains(t, s.load().conclusion, "NotSelected: ")
	require.Empty(t, s.left())
	require.Empty(t, s.facts("module"), "watch would miss what is none of its business")
	require.Equal(t, "NotSelected", s.json().Reason, "what was found before counts no more")
	require.Contains(t, s.loaded(), "nf_tables", "never unloaded: somebody else may use it")
}
