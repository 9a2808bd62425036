#!/usr/bin/env bash
# `make test`: everything that must hold before a change lands. Goes on after a failure, so that one run tells all.
set -uo pipefail
cd "$(dirname "$0")/.." || exit
# shellcheck source=.ci/steps.sh
source .ci/steps.sh

target="${CARGO_TARGET_DIR:-$PWD/target}"
export PGPASSPORT_BIN="$target/debug/pgpassport"

step 'formatting' cargo fmt --all --check
step 'one TLS stack' bash .ci/one-tls-stack.sh
step 'clippy' cargo clippy --locked --workspace --all-targets -- -D warnings
step 'clippy without the demo' cargo clippy --locked -p pgpassport --no-default-features -- -D warnings
step 'rustdoc' env RUSTDOCFLAGS='-D warnings' cargo doc --locked --workspace --no-deps --document-private-items
step 'build' cargo build --locked
tests 'unit tests' cargo test --locked -p pgpassport
rm -f "$target/tmp/strangers.txt"
tests 'through the wire' cargo test --locked -p proto-tests
[[ ! -s $target/tmp/strangers.txt ]] || sed 's/^/      | /' "$target/tmp/strangers.txt"
step 'production build without demo or simulator' bash .ci/production-build.sh
report
