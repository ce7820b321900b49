# shellcheck shell=dash
# Sourced: classifies the facts that load found by the reasons of the catalogue: why a node cannot run the mesh.
#
# explain FACTS WORDS BACKEND  adds reasons, most decisive first (add_reason in outcome.sh). FACTS: the text of load's file.
#                              WORDS: what the kernel said to istio-init's rules, empty if nothing tried them. BACKEND: the one
#                              that failed, empty: none
# Needs outcome.sh. The variables that the catalogue names are set here.

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

# What brings a kernel's missing modules to the node; sets package.
find_package() {
  local rpm
  if [ "$modules_dir" = no ]; then
    package="reboot the node: kernel $kernel runs, but its modules are no longer installed"
    return
  fi
  find_rpm
  case " $os_id $os_like $os_variant " in
    *' coreos '* | *' rhcos '*) package="bring $rpm into the OS image" ;;
    *' rhel '* | *' fedora '* | *' centos '*) package="dnf install $rpm" ;;
    *' ubuntu '*) package="apt-get install linux-modules-extra-$kernel" ;;
    *' debian '*) package="apt-get install --reinstall linux-image-$kernel" ;;
    *' suse '* | *' sles '*) package="zypper install --force kernel-${kernel##*-}" ;;
    *) package="install the package that has all modules of kernel $kernel" ;;
  esac
}

# Where the RHEL family packs the netfilter modules that are not on every host; sets rpm. From uek-rpm/ol9 of
# oracle/linux-uek (core-*.list of release 7, modules.yaml.S of release 8), kernel.spec of RHEL (KVERREL+variant), and the
# package lists of Amazon Linux 2023, of RHEL 8's real-time kernel and of ELRepo.
find_rpm() {
  local minor=${kernel#*.}
  case $kernel in
    5.15.*uek*.64k) rpm=kernel-uek64k-modules-${kernel%.64k} ;;
    5.15.*uek*) rpm=kernel-uek-modules-$kernel ;;
    [45].*uek*) rpm=kernel-uek-$kernel ;;
    *uek*.64k) rpm=kernel-uek64k-modules-extra-netfilter-${kernel%.64k} ;;
    *uek*) rpm=kernel-uek-modules-extra-netfilter-$kernel ;;
    *+*) rpm=kernel-${kernel##*+}-modules-extra-${kernel%+*} ;;
    *.rt[0-9]*) rpm=kernel-rt-modules-extra-$kernel ;;
    6.1.*.amzn2023.*) rpm=kernel-modules-extra-$kernel ;;
    *.amzn2023.*) rpm=kernel${kernel%%.*}.${minor%%.*}-modules-extra-$kernel ;;
    *.elrepo.*) rpm="kernel-ml- or kernel-lt-modules-extra-$kernel" ;;
    *) rpm=kernel-modules-extra-$kernel ;;
  esac
}

# rule_for KIND NAME: sets place and rule_command from the facts; fails if there is none.
rule_for() {
  case $rules in *"$line_break$1 $2 "*) ;; *) return 1 ;; esac
  place=${rules#*"$line_break$1 $2 "}
  place=${place%%"$line_break"*}
  rule_command=nothing
  case $place in *' // '*) rule_command=${place#* // } ;; esac
  place=${place%% // *}
}

# add_removal NAME: adds to removals how the rule at $place, which rule_for found, is lifted.
add_removal() {
  local removal
  case $place in
    /proc/cmdline:*) removal="take $1 out of ${place#*:}= on the kernel's command line and reboot" ;;
    *) removal="remove line ${place##*:} of ${place%:*}" ;;
  esac
  removals="$removals${removals:+; }$removal"
}

# read_facts FACTS: sets the variables that explain declares.
read_facts() {
  local key value
  while read -r key value; do
    case $key in
      kernel) kernel=$value ;;
      os-id) os_id=$value ;;
      os-like) os_like=$value ;;
      os-variant) os_variant=$value ;;
      modules-dir) modules_dir=${value:-no} ;;
      modules-disabled) modules_disabled=$value ;;
      lockdown) lockdown=$value ;;
      unread) unread=yes ;;
      modprobe) modprobe=$value ;;
      capability) case $value in *' no') no_capability="$no_capability ${value% no}" ;; esac ;;
      missing) missing="$missing$value$line_break" ;;
      rule) rules="$rules$value$line_break" ;;
      backend)
        case $value in
          "$backend lacks"*) own_lacks=${value#*lacks } ;;
          "$backend "*) ;;
          *' present' | *' loadable') can="$can ${value%% *}" ;;
        esac
        ;;
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
    case $disk:$says in unknown:*'not found'*) disk=not-on-disk ;; esac
    if [ "$disk" = monolithic ]; then
      unexplained="$unexplained $name"
    elif [ "$disk" = not-on-disk ]; then
      absent="$absent $name"
    elif [ -n "$no_capability" ] || [ "$modules_disabled" = 1 ]; then
      not_asked="$not_asked $name"
    elif [ "$modprobe" = none ] || [ "$modprobe" = cannot-enter ] || [ "$modprobe" = cannot-run ]; then
      not_asked="$not_asked $name"
    elif rule_for install "$name"; then
      overridden="$overridden $name"
      command=${command:-$rule_command}
      removals=$override_removals
      add_removal "$name"
      override_removals=$removals
    elif rule_for module_blacklist "$name" || { [ -z "$says" ] && rule_for blacklist "$name"; }; then
      blocklisted="$blocklisted $name"
      removals=$blocklist_removals
      add_removal "$name"
      blocklist_removals=$removals
    elif [ -n "$says" ]; then
      refused="$refused $name"
      [ -n "$refusal" ] || refusal=${says##*"'"}
    else
      unexplained="$unexplained $name"
    fi
  done <<END
$missing
END
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
# shellcheck disable=SC2086 # lists of names
unavailable() {
  local first own_list others setting
  [ -n "$own_lacks" ] && [ -n "$can" ] || return 0
  listed $own_lacks
  own_list=$list
  listed $can
  others=$list
  first=${can# }
  case ${first%% *} in
    nft) setting="use Istio 1.26 or newer, and backend nft here" ;;
    native-nft) setting="set global.nativeNftables (Istio 1.27 on)" ;;
    legacy) setting="FORCE_IPTABLES_BINARY=legacy in the mesh's proxyMetadata (Istio 1.28 on), backend legacy here" ;;
  esac
  add_reason BackendUnavailable "no $backend, but $others"
}

# remedy_of_refusal: sets refusal and remedy for modules that the kernel refuses.
remedy_of_refusal() {
  refusal=${refusal#: }
  case $refusal$lockdown in
    *' Key '* | *'Required key'* | *signature* | *integrity | *confidentiality)
      remedy="sign the modules with a key that the kernel trusts (lockdown: ${lockdown:-unknown})"
      ;;
    *) remedy="see the host's kernel log (dmesg) for what it refused" ;;
  esac
}

# shellcheck disable=SC2034,SC2086 # the catalogue's variables; lists of names
explain() {
  local words=$2 backend=$3
  local kernel=unknown os_id='' os_like='' os_variant='' modules_dir=no modules_disabled=0 lockdown='' unread='' modprobe=not-needed
  local no_capability='' missing='' rules=$line_break own_lacks='' can='' list
  local all='' absent='' not_asked='' overridden='' blocklisted='' refused='' refusal='' unexplained=''
  local package command='' place rule_command removals='' override_removals='' blocklist_removals='' remedy unseen
  read_facts "$1"
  sort_missing
  [ -z "$all" ] || [ -z "$no_capability" ] || reason_for CapabilityRefused $no_capability
  [ "$modules_disabled" != 1 ] || reason_for ModulesDisabled $not_asked
  [ "$modprobe" != none ] && [ "$modprobe" != cannot-run ] || reason_for ModprobeMissing $all
  [ -z "$unread" ] || reason_for HostUnreadable $all
  [ "$backend" != legacy ] || unavailable
  find_package
  [ -n "$unread" ] || reason_for ModuleNotOnDisk $absent
  removals=$override_removals
  reason_for ModuleOverridden $overridden
  removals=$blocklist_removals
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
