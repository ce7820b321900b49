# shellcheck shell=sh
# What the lab's VM is made of: a distribution's kernel, and a disk. Sourced after lib.sh and images.sh.
#
# Input:  their variables. Output: function vm_disk.
# Every artefact is named after a hash of its recipe. Older ones are removed when a newer one is there: a gigabyte each.
# shellcheck disable=SC2034,SC2154 # variables set for, and by, the other sourced files

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
  root_key=$(docker image inspect --format '{{.Id}}' "$@" | sha256sum | cut -c1-12)-$(key ci/vm/packages ci/vm/prepare \
    ci/vm/agent.service ci/vm/modules.conf ci/vm/sysctl.conf scripts/lab/build-vm-root scripts/lab/apt.sh)
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
