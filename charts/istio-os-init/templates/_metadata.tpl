{{/* A name of so many characters at most, from (list NAME CHARACTERS). A checksum distinguishes names that begin alike. */}}
{{- define "istio-os-init.fit" -}}
{{- $name := first . }}
{{- if gt (len $name) (last .) }}
{{- $name = printf "%s-%s" ($name | trunc (sub (last .) 9 | int) | trimSuffix "-") (sha256sum $name | trunc 8) }}
{{- end }}
{{- $name }}
{{- end }}

{{/*
The name of every object: release and chart, without saying the same twice. As a dependency the chart may be in a release twice: of two
aliases that are both part of the release's name only one may be left out.
*/}}
{{- define "istio-os-init.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride }}
{{- $full := printf "%s-%s" .Release.Name $name }}
{{- if or (eq $name .Release.Name) (and .Chart.IsRoot (contains $name .Release.Name)) }}
{{- $full = .Release.Name }}
{{- end }}
{{- include "istio-os-init.fit" (list (.Values.fullnameOverride | default $full) 63) }}
{{- end }}

{{/* The name of the objects that have no namespace: no other release has it. */}}
{{- define "istio-os-init.clusterName" -}}
{{- printf "%s-%s" (include "istio-os-init.fullname" .) .Release.Namespace }}
{{- end }}

{{/* The owner of the file and of the condition on a node: no other release has this name. */}}
{{- define "istio-os-init.owner" -}}
{{- printf "%s/%s" .Release.Namespace (include "istio-os-init.fullname" .) }}
{{- end }}

{{/*
Whether the release creates objects that have a namespace, and below, objects that have none; empty if not. global.resourceScope of Istio's
charts splits an installation between two people: `cluster` is what only the cluster's administrator may create, `namespace` is the rest,
`all`, the default, is both.
*/}}
{{- define "istio-os-init.namespaced" -}}
{{- if ne ((.Values.global).resourceScope | default "all") "cluster" }}true{{ end }}
{{- end }}

{{- define "istio-os-init.clusterScoped" -}}
{{- if ne ((.Values.global).resourceScope | default "all") "namespace" }}true{{ end }}
{{- end }}

{{/*
Labels that select pods, from (list . PURPOSE). PURPOSE is "" for the release's own pods; another word distinguishes the pods of a hook. The labels
never change: a DaemonSet's selector is immutable.
*/}}
{{- define "istio-os-init.selectorLabels" -}}
{{- $root := first . }}
{{- $name := include "istio-os-init.fit" (list (default $root.Chart.Name $root.Values.nameOverride) 63) }}
{{- with last . }}
{{- $name = printf "%s-%s" (include "istio-os-init.fit" (list $name 54)) . }}
{{- end -}}
app.kubernetes.io/instance: {{ $root.Release.Name | quote }}
app.kubernetes.io/name: {{ $name | quote }}
{{- end }}

{{/* The same as a label selector: NAME=VALUE,NAME=VALUE. */}}
{{- define "istio-os-init.selector" -}}
{{- include "istio-os-init.selectorLabels" . | replace ": " "=" | replace "\"" "" | replace "\n" "," }}
{{- end }}

{{/*
The metadata of every object, from a dict: "root"; "name"; "cluster", true if the object has no namespace; "labels" and "annotations" of
its own, which win over those of every object; and "hook", the weight of an object of `helm uninstall`.

Helm creates the hooks' objects in the order of their weights before it deletes the first; it waits for a Job's end and for nothing else. They
are pre-delete: after such a hook has failed Helm keeps the release, and the next `helm uninstall` runs the hooks again. A release
whose post-delete hook has failed is forgotten.
*/}}
{{- define "istio-os-init.metadata" -}}
{{- $root := .root }}
{{- $labels := include "istio-os-init.selectorLabels" (list $root "") | fromYaml }}
{{- $_ := set $labels "helm.sh/chart" (printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-") }}
{{- $_ := set $labels "app.kubernetes.io/version" $root.Chart.AppVersion }}
{{- $_ := set $labels "app.kubernetes.io/managed-by" $root.Release.Service }}
{{- $_ := set $labels "app.kubernetes.io/part-of" "istio" }}
{{- $hook := dict }}
{{- if hasKey . "hook" }}
{{- $policy := "before-hook-creation,hook-succeeded,hook-failed" }}
{{- $hook = dict "helm.sh/hook" "pre-delete" "helm.sh/hook-weight" (toString .hook) "helm.sh/hook-delete-policy" $policy }}
{{- end -}}
metadata:
  name: {{ .name | quote }}
  {{- if not .cluster }}
  namespace: {{ $root.Release.Namespace | quote }}
  {{- end }}
  labels:
    {{- merge (dict) (.labels | default dict) $labels $root.Values.commonLabels | toYaml | nindent 4 }}
  {{- with merge $hook (.annotations | default dict) $root.Values.commonAnnotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}

{{/* The service account of the pods. */}}
{{- define "istio-os-init.serviceAccountName" -}}
{{- .Values.serviceAccount.name | default (.Values.serviceAccount.create | ternary (include "istio-os-init.fullname" .) "default") }}
{{- end }}

{{/*
A Role or ClusterRole up to its rules, and before it the binding that gives it to a service account. From the dict of its metadata, "kind" and
"account".
*/}}
{{- define "istio-os-init.role" -}}
{{- $binding := pick . "root" "name" "cluster" }}
{{- if hasKey . "hook" }}
{{- $_ := set $binding "hook" (add .hook 1) }}
{{- end -}}
apiVersion: rbac.authorization.k8s.io/v1
kind: {{ .kind }}Binding
{{ include "istio-os-init.metadata" $binding }}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: {{ .kind }}
  name: {{ .name | quote }}
subjects:
  - kind: ServiceAccount
    name: {{ .account | quote }}
    namespace: {{ .root.Release.Namespace | quote }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: {{ .kind }}
{{ include "istio-os-init.metadata" . }}
{{- end }}
