{{/* The SecurityContextConstraints of the pods of one name, from (list . NAME). They are the cluster's: no other release may have theirs. */}}
{{- define "istio-os-init.sccName" -}}
{{- /* a namespace has no dot */}}
{{- printf "%s.%s" (first .).Release.Namespace (last .) }}
{{- end }}

{{/* Whether the cluster is OpenShift; empty where not. */}}
{{- define "istio-os-init.openshift" -}}
{{- $global := .Values.global | default dict }}
{{- if or (eq ($global.platform | default "") "openshift") (.Capabilities.APIVersions.Has "security.openshift.io/v1") }}
{{- "true" }}
{{- end }}
{{- end }}

{{/*
Whether there are any; empty where not. Those of uninstall exist only for its duration, so they are nothing that an administrator's
release could make for another's.
*/}}
{{- define "istio-os-init.scc" -}}
{{- $both := and (include "istio-os-init.namespaced" .) (include "istio-os-init.clusterScoped" .) }}
{{- if and $both .Values.openshift.scc.create (include "istio-os-init.openshift" .) }}
{{- "true" }}
{{- end }}
{{- end }}

{{/* The pods' annotation that asks for these and no others, as YAML, from (list . NAME). */}}
{{- define "istio-os-init.requiredSCC" -}}
{{- if include "istio-os-init.scc" (first .) }}
{{- toYaml (dict "openshift.io/required-scc" (include "istio-os-init.sccName" .)) }}
{{- end }}
{{- end }}

{{/* The rule of a Role that lets a service account use them, from (list . NAME). */}}
{{- define "istio-os-init.useSCC" -}}
# The SecurityContextConstraints of these pods.
- apiGroups: [security.openshift.io]
  resources: [securitycontextconstraints]
  resourceNames: [{{ include "istio-os-init.sccName" . | quote }}]
  verbs: [use]
{{- end }}

{{/*
What every SecurityContextConstraints of ours has in common; uid, capabilities, volumes and the root filesystem are the caller's. Nobody
is named in users and groups: a Role says who may use them. It knows no paths: with hostPath a pod may mount any.
*/}}
{{- define "istio-os-init.sccBase" -}}
# As if unset, which the API does not accept: pods ask for it by its name.
priority: 0
allowPrivilegedContainer: false
allowPrivilegeEscalation: false
defaultAddCapabilities: []
requiredDropCapabilities: [ALL]
allowHostIPC: false
allowHostNetwork: false
allowHostPID: false
allowHostPorts: false
# spc_t, of the container that writes on the host or loads; any other strategy would force the namespace's label on it.
seLinuxContext:
  type: RunAsAny
# None is asked for: any other strategy would give the pods the namespace's.
fsGroup:
  type: RunAsAny
supplementalGroups:
  type: RunAsAny
# verify and verify-traffic, which name none, get it too: what works for them works without it.
seccompProfiles: [runtime/default]
users: []
groups: []
{{- end }}

{{/* Whether the pods' priority class needs a quota; empty where not. */}}
{{- define "istio-os-init.quota" -}}
{{- $global := .Values.global | default dict }}
{{- if and (include "istio-os-init.namespaced" .) (or .Values.resourceQuotas.enabled (eq ($global.platform | default "") "gke")) (hasPrefix "system-" .Values.priorityClassName) }}
{{- "true" }}
{{- end }}
{{- end }}

{{/* The quota's spec. */}}
{{- define "istio-os-init.quotaSpec" -}}
hard:
  pods: {{ .Values.resourceQuotas.pods | quote }}
scopeSelector:
  matchExpressions:
    - scopeName: PriorityClass
      operator: In
      values: [{{ .Values.priorityClassName | quote }}]
{{- end }}

{{/* Whether the pods have NetworkPolicies; empty where not. */}}
{{- define "istio-os-init.networkPolicy" -}}
{{- $global := .Values.global | default dict }}
{{- if and (include "istio-os-init.namespaced" .) (get $global "networkPolicy" | default dict).enabled }}
{{- "true" }}
{{- end }}
{{- end }}
