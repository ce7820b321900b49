#!/bin/sh
# verify-traffic: sends traffic through the rules that verify has applied, as uid 1337, and looks where it arrives.
#
# Istio's own probe: it connects to 127.0.0.6:15002 and must arrive at the proxy's port (tools/istio-iptables/pkg/validation).
#
# In:  "$@"  the arguments that istio-init gives to `pilot-agent istio-iptables`.
# Out: the conclusion, one sentence.
# Exit: 0 traffic is redirected, or the node is not selected; 1 it is not; 3 it was not, and load has to run again (report.sh).
set -u
. "${0%/*}/report.sh"
end_at_once "$@"
end_where_not_selected
retry

log=$(pilot-agent istio-iptables "$@" --run-validation --skip-rule-apply 2>&1)
status=$?
say "$log"
if [ "$status" -eq 0 ]; then
  conclude "redirected: a connection of the proxy's user arrived at the proxy's port"
  proven "RedirectionProven: istio-init's rules apply on this node, and redirect traffic."
  exit 0
fi
fail "TrafficNotRedirected: istio-init's rules are applied, but the connection of Istio's probe did not arrive at the proxy's port (exit code $status). Fix: look for rules of another program on the node, and for a kernel without NAT$once_mended."
