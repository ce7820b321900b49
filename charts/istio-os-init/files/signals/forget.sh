#!/bin/sh
# forget: at uninstall removes the condition IstioReady from every node where it is the release's.
#
# Nothing must keep a release half deleted: whatever is found, it ends well.
#
# In:  ISTIO_OS_INIT_OWNER  whose the condition is, as in signal.sh.
#      ISTIO_OS_INIT_API, ISTIO_OS_INIT_ACCOUNT  see api.sh.
# Out: one line; another for each node where it is left, with the reason. Helm prints them.
# Exit: 0.
# shellcheck source-path=SCRIPTDIR/.. source-path=SCRIPTDIR/../api
set -u
. "${0%/*}/outcome.sh"
. "${0%/*}/api.sh"

owner=${ISTIO_OS_INIT_OWNER:-istio-os-init}

# Ends when Helm is interrupted and the Job deleted, after the request that is under way.
trap 'exit 0' TERM INT

# patch NODE PATCH
patch() {
  request "api/v1/nodes/$1/status?pretty=false&fieldManager=$owner" --request PATCH --header 'Content-Type: application/strategic-merge-patch+json' --data "$2"
}

# Of a table, a row's first cell is the name. It is the shortest answer that there is.
if ! request 'api/v1/nodes?pretty=false&includeObject=None' --header 'Accept: application/json;as=Table;v=v1;g=meta.k8s.io'; then
  say "warning: IstioReady is left on the nodes: the API server does not list them: $words"
  exit 0
fi
count=0
for node in $(printf '%s' "$answer" | sed 's/"cells":\["/\n/g' | sed '1d; s/".*//'); do
  # a patch of nothing answers with the node
  if patch "$node" '{}'; then
    case $answer in *"\"manager\":\"$owner\""*) ;; *) continue ;; esac
    # shellcheck disable=SC2016 # a word of the patch's own
    if patch "$node" '{"status":{"conditions":[{"type":"IstioReady","$patch":"delete"}]}}'; then
      count=$((count + 1))
      continue
    fi
  fi
  say "warning: IstioReady is left on node $node: $words"
done
say "forgotten: IstioReady of $count nodes"
