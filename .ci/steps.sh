# What `.ci/run` and `.ci/nightly` share: steps and suites that are timed and counted, and the last line with the sums. Source it in the checkout.
set -uo pipefail
exec </dev/null

export CI=true NO_COLOR=1 DENO_NO_UPDATE_CHECK=1 npm_config_audit=false npm_config_fund=false npm_config_update_notifier=false
export PATH="$PWD/node_modules/.bin:$PATH"
# the parts that CI has: a test that misses one of them fails instead of being skipped
export MILLRACE_EXPECT="${MILLRACE_EXPECT-kafka,pulsar,postgres,native,java,maven,openssl,registry,chromium,axe}"
passed=0 failed=0 skipped=0
work="$(mktemp -d)"
# what a reader of the end alone must know: each step with its result and time, and each failed test
summary=()

close() {
  rm -rf "$work"
  printf '%s\n' "${summary[@]}"
  echo "$passed passed, $failed failed, $skipped skipped"
  if [ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]; then exit 0; else exit 1; fi
}
trap close EXIT
trap 'failed=$((failed + 1)); exit 1' INT TERM HUP

# step NAME SECONDS COMMAND…: runs a command and prints its name, its result and its time. A failure is counted; the script goes on.
step() {
  local name="$1" limit="$2" began=$SECONDS code=0
  shift 2
  echo "== $name"
  timeout --kill-after=20 "$limit" "$@" || code=$?
  local result="$name: ok"
  [ "$code" -eq 124 ] && result="$name: FAILED, not done within its $limit s"
  [ "$code" -eq 0 ] || [ "$code" -eq 124 ] || result="$name: FAILED, exit $code"
  result="== $result after $((SECONDS - began)) s"
  echo "$result"
  summary+=("$result")
  [ "$code" -eq 0 ] || failed=$((failed + 1))
  return "$code"
}

# suite NAME SECONDS COMMAND…: a run of vitest, whose report is added to the sums. A failure that the report does not have counts as one.
suite() {
  local name="$1" limit="$2" report="$work/$1.json" code=0 sums
  local before=$failed
  shift 2
  step "tests $name" "$limit" "$@" --reporter=default --reporter=./test/support/skipped-reporter.ts --reporter=json \
    --outputFile.json="$report" || code=$?
  failed=$before
  if sums="$(node .ci/sum.mjs "$report")"; then
    local p f s names
    { read -r p f s; mapfile -t names; } <<<"$sums"
    summary+=("${names[@]}")
    passed=$((passed + p)) skipped=$((skipped + s))
    [ "$code" -ne 0 ] && [ "$f" -eq 0 ] && f=1
    failed=$((failed + f))
  else
    failed=$((failed + 1))
  fi
}

install() {
  step "install" 300 npm ci || exit 1
  hash -r
  echo "Node $(node --version), npm $(npm --version)"
}
