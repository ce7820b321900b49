{{/*
What every pod has: its metadata and the beginning of its spec. From a dict: "root"; "name", of the pod's workload; "purpose", see
selectorLabels; "account", the service account; "annotations", its own, which win over the user's.
*/}}
{{- define "istio-os-init.pod" -}}
{{- $root := .root }}
{{- $labels := include "istio-os-init.selectorLabels" (list $root .purpose) | fromYaml }}
{{- /* the mesh must not inject into, nor redirect, a pod that prepares its nodes */}}
{{- $optOut := dict "sidecar.istio.io/inject" "false" "istio.io/dataplane-mode" "none" }}
{{- $annotations := .annotations | default dict }}
{{- with include "istio-os-init.scc" (list $root .name) }}
{{- $annotations = merge $annotations (dict "openshift.io/required-scc" .) }}
{{- end }}
{{- $secrets := list }}
{{- range $root.Values.imagePullSecrets | default ($root.Values.global).imagePullSecrets }}
{{- /* Istio's charts write a name, Kubernetes {name: ...} */}}
{{- $secrets = append $secrets (dict "name" (get (kindIs "map" . | ternary . (dict "name" .)) "name")) }}
{{- end -}}
metadata:
  labels:
    {{- merge $labels $optOut $root.Values.podLabels | toYaml | nindent 4 }}
  {{- with merge $annotations $root.Values.podAnnotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  serviceAccountName: {{ .account | quote }}
  enableServiceLinks: false
  {{- /* verify writes rules: they must land in the pod's own network namespace */}}
  hostNetwork: false
  {{- with $root.Values.priorityClassName }}
  priorityClassName: {{ . | quote }}
  {{- end }}
  terminationGracePeriodSeconds: {{ $root.Values.terminationGracePeriodSeconds }}
  {{- with $secrets | uniq }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}

{{/* What every container has, from (list . SCRIPT). */}}
{{- define "istio-os-init.container" -}}
{{- with first . -}}
image: {{ include "istio-os-init.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy | default (.Values.global).imagePullPolicy | default "IfNotPresent" }}
terminationMessagePolicy: FallbackToLogsOnError
{{- with .Values.resources }}
resources:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
command: [/bin/sh, /opt/istio-os-init/{{ last . }}]
{{- end }}

{{/*
The securityContext of a container without privileges, from (dict "uid" UID "gid" GID "host" BOOL); "host" if it works on the host's files.
Its last key is capabilities, so that the caller may append what it adds.
*/}}
{{- define "istio-os-init.unprivileged" -}}
runAsUser: {{ .uid }}
runAsGroup: {{ .gid }}
runAsNonRoot: {{ ne .uid 0 }}
privileged: false
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
{{- if .host }}
# SELinux lets no confined container type load a module or touch /etc; spc_t may. The level is a file's on the host: without one
# containerd takes another for each container, by which no other container of the pod could read what this one has written.
seLinuxOptions: {type: spc_t, level: s0}
{{- end }}
seccompProfile: {type: RuntimeDefault}
capabilities:
  drop: [ALL]
{{- end }}

{{/*
The mounts of every container: outcomes and the scripts. From (list WRITERS OWN). WRITERS are the volumes of the outcomes, in the order in which their containers run. The
container writes to its own volume and reads the volumes before it; if OWN is empty, it reads all and writes nothing.
*/}}
{{- define "istio-os-init.mounts" -}}
{{- $own := last . }}
{{- $before := true }}
{{- range first . }}
{{- if $before -}}
- {name: {{ . }}, mountPath: /run/istio-os-init/{{ . }}{{ if ne . $own }}, readOnly: true{{ end }}}
{{ end }}
{{- $before = and $before (ne . $own) }}
{{- end -}}
- {name: config, mountPath: /opt/istio-os-init, readOnly: true}
{{- end }}

{{/* The volumes of a pod's containers, from (dict "config" CONFIGMAP "writers" WRITERS "persists" BOOL). */}}
{{- define "istio-os-init.volumes" -}}
{{- if .persists -}}
- name: modules-load
  hostPath:
    path: /etc/modules-load.d
    # A directory that is missing is created. One that exists passes on a read-only /etc too, where the script then warns;
    # only missing and read-only at once keeps the pod from starting, whatever the type: there is nothing to mount.
    type: DirectoryOrCreate
{{ end -}}
{{- range .writers -}}
- name: {{ . }}
  {{- /* a few lines in memory: nothing of ours is written to the node's disk */}}
  emptyDir: {medium: Memory, sizeLimit: 1Mi}
{{ end -}}
- name: config
  configMap:
    name: {{ .config | quote }}
    {{- if .writers }}
    # report is called by its name.
    defaultMode: 0555
    {{- end }}
{{- end }}

{{/*
Container verify without its name: applies istio-init's rules with Istio's own code, as istio-init may. From (list . WRITERS): in the pod
of `helm test` it is the only writer.
*/}}
{{- define "istio-os-init.verify" -}}
{{- $writers := last . }}
{{- with first . -}}
{{ include "istio-os-init.container" (list . "verify.sh") }}
args:
  {{- include "istio-os-init.istioIptablesArgs" . | nindent 2 }}
env:
  {{- if not (has "load" $writers) }}
  - name: ISTIO_OS_INIT_TEST
    valueFrom: {fieldRef: {fieldPath: spec.nodeName}}
  {{- end }}
  - name: ISTIO_OS_INIT_BACKENDS
    value: {{ include "istio-os-init.backends" . }}
  {{- if .Values.mesh.ambient }}
  - name: ISTIO_OS_INIT_AMBIENT
    value: {{ eq .Values.backend "auto" | ternary "auto" "told" }}
  {{- end }}
  {{- if .Values.mesh.cni }}
  - name: ISTIO_OS_INIT_CNI
    value: "true"
  {{- end }}
  {{- range include "istio-os-init.proxyMetadata" . | splitList " " | compact }}
  - name: {{ splitList "=" . | first }}
    value: {{ splitList "=" . | last | quote }}
  {{- end }}
  {{- with .Values.extraEnv }}{{ toYaml . | nindent 2 }}{{ end }}
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
    add: [NET_ADMIN, NET_RAW]
volumeMounts:
  {{- include "istio-os-init.mounts" (list $writers "verify") | nindent 2 }}
{{- end }}
{{- end }}
