#!/usr/bin/env bash
# `make fuzz TARGET=relay TIME=300`: libFuzzer over one target of proto-tests/fuzz, for so many seconds; without TARGET
# each one in turn. What it finds on the way stays in target/fuzz/corpus; with KEEP=1 what reaches new code is added to
# the corpus that every `make test` replays. An input that breaks a property ends the run: its file is named.
#
# A stable compiler is enough: coverage is an ordinary pass, and safe code needs no sanitizer. The layout is cargo-fuzz's
# own, so that `cargo fuzz run --fuzz-dir proto-tests/fuzz TARGET` works as well.
set -euo pipefail
cd "$(dirname "$0")/.."

time=${TIME:-300}
folder=proto-tests/fuzz
build=${CARGO_TARGET_DIR:-$PWD/target}/fuzz
host=$(rustc -vV | sed -n 's/^host: //p')

command -v c++ >/dev/null || { echo "libFuzzer needs a C++ compiler: install g++" >&2; exit 1; }

# The same versions as everywhere else.
cp Cargo.lock "$folder/Cargo.lock"
coverage=(-Cpasses=sancov-module)
for option in level=4 inline-8bit-counters pc-table trace-compares; do
  coverage+=("-Cllvm-args=-sanitizer-coverage-$option")
done
coverage+=(-Cllvm-args=-simplifycfg-branch-fold-threshold=0 --cfg fuzzing -Cdebug-assertions -Ccodegen-units=1)
# With --target the flags are for the targets alone, not for build scripts.
RUSTFLAGS="${coverage[*]}" CARGO_TARGET_DIR=$build \
  cargo build --quiet --manifest-path "$folder/Cargo.toml" --target "$host"

targets=${TARGET:-$(ls "$folder/corpus")}
for target in $targets; do
  work=$build/corpus/$target
  mkdir -p "$work" "$build/artifacts/$target"
  echo "$target: $time s"
  "$build/$host/debug/$target" "$work" "$folder/corpus/$target" -artifact_prefix="$build/artifacts/$target/" \
    -max_total_time="$time" -max_len=4096 -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 -verbosity=0
  [[ ${KEEP:-0} != 1 ]] || "$build/$host/debug/$target" -merge=1 -verbosity=0 "$folder/corpus/$target" "$work"
done
