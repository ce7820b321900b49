{{/*
All that the templates know of a backend, one row each; its modules are in values.yaml.
ambient:      the first Istio whose ambient data plane can use it; empty: 1.21, which is the first of the data plane's form
since, else:  the first Istio whose istio-init can use it, and what to set for an earlier one; empty: every Istio
args:         what tells istio-iptables to use it
force:        the variable of the mesh's proxyMetadata by which istio-init is told to use it. Istio obeys it from 1.28 on; istio-cni's plugin,
              which runs the host's iptables, never
global:       the global of Istio's charts by which a mesh is switched to it
*/}}
{{- define "istio-os-init.backendTable" -}}
- name: nft
  since: 1.25.4
  else: backend=auto, or mesh.cni=true if istio-cni programs the pods
  force: FORCE_IPTABLES_BINARY
- name: legacy
  force: FORCE_IPTABLES_BINARY
- name: native-nft
  since: 1.27.0
  ambient: 1.28.0
  else: backend=auto without global.nativeNftables, or use an image of Istio 1.27 or later
  args: [--native-nftables]
  global: nativeNftables
{{- end }}

{{/*
The backends that the plan serves, comma-separated.
auto is the backend that the mesh is switched to; otherwise it is what istio-init does: iptables-legacy before Istio 1.25.4; from then
on iptables-nft wherever it is usable in a new network namespace (tools/istio-iptables/pkg/dependencies); both if the version is unknown.
istio-cni runs the host's iptables, whatever its version: on the RHEL family iptables-nft from RHEL 8 on.
*/}}
{{- define "istio-os-init.backends" -}}
{{- $version := include "istio-os-init.istioVersion" . }}
{{- $switched := "" }}
{{- range include "istio-os-init.backendTable" . | fromYamlArray }}
{{- if get ($.Values.global | default dict) (.global | default "") }}
{{- $switched = .name }}
{{- end }}
{{- end }}
{{- if ne .Values.backend "auto" }}
{{- .Values.backend }}
{{- else if $switched }}
{{- $switched }}
{{- else if .Values.mesh.cni }}
{{- "nft" }}
{{- else if not $version }}
{{- .Values.mesh.ambient | ternary "nft" "legacy,nft" }}
{{- else }}
{{- include "istio-os-init.prefersNft" . | default "legacy" }}
{{- end }}
{{- end }}

{{/* "nft" if the version of Istio is known, and its istio-init uses iptables-nft wherever it can. */}}
{{- define "istio-os-init.prefersNft" -}}
{{- $version := include "istio-os-init.istioVersion" . }}
{{- range include "istio-os-init.backendTable" . | fromYamlArray }}
{{- if and (eq .name "nft") $version (semverCompare (printf ">=%s-0" .since) $version) }}
{{- .name }}
{{- end }}
{{- end }}
{{- end }}

{{/* What the mesh tells istio-init by its proxyMetadata, and the values tell verify: NAME=VALUE, with spaces. */}}
{{- define "istio-os-init.proxyMetadata" -}}
{{- $variables := list }}
{{- if .Values.mesh.dualStack }}
{{- $variables = append $variables "ISTIO_DUAL_STACK=true" }}
{{- end }}
{{- if .Values.mesh.dropInvalid }}
{{- $variables = append $variables "INVALID_DROP=true" }}
{{- end }}
{{- $obeys := include "istio-os-init.istioVersion" . | default "1.28" | semverCompare ">=1.28-0" }}
{{- range include "istio-os-init.backendTable" . | fromYamlArray }}
{{- if and (eq .name $.Values.backend) .force $obeys (not $.Values.mesh.cni) }}
{{- $variables = append $variables (printf "%s=%s" .force .name) }}
{{- end }}
{{- end }}
{{- join " " $variables }}
{{- end }}

{{/* The arguments of istio-iptables, as a YAML list: istio-init's own (injection-template.yaml), with the mesh's settings. */}}
{{- define "istio-os-init.istioIptablesArgs" -}}
{{- $args := list "-p" "15001" "-z" "15006" "-u" "1337" "-m" (.Values.mesh.tproxy | ternary "TPROXY" "REDIRECT") "-i" "*" "-x" "" "-b" "*" "-d" "15090,15021,15020" "--log_output_level=default:info" }}
{{- if .Values.mesh.dns }}
{{- $args = append $args "--redirect-dns" }}
{{- end }}
{{- $served := include "istio-os-init.backends" . | splitList "," }}
{{- range include "istio-os-init.backendTable" . | fromYamlArray }}
{{- if has .name $served }}
{{- $args = concat $args (.args | default list) }}
{{- end }}
{{- end }}
{{- toYaml $args }}
{{- end }}
