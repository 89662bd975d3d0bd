#!/usr/bin/env bash
# `make test-kube`: the tests on a real API server, every stage with its time. Stops at the first that
# fails.
set -euo pipefail
cd "$(dirname "$0")/../.."

. tests/stage.sh

export CARGO_TERM_COLOR=never
stage prerequisites tests/prerequisites.sh kube
stage "build" cargo build --locked --workspace --bins
stage "Kubernetes" tests/kube/build.sh apiserver kubectl
stage "tests on an API server" cargo test --locked -p anyam-tests-kube --no-fail-fast

stage_times
