#!/bin/sh
# wait: holds `helm uninstall` until every node is cleaned, or until patience ends; then it names the nodes that are not.
#
# A node that is down must not keep a release half deleted: whatever is found, it ends well.
#
# In:  ISTIO_OS_INIT_NAMESPACE  where the pods are.
#      ISTIO_OS_INIT_CLEANERS   name of the DaemonSet that cleans; ISTIO_OS_INIT_CLEANER_PODS  label selector of its pods.
#      ISTIO_OS_INIT_PODS       label selector of the release's own pods: as long as one is there, it may write.
#      ISTIO_OS_INIT_PATIENCE   seconds. Default 45.
#      ISTIO_OS_INIT_API, ISTIO_OS_INIT_ACCOUNT  see api.sh.
# Out: one line; two where a node is left, with its name and what to do there. Helm prints them.
# Exit: 0.
# shellcheck source-path=SCRIPTDIR/.. source-path=SCRIPTDIR/../api
set -u
. "${0%/*}/outcome.sh"
. "${0%/*}/api.sh"

namespace=${ISTIO_OS_INIT_NAMESPACE:-default}
patience=${ISTIO_OS_INIT_PATIENCE:-45}
file=/etc/modules-load.d/istio-os-init.conf

# Ends when Helm is interrupted and the Job deleted, after the request that is under way.
trap 'exit 0' TERM INT

# get PATH [NAME=VALUE]...: see request in api.sh.
get() {
  path=$1
  shift
  set -- pretty=false "$@"
  for parameter; do set -- "$@" --data-urlencode "$parameter" && shift; done
  request "$path" --get "$@"
}

# number NAME: the number of this name in $answer; 0 where the API server leaves it out.
number() {
  case $answer in
    *"\"$1\":"[0-9]*)
      number=${answer#*"\"$1\":"}
      number=${number%%[!0-9]*}
      ;;
    *) number=0 ;;
  esac
}

# Reads how far the DaemonSet is: $wanted nodes, $cleaned of them; fails where its controller has not counted yet.
count() {
  number desiredNumberScheduled && wanted=$number
  number numberReady && cleaned=$number
  number generation && generation=$number
  number observedGeneration && [ "$number" -eq "$generation" ]
}

# The nodes of the pods in $answer that are not Ready. A DaemonSet's controller names each pod's node in its affinity, and
# does so before there is a pod that runs.
not_ready() {
  printf '%s' "$answer" | tr -d '\n' |
    sed 's/"matchFields":\[{"key":"metadata.name","operator":"In","values":\["/\n/g' | sed '1d' |
    sed '/"type":"Ready",[^}]*"status":"True"/d; s/".*//' | sort -u | tr '\n' ' '
}

# One look. Sets $state to clean, or to what is waited for: the API, the release's own pods, or the nodes.
look() {
  words=
  state=api
  get "api/v1/namespaces/$namespace/pods" "labelSelector=$ISTIO_OS_INIT_PODS" limit=1 || return
  case $answer in *'"items":[]'*) own= ;; *) own=some ;; esac
  get "apis/apps/v1/namespaces/$namespace/daemonsets/$ISTIO_OS_INIT_CLEANERS" || return
  state=nodes
  count || return
  [ "$cleaned" -ge "$wanted" ] || return 0
  state=pods
  # what was written up to now has been seen by the cleaners, which look every second, only two seconds on
  [ -z "$own" ] || { settled=0 && return; }
  settled=$((settled + 1))
  [ "$settled" -lt 3 ] || state=clean
}

wanted=0
cleaned=0
settled=0
start=$(date +%s)
while :; do
  look || :
  [ "$state" != clean ] || break
  [ "$(($(date +%s) - start))" -lt "$patience" ] || break
  sleep 1 &
  wait "$!"
done

case $state in
  clean)
    say "clean: none of $wanted nodes has $file any more; loaded modules stay loaded"
    exit 0
    ;;
  api)
    nodes=
    say "warning: not known which nodes are clean: the API server does not answer pods of this namespace: $words"
    ;;
  *)
    selector=$ISTIO_OS_INIT_CLEANER_PODS
    [ "$state" = nodes ] || selector=$ISTIO_OS_INIT_PODS
    nodes=
    ! get "api/v1/namespaces/$namespace/pods" "labelSelector=$selector" || nodes=$(not_ready)
    nodes=${nodes% }
    say "warning: after $patience s $cleaned of $wanted nodes are clean${nodes:+; not clean, or not heard of: $nodes}"
    ;;
esac
say "Fix: as root on each such node, once it is back: rm -f $file"
