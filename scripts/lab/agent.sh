# shellcheck shell=sh
# The QEMU guest agent in the lab's VM: runs commands on the node's host through a serial port of its own, so without
# network, ssh or cluster. Sourced.
#
# Input:  $vm/agent.sock, QEMU's end of the port. Output: variables vm, vm_node and tap; functions agent and on_node.
# Needs:  socat, jq, flock, timeout.
# Facts:  QEMU Guest Agent Protocol Reference: guest-sync-delimited, guest-exec, guest-exec-status.

# shellcheck source=lib.sh
command -v take_lock >/dev/null || . "${root:?}/scripts/lab/lib.sh"

vm=$lab/vm
# shellcheck disable=SC2034 # for those who start and join it
vm_node=$cluster-vm
# A network interface's name has at most 15 characters.
# shellcheck disable=SC2034
tap=$(printf '%.12s-vm' "$cluster")

# What is said over the port, with $request and $id. socat runs it with the port as standard input and output, so the
# answer leaves by standard error.
# The port has no sessions: answers to a caller that was killed may still be in it, or half of his request. Byte 377
# ends the latter, and the number in the answer to guest-sync tells where ours begin.
# shellcheck disable=SC2016,SC2089 # expanded, quotes and all, by socat's shell
dialogue='
  printf "\377{\"execute\": \"guest-sync-delimited\", \"arguments\": {\"id\": $id}}\n"
  while read -r line; do
    case $line in *"\"return\": $id}"*) break ;; esac
  done
  printf "%s\n" "$request"
  head -n 1 >&2'

# agent COMMAND [ARGUMENTS]: prints what the agent returns, as JSON. ARGUMENTS: a JSON object.
# Returns 1 where the agent does not answer within 20 seconds, 3 where it refuses.
agent() {
  # shellcheck disable=SC2016 # expanded by jq
  answer=$(
    cd "$vm" 2>/dev/null || exit
    request=$(jq -cn --arg command "$1" --argjson arguments "${2:-null}" \
      '{execute: $command} + if $arguments then {$arguments} else {} end')
    id=$$$(date +%N)
    # shellcheck disable=SC2090 # for socat's shell, see above
    export dialogue request id
    # shellcheck disable=SC2016
    flock --timeout 60 agent.lock timeout 20 socat UNIX-CONNECT:agent.sock 'SYSTEM:eval \"$dialogue\"' 2>&1
  ) || return 1
  printf '%s\n' "$answer" | jq -c 'if has("return") then .return else halt_error(3) end' 2>/dev/null
}

# on_node ARGUMENT...: scripts/lab/on-node.
on_node() {
  "$root/scripts/lab/on-node" "$@"
}
