#!/bin/sh
# shellcheck shell=dash
# watch: holds the verdict. Of a node that is proven it looks at every interval whether the modules that load recorded are still
# loaded. If one has gone, or if the node is not proven, it ends the pod's sandbox after a pause: the kubelet makes a new one and
# starts every container from the first on.
#
# In:  ISTIO_OS_INIT_INTERVAL  seconds between two looks. Default 60.
#      ISTIO_OS_INIT_REPAIR    true: end the sandbox. It needs the pod's processes in one namespace, and process 1 under its own
#                              uid. Otherwise the pod stays not ready. Default false.
#      ISTIO_OS_INIT_SYS       where sysfs is mounted. Default /sys.
#      ISTIO_OS_INIT_PROC      where proc is mounted. Default /proc.
#      ISTIO_OS_INIT_PAUSE     seconds of the first pause. Default 10.
# Out: its outcome (outcome.sh), only if the node is no longer proven or was never. Starts no process but one sleep, and writes
#      nothing, while nothing has gone.
#      $state/watch/attempts   "COUNT PAUSE REASON": how often the sandbox has been ended since the last hour of proof, after how
#                              many seconds last, and why.
# Exit: 0 on SIGTERM or SIGINT, at once; 1 a module has gone, and the pod must not be Ready during the pause.
set -u
own=watch
. "${0%/*}/outcome.sh"

interval=${ISTIO_OS_INIT_INTERVAL:-60}
repair=${ISTIO_OS_INIT_REPAIR:-false}
first_pause=${ISTIO_OS_INIT_PAUSE:-10}
sys=${ISTIO_OS_INIT_SYS:-/sys}
proc=${ISTIO_OS_INIT_PROC:-/proc}
longest=300
proof=3600

# A shell that is process 1 has no default action for SIGTERM, and would wait for its sleep.
trap '[ -z "${!-}" ] || kill "$!" 2>/dev/null; exit 0' TERM INT

rest() {
  sleep "$1" &
  wait "$!"
}

# Sets attempts and last_pause.
read_attempts() {
  local last_reason
  attempts=0 last_pause=0
  data "$state/$own/attempts" 200 || return 0
  read -r attempts last_pause last_reason <<END
$text
END
  case $attempts:$last_pause in *[!0-9:]* | :* | *: | ?????????*) attempts=1 last_pause=$longest last_reason=unknown ;; esac
  say "proven anew $attempts times since the last hour of proof, last because of $last_reason"
}

# Sets recorded, the modules that load has seen loaded.
read_recorded() {
  local key name how
  recorded=
  data "$state/load/facts" 65536 || return 0
  while read -r key name how; do
    case $key:$how:$name in *[!A-Za-z0-9_:-]*) ;; module:loaded-*) recorded="$recorded $name" ;; esac
  done <<END
$text
END
}

# Sets $missing to the recorded modules that are not loaded. sysfs answers with one system call a module; /proc/modules, which
# the shell reads byte by byte, is asked only if sysfs knows nothing: the module has gone, or this container sees no sysfs.
look() {
  local name loaded=' ' suspects
  missing=
  for name in $recorded; do
    [ -d "$sys/module/$name" ] || missing="$missing $name"
  done
  [ -n "$missing" ] && [ -r "$proc/modules" ] || return 0
  while read -r name _; do loaded="$loaded$name "; done <"$proc/modules"
  suspects=$missing
  missing=
  for name in $suspects; do
    case $loaded in *" $name "*) ;; *) missing="$missing $name" ;; esac
  done
}

# watch_modules: returns when one has gone.
watch_modules() {
  local proven=0
  read_recorded
  say "watching every $interval s:${recorded:- nothing, the kernel has no module of the plan that could go}"
  while :; do
    look
    [ -z "$missing" ] || return 0
    rest "$interval"
    proven=$((proven + interval))
    if [ "$attempts" -gt 0 ] && [ "$proven" -ge "$proof" ]; then
      rm -f "$state/$own/attempts"
      attempts=0
    fi
  done
}

# unready: ends watch if it started on a proven node: the startup probe is asked again only after a new start.
unready() {
  [ -z "$was_proven" ] || exit 1
}

# prove_again: ends the pod's process 1, which holds its namespaces, after the pause that is due. Does not return.
prove_again() {
  local pause=$((last_pause > 0 ? last_pause * 2 : first_pause))
  [ "$repair" = true ] || { unready && say 'repair.enabled is false: delete this pod to load and prove again' && wait_for_deletion; }
  [ "$pause" -le "$longest" ] || pause=$longest
  [ "$reason$attempts" != ModuleGone0 ] || pause=0
  [ "$pause" -eq 0 ] || unready
  # without a count it could be a loop without a pause
  put "$state/$own/attempts" "$((attempts + 1)) $pause $reason" || { unready && pause=$longest; }
  say "attempt $((attempts + 1)): load and verify run again in $pause s"
  rest "$pause"
  if [ "$$" -ne 1 ] && kill -TERM 1; then
    rest 30
  fi
  before=$reasons
  conclude SandboxNotEnded "process 1 does not end" || :
  unready
  wait_for_deletion
}

wait_for_deletion() {
  while :; do rest 3600; done
}

read_attempts
find_outcome
tell "$line"
error='' findings='' was_proven=
if [ "$status" = True ]; then
  was_proven=yes
  watch_modules
  conclude ModuleGone "${missing# }" || :
elif [ "$status" = Unknown ]; then
  case $reason in '' | Loading) silent=load ;; Applying | ModulesLoaded | ModulesSeen) silent=verify ;; *) silent=verify-traffic ;; esac
  conclude StateUnwritable "$silent" || :
fi
prove_again
