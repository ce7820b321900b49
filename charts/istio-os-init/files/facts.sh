# Sourced by load.sh: what explains a failure, gathered from the host's files without changing anything.
#
# In (variables): host, proc as in load.sh; names: every module that is asked about; ISTIO_OS_INIT_OS_RELEASE as in load.sh.
# Out (functions):
#   in_set NAME SET  whether a set of names, a string " a b c ", has a name
#   find_modules     sets kernel, its release; builtin and disk, sets of names: what is in the kernel, and what has a file;
#                    modules_dir, the directory of the kernel's modules, empty where there is none
#   find_rules       sets rules, what keeps modules from being loaded, one a line: "install NAME WHERE COMMAND",
#                    "blacklist NAME WHERE" (by modprobe where it is not asked by that name), "module_blacklist NAME WHERE"
#                    (by the kernel)
#   find_os          sets os, os_id, os_like, os_version, os_variant from the host's os-release; os_id is none where there is no
#                    file, unreadable where there is one that cannot be read
#   selected         after find_os: whether nodes.osRelease means this node
#   node_facts       after these: prints the facts of the node, "KEY VALUE" a line
# Sources: modprobe.d(5) for the directories and their order; os-release(5); kernel-parameters.txt, module_blacklist.
# shellcheck shell=sh
# shellcheck disable=SC2154 # load.sh's variables

# The shell searches a string without starting a process.
in_set() {
  case $2 in *" $1 "*) ;; *) return 1 ;; esac
}

# with_underscores NAME: sets name; the kernel writes _ where a file's or a person's name may have -.
with_underscores() {
  name=$1
  while [ "$name" != "${name#*-}" ]; do name=${name%%-*}_${name#*-}; done
}

# first_line FILE: sets line; empty where the file cannot be read.
first_line() {
  line=
  if [ -f "$1" ] && [ -r "$1" ]; then read -r line <"$1" || :; fi 2>/dev/null
}

# in_host PATH: sets found to where the host's path lies: a link there leads from the host's root, not from this container's.
in_host() {
  found=
  rest=$1
  links=0
  while [ -n "$rest" ]; do
    rest=${rest#/}
    part=${rest%%/*}
    rest=${rest#"$part"}
    case $part in
      '' | .) continue ;;
      ..) found=${found%/*} && continue ;;
    esac
    if [ ! -L "$host$found/$part" ]; then
      found=$found/$part
      continue
    fi
    links=$((links + 1))
    [ "$links" -le 40 ] || return 1 # the kernel's own limit
    target=$(readlink "$host$found/$part")
    case $target in /*) found= ;; esac
    rest=/$target$rest
  done
  found=$host$found
}

# modules.builtin has lines like "kernel/net/netfilter/nf_nat.ko", modules.dep "kernel/net/netfilter/xt_owner.ko.xz: ...".
find_modules() {
  builtin=' '
  disk=' '
  modules_dir=
  first_line "$proc/sys/kernel/osrelease"
  kernel=${line:-unknown}
  for dir in lib usr/lib; do
    if [ -d "$host/$dir/modules/$kernel" ]; then
      modules_dir=$host/$dir/modules/$kernel
      break
    fi
  done
  [ -n "$modules_dir" ] && [ -n "$names" ] || return 0
  pattern=
  for rest in $names; do
    pattern="$pattern|"
    while [ "$rest" != "${rest#*_}" ]; do
      pattern="$pattern${rest%%_*}[_-]"
      rest=${rest#*_}
    done
    pattern=$pattern$rest
  done
  found=$(grep -s -H -E -o "^[^:]*/(${pattern#|})\.ko" "$modules_dir/modules.builtin" "$modules_dir/modules.dep")
  while read -r file; do
    path=${file##*/}
    with_underscores "${path%.ko}"
    case $file in
      *modules.builtin:*) builtin="$builtin$name " ;;
      *modules.dep:*) disk="$disk$name " ;;
    esac
  done <<EOF
$found
EOF
}

# Of files with the same name the first directory's counts.
find_rules() {
  rules=
  seen=/
  set --
  for dir in etc run usr/local/lib usr/lib lib; do
    for file in "$host/$dir"/modprobe.d/*.conf; do
      case $seen in *"/${file##*/}/"*) continue ;; esac
      seen=$seen${file##*/}/
      [ ! -f "$file" ] || set -- "$@" "$file"
    done
  done
  found=
  [ $# -eq 0 ] || found=$(grep -s -H -n -E '^[[:blank:]]*(blacklist|install)[[:blank:]]' "$@")
  set -f # a rule may have *
  while read -r hit; do
    where=${hit%%:*}
    hit=${hit#*:}
    where=${where#"$host"}:${hit%%:*}
    # shellcheck disable=SC2086 # words of a line
    set -- ${hit#*:}
    [ $# -ge 2 ] || continue
    with_underscores "$2"
    in_set "$name" " $names " || continue
    kind=$1
    shift 2
    rules="$rules$kind $name $where $*
"
  done <<EOF
$found
EOF
  first_line "$proc/cmdline"
  for word in $line; do
    case $word in
      module_blacklist=* | modprobe.blacklist=*) ;;
      *) continue ;;
    esac
    kind=${word%%=*}
    rest=${word#*=},
    while [ -n "$rest" ]; do
      with_underscores "${rest%%,*}"
      rest=${rest#*,}
      if [ -n "$name" ] && in_set "$name" " $names "; then
        rules="$rules${kind#modprobe.} $name /proc/cmdline:$kind
"
      fi
    done
  done
  set +f
}

find_os() {
  os=unknown
  os_id=none
  os_like=
  os_version=
  os_variant=
  for file in /etc/os-release /usr/lib/os-release; do
    in_host "$file" || continue
    [ -f "$found" ] || continue
    if [ ! -r "$found" ]; then
      os_id=unreadable
      continue
    fi
    os_id=linux # where the file does not say
    while read -r line || [ -n "$line" ]; do
      value=${line#*=}
      value=${value#[\"\']}
      value=${value%[\"\']}
      case $line in
        PRETTY_NAME=?*) os=$value ;;
        ID=?*) os_id=$value ;;
        ID_LIKE=*) os_like=$value ;;
        VERSION_ID=*) os_version=$value ;;
        VARIANT_ID=*) os_variant=$value ;;
      esac
    done <"$found"
    break
  done
}

# A host that cannot be known is not left out: a node that passes unproven is worse than one that has a module too many.
selected() {
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

node_facts() {
  printf 'os %s\nos-id %s\nos-like %s\nos-version %s\nos-variant %s\n' "$os" "$os_id" "$os_like" "$os_version" "$os_variant"
  printf 'kernel %s\nmodules-dir %s\n' "$kernel" "${modules_dir#"$host"}"

  first_line "$proc/sys/kernel/modules_disabled"
  printf 'modules-disabled %s\n' "${line:-0}"
  # What the kernel runs to load a module on demand.
  first_line "$proc/sys/kernel/modprobe"
  printf 'kernel.modprobe %s\n' "$line"
  # "none [integrity] confidentiality"
  first_line "$host/sys/kernel/security/lockdown"
  line=${line#*\[}
  printf 'lockdown %s\n' "${line%%\]*}"
  first_line "$host/sys/fs/selinux/enforce"
  case $line in 1) line=enforcing ;; 0) line=permissive ;; *) line=off ;; esac
  printf 'selinux %s\n' "$line"

  # systemd has such a link for each unit that is active.
  for unit in firewalld nftables iptables ip6tables; do
    [ ! -L "$host/run/systemd/units/invocation:$unit.service" ] || printf 'service %s\n' "$unit"
  done
  # The host's own tables of iptables-legacy. Empty ones are there too, once something has looked at them.
  tables=
  for family in ip ip6; do
    [ -r "$host/proc/1/net/${family}_tables_names" ] || continue
    while read -r line; do tables="$tables $family/$line"; done <"$host/proc/1/net/${family}_tables_names"
  done
  printf 'legacy-tables%s\n' "$tables"
}
