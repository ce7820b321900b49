#!/bin/sh
# clean-up: at uninstall removes what load has left on the node, and goes on looking until the pod is deleted: a pod of the
# release that is still ending may write once more.
#
# Usage: clean-up.sh         removes
#        clean-up.sh --done  readiness: whether there is nothing to remove
# In:    ISTIO_OS_INIT_OWNER, ISTIO_OS_INIT_MODULES_LOAD  see persist.sh.
# Out:   what was removed, or the system's words when it cannot be, once.
# Exit:  0 on SIGTERM or SIGINT, at once. --done: 0 nothing is left; 1 something is.
# shellcheck source-path=SCRIPTDIR/..
set -u
. "${0%/*}/outcome.sh"
. "${0%/*}/persist.sh"

if [ "${1-}" = --done ]; then
  persist_names
  ! persist_is_ours
  exit
fi

# A shell that is process 1 has no default action for SIGTERM, and would wait for its sleep.
trap '[ -z "${!-}" ] || kill "$!" 2>/dev/null; exit 0' TERM INT

said=
while :; do
  words=$(unpersist) || :
  [ "$words" = "$said" ] || say "$words"
  said=$words
  sleep 1 &
  wait "$!"
done
