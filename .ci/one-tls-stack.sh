#!/usr/bin/env bash
# TLS is rustls with aws-lc-rs. Fails when another stack or provider comes in through a dependency.
set -euo pipefail

status=0
for crate in ring openssl openssl-sys native-tls; do
  # An absent crate makes `cargo tree -i` fail or print nothing; a line that starts with its name is a find.
  if cargo tree --locked --workspace --edges all --target all -i "$crate" 2>/dev/null | grep -q "^$crate "; then
    echo "$crate is in the tree:"
    cargo tree --locked --workspace --edges all --target all -i "$crate"
    status=1
  fi
done
# Proof that the look-up sees what is there.
cargo tree --locked --workspace -i aws-lc-rs | grep -q '^aws-lc-rs '
exit "$status"
