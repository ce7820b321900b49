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
  - name: ISTIO_OS_INIT_IPV6
    value: {{ .Values.mesh.ipv6 | quote }}
  {{- if has .Values.backend (list "nft" "legacy") }}
  # Istio >= 1.28 obeys it; earlier versions have no such choice.
  - name: FORCE_IPTABLES_BINARY
    value: {{ .Values.backend }}
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
