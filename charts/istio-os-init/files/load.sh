#!/bin/sh
# shellcheck shell=dash
# load: asks the host's own modprobe for the kernel modules of the plan, and records what is there and what explains a failure.
#
# A name that cannot be loaded is no failure: it may be built into the kernel under another name. verify is the judge. Only if
# the chart has no verify do the names decide.
#
# In:  plan, beside this script      one module a line, a|b: b if the kernel has no a; # begins a comment.
#      backends, beside this script  what each backend would need, a line each: BACKEND ENTRY...
#      ISTIO_OS_INIT_OS_RELEASE      words, in lower case: only a host whose os-release has one of them as ID or in ID_LIKE is
#                                    meant; on any other nothing is done. Default: every host.
#      ISTIO_OS_INIT_NAMES_DECIDE    true: a module that is missing decides. Default false.
#      ISTIO_OS_INIT_LOAD            false: look only. Loads nothing, writes only its outcome, and needs no capability. Default true.
#      ISTIO_OS_INIT_HOST            where the host's root is mounted. Default /host.
#      ISTIO_OS_INIT_PROC            where proc is mounted. Default /proc.
# Out: the outcome (outcome.sh), and beside it facts, "KEY VALUE" a line, for people, watch, verify and report: those of facts.sh up
#      to modules-dir, then
#        modprobe works|failed|hangs|none|cannot-enter|cannot-run|not-needed|off      off: look only
#        capability SYS_MODULE|SYS_CHROOT|hostUsers yes|no           the last one only as no: the pod has a user namespace of its own
#        module NAME loaded-now|loaded-before|built-in
#        missing NAME on-disk|not-on-disk|unknown|monolithic MODPROBE'S WORDS   of a|b the first on disk, or a
#        would WORDS                                                 what modprobe says that it would do for those that are on disk
#        needs NAME MODULE...                                        what a missing one needs and what is not loaded either
#        rule, origin, gone, unbuilt                                 see modules.awk
#        backend BACKEND present|loadable|unknown|lacks NAME...
#      On a host that is not meant there are only those of facts.sh.
#      The node's list of modules for the next boot, and the parameters that it needs: see persist.sh.
# Exit: 0, whatever was found out: watch holds the verdict.
set -u
own=load
. "${0%/*}/outcome.sh"
. "${0%/*}/persist.sh"
end_at_once "$@"

plan=${0%/*}/plan
backends_file=${0%/*}/backends
host=${ISTIO_OS_INIT_HOST:-/host}
proc=${ISTIO_OS_INIT_PROC:-/proc}
limit=60

# finish REASON SUBJECT: see conclude.
finish() {
  conclude "$@" || :
  exit 0
}

# in_set NAME SET: whether a set of names, a string " a b c ", has a name.
in_set() {
  case $2 in *" $1 "*) ;; *) return 1 ;; esac
}

# begin_round: counts it, and has whatever the other containers recorded before count no more.
begin_round() {
  read_outcome load || round=0
  round=$((round + 1))
  [ "${#round}" -le 9 ] || round=1
  error='' findings=''
  conclude Loading "round $round" || exit 0
}

# Sets entries, the plan's; planned, a set of their modules; and names, a set of all that is asked about.
read_plan() {
  local entry needs name others=
  entries=
  while read -r entry _; do
    case $entry in '' | '#'*) ;; *) entries="$entries $entry" ;; esac
  done <"$plan"
  if [ -r "$backends_file" ]; then
    while read -r _ needs; do others="$others $needs"; done <"$backends_file"
  fi
  planned=' '
  IFS=' |'
  for name in $entries; do in_set "$name" "$planned" || planned="$planned$name "; done
  names=$planned
  for name in $others; do in_set "$name" "$names" || names="$names$name "; done
  unset IFS
}

# value_of KEY VARIABLE: sets the variable to what $host_facts say under a key that they have once.
value_of() {
  local value=${host_facts#*"$line_break$1 "}
  [ "$value" != "$host_facts" ] || value=
  value=${value%%"$line_break"*}
  eval "$2=\$value"
}

# Sets host_facts, what facts.sh prints up to kernel-files; from them os_id, os_like and modules_dir; builtin and disk, sets of names; and
# needs and rules, the lines before and after obstacles.
read_host() {
  export names planned
  builtin='' disk='' modules_dir='' os_id='' os_like=''
  bounded 30 /bin/sh "${0%/*}/facts.sh" || text="$text${line_break}unread modules"
  host_facts=$line_break$text$line_break
  value_of builtin builtin
  value_of disk disk
  builtin=" $builtin " disk=" $disk "
  value_of modules-dir modules_dir
  value_of os-id os_id
  os_id=${os_id:-unreadable}
  value_of os-like os_like
  needs=${text%%"${line_break}obstacles"*}
  rules=${text#"$needs"}
  rules=${rules#"${line_break}obstacles"}
  shorten 65536 "$needs" && needs=$shortened
  host_facts=${text%%"${line_break}builtin"*}
}

# selected: whether nodes.osRelease means this node. A host that cannot be known is not left out: a node that passes unproven is worse
# than one that has a module too many.
selected() {
  local name words
  [ -n "${ISTIO_OS_INIT_OS_RELEASE-}" ] || return 0
  if [ "$os_id" = unreadable ]; then
    say "warning: the host's os-release cannot be read, so this node counts as one of nodes.osRelease"
    return 0
  fi
  words=$(printf ' %s %s ' "$os_id" "$os_like" | tr '[:upper:]' '[:lower:]')
  for name in $ISTIO_OS_INIT_OS_RELEASE; do
    in_set "$name" "$words" && return
  done
  return 1
}

# Sets $loaded from /proc/modules, which a kernel without loadable modules does not have.
read_loaded() {
  local name
  loaded=' '
  [ -r "$proc/modules" ] || return 0
  while read -r name _; do loaded="$loaded$name "; done <"$proc/modules"
}

# on_host ARGUMENT...: the host's own modprobe on several modules at once; it goes on after one that fails. The last PATH is NixOS'.
on_host() {
  bounded "$limit" env PATH=/usr/sbin:/usr/bin:/sbin:/bin:/run/current-system/sw/bin chroot "$host" modprobe -a "$@"
}

# load_on_host NAME...: sets $modprobe, and $text to what it said. chroot's 127: no modprobe in the host's PATH.
load_on_host() {
  say "asking the host's modprobe, for at most $limit s: $*"
  on_host -- "$@"
  case $? in
    0) modprobe=works ;;
    124) modprobe=hangs ;;
    125) modprobe=cannot-enter ;;
    126) modprobe=cannot-run ;;
    127) modprobe=none ;;
    *) modprobe=failed ;;
  esac
  case $modprobe in
    none) say "warning: the host has no modprobe; its modules stay as they are: $text" ;;
    cannot-*) say "warning: the host's modprobe cannot be run; its modules stay as they are: $text" ;;
    failed | hangs) say "modprobe on the host: $text" ;;
  esac
}

# first_there ENTRY SET: sets name to the entry's first alternative in the set; fails if there is none.
first_there() {
  local entry=$1
  while [ -n "$entry" ]; do
    name=${entry%%|*}
    in_set "$name" "$2" && return 0
    case $entry in *'|'*) entry=${entry#*|} ;; *) entry= ;; esac
  done
  return 1
}

# Each round tries one more alternative of the entries that no earlier alternative has satisfied, of those on disk the first one first; as
# a rule there is one round. Sets errors, what modprobe has said.
# shellcheck disable=SC2086 # a list of names, each a word
load_plan() {
  local pending='' entry ask next name
  errors='' modprobe=not-needed
  for entry in $entries; do
    ! first_there "$entry" "$disk$builtin" || entry=$name${entry#*"$name"}
    pending="$pending $entry"
  done
  while [ -n "$pending" ]; do
    ask='' next=''
    for entry in $pending; do
      in_set "${entry%%|*}" "$loaded$builtin" || ask="$ask ${entry%%|*}"
    done
    if [ -n "$ask" ]; then
      load_on_host $ask
      shorten 65536 "$errors$text"
      errors=$shortened$line_break
      read_loaded
      [ "$modprobe" != hangs ] || return 0 # and would again
    fi
    for entry in $pending; do
      case $entry in *'|'*) in_set "${entry%%|*}" "$loaded$builtin" || next="$next ${entry#*|}" ;; esac
    done
    pending=$next
  done
}

# Sorts what is there by how it came; an entry's first name that is there is the one that counts.
# Sets newly, already, inside and missing; and boot, those that the next boot has to load, in the plan's order.
sort_plan() {
  local entry name
  newly='' already='' inside='' missing='' boot=''
  for entry in $entries; do
    if ! first_there "$entry" "$loaded$builtin"; then
      first_there "$entry" "$disk" || name=${entry%%|*}
      in_set "$name" "$missing " || missing="$missing $name"
    elif in_set "$name" "$newly$already$inside "; then
      : # an alternative of an earlier entry
    elif ! in_set "$name" "$loaded"; then
      inside="$inside $name"
    else
      boot="$boot $name"
      if in_set "$name" "$loaded_before"; then already="$already $name"; else newly="$newly $name"; fi
    fi
  done
}

# Sets would: what the host's modprobe says that it would do for what is missing and on disk. It knows its rules best.
# shellcheck disable=SC2086 # a list of names, each a word
ask_why() {
  local name ask=
  would=
  for name in $missing; do ! in_set "$name" "$disk" || ask="$ask $name"; done
  case $modprobe:$ask in works:?* | failed:?*) ! on_host -D -- $ask || { shorten 65536 "answers$line_break$text" && would=$shortened; } ;; esac
}

# Bits 16 and 18 of linux/capability.h.
capability_facts() {
  local key value capability has
  while read -r key value; do
    [ "$key" = CapEff: ] || continue
    for capability in 16:SYS_MODULE 18:SYS_CHROOT; do
      has=no
      [ $((0x$value >> ${capability%:*} & 1)) -eq 0 ] || has=yes
      printf 'capability %s %s\n' "${capability#*:}" "$has"
    done
  done </proc/self/status
  # in a user namespace of its own a capability is not the host's
  { read -r key value has <"$proc/self/uid_map"; } 2>/dev/null || return 0
  [ "$key $value $has" = '0 0 4294967295' ] || echo 'capability hostUsers no'
}

# What each backend would find here, without trying it: that would make the kernel load what nothing needs.
backend_facts() {
  local backend needs need found_out lacks name
  [ -r "$backends_file" ] || return 0
  while read -r backend needs; do
    [ -n "$backend" ] || continue
    found_out=present lacks=''
    for need in $needs; do
      first_there "$need" "$loaded$builtin" && continue
      if first_there "$need" "$disk"; then found_out=loadable; else lacks="$lacks ${need%%|*}"; fi
    done
    [ -z "$lacks" ] || found_out="lacks$lacks"
    [ -n "$modules_dir" ] || [ "$found_out" = present ] || found_out=unknown
    printf 'backend %s %s\n' "$backend" "$found_out"
  done <"$backends_file"
}

all_facts() {
  local name place=monolithic
  printf '%s\nmodprobe %s\n' "$host_facts" "$modprobe"
  [ "$modprobe" = off ] || capability_facts
  for name in $newly; do printf 'module %s loaded-now\n' "$name"; done
  for name in $already; do printf 'module %s loaded-before\n' "$name"; done
  for name in $inside; do printf 'module %s built-in\n' "$name"; done
  # a kernel that has no module at all, neither loaded nor on disk: names say nothing about it
  [ -z "${loaded# }" ] || place=unknown
  [ -z "$modules_dir" ] || place=not-on-disk
  # shellcheck disable=SC2097,SC2098 # the variables are what awk is given
  [ -z "$missing" ] || missing=$missing disk=$disk place=$place loaded=$loaded$builtin needs=$needs errors=$errors would=$would \
    awk -f "${0%/*}/missing.awk"
  backend_facts
  printf '%s\n' "${rules#"$line_break"}"
}

# record_facts TEXT: it becomes the file facts, bounded, as what the host's files say is. Sets facts.
record_facts() {
  facts=$1
  case ${#facts}:$facts in
    [0-9][0-9][0-9][0-9][0-9]*:* | *[!\ -~$line_break]*) facts=$(printf '%s\n' "$facts" | clean | cut -b 1-600 | head -c 65536) ;;
  esac
  put "$state/$own/facts" "$facts" || finish StateUnwritable load
}

# leave_out: on a host that is not meant.
leave_out() {
  local is="the host's os-release says $os_id${os_like:+, like $os_like}"
  [ "$os_id" != none ] || is="the host has no os-release"
  record_facts "$host_facts"
  ISTIO_OS_INIT_PERSIST=false persist
  finish NotSelected "$is; nodes.osRelease is $ISTIO_OS_INIT_OS_RELEASE"
}

begin_round
[ -r "$plan" ] || finish PlanUnreadable "$plan"
read_plan
read_host
selected || leave_out
read_loaded
loaded_before=$loaded
modprobe=off errors=''
[ "${ISTIO_OS_INIT_LOAD:-true}" = false ] || load_plan
sort_plan
ask_why
record_facts "$(all_facts)"
# shellcheck disable=SC2086 # a list of names
persist $boot
if [ "${ISTIO_OS_INIT_NAMES_DECIDE:-false}" != true ]; then
  [ "$modprobe" != off ] || finish ModulesSeen "loaded:${already:- nothing}; built in:${inside:- nothing known}; not loaded:${missing:- nothing}"
  finish ModulesLoaded "loaded now:${newly:- nothing}; loaded before:${already:- nothing}; built in:${inside:- nothing known}; not found:${missing:- nothing}"
elif [ -z "$missing" ]; then
  finish ModulesFound "every module of the plan"
fi
finish explain ''
