# report.awk: prints what is known of the node. Needs text.awk, and config.awk for any other form than these.
#
# In, standard input: "KEY VALUE" a line: node, round, status, line, message, error and the outcome's reasons and backends
# (outcome.sh); then the line "facts", and the file facts (load.sh). Environment: form: report and its arguments; or condition, the patch
# by which signal applies the node's condition, with its times since and now.
# Exit: 0; 1, with a sentence on standard error, if there is nothing to print; 2 if an argument is unknown.

!in_facts && $0 == "facts" { in_facts = 1; next }
!in_facts && $1 == "reason" { reason[++reasons] = $2; next }
!in_facts && $1 ~ /^(subject|sentence|fix)$/ { of[reasons, $1] = rest(1); next }
!in_facts && $1 == "backend" {
  backends = backends "  " $0 "\n"
  if (!($2 in tried)) json_backends = item(json_backends, member($2, rest(2)))
  tried[$2]
  next
}
!in_facts && $1 == "path" {
  paths = paths "  " $0 "\n"
  json_paths = item(json_paths, "{" member("path", $2) ", " member("family", "IPv" $3) ", " member("result", rest(3)) "}")
  next
}
!in_facts { outcome[$1] = rest(1); next }

NF { known = 1 }
$1 == "module" {
  modules = item(modules, "{" member("name", $2) ", " member("state", $3) "}")
  having[$3] = having[$3] " " $2
}
$1 == "missing" {
  missing = item(missing, "{" member("name", $2) ", " member("disk", $3) ", " member("modprobe", rest(3)) "}")
  lines = lines "  missing: " $2 ($3 == "monolithic" ? "; this kernel has no modules, so only the proof tells" : ", " $3) (NF > 3 ? "; modprobe: " rest(3) : "") "\n"
}
$1 == "rule" {
  at = index($0 " // ", " // ")
  place = substr($0, 1, at - 1)
  sub(/^rule [^ ]* [^ ]* /, "", place)
  rules = item(rules, "{" member("kind", $2) ", " member("name", $3) ", " member("where", place) ", " member("command", substr($0, at + 4)) "}")
  rule_lines = rule_lines "  rule: " rest(1) "\n"
  if ($2 == "blacklist") warn($3 " is blocklisted (" place "): loaded by its name now, but not at boot")
  else if ($2 != "module_blacklist" && outcome["status"] == "True" && $0 !~ /--ignore-install/) warn($3 " is overridden (" place "): loaded now, but not after a reboot")
}
$1 ~ /^(gone|unbuilt)$/ { lines = lines "  " $1 ": " rest(1) "\n" }
$1 == "service" {
  services = item(services, quoted($2))
  active[++actives] = $2 == "firewalld" ? "firewalld is active: when it stops or reloads completely, it may unload modules (always before 1.0)" : $2 ".service is active: its rules are the host's, and do not reach into pods"
}
$1 == "capability" { capabilities = item(capabilities, quoted($2) ": " ($3 == "yes" ? "true" : "false")) }
$1 !~ /^(module|missing|rule|service|capability|backend|kept|needs|would|origin|)$/ && !($1 in fact) {
  facts = item(facts, member($1, rest(1)))
  fact[$1] = rest(1)
}

function warn(text) {
  warnings = warnings "  warning: " text "\n"
  json_warnings = item(json_warnings, quoted(text))
}

function print_text(   i) {
  if (outcome["status"] == "True") print "node " outcome["node"] " can run the mesh: " outcome["line"]
  else if (outcome["status"] == "False") print "node " outcome["node"] " CANNOT run the mesh"
  else print "node " outcome["node"] ": not proven: " outcome["line"]
  if (outcome["error"] != "") print "  the kernel says: " outcome["error"]
  printf "%s%s", backends, paths
  if (outcome["ambient"] == "applies") print "  sidecars and ambient: the rules of both apply"
  else if (outcome["ambient"] != "") print "  sidecars only: their rules apply, and ambient's do not"
  if (outcome["status"] == "False")
    for (i = 1; i <= reasons; i++) print "\n  " reason[i] ": " of[i, "sentence"] "\n" ((i, "fix") in of ? "    Fix: " of[i, "fix"] "\n" : "")
  printf "%s", warnings
  print "  os " fact["os"] "; kernel " fact["kernel"]
  if (reason[1] == "NotSelected") return
  print "  selinux " fact["selinux"] "; lockdown " fact["lockdown"] "; kernel.modules_disabled " fact["modules-disabled"] "; kernel.modprobe " fact["kernel.modprobe"]
  print "  modules of the kernel on disk: " fact["kernel-files"] + 0 ", in " fact["modules-dir"] (fact["modules-dep"] == "" ? "" : ", their list is missing") (fact["container"] == "" ? "" : "; this node is a container: " fact["container"])
  print "  the host's own tables of iptables-legacy: " fact["legacy-tables"]
  print "  loaded-now:" having["loaded-now"] "\n  loaded-before:" having["loaded-before"] "\n  built-in:" having["built-in"]
  printf "%s%s", lines, rule_lines
}

function print_json(   i, list) {
  for (i = 1; i <= reasons; i++)
    list = item(list, "{" member("reason", reason[i]) ", " member("subject", of[i, "subject"]) ", " member("sentence", of[i, "sentence"]) ", " member("fix", of[i, "fix"]) "}")
  printf "{\"round\": %s, ", outcome["round"]
  printf "%s, %s, ", member("node", outcome["node"]), member("status", outcome["status"])
  printf "%s, %s, ", member("reason", reason[1]), member("line", outcome["line"])
  printf "%s, %s, ", member("message", outcome["message"]), member("error", outcome["error"])
  print "\"backends\": {" json_backends "}, \"paths\": [" json_paths "], \"ambient\": " quoted(outcome["ambient"]) ", \"facts\": {" facts "}, \"capabilities\": {" capabilities "},"
  print "\"reasons\": [" list "], \"warnings\": [" json_warnings "],"
  print "\"modules\": [" modules "], \"missing\": [" missing "],"
  print "\"rules\": [" rules "], \"services\": [" services "]}"
}

function print_condition() {
  print "{\"apiVersion\": \"v1\", \"kind\": \"Node\", \"metadata\": {" member("name", outcome["node"]) "}, \"status\": {\"conditions\": [{" \
    member("type", "IstioReady") ", " member("status", outcome["status"]) ", " member("reason", reason[1]) ", " member("message", outcome["message"]) ", " \
    member("lastHeartbeatTime", outcome["now"]) ", " member("lastTransitionTime", outcome["since"]) "}]}}"
}

# Ends the program, with a sentence on standard error.
function refuse(code, sentence) {
  gsub(/[^ -~]/, "?", sentence)
  print sentence >"/dev/stderr"
  exit code
}

END {
  for (i = 1; i <= actives; i++) warn(active[i])
  form = ENVIRON["form"]
  if (form == "condition") {
    print_condition()
    exit
  }
  sub(/^report ?/, "", form)
  sub(/^--machineconfig$/, "--config machineconfig", form)
  sub(/^--config=/, "--config ", form)
  if (form !~ /^(--json|--config( .*)?)?$/) refuse(2, quoted(form) " is unknown. Use report, report --json or report --config FORM.")
  if (form ~ /^--config/) print_config(substr(form, 10))
  if (!reasons && !known) refuse(1, "nothing is known of node " outcome["node"] " yet: load has not run.")
  if (form == "") print_text()
  else print_json()
}
