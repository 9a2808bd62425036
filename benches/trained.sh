# shellcheck shell=bash
# What builds with and for profile-guided optimisation share. Sourced in the repository's folder.

# Where this compiler's training is. Names of functions hash the whole of what it says of itself, its host too: another
# one could use nothing of it.
training_file() {
  local release commit host
  release=$(about_compiler release) commit=$(about_compiler commit-hash) host=$(about_compiler host)
  echo "$PWD/benches/training/rustc-$release-${commit:0:9}-$host.profdata"
}

about_compiler() {
  rustc --version --verbose | sed -n "s/^$1: //p"
}

# Adds a flag to those that cargo gives to the compiler; paths may have spaces.
add_flag() {
  local separator=$'\x1f' flags=${CARGO_ENCODED_RUSTFLAGS:-}
  [[ -n $flags ]] || flags=$(tr -s ' ' "$separator" <<<"${RUSTFLAGS:-}" | tr -d '\n')
  export CARGO_ENCODED_RUSTFLAGS="${flags:+$flags$separator}$1"
}
