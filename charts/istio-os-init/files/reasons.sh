# Sourced: turns the facts that load found into the stable reasons why a node cannot run the mesh, each with its remedy.
#
# Out (functions):
#   explain FACTS WORDS BACKEND  sets $reasons, most decisive first. FACTS: load's file. WORDS: what the kernel said to
#                                istio-init's rules, empty where nothing tried them. BACKEND: the one that failed, empty: none
#   first_reason                 prints $reasons on one line of at most 120 characters: what a termination message shows
# $reasons has for each reason four lines, so that a text may hold anything but a line break:
#   REASON     stable, CamelCase: CapabilityRefused ModulesDisabled ModprobeMissing BackendUnavailable ModuleNotOnDisk
#              ModuleOverridden ModuleBlocklisted ModuleRefused RulesRejected; where names decide, ModuleMissing too
#   SUBJECT    a few words, what it is about
#   SENTENCE   what is the matter
#   FIX        what to do on this node
# shellcheck shell=sh

# reason REASON SUBJECT SENTENCE FIX
reason() {
  reasons="$reasons$1
$2
$3
$4
"
}

# listed NAME...: sets list, "a, b, c".
listed() {
  list=
  for name; do list="$list${list:+, }$name"; done
}

# What brings a kernel's missing modules to the node; sets fix.
package() {
  if [ "$modules_dir" = no ]; then
    fix="reboot the node: kernel $kernel runs, but its modules are no longer installed"
    return
  fi
  case " $os_id $os_like $os_variant " in
    *' coreos '* | *' rhcos '*) rpm_package && fix="bring $package into the OS image" ;;
    *' rhel '* | *' fedora '* | *' centos '*) rpm_package && fix="dnf install $package" ;;
    *' ubuntu '*) fix="apt-get install linux-modules-extra-$kernel" ;;
    *' debian '*) fix="apt-get install --reinstall linux-image-$kernel" ;;
    *' suse '* | *' sles '*) fix="zypper install --force kernel-${kernel##*-}" ;;
    *) fix="install the package that has all modules of kernel $kernel" ;;
  esac
}

# Where the RHEL family packs the netfilter modules that are not on every host; sets package. From uek-rpm/ol9 of
# oracle/linux-uek (core-*.list of release 7, modules.yaml.S of release 8), kernel.spec of RHEL (KVERREL+variant), and the
# package lists of Amazon Linux 2023, of RHEL 8's real-time kernel and of ELRepo.
rpm_package() {
  case $kernel in
    5.15.*uek*.64k) package=kernel-uek64k-modules-${kernel%.64k} ;;
    5.15.*uek*) package=kernel-uek-modules-$kernel ;;
    [45].*uek*) package=kernel-uek-$kernel ;;
    *uek*.64k) package=kernel-uek64k-modules-extra-netfilter-${kernel%.64k} ;;
    *uek*) package=kernel-uek-modules-extra-netfilter-$kernel ;;
    *+*) package=kernel-${kernel##*+}-modules-extra-${kernel%+*} ;;
    *.rt[0-9]*) package=kernel-rt-modules-extra-$kernel ;;
    6.1.*.amzn2023.*) package=kernel-modules-extra-$kernel ;;
    *.amzn2023.*)
      minor=${kernel#*.}
      package=kernel${kernel%%.*}.${minor%%.*}-modules-extra-$kernel
      ;;
    *.elrepo.*) package="kernel-ml- or kernel-lt-modules-extra-$kernel" ;;
    *) package=kernel-modules-extra-$kernel ;;
  esac
}

# How a mesh comes to use a backend.
setting() {
  case $1 in
    nft) echo "use Istio 1.26 or newer, and backend nft here" ;;
    native-nft) echo "set global.nativeNftables (Istio 1.27 on)" ;;
    legacy) echo "FORCE_IPTABLES_BINARY=legacy in the mesh's proxyMetadata (Istio 1.28 on), backend legacy here" ;;
  esac
}

# rule_for KIND NAME: sets where and command from the facts; fails where there is none.
rule_for() {
  where=
  case $rules in *"
$1 $2 "*) ;; *) return 1 ;; esac
  where=${rules#*"
$1 $2 "}
  where=${where%%"
"*}
  command=${where#* }
  where=${where%% *}
}

# A rule's place as a remedy: "FILE:LINE", or a parameter of the kernel's command line.
removal() {
  case $1 in
    /proc/cmdline:*) echo "take $2 out of ${1#*:}= on the kernel's command line and reboot" ;;
    *) echo "remove line ${1##*:} of ${1%:*}" ;;
  esac
}

explain() {
  reasons=
  [ -r "$1" ] || set -- /dev/null "$2" "$3"
  kernel=unknown
  os_id=
  os_like=
  os_variant=
  modules_dir=no
  modules_disabled=0
  lockdown=
  modprobe=not-needed
  refused_capabilities=
  missing=
  rules='
'
  others=
  own=
  while read -r key value; do
    case $key in
      kernel) kernel=$value ;;
      os-id) os_id=$value ;;
      os-like) os_like=$value ;;
      os-variant) os_variant=$value ;;
      modules-dir) modules_dir=${value:-no} ;;
      modules-disabled) modules_disabled=$value ;;
      lockdown) lockdown=$value ;;
      modprobe) modprobe=$value ;;
      capability) case $value in *' no') refused_capabilities="$refused_capabilities ${value% no}" ;; esac ;;
      missing) missing="$missing$value
" ;;
      rule) rules="$rules$value
" ;;
      backend)
        case $value in
          "$3 lacks"*) own=${value#*lacks } ;;
          "$3 "*) ;;
          *' present' | *' loadable') others="$others ${value%% *}" ;;
        esac
        ;;
    esac
  done <"$1"

  # Each missing module's cause.
  all=
  absent=
  not_asked=
  overridden=
  overridden_by=
  overridden_fix=
  blocklisted=
  blocklisted_fix=
  refused=
  refused_words=
  unknown=
  while read -r name disk says; do
    [ -n "$name" ] || continue
    all="$all $name"
    case $disk:$says in unknown:*'not found'*) disk=not-on-disk ;; esac
    if [ "$disk" = monolithic ]; then
      unknown="$unknown $name"
    elif [ "$disk" = not-on-disk ]; then
      absent="$absent $name"
    elif [ -n "$refused_capabilities" ] || [ "$modprobe" = none ] || [ "$modprobe" = cannot-enter ] || [ "$modprobe" = cannot-run ] || [ "$modules_disabled" = 1 ]; then
      not_asked="$not_asked $name"
    elif rule_for install "$name"; then
      overridden="$overridden $name"
      overridden_by="${overridden_by:-$command}"
      overridden_fix="$overridden_fix${overridden_fix:+; }$(removal "$where" "$name")"
    elif rule_for module_blacklist "$name" || { [ -z "$says" ] && rule_for blacklist "$name"; }; then
      blocklisted="$blocklisted $name"
      blocklisted_fix="$blocklisted_fix${blocklisted_fix:+; }$(removal "$where" "$name")"
    elif [ -n "$says" ]; then
      refused="$refused $name"
      refused_words=${refused_words:-${says##*"'"}}
    else
      unknown="$unknown $name"
    fi
  done <<EOF
$missing
EOF

  # shellcheck disable=SC2086 # lists of names
  {
    if [ -n "$all" ] && [ -n "$refused_capabilities" ]; then
      listed $refused_capabilities
      reason CapabilityRefused "$list" "The platform does not let container load have $list, so it cannot run the host's modprobe." \
        "let the platform grant them (SCC, admission policy), or load at boot"
    fi
    if [ -n "$not_asked" ] && [ "$modules_disabled" = 1 ]; then
      listed $not_asked
      reason ModulesDisabled "$list" "kernel.modules_disabled is 1: until the next reboot the kernel loads no module, and it has not loaded $list." \
        "take it out of sysctl.d, or load them before it is set; reboot"
    fi
    if [ -n "$all" ] && { [ "$modprobe" = none ] || [ "$modprobe" = cannot-run ]; }; then
      listed $all
      reason ModprobeMissing "$list" "The host has no modprobe that runs, so nobody could load $list." \
        "install kmod on the host, or load them at boot"
    fi
    if [ "$3" = legacy ] && [ -n "$own" ] && [ -n "$others" ]; then
      other_backend legacy
    fi
    if [ -n "$absent" ]; then
      listed $absent
      package
      reason ModuleNotOnDisk "$list" "Kernel $kernel has no $list among its modules on disk." "$fix"
    fi
    if [ -n "$overridden" ]; then
      listed $overridden
      reason ModuleOverridden "$list" "modprobe.d has modprobe run $overridden_by instead of loading $list." "$overridden_fix"
    fi
    if [ -n "$blocklisted" ]; then
      listed $blocklisted
      reason ModuleBlocklisted "$list" "A blocklist keeps $list from being loaded." "$blocklisted_fix"
    fi
    if [ -n "$refused" ]; then
      listed $refused
      refused_words=${refused_words#: }
      case $refused_words${lockdown} in
        *' Key '* | *'Required key'* | *signature* | *integrity | *confidentiality) fix="sign the modules with a key that the kernel trusts (lockdown: ${lockdown:-unknown})" ;;
        *) fix="see the host's kernel log (dmesg) for what it refused" ;;
      esac
      reason ModuleRefused "$list" "The kernel refuses $list: $refused_words." "$fix"
    fi
    if [ "$3" != legacy ] && [ -n "$3" ] && [ -n "$own" ] && [ -n "$others" ]; then
      other_backend "$3"
    fi
    if [ -n "$2" ] && [ -z "$reasons" ]; then
      listed $unknown
      reason RulesRejected "$2" "The kernel refuses istio-init's rules: $2.${list:+ Not seen after modprobe: $list.}" \
        "see the log of verify"
    fi
    if [ -z "$2" ] && [ -z "$reasons" ] && [ -n "$all" ]; then
      listed $all
      reason ModuleMissing "$list" "This node does not show $list." "enable verify to let behaviour decide"
    fi
  }
}

# other_backend BACKEND: what is left where a backend's modules are not to be had.
# shellcheck disable=SC2086 # lists of names
other_backend() {
  listed $others
  first=${others# }
  first=${first%% *}
  can=$list
  listed $own
  reason BackendUnavailable "no $1, but $can" "$1 cannot work on this node, whose kernel has no $list; the modules of $can are there." "$(setting "$first")"
}

first_reason() {
  {
    read -r name && read -r subject && read -r _ && read -r fix || return 0
    more=
    count=0
    while read -r next && read -r _ && read -r _ && read -r _; do
      more="$more, $next"
      count=$((count + 1))
    done
  } <<EOF
$reasons
EOF
  for also in "${more:+. Also: ${more#, }}" ". And $count more"; do
    [ "$count" -gt 0 ] || also=
    room=$((118 - ${#name} - ${#fix} - 7 - ${#also}))
    if [ "${#subject}" -le "$room" ] || [ "$room" -ge 30 ]; then break; fi
  done
  [ "$room" -ge 12 ] || room=12
  # a list loses whole names, the kernel's words their end
  list=$subject
  left_out=0
  while [ "$name" != RulesRejected ] && [ "${#subject}" -gt "$room" ] && [ "$list" != "${list%, *}" ]; do
    list=${list%, *}
    left_out=$((left_out + 1))
    subject="$list and $left_out more"
  done
  # two dots, and the sentence's own
  if [ "${#subject}" -gt "$room" ]; then subject=$(printf "%.$((room - 2))s.." "$subject"); fi
  line="$name: $subject. Fix: $fix$also"
  if [ "${#line}" -gt 120 ]; then line=$(printf '%.117s...' "$line"); fi
  printf '%s' "$line"
}
