#!/bin/sh
# shellcheck shell=dash
# verify-traffic: sends traffic through the rules that verify has applied, as uid 1337, and looks where it arrives.
#
# Istio's own probe: it connects to 127.0.0.6:15002 and must arrive at the proxy's port (tools/istio-iptables/pkg/validation).
#
# In:  "$@"  the arguments that istio-init gives to `pilot-agent istio-iptables`.
# Out: the outcome (outcome.sh): whether traffic is redirected. None of its own if load or verify has decided already.
# Exit: 0, whatever was found out: watch holds the verdict.
set -u
own=traffic
. "${0%/*}/outcome.sh"
end_at_once "$@"

limit=60

# arrivals: sets $arrived to what verify has found of ambient's rules and of its own traffic (paths.pl), besides what arrives here.
arrivals() {
  local key path family result ambient='' untried=
  arrived="a connection of the proxy's user"
  while read -r key path family result; do
    case $key:$result in
      path:arrived) arrived="$arrived, $path over IPv$family" ;;
      ambient:*) ambient="; ambient's rules apply" ;;
      path:untried*) untried="$untried, $path over IPv$family" ;;
    esac
  done <<END
$findings
END
  arrived="$arrived$ambient${untried:+; not tried: ${untried#, }}"
}

read_outcome load || reason=
[ "$reason" != ModulesSeen ] || only_looked=yes
find_outcome
# what it recorded at an earlier start of its own is proven anew
[ "$writer" != traffic ] || read_outcome verify || reason=
[ "$reason" = RulesApplied ] || { tell_outcome && exit 0; }
say "sending Istio's probe through the rules, for at most $limit s"
bounded "$limit" pilot-agent istio-iptables "$@" --run-validation --skip-rule-apply
code=$?
say "$text"
case $code in
  0)
    arrivals
    if [ -n "${only_looked-}" ]; then conclude NodePrepared "$arrived"; else conclude RedirectionProven "$arrived"; fi
    ;;
  124) conclude TrafficHangs "no answer within $limit s" ;;
  *) conclude TrafficNotRedirected "exit code $code" ;;
esac
exit 0
