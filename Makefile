# `make` lists what there is.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# rustup's folder, for shells that did not read its profile yet.
export PATH := $(HOME)/.cargo/bin:$(PATH):/usr/sbin

TARGET := $(or $(CARGO_TARGET_DIR),target)

# The development profile has no LTO: a first build takes minutes less, and there is no
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
test: ## set up and run all tests; the last lines say how long each stage took
	@.ci/test

# What `make test` repeats a tenth as often; tests/README.md lists it.
SOAK := \
	GATEKEEPER_KILLS=200 GATEKEEPER_REDIS_KILLS=50 GATEKEEPER_FAILOVERS=20 GATEKEEPER_SOAK_SECONDS=1200 \
	GATEKEEPER_DOWN_SECONDS=60 GATEKEEPER_PAUSE_SECONDS=5 GATEKEEPER_HANG_SECONDS=60 \
	GATEKEEPER_ACCOUNT_REQUESTS=1000 GATEKEEPER_RELOAD_SECONDS=60 GATEKEEPER_REWRAP_KILLS=1000 \
	GATEKEEPER_HANDOVERS=20 GATEKEEPER_HANDOVER_STREAMS=200 GATEKEEPER_HANDOVER_KILLS=40 \
	GATEKEEPER_FEED_SECONDS=600 GATEKEEPER_NAMES=100000 GATEKEEPER_FLOOD_KEYS=100000 \
	GATEKEEPER_STRANGERS=3000 GATEKEEPER_POISON_SECONDS=60 GATEKEEPER_LEDGER_TIMES=10 GATEKEEPER_HANG_UPS=10000 \
	GATEKEEPER_ID_KILLS=40 GATEKEEPER_ID_REDIS_KILLS=15 GATEKEEPER_BUSY_REQUESTS=2000 \
	GATEKEEPER_SHOP_MUTATIONS=50000 GATEKEEPER_FIRST_REQUESTS=1000 GATEKEEPER_REPLAYED_MESSAGES=1000 \
	GATEKEEPER_HOSTILE_VALUES=200 \
	GATEKEEPER_ISSUE_KILLS=200 GATEKEEPER_PURCHASES=1000 GATEKEEPER_CLAIM_RACES=1000 GATEKEEPER_GUESSES=1000000

.PHONY: soak
soak: ## the tests that gain from repeating, for longer
	@.ci/setup build redis
	$(SOAK) cargo test --workspace --test it -- --nocapture --skip alone:: \
		kill failover outage soak flapping storm hand_overs made_up_names flood \
		slow_wire shares_its_core poisoner strangers_alone first_requests delivered_twice shuffled_doubled \
		claim_raced guessing_finds guesses_with reaches_a_provider
	$(SOAK) cargo test --workspace --test it -- --nocapture --test-threads 1 alone::
	$(SOAK) cargo test --workspace --lib -- --nocapture hang_ups no_change_turns valid_only_with_its_status

.PHONY: fuzz
fuzz: ## readers of foreign bytes, on many mutations of their corpora; with nightly and cargo-fuzz, fuzzers
	@.ci/setup build
	@if cargo +nightly fuzz --version >/dev/null 2>&1; then \
		for target in sse usage classify translate_request translate_answer gate path webhook configuration; do \
			echo "==> $$target"; \
			cargo +nightly fuzz run --fuzz-dir tests/fuzz $$target -- -max_total_time=60 -max_len=8192; \
		done; \
	else \
		GATEKEEPER_MUTATIONS=100000 cargo test --workspace -- fuzz_targets mutated_answers; \
	fi

.PHONY: deny
deny: ## licences and sources of what is linked, as `make test` has it
	@.ci/setup build deny
	@'$(TARGET)/tools/bin/cargo-deny' --workspace --locked check licenses sources bans

.PHONY: advisories
advisories: ## known holes in what is linked; fetches RustSec's database, so it needs the network
	@.ci/setup build deny
	@'$(TARGET)/tools/bin/cargo-deny' --workspace --locked check advisories

.PHONY: dist
dist: ## the program, a Debian package, SBOM and checksums, in target/dist; PROFILE=dev is quick
	@.ci/setup build dist
	@.ci/dist '$(or $(PROFILE),release)'

.PHONY: releases
releases: ## the program of `make dist` in a fresh system of each Debian release that the mirror has; needs root
	@.ci/releases '$(TARGET)/dist/gatekeeper'

.PHONY: bench
bench: ## side by side with a bare Pingora proxy and nginx; QUICK=1 takes minutes, KEEP=1 keeps the figures
	@.ci/setup build nginx redis
	@echo '==> building with full optimisation (the first time takes many minutes)'
	@cargo build --release -p gatekeeper -p load --bin gatekeeper --bin load --bin bare-mimalloc
	@'$(TARGET)/release/load' compare $(if $(QUICK),--quick) $(if $(KEEP),--keep) $(BENCH)

.PHONY: count
# What is counted in part, or of another build, does not replace the figures that are kept.
count: COUNTS := $(or $(JSON),$(if $(BIN)$(COUNT),,benches/counts.json))
count: ## what a request costs, counted; BIN=gatekeeper counts that build, COUNT='--only json' less
	@.ci/setup build nginx redis count
	@echo '==> building with full optimisation (the first time takes many minutes)'
	@cargo build --release -p load $(if $(BIN),,-p gatekeeper --bin gatekeeper) --bin load --bin bare-mimalloc
	@'$(TARGET)/release/load' count $(if $(BIN),--gatekeeper '$(BIN)') $(if $(COUNTS),--json '$(COUNTS)') $(COUNT)
	@$(if $(BIN)$(COUNT),true,benches/largest-futures)

.PHONY: docs
docs: ## writes docs/configuration from the declarations, which `make test` compares
	@DOCS_WRITE=1 cargo test --workspace --lib reference

.PHONY: budget
budget: ## writes benches/budget.json, what `make test` holds allocations and system calls to
	@.ci/setup build count
	@BUDGET_WRITE=1 cargo test --workspace --test budget
