# shellcheck shell=sh
# What the chart says about the lab's nodes. Sourced.
#
# Output: functions verdicts, table, image_in_use, daemonset_settled, progress, before_the_chart.
# Facts:  `report --json` in a pod's container `watch` prints the outcome on its node (charts/istio-os-init/files/report).

# shellcheck source=kind.sh
command -v cluster_up >/dev/null || . "${root:?}/scripts/lab/kind.sh"
# shellcheck source=agent.sh
command -v on_node >/dev/null || . "${root:?}/scripts/lab/agent.sh"

selector=app.kubernetes.io/name=istio-os-init,app.kubernetes.io/instance=$release

# pods: the chart's pods, as JSON.
pods() {
  kubectl get pods --namespace "$namespace" --selector "$selector" -o json
}

# refusals: the events which say that the chart's pods cannot be made, as JSON: Kubernetes says so nowhere else.
refusals() {
  kubectl get events --namespace "$namespace" --field-selector involvedObject.kind=DaemonSet,reason=FailedCreate -o json
}

# outcomes PODS: what is known on the nodes of pods, given as JSON: one JSON object, from a pod's name to what its `report --json`
# prints. A pod whose watch does not run has none.
outcomes() {
  printf '%s' "$1" | jq -r '.items[] | select(any(.status.containerStatuses[]?; .name == "watch" and .state.running)) | .metadata.name' |
    while read -r pod; do
      report=$(kubectl exec --namespace "$namespace" "$pod" --container watch -- report --json 2>/dev/null </dev/null) || continue
      printf '%s' "$report" | jq -c --arg pod "$pod" '{($pod): .}' 2>/dev/null || true
    done | jq -s 'add // {}'
}

# verdicts: one line for each Linux node, separated by tabs:
# name, OS image, kernel, runtime, SELinux, backend, verdict, seconds from the pod's creation to Ready, and why it is not Ready or what made it so.
verdicts() {
  now=$(pods)
  { kubectl get nodes --selector kubernetes.io/os=linux -o json && printf '%s' "$now" && refusals && outcomes "$now"; } |
    jq -rs --arg remedy "kubectl label --overwrite namespace $namespace pod-security.kubernetes.io/enforce=privileged" '
    # Of a pod whose watch does not run: what Kubernetes says of it, or the last that its containers have said.
    def kubernetes:
      [ .status.conditions[]? | select(.type == "PodScheduled" and .status == "False") | {reason, line: "\(.reason): \(.message)"} ]
      + [ (.status.containerStatuses // [])[], (.status.initContainerStatuses // [])[]
          | .state.waiting | select(. and .reason != "PodInitializing") | {reason, line: "\(.reason): \(.message // "no message")"} ]
      | first // {reason: "Starting", line: "Starting: not concluded yet"};

    def refusal:
      sort_by(.lastTimestamp) | last.message // ""
      | gsub("\\s+"; " ") + if test("violates PodSecurity") then " Fix: \($remedy)" else "" end;

    .[1].items as $pods
    | (.[2].items | refusal) as $refusal
    | .[3] as $outcomes
    | .[0].items[]
    | .metadata.name as $node
    # Until a pod is scheduled, its affinity tells for which node the DaemonSet made it.
    # Of an old pod that is being replaced and its successor, the successor speaks.
    | ([$pods[] | select((.spec.nodeName // .spec.affinity.nodeAffinity
        .requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchFields[0].values[0]) == $node)] | sort_by(.metadata.creationTimestamp) | last) as $pod
    | ($pod.status.conditions // [] | map(select(.type == "Ready" and .status == "True")) | first) as $ready
    | (if $pod == null then {reason: "no pod", line: $refusal} else $outcomes[$pod.metadata.name] // ($pod | kubernetes) end) as $outcome
    | ([$outcome.backends // {} | to_entries[] | select(.value == "works") | .key] | first // "-") as $backend
    | ([$outcome.modules[]? | select(.state == "loaded-now") | .name] | join(" ")) as $loaded
    | [ $node, .status.nodeInfo.osImage, .status.nodeInfo.kernelVersion, (.status.nodeInfo.containerRuntimeVersion | sub("://"; " ")),
        $outcome.facts.selinux // "-", $backend,
        (if $pod == null then "no pod" elif $ready | not then "NotReady: " + $outcome.reason elif $outcome.reason == "NotSelected" then "not selected" else "Ready" end),
        (if $ready then "\(($ready.lastTransitionTime | fromdate) - ($pod.metadata.creationTimestamp | fromdate)) s" else "-" end),
        (if $ready and $outcome.reason != "NotSelected"
          then (if $loaded == "" then "" else "load has loaded \($loaded), which istio-init needs and a container may not load where SELinux denies it" end)
          else $outcome.line end) ]
    | @tsv'
}

# table: verdicts from stdin for people. Exit code 0 only if there are nodes and every one is Ready or not selected.
table() {
  awk -F '\t' '
    BEGIN { split("NODE\tOS IMAGE\tKERNEL\tRUNTIME\tSELINUX\tBACKEND\tVERDICT\tTIME", cell); row() }
    { split($0, cell); row(); if ($9 != "") why = why "\n" $1 ": " $9; if ($7 != "Ready" && $7 != "not selected") bad++ }
    function row(  c) {
      rows++
      for (c = 1; c <= 8; c++) {
        text[rows, c] = cell[c]
        if (length(cell[c]) > width[c]) width[c] = length(cell[c])
      }
    }
    END {
      for (r = 1; r <= rows; r++) {
        for (c = 1; c < 8; c++) printf "%-*s  ", width[c], text[r, c]
        print text[r, 8]
      }
      if (why != "") print why
      exit (rows < 2 || bad > 0)
    }'
}

# progress: one line: each pod's node and how many of its containers have ended or run.
progress() {
  pods | jq -r '[.items | sort_by(.spec.nodeName)[] | "\(.spec.nodeName // "unscheduled") " + (
      if any(.status.conditions[]?; .type == "Ready" and .status == "True") then "Ready"
      else "\([.status.initContainerStatuses[]? | select(.state.terminated)] | length) of \(.spec.initContainers | length) steps ended" end)]
    | join(", ")'
}

# image_in_use: which image the verdicts come from.
image_in_use() {
  image=$(pods | jq -r '[.items[].spec.initContainers[].image] | unique | join(", ")')
  case $image in
    '') echo "image: none, the chart is not installed (run: make up)" ;;
    */proxyv2-stand-in:*)
      echo "image: $image"
      sed -n 's/^# /       /p' "$values"
      ;;
    *) echo "image: $image" ;;
  esac
}

# daemonset_settled: whether every node runs the chart's newest pod, and it is Ready. Helm 3's --wait asks for less: with
# one unavailable pod allowed it is content with none Ready on a small cluster.
daemonset_settled() {
  kubectl get daemonset --namespace "$namespace" --selector "$selector" -o json | jq -e --argjson nodes "$nodes" '
    .items | length == 1 and (.[0] | .status.observedGeneration == .metadata.generation and (.status |
      .desiredNumberScheduled >= $nodes
      and .updatedNumberScheduled == .desiredNumberScheduled and .numberReady == .desiredNumberScheduled))' >/dev/null
}

# before_the_chart NODE IMAGE: what istio-init meets on the VM while none of netfilter's modules is loaded there: prints one line with the
# words of iptables and SELinux's denial. Fails if SELinux does not deny it.
# What a container may do there is istio-init's. Both of Istio's backends are tried: SELinux denies nfnetlink, and a table of
# iptables-legacy only where something has loaded ip_tables.
before_the_chart() {
  pod=istio-init-before-the-chart
  since=$(on_node date +%s)
  kubectl delete pod "$pod" --ignore-not-found >/dev/null
  # shellcheck disable=SC2016 # jq's variables
  jq -n --arg name "$pod" --arg node "$1" --arg image "$2" '
    {apiVersion: "v1", kind: "Pod", metadata: {$name}, spec: {nodeName: $node, restartPolicy: "Never", automountServiceAccountToken: false,
      terminationGracePeriodSeconds: 0, tolerations: [{operator: "Exists"}], containers: [{name: "istio-init", $image, imagePullPolicy: "IfNotPresent",
        command: ["sh", "-c", "iptables-nft-save; printf \"*nat\\nCOMMIT\\n\" | iptables-legacy-restore"],
        securityContext: {runAsUser: 0, runAsGroup: 0, runAsNonRoot: false, allowPrivilegeEscalation: false,
          capabilities: {drop: ["ALL"], add: ["NET_ADMIN", "NET_RAW"]}}}]}}' | kubectl apply -f - >/dev/null
  kubectl wait pod "$pod" --for 'jsonpath={.status.phase}=Failed' --timeout 180s >/dev/null || return 1
  words=$(kubectl logs "$pod" | grep -m 1 'unable to initialize table') || return 1
  kubectl delete pod "$pod" >/dev/null
  # auditd writes in the background
  tries=10
  until denial=$(on_node grep -h 'avc: .*module_request.*container_t' /var/log/audit/audit.log 2>/dev/null |
    awk -F'[(.]' -v since="$since" '$2 >= since && sub(/^.*avc: /, "avc: ")' | tail -n 1) && [ -n "$denial" ]; do
    tries=$((tries - 1))
    [ "$tries" -gt 0 ] || return 1
    sleep 1
  done
  printf '%s: before the chart: %s; the cause: %s\n' "$1" "$words" "$(printf '%s' "$denial" | tr -s ' ')"
}
