#!/usr/bin/env bash
# Side-by-side benchmarks: builds, makes a network namespace of its own with reno, runs inside it.
#   benches/run.sh [case]…     without a case: all
set -euo pipefail
cd "$(dirname "$0")/.."
cargo build --locked --release -p anyam-proxy -p anyam-benches
space="anyam-bench-$$"
ip netns add "$space"
trap 'ip netns delete "$space"' EXIT
ip -n "$space" link set lo up
ip netns exec "$space" sysctl -qw net.ipv4.tcp_congestion_control=reno
ip netns exec "$space" target/release/anyam-bench \
  --anyam target/release/anyam-proxy --envoy .cache/venv/bin/envoy "$@"
