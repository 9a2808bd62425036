#!/usr/bin/env bash
# Installs the clients that no one here wrote (proto-tests/strangers), every version pinned: Python's into
# .cache/strangers, Node's into node_modules. Does nothing when they are there already.
set -euo pipefail
cd "$(dirname "$0")/.."

scripts=proto-tests/strangers
venv=.cache/strangers/venv

main() {
  bash .ci/prepare.sh --strangers
  installed "$scripts/requirements.txt" "$venv" || install python
  installed "$scripts/package-lock.json" "$scripts/node_modules" || install node
}

# What was installed is kept beside it: a changed pin installs again.
installed() {
  cmp --silent "$1" "$2/installed"
}

install() {
  local log
  log=$(mktemp)
  echo "installing: clients for $1"
  if ! "$1_clients" >"$log" 2>&1 </dev/null; then
    cat "$log" >&2
    exit 1
  fi
  rm -f "$log"
}

# Wheels only, and nothing that is not in the list.
python_clients() {
  rm -rf "$venv"
  mkdir -p "${venv%/*}"
  python3 -m venv "$venv"
  "$venv/bin/pip" install --disable-pip-version-check --no-deps --only-binary=:all: --requirement "$scripts/requirements.txt"
  "$venv/bin/pip" check
  cp "$scripts/requirements.txt" "$venv/installed"
}

node_clients() {
  (cd "$scripts" && npm ci --ignore-scripts --no-audit --no-fund --no-update-notifier)
  cp "$scripts/package-lock.json" "$scripts/node_modules/installed"
}

main
