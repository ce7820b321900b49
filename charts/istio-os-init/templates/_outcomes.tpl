{{/* Who records an outcome in the pod, in the order in which they run, as words. */}}
{{- define "istio-os-init.writers" -}}
load{{ if .Values.verify.enabled }} verify traffic{{ end }} watch
{{- end }}

{{/*
The mounts of a container: (list WRITERS OWN). It writes to its own volume and reads those of the writers that run before it; with an
OWN that is empty it reads all and writes nothing.
*/}}
{{- define "istio-os-init.outcomes" -}}
# {{ if last . }}Its outcome, and those that were recorded before it{{ else }}Each container's outcome{{ end }}.
{{- $own := last . }}
{{- $before := true }}
{{- range first . }}
{{- if $before }}
- name: {{ . }}
  mountPath: /run/istio-os-init/{{ . }}
  {{- if ne . $own }}
  readOnly: true
  {{- end }}
{{- end }}
{{- $before = and $before (ne . $own) }}
{{- end }}
{{- end }}

{{/* The volumes of a list of writers. */}}
{{- define "istio-os-init.outcomeVolumes" -}}
# A few lines in memory: nothing of ours is written to the node's disk.
{{- range . }}
- name: {{ . }}
  emptyDir:
    medium: Memory
    sizeLimit: 1Mi
{{- end }}
{{- end }}

{{/* The volume of the scripts and the plan. */}}
{{- define "istio-os-init.configVolume" -}}
- name: config
  configMap:
    name: {{ include "istio-os-init.configName" . | quote }}
    # report is called by its name.
    defaultMode: 0555
{{- end }}

{{/* SELinux lets no confined container type load a module or touch /etc; spc_t may. */}}
{{- define "istio-os-init.hostSELinux" -}}
# SELinux lets no confined container type load a module or touch /etc; spc_t may. The level is a file's on the host: without one
# containerd takes another for each container, by which no other container of the pod could read what this one has written.
seLinuxOptions:
  type: spc_t
  level: s0
{{- end }}
