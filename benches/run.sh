#!/usr/bin/env bash
# Side-by-side benchmarks: builds, makes a network namespace of its own with reno, runs inside it.
#   benches/run.sh [case]… [--rounds N] [--seconds N]     without a case: all
set -euo pipefail
cd "$(dirname "$0")/.."
# The proxy alone: beside another crate it would get that one's features of what both use.
cargo build --locked --release -p anyam-benches
cargo build --locked --release -p anyam-proxy
cc -O2 -Wall -Wextra benches/floor/relay.c -o target/relay
# The wheel's program itself: its script would stand between us and the process.
envoy=$(echo .cache/venv/lib/*/site-packages/envoy/_bin/envoy)
space="anyam-bench-$$"
ip netns add "$space"
trap 'ip netns delete "$space"' EXIT
ip -n "$space" link set lo up
ip netns exec "$space" sysctl -qw net.ipv4.tcp_congestion_control=reno \
  net.core.somaxconn=8192 net.ipv4.tcp_max_syn_backlog=8192 net.ipv4.tcp_tw_reuse=1 \
  net.ipv4.ip_local_port_range="22000 65000"
# A machine may allow fewer: then fewer connections are held.
ulimit -n 65536 2>/dev/null || ulimit -n "$(ulimit -Hn)"
mkdir -p target/bench
ip netns exec "$space" target/release/anyam-bench \
  --anyam target/release/anyam-proxy --envoy "$envoy" --relay target/relay \
  --json target/bench/results.json --table target/bench/results.md \
  --chart target/bench/ratios.svg "$@"
echo
echo "written: target/bench/results.json, results.md and ratios.svg"
