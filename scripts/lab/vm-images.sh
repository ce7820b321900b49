# shellcheck shell=sh
# What the lab's VM is made of: QEMU, a distribution's kernel, a disk. Sourced after lib.sh, host.sh and images.sh.
#
# Input:  their variables. Output: functions vm_tools, vm_disk, accelerator; vm_disk sets `disk` to its directory.
# Every artefact is named after a hash of its recipe. Older ones are removed when a newer one is there: a gigabyte each.
# shellcheck disable=SC2034,SC2154 # variables set for, and by, the other sourced files

# vm_tools: makes sure of everything that the VM needs of this host.
vm_tools() {
  need_tools flock:util-linux jq:jq socat:socat busybox:busybox-static modprobe:kmod xz:xz-utils mke2fs:e2fsprogs ip:iproute2 \
    dpkg-deb:dpkg apt-get:apt qemu-img:qemu-utils
  # Debian 12's own is too old, see below; so its packages are not asked for first.
  if ! command -v qemu-system-x86_64 >/dev/null && ! on_bookworm; then
    need_tools qemu-system-x86_64:qemu-system-x86
  fi
  if on_bookworm && [ "$(qemu_version)" -lt 10 ]; then
    qemu_from_backports
  fi
}

# qemu_version: its major version; 0: there is none.
qemu_version() {
  version=$(qemu-system-x86_64 --version 2>/dev/null | sed -n 's/^QEMU emulator version \([0-9]*\)\..*/\1/p')
  echo "${version:-0}"
}

on_bookworm() {
  grep -qx VERSION_CODENAME=bookworm /etc/os-release
}

# qemu_from_backports: without KVM Debian 12's QEMU 7.2 dies at random of a double fault in kernel 6.12; 10.0 does not.
# The suite is asked only now: the host's sources stay as they are.
qemu_from_backports() {
  [ "$(id -u)" -eq 0 ] ||
    die "QEMU $(qemu_version) is too old. As root: apt-get install -t bookworm-backports qemu-system-x86"
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
    apt-get "$@" install -y --no-install-recommends -o DPkg::Lock::Timeout=300 -t bookworm-backports qemu-system-x86 qemu-utils' \
    sh "$root/scripts/lab/apt.sh" || die "QEMU could not be installed from bookworm-backports"
}

# keep NAME PREFIX DIRECTORY: of $cache/NAME/PREFIX* only this one.
keep() {
  find "$cache/$1" -mindepth 1 -maxdepth 1 -type d -name "$2*" ! -path "$3" -exec rm -rf {} +
}

# vm_kernel SUITE: makes $made the newest kernel of a suite. The archive is asked once a day; the one at hand is used
# where it does not answer.
vm_kernel() {
  mkdir -p "$cache/vm-kernel"
  newest=$cache/vm-kernel/$1.newest
  build=$root/scripts/lab/build-vm-kernel
  if [ -z "$(find "$newest" -mmin -1440 2>/dev/null)" ]; then
    # shellcheck disable=SC2016 # expanded by the inner shell
    if logged "vm-kernel-$1" sh -euc '"$1" newest "$2" >"$3.new" && mv "$3.new" "$3"' sh "$build" "$1" "$newest"; then
      say "vm: kernel of $1 is $(sed -n 's/^linux-image-\(.*\)=.*/\1/p' "$newest")"
    else
      [ -f "$newest" ] || die "no kernel: the archive of $1 cannot be read; its words are above"
      say "vm: the archive of $1 cannot be read; using its kernel of $(date -r "$newest" +%F)"
    fi
  fi
  kernel_key=$1-$(key ci/vm/init scripts/lab/build-vm-kernel scripts/lab/apt.sh)-$(sha256sum <"$newest" | cut -c1-12)
  # shellcheck disable=SC2046 # a list of names
  made vm-kernel "$kernel_key" "$build" fetch "$1" $(cat "$newest") || {
    # Perhaps no longer in the archive: resolved again by the next run.
    rm -f "$newest"
    die "the kernel of $1 cannot be fetched; run this again"
  }
  keep vm-kernel "$1-" "$made"
}

# vm_disk SUITE NODE-IMAGE [IMAGE...]: sets `disk` to the directory with the VM's disk, kernel and initramfs. The disk is
# made from NODE-IMAGE; its containerd has IMAGE.
vm_disk() {
  vm_kernel "$1"
  kernel=$made
  shift
  images=$(docker image inspect --format '{{.Id}}' "$@" | sha256sum | cut -c1-12)
  root_key=$images-$(key ci/vm/packages ci/vm/agent.service ci/vm/modules.conf ci/vm/sysctl.conf ci/vm/prepare \
    scripts/lab/build-vm-root scripts/lab/apt.sh)
  disk=$cache/vm-disk/$kernel_key-$root_key-$(key scripts/lab/build-vm-disk)
  [ ! -d "$disk" ] || return 0

  [ -d "$cache/vm-root/$root_key" ] || say "vm: root file system from the node image (first time: half a minute)"
  made vm-root "$root_key" "$root/scripts/lab/build-vm-root" "$@" || die "no root file system for the VM"
  vm_root=$made
  say "vm: disk with kernel $(cat "$kernel/release")"
  made vm-disk "${disk##*/}" "$root/scripts/lab/build-vm-disk" "$vm_root" "$kernel" || die "no disk for the VM"
  keep vm-disk "${kernel_key%%-*}-" "$disk"
  keep vm-root "" "$vm_root"
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
