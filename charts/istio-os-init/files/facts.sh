# shellcheck shell=dash
# Sourced by load.sh: what explains a failure, gathered from the host's files without changing anything.
#
# In (variables): host, proc as in load.sh; names: a set of every module that is asked about. Needs outcome.sh.
# Out (functions, in this order): find_modules, find_os, selected, find_rules, node_facts.
# All of these files are the host's: regular ones alone are read, up to a size, and links lead from the host's root. Sets unread to
# yes if they cannot be read in time.
# Sources: modprobe.d(5) for the directories and their order; os-release(5); kernel-parameters.txt, module_blacklist.
# shellcheck disable=SC2154 # load.sh's variables

unread=

# in_set NAME SET: whether a set of names, a string " a b c ", has a name.
in_set() {
  case $2 in *" $1 "*) ;; *) return 1 ;; esac
}

# with_underscores NAME: sets name; the kernel writes _ where a file's or a person's name may have -.
with_underscores() {
  name=$1
  while [ "$name" != "${name#*-}" ]; do name=${name%%-*}_${name#*-}; done
}

# first_line FILE: sets first; empty if the file cannot be read.
first_line() {
  first=
  if [ -f "$1" ] && [ -r "$1" ]; then read -r first <"$1" || :; fi 2>/dev/null
}

# in_host PATH: sets found to where the host's path lies: a link there leads from the host's root, not from this container's.
in_host() {
  local rest=$1 part target links=0
  found=
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

# lines OPTIONS PATTERN FILE...: sets text to the lines of regular files that match the pattern.
lines() {
  bounded 30 grep -s -D skip -d skip -E "$@"
  [ "$?" -lt 124 ] || unread=yes
}

# Sets spellings, a pattern of all names with _ or -.
find_spellings() {
  local rest
  spellings=
  for rest in $names; do
    spellings="$spellings${spellings:+|}"
    while [ "$rest" != "${rest#*_}" ]; do
      spellings="$spellings${rest%%_*}[_-]"
      rest=${rest#*_}
    done
    spellings=$spellings$rest
  done
}

# Sets kernel, its release; builtin and disk, sets of names: what is in the kernel, and what has a file; modules_dir, the directory of
# the kernel's modules, empty if there is none. modules.builtin has lines like "kernel/net/netfilter/nf_nat.ko", modules.dep "kernel/net/netfilter/xt_owner.ko.xz: ...".
find_modules() {
  local dir name file path
  builtin=' ' disk=' ' modules_dir=''
  first_line "$proc/sys/kernel/osrelease"
  kernel=${first:-unknown}
  find_spellings
  for dir in /usr/lib /lib; do
    in_host "$dir/modules/$kernel" && [ -d "$found" ] && modules_dir=$found && break
  done
  [ -n "$modules_dir" ] || return 0
  lines -Ho "^[^:]*/($spellings)\.ko" "$modules_dir/modules.builtin" "$modules_dir/modules.dep"
  while read -r file; do
    path=${file##*/}
    with_underscores "${path%.ko}"
    case $file in
      *modules.builtin:*) builtin="$builtin$name " ;;
      *modules.dep:*) disk="$disk$name " ;;
    esac
  done <<END
$text
END
}

# Sets rules, what keeps modules from being loaded, one a line: "install NAME PLACE // COMMAND", "blacklist NAME PLACE" (by modprobe,
# if it is not asked by that name), "module_blacklist NAME PLACE" (by the kernel). PLACE is FILE:LINE or /proc/cmdline:PARAMETER.
# Of files with the same name the first directory's counts. grep follows a link in this container and not on the host: links are
# read one by one, where they lead to there.
find_rules() {
  local dir file files='' links='' pattern="^[[:blank:]]*(blacklist|install)[[:blank:]]+($spellings)([[:space:]]|$)"
  dirs='' rules=''
  set --
  for dir in /etc /run /usr/local/lib /usr/lib /lib; do
    in_host "$dir/modprobe.d" && [ -d "$found" ] || continue
    case $line_break$dirs in *"$line_break$found$line_break"*) continue ;; esac
    dirs="$dirs$found$line_break"
    set -- "$@" "$found"/*.conf
  done
  for file; do
    if [ -L "$file" ]; then links="$links$file$line_break"; elif [ -f "$file" ]; then files=some; fi
  done
  if [ -n "$files" ]; then
    lines -Hn "$pattern" "$@"
    add_rules '' "$text"
  fi
  while read -r file; do
    [ -n "$file" ] && in_host "${file#"$host"}" && [ -f "$found" ] || continue
    lines -hn "$pattern" "$found"
    add_rules "$file" "$text"
  done <<END
$links
END
  find_kernel_rules
}

# add_rules LINK LINES: adds to $rules what grep has printed: "NUMBER:LINE" of the file to which LINK leads; or, if that is empty,
# "FILE:NUMBER:LINE". A file's name ends in .conf, and may have a colon.
add_rules() {
  local link=$1 hit file number kind name
  set -f # a rule may have *
  while read -r hit; do
    file=$link
    if [ -z "$link" ]; then
      file=${hit%%.conf:[0-9]*}.conf
      hit=${hit#"$file:"}
      [ ! -L "$file" ] || continue
    fi
    hidden "$file" && continue
    number=${hit%%:*}
    # shellcheck disable=SC2086 # words of a line
    set -- ${hit#*:}
    [ $# -ge 2 ] || continue
    with_underscores "$2"
    kind=$1
    shift 2
    rules="$rules$kind $name ${file#"$host"}:$number${*:+ // $*}$line_break"
  done <<END
$2
END
  set +f
}

# hidden FILE: whether a directory before this one, in $dirs, has a file of the same name.
hidden() {
  local dir
  while read -r dir; do
    [ "$dir" != "${1%/*}" ] || return 1
    [ ! -e "$dir/${1##*/}" ] && [ ! -L "$dir/${1##*/}" ] || return 0
  done <<END
$dirs
END
  return 1
}

find_kernel_rules() {
  local word kind rest name
  set -f
  first_line "$proc/cmdline"
  for word in $first; do
    case $word in module_blacklist=* | modprobe.blacklist=*) ;; *) continue ;; esac
    kind=${word%%=*}
    rest=${word#*=},
    while [ -n "$rest" ]; do
      with_underscores "${rest%%,*}"
      rest=${rest#*,}
      [ -n "$name" ] && in_set "$name" " $names " || continue
      rules="$rules${kind#modprobe.} $name /proc/cmdline:$kind$line_break"
    done
  done
  set +f
}

# Sets os, os_id, os_like, os_version, os_variant; os_id is none if there is no os-release, unreadable if there is one that cannot be read.
find_os() {
  local file value line
  os=unknown os_id=none os_like='' os_version='' os_variant=''
  for file in /etc/os-release /usr/lib/os-release; do
    in_host "$file" && [ -f "$found" ] || continue
    [ -r "$found" ] || { os_id=unreadable && continue; }
    os_id=linux # if the file does not say
    data "$found" 65536 || :
    while read -r line; do
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
    done <<END
$text
END
    return
  done
}

# selected: whether nodes.osRelease means this node. A host that cannot be known is not left out: a node that passes unproven is worse than one that has a module too many.
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

# node_facts: prints the facts of the node, "KEY VALUE" a line.
node_facts() {
  local unit tables='' family file table
  printf 'os %s\nos-id %s\nos-like %s\nos-version %s\nos-variant %s\n' "$os" "$os_id" "$os_like" "$os_version" "$os_variant"
  printf 'kernel %s\nmodules-dir %s\n' "$kernel" "${modules_dir#"$host"}"
  [ -z "$unread" ] || echo 'unread modules'
  first_line "$proc/sys/kernel/modules_disabled"
  printf 'modules-disabled %s\n' "${first:-0}"
  first_line "$proc/sys/kernel/modprobe"
  printf 'kernel.modprobe %s\n' "$first"
  first_line "$host/sys/kernel/security/lockdown" # "none [integrity] confidentiality"
  first=${first#*\[}
  printf 'lockdown %s\n' "${first%%\]*}"
  first_line "$host/sys/fs/selinux/enforce"
  case $first in 1) first=enforcing ;; 0) first=permissive ;; *) first=off ;; esac
  printf 'selinux %s\n' "$first"
  # systemd has such a link for each unit that is active.
  for unit in firewalld nftables iptables ip6tables; do
    [ ! -L "$host/run/systemd/units/invocation:$unit.service" ] || printf 'service %s\n' "$unit"
  done
  # The host's own tables of iptables-legacy. Empty ones are there too, once something has looked at them.
  for family in ip ip6; do
    file=$host/proc/1/net/${family}_tables_names
    [ -f "$file" ] && [ -r "$file" ] || continue
    while read -r table; do tables="$tables $family/$table"; done <"$file"
  done
  printf 'legacy-tables%s\n' "$tables"
}
