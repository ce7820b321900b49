# shellcheck shell=sh
# Debian's packages of any suite, without touching what this host has installed or where it gets its own from. Sourced.
#
# Input:  the host's own apt sources, when it is a Debian: its mirror or snapshot serves the other suites too.
# Output: functions debian_archive, apt_lists, isolated.
# Facts:  apt-get(8) indextargets; apt.conf(5) "Directories". Signatures are verified against debian-archive-keyring.

# debian_archive SUITE: apt's "deb" lines for one of Debian's suites and its security updates. Fails where the host's apt
# knows no Debian archive.
debian_archive() {
  # shellcheck disable=SC2016 # expanded by apt-get
  own=$(apt-get indextargets --format '$(RELEASE) $(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' 2>/dev/null) || true
  archive=$(printf '%s\n' "$own" | sed -n '/^[a-z]* /{s/.* //p;q}')
  security=$(printf '%s\n' "$own" | sed -n '/^[a-z]*-security /{s/.* //p;q}')
  keys='[signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]'
  if [ -z "$archive" ]; then
    echo "this host's apt knows no Debian archive, where the VM's kernels come from: add a Debian source to it" >&2
    return 1
  fi
  echo "deb $keys $archive $1 main"
  case $1 in
    sid | *-backports) ;;
    *) [ -z "$security" ] || echo "deb $keys $security $1-security main" ;;
  esac
}

# apt_lists DIR SUITE STATUS: brings the lists of a suite up to date in DIR, for `isolated`.
# STATUS: dpkg's status file of the system that packages are wanted for; empty: none is installed.
apt_lists() {
  apt=$1
  status=${3:-$apt/status}
  mkdir -p "$apt/lists/partial" "$apt/archives/partial"
  [ -n "$3" ] || : >"$status"
  debian_archive "$2" >"$apt/sources.list"
  isolated apt-get update
}

# isolated COMMAND ARGUMENT...: an apt command that knows of this host only how it reaches the network.
isolated() {
  "$@" -q -o Dir::State="$apt" -o Dir::State::status="$status" -o Dir::Cache="$apt" \
    -o Dir::Etc::SourceList="$apt/sources.list" -o Dir::Etc::SourceParts=/dev/null -o Dir::Etc::Preferences=/dev/null \
    -o Dir::Etc::PreferencesParts=/dev/null -o APT::Architecture=amd64 -o APT::Architectures=amd64 \
    -o APT::Sandbox::User=root -o Acquire::Languages=none -o Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false
}
