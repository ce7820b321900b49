# missing.awk: prints load's facts (load.sh) on the modules of the plan that are not there: the lines missing, would and needs.
#
# In, environment: missing, disk, place, loaded, needs, errors and would, as load has them.

BEGIN {
  lines = split(ENVIRON["errors"], line, "\n")
  for (count = split(ENVIRON["missing"], name, " "); ++i <= count; is_missing[name[i]])
    print "missing " name[i] " " (is_in(name[i], ENVIRON["disk"]) ? "on-disk" : ENVIRON["place"]) " " said_of(name[i])
  count = split(ENVIRON["would"], row, "\n")
  for (i = 1; i <= count; i++) print "would " row[i]
  count = split(ENVIRON["needs"], row, "\n")
  for (i = 1; i <= count; i++) {
    $0 = row[i]
    if ($1 != "needs" || !($2 in is_missing)) continue
    unmet = ""
    for (j = 3; j <= NF; j++) if (!is_in($j, ENVIRON["loaded"])) unmet = unmet " " $j
    if (unmet != "") print "needs " $2 unmet
  }
}

function is_in(name, set) { return index(set, " " name " ") > 0 }

function said_of(name,   i) {
  for (i = 1; i <= lines; i++) if (line[i] ~ "(^|[^A-Za-z0-9_])" name "([^A-Za-z0-9_]|$)") {
    sub(/^modprobe: /, "", line[i])
    return line[i]
  }
}
