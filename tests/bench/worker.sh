#!/usr/bin/env bash
# What it costs that a token's module is in a process of its own: the same operations on SoftHSM with the module in the
# program's process and in a worker's, in turn, several rounds of each. Prints medians and the difference; needs the
# release build.
#
#     tests/bench/worker.sh [ROUNDS]
set -euo pipefail
cd "$(dirname "$0")/../.."

rounds=${1:-5}
bin=$PWD/build/release
T=$(mktemp -d "${TMPDIR:-/tmp}/bk-bench.XXXXXX")
trap 'rm -rf "$T"' EXIT
export SOFTHSM2_CONF=$T/softhsm2.conf BK_WORKER=$bin/bk-token-worker LC_ALL=C
mkdir "$T/tokens"
printf 'directories.tokendir = %s/tokens\nobjectstore.backend = file\nlog.level = ERROR\n' "$T" >"$SOFTHSM2_CONF"
softhsm2-util --init-token --free --label bench --pin 1234 --so-pin 5678 >"$T/log"
printf 1234 >"$T/pin"
chmod 600 "$T/pin"
module=$(find /usr/lib -name libsofthsm2.so -print -quit)

# key NAME TYPE USE : makes it.
key() { "$bin/bk-key" generate -q --type "$2" --use "$3" -o "$T/$1.pem" "$(uri "$1" "file:$T/pin")" >"$T/log" 2>&1; }
# uri NAME [PIN-SOURCE] : with the PIN in it where the program has nobody to ask.
uri() {
    local pin=pin-value=1234
    if (($# > 1)); then pin=pin-source=$2; fi
    printf 'pkcs11:token=bench;object=%s?module-path=%s&%s' "$1" "$module" "$pin"
}

key signer p256 sign
"$bin/bk-key" generate -q --type aes256 --use kek "$(uri aes "file:$T/pin")" >"$T/log" 2>&1
key rsa rsa3072 kek
for ((round = 0; round < rounds; round++)); do
    for where in here worker; do
        "$bin/tests/bench/token_bench_$where" "$(uri signer)" "$(uri aes)" "$(uri rsa)" 1000 |
            sed "s/^/$where /" >>"$T/times"
    done
done
awk '
    { all[$1, $2] = all[$1, $2] " " $4; names[$2] = 1; if (!($2 in order)) { order[$2] = ++n; name[n] = $2 } }
    function median(list,   a, k, i, j, t) {
        k = split(list, a, " ")
        for (i = 1; i <= k; i++) for (j = i + 1; j <= k; j++) if (a[j] + 0 < a[i] + 0) { t = a[i]; a[i] = a[j]; a[j] = t }
        return a[int((k + 1) / 2)] / 1000
    }
    END {
        printf "%-18s %14s %14s %12s %8s\n", "operation", "in process us", "in a worker us", "more us", "ratio"
        for (i = 1; i <= n; i++) {
            h = median(all["here", name[i]]); w = median(all["worker", name[i]])
            printf "%-18s %14.1f %14.1f %12.1f %8.3f\n", name[i], h, w, w - h, w / h
        }
    }' "$T/times"
