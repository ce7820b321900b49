# modules.awk: prints what the host's files say of some modules.
#
# In, standard input: two lines for each file, the most decisive directory's first: its path on the host, and where it lies, empty if
# it is no regular file. Environment: names, the modules that are asked about, with _ for -.
# Out: the lines "builtin NAME..." and "disk NAME...", what is in the kernel and what has a file; then for everything that keeps one
# from being loaded "rule KIND NAME PLACE[ // COMMAND]": install and blacklist (of modprobe, if it is not asked by that name), or
# module_blacklist (of the kernel). PLACE is FILE:LINE or /proc/cmdline:PARAMETER.
# Sources: modprobe.d(5); kernel-parameters.txt, module_blacklist; depmod(8). modules.builtin has lines like
# "kernel/net/netfilter/nf_nat.ko", modules.dep like "kernel/net/netfilter/xt_owner.ko.xz: ...".

BEGIN {
  count = split(ENVIRON["names"], list, " ")
  while (count) asked[list[count--]]
}
NR % 2 { path = $0; next }
path ~ /\/modules\.builtin$/ { builtin = builtin listed($0); next }
path ~ /\/modules\.dep$/ { disk = disk listed($0); next }
path == "/proc/cmdline" { if ((getline text < $0) > 0) read_cmdline(text); next }
{ read_rules($0) }
END {
  print "builtin" builtin "\ndisk" disk
  printf "%s", rules
}

# The kernel writes _ where a file's or a person's name may have -.
function named(word) {
  gsub(/-/, "_", word)
  return word
}

function listed(file,   text, found) {
  while ((getline text < file) > 0) {
    sub(/:.*/, "", text)
    sub(/.*\//, "", text)
    if (sub(/\.ko.*/, "", text) && (text = named(text)) in asked) found = found " " text
  }
  close(file)
  return found
}

function read_cmdline(text,   word, words, name, names, i, j) {
  words = split(text, word, " ")
  for (i = 1; i <= words; i++) {
    if (word[i] !~ /^(module_blacklist|modprobe\.blacklist)=/) continue
    names = split(substr(word[i], index(word[i], "=") + 1), name, ",")
    sub(/=.*/, "", word[i])
    for (j = 1; j <= names; j++)
      if (named(name[j]) in asked) rules = rules "rule " (word[i] ~ /^modprobe/ ? "blacklist " : "module_blacklist ") named(name[j]) " /proc/cmdline:" word[i] "\n"
  }
}

# Of files with the same name the first directory's counts, also if it is no regular file. A line that ends in \ goes on.
function read_rules(file,   text, line, number, first, name, directory) {
  name = path
  sub(/.*\//, "", name)
  directory = substr(path, 1, length(path) - length(name))
  if (name in taken && taken[name] != directory) return
  taken[name] = directory
  if (file == "") return
  while ((getline text < file) > 0) {
    number++
    if (line == "") first = number
    sub(/\r$/, "", text)
    line = line text
    if (sub(/\\$/, " ", line)) continue
    add_rule(line, first)
    line = ""
  }
  close(file)
  add_rule(line, first)
}

function add_rule(line, number,   word, words, command, i) {
  if (line !~ /^[ \t]*(blacklist|install)[ \t]/) return
  words = split(line, word, " ")
  if (!(named(word[2]) in asked)) return
  for (i = 3; i <= words; i++) command = command " " word[i]
  rules = rules "rule " word[1] " " named(word[2]) " " path ":" number (command == "" ? "" : " //" command) "\n"
}
