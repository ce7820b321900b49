{{/*
The image's tag: ours, else the mesh's, else the chart's appVersion. Empty where a digest alone names the image.
global.variant is not followed: its distroless images have no shell.
*/}}
{{- define "istio-os-init.tag" -}}
{{- $global := .Values.global | default dict }}
{{- if .Values.image.tag }}
{{- .Values.image.tag }}
{{- else if not .Values.image.digest }}
{{- $global.tag | default .Chart.AppVersion }}
{{- end }}
{{- end }}

{{/* The image's full reference. */}}
{{- define "istio-os-init.image" -}}
{{- $global := .Values.global | default dict }}
{{- $hub := .Values.image.hub | default $global.hub | default "registry.istio.io/release" }}
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

{{/* The pull policy: ours, else the mesh's, else IfNotPresent. */}}
{{- define "istio-os-init.pullPolicy" -}}
{{- $global := .Values.global | default dict }}
{{- .Values.image.pullPolicy | default $global.imagePullPolicy | default "IfNotPresent" }}
{{- end }}

{{/* The pull secrets as a YAML list: ours, else the mesh's. Istio's charts write names, Kubernetes {name: ...}: both are taken. */}}
{{- define "istio-os-init.pullSecrets" -}}
{{- $global := .Values.global | default dict }}
{{- $secrets := list }}
{{- range .Values.imagePullSecrets | default $global.imagePullSecrets }}
{{- $secrets = append $secrets (dict "name" (kindIs "map" . | ternary (get (kindIs "map" . | ternary . dict) "name") .)) }}
{{- end }}
{{- with $secrets | uniq }}
{{- toYaml . }}
{{- end }}
{{- end }}

{{/*
The Istio version that the tag names, as 1.y or 1.y.z; empty where it names none: "latest", a digest alone, a vendor's own version such as
OpenShift Service Mesh's 3.1.0.
*/}}
{{- define "istio-os-init.istioVersion" -}}
{{- include "istio-os-init.tag" . | regexFind "^v?1\\.[0-9]+(\\.[0-9]+)?" | trimPrefix "v" }}
{{- end }}
