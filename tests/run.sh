#!/usr/bin/env bash
# `make test`: every stage in order, each with its time. Stops at the first that fails.
set -euo pipefail
cd "$(dirname "$0")/.."

. tests/stage.sh

export CARGO_TERM_COLOR=never
stage prerequisites tests/prerequisites.sh root test
export PATH="$PWD/.cache/venv/bin:$PATH"
ANYAM_ENVOY=$(command -v envoy) || { echo "error: the Envoy wheel brought no envoy" >&2; exit 1; }
export ANYAM_ENVOY

stage fetch cargo fetch --locked
stage fmt cargo fmt --all --check
stage "deny (bans, licenses, sources)" cargo deny --locked --log-level error check --hide-inclusion-graph bans licenses sources
stage clippy cargo clippy --locked --workspace --all-targets -- -D warnings
stage docs env RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --no-deps --quiet
stage "build" cargo build --locked --workspace --bins
# The program that users run: its costs are counted.
stage "build, optimised" cargo build --locked --release -p anyam-proxy
# The optimised sidecar and the quick build of the control plane: images are made in the same way
# from either.
stage "images" tests/images.py target/release/anyam-proxy target/debug/anyam-control
stage "Go peers" tests/peers/build.sh
# Tests on a real Kubernetes need one that is built: see CONTRIBUTING.md.
stage "unit, property and whole-mesh tests" cargo test --locked --workspace --exclude anyam-tests-kube --no-fail-fast
stage "demo, 30 s" target/debug/anyam demo --for 30s --dashboard 127.0.0.1:0

stage_times
