#!/bin/sh
# uninstall: the Job that `helm uninstall` waits for. It deletes the release's DaemonSet and its right to write to nodes, removes the
# condition IstioReady from every node, and waits until every node is cleaned (clean-up.sh). Whatever ends it, it names what is left.
#
# In:  ISTIO_OS_INIT_NAMESPACE     namespace of the objects.
#      ISTIO_OS_INIT_DAEMONSET     name of the release's DaemonSet; ISTIO_OS_INIT_PODS: label selector of its pods.
#      ISTIO_OS_INIT_HOOK          name of this Job and of the DaemonSet that cleans.
#      ISTIO_OS_INIT_OWNER         field manager that has written the condition. Default: there is no condition to remove.
#      ISTIO_OS_INIT_BINDING       name of the ClusterRoleBinding by which its pods may write the condition.
#      ISTIO_OS_INIT_CLEANER_PODS  label selector of the pods that clean. Default: there is nothing to clean.
#      ISTIO_OS_INIT_PATIENCE      seconds that all of it may take. Default 45.
#      ISTIO_OS_INIT_LIMIT         seconds after the Job's start at which Kubernetes ends it. Default 290.
#      ISTIO_OS_INIT_API, ISTIO_OS_INIT_ACCOUNT  see api.sh.
# Out: a line for each step, and for what is left the nodes' names and what to do there. Helm prints them.
# Exit: 0, also if something is left: a node that is down must not keep the release. 1 if nothing is known of any node.
# shellcheck shell=dash
set -u
. "${0%/*}/outcome.sh"
. "${0%/*}/api.sh"

in_namespace=namespaces/${ISTIO_OS_INIT_NAMESPACE:-default}
hook=${ISTIO_OS_INIT_HOOK:-istio-os-init-clean-up}
owner=${ISTIO_OS_INIT_OWNER-}
cleaner_pods=${ISTIO_OS_INIT_CLEANER_PODS-}
file=/etc/modules-load.d/istio-os-init.conf
table='Accept: application/json;as=Table;v=v1;g=meta.k8s.io'

# Runs this script again under timeout, which ends it 20 seconds before Kubernetes would: these are for naming what is left. The limit
# counts from the Job's start, which may be long before this pod's. Both ends, timeout's and SIGTERM, reach curl too: a shell
# handles a signal only after the command that runs.
start_with_deadline() {
  local left started late=0
  if request "apis/batch/v1/$in_namespace/jobs/$hook"; then
    started=${answer#*'"startTime":"'}
    started=$(date -d "${started%%\"*}" +%s 2>/dev/null) && late=$(($(date +%s) - started))
  fi
  left=$((${ISTIO_OS_INIT_LIMIT:-290} - 20 - (late > 0 ? late : 0)))
  [ "$left" -le "${ISTIO_OS_INIT_PATIENCE:-45}" ] || left=${ISTIO_OS_INIT_PATIENCE:-45}
  exec timeout --preserve-status --kill-after=15 "$((left > 5 ? left : 5))" /bin/sh "$0" --work
}

# list PATH SELECTOR [NAME=VALUE]...: see request. A table's rows are short: 5,000 pods are one megabyte, not 25.
list() {
  local path=$1
  shift
  for parameter; do set -- "$@" --data-urlencode "$parameter" && shift; done
  request "$path" --get --header "$table" --data-urlencode includeObject=None "$@"
}

# rows SED-SCRIPT: the cells of each row of the table in $answer, as in "a","b","c", edited.
rows() {
  printf '%s' "$answer" | sed 's/"cells":\[/\n/g' | sed -n "1d; s/\\].*//; $1"
}

# name_nodes LINES: sets $named to the first 50 lines, comma-separated, and how many more there are.
name_nodes() {
  local count
  count=$(printf '%s\n' "$1" | grep -c .)
  named=$(printf '%s\n' "$1" | sed 50q | paste -s -d , - | sed 's/,/, /g')
  [ "$count" -le 50 ] || named="$named and $((count - 50)) more"
}

# delete PATH: fails unless the object is there no more.
delete() {
  request "apis/$1" --request DELETE && return
  case $words in *'error: 404'*) ;; *) return 1 ;; esac
}

delete_writers() {
  delete "apps/v1/$in_namespace/daemonsets/$ISTIO_OS_INIT_DAEMONSET" || return
  [ -z "$owner" ] || delete "rbac.authorization.k8s.io/v1/clusterrolebindings/$ISTIO_OS_INIT_BINDING"
}

# Removes the condition from the nodes in $conditions: an apply of nothing removes what the same field manager has applied before, and
# leaves what another one has written. 500 nodes a curl, over few connections. curl shows its progress even if it is to be silent.
forget() {
  local batch codes all
  all=$(printf '%s\n' "$conditions" | wc -l)
  until [ -z "$conditions" ]; do
    batch=$(printf '%s\n' "$conditions" | sed 500q)
    { codes=$(printf '%s\n' "$batch" | sed "s#.*#url = $api/api/v1/nodes/&/status?fieldManager=$owner\noutput = /dev/null#" |
      ask --parallel --parallel-max 8 --request PATCH --header 'Content-Type: application/apply-patch+yaml' \
        --data '{"apiVersion":"v1","kind":"Node"}' --write-out '%{http_code} %{url_effective}\n'); } 2>/dev/null
    batch=$(printf '%s\n' "$codes" | sed -n 's#^\(200\|404\) .*/nodes/\([^/]*\)/.*#\2#p')
    [ -n "$batch" ] || { words="HTTP status ${codes%% *}" && return 1; }
    conditions=$(printf '%s\n' "$conditions" | grep -vxF "$batch")
    say "IstioReady is removed from $((all - $(printf '%s' "$conditions" | grep -c .))) of $all nodes"
  done
}

# number NAME: sets $number to the number of this name in $answer, 0 if the API server leaves it out.
number() {
  number=${answer#*"\"$1\":"}
  [ "$number" != "$answer" ] || number=0
  number=${number%%[!0-9]*}
}

# One look. Sets $clean once nothing is waited for: every node is clean, and the release's own pods have gone.
look() {
  local own
  list "api/v1/$in_namespace/pods" "labelSelector=$ISTIO_OS_INIT_PODS" limit=1 || return
  case $answer in *'"cells"'*) own=some ;; *) own= ;; esac
  request "apis/apps/v1/$in_namespace/daemonsets/$hook" || return
  number desiredNumberScheduled && wanted=$number
  number numberReady && cleaned=$number
  number generation && generation=$number
  # before its controller has counted the numbers say nothing
  number observedGeneration
  # what was written up to now the cleaners, which look every second, have seen only two seconds on
  settled=$((settled + 1))
  if [ "$number" -ne "$generation" ] || [ "$cleaned" -lt "$wanted" ] || [ -n "$own" ]; then settled=0; fi
  [ "$settled" -lt 3 ] || clean=yes
}

# Sets $unclean to a line for each node that is not cleaned: its name and the status of its pod. A pod without a node names it in its affinity.
find_unclean() {
  local pods="api/v1/$in_namespace/pods" selector=$cleaner_pods ready='/^"[^"]*","1\/1",/d'
  [ "$wanted" -eq 0 ] || [ "$cleaned" -lt "$wanted" ] || selector=$ISTIO_OS_INIT_PODS ready=
  # name, ready, status, restarts, age, address, node
  list "$pods" "labelSelector=$selector" || return
  unclean=$(rows "$ready; "'s/^"[^"]*","[^"]*","\([^"]*\)","[^"]*","[^"]*","[^"]*","\([^"]*\)".*/\2 (\1)/; /^[<\\]/!p')
  request "$pods" --get --data-urlencode "labelSelector=$selector" --data-urlencode fieldSelector=spec.nodeName= --data limit=50 || return
  unclean=$(printf '%s\n' "$unclean" "$(printf '%s' "$answer" | sed 's/"matchFields":\[{"key":"metadata.name","operator":"In","values":\["/\n/g' |
    sed '1d; s/".*/ (not scheduled)/')" | sed '/./!d' | sort -u)
}

# Without the shell's message if a signal ends it.
pause() {
  { sleep 1; } 2>/dev/null
}

# Says what is left, and ends.
finish() {
  local code=0 tries=0
  trap '' TERM INT
  if [ "$deleted" != true ]; then
    say "warning: nothing is removed: the API server does not delete the DaemonSet $ISTIO_OS_INIT_DAEMONSET: $words"
    say "Fix: run helm uninstall again. With --no-hooks it leaves what is on the nodes."
    exit 1
  fi
  if [ -n "$conditions" ]; then
    name_nodes "$conditions"
    say "warning: IstioReady is left on these nodes: $named${words:+ ($words)}"
    say "Fix: for each such node: kubectl patch node NODE --subresource status --patch '{\"status\":{\"conditions\":[{\"type\":\"IstioReady\",\"\$patch\":\"delete\"}]}}'"
  fi
  [ -n "$cleaner_pods" ] || exit 0
  [ -z "$clean" ] || { say "clean: none of $wanted nodes has $file any more; loaded modules stay loaded" && exit 0; }
  named=
  # timeout signals this shell first, and then every process: also one that was started in between
  until find_unclean || [ "$tries" -eq 3 ]; do
    tries=$((tries + 1))
    pause
  done
  if [ "$tries" -lt 3 ]; then name_nodes "$unclean"; else code=1; fi
  say "warning: $cleaned of $wanted nodes are known to be clean. Left, with the status of the pod there (Pending: the node does not answer): ${named:-unknown${words:+ ($words)}}"
  say "Fix: as root on each such node, once it is back: rm -f $file"
  exit "$code"
}

[ "${1-}" = --work ] || start_with_deadline
deleted=false conditions='' clean='' words=''
wanted=0 cleaned=0 settled=0
trap finish TERM INT
until delete_writers; do pause; done
deleted=true
if [ -n "$owner" ]; then
  conditions='unknown, since the API server does not list the nodes'
  until list api/v1/nodes; do pause; done
  conditions=$(rows 's/^"\([^"]*\)".*/\1/p')
  forget || { pause && forget; } || { pause && forget; }
fi
if [ -n "$cleaner_pods" ]; then
  until look && [ -n "$clean" ]; do pause; done
fi
finish
