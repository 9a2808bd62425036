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
# Always the whole workspace: a package alone has other features, and its dependencies would be built twice.
step 'build' cargo build --locked --workspace --all-targets
step 'drivers' bash .ci/drivers.sh
step 'strangers' bash .ci/strangers.sh
rm -f "$target/tmp/strangers.txt" "$target/drivers/report.txt" "$target/drivers/libpq.txt" "$target"/tmp/audit-judge-*.txt
tests 'unit tests' cargo test --locked --workspace --no-fail-fast --lib --bins
tests 'module order and the chain through the wire' cargo test --locked --workspace --test '*' --no-fail-fast
[[ ! -s $target/drivers/report.txt ]] || sed 's/^/      | /' "$target/drivers/report.txt"
[[ ! -s $target/drivers/libpq.txt ]] || sed 's/^/      | /' "$target/drivers/libpq.txt"
[[ ! -s $target/tmp/strangers.txt ]] || sed 's/^/      | /' "$target/tmp/strangers.txt"
cat "$target"/tmp/audit-judge-*.txt 2>/dev/null | sed 's/^/      | /'
step 'production build without demo or simulator' bash .ci/production-build.sh
report
