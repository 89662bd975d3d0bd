#!/usr/bin/env bash
# The Gateway API's own conformance tests for meshes, on a cluster whose namespaces have no mesh yet:
# installs the CRDs and the chart, and runs them. Called by `cluster.sh exec`, or with KUBECONFIG and
# ANYAM_KUBE_LOAD of a cluster of yours.
#   conformance.sh [--report FILE] [--echo ours|original] [-- FLAG…]
#
#   --report    where the suite's report is written; default target/conformance/report.yaml
#   --echo      the image of the suite's pods: `ours` (tests/kube/echo) is loaded under the original's
#               name, `original` is left to the cluster to pull. Default ours
#   FLAG        of the suite, such as --run-test=MeshPorts or --debug
#
# Images of the mesh are those of `deploy/images/build.sh --registry localhost`. Fails where a test fails
# or a mesh test did not run; target/conformance/log has all that the suite prints.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib/settings.sh"
cd "$TREE"

# All that the suite has for meshes: both profiles' core, each extended feature, and those of HTTPRoute
# without which it leaves tests of the mesh out.
FEATURES=(
  Mesh HTTPRoute GRPCRoute
  MeshClusterIPMatching MeshConsumerRoute MeshHTTPRouteRewritePath MeshHTTPRouteSchemeRedirect
  MeshHTTPRouteRedirectPort MeshHTTPRouteRedirectPath MeshHTTPRouteBackendRequestHeaderModification
  MeshHTTPRouteQueryParamMatching MeshHTTPRouteNamedRouteRule
  HTTPRouteResponseHeaderModification HTTPRouteParentRefPort
  HTTPRoute303RedirectStatusCode HTTPRoute307RedirectStatusCode HTTPRoute308RedirectStatusCode
)

folder=$TREE/target/conformance
report=$folder/report.yaml echo_image=ours
while [ $# -gt 0 ]; do
  case $1 in
    --report) report=$(realpath -m "${2:?--report needs a file}"); shift 2 ;;
    --echo) echo_image=${2:-}; shift 2 ;;
    --) shift; break ;;
    *) fail "conformance.sh: unknown option $1" ;;
  esac
done
[[ $echo_image =~ ^(ours|original)$ ]] || fail "--echo $echo_image: ours or original"
[ -n "${KUBECONFIG:-}" ] && [ -n "${ANYAM_KUBE_LOAD:-}" ] ||
  fail "KUBECONFIG and ANYAM_KUBE_LOAD name no cluster. Run: tests/kube/cluster.sh up && tests/kube/cluster.sh exec $0"
load() { sh -c "$ANYAM_KUBE_LOAD"' "$1"' load "$1" || fail "$1 could not be loaded by: $ANYAM_KUBE_LOAD"; }

suite=$(binary conformance)
helm=$(binary helm)
mkdir -p "$folder" "$(dirname "$report")"

for image in proxy control; do load "target/images/$image.tar"; done
[ "$echo_image" = original ] || load "$(component images)/echo.tar"
# The standard channel has all that the features above take.
tests/kube/cluster.sh gateway-api standard >/dev/null
"$helm" upgrade --install anyam deploy/helm/anyam --namespace anyam-system --create-namespace \
  --set image.registry=localhost --wait --timeout 120s >/dev/null

flags=(
  # Little at a time: sidecars, suite and cluster share what may be two processors.
  -test.v -test.parallel=2 -test.timeout=30m -test.run='^TestMesh$'
  --conformance-profiles=MESH-HTTP,MESH-GRPC --supported-features="$(IFS=,; echo "${FEATURES[*]}")"
  --mesh-name=anyam --namespace-labels=mesh.anyam.dev/inject=enabled
  --report-output="$report"
  --organization=anyam-mesh --project=anyam --url=https://github.com/anyam-mesh/anyam
  --contact=https://github.com/anyam-mesh/anyam/issues/new --version="$(git describe --tags --always --dirty)"
)
status=0
(cd "$(dirname "$suite")" && "$suite" "${flags[@]}" "$@") >"$folder/log" 2>&1 || status=$?

# --- PASS: TestMesh/MeshPorts (1.70s), of the tests and not of their parts
results=$(sed -n 's#^ *--- \([A-Z]*\): TestMesh/\(Mesh[^/ ]*\) (\(.*\))$#\1 \2 \3#p' "$folder/log")
while read -r result name time; do printf '%-5s %-45s %8s\n' "$result" "$name" "$time"; done <<<"$results"
passed=$(grep -c '^PASS' <<<"$results" || true)
say "$passed of $(wc -l <<<"$results") mesh tests passed; report $report, log $folder/log"
[ ! -f "$report" ] || chmod 644 "$report"
if [ $status != 0 ]; then
  [ -n "$results" ] || tail -n 30 "$folder/log" >&2
  fail "the suite failed"
fi
case " $* " in
  *" --run-test"* | *" --skip-tests"*) ;;
  *) ! grep -v '^PASS' <<<"$results" >/dev/null || fail "mesh tests were left out" ;;
esac
