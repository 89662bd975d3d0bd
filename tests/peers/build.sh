#!/usr/bin/env bash
# Builds the Go peer into .cache/peer, with the toolchain of the private Python environment. What it
# downloads and compiles is kept in .cache too, so that a second run needs no network and no time.
set -euo pipefail
cd "$(dirname "$0")/../.."
cache=$PWD/.cache
go=$cache/venv/bin/go
[ -x "$go" ] || { echo "error: no Go toolchain in .cache/venv; run tests/prerequisites.sh root test" >&2; exit 1; }
export GOTOOLCHAIN=local GOCACHE=$cache/go-build GOMODCACHE=$cache/go-mod GOFLAGS=-mod=readonly CGO_ENABLED=0
cd tests/peers/go
"$go" vet .
"$go" build -trimpath -o "$cache/peer" .
