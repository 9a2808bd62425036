#!/usr/bin/env bash
# `make suites`: what is too slow for every `make test`.
set -uo pipefail
cd "$(dirname "$0")/.." || exit
# shellcheck source=.ci/steps.sh
source .ci/steps.sh

export PGPASSPORT_BIN="${CARGO_TARGET_DIR:-$PWD/target}/debug/pgpassport"
suites="PostgreSQL's own suites"

step 'build' cargo build --locked --workspace --all-targets
step 'PostgreSQL 18' bash .ci/drivers.sh
step "sources of $suites" bash .ci/postgres-sources.sh
# One after the other: each has a server of its own, and loads the machine. Without the isolation tests, whose outcome
# hangs on timing: on a busy machine one of them fails against PostgreSQL directly. By hand: the same without --skip.
tests "$suites" cargo test --locked --workspace --test suites --no-fail-fast -- --ignored --nocapture --test-threads=1 \
  --skip the_isolation_suite
grep -aoE '(pg_regress|libpq_pipeline|pgbench|pg_dump|psql|the judge)[ ,].*: .*' "$(steps_log "$suites")" | sed 's/^/      | /'
pipelines='random pipelines, as directly and as recorded'
tests "$pipelines" cargo test --locked --workspace --test pipelines -- --ignored --nocapture
grep -aE 'pipelines from|seed |crashed' "$(steps_log "$pipelines")" | cut -c 1-300 | head -n 20 | sed 's/^/      | /'
names='as many prepared statements as a session may have'
tests "$names" cargo test --locked --workspace --test names_limit -- --ignored --nocapture
grep -aE ' names in ' "$(steps_log "$names")" | sed 's/^/      | /'
kills='a hundred kills under load'
tests "$kills" cargo test --locked --workspace --test audit_crash -- --ignored --nocapture
grep -aE 'PGPASSPORT_SEED=|kills:' "$(steps_log "$kills")" | sed 's/^/      | /'
step 'release image: build steps in a bare Debian' bash .ci/dockerfile-steps.sh docker/Dockerfile
step 'demo image: build steps in a bare Debian' bash .ci/dockerfile-steps.sh docker/demo.Dockerfile
# `make test` there, as root and as a user, is `make fresh`: by hand, for its length.
step 'the demo for an ordinary user on a machine that has never seen the project' \
  env FRESH_AS=user FRESH_TARGETS=demo-check bash .ci/fresh.sh
report
