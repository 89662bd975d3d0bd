#!/usr/bin/env bash
# `make images`: target/images/proxy.tar and control.tar, OCI archives made without Docker.
#   build.sh [--arch amd64,arm64] [--binaries FOLDER] [--registry NAME] [--tag TAG] [--out FOLDER]
# Without --binaries the programs are built, optimised, for each architecture. With it, FOLDER has
# those of this machine's architecture, and FOLDER/ARCH (or target/TRIPLE/release) those of others.
set -euo pipefail
cd "$(dirname "$0")/../.."

fail() { printf 'build.sh: %s\n' "$*" >&2; exit 1; }
case "$(uname -m)" in
  x86_64) native=amd64 ;;
  aarch64) native=arm64 ;;
  *) fail "images are made on x86_64 and aarch64, not on $(uname -m)" ;;
esac
archs=$native binaries='' registry=docker.io tag=() out=target/images
while [ $# -gt 0 ]; do
  [ $# -ge 2 ] || fail "$1 needs a value"
  case "$1" in
    --arch) archs=${2//,/ } ;;
    --binaries) binaries=$2 ;;
    --registry) registry=$2 ;;
    --tag) tag=(--tag "$2") ;;
    --out) out=$2 ;;
    *) fail "unknown option $1" ;;
  esac
  shift 2
done

declare -A triple=([amd64]=x86_64-unknown-linux-gnu [arm64]=aarch64-unknown-linux-gnu)
declare -A prefix=([amd64]=x86_64-linux-gnu [arm64]=aarch64-linux-gnu)

# The proxy alone: beside the control plane it would get that one's features of what both use.
optimised() {
  cargo build --locked --release -p anyam-proxy "$@"
  cargo build --locked --release -p anyam-control "$@"
}

# Compiles for an architecture that is not this machine's; an error names what is missing.
cross() {
  local arch=$1 t=${triple[$1]} p=${prefix[$1]} upper
  command -v "$p-gcc" >/dev/null ||
    fail "no $p-gcc to compile for $arch: install gcc-${p//_/-} and libc6-dev-$arch-cross, or give programs made elsewhere with --binaries"
  rustup target list --installed | grep -qx "$t" || rustup target add "$t"
  upper=${t//-/_}
  (
    export "CARGO_TARGET_${upper^^}_LINKER=$p-gcc" "CC_$upper=$p-gcc" "CXX_$upper=$p-g++" "AR_$upper=$p-ar"
    optimised --target "$t"
  )
}

for arch in $archs; do
  [ -n "${triple[$arch]:-}" ] || fail "unknown architecture $arch: amd64 or arm64"
done
declare -A from
for arch in $archs; do
  if [ -n "$binaries" ]; then
    from[$arch]=$binaries
    [ "$arch" = "$native" ] || from[$arch]=$binaries/$arch
  elif [ "$arch" = "$native" ]; then
    optimised
    from[$arch]=target/release
  else
    cross "$arch"
    from[$arch]=target/${triple[$arch]}/release
  fi
done
for image in proxy control; do
  options=()
  for arch in $archs; do options+=(--binary "$arch=${from[$arch]}/anyam-$image"); done
  python3 deploy/images/images.py archive "$image" "$out/$image.tar" --registry "$registry" "${tag[@]}" "${options[@]}"
done
