# shellcheck shell=dash
# Sourced: classifies the facts that load found by the reasons of the catalogue: why a node cannot run the mesh.
#
# explain FACTS WORDS BACKEND  adds reasons, most decisive first (add_reason in outcome.sh). FACTS: the text of load's file.
#                              WORDS: what the kernel said to istio-init's rules, empty if nothing tried them. BACKEND: the one
#                              that failed, empty: none
# Needs outcome.sh. The variables that the catalogue and the file remedies name are set here.

# listed NAME...: sets list, "a, b, c and 4 more".
listed() {
  local name count=0
  list=
  for name; do
    count=$((count + 1))
    [ "$count" -gt 3 ] || list="$list${list:+, }$name"
  done
  [ "$count" -le 3 ] || list="$list and $((count - 3)) more"
}

# look_up KIND WORDS: sets filled to the text of the first row of the file remedies that is of the kind and matches one of the words.
look_up() {
  local kind pattern text
  while read -r kind pattern text || [ -n "$kind" ]; do # a ConfigMap's last line may have no line break
    [ "$kind" = "$1" ] || continue
    # shellcheck disable=SC2254 # a pattern
    case " $2 " in *\ $pattern\ *) fill "$text" && return ;; esac
  done <"${0%/*}/remedies"
}

# What brings a kernel's missing modules to the node; sets package.
# shellcheck disable=SC2034 # what the file remedies names
find_package() {
  local rpm base=${kernel%.64k} minor=${kernel#*.} variant=${kernel##*[+-]} version
  base=${base%+*}
  version=${kernel%%.*}.${minor%%.*}
  package="reboot the node: kernel $kernel runs, but its modules are no longer installed"
  [ "$modules_dir" != no ] || return 0
  look_up kernel "$kernel"
  rpm=$filled
  look_up os "$os_id $os_like $os_variant"
  package=$filled
}

has_rule() {
  case $rules in *"$line_break$1 $2 "*) ;; *) return 1 ;; esac
}

# lift KINDS MODULE...: sets removals, how the rules are lifted that keep these modules from being loaded; and command, what the first
# of them runs instead.
lift() {
  local kinds=$1 kind name place
  shift
  removals='' command=''
  for name; do
    for kind in $kinds; do
      has_rule "$kind" "$name" || continue
      place=${rules#*"$line_break$kind $name "}
      place=${place%%"$line_break"*}
      case $place in *' // '*) command=${command:-${place#* // }} ;; esac
      place=${place%% // *}
      case $place in
        /proc/cmdline:*) place="take $name out of ${place#*:}= on the kernel's command line and reboot" ;;
        *) place="remove line ${place##*:} of ${place%:*}" ;;
      esac
      removals="$removals${removals:+; }$place"
      break
    done
  done
  command=${command:-nothing}
}

# read_facts FACTS: sets the variables that explain declares.
read_facts() {
  local key value
  while read -r key value; do
    case $key:$value in
      os-id:* | os-like:* | os-variant:* | modules-dir:?* | modules-disabled:*) eval "${key%-*}_${key#*-}=\$value" ;;
      kernel:* | lockdown:* | unread:* | modprobe:*) eval "$key=\$value" ;;
      missing:*) missing="$missing$value$line_break" ;;
      rule:*) rules="$rules$value$line_break" ;;
      capability:*' no') no_capability="$no_capability ${value% no}" ;;
      backend:"$backend lacks"*) own_lacks=${value#*lacks } ;;
      backend:"$backend "*) ;;
      backend:*' present' | backend:*' loadable') can="$can ${value%% *}" ;;
    esac
  done <<END
$1
END
}

# sort_missing: each missing module into the list of its cause.
sort_missing() {
  local name disk says
  while read -r name disk says; do
    [ -n "$name" ] || continue
    all="$all $name"
    case $disk:$says:$modules_disabled$no_capability:$modprobe in
      not-on-disk:* | unknown:*'not found'*) absent="$absent $name" ;;
      monolithic:*) ;;
      *:0:works | *:0:failed | *:0:not-needed)
        if has_rule install "$name"; then
          overridden="$overridden $name"
        elif has_rule module_blacklist "$name" || { [ -z "$says" ] && has_rule blacklist "$name"; }; then
          blocklisted="$blocklisted $name"
        elif [ -n "$says" ]; then
          refused="$refused $name"
          refusal=${refusal:-${says##*"'"}}
        fi
        ;;
      *) not_asked="$not_asked $name" ;;
    esac
  done <<END
$missing
END
  for name in $all; do
    case "$absent$overridden$blocklisted$refused$not_asked " in *" $name "*) ;; *) unexplained="$unexplained $name" ;; esac
  done
}

# reason_for NAME MODULE...: adds a reason about modules, if there are any.
reason_for() {
  local name=$1
  shift
  [ $# -gt 0 ] || return 0
  listed "$@"
  add_reason "$name" "$list"
}

# unavailable: what is left if a backend's modules are not to be had, and another's are.
# shellcheck disable=SC2086,SC2034 # lists of names; the catalogue's variables
unavailable() {
  local own_list others setting
  [ -n "$own_lacks" ] && [ -n "$can" ] || return 0
  listed $own_lacks
  own_list=$list
  listed $can
  others=$list
  look_up backend "${others%%,*}"
  setting=$filled
  add_reason BackendUnavailable "no $backend, but $others"
}

# remedy_of_refusal: sets refusal and remedy for modules that the kernel refuses.
remedy_of_refusal() {
  refusal=${refusal#: }
  remedy="see the host's kernel log (dmesg) for what it refused"
  case $refusal$lockdown in
    *' Key '* | *'Required key'* | *signature* | *integrity | *confidentiality)
      remedy="sign the modules with a key that the kernel trusts (lockdown: ${lockdown:-unknown})"
      ;;
  esac
}

# shellcheck disable=SC2034,SC2086 # the catalogue's variables; lists of names
explain() {
  local words=$2 backend=$3
  local kernel=unknown os_id='' os_like='' os_variant='' modules_dir=no modules_disabled=0 lockdown='' unread='' modprobe=not-needed
  local no_capability='' missing='' rules=$line_break own_lacks='' can='' list=''
  local all='' absent='' not_asked='' overridden='' blocklisted='' refused='' refusal='' unexplained=''
  local package command removals remedy unseen
  read_facts "$1"
  sort_missing
  [ -z "$all" ] || reason_for CapabilityRefused $no_capability
  [ "$modules_disabled" != 1 ] || reason_for ModulesDisabled $not_asked
  case $modprobe in none | cannot-run) reason_for ModprobeMissing $all ;; hangs) reason_for ModprobeHangs $all ;; esac
  [ -z "$unread" ] || reason_for HostUnreadable $all
  [ "$backend" != legacy ] || unavailable
  find_package
  [ -n "$unread" ] || reason_for ModuleNotOnDisk $absent
  lift install $overridden
  reason_for ModuleOverridden $overridden
  lift 'module_blacklist blacklist' $blocklisted
  reason_for ModuleBlocklisted $blocklisted
  remedy_of_refusal
  reason_for ModuleRefused $refused
  [ "$backend" = legacy ] || [ -z "$backend" ] || unavailable
  [ -z "$reasons" ] || return 0
  if [ -n "$words" ]; then
    listed $unexplained
    unseen=${list:+ Not seen after modprobe: $list.}
    add_reason RulesRejected "$words"
  else
    reason_for ModuleMissing $all
  fi
}
