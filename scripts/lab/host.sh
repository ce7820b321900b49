# shellcheck shell=sh
# The host's part of the lab: tools, and a Docker daemon that can run privileged containers. Sourced.
#
# Input:  lib.sh's variables. Output: functions need_tools, docker_up, docker_down; files dockerd.* in $lab.
# A daemon that already answers is used as it is and never stopped. One that this file starts is known by
# $lab/dockerd.pid, which the daemon writes itself; its command line names that file, so that a reused pid is never
# mistaken for it.

# shellcheck source=lib.sh
command -v take_lock >/dev/null || . "${root:?}/scripts/lab/lib.sh"

# need_tools COMMAND:PACKAGE...: makes sure that commands (or files, by absolute path) exist. As root on Debian or Ubuntu missing ones are installed;
# elsewhere one message names all of them, before anything has been changed.
need_tools() {
  missing=
  packages=
  for need in "$@"; do
    if ! command -v "${need%%:*}" >/dev/null && ! [ -e "${need%%:*}" ]; then
      missing="$missing ${need%%:*}"
      packages="$packages ${need#*:}"
    fi
  done
  [ -n "$missing" ] || return 0

  case " $missing " in
    *" go "*) die "missing:$missing. Go comes from https://go.dev/dl/ (any version from 1.21 fetches the one that go.mod names)." ;;
  esac
  if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
    die "missing:$missing. On Debian and Ubuntu: sudo apt-get install$packages. Elsewhere install them as your system does."
  fi

  say "host: installing$packages"
  # An earlier run may have been killed inside dpkg, which then refuses everything until it may finish.
  # shellcheck disable=SC2086 # a list of names
  logged apt sh -euc '
    export DEBIAN_FRONTEND=noninteractive
    dpkg --configure -a
    apt-get update
    apt-get install -y --no-install-recommends -o DPkg::Lock::Timeout=300 "$@"' sh $packages ||
    die "apt-get could not install$packages. Install them by hand and run this again."
}

# docker_answers: whether a daemon is there for us.
docker_answers() {
  docker info >/dev/null 2>&1
}

# our_dockerd: prints the pid of the daemon that we started; fails if it does not run.
our_dockerd() {
  pid=$(cat "$lab/dockerd.pid" 2>/dev/null) || return 1
  { tr '\0' '\n' <"/proc/$pid/cmdline"; } 2>/dev/null | grep -qxF "$lab/dockerd.pid" || return 1
  echo "$pid"
}

# dockerd_crashed: whether a daemon that we started ended without cleaning up: it removes its pid file when it ends well.
dockerd_crashed() {
  [ -f "$lab/dockerd.pid" ] && ! our_dockerd >/dev/null
}

# docker_up: a daemon that answers; started if need be.
docker_up() {
  if docker_answers; then
    return
  fi
  if [ "$(id -u)" -ne 0 ] || [ -n "${DOCKER_HOST-}" ]; then
    die "no Docker daemon answers. Start it (sudo systemctl start docker), or allow this user to reach it (group docker, DOCKER_HOST)."
  fi
  # Many machines have the client alone.
  need_tools dockerd:docker.io
  if [ -d /run/systemd/system ]; then
    say "host: starting docker.service"
    systemctl start docker || die "docker.service does not start. See: journalctl -u docker"
    return
  fi

  # A daemon of ours that no longer answers, or that a killed run has just started, is given time below.
  if ! pid=$(our_dockerd); then
    start_dockerd
  fi
  tries=60
  until docker_answers; do
    tries=$((tries - 1))
    if [ "$tries" -eq 0 ] || ! kill -0 "$pid" 2>/dev/null; then
      tail -n 25 "$lab/dockerd.log" >&2
      die "dockerd does not come up; its log is $lab/dockerd.log"
    fi
    sleep 1
  done
  say "host: dockerd answers (process $pid, log $lab/dockerd.log)"
}

# start_dockerd: starts the daemon for a host without systemd; sets pid.
start_dockerd() {
  # What `down` has to put back; as it was before the first start, should this be one after a crash.
  if [ ! -f "$lab/dockerd.ip_forward" ]; then
    for family in iptables ip6tables; do
      "$family-save" -t filter 2>/dev/null | sed -n 's/^:FORWARD \([A-Z]*\).*/\1/p' >"$lab/dockerd.$family"
    done
    sysctl -n net.ipv4.ip_forward >"$lab/dockerd.ip_forward"
  fi

  set -- --pidfile "$lab/dockerd.pid"
  rm -f "$lab/dockerd.pid"
  if ! has_sys_resource; then
    say "host: no CAP_SYS_RESOURCE here; dockerd gets the wrapper ci/docker/runc-bounded"
    # A copy: containers go on needing it when the checkout has moved.
    cp "$root/ci/docker/runc-bounded" "$lab/runc-bounded.new"
    mv "$lab/runc-bounded.new" "$lab/runc-bounded"
    set -- "$@" --add-runtime "bounded=$lab/runc-bounded" --default-runtime bounded
  fi

  # A session of its own and no descriptor of ours: not the lock, and not the pipe that a caller reads to its end.
  setsid dockerd "$@" </dev/null >"$lab/dockerd.log" 2>&1 9>&- &
  pid=$!
}

# has_sys_resource: whether CAP_SYS_RESOURCE (bit 24, capabilities(7)) is in the bounding set.
has_sys_resource() {
  bounding=$(sed -n 's/^CapBnd:[[:space:]]*//p' /proc/self/status)
  [ $((0x$bounding >> 24 & 1)) -eq 1 ]
}

# docker_down: stops the daemon that we started, and removes what it leaves behind on the host.
docker_down() {
  if ! pid=$(our_dockerd); then
    rm -f "$lab"/dockerd.*
    return
  fi
  others=$(docker ps --quiet | wc -l)
  if [ "$others" -gt 0 ]; then
    say "host: dockerd goes on running (process $pid): $others containers there are not the lab's"
    return
  fi

  say "host: stopping dockerd (process $pid)"
  kill "$pid"
  tries=60
  while our_dockerd >/dev/null; do
    tries=$((tries - 1))
    [ "$tries" -gt 0 ] || die "dockerd (process $pid) does not stop. See $lab/dockerd.log"
    sleep 1
  done

  # Without systemd nobody else cleans up after it. A cgroup that another daemon still uses is not empty and stays.
  if [ -e /sys/class/net/docker0 ]; then
    ip link delete docker0
  fi
  rmdir /sys/fs/cgroup/*/docker 2>/dev/null || true
  for family in iptables ip6tables; do
    forward=$(cat "$lab/dockerd.$family" 2>/dev/null || true)
    # Rewritten without Docker's chains and rules; everybody else's stay as they are.
    "$family-save" | sed -e '/DOCKER/d' -e '/docker0/d' -e "s/^:FORWARD [A-Z]*/:FORWARD ${forward:-ACCEPT}/" | "$family-restore"
  done
  sysctl -q -w "net.ipv4.ip_forward=$(cat "$lab/dockerd.ip_forward")"
  rm -f "$lab"/dockerd.* "$lab/runc-bounded"
}
