{{/*
What the pods ask of a node's labels, from a preset of nodes.preset, as a YAML list. A virtual node (virtual-kubelet, and with it AKS's; EKS
Fargate) has no kernel of its own, and no pod of ours would ever run there.
*/}}
{{- define "istio-os-init.nodeExpressions" -}}
- {key: type, operator: NotIn, values: [virtual-kubelet]}
- {key: eks.amazonaws.com/compute-type, operator: NotIn, values: [fargate]}
{{- with get (dict "openshift" "node.openshift.io/os_id" "rhel-nfd" "feature.node.kubernetes.io/system-os_release.ID") . }}
- {key: {{ . }}, operator: In, values: [rhel, rhcos, centos, scos, rocky, almalinux, ol, fedora]}
{{- end }}
{{- end }}

{{/*
Which nodes: nodeSelector, affinity and tolerations of the pods that prepare and prove them. The affinity is the user's, with our expressions
added to each of its required node terms: terms are alternatives, so every one of them needs the expressions.
*/}}
{{- define "istio-os-init.selection" -}}
{{- $own := include "istio-os-init.nodeExpressions" .Values.nodes.preset | fromYamlArray }}
{{- $affinity := .Values.affinity | default dict | deepCopy }}
{{- $terms := list }}
{{- range (($affinity.nodeAffinity).requiredDuringSchedulingIgnoredDuringExecution).nodeSelectorTerms }}
{{- if or .matchExpressions .matchFields }}
{{- $terms = append $terms (set . "matchExpressions" (concat (.matchExpressions | default list) $own)) }}
{{- else }}
{{- /* an empty term selects no node, and has to stay so */}}
{{- $terms = append $terms . }}
{{- end }}
{{- end }}
{{- $required := dict "nodeSelectorTerms" ($terms | default (list (dict "matchExpressions" $own))) }}
{{- $node := set ($affinity.nodeAffinity | default dict) "requiredDuringSchedulingIgnoredDuringExecution" $required -}}
nodeSelector:
  {{- toYaml (merge (dict "kubernetes.io/os" "linux") .Values.nodeSelector) | nindent 2 }}
affinity:
  {{- set $affinity "nodeAffinity" $node | toYaml | nindent 2 }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
