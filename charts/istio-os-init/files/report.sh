# Sourced by the other scripts: how they speak, and how they end.
#
# say SENTENCE...      one line to the container's log.
# conclude SENTENCE... the container's one conclusion: to the log and to the termination message, where `kubectl describe pod`
#                      shows it. Its first line says it all in at most 120 characters; what follows is indented. Where that begins
#                      with "Reason: ", it is the node's condition from now on.
# proven SENTENCE...   the node's condition from now on: "Reason: sentence", and that the node can run the mesh.
# proven_again         the same as the last time, where a module had gone.
# fail SENTENCE...     concludes and ends with exit code 1.
# retry                for the beginning of a script that may fail. Where the pod has the rule and this script has failed since
#                      load ran, it says so again and ends with exit code 3, on which the kubelet runs every container again,
#                      load first. A failure has a code of its own because the kubelet waits longer and longer before it starts
#                      a failed container again, and keeps its message meanwhile; after the rule it does neither.
# end_where_not_selected  for the beginning of a script: ends well, with load's sentence, on a node that nodes.osRelease leaves out.
# begin_round          for the beginning of load: forgets failures. After a second drift in the pod's life it says so again and ends
#                      with exit code 1, for the same reason: a module that goes again and again must not be a loop.
# end_at_once "$@"     for the beginning of a script that waits for other programs: SIGTERM ends it.
# $once_mended         what comes after a fix, to be put before the full stop.
#
# In:  ISTIO_OS_INIT_REPAIR           rule: exit code 3 runs every container again. Default never.
#      ISTIO_OS_INIT_STATE            directory for the mark of a failure. Default /run/istio-os-init.
#      ISTIO_OS_INIT_TERMINATION_LOG  path of the termination message, default /dev/termination-log (Kubernetes' own default).
# Out: $ISTIO_OS_INIT_STATE/condition  one line for signal, "True|False Reason: sentence"; proven: the last that was True.
#      Nothing else but these. What cannot be written is no failure: the log has the message, and without the mark the kubelet starts
#      the failed container alone.
# shellcheck shell=sh

say() {
  printf '%s\n' "$*"
}

conclude() {
  say "$@"
  printf '%s\n' "$*" 2>/dev/null >"${ISTIO_OS_INIT_TERMINATION_LOG:-/dev/termination-log}" || :
  conclusion=$*
  conclusion=${conclusion%%"
"*}
  case ${conclusion%%: *} in *[!A-Za-z]* | [!A-Z]* | "$conclusion") ;; *) replace condition "False $conclusion" ;; esac
}

# replace NAME LINE: writes a file of the state at once, whoever has written the one before.
replace() {
  { printf '%s\n' "$2" >"${marks%/*}/$1.${0##*/}" && mv -f "${marks%/*}/$1.${0##*/}" "${marks%/*}/$1"; } 2>/dev/null || :
}

proven() {
  replace proven "True $*"
  replace condition "True $*"
}

proven_again() {
  { read -r line <"${marks%/*}/condition"; } 2>/dev/null || return 0
  case $line in
    'False ModuleGone: '*) { read -r line <"${marks%/*}/proven"; } 2>/dev/null && replace condition "$line" ;;
  esac
}

marks=${ISTIO_OS_INIT_STATE:-/run/istio-os-init}/failed
drifted=${ISTIO_OS_INIT_STATE:-/run/istio-os-init}/drifted-again
# shellcheck disable=SC2034 # for those who source this
case ${ISTIO_OS_INIT_REPAIR:-never} in
  rule) once_mended='; this pod loads and proves again by itself' ;;
  test) once_mended=', then run helm test again' ;;
  *) once_mended=', then delete this pod to load and prove again' ;;
esac

fail() {
  conclude "$@"
  [ "${ISTIO_OS_INIT_REPAIR:-never}" != rule ] || printf '%s\n' "$*" 2>/dev/null >"$marks.${0##*/}" || :
  exit 1
}

retry() {
  [ "${ISTIO_OS_INIT_REPAIR:-never}" = rule ] && [ -r "$marks.${0##*/}" ] || return 0
  reason=$(cat "$marks.${0##*/}")
  # this log is the one that people see while the kubelet waits
  [ ! -r "${marks%/*}/facts" ] || /bin/sh "${0%/*}/report"
  conclude "$reason"
  exit 3
}

# not_selected: sets sentence; fails on a node that is meant.
not_selected() {
  [ -r "${marks%/*}/facts" ] && read -r key sentence <"${marks%/*}/facts" && [ "$key" = not-selected ]
}

end_where_not_selected() {
  not_selected || return 0
  conclude "$sentence"
  exit 0
}

begin_round() {
  rm -f "$marks".*
  [ -r "$drifted" ] && read -r reason <"$drifted" && rm -f "$drifted" || return 0
  conclude "$reason"
  exit 1
}

# The kernel spares process 1 every signal that it has no handler for, and the shell runs its handlers only between two commands:
# so as process 1 it starts itself once more, and has nothing to do but to end, and all with it.
end_at_once() {
  [ "$$" -eq 1 ] || return 0
  trap 'exit 143' TERM INT
  /bin/sh "$0" "$@" &
  wait "$!"
  exit
}
