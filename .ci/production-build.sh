#!/usr/bin/env bash
# The binary that is shipped (`--no-default-features`) has no demo and no simulator: neither in its help nor among
# its symbols and strings. The demo build must show the same marks, or the look would prove nothing.
# Leaves the demo build where the other tests expect it.
set -euo pipefail

target="${CARGO_TARGET_DIR:-$PWD/target}"
mkdir -p "$target/production"
cargo build --locked -p pgpassport --no-default-features
# Both builds have the same path and share their dependencies.
cp "$target/debug/pgpassport" "$target/production/pgpassport"
cargo build --locked -p pgpassport
bash .ci/no-demo.sh "$target/production/pgpassport" "$target/debug/pgpassport"
