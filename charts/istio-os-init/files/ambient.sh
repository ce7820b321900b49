# shellcheck shell=dash
# Sourced by verify: proves that the kernel takes what ambient's data plane asks of it, in the pod's own network namespace and with
# istio-init's capabilities. Nothing is redirected: no hook leads to these chains.
#
# Facts: matches and targets are those of Istio's cni/pkg/iptables and cni/pkg/nftables, in pods and on the host, which a test compares
#        with Istio's own golden files. Neither proxyv2 nor install-cni has a command that applies them, and proxyv2 has no ipset: of a
#        set that does not exist iptables says so only if the kernel has xt_set and ip_set. Of ip_set_hash_ip only load knows.

# ambient_rules ADDRESS BACKEND: for iptables-restore, of the address's family. A chain that is there already is emptied by its line.
ambient_rules() {
  cat <<RULES
*mangle
:ISTIO_OS_INIT - [0:0]
-A ISTIO_OS_INIT -m mark --mark 0x539/0xfff -j CONNMARK --set-xmark 0x111/0xfff
-A ISTIO_OS_INIT -m connmark --mark 0x111/0xfff -j CONNMARK --restore-mark --nfmask 0xffffffff --ctmask 0xffffffff
COMMIT
*nat
:ISTIO_OS_INIT - [0:0]
-A ISTIO_OS_INIT -s $1 -p tcp -m tcp -j ACCEPT
-A ISTIO_OS_INIT -p tcp ! --dport 15008 -m mark ! --mark 0x539/0xfff -j REDIRECT --to-ports 15006
-A ISTIO_OS_INIT ! -o lo -p udp -m mark ! --mark 0x539/0xfff -m udp --dport 53 -j REDIRECT --to-port 15053
-A ISTIO_OS_INIT -p tcp -j RETURN
-A ISTIO_OS_INIT -p tcp -m owner --socket-exists -j SNAT --to-source $1
COMMIT
*raw
:ISTIO_OS_INIT - [0:0]
-A ISTIO_OS_INIT -p udp -m mark --mark 0x539/0xfff -m udp --dport 53 -j CT --zone 1
-A ISTIO_OS_INIT -p udp -m mark ! --mark 0x539/0xfff -m udp --sport 53 -j CT --zone 1
COMMIT
RULES
  # What reconciles rules reads this table too.
  [ "$2" != legacy ] || printf '%s\n' '*filter' ':ISTIO_OS_INIT - [0:0]' COMMIT
}

# ambient_nft: for nft --check, which has the kernel judge all of it and keep nothing.
ambient_nft() {
  cat <<'RULES'
table inet istio-os-init {
  set probes4 { type ipv4_addr; elements = { 169.254.7.127 }; }
  set probes6 { type ipv6_addr; elements = { fd16:9254:7127:1337:ffff:ffff:ffff:ffff }; }
  chain nat-prerouting {
    type nat hook prerouting priority -100;
    meta l4proto tcp ip saddr 169.254.7.127 counter accept
    ip daddr != 127.0.0.1/32 tcp dport != 15008 mark and 0xfff != 0x539 counter redirect to :15006
    ip6 daddr != ::1/128 tcp dport != 15008 mark and 0xfff != 0x539 counter redirect to :15006
    iifname fake0 meta l4proto tcp counter return
  }
  chain nat-output {
    type nat hook output priority -100;
    oifname != lo mark and 0xfff != 0x539 udp dport 53 counter redirect to :15053
  }
  chain nat-postrouting {
    type nat hook postrouting priority 100;
    meta l4proto tcp skuid 1000 ip daddr @probes4 counter snat ip to 169.254.7.127
    meta l4proto tcp skuid 1000 ip6 daddr @probes6 counter snat ip6 to fd16:9254:7127:1337:ffff:ffff:ffff:ffff
  }
  chain mangle-prerouting {
    type filter hook prerouting priority -150;
    meta mark and 0xfff == 0x539 counter ct mark set ct mark and 0xfffff000 or 0x111
  }
  chain mangle-output {
    type route hook output priority -150;
    ct mark and 0xfff == 0x111 counter meta mark set ct mark
  }
  chain raw-output {
    type filter hook output priority -300;
    udp dport 53 meta mark and 0xfff == 0x539 counter ct zone set 1
    udp sport 53 meta mark and 0xfff != 0x539 counter ct zone set 1
  }
}
RULES
}

# ambient_family BACKEND IPTABLES ADDRESS: whether the kernel takes the rules of one family.
ambient_family() {
  ambient_rules "$3" "$1" >"$rules"
  bounded "$limit" "$2-$1-restore" --noflush "$rules" || return 1
  printf '%s\n' '*nat' ':ISTIO_OS_INIT - [0:0]' '-A ISTIO_OS_INIT -m set --match-set ISTIO_OS_INIT dst -j RETURN' COMMIT >"$rules"
  bounded "$limit" "$2-$1-restore" --noflush "$rules"
  case $text in *"Set ISTIO_OS_INIT doesn't exist"*) ;; *) return 1 ;; esac
}

# ambient_route FAMILY: whether marked packets can be routed to the pod itself.
ambient_route() {
  bounded "$limit" ip "-$1" rule add fwmark 0x111/0xfff lookup 100 pref 32764 &&
    bounded "$limit" ip "-$1" rule delete fwmark 0x111/0xfff lookup 100 pref 32764
}

# ambient_both BACKEND: whether the kernel takes the rules and routes of both families, of IPv6 only if it has IPv6.
ambient_both() {
  case $1 in
    # both families in one table
    native-nft) ambient_nft >"$rules" && bounded "$limit" nft --check --file "$rules" ;;
    *) ambient_family "$1" iptables 169.254.7.127 ;;
  esac && ambient_route 4 || return 1
  [ -e /proc/net/if_inet6 ] || return 0
  [ "$1" = native-nft ] || ambient_family "$1" ip6tables fd16:9254:7127:1337:ffff:ffff:ffff:ffff || return 1
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
