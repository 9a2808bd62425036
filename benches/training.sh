#!/usr/bin/env bash
# What the proxy and the bare forwarder run under the benches' loads, for benches/dist.sh: builds them with counters,
# runs each load once, and puts what was counted into benches/training/ for this compiler. 8 minutes on 2 cores.
#
# Needs an llvm-profdata that is no newer than the compiler's LLVM, nor older than 19: rustup's (llvm-tools), or Debian's,
# which is installed where it is missing.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=benches/trained.sh
source benches/trained.sh

target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
counters="$target/training"
counts="$counters/counts"

main() {
  local merge training
  bash .ci/prepare.sh
  find_profdata
  if [[ -z $merge ]]; then
    bash .ci/prepare.sh --llvm
    find_profdata
  fi
  [[ -n $merge ]] || { echo "there is no llvm-profdata for this compiler's LLVM" >&2; exit 1; }
  cargo build --locked --quiet --workspace --bins --test module_direction
  (
    # In a folder of its own: it shares nothing with other builds.
    export CARGO_TARGET_DIR="$counters"
    add_flag "-Cprofile-generate=$counts"
    cargo build --locked --profile dist --no-default-features -p pgpassport -p forwarder -p load
  )
  # Counts of build scripts are none of ours.
  rm -rf "$counts"
  "$target/debug/compare" --binaries "$counters/dist" --output "$counters" --end-with term \
    --peers pgpassport,fwd-ct-8k,connector --parts cells,log-ins --rounds 1 --seconds 3
  training=$(training_file)
  mkdir -p "${training%/*}"
  # That of another compiler on such a machine is outdated.
  rm -f "${training%/*}"/rustc-*-"$(about_compiler host).profdata"
  "$merge" merge --sparse --output "$training" "$counts"/*.profraw
  ls -l "${training%/*}"
}

# Sets merge, to nothing where there is none.
find_profdata() {
  local llvm
  llvm=$(about_compiler 'LLVM version')
  for merge in "$(rustc --print sysroot)"/lib/rustlib/*/bin/llvm-profdata \
    $(seq -f '/usr/lib/llvm-%g/bin/llvm-profdata' 19 "${llvm%%.*}"); do
    [[ ! -x $merge ]] || return 0
  done
  merge=
}

main "$@"
