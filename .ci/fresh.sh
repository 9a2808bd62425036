#!/usr/bin/env bash
# `make fresh`: does a clone of this commit work on a machine that has never seen the project? Makes a bare Debian for
# each kind of person (root; an ordinary user with sudo), gives it Rust and a clone, runs the targets there, and
# checks that nothing is left behind. Uncommitted changes are not part of the clone.
#
#   FRESH_AS='root user'              who runs it
#   FRESH_TARGETS='demo-check test'   what they run
#   BARE_DEBIAN_SUITE=bookworm        or trixie
set -uo pipefail
cd "$(dirname "$0")/.." || exit
# shellcheck source=.ci/steps.sh
source .ci/steps.sh
# shellcheck source=.ci/bare-debian.sh
source .ci/bare-debian.sh

FRESH_AS="${FRESH_AS:-root user}"
FRESH_TARGETS="${FRESH_TARGETS:-demo-check test}"

main() {
  [[ $(id -u) -eq 0 ]] || { echo "make fresh needs root (chroot)" >&2; exit 1; }
  command -v debootstrap >/dev/null || apt-get install -y --no-install-recommends debootstrap >/dev/null 2>&1
  work=$(mktemp -d /var/tmp/pgpassport-fresh.XXXXXX)
  trap 'rm -rf --one-file-system "$work"' EXIT
  trap 'exit 130' INT TERM
  step "debootstrap $BARE_DEBIAN_SUITE" bare_debian_make "$work/base" make sudo
  step 'Rust as on this machine' bare_debian_rust "$work/base"
  local who
  for who in $FRESH_AS; do
    step "clone for $who" furnish "$who"
    run_targets "$who"
    step "$who: nothing is left behind" nothing_left "$who"
    rm -rf --one-file-system "${work:?}/$who"
  done
  report
}

home_of() {
  if [[ $1 == root ]]; then echo /root; else echo "/home/$1"; fi
}

furnish() {
  local who=$1 root="$work/$1" home
  home=$(home_of "$who")
  cp -a "$work/base" "$root"
  cp .ci/fresh-session.sh "$root/"
  if [[ $who != root ]]; then
    bare_debian_run "$root" useradd --create-home --shell /bin/bash "$who"
    echo "$who ALL=(ALL) NOPASSWD: ALL" >"$root/etc/sudoers.d/$who"
  fi
  git clone --quiet --no-hardlinks . "$root$home/pgpassport"
  bare_debian_crates "$root" "$home"
  bare_debian_run "$root" chown -R "$who:" "$home"
}

run_targets() {
  local who=$1 target
  for target in $FRESH_TARGETS; do
    step "$who: make $target" bare_debian_run "$work/$who" sh /fresh-session.sh "$who" "$target"
    rm -rf "$STEPS_LOGS/fresh-$who-$target"
    cp -r "$work/$who$(home_of "$who")/pgpassport/target/logs" "$STEPS_LOGS/fresh-$who-$target" 2>/dev/null
    # What the run said of itself: its count, if it prints one.
    grep -E '^[0-9]+ passed, [0-9]+ failed$' "$(steps_log "$who: make $target")" | sed 's/^/        /'
  done
}

nothing_left() {
  local root="$work/$1" home left
  home=$(home_of "$1")
  left=$(bare_debian_left "$root")
  left+=$(git -c safe.directory='*' -C "$root$home/pgpassport" status --porcelain)
  left+=$(compgen -G "$root/etc/postgresql/*/*" || true)
  left+=$(compgen -G "$root/etc/postgresql-common/createcluster.d/*pgpassport*" || true)
  [[ -z $left ]] || { echo "left behind:"; echo "$left"; return 1; }
}

main "$@"
