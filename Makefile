# pgpassport: what people and CI run. Each target does its own set-up; `make help` lists them.

SHELL := bash
CARGO ?= cargo
TARGET_DIR := $(or $(CARGO_TARGET_DIR),target)
PROXY := $(TARGET_DIR)/debug/pgpassport

.DEFAULT_GOAL := help
.PHONY: help demo demo-check build test suites fresh clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: build ## the whole chain with a simulated cloud, until Ctrl-C
	@$(PROXY) demo

demo-check: build ## the same, once: exits 0 only if every step held
	@$(PROXY) demo --check

build: ## the proxy with its demo, in debug
	@bash .ci/prepare.sh
	@bash .ci/build.sh

test: ## formatting, lints, docs, unit tests, the chain through psql and tokio-postgres, and strangers
	@bash .ci/prepare.sh
	@bash .ci/strangers.sh
	@bash .ci/test.sh

suites: ## what is slow: the Dockerfile's build steps in a bare Debian (needs root)
	@bash .ci/prepare.sh
	@bash .ci/suites.sh

fresh: ## demo-check and test in a Debian that has never seen the project (needs root, 4 GB)
	@bash .ci/fresh.sh

clean: ## remove what was built
	@$(CARGO) clean --quiet
