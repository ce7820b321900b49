{{/*
Refuses values that cannot work together, or whose fix the schema cannot say. All at once, each with a sentence: what is wrong, what is
allowed, what to do. The schema speaks first: of types, keys, enumerations, patterns and minima.
*/}}
{{- define "istio-os-init.refuse" -}}
{{- $refusals := list }}
{{- $tag := include "istio-os-init.tag" . }}
{{- $version := include "istio-os-init.istioVersion" . }}
{{- $backends := include "istio-os-init.backends" . }}
{{- $mesh := .Values.mesh }}
{{- /* what the pods' containers, their scripts or Kubernetes set: another value would prove another mesh, or send the token elsewhere */}}
{{- $instead := dict "ISTIO_DUAL_STACK" "mesh.dualStack" "INVALID_DROP" "mesh.dropInvalid" }}
{{- range include "istio-os-init.backendTable" . | fromYamlArray }}
{{- if and .force (or (eq .name $.Values.backend) $mesh.cni) }}
{{- $instead = set $instead .force "backend" }}
{{- end }}
{{- /* auto chooses by the version; istio-cni runs the host's iptables */}}
{{- if and .since $version (eq .name $backends) (not (and .force $mesh.cni)) }}
{{- if semverCompare (printf "<%s-0" .since) $version }}
{{- $refusals = append $refusals (printf "backend %s needs Istio %s or later, and the image tag %q is Istio %s. Set %s." .name (trimSuffix ".0" .since) $tag $version .else) }}
{{- end }}
{{- end }}
{{- end }}
{{- if and $mesh.dualStack (not $mesh.ipv6) }}
{{- $refusals = append $refusals "mesh.dualStack needs mesh.ipv6, and mesh.ipv6 is false: allowed are both, mesh.ipv6 alone, and neither. Set mesh.ipv6=true, or mesh.dualStack=false." }}
{{- end }}
{{- $globalTag := (.Values.global).tag }}
{{- if not (or (kindIs "string" $globalTag) (kindIs "invalid" $globalTag)) }}
{{- $refusals = append $refusals (printf "global.tag %v is no string, and YAML may have changed it: it reads 1.30 as the number 1.3. Allowed is a string. Quote it, e.g. global.tag: %q." $globalTag .Chart.AppVersion) }}
{{- end }}
{{- if not (kindIs "map" .Values.repair) }}
{{- $never := eq (toString .Values.repair) "never" }}
{{- $refusals = append $refusals (printf "repair %q is no longer a value: allowed is repair.enabled, true or false. Set repair.enabled=%t%s." (toString .Values.repair) (not $never) ($never | ternary " to leave a pod that is not proven as it is" " to prove again after a drift and after a failed proof")) }}
{{- end }}
{{- if hasSuffix "-distroless" $tag }}
{{- $refusals = append $refusals (printf "image tag %q has no shell, and the pod's scripts need one: allowed is any other variant. Set image.tag=%s." $tag (trimSuffix "-distroless" $tag)) }}
{{- end }}
{{- if not (include "istio-os-init.plan" .) }}
{{- $refusals = append $refusals (printf "the plan is empty: modules has no name for backend %s and the chosen mesh modes, and at least one is needed. Fill modules.base or modules.extra, or do not install the chart." $backends) }}
{{- end }}
{{- $names := list }}
{{- range .Values.extraEnv }}
{{- if hasKey $instead .name }}
{{- $refusals = append $refusals (printf "extraEnv: %q decides which modules a node needs: allowed is the value %s, which sets it. Remove the entry, and set %s." .name (get $instead .name) (get $instead .name)) }}
{{- else if regexMatch "^(PATH$|CLEANUP_ONLY$|ISTIO_OS_INIT_|KUBERNETES_)" .name }}
{{- $refusals = append $refusals (printf "extraEnv: the name %q is set by the chart or by Kubernetes: allowed is any name but PATH, CLEANUP_ONLY, ISTIO_OS_INIT_* and KUBERNETES_*. Remove the entry." .name) }}
{{- else if has .name $names }}
{{- $refusals = append $refusals (printf "extraEnv: the name %q is given twice: allowed is each name once. Remove one of the entries." .name) }}
{{- end }}
{{- $names = append $names .name }}
{{- end }}
{{- $signals := .Values.signals }}
{{- if include "istio-os-init.signals" . }}
{{- if semverCompare "<1.30-0" .Capabilities.KubeVersion.Version }}
{{- $refusals = append $refusals (printf "signals.nodeCondition and signals.startupTaint need Kubernetes 1.30 or later, and this is %s: allowed is to leave them off. Earlier versions have neither sidecars nor a policy that keeps a pod to its own node; set signals.nodeCondition.enabled=false and signals.startupTaint.remove=false, or upgrade the cluster." .Capabilities.KubeVersion.Version) }}
{{- end }}
{{- if eq (include "istio-os-init.serviceAccountName" .) "default" }}
{{- $refusals = append $refusals "signals.nodeCondition and signals.startupTaint give rights on nodes to the pods' service account, and that is \"default\", which every pod of the namespace may have: allowed is one of its own. Set serviceAccount.create=true or serviceAccount.name." }}
{{- end }}
{{- end }}
{{- range $value, $key := dict "signals.startupTaint.key" $signals.startupTaint.key "signals.nodeReadinessRule.taintKey" $signals.nodeReadinessRule.taintKey }}
{{- if regexMatch "^node\\.(cloudprovider\\.)?kubernetes\\.io/" $key }}
{{- $refusals = append $refusals (printf "%s %q is no key for a taint of ours: Kubernetes itself adds and removes it. Leave it at its default, or use a key that no other program removes." $value $key) }}
{{- end }}
{{- end }}
{{- if $signals.nodeReadinessRule.enabled }}
{{- if not $signals.nodeCondition.enabled }}
{{- $refusals = append $refusals "signals.nodeReadinessRule waits for the condition IstioReady, and signals.nodeCondition does not write it. Set signals.nodeCondition.enabled=true." }}
{{- end }}
{{- if .Values.affinity.nodeAffinity }}
{{- $refusals = append $refusals "signals.nodeReadinessRule selects nodes by labels alone, and affinity.nodeAffinity chooses others: allowed are nodeSelector and nodes.preset. Choose the nodes with these, or write the rule yourself (docs/signals.md)." }}
{{- end }}
{{- end }}
{{- /* Nothing if helm asks no cluster. Another selector: that of the DaemonSet which is copied from page to page under our name. */}}
{{- if include "istio-os-init.namespaced" . }}
{{- $name := include "istio-os-init.fullname" . }}
{{- $selector := lookup "apps/v1" "DaemonSet" .Release.Namespace $name | dig "spec" "selector" "matchLabels" dict }}
{{- if and $selector (ne (toJson $selector) (include "istio-os-init.selectorLabels" (list . "") | fromYaml | toJson)) }}
{{- $refusals = append $refusals (printf "DaemonSet %s in namespace %s is not of this release, e.g. the copied one: allowed is to replace none. Remove it, which unloads no module: kubectl --namespace %s delete daemonset %s" $name .Release.Namespace .Release.Namespace $name) }}
{{- end }}
{{- end }}
{{- with $refusals }}
{{- fail (printf "\n\nistio-os-init refuses these values:\n- %s\n" (join "\n- " .)) }}
{{- end }}
{{- end }}
