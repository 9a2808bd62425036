#!/usr/bin/env bash
# pgpassport beside Debian's PgBouncer and a bare TLS forwarder: builds and fetches what that needs, then measures
# (benches/compare). Options are those of `compare --help`: --quick tries everything in about six minutes.
#
#   --parts cells,log-ins,scale   only these parts: the cells through every peer, the proxy's log-ins, what scale costs it
#   --record benches/RESULTS.md   writes the report there too: results of record, on a quiet machine
#   --instructions                user-space instructions per transaction (valgrind): exact on a busy machine too
#   BENCH_PROFILE=dev    debug builds, to try the tool itself; its figures mean nothing
#
# Leaves behind nothing but target/: PgBouncer and its libraries are unpacked there from Debian's packages, not
# installed. Downloading them works for every user; missing package lists are fetched as root or through sudo.
set -euo pipefail
cd "$(dirname "$0")/.."

profile="${BENCH_PROFILE:-release}"
target="${CARGO_TARGET_DIR:-$PWD/target}"
unpacked="$target/bench/pgbouncer"

main() {
  if [[ " $* " == *' --instructions '* ]]; then bash .ci/prepare.sh --valgrind; else bash .ci/prepare.sh; fi
  build
  find_pgbouncer
  exec "$target/debug/compare" --binaries "$binaries" --output "$target/bench" --profile "$described" \
    --typed "benches/compare.sh $*" "$@"
}

# The proxy and the forwarder as the proxy is shipped: trained, and no demo in it. The harness and the simulators in it
# are no part of what is measured; they are built as `make test` builds everything (a test target decides about
# features), so that nothing is built twice.
build() {
  cargo build --locked --quiet --workspace --bins --test module_direction
  if [[ $profile == dev ]]; then
    binaries="$target/debug"
    described='debug: no results'
    return
  fi
  bash benches/dist.sh -p pgpassport -p forwarder -p load
  binaries="$target/dist"
  described="$(bash benches/dist.sh --describe)"
}

# Sets PGBOUNCER and PGBOUNCER_LIBRARIES: what the machine has, or Debian's package in target/.
find_pgbouncer() {
  local found
  found=$(PATH="$PATH:/usr/sbin" type -P pgbouncer || true)
  if [[ -n $found ]]; then
    export PGBOUNCER="$found" PGBOUNCER_LIBRARIES=''
    return
  fi
  [[ -x $unpacked/usr/sbin/pgbouncer ]] || unpack
  export PGBOUNCER="$unpacked/usr/sbin/pgbouncer"
  PGBOUNCER_LIBRARIES=$(find "$unpacked" -name 'lib*.so*' -printf '%h\n' | sort -u | paste -s -d :)
  export PGBOUNCER_LIBRARIES
}

unpack() {
  local folder="$unpacked.new" packages package
  rm -rf "$folder"
  mkdir -p "$folder/packages"
  packages=$(needed) || { package_lists; packages=$(needed); }
  echo "fetching: ${packages//$'\n'/ }"
  # apt drops root's rights for the download when its own user may write here; either way is fine.
  (cd "$folder/packages" && xargs apt-get download -q=2 <<<"$packages" 2>"$folder/apt.log") ||
    { cat "$folder/apt.log" >&2; return 1; }
  for package in "$folder"/packages/*.deb; do
    dpkg-deb --extract "$package" "$folder"
  done
  rm -rf "$folder/packages" "$folder/apt.log"
  mv "$folder" "$unpacked"
}

# PgBouncer and those libraries of its that the machine lacks.
needed() {
  local plan
  plan=$(LC_ALL=C apt-get install --simulate --no-install-recommends pgbouncer 2>/dev/null) || return 1
  awk '$1 == "Inst" && ($2 == "pgbouncer" || $2 ~ /^lib/) { print $2 }' <<<"$plan" | grep .
}

package_lists() {
  if [[ $(id -u) -eq 0 ]]; then
    apt-get update -q=2
  else
    sudo apt-get update -q=2
  fi
}

main "$@"
