{{/* Who records an outcome in the pod, in the order in which they run, as words. */}}
{{- define "istio-os-init.writers" -}}
load{{ if .Values.verify.enabled }} verify traffic{{ end }} watch
{{- end }}

{{/* The mount of one writer's volume in a container: (list WRITER OWN). A container writes to its own and reads the others'. */}}
{{- define "istio-os-init.outcome" -}}
- name: {{ first . }}
  mountPath: /run/istio-os-init/{{ first . }}
  {{- if ne (first .) (last .) }}
  readOnly: true
  {{- end }}
{{- end }}

{{/* The mounts of a container: (list ROOT OWN), OWN empty for one that writes nothing. */}}
{{- define "istio-os-init.outcomes" -}}
{{- $own := last . -}}
# Each container's outcome, in a volume that no other may write to.
{{- range include "istio-os-init.writers" (first .) | splitList " " }}
{{ include "istio-os-init.outcome" (list . $own) }}
{{- end }}
{{- end }}

{{/* The volumes of a list of writers. */}}
{{- define "istio-os-init.outcomeVolumes" -}}
{{- range . }}
- name: {{ . }}
  emptyDir:
    # A few lines in memory: nothing of ours is written to the node's disk.
    medium: Memory
    sizeLimit: 1Mi
{{- end }}
{{- end }}

{{/* The volume of the scripts and the plan. */}}
{{- define "istio-os-init.configVolume" -}}
- name: config
  configMap:
    name: {{ include "istio-os-init.configName" . }}
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
