# shellcheck shell=sh
# The lab's VM: a worker of the cluster with a distribution's modular kernel, where modules can be loaded and unloaded.
# Sourced.
#
# Input:  the running cluster.
#   KERNEL   whose kernel (environment): bullseye (5.10), bookworm (6.1), trixie (6.12), sid (7.2); default: what the VM
#            has, trixie where there is none
#   RUNTIME  its container runtime (environment): crio or containerd
#   SELINUX  enforcing or off (environment)
#            "new" for either is what a new VM has: trixie is a node as OpenShift has it, with CRI-O and SELinux enforcing, and the others
#            have containerd and no SELinux. Default of both: what a VM with this kernel has; where there is none, new
# Output: functions vm_refused, vm_up, vm_down, vm_reboot, vm_rebooted, vm_load. Exits 2 on a bad value.
#         Directory $vm, which goes with the VM:
#   console.log   what the VM's serial console has said      overlay      what its disk differs in from $disk
#   state         what it was made of, written when it has joined
#   qemu.pid      QEMU's process: its command line names this file, so that a reused pid is never mistaken for it
#   accelerator   what QEMU runs on: kvm or tcg
#   cargo         a disk by which image archives are handed over, see vm_load

# shellcheck source=kind.sh
command -v cluster_up >/dev/null || . "${root:?}/scripts/lab/kind.sh"
# shellcheck source=agent.sh
command -v on_node >/dev/null || . "${root:?}/scripts/lab/agent.sh"
# shellcheck source=qemu.sh
command -v vm_start >/dev/null || . "${root:?}/scripts/lab/qemu.sh"

# vm_refused: prints why this host can have no VM; fails where it can.
vm_refused() {
  if [ "$(id -u)" -ne 0 ]; then
    echo "not root"
  elif [ "$(uname -sm)" != "Linux x86_64" ]; then
    echo "not Linux on x86_64"
  elif ! [ -c /dev/net/tun ]; then
    echo "no /dev/net/tun"
  elif ! command -v qemu-system-x86_64 >/dev/null && ! command -v apt-get >/dev/null; then
    echo "no QEMU, and no apt-get to install it with"
  else
    return 1
  fi
}

# our_qemu: prints the pid of the VM's QEMU; fails if it does not run.
our_qemu() {
  pid=$(cat "$vm/qemu.pid" 2>/dev/null) || return 1
  tr '\0' '\n' <"/proc/$pid/cmdline" 2>/dev/null | grep -qxF "$vm/qemu.pid" || return 1
  echo "$pid"
}

# vm_up: the VM with the newest kernel of $KERNEL, in the cluster, Ready and without faults.
vm_up() {
  vm_tools
  # shellcheck disable=SC1090
  . "$state"
  set -- "$(docker inspect --format '{{.Image}}' "$control_plane")"
  if ours "$mesh_image"; then
    stand_in
    set -- "$@" "$mesh_image" "$stand_in"
  fi
  vm_disk "$@"
  made_of="kernel=$KERNEL runtime=$RUNTIME selinux=$SELINUX disk=${disk##*/} cluster=$(docker inspect --format '{{.Id}}' "$control_plane")"
  made_of="$made_of recipe=$(key ci/routes ci/vm/join scripts/lab/routes.sh scripts/lab/vm.sh scripts/lab/qemu.sh)"

  if our_qemu >/dev/null; then
    if [ "$(cat "$vm/state" 2>/dev/null)" != "$made_of" ]; then
      say "vm: removing one that was left half made, or made from something else"
    elif ! vm_ready 180; then
      say "vm: removing one whose node is not Ready after three minutes"
    elif [ -n "$("$root/scripts/lab/fault")" ]; then
      say "vm: removing one that was left with faults"
    else
      say "vm: $vm_node is up with kernel $(cat "$disk/release"), $RUNTIME, SELinux $SELINUX"
      return
    fi
  fi
  vm_down
  mkdir -p "$vm"
  qemu-img create -q -f qcow2 -F raw -b "$disk/disk" "$vm/overlay"
  vm_start
  vm_join
  echo "$made_of" >"$vm/state.new"
  mv "$vm/state.new" "$vm/state"
}

# vm_join: makes the VM a node of the cluster, and waits until it is Ready.
vm_join() {
  # kindest/node's own network and proxy would load modules and write rules; only the chart shall.
  for daemonset in kindnet kube-proxy; do
    if kubectl get daemonset --namespace kube-system "$daemonset" >/dev/null 2>&1; then
      kubectl patch daemonset --namespace kube-system "$daemonset" --type merge --patch "$(jq -cn --arg node "$vm_node" '
        {spec: {template: {spec: {affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [
          {matchExpressions: [{key: "kubernetes.io/hostname", operator: "NotIn", values: [$node]}]}]}}}}}}}')" >/dev/null
    fi
  done
  kubectl delete node "$vm_node" --ignore-not-found >/dev/null

  # systemd-resolved's own address would mean the VM itself.
  resolv=/etc/resolv.conf
  if grep -q '^nameserver 127\.' "$resolv" && [ -f /run/systemd/resolve/resolv.conf ]; then
    resolv=/run/systemd/resolve/resolv.conf
  fi
  nameservers=$(sed -n 's/^nameserver \([0-9.]*\)$/\1/p' "$resolv" | paste -sd,)
  server=$(docker network inspect "$cluster" |
    jq -r --arg name "$control_plane" '.[0].Containers[] | select(.Name == $name).IPv4Address | split("/") | first')
  join=$(docker exec "$control_plane" kubeadm token create --ttl 1h --print-join-command)
  vm_routes "$server" "10.244.$last.0/24"

  say "vm: joining as $vm_node"
  # shellcheck disable=SC2016,SC2086 # expanded by the inner shell; a command and its arguments
  logged vm-join sh -euc 'on_node=$1; join=$2; shift 2; "$on_node" -i -t 900 sh -s -- "$@" <"$join"' sh \
    "$root/scripts/lab/on-node" "$root/ci/vm/join" \
    "$RUNTIME" "$control_plane" "$server" "10.244.$last.0/24" "fd00:10:244:$last::/64" "$nameservers" $join ||
    die "the VM does not join the cluster; its words are above, its console is $vm/console.log"
  vm_ready 900 || die "the node $vm_node is not Ready after a quarter of an hour. See: scripts/lab/on-node journalctl -u kubelet"
  say "vm: $vm_node is Ready"
}

# vm_routes SERVER NETWORK: routes from the VM's pods and to them. The API server's cluster address is translated on the machine that
# runs it, by kube-proxy there: the VM has none.
vm_routes() {
  routes_up "$vm_node" "$address" "$2"
  service=$(kubectl get service kubernetes -o 'jsonpath={.spec.clusterIP}')
  # shellcheck disable=SC2046 # a list
  on_node -i sh -s -- "$service/32=$1" $(routes_of "$vm_node") <"$root/ci/routes" || die "the VM does not get its routes; its words are above"
}

# vm_ready SECONDS: whether the node becomes Ready, as it runs now: the API server goes on calling a node Ready for a
# while that has just gone down.
vm_ready() {
  deadline=$(($(date +%s) + $1))
  until boot=$(on_node cat /proc/sys/kernel/random/boot_id 2>/dev/null) &&
    [ "$(kubectl get node "$vm_node" --request-timeout=5s \
      -o 'jsonpath={.status.nodeInfo.bootID} {.status.conditions[?(@.type=="Ready")].status}' 2>/dev/null)" = "$boot True" ]; do
    [ "$(date +%s)" -lt "$deadline" ] || return 1
    sleep 1
  done
}

# vm_reboot: reboots the VM's host, without waiting for it. Its disk stays as it is.
vm_reboot() {
  boot_before=$(on_node cat /proc/sys/kernel/random/boot_id)
  on_node -t 0 systemctl reboot
}

# vm_rebooted SECONDS: waits until the host answers again after vm_reboot, and its node is Ready.
vm_rebooted() {
  deadline=$(($(date +%s) + $1))
  until boot=$(on_node cat /proc/sys/kernel/random/boot_id 2>/dev/null) && [ "$boot" != "$boot_before" ]; do
    [ "$(date +%s)" -lt "$deadline" ] ||
      die "the VM's host does not come back within $1 seconds; see its console: $vm/console.log"
    sleep 1
  done
  say "vm: its host answers again"
  vm_ready "$((deadline - $(date +%s)))" ||
    die "the node $vm_node is not Ready within $1 seconds of its reboot. See: scripts/lab/on-node journalctl -u kubelet"
}

# vm_load IMAGE...: brings images from this host's Docker to the VM's runtime. The archive is written into a disk
# which the VM has all the time, and is read there past its cache.
vm_load() {
  docker save "$@" | dd of="$vm/cargo" conv=notrunc bs=1M iflag=fullblock 2>"$vm/cargo.size"
  megabytes=$(($(sed -n 's/^\([0-9]*\) bytes.*/\1/p' "$vm/cargo.size") / 1048576 + 1))
  # shellcheck disable=SC2016 # expanded on the node
  on_node -t 900 sh -euc '
    megabytes=$1
    shift
    archive() { dd if=/dev/vdb iflag=direct bs=1M count="$megabytes" status=none; }
    if ! command -v crio >/dev/null; then
      archive | ctr --namespace k8s.io images import -
      exit
    fi
    trap "rm -f /var/tmp/lab.tar" EXIT
    archive >/var/tmp/lab.tar
    for image; do
      skopeo copy --quiet --insecure-policy "docker-archive:/var/tmp/lab.tar:$image" "containers-storage:$image"
    done' sh "$megabytes" "$@" >/dev/null
}

# vm_down: removes the VM, its node and its tap.
vm_down() {
  if pid=$(our_qemu); then
    kill "$pid"
    tries=200
    while our_qemu >/dev/null; do
      tries=$((tries - 1))
      case $tries in
        100) kill -9 "$pid" ;;
        0) die "QEMU (process $pid) does not end" ;;
      esac
      sleep 0.1
    done
  fi
  if docker exec "$control_plane" true 2>/dev/null; then
    kubectl delete node "$vm_node" --ignore-not-found --request-timeout=10s >/dev/null 2>&1 || true
  fi
  if [ -e "/sys/class/net/$tap" ]; then
    ip link delete "$tap"
  fi
  rm -rf "$vm"
}

# vm_has WORD: what the VM was made of: kernel, runtime or selinux.
vm_has() {
  sed -n "s/^\(.* \)\{0,1\}$1=\([a-z]*\) .*/\2/p" "$vm/state" 2>/dev/null || true
}

# allowed NAME VALUE WORD...: ends this with 2 unless the value is one of the words.
allowed() {
  name=$1 value=$2
  shift 2
  for word; do
    [ "$word" != "$value" ] || return 0
  done
  echo "error: $name=$value: must be one of: $*" >&2
  exit 2
}

KERNEL=${KERNEL:-$(vm_has kernel)}
KERNEL=${KERNEL:-trixie}
allowed KERNEL "$KERNEL" bullseye bookworm trixie sid
# One kernel's node is what OpenShift has; the others are told apart from it by their kernel alone.
new_runtime=containerd new_selinux=off
[ "$KERNEL" != trixie ] || new_runtime=crio new_selinux=enforcing
if [ "$KERNEL" = "$(vm_has kernel)" ]; then
  RUNTIME=${RUNTIME:-$(vm_has runtime)} SELINUX=${SELINUX:-$(vm_has selinux)}
fi
RUNTIME=${RUNTIME:-new} SELINUX=${SELINUX:-new}
[ "$RUNTIME" != new ] || RUNTIME=$new_runtime
[ "$SELINUX" != new ] || SELINUX=$new_selinux
allowed RUNTIME "$RUNTIME" crio containerd new
allowed SELINUX "$SELINUX" enforcing off new
