#!/bin/sh
# shellcheck shell=dash
# verify: applies the rules of istio-init with Istio's own code, in the pod's own network namespace.
#
# In:  "$@"                     the arguments that istio-init gives to `pilot-agent istio-iptables`.
#      ISTIO_OS_INIT_BACKENDS   what the plan serves: nft, legacy, native-nft, or several with commas.
#      ISTIO_OS_INIT_CNI        true: istio-cni programs the pods, with the host's iptables. Default false.
#      ISTIO_OS_INIT_TEST       the node's name, in the pod of helm test, which has no load, and fails if the rules are refused. Default: none.
#      ISTIO_OS_INIT_AMBIENT    the mesh has an ambient data plane, so ambient.sh proves its rules too; auto: istio-cni's agent chooses its
#                               backend itself, told: it is told. Default: none.
#      FORCE_IPTABLES_BINARY    read by Istio: legacy or nft. So are ISTIO_DUAL_STACK and INVALID_DROP.
# Out: the outcome (outcome.sh): RulesApplied, which verify-traffic has to complete, or why they do not apply. Its lines
#      "backend NAME works|refused|lacks ..." say what is known of each backend, and "path PATH FAMILY arrived|lost|untried ..."
#      where traffic arrives (paths.pl); "ambient applies|refused" whether ambient's rules do.
# Exit: 0, whatever was found out: watch holds the verdict. With ISTIO_OS_INIT_TEST: 1 if the rules are refused.
set -u
own=verify
. "${0%/*}/outcome.sh"
end_at_once "$@"

backends=${ISTIO_OS_INIT_BACKENDS:-}
cni=${ISTIO_OS_INIT_CNI:-false}
test=${ISTIO_OS_INIT_TEST-}
case $test in ?*) unproven=1 ;; *) unproven=0 ;; esac # this container's exit code
shims='' used='' lost=''
limit=60

# hide KIND: iptables-KIND fails when Istio asks it for the rules in place, so Istio does not choose it. What stands in its place lies in
# this container's own file system, where no other container writes.
hide() {
  local save
  [ -n "$shims" ] || { shims=$(mktemp -d) && PATH=$shims:$PATH; } || return 0
  for save in "iptables-$1-save" "ip6tables-$1-save"; do
    printf '#!/bin/sh\nexit 1\n' >"$shims/$save" && chmod +x "$shims/$save"
  done
}

# as_on_host KIND: Istio finds what istio-cni finds on a host with iptables-KIND only: the plain names are iptables-KIND's too. An Istio
# before 1.28 cannot be asked for a backend. The programs are the image's: nothing of the host is mounted here.
as_on_host() {
  local name part other=nft
  [ "$1" != nft ] || other=legacy
  hide "$other"
  for name in iptables ip6tables; do
    for part in '' -save -restore; do ln -sf "$(command -v "$name-$1$part")" "$shims/$name$part"; done
  done
}

# serves BACKEND: whether the plan does.
serves() { case ,$backends, in *",$1,"*) ;; *) return 1 ;; esac }

# The backend, from Istio's own log: "Running iptables restore with: iptables-nft-restore and the following input". Istio chooses for IPv6 apart:
# of two backends it is the one that the plan does not serve.
backend_used() {
  local program kind
  case " $* " in *' --native-nftables '*) echo native-nft && return ;; esac
  for program in iptables ip6tables; do
    case $program:$log in
      *"$program-nft-restore"*) kind=nft ;;
      *"$program-legacy-restore"*) kind=legacy ;;
      iptables:* | *" $program-restore"*)
        # the image's default, which names itself: "iptables v1.8.10 (nf_tables)", or "(legacy)", or nothing before 1.8
        case $(timeout 10 "$program" --version 2>/dev/null) in *nf_tables*) kind=nft ;; *) kind=legacy ;; esac
        ;;
    esac
    serves "$kind" || break
  done
  echo "$kind"
}

# The kernel's words: the first line of Istio's log that says what was refused, or else its first error, without what Istio puts
# before it. (data has made a space of each tab.)
words() {
  local line known="unable to initialize table|_(ADD|APPEND) failed|Failed to initialize nft|no loaded kernel support|Couldn't load|No such file or directory|not supported|not permitted|denied"
  line=$(printf '%s\n' "$log" | grep -m 1 -E "$known" || printf '%s\n' "$log" | grep -m 1 ' error ')
  case $line in *[0-9]Z' '*' '*) line=${line#*Z } line=${line#* } ;; esac
  line=${line#Command error: }
  line=${line#Command error output: } # before Istio 1.25
  line=${line##*exit status [0-9] }
  printf '%.500s' "${line#out: }"
}

# try BACKEND: whether a redirecting rule applies with it, without leaving one. 2: not tried, as nft where Istio has succeeded: an empty table
# is left, by which an Istio before 1.25.4 would choose nft when verify runs again. A look through iptables-legacy makes its tables appear in
# the pod's network namespace, by which it would choose legacy (istio#61019).
try() {
  local tried
  case $code:$1 in
    0:nft) return 2 ;;
    # -c: the kernel checks it all, and undoes it
    *:native-nft) echo 'table inet t { chain c { type nat hook output priority 0; meta skuid 0 tcp dport 1 redirect to :15001; }; }' | timeout 10 nft -c -f - ;;
    *:nft)
      timeout 10 iptables-nft -t nat -N ISTIO_OS_INIT &&
        timeout 10 iptables-nft -t nat -A ISTIO_OS_INIT -p tcp -m owner --uid-owner 1337 -j REDIRECT --to-ports 15001
      tried=$?
      timeout 10 iptables-nft -t nat -F ISTIO_OS_INIT
      timeout 10 iptables-nft -t nat -X ISTIO_OS_INIT
      return $tried
      ;;
    *) return 2 ;;
  esac >/dev/null 2>&1
}

# other_backends: adds to $findings what is known of each backend that neither the plan serves nor Istio has used. One whose modules are not
# there is not tried: the kernel would load what nothing needs.
other_backends() {
  local key backend found_out
  while read -r key backend found_out; do
    [ "$key" = backend ] || continue
    case ,$backends,$used, in *",$backend,"*) continue ;; esac
    case $found_out in
      present | unknown)
        try "$backend"
        case $?$found_out in 0*) found_out=works ;; 2present | 127present) found_out='has its modules' ;; 2* | 127*) found_out='not tried' ;; *) found_out=refused ;; esac
        ;;
      loadable) found_out='has its modules on disk' ;;
    esac
    findings="${findings}backend $backend $found_out$line_break"
  done <<END
$facts
END
}

# flush: removes the rules and chains of every table of the pod's network namespace. Only tables that are there are touched.
flush() {
  local program table
  for program in iptables ip6tables; do
    for table in $(timeout 10 "$program-save" 2>/dev/null | sed -n 's/^\*//p'); do
      timeout 10 "$program" -t "$table" -F && timeout 10 "$program" -t "$table" -X
    done
  done
}

# cut_wire: removes what a paths.pl that was ended has left: an address by which Istio would take the pod for one of IPv4.
cut_wire() { ! grep -q '^ *osi-near:' /proc/self/net/dev || timeout 10 ip link delete osi-near; }

# clean_slate: a second start in the same pod proves as much as a mesh pod's first: without the rules that are in place, and
# without the table that Istio's own probe of iptables-legacy has left behind, by which it would now choose legacy. Before 1.24 Istio
# knows no CLEANUP_ONLY and would apply the rules once more; its istio-clean-iptables leaves chains behind (seen: 1.23).
clean_slate() {
  [ "$cni" = true ] || [ "${FORCE_IPTABLES_BINARY:-}" = legacy ] || hide legacy
  say "removing the rules of this container's last start, for at most $limit s"
  cut_wire
  bounded 10 pilot-agent istio-iptables --help
  case $text in
    *--cleanup-only*) CLEANUP_ONLY=true bounded "$limit" pilot-agent istio-iptables "$@" ;;
    *) flush ;;
  esac
}

# try_paths ARGUMENT...: adds to $findings where traffic arrives, and sets $lost to the paths on which it does not.
# shellcheck disable=SC2086 # one or two families
try_paths() {
  local mode=REDIRECT dns=false families=4 code key path family result
  case " $* " in *' TPROXY '*) mode=TPROXY ;; esac
  case " $* " in *' --redirect-dns '*) dns=true ;; esac
  case $log in *ENABLE_INBOUND_IPV6=true*) families='4 6' ;; esac
  bounded "$limit" perl "${0%/*}/paths.pl" "$mode" "$dns" $families
  code=$?
  [ "$code" -ne 127 ] || text=$(printf 'path all %s untried the image has no perl\n' $families) code=0
  [ "$code" -eq 0 ] || { text=$text$line_break$(printf "path others %s untried exit code $code\n" $families) && cut_wire; }
  while read -r key path family result; do
    [ "$key" = path ] || continue
    findings="${findings}path $path $family $result$line_break"
    [ "$result" != lost ] || lost="$lost${lost:+, }$path over IPv$family"
  done <<END
$text
END
}

# judge ARGUMENT...: concludes what the rules that are applied are worth.
judge() {
  local mismatch=
  if serves "$used"; then try_paths "$@"; else mismatch=$used; fi
  # istio-cni's agent chooses by the host's own tables, in pods too
  case ${ISTIO_OS_INIT_AMBIENT-}:$used:$facts in auto:nft:*"${line_break}legacy-tables "*) mismatch=legacy findings="${findings}ambient refused$line_break" ;; esac
  if [ -n "$lost" ]; then
    conclude TrafficNotRedirected "$lost"
  elif [ -n "$mismatch" ]; then
    conclude BackendMismatch "$mismatch"
  elif [ -z "${ISTIO_OS_INIT_AMBIENT-}" ]; then
    conclude RulesApplied "$used"
  elif . "${0%/*}/ambient.sh" && prove_ambient "$used"; then
    findings="${findings}ambient applies$line_break"
    conclude RulesApplied "$used, ambient's rules too"
  else
    error=$(words)
    error="ambient: ${error:-${log%%"$line_break"*}}"
    findings="${findings}ambient refused$line_break"
    conclude explain ''
  fi
}

# begin: ends this container if load has decided already, or could record nothing. Records that rules are being applied, after
# removing those of an earlier start in the same pod sandbox.
begin() {
  local before=
  ! read_outcome verify || before=$round
  if [ -n "$test" ]; then
    round=0
  elif ! read_outcome load; then
    tell 'load has recorded nothing, so nothing is proven' && exit 0
  elif [ "$status" != Unknown ]; then
    tell "$line" && exit 0
  fi
  data "$state/load/facts" 65536 || :
  facts=$text
  [ "$before" != "$round" ] || clean_slate "$@"
  error='' findings=''
  conclude Applying "$backends" || exit "$unproven"
}

case $cni:$backends in true:nft | true:legacy) as_on_host "$backends" ;; esac
begin "$@"
say "applying istio-init's rules${test:+ on node $test}, for at most $limit s"
bounded "$limit" pilot-agent istio-iptables "$@"
code=$?
log=$text
say "$log"
if [ "$code" -eq 0 ]; then
  used=$(backend_used "$@")
  findings="backend $used works$line_break"
  other_backends
  judge "$@" || status=
elif [ "$code" -eq 124 ]; then
  conclude RulesHang "$backends" || :
else
  error=$(words)
  error=${error:-istio-iptables ended with exit code $code}
  findings="backend $backends refused$line_break"
  other_backends
  conclude explain '' || :
fi
if [ -n "$test" ]; then
  [ "$status $reason" = 'Unknown RulesApplied' ] || exit 1
  say "passed: istio-init's rules apply on node $test, in a pod that loads nothing"
fi
