# text.awk: functions for the other awk programs.

# The line without its first words.
function rest(words,   text) {
  for (text = $0; words > 0; words--) sub(/^[^ ]* ?/, "", text)
  return text
}

# Makes the words of a list members of a set.
function include(set, list, separator,   word, n) { for (n = split(list, word, separator); n; n--) set[word[n]] }

# At most so many characters; a word is left out rather than cut, unless it is long.
function shorten(limit, text) {
  if (length(text) <= limit) return text
  text = substr(text, 1, limit - 3)
  if (match(text, / [^ ]*$/) && RLENGTH < 40) text = substr(text, 1, RSTART - 1)
  return text "..."
}

# A text of ours with value["name"] in the place of each {name}.
function fill(text,   filled, name) {
  while (match(text, /\{[a-z_]+\}/)) {
    name = substr(text, RSTART + 1, RLENGTH - 2)
    filled = filled substr(text, 1, RSTART - 1) value[name]
    text = substr(text, RSTART + RLENGTH)
  }
  return filled text
}

# Whether a word matches a pattern of the shell.
function matches(word, pattern) {
  gsub(/[.+]/, "[&]", pattern)
  gsub(/\*/, ".*", pattern)
  gsub(/\?/, ".", pattern)
  return word ~ "^" pattern "$"
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

# Printable ASCII as a JSON string.
function quoted(text) {
  gsub(/["\\]/, "\\\\&", text)
  return "\"" text "\""
}

# A JSON member, and a list with one item more.
function member(name, text) { return quoted(name) ": " quoted(text) }
function item(list, text) { return list (list == "" ? "" : ", ") text }
