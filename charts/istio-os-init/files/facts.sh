#!/bin/sh
# shellcheck shell=dash
# facts: prints what the host's files say of the node, without changing anything. load runs it, and limits its time.
#
# In:  plan and backends, beside this script; ISTIO_OS_INIT_HOST and ISTIO_OS_INIT_PROC: see load.sh.
# Out: "KEY VALUE" a line, the most certain first: kernel, os, os-id (none if there is no os-release, unreadable if there is one that
#      cannot be read), os-like, os-version, os-variant, modules-disabled, kernel.modprobe, lockdown, lsm (the security modules), selinux,
#      context (what the security module runs this as), insmod-banned (1: by it), legacy-tables (the host's own tables of iptables-legacy),
#      service for each active one, container (the kind of one, if the host is one), image (ostree, if the host is made of one), modules-dir,
#      modules-dep (missing, if there are modules and no list of them); then
#      see modules.awk.
# Only regular files are read, and links lead from the host's root.
# Source: modprobe.d(5) for the directories and their order.
set -u
export LC_ALL=C

host=${ISTIO_OS_INIT_HOST:-/host}
proc=${ISTIO_OS_INIT_PROC:-/proc}

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

os_facts() {
  local file os_id=none
  for file in /etc/os-release /usr/lib/os-release; do
    if in_host "$file" && [ -f "$found" ]; then
      [ ! -r "$found" ] || { head -c 65536 "$found" | awk -f "${0%/*}/os.awk" && return; }
    else
      while [ -n "$found" ] && [ ! -d "$found" ]; do found=${found%/*}; done
      [ ! -x "$found" ] || continue # there is none
    fi
    os_id=unreadable
  done
  printf 'os unknown\nos-id %s\nos-like \nos-version \nos-variant \n' "$os_id"
}

kernel_facts() {
  local unit tables='' family file table
  first_line "$proc/sys/kernel/modules_disabled"
  printf 'modules-disabled %s\n' "${first:-0}"
  first_line "$proc/sys/kernel/modprobe"
  printf 'kernel.modprobe %s\n' "$first"
  first_line "$host/sys/kernel/security/lockdown" # "none [integrity] confidentiality"
  first=${first#*\[}
  printf 'lockdown %s\n' "${first%%\]*}"
  first_line "$host/sys/kernel/security/lsm"
  printf 'lsm %s\n' "$first"
  first_line "$host/sys/fs/selinux/enforce"
  case $first in 1) first=enforcing ;; 0) first=permissive ;; *) first=off ;; esac
  printf 'selinux %s\n' "$first"
  first_line "$proc/self/attr/current"
  printf 'context %s\n' "$first"
  first_line "$host/sys/fs/selinux/booleans/secure_mode_insmod" # "1 1", now and next
  printf 'insmod-banned %s\n' "${first%% *}"
  for unit in firewalld nftables iptables ip6tables; do # systemd has such a link for each unit that is active
    [ ! -L "$host/run/systemd/units/invocation:$unit.service" ] || printf 'service %s\n' "$unit"
  done
  first_line "$host/run/systemd/container"
  [ -z "$first" ] || printf 'container %s\n' "$first"
  [ ! -e "$host/run/ostree-booted" ] || echo 'image ostree'
  for family in ip ip6; do # empty tables are there too, once something has looked at them
    file=$host/proc/1/net/${family}_tables_names
    { [ -f "$file" ] && [ -r "$file" ]; } || continue
    while read -r table; do tables="$tables $family/$table"; done <"$file"
  done
  printf 'legacy-tables%s\n' "$tables"
}

# host_file PATH: for modules.awk, a file of the host and where it lies.
host_file() {
  in_host "$1" && [ -f "$found" ] || found=
  printf '%s\n%s\n' "$1" "$found"
}

# The files that tell of modules, for modules.awk.
module_files() {
  local dir file dirs=' '
  [ -z "$modules_dir" ] || for file in "$modules_dir/modules.dep" "$modules_dir/modules.builtin" "$modules_dir/config" "/boot/config-$kernel"; do host_file "$file"; done
  [ ! -f "$proc/cmdline" ] || printf '/proc/cmdline\n%s\n' "$proc/cmdline"
  for dir in /etc /run /usr/local/lib /usr/lib /lib; do
    { in_host "$dir/modprobe.d" && [ -d "$found" ]; } || continue
    case $dirs in *" $found "*) continue ;; esac
    dirs="$dirs$found "
    for file in "$found"/*.conf; do
      case $file in
        *[!\ -~]*) ;; # a name that no line can show
        *) if [ -L "$file" ]; then host_file "${file#"$host"}"; elif [ -f "$file" ]; then printf '%s\n%s\n' "${file#"$host"}" "$file"; fi ;;
      esac
    done
  done
}

# Sets modules_dir, the directory of the running kernel's modules on the host, empty if there is none.
find_modules_dir() {
  local dir
  modules_dir=
  for dir in /usr/lib /lib; do
    in_host "$dir/modules/$kernel" && [ -d "$found" ] && modules_dir=${found#"$host"} && return
  done
}

first_line "$proc/sys/kernel/osrelease"
kernel=${first:-unknown}
printf 'kernel %s\n' "$kernel"
os_facts
kernel_facts
find_modules_dir
printf 'modules-dir %s\n' "$modules_dir"
if [ -n "$modules_dir" ] && [ -d "$host$modules_dir/kernel" ] && [ ! -s "$host$modules_dir/modules.dep" ]; then echo 'modules-dep missing'; fi
module_files | files=${0%/*} awk -f "${0%/*}/text.awk" -f "${0%/*}/modules.awk"
