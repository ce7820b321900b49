#!/bin/sh
# clean-up: at uninstall removes what load has left on the node, and looks again every second until the pod is deleted: a pod of
# the release that is still ending may write once more.
#
# Usage: clean-up.sh         removes
#        clean-up.sh --done  startup probe: whether there is nothing to remove
# In:    ISTIO_OS_INIT_OWNER, ISTIO_OS_INIT_MODULES_LOAD  see persist.sh.
# Out:   what was removed, or once why it cannot be.
# Exit:  143 on SIGTERM, at once; 1 if the node was clean, and what was written since cannot be removed. --done: 0 nothing is left; 1 something is.
# shellcheck shell=dash
set -u
. "${0%/*}/outcome.sh"
. "${0%/*}/persist.sh"

if [ "${1-}" = --done ]; then
  ! persist_is_ours
  exit
fi
end_at_once "$@"

said='' clean=''
while :; do
  failed=
  # that nothing is there costs no process
  if [ -e "$persist_file" ] || [ -L "$persist_file" ] || [ -e "$persist_new" ]; then
    words=$(unpersist) || failed=yes
    [ "$words" = "$said" ] || say "$words"
    said=$words
  fi
  # that the node is clean no more only a new start can say
  if [ -z "$failed" ]; then clean=yes; elif [ -n "$clean" ]; then exit 1; fi
  sleep 1 >/dev/null 2>&1
done
