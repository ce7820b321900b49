# shellcheck shell=dash
# Sourced by verify: proves that the kernel takes what ambient's data plane asks of it, in the pod's own network namespace and with
# istio-init's capabilities. Nothing is redirected: no hook leads to the chains.
#
# Facts: matches and targets in ambient.iptables and ambient.nft are those of Istio's cni/pkg/iptables and cni/pkg/nftables, in pods and on
#        the host, which a test compares with Istio's own golden files. Neither proxyv2 nor install-cni has a command that applies them.

# ambient_family BACKEND FAMILY IPTABLES ADDRESS: whether the kernel takes the rules of one family, and their set. A set that a rule names
# cannot be removed.
ambient_family() {
  local refused code=0
  remove_set "$1" "$2" "$3"
  bounded "$limit" perl "${0%/*}/ambient.pl" create "$2" ISTIO_OS_INIT || return 1
  # the file comes without its last line break (_config.tpl), and iptables-legacy-restore knows no COMMIT without one
  { sed "s/ADDRESS/$4/" "${0%/*}/ambient.iptables" && echo; } >"$rules"
  bounded "$limit" "$3-$1-restore" --noflush "$rules" || code=1
  refused=$text
  remove_set "$1" "$2" "$3"
  text=$refused
  return "$code"
}

# remove_set BACKEND FAMILY IPTABLES: with the rule that names it.
remove_set() {
  printf '%s\n' '*nat' ':ISTIO_OS_INIT - [0:0]' COMMIT | timeout 10 "$3-$1-restore" --noflush
  timeout 10 perl "${0%/*}/ambient.pl" destroy "$2" ISTIO_OS_INIT
} >/dev/null 2>&1

# ambient_route FAMILY: whether marked packets can be routed to the pod itself.
ambient_route() {
  bounded "$limit" ip "-$1" rule add fwmark 0x111/0xfff lookup 100 pref 32764 &&
    bounded "$limit" ip "-$1" rule delete fwmark 0x111/0xfff lookup 100 pref 32764
}

# ambient_both BACKEND: whether the kernel takes the rules and routes of both families, of IPv6 only if it has IPv6.
ambient_both() {
  case $1 in
    # both families in one table
    native-nft) bounded "$limit" nft --check --file "${0%/*}/ambient.nft" ;;
    *) ambient_family "$1" 4 iptables 169.254.7.127 ;;
  esac && ambient_route 4 || return 1
  [ -e /proc/net/if_inet6 ] || return 0
  [ "$1" = native-nft ] || ambient_family "$1" 6 ip6tables fd16:9254:7127:1337:ffff:ffff:ffff:ffff || return 1
  ambient_route 6
}

# prove_ambient BACKEND: whether the kernel takes all of it. If not, sets $log to what was said.
prove_ambient() {
  local rules code=0
  say "trying ambient's rules with $1, for at most $limit s each"
  rules=$(mktemp) || return 1
  ambient_both "$1" || code=1
  log=$text
  rm -f "$rules"
  return "$code"
}
