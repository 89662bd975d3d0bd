#!/usr/bin/env bash
# `make test-kube`: the tests on a real Kubernetes, every stage with its time. Stops at the first
# that fails.
#   run.sh           those of an API server alone, those of a cluster with a node, then the Gateway API's
#   run.sh api|node|conformance    one part
# With KUBECONFIG and ANYAM_KUBE_LOAD (see cluster.sh), the last two use that cluster, and need no root.
set -euo pipefail
cd "$(dirname "$0")/../.."

. tests/stage.sh

part=${1:-all}
case $part in
  all | api | node | conformance) ;;
  *) echo "error: run.sh $part: there are the parts api, node and conformance" >&2; exit 1 ;;
esac
runs() { [ "$part" = all ] || [ "$part" = "$1" ]; }
foreign() { [ -n "${KUBECONFIG:-}" ] && [ -n "${ANYAM_KUBE_LOAD:-}" ]; }
cluster() { ANYAM_KUBE_NAME=test-$$ ANYAM_KUBE_OWNER=$$ tests/kube/cluster.sh "$@"; }

export CARGO_TERM_COLOR=never
if foreign && ! runs api; then
  stage prerequisites tests/prerequisites.sh kube-client
else
  stage prerequisites tests/prerequisites.sh root kube
fi
stage fetch cargo fetch --locked
stage "build" cargo build --locked --workspace --bins
if runs api; then
  stage "Kubernetes: the API server, Helm" tests/kube/build.sh apiserver kubectl controller-manager gateway-api helm helm3
  stage "tests on an API server" cargo test --locked -p anyam-tests-kube --no-fail-fast \
    --lib --test api --test chart --test control --test install
fi
if runs node || runs conformance; then
  foreign || stage "Kubernetes: a node" tests/kube/build.sh apiserver kubectl controller-manager scheduler proxy kubelet \
    coredns metrics-server images system-images
  stage "Helm, the images of tests" tests/kube/build.sh gateway-api helm images
  # The quick builds: what is tested is what they do, not how fast.
  stage images deploy/images/build.sh --registry localhost --binaries target/debug
  trap 'cluster down' EXIT
fi
if runs node; then
  # The same under another name: what the mesh is upgraded to.
  stage "images of an upgrade" deploy/images/build.sh --registry localhost --tag next --binaries target/debug --out target/images/next
  stage "a cluster with a node" cluster up
  # They wait more than they compute.
  stage "tests on a cluster" cluster exec cargo test --locked -p anyam-tests-kube --no-fail-fast --test node -- --test-threads=4
  # The next part has one without what these tests made.
  cluster down
fi
if runs conformance; then
  stage "the Gateway API's suite" tests/kube/build.sh conformance
  stage "a cluster with a node" cluster up
  stage "conformance to the Gateway API" cluster exec tests/kube/conformance.sh
fi

stage_times
