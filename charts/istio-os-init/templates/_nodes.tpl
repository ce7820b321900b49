{{/*
What every pod on a node asks of its labels, as YAML: a virtual node (virtual-kubelet, and with it AKS's; EKS Fargate) has no kernel of its own,
and no pod of ours would ever run there.
*/}}
{{- define "istio-os-init.notVirtual" -}}
- key: type
  operator: NotIn
  values: [virtual-kubelet]
- key: eks.amazonaws.com/compute-type
  operator: NotIn
  values: [fargate]
{{- end }}

{{/* What that and the preset ask of a node's labels, as a JSON list of match expressions. */}}
{{- define "istio-os-init.nodeExpressions" -}}
{{- $labels := dict "openshift" "node.openshift.io/os_id" "rhel-nfd" "feature.node.kubernetes.io/system-os_release.ID" }}
{{- $family := list "rhel" "rhcos" "centos" "scos" "rocky" "almalinux" "ol" "fedora" }}
{{- $expressions := include "istio-os-init.notVirtual" . | fromYamlArray }}
{{- with get $labels .Values.nodes.preset }}
{{- $expressions = append $expressions (dict "key" . "operator" "In" "values" $family) }}
{{- end }}
{{- toJson $expressions }}
{{- end }}

{{/*
The pods' affinity as YAML: the user's, with these expressions added to each of its required node terms. Terms are
alternatives, so that every one of them needs the expressions.
*/}}
{{- define "istio-os-init.affinity" -}}
{{- $affinity := .Values.affinity | default dict | deepCopy }}
{{- $own := include "istio-os-init.nodeExpressions" . | fromJsonArray }}
{{- $node := $affinity.nodeAffinity | default dict }}
{{- $required := $node.requiredDuringSchedulingIgnoredDuringExecution | default dict }}
{{- $terms := list }}
{{- range $required.nodeSelectorTerms }}
{{- $expressions := concat (get . "matchExpressions" | default list) $own }}
{{- /* an empty term selects no node, and has to stay so */}}
{{- $terms = append $terms (or .matchExpressions .matchFields | empty | ternary . (merge (dict "matchExpressions" $expressions) .)) }}
{{- end }}
{{- if not $terms }}
{{- $terms = list (dict "matchExpressions" $own) }}
{{- end }}
{{- $_ := set $node "requiredDuringSchedulingIgnoredDuringExecution" (dict "nodeSelectorTerms" $terms) }}
{{- $_ := set $affinity "nodeAffinity" $node }}
{{- toYaml $affinity }}
{{- end }}

{{/* Which nodes: nodeSelector, affinity and tolerations of the pods that prepare and prove them. */}}
{{- define "istio-os-init.selection" -}}
nodeSelector:
  {{- toYaml (merge (dict "kubernetes.io/os" "linux") .Values.nodeSelector) | nindent 2 }}
affinity:
  {{- include "istio-os-init.affinity" . | nindent 2 }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
