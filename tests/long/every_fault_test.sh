#!/usr/bin/env bash
# tests/cli/fault_test.sh with every call, in two halves at a time.
set -euo pipefail
cd "$(dirname "$0")/../.."

export BK_LONG=1
logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT
status=0
BK_OPERATIONS='wrap wrap_a_command rekey list' bash tests/cli/fault_test.sh >"$logs/a" 2>&1 &
BK_OPERATIONS='unwrap unwrap_into_a_command verify rekey_blind generate export' bash tests/cli/fault_test.sh \
    >"$logs/b" 2>&1 || status=1
wait "$!" || status=1
cat "$logs/a" "$logs/b"
exit "$status"
