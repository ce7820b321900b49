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
#      The node's list of modules for the next boot: see persist.sh.
# Exit: 0, whatever was found out: watch holds the verdict.
set -u
own=load
. "${0%/*}/outcome.sh"
. "${0%/*}/persist.sh"
end_at_once "$@"

host=${ISTIO_OS_INIT_HOST:-/host}
proc=${ISTIO_OS_INIT_PROC:-/proc}
limit=60

# finish REASON SUBJECT: see conclude.
finish() {
  conclude "$@" || :
  exit 0
}

# begin_round: counts it, and has whatever the other containers recorded before count no more. If the last count is lost, the kernel's uptime
# is higher, since no round takes less than a second.
begin_round() {
  local last=0
  [ ! -e "$state/$own/facts" ] || read -r last _ </proc/uptime
  read_outcome load || round=${last%.*}
  round=$((round + 1))
  [ "${#round}" -le 9 ] || round=1
  error='' findings=''
  conclude Loading "round $round" || exit 0
}

# value_of KEY VARIABLE: sets the variable to what $text, which begins with a line break, says under a key that it has once.
value_of() {
  local value=${text#*"$line_break$1 "}
  [ "$value" != "$text" ] || value=
  value=${value%%"$line_break"*}
  eval "$2=\$value"
}

# Sets found and rules, what facts.sh prints before and after obstacles; host_facts, what it prints up to kernel-files; os_id and os_like.
read_host() {
  bounded 30 /bin/sh "${0%/*}/facts.sh" || text="$text${line_break}unread modules"
  found=${text%%"${line_break}obstacles"*}
  host_facts=${found%%"${line_break}builtin"*}
  text=$line_break$text
  os_id='' os_like=''
  value_of os-id os_id
  os_id=${os_id:-unreadable}
  value_of os-like os_like
  rules=${text#*"${line_break}obstacles$line_break"}
  [ "$rules" != "$text" ] || rules=
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
    case $words in *" $name "*) return 0 ;; esac
  done
  return 1
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

# Sets what plan.awk finds: ask, newly, already, inside, boot, missing and on_disk, lists of names; and have, facts.
resolve() {
  local key
  text=$line_break$(
    files=${0%/*} proc=$proc asked=$asked at_start=$at_start errors=$errors awk -f "${0%/*}/text.awk" -f "${0%/*}/plan.awk" <<END
$found
END
  )$line_break
  ask='' newly='' already='' inside='' boot='' missing='' on_disk=''
  for key in ask newly already inside boot missing on_disk; do value_of "$key" "$key"; done
  have=${text#*"${line_break}facts$line_break"}
  have=${have%"$line_break"}
}

# As a rule there is one round: one more tries the next alternative of an entry. Sets errors, what modprobe has said.
# shellcheck disable=SC2086 # a list of names, each a word
load_plan() {
  modprobe=not-needed at_start=$already
  while [ -n "$ask" ] && [ "$modprobe" != hangs ]; do
    load_on_host $ask
    asked="$asked $ask"
    shorten 65536 "$errors$text"
    errors=$shortened$line_break
    resolve
  done
}

# Sets would, facts: what the host's modprobe says that it would do for what is missing and on disk. It knows its rules best.
# shellcheck disable=SC2086 # a list of names, each a word
ask_why() {
  would=
  case $modprobe:$on_disk in works:?* | failed:?*) ;; *) return 0 ;; esac
  on_host -D -- $on_disk || return 0
  shorten 65536 "answers$line_break$text"
  would=$(printf '%s\n' "$shortened" | sed 's/^/would /')
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

all_facts() {
  printf '%s\nmodprobe %s\n' "$host_facts" "$modprobe"
  [ "$modprobe" = off ] || capability_facts
  printf '%s\n' "$have${would:+$line_break$would}${rules:+$line_break$rules}"
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
[ -r "${0%/*}/plan" ] || finish PlanUnreadable "${0%/*}/plan"
read_host
selected || leave_out
asked='' at_start='' errors='' modprobe=off
resolve
[ "${ISTIO_OS_INIT_LOAD:-true}" = false ] || load_plan
ask_why
record_facts "$(all_facts)"
# shellcheck disable=SC2086 # a list of names
persist $boot
if [ "${ISTIO_OS_INIT_NAMES_DECIDE:-false}" != true ]; then
  [ "$modprobe" != off ] || finish ModulesSeen "loaded: ${already:-nothing}; built in: ${inside:-nothing known}; not loaded: ${missing:-nothing}"
  finish ModulesLoaded "loaded now: ${newly:-nothing}; loaded before: ${already:-nothing}; built in: ${inside:-nothing known}; not found: ${missing:-nothing}"
elif [ -z "$missing" ]; then
  finish ModulesFound "every module of the plan"
fi
finish explain ''
