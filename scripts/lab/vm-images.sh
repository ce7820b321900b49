# shellcheck shell=sh
# What the lab's VM is made of: a distribution's kernel, and a disk. Sourced.
#
# Input:  their variables. Output: function vm_disk.
# Every artefact is named after a hash of its recipe. Older ones are removed when a newer one is there: a gigabyte each.
# shellcheck disable=SC2034,SC2153 # variables set for, and by, the other sourced files

# shellcheck source=images.sh
command -v choose_node_image >/dev/null || . "${root:?}/scripts/lab/images.sh"

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

# vm_disk NODE-IMAGE [IMAGE...]: sets `disk` to the directory with the VM's disk, kernel and initramfs, for $KERNEL, $RUNTIME and $SELINUX.
# The disk is made from NODE-IMAGE; its runtime has IMAGE.
vm_disk() {
  vm_kernel "$KERNEL"
  kernel=$made
  crio=- policy=-
  [ "$RUNTIME" = containerd ] || vm_crio
  [ "$SELINUX" = off ] || vm_policy
  variant=$RUNTIME-$SELINUX
  root_key=$variant-$({
    docker image inspect --format '{{.Id}}' "$@"
    echo "${crio##*/} ${policy##*/}"
  } | sha256sum | cut -c1-12)-$(key ci/vm/agent.service ci/vm/crio ci/vm/kubelet.conf ci/vm/modules.conf ci/vm/packages ci/vm/prepare \
    ci/vm/selinux ci/vm/sysctl.conf scripts/lab/build-vm-root scripts/lab/apt.sh)
  disk=$cache/vm-disk/$KERNEL-$root_key-${kernel_key#*-}-$(key scripts/lab/build-vm-disk)
  [ ! -d "$disk" ] || return 0

  [ -d "$cache/vm-root/$root_key" ] || say "vm: root file system with $RUNTIME, SELinux $SELINUX, from the node image (first time: a minute)"
  made vm-root "$root_key" "$root/scripts/lab/build-vm-root" "$crio" "$policy" "$@" || die "no root file system for the VM"
  vm_root=$made
  say "vm: disk with kernel $(cat "$kernel/release")"
  made vm-disk "${disk##*/}" "$root/scripts/lab/build-vm-disk" "$vm_root" "$kernel" || die "no disk for the VM"
  keep vm-disk "$KERNEL-$variant-" "$disk"
  keep vm-root "$variant-" "$vm_root"
}

# vm_crio: sets `crio` to the directory with CRI-O.
vm_crio() {
  need_tools gcc:gcc /usr/include/stdio.h:libc6-dev /usr/include/seccomp.h:libseccomp-dev
  crio=$cache/crio/$(key ci/vm/crio/source scripts/lab/build-crio)
  [ -d "$crio" ] || say "vm: CRI-O from source (first time: 6 to 17 minutes on two cores)"
  made crio "${crio##*/}" "$root/scripts/lab/build-crio" || die "CRI-O does not build; is Go's module proxy reachable (go env GOPROXY)?"
  keep crio "" "$crio"
}

# vm_policy: sets `policy` to the directory with the VM's SELinux policy.
vm_policy() {
  need_tools mmdebstrap:mmdebstrap /usr/share/keyrings/debian-archive-keyring.gpg:debian-archive-keyring
  policy=$cache/vm-policy/$(key ci/vm/selinux/policy.cil scripts/lab/build-vm-policy scripts/lab/apt.sh)
  [ -d "$policy" ] || say "vm: SELinux policy (first time: two minutes)"
  made vm-policy "${policy##*/}" "$root/scripts/lab/build-vm-policy" || die "no SELinux policy; is Debian's archive reachable?"
  keep vm-policy "" "$policy"
}
