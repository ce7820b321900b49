# explain.awk: classifies the facts that load found by the reasons of the catalogue: why a node cannot run the mesh. Runs
# before outcome.awk. Needs text.awk.
#
# In, standard input: the file facts (load.sh). Environment: files, the directory of the file remedies; error, what the kernel said
# to istio-init's rules, empty if nothing tried them; backend, the one that failed, empty: none.
# Out: add(), the most decisive reason first.

{ fact[$1] = rest(1) }
$1 == "missing" { missing[++missed] = $2; disk[$2] = $3; says[$2] = rest(3) }
$1 == "rule" && !(($2, $3) in rule) { rule[$2, $3] = rest(3) }
$1 == "needs" { needs[$2] = rest(2) }
$1 == "module" && $3 == "loaded-now" { loaded_now = 1 }
$1 == "capability" && $3 == "no" { no_capability = no_capability " " $2 }
$1 == "backend" && $2 == ENVIRON["backend"] && $3 == "lacks" { own_lacks = rest(3) }
$1 == "backend" && $2 != ENVIRON["backend"] && $3 ~ /^(present|loadable)$/ { can = can " " $2 }

# The first three of some names: "a, b, c and 4 more".
function listed(names,   word, words, list, i) {
  words = split(names, word, " ")
  for (i = 1; i <= words && i <= 3; i++)
    list = list (i > 1 ? ", " : "") word[i] (word[i] in needed_by ? " (needed by" needed_by[word[i]] ")" : "")
  return list (words > 3 ? " and " words - 3 " more" : "")
}

# The text of the first row of the file remedies that is of the kind and whose pattern matches one of the words.
function remedy(kind, words,   word, n, row, pattern, i) {
  n = split(words " *", word, " ") # the pattern * matches also if there is none
  close(ENVIRON["files"] "/remedies")
  while ((getline row < (ENVIRON["files"] "/remedies")) > 0) {
    if (!sub("^" kind " ", "", row)) continue
    pattern = row
    sub(/ .*/, "", pattern)
    sub(/^[^ ]* /, "", row)
    for (i = 1; i <= n; i++) if (matches(word[i], pattern)) return fill(row)
  }
}

# What brings the kernel's missing modules to the node.
function package(   base, part) {
  if (fact["container"] != "") return "load them on the machine that runs this node as a container (" fact["container"] ")"
  if (fact["modules-dep"] == "missing") return "depmod -a " value["kernel"]
  # modules of others, as of DKMS, outlast the kernel's
  if (!loaded_now && (fact["modules-dir"] == "" || fact["kernel-files"] == "0"))
    return "reboot the node: kernel " value["kernel"] " runs, but its modules are not on disk"
  base = value["variant"] = value["kernel"]
  sub(/[.]64k$/, "", base)
  sub(/[+][^+]*$/, "", base)
  value["base"] = base
  sub(/.*[+-]/, "", value["variant"])
  split(value["kernel"], part, ".")
  value["version"] = part[1] "." part[2]
  value["rpm"] = remedy("kernel", value["kernel"])
  return remedy("os", fact["image"] " " value["variant"] " " fact["os-id"] " " fact["os-like"] " " fact["os-variant"])
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

# The module on which a rule of one of the kinds hinders a module: itself, or one that it needs.
function ruled(kinds, name,   candidate, n, kind, k, i, j) {
  k = split(kinds, kind, " ")
  n = split(name " " needs[name], candidate, " ")
  for (i = 1; i <= n; i++) for (j = 1; j <= k; j++) if ((kind[j], candidate[i]) in rule) return candidate[i]
}

# Why a module is not there. Sets culprit to the module that is to blame: itself, or one that it needs.
function cause(name) {
  culprit = name
  if (disk[name] == "not-on-disk" || (disk[name] == "unknown" && (only_looked || says[name] ~ /not found/))) return "absent"
  if (disk[name] == "monolithic") return "unexplained"
  if (fact["modules-disabled"] != "0" || no_capability != "" || fact["modprobe"] !~ /^(works|failed|not-needed|off)$/) return "not-asked"
  if ((culprit = ruled("install alias", name)) != "") return "overridden"
  if ((culprit = ruled("module_blacklist", name)) != "") return "blocklisted"
  culprit = name
  if (says[name] == "" && ("blacklist", name) in rule) return "blocklisted"
  if (only_looked) return "not-loaded"
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

# By the kernel's error, and by what else is known to cause it.
function refused(   names) {
  names = by["refused"]
  value["refusal"] = refusal
  value["lockdown"] = fact["lockdown"] == "" ? "unknown" : fact["lockdown"]
  if (refusal ~ /(^| )Key |Required key|signature/ || (refusal ~ /not permitted/ && fact["lockdown"] ~ /^(integrity|confidentiality)$/))
    reason_for("ModuleUnsigned", names)
  else if (refusal ~ /Permission denied/ && fact["selinux"] == "enforcing") reason_for("ModuleDenied", names)
  else reason_for("ModuleRefused", names)
}

function explain(   i, all, why) {
  value["kernel"] = fact["kernel"] == "" ? "unknown" : fact["kernel"]
  value["backend"] = ENVIRON["backend"]
  only_looked = fact["modprobe"] == "off"
  for (i = 1; i <= missed; i++) {
    all = all " " missing[i]
    why = cause(missing[i])
    if (culprit != missing[i]) needed_by[culprit] = (needed_by[culprit] == "" ? " " : needed_by[culprit] ", ") missing[i]
    if (index(by[why] " ", " " culprit " ") == 0) by[why] = by[why] " " culprit
  }
  if (all != "") reason_for("CapabilityRefused", no_capability)
  if (fact["modules-disabled"] == "1") reason_for("ModulesDisabled", by["not-asked"])
  if (fact["modprobe"] ~ /^(none|cannot-run)$/) reason_for("ModprobeMissing", all)
  if (fact["modprobe"] == "hangs") reason_for("ModprobeHangs", all)
  if ("unread" in fact) reason_for("HostUnreadable", all)
  if (value["backend"] == "legacy") unavailable()
  value["package"] = package()
  if (!("unread" in fact)) reason_for("ModuleNotOnDisk", by["absent"])
  value["removals"] = lift("install alias", by["overridden"])
  reason_for("ModuleOverridden", by["overridden"])
  value["removals"] = lift("module_blacklist blacklist", by["blocklisted"])
  reason_for("ModuleBlocklisted", by["blocklisted"])
  value["form"] = remedy("load", fact["os-id"] "-" fact["os-variant"] " " fact["os-id"])
  reason_for("ModuleNotLoaded", by["not-loaded"])
  refused()
  if (value["backend"] != "legacy" && value["backend"] != "") unavailable()
  if (count) return
  if (ENVIRON["error"] == "") return reason_for("ModuleMissing", all)
  value["unseen"] = by["unexplained"] == "" ? "" : " Not seen after modprobe: " listed(by["unexplained"]) "."
  add("RulesRejected", ENVIRON["error"])
}

END { explain() }
