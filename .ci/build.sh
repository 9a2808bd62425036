#!/usr/bin/env bash
# Builds the proxy in debug: cargo's own progress the first time, quiet afterwards.
set -euo pipefail

if [[ -x "${CARGO_TARGET_DIR:-target}/debug/pgpassport" ]]; then
  cargo build --locked --quiet
else
  echo "building (the first time takes some minutes)"
  cargo build --locked
fi
