{{/* What the preset asks of a node's labels, as a JSON list of match expressions. */}}
{{- define "istio-os-init.presetExpressions" -}}
{{- $labels := dict "openshift" "node.openshift.io/os_id" "rhel-nfd" "feature.node.kubernetes.io/system-os_release.ID" }}
{{- $family := list "rhel" "rhcos" "centos" "scos" "rocky" "almalinux" "ol" "fedora" }}
{{- $expressions := list }}
{{- with get $labels .Values.nodes.preset }}
{{- $expressions = append $expressions (dict "key" . "operator" "In" "values" $family) }}
{{- end }}
{{- toJson $expressions }}
{{- end }}

{{/*
The pods' affinity as YAML: the user's, with the preset's expressions added to each of its required node terms.
Terms are alternatives, so the preset has to stand in every one of them.
*/}}
{{- define "istio-os-init.affinity" -}}
{{- $affinity := deepCopy .Values.affinity }}
{{- $preset := include "istio-os-init.presetExpressions" . | fromJsonArray }}
{{- if $preset }}
{{- $node := $affinity.nodeAffinity | default dict }}
{{- $required := $node.requiredDuringSchedulingIgnoredDuringExecution | default dict }}
{{- $terms := list }}
{{- range $required.nodeSelectorTerms }}
{{- $expressions := concat (get . "matchExpressions" | default list) $preset }}
{{- /* an empty term selects no node, and has to stay so */}}
{{- $terms = append $terms (or .matchExpressions .matchFields | empty | ternary . (merge (dict "matchExpressions" $expressions) .)) }}
{{- end }}
{{- if not $terms }}
{{- $terms = list (dict "matchExpressions" $preset) }}
{{- end }}
{{- $_ := set $node "requiredDuringSchedulingIgnoredDuringExecution" (dict "nodeSelectorTerms" $terms) }}
{{- $_ := set $affinity "nodeAffinity" $node }}
{{- end }}
{{- with $affinity }}
{{- toYaml . }}
{{- end }}
{{- end }}

{{/* Which nodes: nodeSelector, affinity and tolerations of the pods that prepare and prove them. */}}
{{- define "istio-os-init.selection" -}}
nodeSelector:
  {{- toYaml (merge (dict "kubernetes.io/os" "linux") .Values.nodeSelector) | nindent 2 }}
{{- with include "istio-os-init.affinity" . }}
affinity:
  {{- . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
