#!/bin/sh
# load: asks the host's own modprobe for the kernel modules of the plan, and records what is there.
#
# A name that cannot be loaded is no failure: it may be built into the kernel under another name. verify is the judge. Only where
# the chart has no verify do the names decide.
#
# In:  plan, beside this script   one module a line, a|b: b where the kernel has no a; # begins a comment.
#      ISTIO_OS_INIT_NAMES_DECIDE true: a module that is missing fails the container. Default false.
#      ISTIO_OS_INIT_HOST         where the host's root is mounted. Default /host.
#      ISTIO_OS_INIT_STATE        directory for the two files below. Default /run/istio-os-init.
#      ISTIO_OS_INIT_PROC         where proc is mounted. Default /proc.
# Out: $ISTIO_OS_INIT_STATE/loaded   names of the plan that /proc/modules has, one a line: watch compares them.
#      $ISTIO_OS_INIT_STATE/missing  one line for each entry that is neither loaded nor built in, with modprobe's words.
#      The node's list of modules for the next boot, and the parameters that it needs: see persist.sh.
# Exit: 0; 1 a module is missing and names decide; 2 the plan cannot be read.
set -u
. "${0%/*}/report.sh"
. "${0%/*}/persist.sh"

plan=${0%/*}/plan
host=${ISTIO_OS_INIT_HOST:-/host}
state=${ISTIO_OS_INIT_STATE:-/run/istio-os-init}
proc=${ISTIO_OS_INIT_PROC:-/proc}

# Sets of names are strings " a b c ", so that the shell can search them without starting a process.
in_set() {
  case $2 in *" $1 "*) ;; *) return 1 ;; esac
}

# Sets $loaded from /proc/modules, which a kernel without loadable modules does not have.
read_loaded() {
  loaded=' '
  [ -r "$proc/modules" ] || return 0
  while read -r name _; do loaded="$loaded$name "; done <"$proc/modules"
}

# Sets $builtin from the list that the kernel's package ships, e.g. "kernel/net/netfilter/nf_nat.ko".
read_builtin() {
  builtin=' '
  read -r release <"$proc/sys/kernel/osrelease" || return 0
  for dir in lib usr/lib; do
    list=$host/$dir/modules/$release/modules.builtin
    [ -r "$list" ] || continue
    while read -r path; do
      name=${path##*/}
      name=${name%.ko*}
      # the kernel writes _ where a file's name has -
      while [ "$name" != "${name#*-}" ]; do name=${name%%-*}_${name#*-}; done
      builtin="$builtin$name "
    done <"$list"
    return 0
  done
}

# modprobe NAME...: runs the host's own modprobe on all of them at once; it goes on after one that fails. What it says
# comes back in $words. chroot's 127: no modprobe in the host's PATH (the last entry is NixOS).
modprobe_on_host() {
  words=$(PATH=/usr/sbin:/usr/bin:/sbin:/bin:/run/current-system/sw/bin LC_ALL=C chroot "$host" modprobe -a -- "$@" 2>&1)
  case $? in
    0) return 0 ;;
    127) say "warning: the host has no modprobe; its modules stay as they are: $words" ;;
    126 | 125) say "warning: the host's modprobe cannot be run; its modules stay as they are: $words" ;;
    *) say "modprobe on the host: $words" ;;
  esac
}

[ -r "$plan" ] || {
  conclude "PlanUnreadable: $plan cannot be read; the ConfigMap of the release is damaged. Fix: helm upgrade or rollback."
  exit 2
}
read_loaded
read_builtin
there_before=$loaded

# Each round tries one more alternative of the entries that no earlier alternative has satisfied; as a rule there is one round.
entries=
while read -r entry _; do
  case $entry in '' | '#'*) ;; *) entries="$entries $entry" ;; esac
done <"$plan"

missing=''
errors=''
pending=$entries
while [ -n "$pending" ]; do
  ask=
  for entry in $pending; do
    name=${entry%%|*}
    in_set "$name" "$loaded$builtin" || ask="$ask $name"
  done
  words=
  # shellcheck disable=SC2086 # a list of names, each a word
  [ -z "$ask" ] || modprobe_on_host $ask
  read_loaded
  errors="$errors$words
"
  next=
  for entry in $pending; do
    name=${entry%%|*}
    in_set "$name" "$loaded$builtin" && continue
    case $entry in
      *'|'*) next="$next ${entry#*|}" ;;
      *) missing="$missing $name" ;;
    esac
  done
  pending=$next
done

# The words of modprobe on module $1.
why() {
  printf '%s' "$errors" | while read -r line; do
    case "$line " in *"$1"[!A-Za-z0-9_]*) printf '%s' "${line#modprobe: }" && break ;; esac
  done
}

# What is there now, sorted by how it came; an entry's first name that is there is the one that counts.
newly=''
already=''
inside=''
: >"$state/loaded"
for entry in $entries; do
  while [ -n "$entry" ]; do
    name=${entry%%|*}
    case $entry in *'|'*) entry=${entry#*|} ;; *) entry= ;; esac
    if in_set "$name" "$newly$already$inside "; then
      : # an alternative of an earlier entry
    elif in_set "$name" "$loaded"; then
      printf '%s\n' "$name" >>"$state/loaded"
      if in_set "$name" "$there_before"; then already="$already $name"; else newly="$newly $name"; fi
    elif in_set "$name" "$builtin"; then
      inside="$inside $name"
    else
      continue
    fi
    entry=
  done
done
: >"$state/missing"
for name in $missing; do
  printf '%s: %s\n' "$name" "$(why "$name")" >>"$state/missing"
done

say "loaded now:${newly:- nothing}"
say "loaded before:${already:- nothing}"
say "built into the kernel:${inside:- nothing known}"
say "not found:${missing:- nothing}"
persist
if [ -n "$missing" ] && [ "${ISTIO_OS_INIT_NAMES_DECIDE:-false}" = true ]; then
  conclude "ModuleMissing: this node cannot load$missing. Fix: install the kernel's module package, or enable verify to let behaviour decide."
  exit 1
fi
conclude "loaded:${newly:- nothing}; there before:${already:- nothing}; built in:${inside:- nothing known}; not found:${missing:- nothing}"
