#!/usr/bin/env bash
# The fuzzers for 20 minutes in all, on two cores; BK_FUZZ_MINUTES says otherwise.
set -euo pipefail
cd "$(dirname "$0")/../.."

minutes=${BK_FUZZ_MINUTES:-20}
fuzzers=(tests/fuzz/*_fuzz.c)
# run.sh gives each a share, and four of them three
shares=$((${#fuzzers[@]} + 2 * 4))
exec bash tests/fuzz/run.sh $((minutes * 60 * $(nproc) / shares))
