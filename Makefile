# pgpassport: what people and CI run. Each target does its own set-up; `make help` lists them.

SHELL := bash
CARGO ?= cargo
TARGET_DIR := $(or $(CARGO_TARGET_DIR),target)
PROXY := $(TARGET_DIR)/debug/pgpassport

.DEFAULT_GOAL := help
.PHONY: help demo demo-check build dist training test suites bench bench-audit bench-parts fuzz fresh clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: build ## the whole chain with a simulated cloud, until Ctrl-C
	@$(PROXY) demo

demo-check: build ## the same, once: exits 0 only if every step held
	@$(PROXY) demo --check

build: ## the proxy with its demo, in debug
	@bash .ci/prepare.sh
	@bash .ci/build.sh

test: ## formatting, lints, docs, unit tests, the chain through real drivers, the database's log as judge
	@bash .ci/prepare.sh --drivers
	@bash .ci/test.sh

suites: ## what is slow: PostgreSQL's own suites; the Dockerfiles' build steps and the demo in bare Debians (needs root)
	@bash .ci/prepare.sh --drivers
	@bash .ci/suites.sh

bench: ## what it costs beside PgBouncer and a bare TLS forwarder, and at scale; as it is shipped, 30 minutes (BENCH=--quick: 6)
	@bash benches/compare.sh $(BENCH)

training: ## what the benches run, for the build that is shipped (benches/dist.sh); after changes to the hot path, 8 minutes
	@bash benches/training.sh

dist: ## the proxy as it is shipped, in target/dist: optimised, trained, without the demo
	@bash .ci/prepare.sh
	@bash benches/dist.sh -p pgpassport

bench-audit: ## what the audit log alone costs: events a CPU second, bytes an event, latencies (BENCH=--json)
	@bash .ci/prepare.sh
	@$(CARGO) run --locked --quiet --release -p audit-cost -- $(BENCH)

bench-parts: ## what each part of the hot path costs beside its budget, and a fixed replay's instructions (PARTS=--help)
	@bash .ci/prepare.sh --valgrind
	@$(CARGO) build --locked --quiet --release -p parts
	@NO_PROXY=127.0.0.1 $(TARGET_DIR)/release/parts $(PARTS)

fuzz: ## libFuzzer over TARGET (default: each in turn) for TIME seconds; KEEP=1 adds what reaches new code to the corpus
	@TARGET="$(TARGET)" TIME="$(TIME)" KEEP="$(KEEP)" bash .ci/fuzz.sh

fresh: ## demo-check and test in a Debian that has never seen the project (needs root, 4 GB)
	@bash .ci/fresh.sh

clean: ## remove what was built
	@$(CARGO) clean --quiet
