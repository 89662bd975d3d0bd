// Package conformance is the Gateway API's own suite as a test of ours, so that `go test -c` makes a
// program of it. Its flags are the suite's; tests/kube/conformance.sh runs it.
package conformance

import (
	"testing"

	"sigs.k8s.io/gateway-api/conformance"
)

func TestMesh(t *testing.T) {
	conformance.RunConformance(t)
}
