#!/usr/bin/env bash
# Installs the clients and judges that no one here wrote (proto-tests/strangers), every version pinned: Python's into
# .cache/strangers, Node's into node_modules; Go's judge and witness of the audit log are built from Debian's own packages, offline.
# Does nothing when they are there already.
set -euo pipefail
cd "$(dirname "$0")/.."

scripts=proto-tests/strangers
venv=.cache/strangers/venv
judges=(tlog_judge tlog_witness)

main() {
  bash .ci/prepare.sh --strangers
  installed "$scripts/requirements.txt" "$venv" || install python
  installed "$scripts/package-lock.json" "$scripts/node_modules" || install node
  local judge
  for judge in "${judges[@]}"; do
    [[ .cache/strangers/$judge -nt $scripts/$judge.go ]] || install go
  done
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

# No module is fetched: the one that it needs is in Debian's GOPATH.
go_clients() {
  local cache judge
  cache=$(mktemp -d)
  mkdir -p .cache/strangers
  for judge in "${judges[@]}"; do
    GO111MODULE=off GOPATH=/usr/share/gocode GOFLAGS='' GOPROXY=off CGO_ENABLED=0 GOCACHE="$cache" \
      go build -o ".cache/strangers/$judge" "$scripts/$judge.go"
  done
  rm -rf "$cache"
}

main
