#!/usr/bin/env bash
# `make suites`: what is too slow for every `make test`.
set -uo pipefail
cd "$(dirname "$0")/.." || exit
# shellcheck source=.ci/steps.sh
source .ci/steps.sh

step 'release image: build steps in a bare Debian' bash .ci/dockerfile-steps.sh docker/Dockerfile
step 'demo image: build steps in a bare Debian' bash .ci/dockerfile-steps.sh docker/demo.Dockerfile
# `make test` there, as root and as a user, is `make fresh`: by hand, for its length.
step 'the demo for an ordinary user on a machine that has never seen the project' \
  env FRESH_AS=user FRESH_TARGETS=demo-check bash .ci/fresh.sh
# In debug and short: only whether the tool still works, no bound on any figure.
step 'benches/compare through each kind of cell' \
  env BENCH_PROFILE=dev bash benches/compare.sh --quick --peers pgbouncer,fwd-ct-8k,pgpassport
report
