#!/usr/bin/env bash
# What a fresh Debian 12 lacks for building, testing and the demo. Installs only what is missing:
# as root, else through sudo; when neither works it prints the line to run and stops. With --drivers (or
# --strangers, the same): also what the drivers and strangers of proto-tests run on; with --valgrind: valgrind;
# with --llvm: what reads the counts of instrumented builds.
set -euo pipefail

main() {
  need_rust
  [[ -z ${drivers:-} ]] || need_debian_12
  local missing=()
  mapfile -t missing < <(missing_packages)
  [[ ${#missing[@]} -gt 0 ]] || return 0
  echo "installing: ${missing[*]}"
  if [[ $(id -u) -eq 0 ]]; then
    install_packages "${missing[@]}"
  elif command -v sudo >/dev/null && sudo "${sudo_options[@]}" true 2>/dev/null; then
    sudo "${sudo_options[@]}" bash "$0" --install "${missing[@]}"
  else
    echo "not root, and sudo does not work here. Run this, then try again:" >&2
    echo "  su -c 'bash $0 --install ${missing[*]}'" >&2
    exit 1
  fi
}

# Without a terminal there is nobody to type a password.
sudo_options=()
[[ -t 0 ]] || sudo_options=(-n)

need_rust() {
  command -v cargo >/dev/null && return 0
  echo "Rust is missing. Install it with rustup (https://rustup.rs), then try again." >&2
  exit 1
}

# The demo takes any PostgreSQL. The tests' tables are of the server, psql and libpq that Debian 12 has.
need_debian_12() {
  local release
  # shellcheck source=/dev/null
  release=$(. /etc/os-release 2>/dev/null && echo "${ID:-} ${VERSION_ID:-}") || release=unknown
  [[ $release != 'debian 12' ]] || return 0
  echo "the tests need Debian 12, whose PostgreSQL is 15; this is $release. \`make demo\` needs neither." >&2
  exit 1
}

# By what is used, not by package name: whatever provides it is left alone.
missing_packages() {
  command -v gcc >/dev/null && [[ -e /usr/include/stdio.h ]] || printf '%s\n' gcc libc6-dev
  command -v git >/dev/null || echo git
  [[ -s /etc/ssl/certs/ca-certificates.crt ]] || echo ca-certificates
  compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null || echo postgresql
  command -v psql >/dev/null || echo postgresql-client
  # For the test in a network namespace, which only root can have.
  [[ $(id -u) -ne 0 ]] || command -v ip >/dev/null || echo iproute2
  [[ -z ${valgrind:-} ]] || command -v valgrind >/dev/null || echo valgrind
  [[ -z ${llvm:-} ]] || [[ -n $(ls /usr/lib/llvm-{19..40}/bin/llvm-profdata 2>/dev/null) ]] || echo llvm-19
  [[ -n ${drivers:-} ]] || return 0
  # For PostgreSQL's own suites.
  command -v bzip2 >/dev/null || echo bzip2
  python3 -c 'import ensurepip, venv' 2>/dev/null || printf '%s\n' python3 python3-venv
  command -v node >/dev/null || echo nodejs
  command -v npm >/dev/null || echo npm
  command -v javac >/dev/null || echo default-jdk-headless
  [[ -e /usr/share/java/postgresql.jar ]] || echo libpostgresql-jdbc-java
  # For the judge of the audit log.
  command -v go >/dev/null || echo golang-go
  [[ -e /usr/share/gocode/src/golang.org/x/mod/sumdb/tlog ]] || echo golang-golang-x-mod-dev
}

# Debian's postgresql package creates and starts a cluster on port 5432. Nobody here asked for one: the drop-in
# below (postgresql-common, createcluster.conf) keeps it from doing so while we install, and goes away again.
install_packages() {
  local drop_in=/etc/postgresql-common/createcluster.d/pgpassport-no-cluster.conf
  if [[ " $* " == *" postgresql "* ]]; then
    # shellcheck disable=SC2064
    trap "rm -f $drop_in" EXIT
    mkdir -p "${drop_in%/*}"
    echo 'create_main_cluster = false' >"$drop_in"
  fi
  export DEBIAN_FRONTEND=noninteractive
  # A Java set-up run by a package leaves a folder of performance data in /tmp.
  export JAVA_TOOL_OPTIONS=-XX:-UsePerfData
  local log
  log=$(mktemp)
  if ! { apt-get update && apt-get install -y --no-install-recommends "$@"; } >"$log" 2>&1 </dev/null; then
    cat "$log" >&2
    exit 1
  fi
  rm -f "$log"
}

case "${1:-}" in
  --install)
    shift
    install_packages "$@"
    ;;
  --drivers | --strangers)
    drivers=1
    main
    ;;
  --valgrind)
    valgrind=1
    main
    ;;
  --llvm)
    llvm=1
    main
    ;;
  *) main ;;
esac
