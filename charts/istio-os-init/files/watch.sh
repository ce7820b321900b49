#!/bin/sh
# watch: looks at every interval whether the modules that load recorded are still loaded; ends, and so makes the pod
# NotReady, when one has gone.
#
# In:  ISTIO_OS_INIT_INTERVAL  seconds between two looks, a whole number from 1 on. Default 60.
#      ISTIO_OS_INIT_STATE     directory with load's file `loaded`. Default /run/istio-os-init.
#      ISTIO_OS_INIT_PROC      where proc is mounted. Default /proc.
# Out: the conclusion, which names what has gone. Starts no process but one sleep.
# Exit: 0 on SIGTERM or SIGINT, at once; 1 a module has gone.
set -u
. "${0%/*}/report.sh"

interval=${ISTIO_OS_INIT_INTERVAL:-60}
state=${ISTIO_OS_INIT_STATE:-/run/istio-os-init}
proc=${ISTIO_OS_INIT_PROC:-/proc}

# A shell that is process 1 has no default action for SIGTERM, and would wait for its sleep.
trap '[ -z "${!-}" ] || kill "$!" 2>/dev/null; exit 0' TERM INT

recorded=
[ -r "$state/loaded" ] && while read -r name; do recorded="$recorded $name"; done <"$state/loaded"
say "watching every $interval s:${recorded:- nothing, the kernel has no module of the plan that could go}"

while :; do
  if [ -n "$recorded" ]; then
    loaded=' '
    [ -r "$proc/modules" ] && while read -r name _; do loaded="$loaded$name "; done <"$proc/modules"
    gone=
    for name in $recorded; do
      case $loaded in *" $name "*) ;; *) gone="$gone $name" ;; esac
    done
    if [ -n "$gone" ]; then
      conclude "ModuleGone: no longer loaded:$gone. Fix: delete this pod to load and prove again, and find what unloads modules (firewalld?)."
      exit 1
    fi
  fi
  sleep "$interval" &
  wait "$!"
done
