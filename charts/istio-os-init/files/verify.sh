#!/bin/sh
# verify: applies the rules of istio-init with Istio's own code, in the pod's own network namespace.
#
# In:  "$@"                     the arguments that istio-init gives to `pilot-agent istio-iptables`.
#      ISTIO_OS_INIT_BACKENDS   what the plan serves: nft, legacy, native-nft, or several with commas.
#      ISTIO_OS_INIT_IPV6       true: prove IPv6 too where the pod has an IPv6 address. Default false.
#      ISTIO_OS_INIT_STATE      directory with load's file `facts`, and for a mark that rules were applied. Default
#                               /run/istio-os-init.
#      ISTIO_OS_INIT_PROC       where proc is mounted. Default /proc.
#      FORCE_IPTABLES_BINARY    read by Istio: legacy or nft.
# Out: the conclusion: "BACKEND works; OTHER BACKEND ...", or why none does and the fix, and on a second line the kernel's words.
#      $ISTIO_OS_INIT_STATE/verdict, which `report` prints: "KEY VALUE" a line,
#        verdict works|refused; backend BACKEND VERDICT; words WHAT THE KERNEL SAID; reason, sentence, fix for each reason
# Exit: 0 the rules are applied, or the node is not selected; 1 they are not; 3 they were not, and load has to run again (report.sh).
set -u
. "${0%/*}/report.sh"
. "${0%/*}/reasons.sh"
end_at_once "$@"
end_where_not_selected
retry

state=${ISTIO_OS_INIT_STATE:-/run/istio-os-init}
proc=${ISTIO_OS_INIT_PROC:-/proc}
backends=${ISTIO_OS_INIT_BACKENDS:-}

# An address of scope 00 is global; Istio applies IPv6 rules to an IPv4 pod only in dual-stack mode.
has_ipv6() {
  [ -r "$proc/net/if_inet6" ] || return 1
  while read -r _ _ _ scope _; do [ "$scope" = 00 ] && return 0; done <"$proc/net/if_inet6"
  return 1
}

# The backend, from Istio's own log: "Running iptables restore with: iptables-nft-restore and the following input".
backend_used() {
  case " $* " in *' --native-nftables '*) echo native-nft && return ;; esac
  case $log in
    *'iptables-nft-restore'*) echo nft ;;
    *'iptables-legacy-restore'*) echo legacy ;;
    # the image's default, which names itself: "iptables v1.8.10 (nf_tables)", or "(legacy)", or nothing before 1.8
    *) case $(iptables --version 2>/dev/null) in *nf_tables*) echo nft ;; *) echo legacy ;; esac ;;
  esac
}

# The kernel's words: the first line of Istio's log that says what was refused, or else its first error, without what Istio puts
# before it.
words() {
  tab=$(printf '\t')
  known="unable to initialize table|_(ADD|APPEND) failed|Failed to initialize nft|no loaded kernel support|Couldn't load|No such file or directory|not supported|not permitted|denied"
  line=$(printf '%s\n' "$log" | grep -m 1 -E "$known" || printf '%s\n' "$log" | grep -m 1 "${tab}error$tab")
  line=${line##*"$tab"}
  line=${line#Command error: }
  line=${line##*exit status [0-9] }
  printf '%s' "${line#out: }"
}

# try BACKEND: whether a redirecting rule applies with it, without leaving one. 2: not tried. A look through iptables-legacy alone
# makes its tables appear in the pod's network namespace, which sways Istio's choice when verify runs again (istio#61019).
try() {
  case $1 in
    # -c: the kernel checks it all, and undoes it
    native-nft) echo 'table inet t { chain c { type nat hook output priority 0; meta skuid 0 tcp dport 1 redirect to :15001; }; }' | nft -c -f - ;;
    nft)
      iptables-nft -t nat -N ISTIO_OS_INIT &&
        iptables-nft -t nat -A ISTIO_OS_INIT -p tcp -m owner --uid-owner 1337 -j REDIRECT --to-ports 15001
      tried=$?
      iptables-nft -t nat -F ISTIO_OS_INIT
      iptables-nft -t nat -X ISTIO_OS_INIT
      return $tried
      ;;
    *) return 2 ;;
  esac >/dev/null 2>&1
}

# Prints a verdict on each backend that the plan does not serve, "BACKEND VERDICT" a line. One whose modules are not there is
# not tried: the kernel would load what nobody needs.
other_backends() {
  [ -r "$state/facts" ] || return 0
  while read -r key backend verdict; do
    [ "$key" = backend ] || continue
    case ,$backends, in *",$backend,"*) continue ;; esac
    case $verdict in
      present | unknown)
        try "$backend"
        case $?$verdict in 0*) verdict=works ;; 2present) verdict='has its modules' ;; 2*) verdict='not tried' ;; *) verdict=refused ;; esac
        ;;
      loadable) verdict='has its modules on disk' ;;
    esac
    printf '%s %s\n' "$backend" "$verdict"
  done <"$state/facts"
}

# write_verdict works|refused: writes what was found out, and prints the report.
write_verdict() {
  {
    printf 'verdict %s\n' "$1"
    printf '%s' "$verdicts" | while read -r line; do [ -z "$line" ] || printf 'backend %s\n' "$line"; done
    [ -z "$said" ] || printf 'words %s\n' "$said"
    printf '%s' "$reasons" | while read -r reason && read -r _ && read -r sentence && read -r fix; do
      printf 'reason %s\nsentence %s\nfix %s\n' "$reason" "$sentence" "$fix"
    done
  } >"$state/verdict"
  /bin/sh "${0%/*}/report"
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
reasons=
said=
others=$(other_backends)
if [ "$status" -eq 0 ]; then
  used=$(backend_used "$@")
  verdicts="$used works
$others
"
  write_verdict works
  conclude "$used works$(printf '%s\n' "$others" | while read -r line; do [ -z "$line" ] || printf '; %s' "$line"; done)"
  exit 0
fi

said=$(words)
said=${said:-istio-iptables ended with exit code $status}
verdicts="$backends refused
$others
"
explain "$state/facts" "$said" "$backends"
write_verdict refused
say "  Mend it$once_mended."
fail "$(first_reason)
  the kernel says: $said"
