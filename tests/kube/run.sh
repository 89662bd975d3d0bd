#!/usr/bin/env bash
# `make test-kube`: the tests on a real Kubernetes, every stage with its time. Stops at the first
# that fails.
#   run.sh           those of an API server alone, those of a cluster with a node, then the Gateway API's
#   run.sh api|node|conformance    one part
#   run.sh churn [ARGUMENT…]       a benchmark, in none of these: how changes of pods reach sidecars
# With KUBECONFIG and ANYAM_KUBE_LOAD (see cluster.sh), the last two use that cluster, and need no root.
set -euo pipefail
cd "$(dirname "$0")/../.."

. tests/stage.sh

part=${1:-all}
case $part in
  all | api | node | conformance | churn) ;;
  *) echo "error: run.sh $part: there are the parts api, node, conformance and churn" >&2; exit 1 ;;
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
if [ "$part" = churn ]; then
  stage "optimised programs" cargo build --locked --release -p anyam-control -p anyam-proxy --bins
  stage "the API server" tests/kube/build.sh apiserver kubectl
  stage "build" cargo build --locked --workspace --bin anyam-churn
  # As soon as others build too, it measures them.
  ANYAM_PROGRAMS=${CARGO_TARGET_DIR:-target}/release stage churn "${CARGO_TARGET_DIR:-target}/debug/anyam-churn" "${@:2}"
  exit
fi
stage "build" cargo build --locked --workspace --bins
if runs api; then
  stage "Kubernetes: the API server, Helm" tests/kube/build.sh apiserver kubectl controller-manager gateway-api helm helm3
  stage "cert-manager" tests/kube/build.sh cert-manager
  # Of the whole workspace, whose features then are those of the build before: alone, this crate would
  # have tokio and all that depends on it built anew. The CLI has a test `install`, too.
  stage "tests on an API server" cargo test --locked --workspace --no-fail-fast \
    --test api --test chart --test cli --test control --test install
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
  stage "tests on a cluster" cluster exec cargo test --locked --workspace --no-fail-fast --test node -- --test-threads=4
  # The next part has one without what these tests made.
  cluster down
fi
if runs conformance; then
  stage "the Gateway API's suite" tests/kube/build.sh conformance
  stage "a cluster with a node" cluster up
  stage "conformance to the Gateway API" cluster exec tests/kube/conformance.sh
fi

stage_times
