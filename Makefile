# Anyam. `make demo` shows a mesh at work, `make test` proves it; both install what they lack.
# Kept small: what takes more than a line is a script in tests/ or benches/.

SHELL := /bin/bash
CARGO ?= cargo
FOR ?=
MINUTES ?= 5

# Debian gives an ordinary user no sbin, nor does sudo or su with that user's PATH; nft and what
# dpkg runs live there.
export PATH := $(PATH):/usr/local/sbin:/usr/sbin:/sbin

.PHONY: help demo test test-kube fuzz bench build release images fmt prerequisites

help:
	@echo "make demo   build, then run the demo mesh until Ctrl-C (FOR=30s ends it by itself); needs root"
	@echo "make test   what CI runs: fmt, clippy, docs, deny, unit, property and whole-mesh tests; needs root"
	@echo "make test-kube  the same on Kubernetes, which is built from Go modules and kept in"
	@echo "            ~/.cache/anyam-kube: API server, Helm chart, a node with real pods; needs root"
	@echo "make fuzz   mutated input: a proxy with everything on, from both sides; each parser, CSRs and"
	@echo "            manifests (MINUTES=5 for each of the three)"
	@echo "make bench  side-by-side benchmarks (CASE=\"l4 http1 mtls\"…, all without); needs root"
	@echo "make build  the three programs, quick profile; make release: optimised"
	@echo "make images OCI archives of proxy and control plane in target/images, without Docker (ARCH=amd64,arm64)"

prerequisites:
	@tests/prerequisites.sh

build:
	$(CARGO) fetch --locked
	$(CARGO) build --locked --bins

release:
	$(CARGO) fetch --locked
	# The proxy alone: beside the others it would get their features of what both use, and tracing's
	# `log` costs it 6 % of its instructions.
	$(CARGO) build --locked --release -p anyam-proxy
	$(CARGO) build --locked --release -p anyam-control -p anyam

images:
	@deploy/images/build.sh $(if $(ARCH),--arch $(ARCH))

demo:
	@tests/prerequisites.sh root demo
	$(CARGO) build --locked --bins
	target/debug/anyam demo $(if $(FOR),--for $(FOR))

test:
	@tests/run.sh

test-kube:
	@tests/kube/run.sh

fuzz:
	ANYAM_FUZZ_MINUTES=$(MINUTES) $(CARGO) test --locked --workspace --no-fail-fast \
	  --test fuzz --test csr_fuzz --test emitted -- --nocapture --test-threads 16

bench:
	@tests/prerequisites.sh root bench
	@benches/run.sh $(CASE)

fmt:
	$(CARGO) fmt --all
