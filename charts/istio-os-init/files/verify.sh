#!/bin/sh
# verify: applies the rules of istio-init with Istio's own code, in the pod's own network namespace.
#
# In:  "$@"                   the arguments that istio-init gives to `pilot-agent istio-iptables`.
#      ISTIO_OS_INIT_IPV6     true: prove IPv6 too where the pod has an IPv6 address. Default false.
#      ISTIO_OS_INIT_STATE    directory with load's file `missing`, and for a mark that rules were applied. Default /run/istio-os-init.
#      ISTIO_OS_INIT_PROC     where proc is mounted. Default /proc.
#      FORCE_IPTABLES_BINARY  read by Istio: legacy or nft.
# Out: the backend that works (nft, legacy, native-nft) as the conclusion's first word, or the reason why none does.
# Exit: 0 the rules are applied; 1 they are not; 3 they were not, and load has to run again (report.sh).
set -u
. "${0%/*}/report.sh"
end_at_once "$@"
retry

state=${ISTIO_OS_INIT_STATE:-/run/istio-os-init}
proc=${ISTIO_OS_INIT_PROC:-/proc}

# An address of scope 00 is global; Istio applies IPv6 rules to an IPv4 pod only in dual-stack mode.
has_ipv6() {
  [ -r "$proc/net/if_inet6" ] || return 1
  while read -r _ _ _ scope _; do [ "$scope" = 00 ] && return 0; done <"$proc/net/if_inet6"
  return 1
}

# The backend, from Istio's own log: "Running iptables restore with: iptables-nft-restore and the following input".
backend() {
  case " $* " in *' --native-nftables '*) echo native-nft && return ;; esac
  case $log in
    *'iptables-nft-restore'*) echo nft ;;
    *'iptables-legacy-restore'*) echo legacy ;;
    # the image's default, which names itself: "iptables v1.8.10 (nf_tables)", or "(legacy)", or nothing before 1.8
    *) case $(iptables --version 2>/dev/null) in *nf_tables*) echo nft ;; *) echo legacy ;; esac ;;
  esac
}

# The kernel's words: the first line of Istio's log that says what was refused, without the time and level before it.
words() {
  tab=$(printf '\t')
  printf '%s\n' "$log" | while read -r line; do
    case $line in
      *'unable to initialize table'* | *'_ADD failed'* | *'_APPEND failed'* | *'Failed to initialize nft'* | *'no loaded kernel support'* | *"Couldn't load"* | *'No such file or directory'* | *'not supported'* | *'not permitted'* | *'denied'*)
        line=${line##*"$tab"}
        printf '%s' "${line#Command error: }" && break
        ;;
    esac
  done
}

if [ "${ISTIO_OS_INIT_IPV6:-false}" = true ] && has_ipv6; then
  export ISTIO_DUAL_STACK="${ISTIO_DUAL_STACK:-true}"
fi

# A second start in the same pod proves as much as a mesh pod's first: without the rules that are in place, and without the table
# that Istio's own probe of iptables-legacy has left behind, by which it would now choose legacy.
if [ -e "$state/applied" ]; then
  if [ "${FORCE_IPTABLES_BINARY:-}" != legacy ]; then
    for save in iptables-legacy-save ip6tables-legacy-save; do
      mkdir -p "$state/bin" && printf '#!/bin/sh\nexit 1\n' >"$state/bin/$save" && chmod +x "$state/bin/$save"
    done
    PATH=$state/bin:$PATH
  fi
  CLEANUP_ONLY=true pilot-agent istio-iptables "$@" >/dev/null 2>&1
fi
printf '' 2>/dev/null >"$state/applied"

log=$(pilot-agent istio-iptables "$@" 2>&1)
status=$?
say "$log"
if [ "$status" -eq 0 ]; then
  conclude "$(backend "$@") works: istio-iptables applied the rules of istio-init"
  exit 0
fi

reason=$(words)
missing=
[ -r "$state/missing" ] && while IFS=: read -r name _; do missing="$missing $name"; done <"$state/missing"
fail "RulesRejected: ${reason:-istio-iptables ended with exit code $status}${missing:+; not found by load:$missing}. Fix: make the node load what the rules need (the log of container load has modprobe's words)$once_mended."
