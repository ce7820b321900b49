{{/*
The backends that the plan serves, comma-separated.
auto is what istio-init does: iptables-legacy before Istio 1.26; from 1.26 on iptables-nft wherever it is usable in a new
network namespace (tools/istio-iptables/pkg/dependencies); both where the version is unknown. istio-cni runs the host's iptables, whatever
its version: on the RHEL family iptables-nft from RHEL 8 on.
*/}}
{{- define "istio-os-init.backends" -}}
{{- $global := .Values.global | default dict }}
{{- $version := include "istio-os-init.istioVersion" . }}
{{- if ne .Values.backend "auto" }}
{{- .Values.backend }}
{{- else if $global.nativeNftables }}
{{- "native-nft" }}
{{- else if .Values.mesh.cni }}
{{- "nft" }}
{{- else if not $version }}
{{- .Values.mesh.ambient | ternary "nft" "legacy,nft" }}
{{- else if semverCompare "<1.26-0" $version }}
{{- "legacy" }}
{{- else }}
{{- "nft" }}
{{- end }}
{{- end }}

{{/* The groups of modules that the mesh's modes need, in the order of values.yaml, with spaces. */}}
{{- define "istio-os-init.groups" -}}
base
{{- range list "ipv6" "tproxy" "dns" "dropInvalid" "ambient" }}
{{- if index $.Values.mesh . }} {{ . }}{{ end }}
{{- end }}
{{- end }}

{{/* The plan: one module a line, alternatives by |, # for comments. A module is named once, where it is first needed. */}}
{{- define "istio-os-init.plan" -}}
{{- $backends := splitList "," (include "istio-os-init.backends" .) }}
{{- $seen := list }}
{{- $lines := list }}
{{- range $group := append (include "istio-os-init.groups" . | splitList " ") "extra" }}
{{- range $backend := eq $group "extra" | ternary (list "") $backends }}
{{- $entries := index $.Values.modules $group }}
{{- if $backend }}
{{- $entries = index $entries $backend }}
{{- end }}
{{- $new := list }}
{{- range $entries }}
{{- /* the kernel writes _ where a file name may have - */}}
{{- $entry := replace "-" "_" . }}
{{- if not (has $entry $seen) }}
{{- $seen = append $seen $entry }}
{{- $new = append $new $entry }}
{{- end }}
{{- end }}
{{- if $new }}
{{- $lines = concat (append $lines (printf "# %s" (list $group $backend | join " " | trim))) $new }}
{{- end }}
{{- end }}
{{- end }}
{{- join "\n" $lines }}
{{- end }}

{{/* What each backend would need for the mesh's modes: one a line, its name and its entries. For the report: nothing of it is loaded. */}}
{{- define "istio-os-init.needs" -}}
{{- $lines := list }}
{{- $groups := include "istio-os-init.groups" . | splitList " " }}
{{- range $backend := list "nft" "legacy" "native-nft" }}
{{- $entries := list }}
{{- range $groups }}
{{- $entries = concat $entries (index $.Values.modules . $backend) }}
{{- end }}
{{- /* the kernel writes _ where a file's name may have - */}}
{{- $lines = append $lines (printf "%s %s" $backend (uniq $entries | join " " | replace "-" "_")) }}
{{- end }}
{{- join "\n" $lines }}
{{- end }}

{{/* The arguments of istio-iptables, as a YAML list: istio-init's own (injection-template.yaml), with the mesh's settings. */}}
{{- define "istio-os-init.istioIptablesArgs" -}}
{{- $args := list "-p" "15001" "-z" "15006" "-u" "1337" "-m" (.Values.mesh.tproxy | ternary "TPROXY" "REDIRECT") "-i" "*" "-x" "" "-b" "*" "-d" "15090,15021,15020" "--log_output_level=default:info" }}
{{- if .Values.mesh.dns }}
{{- $args = append $args "--redirect-dns" }}
{{- end }}
{{- if eq (include "istio-os-init.backends" .) "native-nft" }}
{{- $args = append $args "--native-nftables" }}
{{- end }}
{{- toYaml $args }}
{{- end }}

{{/*
Name of the ConfigMap, which changes with its data: a new plan or script rolls the pods, and a pod of the revision before keeps what
it has been proven with.
*/}}
{{- define "istio-os-init.configName" -}}
{{- printf "%s-%s" (include "istio-os-init.fit" (list (include "istio-os-init.fullname" .) 54)) (include "istio-os-init.config" . | sha256sum | trunc 8) }}
{{- end }}

{{/* The ConfigMap's data: the plan, each backend's needs, and the scripts as they are in files/. */}}
{{- define "istio-os-init.config" -}}
plan: |
  # Kernel modules that a node needs for Istio{{ with include "istio-os-init.istioVersion" . }} {{ . }}{{ end }}, backend {{ include "istio-os-init.backends" . | replace "," " or " }}.
  {{- include "istio-os-init.plan" . | nindent 2 }}
backends: |
  {{- include "istio-os-init.needs" . | nindent 2 }}
{{- include "istio-os-init.scripts" (list . "files/{reasons,remedies,report,*.awk,*.pl,{outcome,facts,persist,load,verify,verify-traffic,watch}.sh}") }}
{{- if .Values.mesh.ambient }}
{{- include "istio-os-init.scripts" (list . "files/ambient.sh") }}
{{- end }}
{{- if include "istio-os-init.signals" . }}
{{- include "istio-os-init.scripts" (list . "files/{signal,api}.sh") }}
{{- end }}
{{- end }}

{{/*
The scripts under a pattern, as keys of a ConfigMap, each on a line of its own. Takes the root context and the pattern. Without the
last newline (|-): of the last key Helm 3 would cut it off and Helm 4 not.
*/}}
{{- define "istio-os-init.scripts" -}}
{{- range $path, $script := (first .).Files.Glob (last .) }}
{{ base $path }}: |-
  {{- toString $script | trimSuffix "\n" | nindent 2 }}
{{- end }}
{{- end }}

{{/*
Such keys as a ConfigMap's data, from their text. nindent indents empty lines too; the spaces go by replace, since a regular expression
would take a tenth of the time of a rendering.
*/}}
{{- define "istio-os-init.data" -}}
{{- nindent 2 . | replace "\n    \n" "\n\n" }}
{{- end }}
