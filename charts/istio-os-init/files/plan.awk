# plan.awk: prints what a node has of the plan, after what modprobe has been asked for so far.
#
# In, standard input: what facts.sh prints before obstacles.
# Environment:
#   files      the directory of the files plan and backends (load.sh)
#   proc       where proc is mounted
#   asked      the names that modprobe has been asked for
#   errors     what modprobe said
#   at_start   the names that were there before modprobe was asked for anything: already of the first run
# Out: for load.sh lists of names in the plan's order, a line each:
#   ask       what modprobe has to be asked for next: of each entry the next alternative, from the first that the kernel has, until one is there
#   newly, already, inside   each entry's first name that is there: loaded since at_start, loaded before, built in
#   boot      what the next boot has to load
#   missing   of each entry of which nothing is there the first name on disk, or its first
#   on_disk   those of missing that are on disk
# Then the line facts, and of load's facts (load.sh) module, missing, needs and backend.
# Needs text.awk.

BEGIN {
  include(asked, ENVIRON["asked"], " ")
  include(at_start, ENVIRON["at_start"], " ")
  while ((getline < (ENVIRON["proc"] "/modules")) > 0) loaded[$1]
  # a kernel that has no module at all, neither loaded nor on disk: names say nothing about it
  place = "monolithic"
  for (name in loaded) place = "unknown"
}
$1 == "builtin" { include(builtin, rest(1), " ") }
$1 == "disk" { include(disk, rest(1), " ") }
$1 == "modules-dir" && NF > 1 { place = "not-on-disk" }
$1 == "needs" { needs[$2] = rest(2) }
END {
  while ((getline < (ENVIRON["files"] "/plan")) > 0) if (NF && $1 !~ /^#/) resolve($1)
  print "ask" ask "\nnewly" newly "\nalready" already "\ninside" inside "\nboot" boot "\nmissing" missing "\non_disk" on_disk "\nfacts"
  print_each("module", newly, " loaded-now")
  print_each("module", already, " loaded-before")
  print_each("module", inside, " built-in")
  print_missing()
  while ((getline < (ENVIRON["files"] "/backends")) > 0) if (NF) print "backend " $1 " " state_of_backend()
}

function there(name) { return name in loaded || name in builtin }

# The place of an entry's first alternative that is there; 0: there is none.
function first_there(name, count,   i) {
  for (i = 1; i <= count; i++) if (there(name[i])) return i
  return 0
}

# The place of an entry's first alternative that the kernel has, loaded or not; 0: there is none.
function first_had(name, count,   i) {
  for (i = 1; i <= count; i++) if (name[i] in disk || name[i] in builtin) return i
  return 0
}

function resolve(entry,   name, count, best, at, i) {
  count = split(entry, name, "|")
  best = first_had(name, count)
  if (!best) best = 1
  for (i = best; i <= count && !there(name[i]); i++) if (!(name[i] in asked)) {
    asked[name[i]]
    ask = ask " " name[i]
    break
  }
  at = first_there(name, count)
  if (at) has(name[at])
  else lacks(name[best])
}

function has(name) {
  if (name in counted) return # an alternative of an earlier entry
  counted[name]
  if (!(name in loaded)) inside = inside " " name
  else {
    boot = boot " " name
    if (ENVIRON["asked"] == "" || name in at_start) already = already " " name
    else newly = newly " " name
  }
}

function lacks(name) {
  if (name in counted) return
  counted[name]
  missing = missing " " name
  if (name in disk) on_disk = on_disk " " name
}

function print_each(key, names, how,   name, count, i) {
  count = split(names, name, " ")
  for (i = 1; i <= count; i++) print key " " name[i] how
}

# The lines missing, with what modprobe said, and needs.
function print_missing(   name, count, need, n, i) {
  lines = split(ENVIRON["errors"], line, "\n")
  count = split(missing, name, " ")
  for (i = 1; i <= count; i++) {
    for (n = split(needs[name[i]], need, " "); n; n--) if (!there(need[n])) unmet[name[i]] = " " need[n] unmet[name[i]]
    print "missing " name[i] " " (name[i] in disk ? "on-disk" : place) " " said_of(name[i])
  }
  for (i = 1; i <= count; i++) if (unmet[name[i]] != "") print "needs " name[i] unmet[name[i]]
}

# Of what a module needs busybox says more than of itself: "unknown symbol", or nothing.
function said_of(name,   said, other, need, n) {
  said = line_on(name)
  if (said != "" && said !~ /unknown symbol/) return said
  for (n = split(unmet[name], need, " "); n; n--) if ((other = line_on(need[n])) ~ /can't load/) return other
  return said
}

function line_on(name,   i) {
  for (i = 1; i <= lines; i++) if (line[i] ~ "(^|[^A-Za-z0-9_])" name "([^A-Za-z0-9_]|$)") {
    sub(/^modprobe: /, "", line[i])
    return line[i]
  }
}

# What the backend of the line would find here, without trying it: that would make the kernel load what nothing needs.
function state_of_backend(   name, count, state, absent, i) {
  state = "present"
  for (i = 2; i <= NF; i++) {
    count = split($i, name, "|")
    if (first_there(name, count)) continue
    if (first_had(name, count)) state = "loadable"
    else if (!index(absent " ", " " name[1] " ")) absent = absent " " name[1]
  }
  if (state == "present" && absent == "") return state
  if (place != "not-on-disk") return "unknown"
  return absent == "" ? state : "lacks" absent
}
