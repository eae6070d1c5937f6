# `make` lists what there is.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# rustup's folder, for shells that did not read its profile yet.
export PATH := $(HOME)/.cargo/bin:$(PATH):/usr/sbin

TARGET := $(or $(CARGO_TARGET_DIR),target)

# The development profile has no LTO: a first build takes minutes less, and nobody notices the
# difference below some thousand requests a second. `make bench` measures the release profile.

.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: run
run: ## set up, build, and start the demo: no key and no network needed
	@.ci/setup build
	@echo '==> building (the first time takes some minutes)'
	@cargo build
	@exec '$(TARGET)/debug/gatekeeper' demo

.PHONY: test
test: ## set up and run all tests
	@.ci/setup build node redis prometheus chromium faketime python
	@echo '==> format'
	@cargo fmt --all --check
	@echo '==> lints'
	@cargo clippy --workspace --all-targets -- -D warnings
	@echo '==> tests of the crates'
	@cargo test --workspace
	@echo '==> tests with the real SDKs' # on the binary that cargo test built for its own
	@cd tests/clients && { cmp -s package-lock.json node_modules/.installed || \
		{ npm ci --no-progress && cp package-lock.json node_modules/.installed; }; }
	@GATEKEEPER_BIN='$(abspath $(TARGET))/debug/gatekeeper' npm --prefix tests/clients test
	@echo '==> tests of the dashboard in Chromium'
	@cd tests/dashboard && { cmp -s package-lock.json node_modules/.installed || \
		{ npm ci --no-progress && cp package-lock.json node_modules/.installed; }; }
	@GATEKEEPER_BIN='$(abspath $(TARGET))/debug/gatekeeper' npm --prefix tests/dashboard test
	@echo '==> all tests passed'

.PHONY: soak
soak: ## the tests that gain from repeating, for longer
	@.ci/setup build redis
	GATEKEEPER_KILLS=200 GATEKEEPER_REDIS_KILLS=50 GATEKEEPER_FAILOVERS=20 GATEKEEPER_SOAK_SECONDS=1200 GATEKEEPER_DOWN_SECONDS=60 GATEKEEPER_HANG_SECONDS=60 GATEKEEPER_ACCOUNT_REQUESTS=1000 \
	GATEKEEPER_RELOAD_SECONDS=60 GATEKEEPER_REWRAP_KILLS=1000 \
	GATEKEEPER_HANDOVERS=20 GATEKEEPER_HANDOVER_STREAMS=200 GATEKEEPER_HANDOVER_KILLS=40 \
	GATEKEEPER_FEED_SECONDS=600 GATEKEEPER_NAMES=100000 GATEKEEPER_STRANGERS=3000 \
		cargo test --workspace --test it -- --nocapture kill failover outage soak flapping storm hand_overs made_up_names strangers_alone

.PHONY: fuzz
fuzz: ## readers of foreign bytes, on many mutations of their corpora; with nightly and cargo-fuzz, fuzzers
	@.ci/setup build
	@if cargo +nightly fuzz --version >/dev/null 2>&1; then \
		for target in sse usage classify translate_request translate_answer gate path webhook configuration; do \
			echo "==> $$target"; \
			cargo +nightly fuzz run --fuzz-dir tests/fuzz $$target -- -max_total_time=60 -max_len=8192; \
		done; \
	else \
		GATEKEEPER_MUTATIONS=100000 cargo test --workspace fuzzing; \
	fi

.PHONY: dist
dist: ## the program, a Debian package, SBOM and checksums, in target/dist; PROFILE=dev is quick
	@.ci/setup build dist
	@.ci/dist '$(or $(PROFILE),release)'

.PHONY: bench
bench: ## side by side with a bare Pingora proxy and nginx; QUICK=1 takes a minute
	@.ci/setup build nginx redis
	@echo '==> building with full optimisation (the first time takes many minutes)'
	@cargo build --release -p gatekeeper -p load --bin gatekeeper --bin load --bin bare-mimalloc
	@'$(TARGET)/release/load' compare $(if $(QUICK),--quick) $(BENCH)
