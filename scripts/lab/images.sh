# shellcheck shell=sh
# The lab's two images, the node's and the mesh's: pulled where a registry answers, built where none does.
# Sourced.
#
# Input:  lib.sh's variables, LAB_IMAGES among them.
# Output: functions choose_node_image, choose_mesh_image, stand_in, ours; the first two set
#   node_image    what kind starts                   node_config   the kind configuration that goes with it
#   mesh_image    what the chart's pods run; the nodes pull it unless it is ours
#   mesh_because  why it is ours
# Whatever is built is named after a hash of its recipe, under a temporary name until it is complete.
# shellcheck disable=SC2034 # variables set for, and by, the other sourced files

# shellcheck source=host.sh
command -v docker_up >/dev/null || . "${root:?}/scripts/lab/host.sh"

# What the node's image is made from, if it is built here.
node_image_recipe='ci/node-image scripts/lab/build-debian-root scripts/lab/build-containerd scripts/lab/build-kubernetes scripts/lab/build-node-image'

# made NAME KEY COMMAND...: makes directory $cache/NAME/KEY with `COMMAND... DIRECTORY`, unless it is there.
made() {
  made=$cache/$1/$2
  [ ! -d "$made" ] || return 0
  name=$1-$2
  shift 2
  # An interrupted build ends, and leaves what the next run removes.
  # shellcheck disable=SC2016 # expanded by the inner shell
  logged "$name" sh -euc 'made=$1; shift; rm -rf "$made.part"; mkdir -p "$made.part"; "$@" "$made.part"; mv "$made.part" "$made"' \
    sh "$made" "$@"
}

# debian_root PACKAGES: makes the archive $made/root.tar with these packages.
debian_root() {
  need_tools mmdebstrap:mmdebstrap /usr/share/keyrings/debian-archive-keyring.gpg:debian-archive-keyring
  # Where this host gets Debian from, its own mirror maybe, is known only once it has been asked.
  if command -v apt-get >/dev/null && [ "$(id -u)" -eq 0 ] && [ -z "$(apt-get indextargets 'Origin: Debian')" ]; then
    logged apt apt-get update || say "host: apt-get update failed; going on with what apt knows"
  fi
  made debian "$(key "$1" scripts/lab/build-debian-root)" "$root/scripts/lab/build-debian-root" "$root/$1"
}

# ours IMAGE: whether it was built here.
ours() {
  case $1 in "$local_hub"/*) ;; *) false ;; esac
}

# module FOLDER MODULE: "VERSION DIRECTORY" of a module as FOLDER's go.mod pins it, downloaded if need be.
module() {
  go -C "$root/$1" mod download -json "$2" | jq -r '"\(.Version) \(.Dir)"'
}

# last_words: the cause at the end of Docker's long chains of errors.
last_words() {
  tail -n 1 | sed 's/.*: //'
}

# pull IMAGE: whether Docker has it or could pull it. A registry that has not begun to answer after 20 seconds is taken
# for unreachable; once it has, the pull may take its time.
pull() {
  docker image inspect "$1" >/dev/null 2>&1 && return
  mkdir -p "$logs"
  docker pull "$1" >"$logs/pull.log" 2>&1 </dev/null &
  puller=$!
  patience=20
  while kill -0 "$puller" 2>/dev/null; do
    if [ "$patience" -eq 0 ] && ! grep -q 'Pulling fs layer' "$logs/pull.log"; then
      kill "$puller"
      echo "no answer within 20 seconds" >>"$logs/pull.log"
    fi
    patience=$((patience - 1))
    sleep 1
  done
  wait "$puller"
}

# choose_node_image: kind's own image where it can be pulled and run, ours else.
choose_node_image() {
  # The image that this version of kind was released with.
  source=$(module . sigs.k8s.io/kind)
  upstream=$(sed -n 's/^const Image = "\(.*\)"/\1/p' "${source#* }/pkg/apis/config/defaults/image.go")
  [ -n "$upstream" ] || die "kind's default image is no longer where this script looks: pkg/apis/config/defaults/image.go"
  case $LAB_IMAGES-$(docker info --format '{{.CgroupVersion}}') in
    build-*) reason="LAB_IMAGES=build" ;;
    auto-1) reason="this host has cgroup v1, which systemd in ${upstream%%@*} refuses" ;;
    *)
      say "node image: asking for ${upstream%%@*}"
      if pull "$upstream"; then
        node_image=$upstream
        node_config=ci/kind.yaml
        say "node image: ${upstream%%@*}"
        return
      fi
      reason=$(last_words <"$logs/pull.log")
      [ "$LAB_IMAGES" = auto ] || die "LAB_IMAGES=pull, but $upstream cannot be pulled ($reason)"
      ;;
  esac

  # shellcheck disable=SC2086 # a list
  node_image=$local_hub/node:$(key $node_image_recipe)
  node_config=ci/kind-from-source.yaml
  say "node image: built from source ($reason)"
  docker image inspect "$node_image" >/dev/null 2>&1 || build_node_image
}

build_node_image() {
  say "node image: 1/4 Debian root (first time: about a minute and a half)"
  debian_root ci/node-image/packages || die "no Debian root for the node image; is Debian's archive reachable?"
  debian=$made/root.tar
  say "node image: 2/4 containerd from source (first time: a minute or two on two cores)"
  made containerd "$(key ci/node-image/containerd scripts/lab/build-containerd)" "$root/scripts/lab/build-containerd" ||
    die "containerd does not build; is Go's module proxy reachable (go env GOPROXY)?"
  containerd=$made
  say "node image: 3/4 Kubernetes from source (first time: 7 to 18 minutes on two cores)"
  made kubernetes "$(key ci/node-image/kubernetes scripts/lab/build-kubernetes)" "$root/scripts/lab/build-kubernetes" ci/node-image/kubernetes ||
    die "Kubernetes does not build; is Go's module proxy reachable (go env GOPROXY)?"
  say "node image: 4/4 $node_image (about a minute)"
  logged node-image "$root/scripts/lab/build-node-image" "$node_image" "$debian" "$containerd" "$made" "$local_hub" ||
    die "the node image could not be assembled"
}

# choose_mesh_image: the chart's own image where the registry has it, the stand-in else.
choose_mesh_image() {
  case $LAB_IMAGES in
    build)
      reason="LAB_IMAGES=build"
      mesh_because="no registry was asked (LAB_IMAGES=build)"
      ;;
    *)
      mesh_because="the registry could not be reached"
      mesh_image=$("$("$root/scripts/tool" helm)" template "$root/charts/istio-os-init" |
        sed -n 's/^ *image: *"\{0,1\}\([^"]*\)"\{0,1\}$/\1/p' | head -n 1)
      [ -n "$mesh_image" ] || die "the chart in charts/istio-os-init renders no image"
      say "mesh image: asking for $mesh_image"
      # Only asked for: the nodes pull it themselves, as on a real cluster.
      if answer=$(timeout 20 docker manifest inspect "$mesh_image" 2>&1); then
        say "mesh image: $mesh_image"
        return
      fi
      reason=$(printf '%s\n' "${answer:-no answer within 20 seconds}" | last_words)
      [ "$LAB_IMAGES" = auto ] || die "LAB_IMAGES=pull, but $mesh_image cannot be pulled ($reason)"
      ;;
  esac

  say "mesh image: stand-in for proxyv2, built from Istio's own pilot-agent ($reason)"
  stand_in
}

# stand_in: the stand-in for proxyv2 as its recipe is now, built if need be; sets mesh_image, and stand_in to a second
# name that tells which build it is.
stand_in() {
  stand_in=$local_hub/proxyv2-stand-in:$(key ci/proxyv2-stand-in scripts/lab/build-debian-root scripts/lab/build-stand-in)
  # Istio's version at the commit that the recipe pins, as Istio's development builds are called.
  source=$(module ci/proxyv2-stand-in istio.io/istio)
  commit=${source%% *}
  mesh_image=$local_hub/proxyv2-stand-in:$(cat "${source#* }/VERSION")-alpha.${commit##*-}

  if ! docker image inspect "$stand_in" >/dev/null 2>&1; then
    say "mesh image: 1/2 Debian root (first time: about half a minute)"
    debian_root ci/proxyv2-stand-in/packages || die "no Debian root for the stand-in; is Debian's archive reachable?"
    say "mesh image: 2/2 $stand_in (first time: minutes, for Istio's pilot-agent)"
    logged stand-in "$root/scripts/lab/build-stand-in" "$stand_in" "$made/root.tar" ||
      die "the stand-in could not be built; is Go's module proxy reachable (go env GOPROXY)?"
  fi
  docker tag "$stand_in" "$mesh_image"
}
