{{/*
The image's tag: ours, else the mesh's, else the chart's appVersion. Empty if a digest alone names the image.
global.variant is not followed: its distroless images have no shell.
*/}}
{{- define "istio-os-init.tag" -}}
{{- if or .Values.image.tag (not .Values.image.digest) }}
{{- .Values.image.tag | default (.Values.global).tag | default .Chart.AppVersion }}
{{- end }}
{{- end }}

{{/* The image's full reference. */}}
{{- define "istio-os-init.image" -}}
{{- $hub := .Values.image.hub | default (.Values.global).hub | default "registry.istio.io/release" }}
{{- $image := .Values.image.name }}
{{- if not (contains "/" $image) }}
{{- $image = printf "%s/%s" (trimSuffix "/" $hub) $image }}
{{- end }}
{{- with include "istio-os-init.tag" . }}
{{- $image = printf "%s:%s" $image . }}
{{- end }}
{{- with .Values.image.digest }}
{{- $image = printf "%s@%s" $image . }}
{{- end }}
{{- $image }}
{{- end }}

{{/*
The Istio version that the tag names, as 1.y or 1.y.z; empty if it names none: "latest", a digest alone, a vendor's own version such as
OpenShift Service Mesh's 3.1.0.
*/}}
{{- define "istio-os-init.istioVersion" -}}
{{- include "istio-os-init.tag" . | regexFind "^v?1\\.[0-9]+(\\.[0-9]+)?" | trimPrefix "v" }}
{{- end }}
