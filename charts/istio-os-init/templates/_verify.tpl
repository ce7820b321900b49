{{- /*
Container verify without its name: applies istio-init's rules with Istio's own code, as istio-init may. Takes the root context and
what comes after a failure (ISTIO_OS_INIT_REPAIR).
*/}}
{{- define "istio-os-init.verify" -}}
{{- with first . -}}
{{ include "istio-os-init.container" . }}
command: [/bin/sh, /opt/istio-os-init/verify.sh]
args:
  {{- include "istio-os-init.istioIptablesArgs" . | nindent 2 }}
env:
  - name: ISTIO_OS_INIT_REPAIR
    value: {{ last $ }}
  - name: ISTIO_OS_INIT_BACKENDS
    value: {{ include "istio-os-init.backends" . }}
  - name: ISTIO_OS_INIT_IPV6
    value: {{ .Values.mesh.ipv6 | quote }}
  # For the report.
  - name: ISTIO_OS_INIT_NODE
    valueFrom: {fieldRef: {fieldPath: spec.nodeName}}
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
  # What load found explains a failure; writes its verdict beside it, and the mark of a failure.
  - name: state
    mountPath: /run/istio-os-init
  # The scripts.
  - name: config
    mountPath: /opt/istio-os-init
    readOnly: true
{{- end }}
{{- end }}
{{- /* The two volumes that it mounts. */}}
{{- define "istio-os-init.verifyVolumes" -}}
- name: state
  emptyDir:
    # A few lines in memory: nothing of ours is written to the node's disk.
    medium: Memory
    sizeLimit: 1Mi
- name: config
  configMap:
    name: {{ include "istio-os-init.configName" . }}
    # report is called by its name.
    defaultMode: 0555
{{- end }}
