# os.awk: prints what an os-release file says, a line each: os, os-id (linux if the file does not say), os-like, os-version and os-variant.
#
# In, standard input: the file. Source: os-release(5).

{
  gsub(/\r/, "")
  sub(/^[ \t]+/, "")
  sub(/[ \t]+$/, "")
  value = substr($0, index($0, "=") + 1)
  sub(/^["']/, "", value)
  sub(/["']$/, "", value)
  if (value != "" || !/^(PRETTY_NAME|ID)=/) of[substr($0, 1, index($0, "="))] = value
}
END {
  print "os " ("PRETTY_NAME=" in of ? of["PRETTY_NAME="] : "unknown") "\nos-id " ("ID=" in of ? of["ID="] : "linux")
  print "os-like " of["ID_LIKE="] "\nos-version " of["VERSION_ID="] "\nos-variant " of["VARIANT_ID="]
}
