#!/usr/bin/env bash
# What the proxy and the bare forwarder run under the benches' loads, for benches/dist.sh: builds them with counters,
# runs each load once, and puts what was counted into benches/training/ for this compiler. 15 minutes on 2 cores.
#
# Needs llvm-profdata, of LLVM 19 or later: rustup's (llvm-tools), or Debian's, which is installed where it is missing.
set -euo pipefail
cd "$(dirname "$0")/.."

target="${CARGO_TARGET_DIR:-$PWD/target}"
counters="$target/training"
counts="$counters/counts"

main() {
  local compiler merge
  bash .ci/prepare.sh
  merge=$(profdata) || { bash .ci/prepare.sh --llvm && merge=$(profdata); }
  compiler=$(rustc --version --verbose | sed -n 's/^release: //p')
  cargo build --locked --quiet --workspace --bins --test module_direction
  # In a folder of its own: it shares nothing with other builds.
  CARGO_TARGET_DIR="$counters" RUSTFLAGS="${RUSTFLAGS:-} -Cprofile-generate=$counts" \
    cargo build --locked --profile dist --no-default-features -p pgpassport -p forwarder -p load
  # Counts of build scripts are none of ours.
  rm -rf "$counts"
  "$target/debug/compare" --binaries "$counters/dist" --output "$counters" --end-with term \
    --peers pgpassport,fwd-ct-8k,connector --parts cells,log-ins --rounds 1 --seconds 3
  mkdir -p benches/training
  "$merge" merge --sparse --output "benches/training/rustc-$compiler.profdata" "$counts"/*.profraw
  ls -l benches/training
}

# An llvm-profdata that reads what this compiler's counters write.
profdata() {
  local found
  for found in "$(rustc --print sysroot)"/lib/rustlib/*/bin/llvm-profdata /usr/lib/llvm-{22,21,20,19}/bin/llvm-profdata; do
    [[ ! -x $found ]] || { echo "$found"; return; }
  done
  return 1
}

main "$@"
