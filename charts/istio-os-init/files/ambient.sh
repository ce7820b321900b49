# shellcheck shell=dash
# Sourced by verify: proves that the kernel takes what ambient's data plane asks of it, in the pod's own network namespace and with
# istio-init's capabilities. Nothing is redirected: no hook leads to the chains.
#
# Facts: Istio's cni/pkg/iptables and cni/pkg/nftables, in pods and on the host; a test compares ours with their golden files.

# ambient_family FAMILY BACKEND PROGRAM: whether the kernel takes a family's rules and routes. ambient.nft has both families in one table.
ambient_family() {
  if [ "$2" = native-nft ]; then
    bounded "$limit" nft --check --file "${0%/*}/ambient.nft"
  else
    bounded "$limit" perl "${0%/*}/ambient.pl" "$1" "$3" ||
      { [ $? -ne 127 ] || text='the image has no perl, which makes the set of these rules' && false; }
  fi &&
    bounded "$limit" ip "-$1" rule add fwmark 0x111/0xfff lookup 100 pref 32764 &&
    bounded "$limit" ip "-$1" rule delete fwmark 0x111/0xfff lookup 100 pref 32764
}

# prove_ambient BACKEND: whether the kernel takes all of it, without IPv6 if the agent is told so. If not, sets $log to what was said.
prove_ambient() {
  say "trying ambient's rules with $1, for at most $limit s each"
  ambient_family 4 "$1" "iptables-$1-restore" || { log=$text && return 1; }
  [ "${AMBIENT_IPV6:-true}" != false ] || return 0
  [ -e "${ISTIO_OS_INIT_PROC:-/proc}/net/if_inet6" ] || { log="no IPv6 here, which istio-cni's agent needs unless its chart's ambient.ipv6 is false (extraEnv AMBIENT_IPV6 then too)" && return 1; }
  ambient_family 6 "$1" "ip6tables-$1-restore" || { log=$text && return 1; }
}
