#!/bin/sh
# load: asks the host's own modprobe for the kernel modules of the plan, and records what is there and what explains a failure.
#
# A name that cannot be loaded is no failure: it may be built into the kernel under another name. verify is the judge. Only where
# the chart has no verify do the names decide.
#
# In:  plan, beside this script      one module a line, a|b: b where the kernel has no a; # begins a comment.
#      backends, beside this script  what each backend would need, a line each: BACKEND ENTRY...
#      ISTIO_OS_INIT_OS_RELEASE      words, in lower case: only a host whose os-release has one of them as ID or in ID_LIKE is
#                                    meant; on any other nothing is done. Default: every host.
#      ISTIO_OS_INIT_NAMES_DECIDE    true: a module that is missing fails the container. Default false.
#      ISTIO_OS_INIT_HOST            where the host's root is mounted. Default /host.
#      ISTIO_OS_INIT_STATE           directory for the two files below. Default /run/istio-os-init.
#      ISTIO_OS_INIT_PROC            where proc is mounted. Default /proc.
# Out: $ISTIO_OS_INIT_STATE/loaded   names of the plan that /proc/modules has, one a line: watch compares them.
#      $ISTIO_OS_INIT_STATE/facts    "KEY VALUE" a line, for people, verify and report: node_facts (facts.sh), then
#        modprobe works|failed|none|cannot-enter|cannot-run|not-needed
#        capability SYS_MODULE|SYS_CHROOT yes|no
#        module NAME loaded-now|loaded-before|built-in
#        missing NAME on-disk|not-on-disk|unknown|monolithic MODPROBE'S WORDS   of a|b the first on disk, or a
#        rule ...                                                    see find_rules, for modules of the plan
#        backend BACKEND present|loadable|unknown|lacks NAME...
#        not-selected SENTENCE                                       on a host that is not meant: the first line, and no other of these
#      The node's list of modules for the next boot, and the parameters that it needs: see persist.sh.
# Exit: 0; 1 a module is missing and names decide, or modules go again and again (report.sh); 2 the plan cannot be read.
set -u
. "${0%/*}/report.sh"
. "${0%/*}/facts.sh"
. "${0%/*}/reasons.sh"
. "${0%/*}/persist.sh"
end_at_once "$@"
begin_round

plan=${0%/*}/plan
host=${ISTIO_OS_INIT_HOST:-/host}
state=${ISTIO_OS_INIT_STATE:-/run/istio-os-init}
proc=${ISTIO_OS_INIT_PROC:-/proc}

# Sets $loaded from /proc/modules, which a kernel without loadable modules does not have.
read_loaded() {
  loaded=' '
  [ -r "$proc/modules" ] || return 0
  while read -r name _; do loaded="$loaded$name "; done <"$proc/modules"
}

# modprobe NAME...: runs the host's own modprobe on all of them at once; it goes on after one that fails. What it says
# comes back in $words. chroot's 127: no modprobe in the host's PATH (the last entry is NixOS).
modprobe_on_host() {
  words=$(PATH=/usr/sbin:/usr/bin:/sbin:/bin:/run/current-system/sw/bin LC_ALL=C chroot "$host" modprobe -a -- "$@" 2>&1)
  case $? in
    0) modprobe=works ;;
    127)
      modprobe=none
      say "warning: the host has no modprobe; its modules stay as they are: $words"
      ;;
    125)
      modprobe=cannot-enter
      say "warning: the host's modprobe cannot be run; its modules stay as they are: $words"
      ;;
    126)
      modprobe=cannot-run
      say "warning: the host's modprobe cannot be run; its modules stay as they are: $words"
      ;;
    *)
      modprobe=failed
      say "modprobe on the host: $words"
      ;;
  esac
}

# first_there ENTRY SET: sets name to the entry's first alternative in the set; fails where there is none.
first_there() {
  entry=$1
  while [ -n "$entry" ]; do
    name=${entry%%|*}
    in_set "$name" "$2" && return 0
    case $entry in *'|'*) entry=${entry#*|} ;; *) entry= ;; esac
  done
  return 1
}

# The words of modprobe on module $1.
why() {
  printf '%s' "$errors" | while read -r line; do
    case "$line " in *"$1"[!A-Za-z0-9_]*) printf '%s' "${line#modprobe: }" && break ;; esac
  done
}

# What each backend would find here, without trying it: that would make the kernel load what nobody needs.
backend_facts() {
  [ -r "${0%/*}/backends" ] || return 0
  while read -r backend needs; do
    [ -n "$backend" ] || continue
    verdict=present
    lacks=
    for need in $needs; do
      first_there "$need" "$loaded$builtin" && continue
      if first_there "$need" "$disk"; then verdict=loadable; else lacks="$lacks ${need%%|*}"; fi
    done
    [ -z "$lacks" ] || verdict="lacks$lacks"
    [ -n "$modules_dir" ] || [ "$verdict" = present ] || verdict=unknown
    printf 'backend %s %s\n' "$backend" "$verdict"
  done <"${0%/*}/backends"
}

# Bits 16 and 18 of linux/capability.h.
capability_facts() {
  while read -r key value; do
    [ "$key" = CapEff: ] || continue
    for capability in 16:SYS_MODULE 18:SYS_CHROOT; do
      if [ $((0x$value >> ${capability%:*} & 1)) -eq 1 ]; then has=yes; else has=no; fi
      printf 'capability %s %s\n' "${capability#*:}" "$has"
    done
  done </proc/self/status
}

[ -r "$plan" ] || {
  conclude "PlanUnreadable: $plan cannot be read; the ConfigMap of the release is damaged. Fix: helm upgrade or rollback."
  exit 2
}
entries=
while read -r entry _; do
  case $entry in '' | '#'*) ;; *) entries="$entries $entry" ;; esac
done <"$plan"
needs_of_backends=
[ -r "${0%/*}/backends" ] && while read -r _ needs; do needs_of_backends="$needs_of_backends $needs"; done <"${0%/*}/backends"
names=' '
IFS=' |'
for name in $entries $needs_of_backends; do in_set "$name" "$names" || names="$names$name "; done
unset IFS

find_modules
find_os
if ! selected; then
  case $os_id in
    none) is="the host has no os-release" ;;
    *) is="the host's os-release says $os_id${os_like:+, like $os_like}" ;;
  esac
  not_selected="not selected: $is; nodes.osRelease is $ISTIO_OS_INIT_OS_RELEASE. Nothing is loaded, written or proven on this node."
  rm -f "$state/verdict" # of a host that was another
  : >"$state/loaded"
  { printf 'not-selected %s\n' "$not_selected" && node_facts; } >"$state/facts"
  ISTIO_OS_INIT_PERSIST=false persist
  conclude "$not_selected"
  proven "NotSelected: ${not_selected#*: }"
  exit 0
fi
read_loaded
there_before=$loaded
find_rules

# Each round tries one more alternative of the entries that no earlier alternative has satisfied; as a rule there is one round.
missing=''
errors=''
modprobe=not-needed
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
    case $entry in *'|'*) next="$next ${entry#*|}" ;; esac
  done
  pending=$next
done

# What is there now, sorted by how it came; an entry's first name that is there is the one that counts.
newly=''
already=''
inside=''
: >"$state/loaded"
for need in $entries; do
  if ! first_there "$need" "$loaded$builtin"; then
    first_there "$need" "$disk" || name=${need%%|*}
    in_set "$name" "$missing " || missing="$missing $name"
  elif in_set "$name" "$newly$already$inside "; then
    : # an alternative of an earlier entry
  elif in_set "$name" "$loaded"; then
    printf '%s\n' "$name" >>"$state/loaded"
    if in_set "$name" "$there_before"; then already="$already $name"; else newly="$newly $name"; fi
  else
    inside="$inside $name"
  fi
done
{
  node_facts
  printf 'modprobe %s\n' "$modprobe"
  capability_facts
  for name in $newly; do printf 'module %s loaded-now\n' "$name"; done
  for name in $already; do printf 'module %s loaded-before\n' "$name"; done
  for name in $inside; do printf 'module %s built-in\n' "$name"; done
  for name in $missing; do
    if in_set "$name" "$disk"; then
      where=on-disk
    elif [ -n "$modules_dir" ]; then
      where=not-on-disk
    elif [ -n "${loaded# }" ]; then
      where=unknown
    else
      # a kernel that has no module at all, neither loaded nor on disk: names say nothing about it
      where=monolithic
    fi
    printf 'missing %s %s %s\n' "$name" "$where" "$(why "$name")"
  done
  printf '%s' "$rules" | while read -r rule; do printf 'rule %s\n' "$rule"; done
  backend_facts
} >"$state/facts"

say "loaded now:${newly:- nothing}"
say "loaded before:${already:- nothing}"
say "built into the kernel:${inside:- nothing known}"
say "not found:${missing:- nothing}"
persist
if [ -n "$missing" ] && [ "${ISTIO_OS_INIT_NAMES_DECIDE:-false}" = true ]; then
  explain "$state/facts" '' ''
  conclude "$(first_reason)"
  exit 1
fi
conclude "loaded:${newly:- nothing}; there before:${already:- nothing}; built in:${inside:- nothing known}; not found:${missing:- nothing}"
[ "${ISTIO_OS_INIT_NAMES_DECIDE:-false}" != true ] || proven "ModulesFound: this node has every module of the plan; nothing is proven, since verify is off."
