# outcome.awk: makes a container's record (outcome.sh) of the reasons that it gives, by the catalogue (file reasons). Needs text.awk.
#
# In, environment: files, the directory of the catalogue; before, reasons of another record, which come first; given and subject, the
# container's reason, or explain if explain.awk gives the reasons; round, uptime, error, findings: lines of the record. Standard input is explain.awk's.
# For explain.awk: add(NAME, SUBJECT) adds a reason; in a text, {name} stands for value["name"].

BEGIN {
  value["backend"] = ENVIRON["backend"]
  while ((getline row < (ENVIRON["files"] "/reasons")) > 0) {
    $0 = row
    if ($1 == "reason") entry = $2
    else if (NF > 1) catalogue[entry, $1] = rest(1)
  }
  rows = split(ENVIRON["before"], before, "\n")
  for (i = 1; i <= rows; i++) {
    $0 = before[i]
    if ($1 != "reason" && NF) of[$1] = rest(1)
    else if (name != "") append(name, of["subject"], of["sentence"], of["fix"])
    if ($1 == "reason") {
      name = $2
      of["fix"] = ""
    }
  }
  if (ENVIRON["given"] != "explain") add(ENVIRON["given"], ENVIRON["subject"])
}

function add(name, subject) {
  value["subject"] = subject = shorten(600, subject)
  append(name, subject, shorten(1000, fill(catalogue[name, "sentence"])), shorten(1000, fill(catalogue[name, "fix"])))
}

function append(name, subject, sentence, fix) {
  reasons = reasons "reason " name "\nsubject " subject "\nsentence " sentence "\n" (fix == "" ? "" : "fix " fix "\n")
  message = message (count ? " Also " name ": " : "") sentence (fix == "" ? "" : " Fix: " fix ".")
  if (++count == 1) {
    status = catalogue[name, "status"]
    line = name ": " subject (fix == "" ? "" : ". Fix: " fix)
  } else if (count <= 4) also = also (also == "" ? ". Also: " : ", ") name
}

END {
  print "round " ENVIRON["round"] "\nuptime " ENVIRON["uptime"] "\nstatus " status
  print "line " line also (count > 4 ? " and " count - 4 " more" : "")
  print "message " shorten(1000, message)
  print reasons (ENVIRON["error"] == "" ? "" : "error " ENVIRON["error"] "\n") ENVIRON["findings"]
}
