{{/* A name of so many characters at most, from (list name characters). A checksum tells names apart that begin alike. */}}
{{- define "istio-os-init.fit" -}}
{{- $name := first . }}
{{- if gt (len $name) (last .) }}
{{- $name = printf "%s-%s" ($name | trunc (sub (last .) 9 | int) | trimSuffix "-") (sha256sum $name | trunc 8) }}
{{- end }}
{{- $name }}
{{- end }}

{{/* The chart's name, which is its alias where it is a dependency that has one, or its override. */}}
{{- define "istio-os-init.name" -}}
{{- include "istio-os-init.fit" (list (default .Chart.Name .Values.nameOverride) 63) }}
{{- end }}

{{/*
The name of every object: release and chart, without saying the same twice. As a dependency it may be there twice: of two aliases
that are both part of the release's name only one may say nothing of its own.
*/}}
{{- define "istio-os-init.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride }}
{{- $full := printf "%s-%s" .Release.Name $name }}
{{- if or (eq $name .Release.Name) (and .Chart.IsRoot (contains $name .Release.Name)) }}
{{- $full = .Release.Name }}
{{- end }}
{{- include "istio-os-init.fit" (list (.Values.fullnameOverride | default $full) 63) }}
{{- end }}

{{/* Labels that select our pods. They never change: a DaemonSet's selector is immutable. */}}
{{- define "istio-os-init.selectorLabels" -}}
app.kubernetes.io/name: {{ include "istio-os-init.name" . | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end }}

{{/* Labels of every object. */}}
{{- define "istio-os-init.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" | quote }}
{{ include "istio-os-init.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: istio
{{- end }}

{{/*
Labels and, at the end, annotations of an object that is no pod, from (list . ANNOTATIONS): ours win over the object's own, and these over
those of every object.
*/}}
{{- define "istio-os-init.metadata" -}}
{{- $root := first . -}}
labels:
  {{- toYaml (merge (include "istio-os-init.labels" $root | fromYaml) $root.Values.commonLabels) | nindent 2 }}
{{- with merge (dict) (last .) $root.Values.commonAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/*
Labels of a pod. Takes the root context and what the pod is for: "" for the release's own, which the DaemonSet selects; another
word tells its pods apart from these. The mesh must not inject into, nor redirect, a pod that prepares its nodes.
*/}}
{{- define "istio-os-init.podLabels" -}}
{{- $root := first . }}
{{- $own := include "istio-os-init.selectorLabels" $root | fromYaml }}
{{- with last . }}
{{- $_ := set $own "app.kubernetes.io/name" (printf "%s-%s" (include "istio-os-init.fit" (list (include "istio-os-init.name" $root) 54)) .) }}
{{- end }}
{{- $optOut := dict "sidecar.istio.io/inject" "false" "istio.io/dataplane-mode" "none" }}
{{- toYaml (merge $own $optOut $root.Values.podLabels) }}
{{- end }}

{{/* Of a pod's labels those that select it, from what podLabels takes. */}}
{{- define "istio-os-init.selectorLabelsOf" -}}
{{- pick (include "istio-os-init.podLabels" . | fromYaml) "app.kubernetes.io/name" "app.kubernetes.io/instance" | toYaml }}
{{- end }}

{{/* The same as a label selector, NAME=VALUE,NAME=VALUE. */}}
{{- define "istio-os-init.selectorOf" -}}
{{- $pairs := list }}
{{- range $name, $value := include "istio-os-init.selectorLabelsOf" . | fromYaml }}
{{- $pairs = append $pairs (printf "%s=%s" $name $value) }}
{{- end }}
{{- join "," $pairs }}
{{- end }}

{{/*
Annotations of a pod, from the root context and those of its own, which win over the user's. Every pod of the chart has them from
here.
*/}}
{{- define "istio-os-init.podAnnotations" -}}
{{- with merge (last .) (first .).Values.podAnnotations }}
{{- toYaml . }}
{{- end }}
{{- end }}

{{/* Whose the file on a node is: no other release has this name. */}}
{{- define "istio-os-init.owner" -}}
{{- printf "%s/%s" .Release.Namespace (include "istio-os-init.fullname" .) }}
{{- end }}

{{/* The service account of the pods. */}}
{{- define "istio-os-init.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "istio-os-init.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}
