{{/*
global.resourceScope of Istio's charts splits an installation between two people: `cluster` is what only the cluster's administrator
may make, `namespace` is the rest, `all`, the default, is both. Each of these is empty where its objects belong to the other's release.
*/}}
{{- define "istio-os-init.resourceScope" -}}
{{- $global := .Values.global | default dict }}
{{- $global.resourceScope | default "all" }}
{{- end }}

{{/* Around every object that has a namespace. */}}
{{- define "istio-os-init.namespaced" -}}
{{- if ne (include "istio-os-init.resourceScope" .) "cluster" }}true{{ end }}
{{- end }}

{{/* Around every object that has none. */}}
{{- define "istio-os-init.clusterScoped" -}}
{{- if ne (include "istio-os-init.resourceScope" .) "namespace" }}true{{ end }}
{{- end }}
