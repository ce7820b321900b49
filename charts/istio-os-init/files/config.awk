# config.awk: prints what loads the node's modules at boot, in the language of the system that configures the node. Runs after report.awk.
# Needs text.awk.
#
# In: report.awk's. Out: the modules of the plan that are loaded or may be on disk, and what lifts the rules that hinder them, or comments that
# name these. A file in /etc/modprobe.d hides the one of the same name elsewhere: it contains its other lines, up to 200.
# Exit: see report.awk; 1 also if the node is not selected.
# Sources: config/v3_2 of coreos/ignition; config/fcos and config/flatcar of coreos/butane; machine.kernel.modules of siderolabs/talos;
# settings.kernel.modules of bottlerocket.dev.

$1 == "module" && $3 != "built-in" || $1 == "missing" && $3 ~ /^(on-disk|unknown)$/ { to_load[++loads] = $2 }
$1 == "missing" && $3 == "not-on-disk" { absent = item(absent, $2) }
$1 == "rule" { # place is report.awk's
  line = "# " place " keeps " $3 " from being loaded at boot: remove " (place ~ /^\/proc\// ? $3 " there" : "that line") ".\n"
  lines_of_rules = lines_of_rules line
  if (place ~ /^\/proc\//) parameters = parameters line
  else if (sub(/:[0-9]+$/, "", place) && !(place in hides)) hides[hidden[++hidings] = place]
}
$1 == "kept" {
  at = index($0, " // ")
  place = substr($0, 6, at - 6)
  kept[place] = kept[place] substr($0, at + 4) "\n"
}

# Printable ASCII and line breaks as a data URL has them.
function in_url(text,   i, letter, out) {
  for (i = 1; i <= length(text); i++) {
    letter = substr(text, i, 1)
    out = out (letter ~ /[A-Za-z0-9._~\/-]/ ? letter : letter == "\n" ? "%0A" : sprintf("%%%02X", index(ascii, letter) + 31))
  }
  return out
}

BEGIN { for (i = 32; i < 127; i++) ascii = ascii sprintf("%c", i) }

# Each module between two texts.
function each(before, after,   i, out) {
  for (i = 1; i <= loads; i++) out = out before to_load[i] after
  return out
}

function file_name(path) {
  sub(/.*\//, "", path)
  return path
}

# Text as the value of a key, in YAML: for Ignition as a URL, for Butane as it is.
function contents(url, text) {
  if (url) return "source: \"data:," in_url(text) "\""
  text = quoted(text)
  gsub(/\n/, "\\n", text)
  return "inline: " text
}

# The files as Ignition has them, and with it OpenShift and Butane; indented.
function files(indent, url,   i, out) {
  for (i = 0; i <= hidings; i++) {
    if (i) out = out indent "# " hidden[i] " without the lines that hinder.\n"
    out = out indent "- path: " (i ? "/etc/modprobe.d/" file_name(hidden[i]) : "/etc/modules-load.d/istio.conf") "\n" \
      indent "  mode: " (url ? 420 : "0644") "\n" indent "  overwrite: true\n" indent "  contents:\n" indent "    " contents(url, i ? kept[hidden[i]] : each("", "\n")) "\n"
  }
  return out
}

function print_config(form,   how) {
  how["modules-load"] = "write this to /etc/modules-load.d/istio.conf"
  how["machineconfig"] = "kubectl apply -f - ; the machines of role worker reboot one after another"
  how["talos"] = "talosctl patch machineconfig --patch @FILE"
  how["bottlerocket"] = "apiclient apply <FILE, or add this to the user data"
  how["butane"] = "butane FILE, for new machines: Ignition runs at the first boot only"
  if (!(form in how)) refuse(2, "--config " quoted(form) " is unknown. Use modules-load, machineconfig, talos, bottlerocket or butane.")
  if (!reasons && !known) return
  if (reason[1] == "NotSelected") refuse(1, "node " outcome["node"] ": " outcome["line"] ". Ask on a node that is selected.")
  if (!loads) {
    print "# Node " outcome["node"] " has nothing to load at boot: each module of the plan is built into its kernel, or not on its disk."
    exit
  }
  print "# From the report on node " outcome["node"] ". To review, then: " how[form] "."
  if (absent != "") print "# Not on this node's disk, so not below: " absent "."
  printf "%s", form ~ /^(machineconfig|butane)$/ ? parameters : lines_of_rules
  if (form == "modules-load") printf "%s", each("", "\n")
  else if (form == "talos") printf "machine:\n  kernel:\n    modules:\n%s", each("      - name: ", "\n")
  else if (form == "bottlerocket") printf "%s", each("[settings.kernel.modules.", "]\nallowed = true\nautoload = true\n")
  else if (form == "butane")
    printf "variant: %s\nstorage:\n  files:\n%s", fact["os-id"] == "flatcar" ? "flatcar\nversion: 1.0.0" : "fcos\nversion: 1.5.0", files("    ")
  else {
    print "apiVersion: machineconfiguration.openshift.io/v1\nkind: MachineConfig\nmetadata:\n  name: 99-worker-istio-os-init\n  labels:"
    print "    machineconfiguration.openshift.io/role: worker\nspec:\n  config:\n    ignition:\n      version: 3.2.0\n    storage:\n      files:"
    printf "%s", files("        ", 1)
  }
  exit
}
