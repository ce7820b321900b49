package node

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const (
	persisted  = "host/etc/modules-load.d/istio-os-init.conf"
	half       = "host/etc/modules-load.d/.istio-os-init.conf.new"
	persistOff = smallPlan + "persist: {enabled: false}"
)

// newPersisting is a node that can load what smallPlan names.
func newPersisting(t *testing.T, values string) *sandbox {
	t.Helper()
	return newSandbox(t, values).loadable("nf_tables nfnetlink", "xt_owner x_tables", "nft_counter nf_tables")
}

// load runs load, which must succeed whatever becomes of the file.
func (s *sandbox) load() result {
	s.t.Helper()
	got := s.run("load")
	require.Zero(s.t, got.exit, got.log)
	return got
}

// warnings returns the lines of a log that warn.
func warnings(log string) []string {
	var found []string
	for line := range strings.Lines(log) {
		if strings.HasPrefix(line, "warning: ") {
			found = append(found, strings.TrimSpace(line))
		}
	}
	return found
}

// left returns the names in the node's modules-load.d.
func (s *sandbox) left() []string {
	s.t.Helper()
	entries, err := os.ReadDir(s.path("host/etc/modules-load.d"))
	require.NoError(s.t, err)
	var names []string
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	return names
}

func TestLoadPersistsWhatTheNodeHasLoadedAndSaysWhoWroteIt(t *testing.T) {
	t.Parallel()
	s := newPersisting(t, "modules: {base: {nft: [nf_tables, xt_owner, nft_counter, xt_CT, no_such]}}\nmesh: {dns: false}\n")
	s.write("host/lib/modules/5.14.0-0.el9.stand-in/modules.builtin", "kernel/net/netfilter/xt_CT.ko\n")
	got := s.load()
	content := s.read(persisted)
	lines := strings.Split(strings.TrimSpace(content), "\n")
	require.Equal(t, []string{"nf_tables", "xt_owner", "nft_counter"}, lines[3:], "neither what is built in nor what is not there:\n%s", content)
	for _, line := range lines[:3] {
		require.Regexp(t, `^# `, line)
	}
	require.Contains(t, lines, "# owner: istio-system/istio-os-init")
	require.Contains(t, content, "persist.enabled=false")
	info, err := os.Stat(s.path(persisted))
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o644), info.Mode(), "everybody may see why a module is loaded")
	require.Equal(t, []string{"istio-os-init.conf"}, s.left())
	require.Contains(t, got.log, "persisted for the next boot: ")
}

func TestLoadWritesOnlyWhatHasChanged(t *testing.T) {
	t.Parallel()
	s := newPersisting(t, smallPlan)
	s.load()
	past := time.Now().Add(-time.Hour)
	require.NoError(t, os.Chtimes(s.path(persisted), past, past))
	before := stat(t, s.path(persisted))

	got := s.load()
	require.Equal(t, before, stat(t, s.path(persisted)), "the same file, untouched")
	require.NotContains(t, got.log, "persisted")

	s.write("host/proc/modules", "xt_owner 1 0 - Live 0x0\n") // which are loaded before and which now does not matter
	s.load()
	require.Equal(t, before, stat(t, s.path(persisted)), "the same file, untouched")

	s.write("config/plan", "nf_tables\n")
	s.load()
	require.NotEqual(t, before.inode, stat(t, s.path(persisted)).inode, "replaced as a whole, not written over")
	require.NotContains(t, s.read(persisted), "xt_owner")
}

type identity struct {
	inode    uint64
	modified time.Time
}

func stat(t *testing.T, path string) identity {
	t.Helper()
	info, err := os.Lstat(path)
	require.NoError(t, err)
	return identity{info.Sys().(*syscall.Stat_t).Ino, info.ModTime()}
}

func TestSwitchedOffTheReleasesFileGoesAndNobodyElses(t *testing.T) {
	t.Parallel()
	s := newPersisting(t, smallPlan)
	s.load()
	off := newPersisting(t, persistOff)
	off.write(persisted, s.read(persisted))
	off.write(half, "# owner: istio-system/istio-os-init\nnf_ta")
	off.write("host/etc/modules-load.d/other.conf", "br_netfilter\n")
	require.Contains(t, off.load().log, "removed: "+off.path(persisted))
	require.Equal(t, []string{"other.conf"}, off.left())
	require.NotContains(t, off.load().log, "removed", "there is nothing to remove a second time")
}

func TestAKernelWithoutLoadableModulesGetsNoFileAndLosesAnOldOne(t *testing.T) {
	t.Parallel()
	s := newSandbox(t, smallPlan)
	require.NoError(t, os.Remove(s.path("host/proc/modules")))
	s.load()
	require.Empty(t, s.left())

	s.write(persisted, "# owner: istio-system/istio-os-init\nnf_tables\n")
	s.load()
	require.Empty(t, s.left())
}

func TestAFileOfSomebodyElseStaysAndIsNamed(t *testing.T) {
	t.Parallel()
	for name, content := range map[string]string{
		"another release's":  "# owner: other/istio-os-init\nnf_tables\n",
		"an administrator's": "nf_tables\n",
		// a name that ours is the beginning of
		"a longer name's": "# owner: istio-system/istio-os-init-2\nnf_tables\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newPersisting(t, smallPlan)
			s.write(persisted, content)
			warned := warnings(s.load().log)
			require.Equal(t, content, s.read(persisted))
			require.Len(t, warned, 1)
			require.Contains(t, warned[0], s.path(persisted)+" belongs to another and stays as it is")

			off := newPersisting(t, persistOff)
			off.write(persisted, content)
			require.Empty(t, warnings(off.load().log))
			require.Equal(t, content, off.read(persisted))
		})
	}
	t.Run("masked with a link to /dev/null", func(t *testing.T) {
		t.Parallel()
		s := newPersisting(t, smallPlan)
		require.NoError(t, os.Symlink("/dev/null", s.path(persisted)))
		require.Len(t, warnings(s.load().log), 1)
		target, err := os.Readlink(s.path(persisted))
		require.NoError(t, err)
		require.Equal(t, "/dev/null", target)
	})
}

func TestWhatAKilledRunHasLeftIsGoneAfterTheNext(t *testing.T) {
	t.Parallel()
	s := newPersisting(t, smallPlan)
	s.write(half, "# Written by istio-os-init: ker")
	s.load()
	require.Equal(t, []string{"istio-os-init.conf"}, s.left())
	require.Contains(t, s.read(persisted), "nft_counter")

	s.write(half, "# Written by istio-os-init: ker")
	s.load()
	require.Equal(t, []string{"istio-os-init.conf"}, s.left(), "although there is nothing to write")
}

// The node still becomes Ready: verify and watch do not ask for the file.
func TestADirectoryThatTakesNoFileIsOneWarningWithTheSystemsWords(t *testing.T) {
	t.Parallel()
	need(t, "mount")
	const mounted = "host/etc/modules-load.d"
	for name, test := range map[string]struct {
		mount string
		words string
	}{
		"read only": {"mount --bind DIR DIR && mount -o remount,bind,ro DIR", "Read-only file system"},
		"missing":   {"rmdir DIR", "No such file or directory|Directory nonexistent"},
		// one page for the file, none for what is in it
		"full":             {"mount -t tmpfs -o size=4k,nr_inodes=9 tmpfs DIR && printf %4096s >DIR/full", "No space left on device"},
		"without an inode": {"mount -t tmpfs -o size=4k,nr_inodes=1 tmpfs DIR", "No space left on device"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newPersisting(t, smallPlan)
			s.before = strings.ReplaceAll(test.mount, "DIR", quoted([]string{s.path(mounted)})[0])
			s.after = "ls -A " + s.path(mounted) + " >" + s.path("left") + " 2>/dev/null || :"
			got := s.load()
			warned := warnings(got.log)
			require.Len(t, warned, 1, got.log)
			require.Regexp(t, `^warning: \S+/modules-load\.d/istio-os-init\.conf is not written, .*: .*(`+test.words+`)$`, warned[0])
			require.Equal(t, strings.TrimPrefix(strings.TrimSpace(s.read("left")), "full"), "", "something half written stays")
			require.Equal(t, []string{"nf_tables loaded-now", "xt_owner loaded-now", "nft_counter loaded-now"}, s.facts("module"))
		})
	}
	t.Run("read only, when switched off", func(t *testing.T) {
		t.Parallel()
		s := newPersisting(t, persistOff)
		s.write(persisted, "# owner: istio-system/istio-os-init\nnf_tables\n")
		s.before = strings.ReplaceAll("mount --bind DIR DIR && mount -o remount,bind,ro DIR", "DIR", s.path(mounted))
		warned := warnings(s.load().log)
		require.Len(t, warned, 1)
		require.Regexp(t, `istio-os-init\.conf is not removed, .*Read-only file system$`, warned[0])
	})
}

func TestADirectoryInMemoryIsOneWarningThatTheListDoesNotOutlastAReboot(t *testing.T) {
	t.Parallel()
	need(t, "mount")
	s := newPersisting(t, smallPlan)
	s.before = "mount -t tmpfs tmpfs " + quoted([]string{s.path("host/etc/modules-load.d")})[0]
	warned := warnings(s.load().log)
	require.Len(t, warned, 1)
	require.Regexp(t, `/modules-load\.d of this node is in memory: what is written there does not outlast a reboot$`, warned[0])
}

// A full disk with a file of an earlier plan: the old one stays whole.
func TestAFullDiskLeavesTheFileThatIsThereAsItIs(t *testing.T) {
	t.Parallel()
	s := newPersisting(t, smallPlan)
	dir := s.path("host/etc/modules-load.d")
	s.before = "mount -t tmpfs -o size=8k tmpfs " + dir + " && printf '# owner: istio-system/istio-os-init\\nnf_tables\\n' >" + s.path(persisted) +
		" && { printf %4096s >" + filepath.Join(dir, "full") + "; }"
	s.after = "cat " + s.path(persisted) + " >" + s.path("after")
	got := s.load()
	require.Len(t, warnings(got.log), 1, got.log)
	require.Equal(t, "# owner: istio-system/istio-os-init\nnf_tables\n", s.read("after"))
}

func TestWithoutAnOwnerNothingIsTouched(t *testing.T) {
	t.Parallel()
	s := newPersisting(t, smallPlan)
	s.write(persisted, "# owner: \nnf_tables\n")
	load := s.rendered("load")
	for i := range load.Env {
		if load.Env[i].Name == "ISTIO_OS_INIT_OWNER" {
			load.Env[i].Value = ""
		}
	}
	s.load()
	require.Equal(t, "# owner: \nnf_tables\n", s.read(persisted))
}
