package node

import (
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// What cannot be recorded is no proof, and nothing is undone for it.
func TestAVolumeThatTakesNothingIsNoProof(t *testing.T) {
	t.Parallel()
	for name, mount := range map[string]string{
		"full":             "mount -t tmpfs -o size=8k,mode=777 none VOLUME && head -c 8192 /dev/zero >VOLUME/full",
		"without an inode": "mount -t tmpfs -o nr_inodes=1,mode=777 none VOLUME",
		"read-only":        "mount -t tmpfs -o ro,mode=777 none VOLUME",
	} {
		for container, writer := range ownVolume {
			if container == "watch" {
				continue
			}
			t.Run(container+" "+name, func(t *testing.T) {
				t.Parallel()
				s := newPersisting(t, smallPlan+"repair: {enabled: false}").sleepless().program("pilot-agent", "exit 0")
				const content = "# owner: istio-system/istio-os-init\nnf_tables\n"
				s.write(persisted, content)
				s.before = strings.ReplaceAll(mount, "VOLUME", s.path("state/"+writer))
				var commands [][]string
				for _, name := range []string{"load", "verify", "verify-traffic"} {
					commands = append(commands, s.contained(s.container(name), s.command(s.container(name))...))
				}
				watch := s.container("watch") // beside it, until it waits to be deleted
				commands = append(commands, s.contained(watch, append([]string{"/bin/sh", "-c", `"$@" & i=0
					while [ "$i" -lt 200 ] && ! grep -q 3600 ` + s.path("notes/sleeps") + `; do i=$((i + 1)); /bin/sleep 0.1; done; kill "$!"; ` + s.path("config/report") + ` --json`, "sh"}, s.command(watch)...)...))
				got := s.inPod(commands...)
				require.Contains(t, got.log, "StateUnwritable: this node does not count as proven, since "+s.path("state/"+writer)+" cannot be written.")
				outcome := s.outcome("watch")
				require.Equal(t, "False StateUnwritable", outcome.says(), got.log)
				require.Equal(t, container, outcome.reasons[0].subject)
				require.Contains(t, got.log, `"status": "False", "reason": "StateUnwritable"`)
				if container == "load" {
					require.Equal(t, content, s.read(persisted), "the list for the next boot is not removed")
					require.NoFileExists(t, s.path("state/verify/outcome"), "there is nothing to prove")
				}
			})
		}
	}
}

// The one that holds the verdict: the pod is not Ready, although that it has gone cannot be recorded.
func TestAWatchThatCanRecordNothingStillEndsWhenAModuleHasGone(t *testing.T) {
	t.Parallel()
	s := newSandbox(t, "").proven("xt_owner")
	require.NoError(t, os.MkdirAll(s.path("state/watch/outcome/x"), 0o755))
	require.NoError(t, os.MkdirAll(s.path("state/watch/attempts/x"), 0o755))
	s.sleepless()
	got := s.inSandbox()
	require.Equal(t, 1, got.exit, got.log)
	require.Contains(t, got.log, "StateUnwritable")
	// The kubelet starts it again. What was in the way is gone, but not the rest, and in the end it may pause.
	require.Equal(t, 1, s.inSandbox().exit)
	require.Empty(t, s.pauses())
	require.Equal(t, sandboxEnded, s.inSandbox().exit)
	require.Equal(t, []string{"300"}, s.pauses())
}
