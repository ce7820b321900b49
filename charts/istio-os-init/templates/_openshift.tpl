{{/*
The name of the SecurityContextConstraints for the pods of a workload, from (list . WORKLOAD); empty if there are none. They have no namespace:
the name is unique, since a namespace contains no dot. The constraints of uninstall exist only while it runs, so an administrator's release cannot
create them for another release.
*/}}
{{- define "istio-os-init.scc" -}}
{{- with first . }}
{{- $both := and (include "istio-os-init.namespaced" .) (include "istio-os-init.clusterScoped" .) }}
{{- if and $both .Values.openshift.scc.create (include "istio-os-init.openshift" .) }}
{{- printf "%s.%s" .Release.Namespace (last $) }}
{{- end }}
{{- end }}
{{- end }}

{{/* Whether the cluster is OpenShift; empty if not. */}}
{{- define "istio-os-init.openshift" -}}
{{- if or (eq ((.Values.global).platform | default "") "openshift") (.Capabilities.APIVersions.Has "security.openshift.io/v1") }}true{{ end }}
{{- end }}

{{/*
What all our SecurityContextConstraints have in common; uid, capabilities, volumes and the root filesystem are the caller's. No user and no
group is named: a Role says which account may use them. They know no paths: with hostPath a pod may mount any.
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
seLinuxContext: {type: RunAsAny}
# None is asked for: any other strategy would give the pods the namespace's.
fsGroup: {type: RunAsAny}
supplementalGroups: {type: RunAsAny}
# verify and verify-traffic, which name none, get it too: what works for them works without it.
seccompProfiles: [runtime/default]
users: []
groups: []
{{- end }}
