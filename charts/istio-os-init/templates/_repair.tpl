{{/* How the pod repairs a drift: rule, sandbox or never. The API server refuses the rule before 1.36. */}}
{{- define "istio-os-init.repair" -}}
{{- if eq .Values.repair "auto" }}
{{- semverCompare ">=1.36-0" .Capabilities.KubeVersion.Version | ternary "rule" "never" }}
{{- else }}
{{- .Values.repair }}
{{- end }}
{{- end }}

{{/*
The rule of a container, with the policy that it demands, from (list . policy): a code of its own runs every container of the pod again, load first.
A failure itself is restarted as ever, with the kubelet's growing pauses, which the rule does not know.
*/}}
{{- define "istio-os-init.restartRule" -}}
{{- if include "istio-os-init.repair" (first .) | eq "rule" -}}
restartPolicy: {{ last . }}
restartPolicyRules:
  - action: RestartAllContainers
    exitCodes:
      operator: In
      values: [3]
{{- end }}
{{- end }}
