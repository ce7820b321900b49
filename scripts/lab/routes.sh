# shellcheck shell=sh
# Routes between the nodes, over which every pod reaches the pods of other nodes, as on any cluster. Sourced.
#
# Input:  lib.sh's variables; the running cluster. Output: functions routes_up, routes_of.
# kindest/node's own network has these routes too, except those to the VM: it knows another network as that of the VM's pods.
# IPv4 alone: the cluster has no other, and of its pods only the VM's have an IPv6 address.

# shellcheck source=lib.sh
command -v take_lock >/dev/null || . "${root:?}/scripts/lab/lib.sh"

# node_containers: the cluster's containers, running or not.
node_containers() {
  docker ps --all --filter "label=io.x-k8s.kind.cluster=$cluster" --format '{{.Names}}'
}

# pod_networks: "NODE ADDRESS NETWORK", a line for each network of pods on the nodes that are containers.
pod_networks() {
  for node in $(node_containers); do
    address=$(docker inspect --format "{{(index .NetworkSettings.Networks \"$cluster\").IPAddress}}" "$node")
    # shellcheck disable=SC2016 # jq's variables
    docker exec "$node" sh -c 'cat /etc/cni/net.d/*.conflist' |
      jq -r --arg node "$node $address" '.. | .subnet? // empty | "\($node) \(.)"'
  done
}

# routes_up [NODE ADDRESS NETWORK]: gives every container its routes. NODE: one that is none.
routes_up() {
  networks=$(pod_networks && echo "$@")
  for node in $(node_containers); do
    # shellcheck disable=SC2046 # a list
    docker exec -i "$node" sh -s -- $(routes_of "$node") <"$root/ci/routes" ||
      die "the node $node does not get its routes; its words are above"
  done
}

# routes_of NODE: NETWORK=GATEWAY for every other node's pods, after routes_up.
routes_of() {
  printf '%s\n' "$networks" | awk -v node="$1" 'NF && $1 != node { print $3 "=" $2 }'
}
