# shellcheck shell=bash
# Steps with one progress line each: quiet when they pass, their log's end when they fail.
#
#   step NAME COMMAND…    runs a command that is one check
#   tests NAME COMMAND…   runs a cargo test command and adds up its `test result:` lines;
#                         a run that executed no test has failed; tests that say SKIPPED are shown
#   report                prints what failed, then `N passed, N failed` alone on a line
#
# Of a failed cargo test the names of the failed tests and their panics come first: with --no-fail-fast they stand
# anywhere in the log, and a reader may see the first lines alone.

STEPS_LOGS="${CARGO_TARGET_DIR:-target}/logs"
STEPS_TAIL_LINES=60
mkdir -p "$STEPS_LOGS"
steps_passed=0
steps_failed=0
steps_broken=()

step() {
  local name=$1 log
  shift
  log=$(steps_log "$name")
  if steps_run "$name" "$log" "$@"; then
    steps_passed=$((steps_passed + 1))
  else
    steps_failed=$((steps_failed + 1))
  fi
}

tests() {
  local name=$1 log status passed failed
  shift
  log=$(steps_log "$name")
  steps_run "$name" "$log" "$@"
  status=$?
  # A test's own words (`SKIPPED name: why`) may stand behind the harness's on one line.
  grep -o 'SKIPPED .*' "$log" | sed 's/^/      | /'
  passed=$(steps_sum passed "$log")
  failed=$(steps_sum failed "$log")
  if [[ $status -ne 0 && $failed -eq 0 ]]; then
    failed=1
  elif [[ $status -eq 0 && $passed -eq 0 ]]; then
    echo "FAIL  $name ran no test"
    steps_broken+=("$name")
    failed=1
  fi
  steps_passed=$((steps_passed + passed))
  steps_failed=$((steps_failed + failed))
}

report() {
  local name
  for name in "${steps_broken[@]}"; do
    echo "failed: $name ($(steps_log "$name"))"
  done
  echo "$steps_passed passed, $steps_failed failed"
  [[ $steps_failed -eq 0 && $steps_passed -gt 0 ]]
}

steps_log() {
  echo "$STEPS_LOGS/${1//[^A-Za-z0-9]/-}.log"
}

steps_run() {
  local name=$1 log=$2 began=$SECONDS
  shift 2
  [[ -t 1 ]] && printf '      %s …\r' "$name"
  if "$@" >"$log" 2>&1 </dev/null; then
    printf 'ok    %s (%d s)\n' "$name" $((SECONDS - began))
    return 0
  fi
  printf 'FAIL  %s (%d s), see %s:\n' "$name" $((SECONDS - began)) "$log"
  steps_failures "$log" | sed 's/^/      ! /'
  tail -n "$STEPS_TAIL_LINES" "$log" | sed 's/^/      | /'
  steps_broken+=("$name")
  return 1
}

# The names of a log's failed tests and what stopped cargo, then each panic with the lines that say why.
steps_failures() {
  {
    grep -E '^test .* FAILED$|^error(\[|:)' "$1"
    grep -E -A 5 '^thread .* panicked at ' "$1" | grep -vE '^--$|^test |^note: run with' | cut -c 1-300 | sed 's/^/  /'
  } | head -n "$STEPS_TAIL_LINES"
}

# Adds up "N passed" or "N failed" over every `test result:` line of a log.
steps_sum() {
  awk -v what="$1" '
    /^test result:/ { for (i = 2; i <= NF; i++) if ($i == what ";") sum += $(i - 1) }
    END { print sum + 0 }' "$2"
}
