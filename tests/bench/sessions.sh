#!/usr/bin/env bash
# How many signatures a second N threads get of one token worker, each with a session of its own, for N = 1, 2, 4 ... 32,
# on a device that takes its time for each and works on some at once: tests/mimic's HSM in the house's network. Prints
# rates, medians over the rounds, and ratios to one session. Needs the release build.
#
#     tests/bench/sessions.sh [ROUNDS [PARALLEL]]      default: 3 rounds, a device that works on 8 at once
set -euo pipefail
cd "$(dirname "$0")/../.."

rounds=${1:-3}
parallel=${2:-8}
bin=$PWD/build/release
T=$(mktemp -d "${TMPDIR:-/tmp}/bk-bench.XXXXXX")
trap 'rm -rf "$T"' EXIT
export SOFTHSM2_CONF=$T/softhsm2.conf BK_WORKER=$bin/bk-token-worker BK_MIMIC=$T/mimic.conf LC_ALL=C
mkdir "$T/tokens"
printf 'directories.tokendir = %s/tokens\nobjectstore.backend = file\nlog.level = ERROR\n' "$T" >"$SOFTHSM2_CONF"
softhsm2-util --init-token --free --label bench --pin 1234 --so-pin 5678 >"$T/log"
printf 1234 >"$T/pin"
chmod 600 "$T/pin"
# a signature takes 2 ms at 100 percent
mimic() {
    printf '%s\n' "module = $(find /usr/lib -name libsofthsm2.so -print -quit)" 'profile = lanhsm' "device = $T/device" \
        "parallel = $parallel" "latency = $1" >"$BK_MIMIC"
}
uri="pkcs11:token=bench;object=signer?module-path=$bin/tests/mimic/bk-mimic.so"

mimic 0
"$bin/bk-key" generate -q --type p256 --use sign -o "$T/signer.pem" "$uri&pin-source=file:$T/pin" >"$T/log"
mimic 1000
for ((round = 0; round < rounds; round++)); do
    for threads in 1 2 4 8 16 32; do
        "$bin/tests/bench/token_bench_worker" rate "$uri&pin-value=1234" "$threads" 50 >>"$T/rates"
    done
done
printf 'a signature takes the device 20 ms; it works on %d at once\n' "$parallel"
sort -k 2,2n -k 3,3n "$T/rates" | awk '
    { rates[$2] = rates[$2] " " $3; if (!($2 in seen)) { seen[$2] = 1; order[++n] = $2 } }
    function median(list,   a, k) { k = split(list, a, " "); return a[int((k + 1) / 2)] }
    END {
        printf "%8s %14s %8s\n", "sessions", "signatures/s", "ratio"
        for (i = 1; i <= n; i++)
            printf "%8d %14.1f %8.2f\n", order[i], median(rates[order[i]]), median(rates[order[i]]) / median(rates[1])
    }'
