#!/usr/bin/env bash
# `make test-kube`: the tests on a real Kubernetes, every stage with its time. Stops at the first
# that fails.
#   run.sh           those of an API server alone, then those of a cluster with a node
#   run.sh api|node  one part
set -euo pipefail
cd "$(dirname "$0")/../.."

. tests/stage.sh

part=${1:-all}
case $part in
  all | api | node) ;;
  *) echo "error: run.sh $part: there are the parts api and node" >&2; exit 1 ;;
esac
cluster() { ANYAM_KUBE_NAME=test-$$ ANYAM_KUBE_OWNER=$$ tests/kube/cluster.sh "$@"; }

export CARGO_TERM_COLOR=never
stage prerequisites tests/prerequisites.sh root kube
stage "build" cargo build --locked --workspace --bins
if [ $part != node ]; then
  stage "Kubernetes: the API server, Helm" tests/kube/build.sh apiserver kubectl controller-manager gateway-api helm helm3
  stage "tests on an API server" cargo test --locked -p anyam-tests-kube --no-fail-fast \
    --lib --test api --test chart --test control --test install
fi
if [ $part != api ]; then
  stage "Kubernetes: a node" tests/kube/build.sh
  # The quick builds: what is tested is what they do, not how fast.
  stage images deploy/images/build.sh --registry localhost --binaries target/debug
  trap 'cluster down' EXIT
  stage "a cluster with a node" cluster up
  stage "tests on a cluster" cluster exec cargo test --locked -p anyam-tests-kube --no-fail-fast --test node
fi

stage_times
