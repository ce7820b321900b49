#!/bin/sh
# signal: reports to the API server what the pod has concluded about this node: by the node's condition IstioReady, and by removing a
# start-up taint once the node is proven.
#
# It writes when it starts and when something changes. It does not write when it ends: every roll of the DaemonSet would make the
# condition Unknown. Uninstall removes the condition (uninstall.sh).
#
# In:  ISTIO_OS_INIT_NODE       the node's name.
#      ISTIO_OS_INIT_OWNER      NAMESPACE/NAME of the release's objects: the field manager that owns the condition.
#      ISTIO_OS_INIT_CONDITION  true: write the condition. Default false.
#      ISTIO_OS_INIT_TAINT      key of the taint to remove. Default: none.
#      ISTIO_OS_INIT_STATE      directory of the containers' volumes, see outcome.sh. Default /run/istio-os-init.
#      ISTIO_OS_INIT_PROC       where proc is mounted. Default /proc.
#      ISTIO_OS_INIT_API, ISTIO_OS_INIT_ACCOUNT  see api.sh.
# Out: a line for everything that it has written, and for each new reason why it cannot write.
# Exit: 143 on SIGTERM, at once, also while the API server does not answer. It does not fail: the pod's readiness does not depend on it.
# shellcheck shell=dash
set -u
. "${0%/*}/outcome.sh"
. "${0%/*}/api.sh"
end_at_once "$@"

node=${ISTIO_OS_INIT_NODE:-unknown}
owner=${ISTIO_OS_INIT_OWNER:-istio-os-init}
condition=${ISTIO_OS_INIT_CONDITION:-false}
taint=${ISTIO_OS_INIT_TAINT-}
proc=${ISTIO_OS_INIT_PROC:-/proc}

# patch SUBRESOURCE TYPE BODY [PARAMETER]: patches the node. PARAMETER: of the query, as in &NAME=VALUE.
patch() {
  request "api/v1/nodes/$node$1?fieldManager=$owner${4-}" --request PATCH --header "Content-Type: application/$2" --data "$3"
}

# Fails unless the chart's policy is in force: the API server has to deny a change that no right but the policy forbids. It is a dry run:
# if the API server allows the change, nothing has changed either.
check_policy() {
  local subresource=/status denial='denied request: may change no condition but IstioReady'
  local body='{"status":{"conditions":[{"type":"IstioOsInitForbidden","status":"False"}]}}'
  if [ "$condition" != true ]; then
    subresource='' denial="denied request: may not change a node's metadata"
    body='{"metadata":{"annotations":{"istio-os-init/forbidden":""}}}'
  fi
  if patch "$subresource" strategic-merge-patch+json "$body" '&dryRun=All'; then
    words="no ValidatingAdmissionPolicy limits this pod's token to the condition IstioReady and the start-up taint of its own node. Nothing is written until the release's policy and its binding are in force; install them with helm upgrade as an administrator of the cluster"
    return 1
  fi
  case $words in *"$denial"*) checked=true ;; *) return 1 ;; esac
}

# Sets $status, $reason and $message to what there is to report. Reads the outcome only if one of its files has changed.
find_report() {
  local now clock
  now=$(stat -c '%n %i %Y %s' "$state/load/outcome" "$state/verify/outcome" "$state/traffic/outcome" "$state/watch/outcome" 2>/dev/null)
  # the kernel's uptime, which no correction of the time changes
  read -r clock _ <"$proc/uptime" || clock=0
  clock=${clock%.*}
  concluded_at=${concluded_at:-$clock}
  if [ "$now" != "$seen" ]; then
    find_outcome
    seen=$now
  fi
  if [ "$status" != Unknown ]; then
    concluded_at=$clock
  elif [ "$((clock - concluded_at))" -lt 600 ]; then
    reason=Proving message='The proof has not ended yet.'
  else
    reason=NotProven message='The pod has proven nothing for ten minutes. Fix: see the status of its containers.'
  fi
}

# field NAME: the condition's field in $answer, which is the node.
field() {
  printf '%s' "$answer" | sed -n "s/.*{\"type\":\"IstioReady\",[^}]*\"$1\":\"\\([^\"]*\\)\".*/\\1/p"
}

# Whether the condition was written since the node was booted. A time to come tells nothing.
written_in_this_boot() {
  local booted=0 key value written
  while read -r key value; do [ "$key" != btime ] || booted=$value; done <"$proc/stat"
  written=$(date -d "$(field lastHeartbeatTime)" +%s 2>/dev/null) && [ "$written" -ge "$booted" ] && [ "$written" -le "$(date +%s)" ]
}

# Writes the condition. A patch of nothing answers with the node, and needs no right to read. What the pod before has proven in the same
# boot is left until this pod has concluded something.
write_condition() {
  local now since before body
  patch /status strategic-merge-patch+json '{}' || return
  before=$(field status)
  if [ "$reason" = Proving ] && [ -n "$before" ] && written_in_this_boot; then return 0; fi
  now=$(date -u +%Y-%m-%dT%H:%M:%SZ)
  [ "$before" = "$status" ] && since=$(field lastTransitionTime) || since=$now
  body=$(printf 'node %s\nstatus %s\nreason %s\nmessage %s\nnow %s\nsince %s\n' "$node" "$status" "$reason" "$message" "$now" "${since:-$now}" |
    in_form condition)
  patch /status apply-patch+yaml "$body" '&force=true' || return
  say "IstioReady $status $reason: $message"
}

# Removes the taint, whatever its value and effect. The test makes the API server refuse the patch if the taint is no longer where it
# was seen, so that no other is ever removed. Then it looks again, at once for the first few times.
remove_taint() {
  local tries=0 index at
  while :; do
    request "api/v1/nodes/$node?$cached" || return
    index=$(printf '%s' "$answer" | sed -n 's/.*"taints":\[\([^]]*\)\].*/\1/p' | sed 's/},{/}\n{/g' | grep -nF "\"key\":\"$taint\"") || return 0
    index=${index%%"$line_break"*}
    at=$((${index%%:*} - 1))
    cached=
    patch '' json-patch+json "[{\"op\":\"test\",\"path\":\"/spec/taints/$at\",\"value\":${index#*:}},{\"op\":\"remove\",\"path\":\"/spec/taints/$at\"}]" || {
      tries=$((tries + 1))
      [ "$tries" -lt 5 ] || return 1
      continue
    }
    say "taint removed: ${index#*:}"
  done
}

# try STEP: takes it. Says why it failed, once for each reason, and then waits longer and longer.
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

checked=false seen=none reported='' complained='' concluded_at='' pause=2
# The API server's memory may be read, unless a taint was just not where it was seen.
cached='resourceVersion=0'
# Seconds to the next look for the taint, and to the one after: a provisioner may add it after the kubelet has started.
look_in=0
look_after=30
while :; do
  find_report
  if [ "$checked" = true ] || try check_policy; then
    if [ "$condition" = true ] && [ "$reported" != "$status $reason $message" ]; then
      ! try write_condition || reported="$status $reason $message"
    fi
    if [ -n "$taint" ] && [ "$status" = True ] && [ "$look_in" -le 0 ] && try remove_taint; then
      cached='resourceVersion=0'
      look_in=$look_after
      look_after=$((look_after < 480 ? look_after * 2 : 480))
    fi
  fi
  sleep "$pause" >/dev/null 2>&1
  look_in=$((look_in - pause))
done
