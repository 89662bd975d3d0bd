# shellcheck shell=bash
# Sourced first by the scripts of tests/kube: where things are, versions, messages.

export LC_ALL=C

KUBE_HOME=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
TREE=$(cd "$KUBE_HOME/../.." && pwd)
# shellcheck source=../versions
. "$KUBE_HOME/versions"

# Binaries, images and Go's own caches; what is deleted is built again.
CACHE=${ANYAM_KUBE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/anyam-kube}
# One folder a cluster.
STATE=${ANYAM_KUBE_STATE:-$CACHE/state}
NAME=${ANYAM_KUBE_NAME:-main}

# Debian gives an ordinary user no sbin, nor does sudo with that user's PATH.
export PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"

say() { printf '%s\n' "$*" >&2; }
fail() {
  printf 'error: %s\n' "$*" >&2
  exit 1
}

# The folder of a component that build.sh made; its name has the version.
component() {
  case $1 in
    kube-apiserver | kube-controller-manager | kube-scheduler | kube-proxy | kubelet | kubectl)
      echo "$CACHE/$1/$KUBERNETES" ;;
    coredns) echo "$CACHE/coredns/$COREDNS" ;;
    metrics-server) echo "$CACHE/metrics-server/$METRICS_SERVER" ;;
    helm) echo "$CACHE/helm/$HELM4" ;;
    helm3) echo "$CACHE/helm3/$HELM3" ;;
    gateway-api) echo "$CACHE/gateway-api/$GATEWAY_API" ;;
    # Built again when their source or their builder changes.
    images) echo "$CACHE/images/$(version_of "$KUBE_HOME"/{app,echo}/*.{go,mod} "$KUBE_HOME/echo/go.sum" "$KUBE_HOME/image.py" "$KUBE_HOME/build.sh")" ;;
    system-images) echo "$CACHE/system-images/coredns-$COREDNS-metrics-server-$METRICS_SERVER-$(version_of "$KUBE_HOME/image.py" "$KUBE_HOME/build.sh")" ;;
    conformance) echo "$CACHE/conformance/$GATEWAY_API-$(version_of "$KUBE_HOME"/conformance/*)" ;;
    *) fail "tests/kube: no component is called $1" ;;
  esac
}

# A version for files of ours.
version_of() { cat "$@" | sha256sum | cut -c 1-12; }

# The path of a program that build.sh made; an error where it did not.
binary() {
  local path
  path=$(component "$1")/$1
  [ -x "$path" ] || fail "$1 is not built ($path). Run: tests/kube/build.sh $1"
  echo "$path"
}

# archive COMPONENT/NAME: the path of an image that build.sh made; an error where it did not.
archive() {
  local path
  path=$(component "${1%/*}")/${1#*/}.tar
  [ -f "$path" ] || fail "the images are not built ($path). Run: tests/kube/build.sh ${1%/*}"
  echo "$path"
}

# Kept in one place, because `find` and `rm` are run on it.
check_name() {
  [[ $NAME =~ ^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$ ]] ||
    fail "ANYAM_KUBE_NAME is \"$NAME\": use 1 to 40 of a-z, 0-9 and -, not - at either end"
}
