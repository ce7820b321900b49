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

{{/*
The ConfigMap's data. plan: what is loaded. backends: what each backend would need for the mesh's modes, one a line, its name and its
entries; the report reads it, nothing of it is loaded. The scripts as they are in files/, without the last newline (|-): of the last key
Helm 3 would cut it off and Helm 4 not.
*/}}
{{- define "istio-os-init.config" -}}
{{- $groups := include "istio-os-init.groups" . | splitList " " }}
{{- $scripts := "reasons,remedies,report,*.awk,paths.pl,{outcome,facts,persist,load,verify,verify-traffic,watch}.sh" }}
{{- if .Values.mesh.ambient }}
{{- $scripts = print $scripts ",ambient.*" }}
{{- end }}
{{- if include "istio-os-init.signals" . }}
{{- $scripts = print $scripts ",{signal,api}.sh" }}
{{- end -}}
plan: |
  # Kernel modules that a node needs for Istio{{ with include "istio-os-init.istioVersion" . }} {{ . }}{{ end }}, backend {{ include "istio-os-init.backends" . | replace "," " or " }}.
  {{- include "istio-os-init.plan" . | nindent 2 }}
backends: |
  {{- range $backend := include "istio-os-init.backendTable" . | fromYamlArray }}
  {{- $entries := list }}
  {{- range $groups }}
  {{- $entries = concat $entries (index $.Values.modules . $backend.name) }}
  {{- end }}
  {{ $backend.name }} {{ uniq $entries | join " " | replace "-" "_" }}
  {{- end }}
{{- range $path, $script := .Files.Glob (printf "files/{%s}" $scripts) }}
{{ base $path }}: |-
  {{- toString $script | trimSuffix "\n" | nindent 2 }}
{{- end }}
{{- end }}

{{/*
Name of the ConfigMap, which changes with its data: a new plan or script rolls the pods, and a pod of the revision before keeps what
it has been proven with.
*/}}
{{- define "istio-os-init.configName" -}}
{{- printf "%s-%s" (include "istio-os-init.fit" (list (include "istio-os-init.fullname" .) 54)) (include "istio-os-init.config" . | sha256sum | trunc 8) }}
{{- end }}
