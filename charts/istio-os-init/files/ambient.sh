# shellcheck shell=dash
# Sourced by verify: proves that the kernel takes what ambient's data plane asks of it, in the pod's own network namespace and with
# istio-init's capabilities. Nothing is redirected: no hook leads to the chains.
#
# Facts: Istio's cni/pkg/iptables and cni/pkg/nftables, in pods and on the host; a test compares ours with their golden files.

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
    *) bounded "$limit" perl "${0%/*}/ambient.pl" 4 "iptables-$1-restore" ;;
  esac && ambient_route 4 || return 1
  [ -e /proc/net/if_inet6 ] || return 0
  [ "$1" = native-nft ] || bounded "$limit" perl "${0%/*}/ambient.pl" 6 "ip6tables-$1-restore" || return 1
  ambient_route 6
}

# prove_ambient BACKEND: whether the kernel takes all of it. If not, sets $log to what was said.
prove_ambient() {
  local code=0
  say "trying ambient's rules with $1, for at most $limit s each"
  ambient_both "$1" || code=1
  log=$text
  return "$code"
}
