# Sourced by the other scripts: how they speak.
#
# say SENTENCE...      one line to the container's log.
# conclude SENTENCE... the container's one conclusion: to the log and, on one line, to the termination message, where
#                      `kubectl describe pod` shows it.
#
# In:  ISTIO_OS_INIT_TERMINATION_LOG  path of the termination message, default /dev/termination-log (Kubernetes' own default).
# Out: nothing but those two. A termination message that cannot be written is no failure: the log has it.
# shellcheck shell=sh

say() {
  printf '%s\n' "$*"
}

conclude() {
  say "$@"
  printf '%s\n' "$*" 2>/dev/null >"${ISTIO_OS_INIT_TERMINATION_LOG:-/dev/termination-log}" || :
}
