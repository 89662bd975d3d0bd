#!/usr/bin/env bash
# Builds what a cluster of the tests runs, from Go modules, into a cache outside of the tree, and
# prints the time of each step.
#   build.sh [COMPONENT…]     all without; what the cache has in that version is not built again
#   build.sh --where COMPONENT    the folder that has it, built or not
#
#   apiserver controller-manager scheduler proxy kubelet kubectl   Kubernetes
#   coredns metrics-server   what a cluster of ours has in its kube-system
#   helm helm3               Helm 4 and 3
#   gateway-api              the CRDs, as YAML: folders standard and experimental
#   images                   OCI archives: pause, app (the program of the tests' pods), echo (the suite's)
#   system-images            OCI archives: coredns, metrics-server
#   conformance              the Gateway API's suite, a program
#
#   ANYAM_KUBE_CACHE   default $XDG_CACHE_HOME/anyam-kube, ~/.cache/anyam-kube. Its folder `go` (some
#                      8 GB of sources and objects) only makes the next build quicker.
# Versions are in the file `versions`. The Go toolchain is that of .cache/venv.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib/settings.sh"

ALL=(apiserver kubectl controller-manager scheduler proxy kubelet coredns metrics-server helm helm3 gateway-api images
  system-images conformance)

if [ "${1:-}" = --where ]; then
  component "${2:-}"
  exit
fi

go=$TREE/.cache/venv/bin/go
[ -x "$go" ] || fail "no Go toolchain in $TREE/.cache/venv. Run: tests/prerequisites.sh kube"
mkdir -p "$CACHE/go"
export GOTOOLCHAIN=local GOMODCACHE=$CACHE/go/mod GOCACHE=$CACHE/go/build CGO_ENABLED=0 GOWORK=off
# -modcacherw: so that the folder can be deleted like any other.
export GOFLAGS="-mod=mod -modcacherw -trimpath"

exec {lock}>"$CACHE/build.lock"
flock -n "$lock" || { say "waiting for another build.sh"; flock "$lock"; }

# download MODULE VERSION FIELD: a path in the module cache, GoMod or Dir
download() {
  local answer
  answer=$("$go" mod download -json "$1@v$2") || fail "the Go module $1 v$2 could not be had: $answer"
  sed -n 's/^\t"'"$3"'": "\(.*\)",\{0,1\}$/\1/p' <<<"$answer"
}

# requirer MODULE VERSION: enters the folder of a small module that requires this one, so that the
# module's own `replace` lines do not apply, and keeps what was resolved.
requirer() {
  local folder=$CACHE/go/requirer/${1//\//-}-$2 source
  if [ ! -f "$folder/go.mod" ]; then
    mkdir -p "$folder"
    source=$(download "$1" "$2" GoMod)
    {
      echo "module anyam.dev/tests/kube/build"
      # The language version decides on defaults of the runtime (GODEBUG): the module's own.
      grep '^go ' "$source"
      echo "require $1 v$2"
      # Kubernetes replaces its parts by folders that no module has; they are published by the same minor version.
      sed -n 's#^[[:space:]]*\(k8s\.io/[^ ]*\) => \./staging.*#replace \1 => \1 v0.'"${2#*.}"'#p' "$source"
    } >"$folder/go.mod.new"
    mv "$folder/go.mod.new" "$folder/go.mod"
  fi
  cd "$folder"
}

# program NAME MODULE VERSION PACKAGE [LDFLAGS]
program() {
  local folder
  folder=$(component "$1")
  mkdir -p "$folder"
  requirer "$2" "$3"
  # A download is a line each, some hundreds.
  "$go" build -ldflags "-s -w ${5:-}" -o "$folder/$1.new" "$4" 2>"$folder/$1.log" || {
    cat "$folder/$1.log" >&2
    fail "$1 could not be built from $2 v$3"
  }
  rm "$folder/$1.log"
  mv "$folder/$1.new" "$folder/$1"
}

kubernetes() {
  local minor=${KUBERNETES#*.} v=k8s.io/component-base/version
  program "$1" k8s.io/kubernetes "$KUBERNETES" "k8s.io/kubernetes/cmd/$1" \
    "-X $v.gitVersion=v$KUBERNETES -X $v.gitMajor=${KUBERNETES%%.*} -X $v.gitMinor=${minor%%.*} -X $v.gitTreeState=clean"
}

gateway_api() {
  local folder source channel
  folder=$(component gateway-api)
  source=$(download sigs.k8s.io/gateway-api "$GATEWAY_API" Dir)
  rm -rf "$folder.new"
  for channel in standard experimental; do
    mkdir -p "$folder.new/$channel"
    # Not the policy that forbids to install another version over this one: tests do.
    find "$source/config/crd/$channel" -name '*.yaml' ! -name '*_vap_*' ! -name kustomization.yaml \
      -exec cp --no-preserve=mode {} "$folder.new/$channel" \;
  done
  mv "$folder.new" "$folder"
}

images() {
  local folder work
  folder=$(component images)
  mkdir -p "$(dirname "$folder")"
  work=$(mktemp -d "$CACHE/images.XXXXXX")
  ours app "$work/app" build
  ours echo "$work/echo" build
  # The suite believes what its client prints.
  (cd "$KUBE_HOME/echo" && "$go" test -mod=readonly .)
  local image=("$KUBE_HOME/image.py" --output)
  "${image[@]}" "$work/pause.tar" --name localhost/anyam-test/pause:1 --entrypoint /app,pause --user 65532 "$work/app=/app"
  "${image[@]}" "$work/app.tar" --name localhost/anyam-test/app:1 --entrypoint /app --user 65532 "$work/app=/app" \
    --with-libraries "$(command -v nft || fail "nft is missing. Run: tests/prerequisites.sh kube")=/usr/sbin/nft"
  # Under the name that the suite's manifests give.
  "${image[@]}" "$work/echo.tar" --name registry.k8s.io/gateway-api/conformance/echo-advanced:v0.1.0 \
    --entrypoint /usr/bin/server --user 65532 "$work/echo=/usr/bin/server" link:server=/usr/bin/client
  rm -rf "$folder"
  mv "$work" "$folder"
}

system_images() {
  local folder work name
  folder=$(component system-images)
  mkdir -p "$(dirname "$folder")"
  work=$(mktemp -d "$CACHE/system-images.XXXXXX")
  for name in coredns:"$COREDNS" metrics-server:"$METRICS_SERVER"; do
    "$KUBE_HOME/image.py" --output "$work/${name%:*}.tar" --name "localhost/anyam-test/$name" --entrypoint "/${name%:*}" --user 65532 \
      "$(binary "${name%:*}")=/${name%:*}"
  done
  rm -rf "$folder"
  mv "$work" "$folder"
}

# ours MODULE OUTPUT COMMAND…: checks and builds a Go module of this tree, with what its go.sum has.
ours() {
  (cd "$KUBE_HOME/$1" && "$go" vet -mod=readonly . && "$go" "${@:3}" -mod=readonly -ldflags "-s -w" -o "$2" .)
}

conformance() {
  local folder
  folder=$(component conformance)
  grep -qF "sigs.k8s.io/gateway-api/conformance v$GATEWAY_API" "$KUBE_HOME/conformance/go.mod" ||
    fail "tests/kube/conformance/go.mod requires another version of the Gateway API than tests/kube/versions ($GATEWAY_API); the suite accepts its own CRDs only"
  mkdir -p "$folder"
  ours conformance "$folder/conformance.new" test -c
  mv "$folder/conformance.new" "$folder/conformance"
}

# The version that `helm template` shows to charts, which would else be one of years ago. Helm 4 takes
# it from its client library.
helm3_capabilities() {
  local of minor=${KUBERNETES#*.}
  for of in pkg/lint/rules pkg/chartutil; do
    printf -- '-X helm.sh/helm/v3/%s.k8sVersionMajor=1 -X helm.sh/helm/v3/%s.k8sVersionMinor=%s ' "$of" "$of" "${minor%%.*}"
  done
}

# Of the component in the cache, what is there last.
is_built() {
  case $1 in
    images) [ -f "$(component images)/app.tar" ] ;;
    system-images) [ -f "$(component system-images)/coredns.tar" ] ;;
    gateway-api) [ -d "$(component gateway-api)/standard" ] ;;
    *) [ -x "$(component "$1")/$1" ] ;;
  esac
}

build() {
  case $1 in
    kube*) kubernetes "$1" ;;
    coredns) program coredns github.com/coredns/coredns "$COREDNS" github.com/coredns/coredns ;;
    metrics-server) program metrics-server sigs.k8s.io/metrics-server "$METRICS_SERVER" sigs.k8s.io/metrics-server/cmd/metrics-server ;;
    helm) program helm helm.sh/helm/v4 "$HELM4" helm.sh/helm/v4/cmd/helm "-X helm.sh/helm/v4/internal/version.version=v$HELM4 -X helm.sh/helm/v4/internal/version.gitTreeState=clean" ;;
    helm3) program helm3 helm.sh/helm/v3 "$HELM3" helm.sh/helm/v3/cmd/helm "-X helm.sh/helm/v3/internal/version.version=v$HELM3 -X helm.sh/helm/v3/internal/version.gitTreeState=clean $(helm3_capabilities)" ;;
    gateway-api) gateway_api ;;
    images) images ;;
    system-images) system_images ;;
    conformance) conformance ;;
  esac
}

[ $# -gt 0 ] || set -- "${ALL[@]}"
for asked in "$@"; do
  case ${asked#kube-} in
    apiserver | controller-manager | scheduler | proxy) name=kube-${asked#kube-} ;;
    let | kubelet) name=kubelet ;;
    *) name=$asked ;;
  esac
  component "$name" >/dev/null
  is_built "$name" && continue
  began=$SECONDS
  say "building $name, into $(component "$name")"
  (build "$name")
  say "$(printf '%5ds  %s' $((SECONDS - began)) "$name")"
done
