#!/usr/bin/env bash
# `make suites`: what is too slow for every `make test`.
set -uo pipefail
cd "$(dirname "$0")/.." || exit
# shellcheck source=.ci/steps.sh
source .ci/steps.sh

step 'Dockerfile build steps in a bare Debian' bash .ci/dockerfile-steps.sh
report
