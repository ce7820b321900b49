{{/*
What `helm uninstall` has to do, as words: `clean` the nodes if the release's file may be on one, `forget` the condition if the release
writes it. Empty: nothing, and there are no hooks.

The file may be on a node if persistence is on, or if an earlier revision may have had it on: a node that was down when its pod should
have been replaced still has the file. Argo CD never says that it upgrades, so a value can. Only an administrator of the cluster can give
the right to remove a condition.
*/}}
{{- define "istio-os-init.uninstall" -}}
{{- $hooks := .Values.uninstall.hooks }}
{{- if and (ne $hooks "never") (include "istio-os-init.namespaced" .) }}
{{- if or (and .Values.load.enabled .Values.persist.enabled) .Release.IsUpgrade (eq $hooks "always") }}clean {{ end }}
{{- if and .Values.signals.nodeCondition.enabled (include "istio-os-init.clusterScoped" .) }}forget{{ end }}
{{- end }}
{{- end }}

{{/*
Labels and annotations of a hook's object, from (list . WEIGHT). Helm creates all of them, in the order of their weights, before it deletes
the first; it waits for a Job's end and for nothing else.

pre-delete: after a hook that has failed Helm keeps the release, and the next `helm uninstall` runs the hooks again. After a post-delete
hook it has forgotten the release, whether the hook has failed or not.
*/}}
{{- define "istio-os-init.hookLabels" -}}
{{- $policy := "before-hook-creation,hook-succeeded,hook-failed" -}}
{{- $hook := dict "helm.sh/hook" "pre-delete" "helm.sh/hook-weight" (last . | toString) "helm.sh/hook-delete-policy" $policy -}}
{{ include "istio-os-init.metadata" (list (first .) $hook) }}
{{- end }}

{{/* The pod template of a hook, up to its pod's service account, from (list . NAME PURPOSE). */}}
{{- define "istio-os-init.hookPod" -}}
{{- $root := first . -}}
metadata:
  labels:
    {{- include "istio-os-init.podLabels" (list $root (last .)) | nindent 4 }}
  {{- with include "istio-os-init.podAnnotations" (list $root (include "istio-os-init.requiredSCC" (list $root (index . 1)) | fromYaml)) }}
  annotations:
    {{- . | nindent 4 }}
  {{- end }}
spec:
  serviceAccountName: {{ index . 1 | quote }}
  enableServiceLinks: false
  hostNetwork: false
  {{- with $root.Values.priorityClassName }}
  priorityClassName: {{ . | quote }}
  {{- end }}
  terminationGracePeriodSeconds: {{ $root.Values.terminationGracePeriodSeconds }}
  nodeSelector:
    kubernetes.io/os: linux
  {{- with include "istio-os-init.pullSecrets" $root }}
  imagePullSecrets:
    {{- . | nindent 4 }}
  {{- end }}
{{- end }}

{{/* A NetworkPolicy's spec for the pods of a hook, from (list . PURPOSE): no traffic at all. */}}
{{- define "istio-os-init.hookIsolation" -}}
podSelector:
  matchLabels:
    {{- include "istio-os-init.selectorLabelsOf" . | nindent 4 }}
policyTypes: [Ingress, Egress]
{{- end }}
