{{/* The chart's name, or its override. */}}
{{- define "istio-os-init.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* The name of every object: release and chart, without saying the same twice. */}}
{{- define "istio-os-init.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" }}
{{- else }}
{{- $name := default .Chart.Name .Values.nameOverride }}
{{- if contains $name .Release.Name }}
{{- .Release.Name | trunc 63 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 63 | trimSuffix "-" }}
{{- end }}
{{- end }}
{{- end }}

{{/* Labels that select our pods. They never change: a DaemonSet's selector is immutable. */}}
{{- define "istio-os-init.selectorLabels" -}}
app.kubernetes.io/name: {{ include "istio-os-init.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{/* Labels of every object. */}}
{{- define "istio-os-init.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{ include "istio-os-init.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: istio
{{- end }}

{{/*
Labels of a pod. Takes the root context and what the pod is for: "" for the release's own, which the DaemonSet selects; another
word tells its pods apart from these. The mesh must not inject into, nor redirect, a pod that prepares its nodes.
*/}}
{{- define "istio-os-init.podLabels" -}}
{{- $root := first . }}
{{- $own := include "istio-os-init.selectorLabels" $root | fromYaml }}
{{- with last . }}
{{- $_ := set $own "app.kubernetes.io/name" (printf "%s-%s" (include "istio-os-init.name" $root | trunc 54 | trimSuffix "-") .) }}
{{- end }}
{{- $optOut := dict "sidecar.istio.io/inject" "false" "istio.io/dataplane-mode" "none" }}
{{- toYaml (merge $own $optOut $root.Values.podLabels) }}
{{- end }}

{{/* Name of the objects that uninstall makes and removes again. */}}
{{- define "istio-os-init.cleanUpName" -}}
{{- printf "%s-clean-up" (include "istio-os-init.fullname" . | trunc 54 | trimSuffix "-") }}
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
