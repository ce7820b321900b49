{{- /*
What the mesh says to istio-init by its proxyMetadata, and the values to verify: NAME=VALUE, with spaces. Istio obeys
FORCE_IPTABLES_BINARY from 1.28 on; istio-cni's plugin, which runs the host's iptables, never.
*/}}
{{- define "istio-os-init.proxyMetadata" -}}
{{- $variables := list }}
{{- if .Values.mesh.dualStack }}
{{- $variables = append $variables "ISTIO_DUAL_STACK=true" }}
{{- end }}
{{- if .Values.mesh.dropInvalid }}
{{- $variables = append $variables "INVALID_DROP=true" }}
{{- end }}
{{- $version := include "istio-os-init.istioVersion" . | default "1.28" }}
{{- if and (has .Values.backend (list "nft" "legacy")) (not .Values.mesh.cni) (semverCompare ">=1.28-0" $version) }}
{{- $variables = append $variables (printf "FORCE_IPTABLES_BINARY=%s" .Values.backend) }}
{{- end }}
{{- join " " $variables }}
{{- end }}

{{- /*
Container verify without its name: applies istio-init's rules with Istio's own code, as istio-init may. Takes the root context and
the writers of the pod: itself alone in that of helm test.
*/}}
{{- define "istio-os-init.verify" -}}
{{- $writers := last . }}
{{- with first . -}}
{{ include "istio-os-init.container" . }}
command: [/bin/sh, /opt/istio-os-init/verify.sh]
args:
  {{- include "istio-os-init.istioIptablesArgs" . | nindent 2 }}
env:
  {{- if not (has "load" $writers) }}
  - name: ISTIO_OS_INIT_TEST
    value: "true"
  {{- end }}
  - name: ISTIO_OS_INIT_BACKENDS
    value: {{ include "istio-os-init.backends" . }}
  {{- if .Values.mesh.ambient }}
  - name: ISTIO_OS_INIT_AMBIENT
    value: "true"
  {{- end }}
  {{- if .Values.mesh.cni }}
  - name: ISTIO_OS_INIT_CNI
    value: "true"
  {{- end }}
  {{- range include "istio-os-init.proxyMetadata" . | splitList " " | compact }}
  - name: {{ splitList "=" . | first }}
    value: {{ splitList "=" . | last | quote }}
  {{- end }}
  {{- with .Values.extraEnv }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
# To the letter what istio-init has: more would prove nothing.
securityContext:
  runAsUser: 0
  runAsGroup: 0
  runAsNonRoot: false
  privileged: false
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: false
  capabilities:
    drop: [ALL]
    # istio-init's: rules, routes and the rules' sockets.
    add: [NET_ADMIN, NET_RAW]
volumeMounts:
  {{- include "istio-os-init.outcomes" (list $writers "verify") | nindent 2 }}
  # The scripts.
  - name: config
    mountPath: /opt/istio-os-init
    readOnly: true
{{- end }}
{{- end }}
