#!/bin/sh
# watch: looks at every interval whether the modules that load recorded are still loaded; ends, and so makes the pod
# NotReady, when one has gone. What runs load and verify again after that is the business of the pod (report.sh).
#
# In:  ISTIO_OS_INIT_INTERVAL  seconds between two looks. Default 60.
#      ISTIO_OS_INIT_REPAIR    rule, sandbox or never, as in report.sh. sandbox: watch ends the pod's sandbox, so that the kubelet
#                              makes a new one; it needs the pod's processes in one namespace, and process 1 under its own uid.
#      ISTIO_OS_INIT_STATE     directory with load's file `loaded`. Default /run/istio-os-init.
#      ISTIO_OS_INIT_SYS       where sysfs is mounted. Default /sys.
#      ISTIO_OS_INIT_PROC      where proc is mounted. Default /proc.
# Out: the conclusion, which names what has gone. Starts no process but one sleep, and writes nothing, while nothing has gone.
#      $ISTIO_OS_INIT_STATE/drift  after a drift, one line: how often in this pod's life, when last, which modules.
# Exit: 0 on SIGTERM or SIGINT, at once; 3 a module has gone, and the pod has the rule; 1 a module has gone, and it has not.
set -u
. "${0%/*}/report.sh"

interval=${ISTIO_OS_INIT_INTERVAL:-60}
state=${ISTIO_OS_INIT_STATE:-/run/istio-os-init}
sys=${ISTIO_OS_INIT_SYS:-/sys}
proc=${ISTIO_OS_INIT_PROC:-/proc}

# A shell that is process 1 has no default action for SIGTERM, and would wait for its sleep.
trap '[ -z "${!-}" ] || kill "$!" 2>/dev/null; exit 0' TERM INT

# Sets $gone to the recorded modules that are not loaded. sysfs answers with one system call a module; /proc/modules, which the
# shell reads byte by byte, is asked only where sysfs knows nothing: it has gone, or this container sees no sysfs.
look() {
  gone=
  for name in $recorded; do
    [ -d "$sys/module/$name" ] || gone="$gone $name"
  done
  [ -n "$gone" ] && [ -r "$proc/modules" ] || return 0
  loaded=' '
  while read -r name _; do loaded="$loaded$name "; done <"$proc/modules"
  suspects=$gone
  gone=
  for name in $suspects; do
    case $loaded in *" $name "*) ;; *) gone="$gone $name" ;; esac
  done
}

# Records the drift for the watch that comes after the repair: logs of containers that are run again are lost. Fails where it cannot:
# a drift that is not counted must not ask for the rule, which knows no pause.
record() {
  times=0
  [ -r "$state/drift" ] && read -r times _ <"$state/drift"
  { printf '%s %s%s\n' "$((times + 1))" "$(date -u +%Y-%m-%dT%H:%M:%SZ)" "$gone" >"$state/drift.new" && mv "$state/drift.new" "$state/drift"; } 2>/dev/null
}

# end_sandbox SENTENCE: ends the pod's process 1, which holds its namespaces; the kubelet then makes them anew and runs every
# container from the first on. Returns only where that process cannot be ended.
end_sandbox() {
  conclude "$1"
  if [ "$$" -ne 1 ] && kill -TERM 1; then
    sleep 10 &
    wait "$!"
  fi
  say "warning: the pod's sandbox cannot be ended"
}

recorded=
[ -r "$state/loaded" ] && while read -r name; do recorded="$recorded $name"; done <"$state/loaded"
[ -r "$state/drift" ] && read -r times last names <"$state/drift" && say "modules had gone $times times in this pod's life, last at $last: $names"
if not_selected; then
  say "$sentence"
else
  say "watching every $interval s:${recorded:- nothing, the kernel has no module of the plan that could go}"
fi

looked=
while :; do
  look
  if [ -n "$gone" ]; then
    reason="ModuleGone: no longer loaded:$gone. Fix: find what unloads modules (firewalld?)$once_mended."
    case ${ISTIO_OS_INIT_REPAIR:-never} in
      rule)
        record || fail "$reason"
        [ "$times" -eq 0 ] || printf '%s\n' "$reason" 2>/dev/null >"$drifted"
        conclude "$reason"
        exit 3
        ;;
      sandbox)
        record || say "warning: $state cannot be written"
        end_sandbox "${reason%, then *}; this pod loads and proves again by itself."
        ;;
    esac
    fail "$reason"
  fi
  [ -n "$looked" ] || proven_again
  looked=yes
  sleep "$interval" &
  wait "$!"
done
