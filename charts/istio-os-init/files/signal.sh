#!/bin/sh
# signal: tells the cluster what load, verify and watch have found on this node: by the node's condition IstioReady, and by taking
# a start-up taint off the node once it is proven.
#
# It writes when something changes and when it starts, and not when it ends: every roll of the DaemonSet would make the condition
# Unknown, and at uninstall its rights are gone before it is. Uninstall removes the condition (forget.sh).
#
# In:  ISTIO_OS_INIT_NODE       the node's name.
#      ISTIO_OS_INIT_OWNER      whose the condition is, NAMESPACE/NAME: the name of the writer in the node's managedFields.
#      ISTIO_OS_INIT_CONDITION  true: write the condition. Default false.
#      ISTIO_OS_INIT_TAINT      key of the taint to remove. Default: none.
#      ISTIO_OS_INIT_STATE      directory with `condition` (report.sh) and `verdict` (verify.sh). Default /run/istio-os-init.
#      ISTIO_OS_INIT_PROC       where proc is mounted. Default /proc.
#      ISTIO_OS_INIT_API, ISTIO_OS_INIT_ACCOUNT  see api.sh.
# Out: a line for everything that it has written, and for each new reason why it cannot.
# Exit: 0 on SIGTERM or SIGINT, at once. It does not fail: the pod's readiness is not its business.
# shellcheck source-path=SCRIPTDIR/.. source-path=SCRIPTDIR/../api
set -u
. "${0%/*}/outcome.sh"
. "${0%/*}/api.sh"

node=${ISTIO_OS_INIT_NODE:-unknown}
owner=${ISTIO_OS_INIT_OWNER:-istio-os-init}
taint=${ISTIO_OS_INIT_TAINT-}
state=${ISTIO_OS_INIT_STATE:-/run/istio-os-init}
proc=${ISTIO_OS_INIT_PROC:-/proc}

# A shell that is process 1 has no default action for SIGTERM, and would wait for its sleep.
trap '[ -z "${!-}" ] || kill "$!" 2>/dev/null; exit 0' TERM INT

# patch SUBRESOURCE TYPE PATCH: patches the node.
patch() {
  request "api/v1/nodes/$node$1?pretty=false&fieldManager=$owner" --request PATCH --header "Content-Type: application/$2+json" --data "$3"
}

# Sets $status, $reason and $message to what there is to tell.
find_out() {
  if { read -r status message <"$state/condition"; } 2>/dev/null; then
    reason=${message%%: *}
    message=${message#*: }
    [ "$status" = True ] || explain_refusal
  elif [ "$waited" -lt 300 ]; then
    status=Unknown reason=Proving message='load and verify have not ended yet.'
  else
    status=Unknown reason=NotProven message='load and verify have not ended for five minutes: see the status of the pod.'
  fi
}

# Sets $message to the sentences of verify's verdict, where it is its reason that is told. The termination message, which is what
# $message is, has no room for them.
explain_refusal() {
  [ -r "$state/verdict" ] || return 0
  all=
  first=
  while read -r key value; do
    case $key in
      reason)
        [ -z "$first" ] || all="$all Also $value: "
        first=${first:-$value}
        ;;
      sentence) all=$all$value ;;
      fix) all="$all Fix: $value." ;;
    esac
  done <"$state/verdict"
  [ "$first" != "$reason" ] || message=$all
}

# The condition's field $1 in $answer.
field() {
  printf '%s' "$answer" | sed -n "s/.*{\"type\":\"IstioReady\",[^}]*\"$1\":\"\\([^\"]*\\)\".*/\\1/p"
}

# Whether somebody has told something about this node since it was booted.
told_since_boot() {
  booted=0
  while read -r key value; do [ "$key" != btime ] || booted=$value; done <"$proc/stat"
  told_at=$(date -d "$(field lastHeartbeatTime)" +%s 2>/dev/null) && [ "$told_at" -ge "$booted" ]
}

# Writes the condition. A patch of nothing answers with the node, and needs no right to read. A proof of the pod before, in the same
# boot, stands until there is another.
write_condition() {
  patch /status strategic-merge-patch '{}' || return
  had=$(field status)
  if [ "$reason" = Proving ] && [ -n "$had" ] && told_since_boot; then return 0; fi
  now=$(date -u +%Y-%m-%dT%H:%M:%SZ)
  [ "$had" = "$status" ] && since= || since=",\"lastTransitionTime\":\"$now\""
  text=$(printf '%.1000s' "$message" | tr -cd '\40-\176' | sed 's/[\\"]/\\&/g')
  patch /status strategic-merge-patch "{\"status\":{\"conditions\":[{\"type\":\"IstioReady\",\"status\":\"$status\",\"reason\":\"$reason\",\"message\":\"$text\",\"lastHeartbeatTime\":\"$now\"$since}]}}" || return
  say "IstioReady $status $reason: $message"
}

# Takes the taint off, whatever its value and effect. The test makes the API server refuse the patch where the taint is no longer
# where it was seen, so that no other is ever removed; then it looks again, at once for the first few times.
remove_taint() {
  tries=0
  while :; do
    request "api/v1/nodes/$node?pretty=false$fresh" || return
    index=$(printf '%s' "$answer" | sed -n 's/.*"taints":\[\([^]]*\)\].*/\1/p' | sed 's/},{/}\n{/g' | grep -nF "\"key\":\"$taint\"") || return 0
    index=${index%%"
"*}
    at=$((${index%%:*} - 1))
    fresh=
    patch '' json-patch "[{\"op\":\"test\",\"path\":\"/spec/taints/$at\",\"value\":${index#*:}},{\"op\":\"remove\",\"path\":\"/spec/taints/$at\"}]" || {
      tries=$((tries + 1))
      [ "$tries" -lt 5 ] || return 1
      continue
    }
    say "taint removed: ${index#*:}"
  done
}

# try WHAT: does it; says why not, once for each reason, and then waits longer and longer.
try() {
  if "$1"; then
    pause=2
    return 0
  fi
  [ "$words" = "$complained" ] || say "warning: $1: $words"
  complained=$words
  pause=$((pause < 64 ? pause * 2 : 64))
  return 1
}

told=
complained=
waited=0
pause=2
# What the API server has in memory is good enough, but for removing what was seen there.
fresh='&resourceVersion=0'
# Seconds to the next look for the taint, and those to the one after: a provisioner may add it after the kubelet has come up.
look_in=0
look_after=30
while :; do
  find_out
  if [ "${ISTIO_OS_INIT_CONDITION:-false}" = true ] && [ "$told" != "$status $reason $message" ]; then
    ! try write_condition || told="$status $reason $message"
  fi
  if [ -n "$taint" ] && [ "$status" = True ] && [ "$look_in" -le 0 ]; then
    if try remove_taint; then
      fresh='&resourceVersion=0'
      look_in=$look_after
      look_after=$((look_after < 480 ? look_after * 2 : 480))
    fi
  fi
  sleep "$pause" &
  wait "$!"
  waited=$((waited + pause))
  look_in=$((look_in - pause))
done
