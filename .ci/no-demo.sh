#!/usr/bin/env bash
# no-demo.sh PRODUCTION [DEMO]: fails if the binary PRODUCTION has a demo or simulator in it. With a demo build beside
# it, fails too if that one does not show what is looked for.
set -euo pipefail

# In mangled symbols, names stand behind their lengths: the module, and crates that only the simulators use.
marks=('10pgpassport3sim' '5rcgen' '14tokio_postgres')
# What every build has: without it, symbols were stripped and the look would see nothing.
seen='10pgpassport6config'

main() {
  local production=$1 demo=${2:-}
  "$production" --help >/dev/null
  if "$production" --help | grep -qiwE 'demo|simulat[a-z]*'; then
    fail "$production --help offers a demo"
  fi
  if "$production" demo --check >/dev/null 2>&1; then
    fail "$production demo --check ran"
  fi
  grep -qaF "$seen" "$production" || fail "$production has no symbols: this check looks for the wrong thing"
  local mark
  for mark in "${marks[@]}"; do
    if grep -qaF "$mark" "$production"; then
      fail "$production contains $mark"
    fi
    if [[ -n $demo ]] && ! grep -qaF "$mark" "$demo"; then
      fail "$demo does not contain $mark: this check looks for the wrong thing"
    fi
  done
  if [[ -n $demo ]] && ! "$demo" --help | grep -qiw demo; then
    fail "$demo --help offers no demo: this check looks for the wrong thing"
  fi
}

fail() {
  echo "$1" >&2
  exit 1
}

main "$@"
