# modules.awk: prints what the host's files say of some modules.
#
# In, standard input: two lines for each file, the most decisive directory's first: its path on the host, and where it lies, empty if
# it is no regular file; modules.dep is the first. Environment: names, the modules that are asked about, with _ for -; planned, those of
# them that are to be loaded.
# Out: "kernel-files N", how many of the kernel's own modules there are; the lines "builtin NAME..." and "disk NAME...", what is in the
# kernel and what has a file; "needs NAME MODULE...", what modprobe loads before a planned one; then for everything that keeps a
# planned one, or what it needs, from being loaded "rule KIND NAME PLACE[ // COMMAND]": install, alias and blacklist (of modprobe; the
# latter not if it is asked by that name), or module_blacklist (of the kernel). PLACE is FILE:LINE or /proc/cmdline:PARAMETER. At the
# end "kept FILE // LINE", what else such a file says, up to 200 lines of it.
# Needs text.awk. Sources: modprobe.d(5); kernel-parameters.txt, module_blacklist; depmod(8). modules.builtin has lines like
# "kernel/net/netfilter/nf_nat.ko", modules.dep like "kernel/net/netfilter/xt_owner.ko.xz: kernel/net/netfilter/x_tables.ko.xz".

BEGIN {
  count = split(ENVIRON["names"], list, " ")
  while (count) asked[list[count--]]
  count = split(ENVIRON["planned"], list, " ")
  while (count) planned[list[count--]]
  for (name in planned) ruled[name]
}
NR % 2 { path = $0; next }
path ~ /\/modules\.builtin$/ { builtin = builtin listed($0); next }
path ~ /\/modules\.dep$/ { disk = disk listed($0); next }
path == "/proc/cmdline" { if ((getline text < $0) > 0) read_cmdline(text); next }
{ read_rules($0) }
END {
  print "kernel-files " kernel_files + 0 "\nbuiltin" builtin "\ndisk" disk
  for (name in needs) print "needs " name needs[name]
  printf "%s%s", rules, kept
}

# The kernel writes _ where a file's or a person's name may have -.
function named(word) {
  gsub(/-/, "_", word)
  return word
}

# The name of the module in a file, empty if it is none.
function module_in(file) {
  sub(/.*\//, "", file)
  return sub(/\.ko.*/, "", file) ? named(file) : ""
}

function listed(file,   text, at, name, found, dependency, count, needed) {
  while ((getline text < file) > 0) {
    if (text ~ /^kernel\//) kernel_files++
    at = index(text ":", ":")
    name = module_in(substr(text, 1, at - 1))
    if (!(name in asked)) continue
    found = found " " name
    if (!(name in planned)) continue
    count = split(substr(text, at + 1), dependency, " ")
    for (; count; count--) { # modules.dep has the nearest first
      needed = module_in(dependency[count])
      needs[name] = needs[name] " " needed
      ruled[needed]
    }
  }
  close(file)
  return found
}

function read_cmdline(text,   word, words, name, names, kind, i, j) {
  words = split(text, word, " ")
  for (i = 1; i <= words; i++) {
    if (word[i] !~ /^(module_blacklist|modprobe\.blacklist)=/) continue
    names = split(substr(word[i], index(word[i], "=") + 1), name, ",")
    sub(/=.*/, "", word[i])
    kind = word[i] == "module_blacklist" ? word[i] : "blacklist"
    for (j = 1; j <= names; j++)
      if (named(name[j]) in ruled) rules = rules "rule " kind " " named(name[j]) " /proc/cmdline:" word[i] "\n"
  }
}

# If directories have a file of the same name, modprobe reads that of the first one, also if it is no regular file. A line that ends in \
# goes on in the next one.
function read_rules(file,   text, line, number, first, name, directory, before, others, count) {
  name = path
  sub(/.*\//, "", name)
  directory = substr(path, 1, length(path) - length(name))
  if (name in taken && taken[name] != directory) return
  taken[name] = directory
  if (file == "") return
  before = rules
  while ((getline text < file) > 0) {
    number++
    if (line == "") first = number
    sub(/\r$/, "", text)
    line = line text
    if (sub(/\\$/, "", line)) continue
    if (!add_rule(line, first) && ++count <= 200) others = others "kept " path " // " line "\n"
    line = ""
  }
  close(file)
  add_rule(line, first)
  if (rules != before) kept = kept others
}

# Whether a line is a rule that hinders.
function add_rule(line, number,   word, words, command, name, before, i) {
  if (line !~ /^[ \t]*(blacklist|install|alias)[ \t]/) return 0
  words = split(line, word, " ")
  for (i = 3; i <= words; i++) command = command " " word[i]
  name = named(word[2])
  before = rules
  if (word[1] != "alias" && name in ruled) rules = rules "rule " word[1] " " name " " path ":" number (command == "" ? "" : " //" command) "\n"
  # what is asked for by another name; what a module needs is not
  if (word[1] == "alias" && words > 2)
    for (i in planned) if (named(word[3]) != i && matches(i, name)) rules = rules "rule alias " i " " path ":" number " //" command "\n"
  return rules != before
}
