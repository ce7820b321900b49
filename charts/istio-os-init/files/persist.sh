# shellcheck shell=dash
# Sourced by load.sh and by clean-up.sh: the node's list of modules for the next boot, which systemd-modules-load reads before
# the kubelet starts.
#
# persist NAME...  brings the file in step: written if persistence is on and there is a name, removed if it is off.
# unpersist        removes the file. Fails, with a warning, if it cannot.
# persist_is_ours  whether the file names this owner.
#
# In:  ISTIO_OS_INIT_PERSIST       true: write the file; otherwise remove the one that an earlier release has left. Default false.
#      ISTIO_OS_INIT_OWNER         NAMESPACE/NAME of the release's objects, which the file names; without it nothing is touched.
#      ISTIO_OS_INIT_MODULES_LOAD  the node's directory. Default /etc/modules-load.d: mounted under its own name, so that the
#                                  system's words name the right path.
# Out: istio-os-init.conf in that directory, complete or not at all, and only when its content changes. A file that does not
#      name this owner is another's and stays. What fails is one line of warning, never a failure of persist.
# Needs outcome.sh.

persist_owner=${ISTIO_OS_INIT_OWNER-}
persist_file=${ISTIO_OS_INIT_MODULES_LOAD:-/etc/modules-load.d}/istio-os-init.conf
persist_new=${persist_file%/*}/.${persist_file##*/}.new # put's temporary file

persist() {
  local content words name
  if [ "${ISTIO_OS_INIT_PERSIST:-false}" != true ] || [ $# -eq 0 ]; then
    unpersist || :
    return 0
  fi
  content="# Written by istio-os-init: kernel modules that Istio's traffic redirection needs, for systemd to load at boot.
# owner: $persist_owner
# To get rid of it: helm uninstall, or helm upgrade with persist.enabled=false. If the release is gone: remove this file."
  for name; do content="$content$line_break$name"; done
  sweep
  [ -n "$persist_owner" ] && persist_is_free || return 0
  ! data "$persist_file" 65536 || [ "$text" != "$content" ] || return 0
  # Synced: after a crash a name without content is as bad as no file.
  if words=$(put "$persist_file" "$content" sync 2>&1); then
    say "persisted for the next boot: $persist_file"
    case $(stat -f -c %T "$persist_file" 2>/dev/null) in
      tmpfs | ramfs) say "warning: ${persist_file%/*} of this node is in memory: what is written there does not outlast a reboot" ;;
    esac
  else
    persist_warn "is not written, so after a reboot the modules are loaded only with this pod" "$words"
  fi
}

unpersist() {
  local words
  sweep
  [ -n "$persist_owner" ] && persist_is_ours || return 0
  if words=$(rm -f "$persist_file" 2>&1); then
    say "removed: $persist_file"
  else
    persist_warn "is not removed, so the node still loads its modules at boot" "$words"
    return 1
  fi
}

# What a run that was killed has left.
sweep() {
  [ -z "$persist_owner" ] || [ ! -e "$persist_new" ] || rm -f "$persist_new" 2>/dev/null || :
}

persist_is_ours() {
  data "$persist_file" 65536 || return 1
  case $line_break$text$line_break in
    *"$line_break# owner: $persist_owner$line_break"*) return 0 ;;
  esac
  return 1
}

# Whether the name is there to take. An administrator masks a file of this directory with a link to /dev/null.
persist_is_free() {
  local words text=
  { [ -e "$persist_file" ] || [ -L "$persist_file" ]; } || return 0
  persist_is_ours && return
  words='it names no owner'
  case $text in *"# owner: "*) words="# owner: ${text#*"# owner: "}" ;; esac
  persist_warn "belongs to another and stays as it is; remove it on the node if nothing needs it" "$words"
  return 1
}

# persist_warn CONSEQUENCE WORDS: one line: the path, what that means, and the system's own words, without the script and line
# that dash puts first.
persist_warn() {
  local words=${2%%"$line_break"*}
  words=${words#"$0: "}
  say "warning: $persist_file $1: ${words#[0-9]*: }"
}
