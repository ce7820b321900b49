{{/*
Refuses values that cannot work, all at once, each with a sentence: what is wrong, what is allowed, what to do.
Types and unknown keys are the schema's business; it speaks first.
*/}}
{{- define "istio-os-init.refuse" -}}
{{- $refusals := list }}
{{- $tag := include "istio-os-init.tag" . }}
{{- $version := include "istio-os-init.istioVersion" . }}
{{- $known := list "auto" "nft" "legacy" "native-nft" }}
{{- if not (has .Values.backend $known) }}
{{- $refusals = append $refusals (printf "backend %q is unknown: allowed are %s. Set backend=auto to follow the mesh's Istio version." .Values.backend (join ", " $known)) }}
{{- else if and (include "istio-os-init.backends" . | eq "native-nft") $version }}
{{- if semverCompare "<1.27-0" $version }}
{{- $refusals = append $refusals (printf "backend native-nft needs Istio 1.27 or later, and the image tag %q is Istio %s. Set backend=auto without global.nativeNftables, or use an image of Istio 1.27 or later." $tag $version) }}
{{- end }}
{{- end }}
{{- if and (eq .Values.backend "nft") $version (not .Values.mesh.cni) }}
{{- if semverCompare "<1.26-0" $version }}
{{- $refusals = append $refusals (printf "backend nft is not what Istio %s of the image tag %q uses: it runs the image's iptables, which is iptables-legacy, and obeys FORCE_IPTABLES_BINARY only from 1.28 on. Set backend=auto, or mesh.cni=true if istio-cni programs the pods." $version $tag) }}
{{- end }}
{{- end }}
{{- if and .Values.mesh.dualStack (not .Values.mesh.ipv6) }}
{{- $refusals = append $refusals "mesh.dualStack needs mesh.ipv6, and mesh.ipv6 is false: allowed are both, mesh.ipv6 alone, and neither. Set mesh.ipv6=true, or mesh.dualStack=false." }}
{{- end }}
{{- $presets := list "all" "openshift" "rhel-nfd" }}
{{- if not (has .Values.nodes.preset $presets) }}
{{- $refusals = append $refusals (printf "nodes.preset %q is unknown: allowed are %s. Set nodes.preset=all and choose nodes with nodeSelector or affinity." .Values.nodes.preset (join ", " $presets)) }}
{{- end }}
{{- range .Values.nodes.osRelease }}
{{- if not (regexMatch "^[A-Za-z0-9._-]+$" .) }}
{{- $refusals = append $refusals (printf "nodes.osRelease: %q is no ID of os-release: allowed are letters, digits, '.', '_' and '-'. Name each system as ID or ID_LIKE in /etc/os-release does, e.g. rhel." .) }}
{{- end }}
{{- end }}
{{- $scopes := list "all" "cluster" "namespace" }}
{{- $scope := (.Values.global).resourceScope | default "all" }}
{{- if not (has $scope $scopes) }}
{{- $refusals = append $refusals (printf "global.resourceScope %q is unknown: allowed are %s, as in Istio's charts. Leave it out to install everything." $scope (join ", " $scopes)) }}
{{- end }}
{{- $global := .Values.global | default dict }}
{{- if not (or (kindIs "string" $global.tag) (kindIs "invalid" $global.tag)) }}
{{- $refusals = append $refusals (printf "global.tag %v is no string, and YAML may have changed it: it reads 1.30 as the number 1.3. Allowed is a string. Quote it, e.g. global.tag: %q." $global.tag .Chart.AppVersion) }}
{{- end }}
{{- $policies := list "Always" "IfNotPresent" "Never" }}
{{- $policy := .Values.image.pullPolicy | default (.Values.global).imagePullPolicy | default "IfNotPresent" }}
{{- if not (has $policy $policies) }}
{{- $refusals = append $refusals (printf "pull policy %q is unknown: allowed are %s. Set image.pullPolicy, or the mesh's global.imagePullPolicy, to one of them." $policy (join ", " $policies)) }}
{{- end }}
{{- if and $tag (not (regexMatch "^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$" $tag)) }}
{{- $refusals = append $refusals (printf "image tag %q is no tag: allowed are up to 128 letters, digits, '_', '.' and '-', not beginning with '.' or '-'. Set image.tag, or the mesh's global.tag, to a tag such as %s; a digest goes to image.digest." $tag .Chart.AppVersion) }}
{{- end }}
{{- if hasSuffix "-distroless" $tag }}
{{- $refusals = append $refusals (printf "image tag %q has no shell, and the pod's scripts need one: allowed is any other variant. Set image.tag=%s." $tag (trimSuffix "-distroless" $tag)) }}
{{- end }}
{{- if and .Values.image.digest (not (regexMatch "^sha256:[a-f0-9]{64}$" .Values.image.digest)) }}
{{- $refusals = append $refusals (printf "image.digest %q is no digest: allowed is sha256: and 64 lower-case hex digits. Copy it from `docker buildx imagetools inspect`, or leave it empty." .Values.image.digest) }}
{{- end }}
{{- /* one expression for all of them, and one for each only where that fails: to compile it takes longer than all else here */}}
{{- $name := "[A-Za-z0-9_-]+(\\|[A-Za-z0-9_-]+)*" }}
{{- $entries := list }}
{{- range .Values.modules }}
{{- range kindIs "map" . | ternary . (dict "" .) }}
{{- $entries = concat $entries . }}
{{- end }}
{{- end }}
{{- $names := join "," $entries }}
{{- if not (and (regexMatch (printf "^%s(,%s)*$" $name $name) $names) (eq (len $entries) (len (splitList "," $names)))) }}
{{- range $group, $lists := .Values.modules }}
{{- range $backend, $entries := kindIs "map" $lists | ternary $lists (dict "" $lists) }}
{{- range $entries }}
{{- if not (regexMatch (printf "^%s$" $name) .) }}
{{- $refusals = append $refusals (printf "modules.%s: %q is no module name: allowed are letters, digits, '_' and '-', alternatives separated by '|'. Name the module as modprobe does, without path, suffix or options." (list $group $backend | join "." | trimSuffix ".") .) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- if and (has .Values.backend $known) (not (include "istio-os-init.plan" .)) }}
{{- $refusals = append $refusals (printf "the plan is empty: modules has no name for backend %s and the chosen mesh modes, and at least one is needed. Fill modules.base or modules.extra, or do not install the chart." (include "istio-os-init.backends" .)) }}
{{- end }}
{{- if lt (int .Values.watch.interval) 1 }}
{{- $refusals = append $refusals (printf "watch.interval %d is too short: allowed are whole seconds from 1 on. Set watch.interval=60." (int .Values.watch.interval)) }}
{{- end }}
{{- $probe := .Values.watch.startupProbe }}
{{- if lt (int $probe.timeoutSeconds) 120 }}
{{- $refusals = append $refusals (printf "watch.startupProbe.timeoutSeconds %d is too short: allowed are whole seconds from 120 on, since the probe waits before it repeats a reason. Set watch.startupProbe.timeoutSeconds=120." (int $probe.timeoutSeconds)) }}
{{- end }}
{{- if lt (int $probe.periodSeconds) 1 }}
{{- $refusals = append $refusals (printf "watch.startupProbe.periodSeconds %d is too short: allowed are whole seconds from 1 on. Set watch.startupProbe.periodSeconds=1." (int $probe.periodSeconds)) }}
{{- end }}
{{- if not (kindIs "map" .Values.repair) }}
{{- $refusals = append $refusals (printf "repair %q is no longer a value: allowed is repair.enabled, true or false. Set repair.enabled=%t%s." (toString .Values.repair) (ne (toString .Values.repair) "never") (eq (toString .Values.repair) "never" | ternary " to leave a pod that is not proven as it is" " to prove again after a drift and after a failed proof")) }}
{{- end }}
{{- /* what the pods' containers, their scripts or Kubernetes set: another value would prove another mesh, or send the token elsewhere */}}
{{- $instead := dict "ISTIO_DUAL_STACK" "mesh.dualStack" "INVALID_DROP" "mesh.dropInvalid" }}
{{- if or (has .Values.backend (list "nft" "legacy")) .Values.mesh.cni }}
{{- $instead = set $instead "FORCE_IPTABLES_BINARY" "backend" }}
{{- end }}
{{- $names := list }}
{{- range .Values.extraEnv }}
{{- if hasKey $instead .name }}
{{- $refusals = append $refusals (printf "extraEnv: %q decides which modules a node needs: allowed is the value %s, which sets it. Remove the entry, and set %s." .name (get $instead .name) (get $instead .name)) }}
{{- else if or (has .name (list "PATH" "CLEANUP_ONLY")) (hasPrefix "ISTIO_OS_INIT_" .name) (hasPrefix "KUBERNETES_" .name) }}
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
{{- if or (not (regexMatch "^([a-z0-9]([a-z0-9.-]*[a-z0-9])?/)?[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?$" $key)) (hasPrefix "node.kubernetes.io/" $key) (hasPrefix "node.cloudprovider.kubernetes.io/" $key) }}
{{- $refusals = append $refusals (printf "%s %q is no key for a taint of ours: allowed is a name with an optional DNS prefix, which is not Kubernetes' own node.kubernetes.io or node.cloudprovider.kubernetes.io. Leave it at its default, or use a key that nobody else removes." $value $key) }}
{{- end }}
{{- end }}
{{- $rule := $signals.nodeReadinessRule }}
{{- if $rule.enabled }}
{{- if not $signals.nodeCondition.enabled }}
{{- $refusals = append $refusals "signals.nodeReadinessRule waits for the condition IstioReady, which nobody writes: allowed is it with the condition only. Set signals.nodeCondition.enabled=true." }}
{{- end }}
{{- if .Values.affinity.nodeAffinity }}
{{- $refusals = append $refusals "signals.nodeReadinessRule selects nodes by labels alone, and affinity.nodeAffinity chooses others: allowed are nodeSelector and nodes.preset. Choose the nodes with these, or write the rule yourself (docs/signals.md)." }}
{{- end }}
{{- $modes := list "bootstrap-only" "continuous" }}
{{- if not (has $rule.enforcementMode $modes) }}
{{- $refusals = append $refusals (printf "signals.nodeReadinessRule.enforcementMode %q is unknown: allowed are %s. Set bootstrap-only to hold back new nodes only." $rule.enforcementMode (join ", " $modes)) }}
{{- end }}
{{- end }}
{{- /* Nothing where helm asks no cluster. Another selector: that of the DaemonSet which is copied from page to page under our name. */}}
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
