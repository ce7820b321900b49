# explain.awk: classifies the facts that load found by the reasons of the catalogue: why a node cannot run the mesh. Runs
# before outcome.awk. Needs text.awk.
#
# In, standard input: the file facts (load.sh). Environment: files, the directory of the file remedies; error, what the kernel said
# to istio-init's rules, empty if nothing tried them; backend, the one that failed, empty: none.
# Out: add(), the most decisive reason first.

{ fact[$1] = rest(1) }
$1 == "missing" { missing[++missed] = $2; disk[$2] = $3; says[$2] = rest(3) }
$1 == "rule" && !(($2, $3) in rule) { rule[$2, $3] = rest(3) }
$1 == "capability" && $3 == "no" { no_capability = no_capability " " $2 }
$1 == "backend" && $2 == ENVIRON["backend"] && $3 == "lacks" { own_lacks = rest(3) }
$1 == "backend" && $2 != ENVIRON["backend"] && $3 ~ /^(present|loadable)$/ { can = can " " $2 }

# The first three of some names: "a, b, c and 4 more".
function listed(names,   word, words, list, i) {
  words = split(names, word, " ")
  for (i = 1; i <= words && i <= 3; i++) list = list (i > 1 ? ", " : "") word[i]
  return list (words > 3 ? " and " words - 3 " more" : "")
}

# The text of the first row of the file remedies that is of the kind and whose pattern, a shell's, matches one of the words.
function remedy(kind, words,   word, n, row, pattern, i) {
  n = split(words " *", word, " ") # the pattern * matches also if there is none
  close(ENVIRON["files"] "/remedies")
  while ((getline row < (ENVIRON["files"] "/remedies")) > 0) {
    if (!sub("^" kind " ", "", row)) continue
    pattern = row
    sub(/ .*/, "", pattern)
    sub(/^[^ ]* /, "", row)
    gsub(/[.+]/, "[&]", pattern)
    gsub(/\*/, ".*", pattern)
    for (i = 1; i <= n; i++) if (word[i] ~ "^" pattern "$") return fill(row)
  }
}

# What brings the kernel's missing modules to the node.
function package(   base, part) {
  if (fact["modules-dir"] == "") return "reboot the node: kernel " value["kernel"] " runs, but its modules are no longer installed"
  base = value["variant"] = value["kernel"]
  sub(/[.]64k$/, "", base)
  sub(/[+][^+]*$/, "", base)
  value["base"] = base
  sub(/.*[+-]/, "", value["variant"])
  split(value["kernel"], part, ".")
  value["version"] = part[1] "." part[2]
  value["rpm"] = remedy("kernel", value["kernel"])
  return remedy("os", fact["os-id"] " " fact["os-like"] " " fact["os-variant"])
}

# How the rules are lifted that keep modules from being loaded; sets value["command"] to what the first one runs instead.
function lift(kinds, names,   word, words, kind, n, i, j, place, at, removals) {
  words = split(names, word, " ")
  n = split(kinds, kind, " ")
  value["command"] = "nothing"
  for (i = 1; i <= words; i++) for (j = 1; j <= n; j++) {
    if (!((kind[j], word[i]) in rule)) continue
    place = rule[kind[j], word[i]]
    at = index(place, " // ")
    if (at && value["command"] == "nothing") value["command"] = substr(place, at + 4)
    if (at) place = substr(place, 1, at - 1)
    if (sub(/^\/proc\/cmdline:/, "", place)) place = "take " word[i] " out of " place "= on the kernel's command line and reboot"
    else if (match(place, /:[0-9]+$/)) place = "remove line " substr(place, RSTART + 1) " of " substr(place, 1, RSTART - 1)
    removals = removals (removals == "" ? "" : "; ") place
    break
  }
  return removals
}

# Why a module is not there.
function cause(name) {
  if (disk[name] == "not-on-disk" || (disk[name] == "unknown" && says[name] ~ /not found/)) return "absent"
  if (disk[name] == "monolithic") return "unexplained"
  if (fact["modules-disabled"] != "0" || no_capability != "" || fact["modprobe"] !~ /^(works|failed|not-needed)$/) return "not-asked"
  if (("install", name) in rule) return "overridden"
  if (("module_blacklist", name) in rule || (says[name] == "" && ("blacklist", name) in rule)) return "blocklisted"
  if (says[name] == "") return "unexplained"
  if (refusal == "") {
    refusal = says[name]
    sub(/.*'/, "", refusal)
    sub(/^: /, "", refusal)
  }
  return "refused"
}

# Adds a reason about modules, if there are any.
function reason_for(name, names) {
  if (names != "") add(name, value["list"] = listed(names))
}

# What is left if a backend's modules are not to be had, and another's are.
function unavailable() {
  if (own_lacks == "" || can == "") return
  value["own_list"] = listed(own_lacks)
  value["others"] = listed(can)
  value["setting"] = remedy("backend", substr(can, 2))
  add("BackendUnavailable", "no " value["backend"] ", but " value["others"])
}

function remedy_of_refusal() {
  if ((refusal fact["lockdown"]) ~ / Key |Required key|signature|integrity$|confidentiality$/)
    return "sign the modules with a key that the kernel trusts (lockdown: " (fact["lockdown"] == "" ? "unknown" : fact["lockdown"]) ")"
  return "see the host's kernel log (dmesg) for what it refused"
}

function explain(   i, all, by, why) {
  value["kernel"] = fact["kernel"] == "" ? "unknown" : fact["kernel"]
  value["backend"] = ENVIRON["backend"]
  for (i = 1; i <= missed; i++) {
    all = all " " missing[i]
    why = cause(missing[i])
    by[why] = by[why] " " missing[i]
  }
  if (all != "") reason_for("CapabilityRefused", no_capability)
  if (fact["modules-disabled"] == "1") reason_for("ModulesDisabled", by["not-asked"])
  if (fact["modprobe"] ~ /^(none|cannot-run)$/) reason_for("ModprobeMissing", all)
  if (fact["modprobe"] == "hangs") reason_for("ModprobeHangs", all)
  if ("unread" in fact) reason_for("HostUnreadable", all)
  if (value["backend"] == "legacy") unavailable()
  value["package"] = package()
  if (!("unread" in fact)) reason_for("ModuleNotOnDisk", by["absent"])
  value["removals"] = lift("install", by["overridden"])
  reason_for("ModuleOverridden", by["overridden"])
  value["removals"] = lift("module_blacklist blacklist", by["blocklisted"])
  reason_for("ModuleBlocklisted", by["blocklisted"])
  value["refusal"] = refusal
  value["remedy"] = remedy_of_refusal()
  reason_for("ModuleRefused", by["refused"])
  if (value["backend"] != "legacy" && value["backend"] != "") unavailable()
  if (count) return
  if (ENVIRON["error"] == "") return reason_for("ModuleMissing", all)
  value["unseen"] = by["unexplained"] == "" ? "" : " Not seen after modprobe: " listed(by["unexplained"]) "."
  add("RulesRejected", ENVIRON["error"])
}

END { explain() }
