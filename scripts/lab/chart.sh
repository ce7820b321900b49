# shellcheck shell=sh
# What the chart says about the lab's nodes. Sourced after lib.sh and kind.sh.
#
# Output: functions verdicts, table, image_in_use, daemonset_settled.
# Facts:  the pods' init container `verify` ends with "<backend> works; ..." or "<CamelCaseReason>: ...", and every other
#         container that fails with a reason of the same form; all end with "not selected: ..." on a node that is left out
#         (charts/istio-os-init/files).
# shellcheck disable=SC2154 # lib.sh's variables

selector=app.kubernetes.io/name=istio-os-init,app.kubernetes.io/instance=$release

# pods: the chart's pods, as JSON.
pods() {
  kubectl get pods --namespace "$namespace" --selector "$selector" -o json
}

# refusals: the events which say that the chart's pods cannot be made, as JSON: Kubernetes says so nowhere else.
refusals() {
  kubectl get events --namespace "$namespace" --field-selector involvedObject.kind=DaemonSet,reason=FailedCreate -o json
}

# verdicts: one line for each Linux node, separated by tabs:
# name, OS image, kernel, backend, verdict, seconds from the pod's creation to Ready, and why it is not Ready or what made it so.
verdicts() {
  { kubectl get nodes --selector kubernetes.io/os=linux -o json && pods && refusals; } |
    jq -rs --arg remedy "kubectl label --overwrite namespace $namespace pod-security.kubernetes.io/enforce=privileged" '
    # The chart concludes "<CamelCaseReason>: ..."; what it did not say itself gets the reason of Kubernetes in front.
    def conclusion:
      .reason as $reason | [(.message // "") | split("\n")[] | select(. != "")]
      | first(.[] | select(test("^[A-Z][A-Za-z]+: "))) // "\($reason): \(last // "no message")";

    # Of the first container, in the order in which they run, that keeps the pod from being Ready.
    def why:
      [ (.status.initContainerStatuses // [])[], (.status.containerStatuses // [])[]
        | select(.ready | not)
        | (.state.terminated, .lastState.terminated, .state.waiting)
        # RestartingAllContainers: the rule has removed a container and its message; the next round is on its way
        | select(. and .reason != "Completed" and .reason != "PodInitializing" and .reason != "RestartingAllContainers")
        | conclusion ]
      + [ .status.conditions[]? | select(.type == "PodScheduled" and .status == "False") | "\(.reason): \(.message)" ]
      | first // "Starting: not concluded yet";

    def refusal:
      sort_by(.lastTimestamp) | last.message // ""
      | gsub("\\s+"; " ") + if test("violates PodSecurity") then " Fix: \($remedy)" else "" end;

    .[1].items as $pods
    | (.[2].items | refusal) as $refusal
    | .[0].items[]
    | .metadata.name as $node
    # Until a pod is scheduled, its affinity tells for which node the DaemonSet made it.
    # Of an old pod that is being replaced and its successor, the successor speaks.
    | ([$pods[] | select((.spec.nodeName // .spec.affinity.nodeAffinity
        .requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchFields[0].values[0]) == $node)] | sort_by(.metadata.creationTimestamp) | last) as $pod
    | ($pod.status.conditions // [] | map(select(.type == "Ready" and .status == "True")) | first) as $ready
    | ($pod.status.initContainerStatuses // [] | map(select(.name == "verify" and .state.terminated.exitCode == 0))
        | first.state.terminated.message // "-" | if startswith("not selected: ") then "-" else . end | split(" ") | first) as $backend
    | ($pod.status.initContainerStatuses // [] | map(select(.name == "load")) | first.state.terminated.message // "") as $load
    | ($load | capture("^loaded: (?<names>[^;]*);").names // "nothing") as $loaded
    | ($load | startswith("not selected: ")) as $left_out
    | (if $pod == null then $refusal elif $ready | not then ($pod | why)
        elif $left_out then $load
        elif $loaded == "nothing" then ""
        else "load has loaded \($loaded), which istio-init needs and a container may not load where SELinux denies it" end) as $why
    | [ $node, .status.nodeInfo.osImage, .status.nodeInfo.kernelVersion, $backend,
        (if $pod == null then "no pod" elif $ready and $left_out then "not selected" elif $ready then "Ready" else "NotReady: " + ($why | split(":") | first) end),
        (if $ready then "\(($ready.lastTransitionTime | fromdate) - ($pod.metadata.creationTimestamp | fromdate)) s" else "-" end),
        $why ]
    | @tsv'
}

# table: verdicts from stdin for people. Exit code 0 only if there are nodes and every one is Ready or not selected.
table() {
  awk -F '\t' '
    BEGIN { split("NODE\tOS IMAGE\tKERNEL\tBACKEND\tVERDICT\tTIME", cell); row() }
    { split($0, cell); row(); if ($7 != "") why = why "\n" $1 ": " $7; if ($5 != "Ready" && $5 != "not selected") bad++ }
    function row(  c) {
      rows++
      for (c = 1; c <= 6; c++) {
        text[rows, c] = cell[c]
        if (length(cell[c]) > width[c]) width[c] = length(cell[c])
      }
    }
    END {
      for (r = 1; r <= rows; r++) {
        for (c = 1; c < 6; c++) printf "%-*s  ", width[c], text[r, c]
        print text[r, 6]
      }
      if (why != "") print why
      exit (rows < 2 || bad > 0)
    }'
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
