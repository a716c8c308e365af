#!/usr/bin/env bash
# Size must not matter: 5 GiB through a pipe need no more memory than 1 GiB, and rotating the keys of 5 GiB reads and
# writes what rotating those of 1 MiB does. Takes some minutes and 7 GiB of disk (of TMPDIR), which it gives back.
# shellcheck disable=SC2317 # functions are called by `check`
set -euo pipefail
# shellcheck source=../cli/lib.sh
. "$(dirname "$0")/../cli/lib.sh"

MIB=1048576
GIB=$((1024 * MIB))
JOBS=2 # memory is bounded for each thread; the default is one a core
MEMORY_KIB=65536

token_uri() { printf 'pkcs11:token=%s?pin-source=file:%s/%s.pin' "$1" "$T" "$1"; }

# plaintext BYTES : reproducible noise that costs little: a key stream.
plaintext() {
    { openssl enc -aes-128-ctr -K 000102030405060708090a0b0c0d0e0f -iv 00000000000000000000000000000000 -in /dev/zero \
        2>/dev/null || true; } | head -c "$1"
}

# peak_of NAME COMMAND ARG... : runs it with our standard input and output; its exit status counts. The peak of its
# resident memory, in KiB, goes to $T/NAME.peak, the seconds to $T/NAME.seconds.
peak_of() {
    local name=$1
    shift
    /usr/bin/python3 -c '
import resource, subprocess, sys, time
start = time.monotonic()
status = subprocess.call(sys.argv[3:])
with open(sys.argv[1], "w") as f:
    print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, file=f)
with open(sys.argv[2], "w") as f:
    print("%.1f" % (time.monotonic() - start), file=f)
sys.exit(status if status >= 0 else 128 - status)' "$T/$name.peak" "$T/$name.seconds" "$@"
}

# measured NAME BYTES : what peak_of found, for the log.
measured() {
    printf '# %-16s %11d bytes: %6d KiB at most, %s s\n' "$1" "$2" "$(cat "$T/$1.peak")" "$(cat "$T/$1.seconds")"
}

# round_trip NAME BYTES : a pipe in, a pipe out, and each program's memory.
round_trip() {
    local name=$1 bytes=$2 archive=$T/$1.bk
    plaintext "$bytes" | sha256sum >"$T/$name.wanted"
    plaintext "$bytes" | peak_of "wrap.$name" bk-wrap -q -j "$JOBS" -r "$T/ec.pem" -r "$T/ec384.pem" \
        -s "$(key_uri signer backup)" -o "$archive" 2>"$T/stderr" || fail "wrap $name"
    measured "wrap.$name" "$bytes"
    peak_of "verify.$name" bk-verify -q -j "$JOBS" -t "$T/backup.pem" "$archive" 2>"$T/stderr" || fail "verify $name"
    measured "verify.$name" "$bytes"
    peak_of "unwrap.$name" bk-unwrap -q -j "$JOBS" -t "$T/backup.pem" -k "$(token_uri kek)" -o - "$archive" \
        2>"$T/stderr" | sha256sum >"$T/$name.got" || fail "unwrap $name"
    measured "unwrap.$name" "$bytes"
    same_file "$T/$name.wanted" "$T/$name.got"
    expect_exit 0 bk-verify --level signature --show --json -t "$T/backup.pem" "$archive"
    json_is "$T/stdout" "o['plaintextLength'] == $bytes"

    # the same as a stream, whose signature comes last
    peak_of "stream.$name" bk-unwrap -q -j "$JOBS" --allow-unverified -t "$T/backup.pem" -k "$(token_uri kek)" -o - - \
        < <(cat "$archive") 2>"$T/stderr" | sha256sum >"$T/$name.got" || fail "stream $name"
    measured "stream.$name" "$bytes"
    same_file "$T/$name.wanted" "$T/$name.got"
}

same_memory() {
    local program one five
    for program in wrap verify unwrap stream; do
        one=$(cat "$T/$program.one.peak")
        five=$(cat "$T/$program.five.peak")
        check "$program: $one and $five KiB, within 10 percent" \
            test $((five * 10)) -le $((one * 11)) -a $((one * 10)) -le $((five * 11))
        check "$program: at most $MEMORY_KIB KiB" test "$one" -le "$MEMORY_KIB" -a "$five" -le "$MEMORY_KIB"
    done
}

# rekey NAME : in place; what it says that it read and wrote goes to $T/NAME.read and $T/NAME.written, and if strace is
# there what the kernel saw on the archive to $T/NAME.read.kernel and $T/NAME.written.kernel.
rekey() {
    local name=$1 archive=$T/$1.bk trace=()
    [[ $with_strace == no ]] || trace=(strace -f -y -e 'trace=read,pread64,readv,preadv,write,pwrite64,writev,pwritev'
        -o "$T/$name.trace")
    expect_exit 0 "${trace[@]}" bk-rekey --json --from "$(key_uri kek ec)" --to "$(key_uri kek next)" \
        -s "$(key_uri kek rotator)" -t "$T/backup.pem" -t "rotate:$T/rotator.pem" "$archive"
    json_is "$T/stdout" "o['changed'] and o['generation'] == 2 and o['bytesRead'] > 0 and o['bytesWritten'] > 0"
    member bytesRead >"$T/$name.read"
    member bytesWritten >"$T/$name.written"
    printf '# rekey %s: %s bytes read, %s written\n' "$name" "$(cat "$T/$name.read")" "$(cat "$T/$name.written")"
    [[ $with_strace == no ]] || count_calls "$name"
}

member() { /usr/bin/python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))[sys.argv[2]])' "$T/stdout" "$1"; }

# The bytes that calls on the archive's descriptor returned.
count_calls() {
    awk -v path="<$T/$1.bk>" -v reads="$T/$1.read.kernel" -v writes="$T/$1.written.kernel" '
        index($0, path) && $NF ~ /^[0-9]+$/ { if ($0 ~ / p?read/) read += $NF; else written += $NF }
        END { print read + 0 > reads; print written + 0 > writes }' "$T/$1.trace"
    printf '# rekey %s: %s bytes read, %s written, says the kernel\n' "$1" "$(cat "$T/$1.read.kernel")" \
        "$(cat "$T/$1.written.kernel")"
}

same_rekey() {
    local suffix
    rekey little
    rekey five
    for suffix in '' .kernel; do
        [[ -e $T/five.read$suffix ]] || continue
        same_file "$T/little.read$suffix" "$T/five.read$suffix"
        same_file "$T/little.written$suffix" "$T/five.written$suffix"
    done
    expect_exit 0 bk-verify -q -t "$T/backup.pem" -t "rotate:$T/rotator.pem" "$T/five.bk"
    # opened by the new key, at the far end
    plaintext "$((5 * GIB))" | tail -c 1000 >"$T/wanted"
    expect_exit 0 bk-unwrap -q -t "$T/backup.pem" -t "rotate:$T/rotator.pem" -k "$(key_uri kek next)" \
        --range "$((5 * GIB - 1000)):" -o - "$T/five.bk"
    same_file "$T/wanted" "$T/stdout"
}

# strace_works : it is installed, may trace here, and bk, which refuses to be traced by others, lets its parent.
with_strace=no
strace_works() { strace -f -o /dev/null bk-wrap --version >/dev/null 2>&1; }
if strace_works; then with_strace=yes; else printf '# without strace\n'; fi

room=$(df -Pk "$T" | awk 'NR == 2 { print $4 }')
if ((room < 8 * MIB)); then
    fail "8 GiB of room in the temporary folder, not $room KiB"
    finish
fi
make_token signer
make_token kek
make_key signer backup p256 sign
make_key kek ec p256 kek
make_key kek ec384 p384 kek
make_key kek next p256 kek
make_key kek rotator p256 sign

round_trip one "$GIB"
rm "$T/one.bk"
round_trip five "$((5 * GIB))"
same_memory
plaintext "$MIB" | bk-wrap -q -r "$T/ec.pem" -r "$T/ec384.pem" -s "$(key_uri signer backup)" -o "$T/little.bk" \
    2>"$T/stderr" || fail 'wrap little'
same_rekey
rm -f "$T"/*.bk
finish
