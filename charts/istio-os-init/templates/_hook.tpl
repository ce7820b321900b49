{{/*
The pod template of a hook of `helm uninstall`, from (list . NAME PURPOSE): the pod on every Linux node that is one. Which nodes the release
was meant for may have changed since it wrote there. Ends within nodeAffinity, to which the caller may append.
*/}}
{{- define "istio-os-init.hookPod" -}}
{{- $name := index . 1 -}}
{{ include "istio-os-init.pod" (dict "root" (first .) "name" $name "purpose" (last .) "account" $name) }}
  nodeSelector:
    kubernetes.io/os: linux
  affinity:
    nodeAffinity:
      requiredDuringSchedulingIgnoredDuringExecution:
        nodeSelectorTerms:
          - matchExpressions:
              {{- include "istio-os-init.nodeExpressions" "all" | nindent 14 }}
{{- end }}
