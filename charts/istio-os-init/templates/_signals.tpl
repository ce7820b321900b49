{{/* Whether the pod has the sidecar signal, which talks to the API server; empty if not. */}}
{{- define "istio-os-init.signals" -}}
{{- if or .Values.signals.nodeCondition.enabled .Values.signals.startupTaint.remove }}true{{ end }}
{{- end }}

{{/*
A policy and its binding: what a service account may change on nodes, beyond what RBAC can tell apart. From the dict of its metadata and
"account"; "pod", true for the condition of the pod's own node, false for the removal of conditions only; "taint", the key that may be
removed, or "". dyn: Kubernetes says what else a Node has, which may be more in the next version.

An object that etcd refuses for its size can never be written again, so everything which may grow is bounded: how many conditions, each of
their texts, and how many field managers.
*/}}
{{- define "istio-os-init.nodePolicy" -}}
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
{{ include "istio-os-init.metadata" . }}
spec:
  policyName: {{ .name | quote }}
  validationActions: [Deny]
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
{{ include "istio-os-init.metadata" . }}
spec:
  failurePolicy: Fail
  matchConstraints:
    resourceRules:
      - apiGroups: [""]
        apiVersions: [v1]
        operations: [UPDATE]
        resources: [nodes, nodes/status]
  matchConditions:
    - name: our-service-account
      expression: request.userInfo.username == "system:serviceaccount:{{ .root.Release.Namespace }}:{{ .account }}"
  variables:
    - name: status
      expression: has(request.subResource) && request.subResource == "status"
    - name: conditions
      expression: 'has(object.status.conditions) ? object.status.conditions : []'
    - name: oldConditions
      expression: 'has(oldObject.status.conditions) ? oldObject.status.conditions : []'
    - name: ours
      expression: variables.conditions.filter(c, c.type == "IstioReady")
    {{- if .taint }}
    - name: taints
      expression: 'has(object.spec.taints) ? object.spec.taints : []'
    - name: oldTaints
      expression: 'has(oldObject.spec.taints) ? oldObject.spec.taints : []'
    {{- end }}
  validations:
    {{- if .pod }}
    # The API server knows the node from the token, which is bound to a pod.
    - message: may change only the node that its pod runs on
      expression: >-
        "authentication.kubernetes.io/node-name" in request.userInfo.extra &&
        request.userInfo.extra["authentication.kubernetes.io/node-name"][0] == object.metadata.name
    {{- end }}
    - message: may write only as field manager {{ include "istio-os-init.owner" .root }}
      expression: >-
        has(request.options.fieldManager) && request.options.fieldManager == {{ include "istio-os-init.owner" .root | quote }}
    - message: may not change a node's metadata
      expression: >-
        dyn(object.metadata).all(k, k == "managedFields" || (k in dyn(oldObject.metadata) && dyn(object.metadata)[k] == dyn(oldObject.metadata)[k])) &&
        dyn(oldObject.metadata).all(k, k == "managedFields" || k in dyn(object.metadata))
    - message: may change no condition but IstioReady
      expression: >-
        variables.conditions.filter(c, c.type != "IstioReady") == variables.oldConditions.filter(c, c.type != "IstioReady")
    {{- if .pod }}
    - message: may write one condition IstioReady, with status True, False or Unknown, a reason of 128 and a message of 1024 characters at most
      expression: >-
        size(variables.ours) <= 1 && variables.ours.all(c, c.status in ["True", "False", "Unknown"] &&
        (!has(c.reason) || size(c.reason) <= 128) && (!has(c.message) || size(c.message) <= 1024))
    {{- else }}
    - message: may only remove the condition IstioReady
      expression: variables.ours.all(c, c in variables.oldConditions)
    {{- end }}
    - message: may change nothing of a node's status but its conditions
      expression: >-
        dyn(object.status).all(k, k == "conditions" || (k in dyn(oldObject.status) && dyn(object.status)[k] == dyn(oldObject.status)[k])) &&
        dyn(oldObject.status).all(k, k == "conditions" || k in dyn(object.status))
    {{- if .taint }}
    - message: may change nothing of a node's spec but its taints
      expression: >-
        variables.status ||
        (dyn(object.spec).all(k, k == "taints" || (k in dyn(oldObject.spec) && dyn(object.spec)[k] == dyn(oldObject.spec)[k])) &&
        dyn(oldObject.spec).all(k, k == "taints" || k in dyn(object.spec)))
    - message: may change no taint, but remove those with the key {{ .taint }}
      expression: >-
        variables.status ||
        (variables.taints.filter(t, t.key != {{ .taint | quote }}) == variables.oldTaints.filter(t, t.key != {{ .taint | quote }}) &&
        variables.taints.all(t, t in variables.oldTaints))
    {{- else }}
    - message: may change nothing of a node but its status
      expression: variables.status
    {{- end }}
{{- end }}
