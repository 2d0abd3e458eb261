# The front door. `make` lists the targets; each does one thing and its exit code tells the truth.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

CARGO ?= cargo
TARGET := $(or $(CARGO_TARGET_DIR),target)
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
IS_ROOT := test "$$(id -u)" -eq 0

# Tools that are missing stop a run as root; without root the run goes on and says itself what it cannot do.
NEED = tests/run/packages.sh $(1) || ! $(IS_ROOT)

.PHONY: help demo test test-long bench generate image lint doc ci

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## the whole story on this machine: disks, a cluster, placement, a wipe, the search after it (root; report in target/demo)
	@$(call NEED,demo)
	@$(CARGO) build --release --locked --bins -p bedplate-cli -p bedplate-agent -p bedplate-provisioner -p bedplate-extender
	@"$(TARGET)/release/bedplate" demo

test: ## every suite: unit, crash matrix, CSI over a socket, loop devices (as root nothing is skipped)
	@tests/run/suites.sh

test-long: ## the same with more rounds, and the drills marked `#[ignore = "long: …"]`
	@tests/run/suites.sh long

bench: ## wipe against dd and shred, probe against fio, CSI latency, claims, the extender at scale (root; report in target/bench)
	@$(call NEED,bench)
	@$(CARGO) build --release --locked -p bedplate-agent -p bedplate-cli -p bedplate-provisioner -p bedplate-extender -p bedplate-tests --bins
	@"$(TARGET)/release/bench"

generate: ## the CRDs under deploy/, from crates/api; the suites fail when they differ
	@$(CARGO) run -q --locked -p bedplate-api --bin bedplate-crds -- deploy/kustomize/base/crds

image: ## an OCI archive that containerd imports, with no engine and no registry (target/image/bedplate.oci.tar)
	@$(call NEED,image)
	@$(CARGO) build --release --locked $(addprefix -p bedplate-,agent cli extender provisioner) --bins
	@deploy/image/build.sh "$(TARGET)/image/bedplate.oci.tar" "$(VERSION)" \
		$(addprefix "$(TARGET)"/release/,bedplate bedplate-agent bedplate-extender bedplate-provisioner)

lint: ## format, clippy with warnings as errors, shell scripts, texts
	@$(CARGO) fmt --all --check
	@$(CARGO) clippy --workspace --all-targets --locked -- -D warnings
	@tests/run/texts.sh

doc: ## API documentation in target/doc, warnings as errors
	@RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps --locked

ci: ## what every change must pass: all of the above but demo and bench
	@.ci/run
