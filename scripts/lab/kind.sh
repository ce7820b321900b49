# shellcheck shell=sh
# The cluster itself. Sourced.
#
# Input:  lib.sh's variables. Output: functions kubectl, cluster_up, cluster_down; in $lab: kubeconfig, values.yaml, state
#         (what the running cluster was made of, as shell assignments: recipe, images, mesh_image, mesh_because, since).

# shellcheck source=images.sh
command -v choose_node_image >/dev/null || . "${root:?}/scripts/lab/images.sh"
# shellcheck source=routes.sh
command -v routes_up >/dev/null || . "${root:?}/scripts/lab/routes.sh"

# kind ARGUMENT...: the kind that go.mod pins. The lock may be inherited: kind leaves nothing running but containers.
kind() {
  "$("$root/scripts/tool" kind)" "$@"
}

# kubectl ARGUMENT...: the control plane's own, so that the host needs none.
kubectl() {
  docker exec -i "$control_plane" kubectl --kubeconfig=/etc/kubernetes/admin.conf "$@"
}

# recipe: everything that decides what the nodes are made of: kind's version, and a hash.
recipe() {
  sed -n 's,^.*sigs.k8s.io/kind \(v[^ ]*\).*,kind-\1-,p' "$root/go.mod" | tr -d '\n'
  # shellcheck disable=SC2086 # a list
  key ci/audit ci/kind.yaml ci/kind-from-source.yaml $node_image_recipe
}

# running_since: when each node's container was last started.
running_since() {
  node_containers | xargs docker inspect --format '{{.Name}} {{.State.Running}} {{.State.StartedAt}}' | paste -sd,
}

# state_fits: whether the cluster was completed, from this recipe, and as LAB_IMAGES wants it.
state_fits() {
  [ -f "$state" ] || return 1
  # shellcheck source=/dev/null
  (recipe= && . "$state" && [ "$recipe" = "$(recipe)" ] && case $LAB_IMAGES in auto | "$images") ;; *) false ;; esac)
}

# ready_nodes: how many nodes the API calls Ready; 0 if it does not answer.
ready_nodes() {
  { kubectl get nodes --request-timeout=5s \
    -o 'jsonpath={range .items[*]}{.status.conditions[?(@.type=="Ready")].status}{"\n"}{end}' 2>/dev/null || true; } |
    grep -c '^True$' || true
}

# cluster_ready SECONDS: whether the nodes become Ready within this time; more may have joined.
cluster_ready() {
  deadline=$(($(date +%s) + $1))
  until [ "$(ready_nodes)" -ge "$nodes" ]; do
    [ "$(date +%s)" -lt "$deadline" ] || return 1
    sleep 1
  done
}

# cluster_up: the cluster as its recipe says, answering, with the images it needs; whatever was there before.
cluster_up() {
  if [ -z "$(node_containers)" ]; then
    cluster_create
  elif ! state_fits; then
    say "cluster: the one that is there was left half made, or made from another recipe: making it anew"
    cluster_create
  elif ! grep -qxF "since='$(running_since)'" "$state"; then
    # Its addresses may have changed, and for a while the API server tells how everything was before.
    say "cluster: its nodes were stopped or restarted since it was made: making it anew"
    cluster_create
  elif ! cluster_ready 120; then
    say "cluster: only $(ready_nodes) of $nodes nodes are Ready after two minutes: making it anew"
    cluster_create
  else
    # shellcheck source=/dev/null
    . "$state"
    say "cluster: $cluster is up, $nodes nodes Ready"
  fi

  if ours "$mesh_image"; then
    load_stand_in
  fi
  write_values
  kind get kubeconfig --name "$cluster" >"$kubeconfig.new"
  chmod 600 "$kubeconfig.new"
  mv "$kubeconfig.new" "$kubeconfig"
}

# cluster_create: a new cluster. What was there goes only when its images are at hand.
cluster_create() {
  choose_node_image
  choose_mesh_image
  docker run --rm --privileged --entrypoint /bin/true "$node_image" ||
    die "this Docker cannot run privileged containers, which kind's nodes are; its words are above"

  # Also what a killed run may have left without a container: the network.
  cluster_down
  say "cluster: creating $cluster, $nodes nodes (about half a minute)"
  # A copy of what the configuration mounts: the cluster outlives a clone.
  cp -R "$root/ci/audit" "$lab/"
  logged kind env --chdir="$lab" "$("$root/scripts/tool" kind)" create cluster --name "$cluster" --image "$node_image" \
    --config "$root/$node_config" --kubeconfig "$kubeconfig" ||
    die "kind could not create the cluster; the next run starts over. If it is the node image, try LAB_IMAGES=build."
  cluster_ready 600 || die "only $(ready_nodes) of $nodes nodes are Ready after ten minutes. See: docker logs $control_plane"
  say "cluster: $nodes nodes Ready"
  # shellcheck disable=SC2119 # of every container
  routes_up

  # Last, so that a cluster without this file is known as half made.
  images=pull
  if ours "$node_image"; then
    images=build
  fi
  cat >"$state.new" <<STATE
recipe=$(recipe)
images=$images
mesh_image='$mesh_image'
mesh_because='$mesh_because'
since='$(running_since)'
STATE
  mv "$state.new" "$state"
}

# load_stand_in: brings the stand-in, as its recipe is now, to every node that does not have it yet.
load_stand_in() {
  stand_in
  loads=
  for node in $(node_containers); do
    if ! docker exec "$node" ctr --namespace k8s.io images ls --quiet | grep -qxF "$stand_in"; then
      say "mesh image: loading the stand-in into $node"
      load "$node" &
      loads="$loads $!"
    fi
  done
  for load in $loads; do
    wait "$load" || die "a node does not take the stand-in; its words are above"
  done
}

# load NODE: under the name that the pods use, and under the one that tells which build it is.
load() {
  docker save "$mesh_image" "$stand_in" | docker exec -i "$1" ctr --namespace k8s.io images import - >/dev/null
}

# write_values: the Helm values that make the chart use the lab's image.
write_values() {
  if ! ours "$mesh_image"; then
    echo "{} # the chart's own image, $mesh_image, is pulled by the nodes" >"$values.new"
  else
    cat >"$values.new" <<VALUES
# stand-in for proxyv2, built from Istio's own pilot-agent; $mesh_because
image:
  hub: ${mesh_image%/*}
  name: proxyv2-stand-in
  tag: ${mesh_image##*:}
  pullPolicy: Never
VALUES
  fi
  mv "$values.new" "$values"
}

# cluster_down: removes the cluster's containers and its network.
cluster_down() {
  rm -f "$state" "$kubeconfig" "$values"
  if [ -n "$(node_containers)" ]; then
    node_containers | xargs docker rm --force --volumes >/dev/null
  fi
  if docker network inspect "$cluster" >/dev/null 2>&1; then
    docker network rm "$cluster" >/dev/null
  fi
}
