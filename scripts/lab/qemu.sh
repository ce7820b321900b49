# shellcheck shell=sh
# QEMU for the lab's VM: the program, the network, the start. Sourced.
#
# Input:  their variables; $disk, as vm_disk sets it; $vm/overlay. Output: functions vm_tools, vm_start.
# The network is Docker's for the cluster: a tap on its bridge, a static address where Docker looks last.

# shellcheck source=vm-images.sh
command -v vm_disk >/dev/null || . "${root:?}/scripts/lab/vm-images.sh"
# shellcheck source=agent.sh
command -v on_node >/dev/null || . "${root:?}/scripts/lab/agent.sh"

# vm_tools: makes sure of everything that the VM needs of this host.
vm_tools() {
  if grep -qx VERSION_CODENAME=bookworm /etc/os-release && [ "$(qemu_version)" -lt 10 ]; then
    qemu_from_backports
  fi
  need_tools flock:util-linux jq:jq socat:socat ip:iproute2 mke2fs:e2fsprogs busybox:busybox-static modprobe:kmod \
    xz:xz-utils dpkg-deb:dpkg apt-get:apt qemu-system-x86_64:qemu-system-x86 qemu-img:qemu-utils
  # No command: what Debian signs with, which other distributions of apt may lack.
  [ -f /usr/share/keyrings/debian-archive-keyring.gpg ] || need_tools debian-archive-keyring:debian-archive-keyring
}

# qemu_version: its major version; 0: there is none.
qemu_version() {
  version=$(qemu-system-x86_64 --version 2>/dev/null | sed -n 's/^QEMU emulator version \([0-9]*\)\..*/\1/p')
  echo "${version:-0}"
}

# qemu_from_backports: without KVM Debian 12's QEMU 7.2 dies at random of a double fault in kernel 6.12; 10.0 does not.
# The host's sources stay as they are.
qemu_from_backports() {
  say "host: installing qemu-system-x86 from bookworm-backports"
  # shellcheck disable=SC2016 # expanded by the inner shell
  logged qemu sh -euc '
    . "$1"
    export DEBIAN_FRONTEND=noninteractive
    list=$(mktemp)
    trap "rm -f $list" EXIT
    cat /etc/apt/sources.list >"$list" 2>/dev/null || true
    debian_archive bookworm-backports >>"$list"
    set -- -o "Dir::Etc::SourceList=$list"
    dpkg --configure -a
    apt-get "$@" update
    apt-get "$@" install -y --no-install-recommends -o DPkg::Lock::Timeout=300 \
      -t bookworm-backports qemu-system-x86 qemu-utils' \
    sh "$root/scripts/lab/apt.sh" || die "QEMU could not be installed from bookworm-backports"
}

# accelerator: KVM where it really boots this kernel, which a /dev/kvm that is there does not promise; TCG else.
accelerator() {
  if [ -w /dev/kvm ] && timeout 20 qemu-system-x86_64 -nodefaults -no-user-config -display none -no-reboot \
    -machine q35 -accel kvm -cpu max -m 512 -serial stdio -kernel "$disk/vmlinuz" -initrd "$disk/initramfs" \
    -append "console=ttyS0 quiet lab.try" </dev/null 2>&1 | grep -q '^lab: the kernel is up'; then
    echo kvm
  else
    echo tcg,thread=multi
  fi
}

# vm_address: sets address, length, gateway and bridge on the network of the cluster. Docker hands out the lowest free
# address, so the VM takes the highest whose last part, by which pod subnets differ, no container has.
vm_address() {
  network=$(docker network inspect "$cluster" | jq '.[0]')
  bridge=$(printf '%s' "$network" | jq -r '.Options["com.docker.network.bridge.name"] // "br-\(.Id[:12])"')
  range=$(printf '%s' "$network" |
    jq -r 'first(.IPAM.Config[] | select(.Subnet | contains(":") | not) | "\(.Subnet) \(.Gateway)")')
  gateway=${range#* }
  range=${range% *}
  length=${range#*/}
  taken=$(printf '%s' "$network" | jq -r '.Containers[].IPv4Address | split("/") | first')
  number=0
  for part in $(echo "${range%/*}" | tr . ' '); do
    number=$((number * 256 + part))
  done
  number=$((number + (1 << (32 - length)) - 1))
  address=
  while [ -z "$address" ]; do
    number=$((number - 1))
    last=$((number & 255))
    if [ "$last" -ne 0 ] && ! printf '%s\n' "$taken" "$gateway" | grep -q "\.$last\$"; then
      address=$((number >> 24)).$((number >> 16 & 255)).$((number >> 8 & 255)).$last
    fi
  done
}

# vm_start: starts QEMU on $vm/overlay, and waits for the host's agent. Two processors, 2 GB.
vm_start() {
  vm_address
  if [ ! -e "/sys/class/net/$tap" ]; then
    ip tuntap add dev "$tap" mode tap
  fi
  ip link set "$tap" master "$bridge" up
  accelerator=$(accelerator 2>/dev/null)
  echo "${accelerator%,*}" >"$vm/accelerator"
  command_line="console=ttyS0 quiet TERM=dumb systemd.show_status=1 net.ifnames=0 systemd.hostname=$vm_node"
  command_line="$command_line lab.address=$address/$length lab.gateway=$gateway"
  cpu=max
  if [ "$accelerator" != kvm ]; then
    # String instructions that are fast on a real processor are emulated byte by byte: boots in a third less time.
    cpu=max,-erms,-fsrm
    # Guards against what speculation leaks cost an emulated processor, which does not speculate, its time.
    command_line="$command_line mitigations=off"
    # Linux 5.10 and 6.1 take the time stamp counters of two emulated processors for different ones, and ask a device for the time
    # instead, which leaves the emulation: a fifth of the time of programs on 5.10. QEMU has one counter for both.
    command_line="$command_line tsc=reliable"
    # Linux 6.17 and later sample which memory is used, which takes an emulated processor half of its time.
    command_line="$command_line damon_stat.enabled=N"
  fi
  if [ "$SELINUX" = enforcing ]; then
    command_line="$command_line security=selinux selinux=1 enforcing=1 audit=1 audit_backlog_limit=8192"
  fi
  say "vm: starting kernel $(cat "$disk/release"), $RUNTIME, SELinux $SELINUX, at $address on ${accelerator%,*}"
  truncate --size 4G "$vm/cargo"

  # A session of its own and no descriptor of ours: not the lock, and not the pipe that a caller reads to its end.
  # cache=unsafe: nothing of the disk needs to outlive this host. nr=1: ci/vm/agent.service knows the port by it.
  setsid qemu-system-x86_64 -nodefaults -no-user-config -display none -name "$vm_node" -pidfile "$vm/qemu.pid" \
    -machine q35 -accel "$accelerator" -cpu "$cpu" -smp 2 -m 2048 \
    -kernel "$disk/vmlinuz" -initrd "$disk/initramfs" \
    -append "$command_line" \
    -chardev "file,id=console,path=$vm/console.log,append=on" -serial chardev:console \
    -drive "file=$vm/overlay,format=qcow2,if=virtio,cache=unsafe,discard=unmap" \
    -drive "file=$vm/cargo,format=raw,if=virtio,readonly=on" \
    -netdev "tap,id=net,ifname=$tap,script=no,downscript=no" -device virtio-net-pci,netdev=net,mac=52:54:00:69:6f:69 \
    -device virtio-serial-pci -chardev "socket,id=agent,path=$vm/agent.sock,server=on,wait=off" \
    -device virtserialport,nr=1,chardev=agent,name=org.qemu.guest_agent.0 \
    </dev/null >"$vm/qemu.log" 2>&1 9>&- &
  starter=$!
  tries=100
  until our_qemu >/dev/null && [ -S "$vm/agent.sock" ]; do
    tries=$((tries - 1))
    if [ "$tries" -eq 0 ] || ! kill -0 "$starter" 2>/dev/null; then
      cat "$vm/qemu.log" >&2
      die "QEMU does not start; its words are above"
    fi
    sleep 0.1
  done
  vm_answers 600
  say "vm: its host answers"
}

# vm_answers SECONDS: waits for the agent.
vm_answers() {
  deadline=$(($(date +%s) + $1))
  until agent guest-ping >/dev/null; do
    our_qemu >/dev/null || die "QEMU has ended: $(tail -n 3 "$vm/qemu.log")"
    [ "$(date +%s)" -lt "$deadline" ] ||
      die "the VM's host does not answer within $1 seconds; see its console: $vm/console.log"
    sleep 1
  done
}
