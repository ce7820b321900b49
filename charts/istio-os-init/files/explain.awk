# explain.awk: classifies the facts that load found by the reasons of the catalogue: why a node cannot run the mesh. Runs
# before outcome.awk. Needs text.awk.
#
# In, standard input: the file facts (load.sh). Environment: files, the directory of the file remedies; error, what the kernel said
# to istio-init's rules, empty if nothing tried them; backend, the one that failed, empty: none.
# Out: add(), the most decisive reason first.

{ fact[$1] = rest(1) }
$1 == "missing" { missing[++missed] = $2; disk[$2] = $3; says[$2] = rest(3) }
$1 == "rule" && !(($2, $3) in rule) { rule[$2, $3] = rest(3) }
$1 == "would" { judged = 1; if ($2 == "insmod") would[module_in($3)]; if ($2 == "builtin") would[named($3)]; if ($2 == "install" && does == "") { does = rest(2); sub(/ *$/, "", does) } }
$1 == "gone" { gone[$2] = rest(2) }
$1 == "unbuilt" { unbuilt[$2] = $3 " in " $4 }
$1 == "origin" && match($0, / \/\/ #+ */) { origin[substr($0, 8, RSTART - 8)] = substr($0, RSTART + RLENGTH) }
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
    if (!sub("^" kind " ", "", row) || (value["rpm"] == "" && row ~ /[{]rpm[}]/)) continue
    pattern = row
    sub(/ .*/, "", pattern)
    sub(/^[^ ]* /, "", row)
    for (i = 1; i <= n; i++) if (matches(word[i], pattern)) return fill(row)
  }
}

# What it means that modules are not on disk, by the most certain evidence; sets value["meaning"] and value["mend"].
function absent(names,   word, i, words, leaves, misses) {
  value["variant"] = value["base"] = value["kernel"]
  sub(/[.]64k$/, "", value["base"])
  sub(/[+][^+]*$/, "", value["base"])
  sub(value["kernel"] ~ /[.](el|fc)[0-9]/ ? ".*[+]" : ".*[+-]", "", value["variant"])
  split(value["kernel"], word, ".")
  value["version"] = word[1] "." word[2]
  value["rpm"] = remedy("kernel", value["kernel"])
  value["system"] = fact["image"] " " value["variant"] " " fact["os-id"] "/" value["kernel"] " " fact["os-id"] " " fact["os-like"] " " fact["os-variant"]
  value["container"] = fact["container"]
  words = split(names, word, " ")
  for (i = 1; i <= words; i++) {
    if (word[i] in unbuilt) leaves = leaves == "" ? unbuilt[word[i]] : leaves
    else misses = 1
    if (word[i] in gone) value["file"] = gone[word[i]]
  }
  value["option"] = leaves
  if (fact["container"] != "") means("container", "*")
  else if (fact["modules-dep"] == "missing" || stale) means("list", "*")
  else if (!loaded_now && (fact["modules-dir"] == "" || fact["kernel-files"] == "0")) means("all", "*")
  else if (value["file"] != "") means("file", value["system"])
  else if (leaves != "" && !misses) means("unbuilt", "*")
  else means("some", "*")
}

function means(kind, words) {
  value["meaning"] = remedy("means", kind)
  value["mend"] = remedy(kind, words)
  if (value["mend"] == "") value["mend"] = remedy("os", value["system"])
}

# How the rules are lifted that keep modules from being loaded; sets value["command"] to what the first one runs instead.
function lift(kinds, names,   word, words, kind, n, i, j, place, at, removals) {
  words = split(names, word, " ")
  n = split(kinds, kind, " ")
  value["command"] = does == "" ? "nothing" : does
  for (i = 1; i <= words; i++) {
    place = ""
    value["module"] = word[i]
    for (j = 1; j <= n && place == ""; j++) if ((kind[j], word[i]) in rule) place = rule[kind[j], word[i]]
    at = index(place, " // ")
    if (at && i == 1) value["command"] = substr(place, at + 4)
    if (at) place = substr(place, 1, at - 1)
    if (place == "") place = "remove the line that shows in modprobe --showconfig | grep " word[i]
    else if (sub(/^\/proc\/cmdline:/, "", place)) place = "take " word[i] " out of " place "= on the kernel's command line and reboot"
    else place = removal(place)
    if (index("; " removals "; ", "; " place "; ") == 0) removals = removals (removals == "" ? "" : "; ") place
  }
  return removals
}

# How a line is removed.
function removal(place) {
  match(place, /:[0-9]+$/)
  value["line"] = substr(place, RSTART + 1)
  value["file"] = place = substr(place, 1, RSTART - 1)
  return remedy("line", (place ~ /^\/(usr|lib)\// ? "packaged " : "") fact["os-id"] " " fact["os-variant"]) (place in origin ? " (there: " shorten(80, origin[place]) ")" : "")
}

# The module because of which modprobe would not load one: modprobe decides; without its answer the rules do.
function ruled(kinds, name,   candidate, n, kind, k, i, j) {
  k = split(kinds, kind, " ")
  n = split(name " " needs[name], candidate, " ")
  for (i = 1; i <= n; i++) {
    if (judged && kinds ~ /install/) {
      if (!(candidate[i] in would)) return candidate[i]
    } else for (j = 1; j <= k; j++) if ((kind[j], candidate[i]) in rule) return candidate[i]
  }
}

# Why a module is not there. Sets culprit to the module that is to blame: itself, or one that it needs.
function cause(name) {
  culprit = name
  if (disk[name] == "monolithic") return "unexplained"
  if (confined != "") return "not-asked"
  if (disk[name] == "not-on-disk" || (only_looked && disk[name] == "unknown") || says[name] ~ /not found in directory/) {
    if (disk[name] == "on-disk") stale = 1
    return "absent"
  }
  if (fact["modules-disabled"] != "0" || no_capability != "" || fact["modprobe"] !~ /^(works|failed|not-needed|off)$/) return "not-asked"
  if ((culprit = lost(name)) != "") return "absent"
  if ((culprit = ruled("install alias", name)) != "") return "overridden"
  if ((culprit = ruled("module_blacklist", name)) != "") return "blocklisted"
  culprit = name
  if (says[name] == "" && ("blacklist", name) in rule) return "blocklisted"
  if (only_looked) return "not-loaded"
  if (says[name] == "") return "unexplained"
  if (refusal == "") {
    refusal = says[name]
    sub(/.*[')]: /, "", refusal)
  }
  return "refused"
}

# What confines load beyond its capabilities: a type of SELinux for containers (container-selinux, udica) in the place of spc_t, or what keeps
# it out of the host's root. Other types are not confined: a runtime that sets no label lends its own. What a confined load did not see or
# could not do says nothing of the node. "selinux TYPE"; "runtime WORDS"; empty: nothing, or nothing that made a difference.
function confinement(   word) {
  if (no_capability != "") return
  if (split(fact["context"], word, ":") >= 3 && word[3] ~ /^(container|svirt)[a-z_]*_t$|[.]process$/ && word[3] != "container_runtime_t" &&
      fact["selinux"] != "permissive" && !(only_looked && fact["kernel-files"] != "0"))
    return "selinux " word[3]
  if (fact["modprobe"] == "cannot-enter") return "runtime chroot to the host"
}

function explain_confinement() {
  value["subject"] = substr(confined, index(confined, " ") + 1)
  value["confinement"] = remedy("confined", confined)
  value["permission"] = remedy("permit", confined)
  add("LoadConfined", value["subject"])
}

# The module whose file is gone.
function lost(name,   candidate, n, i) {
  n = split(name " " needs[name], candidate, " ")
  if (says[name] ~ /No such file|[Uu]nknown symbol/) for (i = 1; i <= n; i++) if (candidate[i] in gone) return candidate[i]
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
  value["module"] = names
  sub(/^ /, "", value["module"])
  sub(/ .*/, "", value["module"])
  value["refusal"] = refusal
  value["lockdown"] = fact["lockdown"] == "" ? "unknown" : fact["lockdown"]
  value["lsm"] = fact["lsm"]
  value["evidence"] = remedy("refusal", refusal)
  value["denial"] = remedy("denial", fact["insmod-banned"] == "1" ? "banned" : "")
  if (refusal ~ /(^| )Key |Required key|signature/ || (refusal ~ /not permitted/ && fact["lockdown"] ~ /^(integrity|confidentiality)$/))
    reason_for("ModuleUnsigned", names)
  else if (fact["selinux"] == "enforcing" && (refusal ~ /Permission denied/ || fact["insmod-banned"] == "1")) reason_for("ModuleDenied", names)
  else if (refusal ~ /not permitted/ && fact["lsm"] != "" && fact["lsm"] !~ /loadpin|ipe/) reason_for("SeccompDenied", names)
  else reason_for("ModuleRefused", names)
}

function explain(   i, all, why) {
  value["kernel"] = fact["kernel"] == "" ? "unknown" : fact["kernel"]
  only_looked = fact["modprobe"] == "off"
  confined = confinement()
  for (i = 1; i <= missed; i++) {
    all = all " " missing[i]
    why = cause(missing[i])
    if (culprit != missing[i]) needed_by[culprit] = (needed_by[culprit] == "" ? " " : needed_by[culprit] ", ") missing[i]
    if (index(by[why] " ", " " culprit " ") == 0) by[why] = by[why] " " culprit
  }
  if (all != "") reason_for("CapabilityRefused", no_capability)
  if (all != "" && confined != "") explain_confinement()
  if (fact["modules-disabled"] == "1") reason_for("ModulesDisabled", by["not-asked"])
  if (fact["modprobe"] ~ /^(none|cannot-run)$/ && confined == "") reason_for("ModprobeMissing", all)
  if (fact["modprobe"] == "hangs") reason_for("ModprobeHangs", all)
  if ("unread" in fact) reason_for("HostUnreadable", all)
  if (value["backend"] == "legacy") unavailable()
  absent(by["absent"])
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
