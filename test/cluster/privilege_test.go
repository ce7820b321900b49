package cluster

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/istio-os-init/istio-os-init/test/internal/lab"
)

// The README tells people to exec into watch. A shell there has no capability, no token and nothing of the host, and makes the node worse at
// most. The pod's processes are in one namespace; uid 0 alone opens no other process there.
func TestAShellInWatchReachesNothingOfTheOtherContainers(t *testing.T) {
	t.Parallel()
	release := lab.NewRelease(t)
	node := lab.Nodes(t)[0]
	require.NoError(t, release.Upgrade(lab.OnOneNode(t)+"signals: {nodeCondition: {enabled: true}}\n"))
	release.WaitReadyOn(1)
	before, _ := release.Outcome(node)

	// /proc/PID/mem and root ask what ptrace(2) asks (PTRACE_MODE_ATTACH and READ, proc(5))
	said := release.Exec(node, "/bin/sh", "-c", `
sed -n 's/^\(CapEff\|CapPrm\|CapBnd\|NoNewPrivs\):[[:space:]]*/\1 /p' /proc/self/status
for process in /proc/1 $(grep -lE '^Uid:[[:space:]]+65532' /proc/[0-9]*/status | sed 's,/status,,'); do
  echo "PROCESS $process $(tr '\0' ' ' <"$process/cmdline")"
  for path in environ mem root/etc/hosts cwd/etc/hosts fd/0; do
    head -c 1 "$process/$path" >/dev/null 2>&1 && echo "READ $process/$path"
  done
  [ "$process" = /proc/1 ] || { kill "${process#/proc/}" 2>/dev/null && echo "SIGNALLED $process"; }
done
for directory in load verify traffic; do
  touch "/run/istio-os-init/$directory/x" 2>/dev/null && echo "WRITTEN $directory"
done
[ ! -e /var/run/secrets/kubernetes.io ] || echo TOKEN
[ ! -e /host ] || echo HOST
mount -t tmpfs none /mnt 2>/dev/null && echo MOUNTED
true`)
	t.Log(said)
	require.Contains(t, said, "CapEff 0000000000000000\n")
	require.Contains(t, said, "CapPrm 0000000000000000\n")
	require.Contains(t, said, "CapBnd 0000000000000000\n")
	require.Contains(t, said, "NoNewPrivs 1\n")
	require.Regexp(t, `(?m)^PROCESS /proc/1 \S*/pause $`, said)
	require.GreaterOrEqual(t, strings.Count(said, "PROCESS "), 2, "signal's processes are not seen, so nothing is proven about them")
	for _, word := range []string{"READ ", "SIGNALLED ", "WRITTEN ", "TOKEN", "HOST", "MOUNTED"} {
		require.NotContains(t, said, word)
	}

	// what it writes in its own volume makes the node worse at most, never better
	release.Exec(node, "/bin/sh", "-c", `cd /run/istio-os-init/watch && rm -rf outcome attempts && ln -s ../load/outcome outcome && mkfifo attempts && mkdir bin .outcome.new`)
	after, _ := release.Outcome(node)
	require.Equal(t, before, after)
}

// The control first: without the value what is mounted below the host's root stays writable, since a mount is read only by itself alone.
func TestNothingMountedBelowTheHostsRootCanBeWrittenIfTheValueSaysSo(t *testing.T) {
	t.Parallel()
	node := lab.Nodes(t)[0]
	control := lab.NewRelease(t).TouchTheHost(node, false)
	require.Contains(t, control, "TRIED root /host/etc")
	require.NotContains(t, control, "WRITTEN root")
	require.Contains(t, control, "WRITTEN submount /host/run")
	log := lab.NewRelease(t).TouchTheHost(node, true)
	require.Contains(t, log, "TRIED submount /host/run")
	require.NotContains(t, log, "WRITTEN")
}
