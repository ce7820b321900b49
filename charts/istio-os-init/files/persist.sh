# Sourced by load.sh and by uninstall/clean-up.sh: the node's list of modules for the next boot, which systemd-modules-load
# reads before the kubelet starts.
#
# persist    brings the file in step: written where persistence is on and a module of the plan is loaded, removed where not.
# unpersist  removes the file. Fails, with a warning, where it cannot.
#
# In:  ISTIO_OS_INIT_PERSIST       true: write the file; otherwise remove the one that an earlier release has left. Default false.
#      ISTIO_OS_INIT_OWNER         NAMESPACE/NAME of the release's objects, which the file names; without it nothing is touched.
#      ISTIO_OS_INIT_MODULES_LOAD  the node's directory. Default /etc/modules-load.d: mounted under its own name, so that the
#                                  system's words name the right path.
#      ISTIO_OS_INIT_STATE         directory with load's file `loaded`. Default /run/istio-os-init.
# Out: istio-os-init.conf in that directory, complete or not at all, and only when its content changes. A file that does not
#      name this owner is somebody else's and stays. What fails is one line of warning, never a failure of persist.
# Needs report.sh. The bodies run in subshells, so that their variables stay theirs.
# shellcheck shell=sh

persist() (
  persist_names
  if [ "${ISTIO_OS_INIT_PERSIST:-false}" != true ] || [ ! -s "$loaded" ]; then
    unpersist || :
    return 0
  fi
  content="# Written by istio-os-init: kernel modules that Istio's traffic redirection needs, for systemd to load at boot.
# owner: $owner
# To get rid of it: helm uninstall, or helm upgrade with persist.enabled=false. Where the release is gone: remove this file.
$(cat "$loaded")"
  [ -n "$owner" ] && persist_is_free || return 0
  # of a run that was killed; systemd reads only names that end in .conf
  rm -f "$temporary" 2>/dev/null || :
  [ "$(cat "$file" 2>/dev/null)" != "$content" ] || return 0
  # through cat: the shell's own words on a full disk are only "I/O error". Synced: after a crash a name without content is as bad.
  if words=$(umask 022 && { printf '%s\n' "$content" | cat >"$temporary" && sync "$temporary" && mv -f "$temporary" "$file"; } 2>&1); then
    say "persisted for the next boot: $file"
  else
    rm -f "$temporary" 2>/dev/null || :
    persist_warn "is not written, so after a reboot the modules come only with this pod"
  fi
)

unpersist() (
  persist_names
  [ -n "$owner" ] || return 0
  [ ! -e "$temporary" ] || rm -f "$temporary" 2>/dev/null || :
  persist_is_ours || return 0
  if words=$(rm -f "$file" 2>&1); then
    say "removed: $file"
  else
    persist_warn "is not removed, so the node goes on loading its modules at boot"
    return 1
  fi
)

persist_names() {
  owner=${ISTIO_OS_INIT_OWNER-}
  loaded=${ISTIO_OS_INIT_STATE:-/run/istio-os-init}/loaded
  file=${ISTIO_OS_INIT_MODULES_LOAD:-/etc/modules-load.d}/istio-os-init.conf
  temporary=${file%/*}/.istio-os-init.new
}

# Whether the file names this owner.
persist_is_ours() {
  grep -qxF "# owner: $owner" "$file" 2>/dev/null
}

# Whether the name is there to take. An administrator masks a file of this directory with a link to /dev/null.
persist_is_free() {
  { [ -e "$file" ] || [ -L "$file" ]; } || return 0
  persist_is_ours && return
  words=$(grep -m 1 '^# owner: ' "$file" 2>/dev/null) || words='it names no owner'
  persist_warn "belongs to somebody else and stays as it is; remove it on the node if nobody needs it"
  return 1
}

# One line: the path, what that means ($1), and in $words the system's own, without the script and line that dash puts first.
persist_warn() {
  words=${words%%
*}
  words=${words#"$0: "}
  say "warning: $file $1: ${words#[0-9]*: }"
}
