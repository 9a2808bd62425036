#!/usr/bin/env bash
# dist.sh -p PACKAGE…: builds what is shipped and measured into target/dist: optimised, without the demo, and laid out by
# what the benches were seen to run (profile-guided optimisation: rustc's "-C profile-use").
#
#   --describe   says how it would be built, and builds nothing
#
# What was seen is in benches/training/, a file for each compiler. Without one for it the build is the same, but slower.
# Code that has changed since is built as if nothing was known of it. `make training` makes the file anew.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=benches/trained.sh
source benches/trained.sh

main() {
  local training how='not trained'
  training=$(training_file)
  [[ ! -e $training ]] || how='trained by the benches (profile-guided)'
  if [[ ${1:-} == --describe ]]; then
    echo "optimised, without the demo, $how, $(rustc --version)"
    return
  fi
  if [[ -e $training ]]; then
    add_flag "-Cprofile-use=$training"
  else
    echo "not trained: there is no ${training##*/} in benches/training/" >&2
  fi
  cargo build --locked --profile dist --no-default-features "$@"
}

main "$@"
