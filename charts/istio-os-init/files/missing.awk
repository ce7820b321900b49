# missing.awk: prints load's facts (load.sh) on the modules of the plan that are not there: the lines missing, would and needs.
#
# In, environment: missing, disk, place, loaded, needs, errors and would, as load has them.

BEGIN {
  lines = split(ENVIRON["errors"], line, "\n")
  for (count = split(ENVIRON["needs"], row, "\n"); count; count--) {
    $0 = row[count]
    if ($1 == "needs") for (j = 3; j <= NF; j++) if (!is_in($j, ENVIRON["loaded"])) unmet[$2] = unmet[$2] " " $j
  }
  for (count = split(ENVIRON["missing"], name, " "); ++i <= count; )
    print "missing " name[i] " " (is_in(name[i], ENVIRON["disk"]) ? "on-disk" : ENVIRON["place"]) " " said_of(name[i])
  rows = split(ENVIRON["would"], row, "\n")
  for (i = 1; i <= rows; i++) print "would " row[i]
  for (i = 1; i <= count; i++) if (unmet[name[i]] != "") print "needs " name[i] unmet[name[i]]
}

function is_in(name, set) { return index(set, " " name " ") > 0 }

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
