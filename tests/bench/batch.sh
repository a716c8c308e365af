#!/usr/bin/env bash
# What an archive costs when it is one of many and when it is made alone: small ones of 1 KiB, and ones of 16 MiB, as
# WAL segments are, on SoftHSM. Alone each has its own start, login and token worker. Prints milliseconds an archive, of
# which so many are the token's, and needs the release build. FOLDER is where the archives go, so that a disk with its
# syncs can be told from memory.
#
#     tests/bench/batch.sh [COUNT [FOLDER]]      default: 100, /dev/shm
set -euo pipefail
cd "$(dirname "$0")/../.."

count=${1:-100}
bin=$PWD/build/release
T=$(mktemp -d "${TMPDIR:-/tmp}/bk-bench.XXXXXX")
O=$(mktemp -d "${2:-/dev/shm}/bk-bench.XXXXXX")
trap 'rm -rf "$T" "$O"' EXIT
export SOFTHSM2_CONF=$T/softhsm2.conf LC_ALL=C
mkdir "$T/tokens"
printf 'directories.tokendir = %s/tokens\nobjectstore.backend = file\nlog.level = ERROR\n' "$T" >"$SOFTHSM2_CONF"
for token in signer kek; do
    softhsm2-util --init-token --free --label "$token" --pin 1234 --so-pin 5678 >"$T/log"
done
(umask 077 && printf 1234 >"$T/pin")
module=$(find /usr/lib -name libsofthsm2.so -print -quit)

uri() { printf 'pkcs11:token=%s;object=%s?module-path=%s&pin-source=file:%s/pin' "$1" "$2" "$module" "$T"; }
key() { "$bin/bk-key" generate -q --type p256 --use "$3" -o "$T/$2.pem" "$(uri "$1" "$2")" >"$T/log" 2>&1; }
wrap() { "$bin/bk-wrap" -q -r "$T/first.pem" -r "$T/second.pem" -s "$(uri signer backup)" "$@"; }
now() { printf '%d' $(($(date +%s%N) / 1000)); }

# tell WHAT COUNT MICROSECONDS TRACE
tell() {
    awk -v what="$1" -v n="$2" -v us="$3" '
        /^bk-token-worker: C_.* us$/ { token += $(NF - 1); made[$2]++ }
        END {
            printf "%-22s %8.2f ms an archive, %6.2f of it in the token; %d logins, %d signatures\n", what,
                us / n / 1000, token / n / 1000, made["C_Login:"], made["C_Sign:"]
        }' "$4"
}

alone() {
    local start i
    start=$(now)
    for ((i = 0; i < $3; i++)); do
        BK_TOKEN_TRACE=1 wrap -o "$O/$i.bk" "$2" 2>>"$T/trace"
        rm "$O/$i.bk"
    done
    tell "$1, alone" "$3" $(($(now) - start)) "$T/trace"
    rm "$T/trace"
}

in_a_batch() {
    local start i
    for ((i = 0; i < $3; i++)); do printf '%s\t%s\n' "$2" "$O/$i.bk"; done >"$T/list"
    start=$(now)
    BK_TOKEN_TRACE=1 wrap --batch "$T/list" 2>"$T/trace"
    tell "$1, in a batch" "$3" $(($(now) - start)) "$T/trace"
    rm -f "$T/trace" "$O"/*.bk
}

key signer backup sign
key kek first kek
key kek second kek
head -c 1024 /dev/urandom >"$T/small"
head -c 16777216 /dev/urandom >"$T/large"
alone '1 KiB' "$T/small" "$count"
in_a_batch '1 KiB' "$T/small" "$count"
alone '16 MiB' "$T/large" "$count"
in_a_batch '16 MiB' "$T/large" "$count"
