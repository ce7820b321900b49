# modules.awk: prints what the host's files say of some modules.
#
# In, standard input: two lines for each file, the most decisive directory's first: its path on the host, and where it lies, empty if it
# is no regular file; first modules.dep, modules.builtin and the kernel's configuration. Environment: files, the directory of plan and backends
# (load.sh).
# Out: kernel-files N, the kernel's own modules; builtin NAME..., disk NAME..., what has a file; needs NAME MODULE..., what modprobe loads
# before a planned one; obstacles; gone NAME FILE, what cannot be opened; unbuilt NAME OPTION FILE, what the configuration leaves out; rule
# KIND NAME PLACE[ // COMMAND], what keeps a planned one, or what it needs, from being loaded: install, alias and blacklist (of modprobe; the
# latter not if it is asked by that name), module_blacklist (of the kernel), at FILE:LINE or /proc/cmdline:PARAMETER; of a file with a rule
# origin FILE // COMMENT, which program writes it, and kept FILE // LINE, what else it says, up to 200 lines.
# Needs text.awk. Sources: modprobe.d(5), libkmod-config.c of kmod; kernel-parameters.txt; depmod(8).

BEGIN {
  while ((getline < (ENVIRON["files"] "/plan")) > 0) if (NF && $1 !~ /^#/) include(planned, $1, "|")
  while ((getline < (ENVIRON["files"] "/backends")) > 0) for (i = 2; i <= NF; i++) include(asked, $i, "|")
  for (name in planned) {
    asked[name]
    ruled[name]
  }
}
NR % 2 { path = $0; next }
path ~ /\/modules\.builtin$/ { builtin = builtin listed($0); next }
path ~ /\/modules\.dep$/ { disk = disk listed($0); next }
path ~ /\/config(-[^\/]*)?$/ { if ($0 != "") read_config($0); next }
path == "/proc/cmdline" { if ((getline text < $0) > 0) read_cmdline(text); next }
{ read_rules($0) }
END {
  print "kernel-files " kernel_files + 0 "\nbuiltin" builtin "\ndisk" disk
  for (name in needs) print "needs " name needs[name]
  print "obstacles"
  printf "%s%s%s%s", gone, unbuilt, rules, kept
}

function listed(file,   text, at, name, found, dependency, count, needed) {
  while ((getline text < file) > 0) {
    if (text ~ /^kernel\//) kernel_files++
    at = index(text ":", ":")
    name = module_in(substr(text, 1, at - 1))
    if (!(name in asked)) continue
    has_file[name]
    found = found " " name
    if (!(name in planned)) continue
    if (at <= length(text)) look_at(name, substr(text, 1, at - 1))
    count = split(substr(text, at + 1), dependency, " ")
    for (; count; count--) { # modules.dep has the nearest first
      needed = module_in(dependency[count])
      needs[name] = needs[name] " " needed
      ruled[needed]
      look_at(needed, dependency[count])
    }
  }
  close(file)
  return found
}

# A file of modules.dep that cannot be opened.
function look_at(name, listed_as,   file, text) {
  if (name in looked_at || listed_as !~ /^[a-z]/ || listed_as ~ /\.\./) return
  looked_at[name]
  file = substr($0, 1, length($0) - length("modules.dep")) listed_as
  if ((getline text < file) < 0) gone = gone "gone " name " " substr(path, 1, length(path) - length("modules.dep")) listed_as "\n"
  close(file)
}

# Most options are a module's name in capitals, behind what its family begins with.
function read_config(file,   name, word, option, options, i, text, missing) {
  for (name in planned) {
    if (name in has_file || name in left_out) continue
    word = toupper(name)
    options = word " NETFILTER_" word
    if (sub(/^XT_/, "", word)) options = options " NETFILTER_XT_MATCH_" word " NETFILTER_XT_TARGET_" word
    if (sub(/^IPTABLE_/, "", word)) options = "IP_NF_" word " IP_NF_IPTABLES_LEGACY"
    if (sub(/^IP6TABLE_/, "", word)) options = "IP6_NF_" word " IP6_NF_IPTABLES_LEGACY"
    if (name == "nft_chain_nat") options = "NFT_NAT"
    for (i = split(options, option, " "); i; i--) missing[option[i]] = missing[option[i]] " " name
  }
  while ((getline text < file) > 0) {
    if (text !~ /^# CONFIG_[A-Z0-9_]* is not set/) continue
    sub(/^# CONFIG_/, "", text)
    sub(/ .*/, "", text)
    for (i = split(missing[text], option, " "); i; i--) if (!(option[i] in left_out)) {
      left_out[option[i]]
      unbuilt = unbuilt "unbuilt " option[i] " CONFIG_" text " " path "\n"
    }
  }
  close(file)
}

function read_cmdline(text,   word, words, name, names, kind, i, j) {
  words = split(text, word, " ")
  for (i = 1; i <= words; i++) {
    if (word[i] !~ /^(module_blacklist|modprobe\.blacklist)=/) continue
    names = split(substr(word[i], index(word[i], "=") + 1), name, ",")
    sub(/=.*/, "", word[i])
    kind = word[i] == "module_blacklist" ? word[i] : "blacklist"
    for (j = 1; j <= names; j++)
      if (named(name[j]) in planned || kind != "blacklist" && named(name[j]) in ruled) rules = rules "rule " kind " " named(name[j]) " /proc/cmdline:" word[i] "\n"
  }
}

# Of files of the same name modprobe reads the first directory's, also if it is no regular file. A line that ends in \ goes on.
function read_rules(file,   text, line, number, first, name, directory, before, others, count, origin) {
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
    if (origin == "" && number <= 20 && line ~ /^#.*([Mm]anaged by|Ansible managed|[Gg]enerated by|DO NOT EDIT)/) origin = "origin " path " // " line "\n"
    line = ""
  }
  close(file)
  add_rule(line, first)
  if (rules != before) kept = kept origin others
}

# Whether a line is a rule that hinders.
function add_rule(line, number,   word, words, command, name, before, i) {
  if (line !~ /^[ \t]*(blacklist|install|alias)[ \t]/) return 0
  words = split(line, word, " ")
  for (i = 3; i <= words; i++) command = command " " word[i]
  name = named(word[2])
  before = rules
  if (word[1] == "blacklist") {
    if (name in planned) add(word[1], name, number, command)
  } else if (words < 3 || name ~ /[^A-Za-z0-9_*?]/) {
    # modprobe passes over the first; a set of letters is its own business
  } else if (word[1] == "install") {
    if (name !~ /[*?]/) {
      if (name in ruled) add(word[1], name, number, command)
    } else for (i in ruled) if (matches(i, name)) add(word[1], i, number, command)
  } else for (i in planned) # what is asked for by another name; what a module needs is not
    if (named(word[3]) != i && matches(i, name)) add(word[1], i, number, command)
  return rules != before
}

function add(kind, name, number, command) {
  rules = rules "rule " kind " " name " " path ":" number (command == "" ? "" : " //" command) "\n"
}
