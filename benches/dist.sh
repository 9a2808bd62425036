#!/usr/bin/env bash
# dist.sh -p PACKAGE…: builds what is shipped and measured into target/dist: optimised, without the demo, and laid out by
# what the benches were seen to run (profile-guided optimisation: docs of rustc, "-C profile-use").
#
#   --describe   says how it would be built, and builds nothing
#
# What was seen is in benches/training/, a file for each compiler: names of functions have the compiler's version in
# them, so another one could use nothing of it. Without a file for it the build is the same, but slower. Code that has
# changed since is built as if nothing was known of it. `make training` makes the file anew.
set -euo pipefail
cd "$(dirname "$0")/.."

compiler=$(rustc --version --verbose | sed -n 's/^release: //p')
training="$PWD/benches/training/rustc-$compiler.profdata"

main() {
  if [[ ${1:-} == --describe ]]; then
    echo "optimised, without the demo, $(trained), $(rustc --version)"
    return
  fi
  if [[ -e $training ]]; then
    export RUSTFLAGS="${RUSTFLAGS:-} -Cprofile-use=$training"
  else
    echo "not trained: benches/training/ has nothing for rustc $compiler" >&2
  fi
  cargo build --locked --profile dist --no-default-features "$@"
}

trained() {
  if [[ -e $training ]]; then echo 'trained by the benches (profile-guided)'; else echo 'not trained'; fi
}

main "$@"
