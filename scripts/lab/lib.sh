# shellcheck shell=sh
# What every script of the lab shares: names, places, messages, the lock. Sourced, never run. A file that is sourced sources
# what it needs itself, unless a function of that is there already.
#
# Input (from the script that sources this):
#   root            directory of the repository, absolute
# Input (environment):
#   LAB_IMAGES      auto (default): pull images where a registry answers, build them where none does;
#                   pull: pull or fail; build: build, ask no registry
#   LAB_TIMEOUT     seconds that `up` waits for the chart, integer, default 900
#   XDG_CACHE_HOME  directory of caches, default ~/.cache
# Output: variables and functions. Exits 2 on a bad value.
# shellcheck disable=SC2034 # variables for the scripts that source this

: "${root:?is the directory of the repository}"
started=$(date +%s)

cluster=istio-os-init
control_plane=$cluster-control-plane
nodes=2
release=istio-os-init
namespace=istio-system
# Images that are built here carry a name that no registry can serve.
local_hub=localhost/istio-os-init

cache=${XDG_CACHE_HOME:-$HOME/.cache}/istio-os-init
lab=$cache/lab
logs=$lab/logs
kubeconfig=$lab/kubeconfig
values=$lab/values.yaml
state=$lab/state

LAB_IMAGES=${LAB_IMAGES:-auto}
LAB_TIMEOUT=${LAB_TIMEOUT:-900}

# A network of the lab's own, so that `down` can remove it and other kind clusters keep theirs.
export KIND_EXPERIMENTAL_DOCKER_NETWORK="$cluster"

# say TEXT...: one line of progress with the seconds since the start.
say() {
  printf '[%4ds] %s\n' "$(($(date +%s) - started))" "$*"
}

# die TEXT...: what went wrong and the remedy; ends the script.
die() {
  printf 'error: %s\n' "$*" >&2
  exit 1
}

# key PATH...: a short hash over names and contents of files and folders, given relative to the repository.
key() {
  (cd "$root" && find "$@" -type f | LC_ALL=C sort | xargs sha256sum | sha256sum | cut -c1-12)
}

# logged NAME COMMAND...: runs a command with its output in a log, with a sign of life every 15 seconds.
# On failure prints the log's end and returns the command's exit code.
logged() {
  log=$logs/$1.log
  shift
  mkdir -p "$logs"
  # Ends by itself when this script is killed; holds neither the lock nor the caller's output.
  while sleep 15 >/dev/null 2>&1 9>&- && kill -0 "$$" 2>/dev/null; do
    say "  still at it; output in $log"
  done 9>&- &
  heartbeat=$!
  code=0
  "$@" >"$log" 2>&1 </dev/null || code=$?
  kill "$heartbeat"
  if [ "$code" -ne 0 ]; then
    echo "--- last lines of $log" >&2
    tail -n 25 "$log" >&2
    echo "---" >&2
  fi
  return "$code"
}

# take_lock: at most one script changes the lab at a time.
# The lock is the open descriptor 9: the kernel frees it when its last holder ends, however it ends. What a killed
# script had started holds it too until it has ended (scripts/leash), and only then the next run starts. Daemons are started without it.
take_lock() {
  mkdir -p "$lab"
  exec 9>>"$lab/lock"
  if ! flock --nonblock 9; then
    owner=$(cat "$lab/lock.owner" 2>/dev/null || echo "of unknown process")
    say "another run, $owner, is at work on the lab, or what it had started is; waiting up to an hour"
    flock --timeout 3600 9 || die "the lab is still locked after an hour. See who holds it: fuser -v $lab/lock"
  fi
  echo "process $$ ($0)" >"$lab/lock.owner"
}

case $LAB_IMAGES in
  auto | pull | build) ;;
  *)
    echo "error: LAB_IMAGES=$LAB_IMAGES: must be auto, pull or build" >&2
    exit 2
    ;;
esac
case $LAB_TIMEOUT in
  '' | *[!0-9]*)
    echo "error: LAB_TIMEOUT=$LAB_TIMEOUT: must be a number of seconds" >&2
    exit 2
    ;;
esac
