#!/usr/bin/env bash
# What goes wrong on a bad night: producers that die, programs that are killed, disks that are full, inputs that cannot
# be read. After each the status tells what happened, and nothing is left that could be taken for a backup.
# Code in single quotes is for the shells that are started with it; functions are called by `check` and traps.
# shellcheck disable=SC2016,SC2317
set -euo pipefail
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

KILLS=10 # of each kind

# wrap CODE ARG...
wrap() {
    local code=$1
    shift
    expect_exit "$code" bk-wrap -r "$T/ec.pem" -r "$T/ec2.pem" -s "$(key_uri signer backup)" "$@"
}

# refused CODE PATTERN ARG... : it says why, and nothing is left of $T/x.bk.
refused() {
    local code=$1 pattern=$2
    shift 2
    wrap "$code" -o "$T/x.bk" "$@"
    expect_stderr "$pattern"
    no_file "$T/x.bk"
}

token_uri() { printf 'pkcs11:token=%s?pin-source=file:%s/%s.pin' "$1" "$T" "$1"; }
unwrap() {
    local code=$1
    shift
    expect_exit "$code" bk-unwrap -t "$T/backup.pem" -k "$(token_uri kek)" "$@"
}

# --- producers ----------------------------------------------------------------------------------------------------

producers() {
    refused 7 'sh: exited with status 1' -- sh -c 'cat "$1"; exit 1' sh "$T/plain"
    refused 7 'sh: exited with status 1' -- sh -c 'exit 1'
    refused 7 'sh: exited with status 3' --allow-empty -- sh -c 'exit 3'
    refused 7 'sh: killed by signal 9' -- sh -c 'cat "$1"; kill -9 $$' sh "$T/plain"
    refused 7 'sh: killed by signal 15' -- sh -c 'cat "$1"; kill -TERM $$' sh "$T/plain"
    refused 7 'no-such-command' -- "$T/no-such-command"
    : >"$T/not-executable"
    refused 7 'not-executable.*Permission denied' -- "$T/not-executable"
    refused 7 'No such file|cannot start' -- no-such-command-in-path

    # killed from outside, in the middle
    local pid status=0
    bk-wrap -q -r "$T/ec.pem" -s "$(key_uri signer backup)" -o "$T/x.bk" \
        -- sh -c 'echo $$ >"$1"; cat "$2"; exec sleep 300' sh "$T/producer" "$T/plain" 2>"$T/stderr" </dev/null &
    pid=$!
    check 'the producer has written' wait_until 30 part_grew "$T/x.bk" 1000000
    kill -9 "$(cat "$T/producer")"
    ends_in_time 'its death ends bk-wrap' "$pid"
    wait "$pid" || status=$?
    check 'a killed producer: 7' test "$status" -eq 7
    expect_stderr 'killed by signal 9'
    no_file "$T/x.bk"

    # what the producer complains of is seen, and its standard input is ours
    STDIN=$T/little wrap 0 -q -o "$T/y.bk" -- sh -c 'echo "a complaint" >&2; cat'
    expect_stderr '^a complaint$'
    wrap 5 -o "$T/x.bk" -- cat # /dev/null
    no_file "$T/x.bk"
}

# --- bk-wrap itself -----------------------------------------------------------------------------------------------

# start_wrap : bk-wrap in the background, $wrap_pid, reading a pipe that stays open as descriptor 9: it cannot finish.
start_wrap() {
    rm -f "$T/pipe"
    mkfifo "$T/pipe"
    # a shell without job control starts its background jobs deaf to SIGINT, nohup to SIGHUP, and bk respects that
    env --default-signal=TERM,INT,HUP bk-wrap -q -r "$T/ec.pem" -s "$(key_uri signer backup)" -o "$T/x.bk" \
        <"$T/pipe" 2>"$T/stderr" &
    wrap_pid=$!
    exec 9>"$T/pipe"
}

# feed SIZE : that much of the plaintext.
feed() { head -c "$1" "$T/plain" 2>/dev/null >&9 || fail 'bk-wrap takes its input'; }

# end_wrap : its status in $wrap_status.
end_wrap() {
    wrap_status=0
    ends_in_time 'it ends' "$wrap_pid"
    wait "$wrap_pid" 2>/dev/null || wrap_status=$?
    exec 9>&-
}

# Of an archive whose end was not written nothing can be taken for an archive, however far it came.
killed_before_the_end() {
    local i part good=yes left=0
    put_tokens_by
    for ((i = 0; i < KILLS; i++)); do
        start_wrap
        # the more often, the further: from nothing at all to three groups of segments
        feed $((i * 350000))
        # shellcheck disable=SC2017 # whole groups only
        ((i == 0)) || wait_until 30 part_grew "$T/x.bk" $((i * 350000 / 1048577 * 1048576)) || good=no
        kill -9 "$wrap_pid"
        wait "$wrap_pid" 2>/dev/null || true
        exec 9>&-
        take_tokens_again
        [[ ! -e $T/x.bk ]] || good=no
        while IFS= read -r part; do
            left=$((left + 1))
            if bk-verify -q -t "$T/backup.pem" "$part" >"$T/stdout" 2>"$T/stderr" ||
                bk-unwrap -q -t "$T/backup.pem" -k "$(token_uri kek)" -o "$T/out" "$part" 2>"$T/stderr"; then
                good=no
            fi
            rm -f "$part"
        done < <(parts_of "$T/x.bk")
    done
    check "killed $KILLS times before the end: no file, and $left parts that nothing accepts" test "$good" = yes
    check 'parts were left, and seen' test "$left" -ge $((KILLS / 2))
}

# At any moment of a whole run: there is no file, or it is all there.
killed_at_random() {
    local i pid good=yes took finished=0 start
    put_tokens_by
    start=$(date +%s%N)
    wrap 0 -q -o "$T/measured.bk" "$T/plain"
    took=$((($(date +%s%N) - start) / 1000))
    for ((i = 0; i < KILLS; i++)); do
        rm -f "$T/x.bk"
        bk-wrap -q -r "$T/ec.pem" -s "$(key_uri signer backup)" -o "$T/x.bk" "$T/plain" 2>"$T/stderr" </dev/null &
        pid=$!
        sleep "$(awk -v us="$took" -v seed="$RANDOM" 'BEGIN { srand(seed); printf "%.4f", rand() * us / 1000000 }')"
        kill -9 "$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
        take_tokens_again
        if [[ -e $T/x.bk ]]; then
            finished=$((finished + 1))
            rm -f "$T/out"
            bk-unwrap -q -t "$T/backup.pem" -k "$(token_uri kek)" -o "$T/out" "$T/x.bk" 2>"$T/stderr" &&
                cmp -s "$T/plain" "$T/out" || good=no
        fi
    done
    rm -f "$T"/.x.bk.*.part "$T/x.bk"
    check "killed $KILLS times at random: nothing, or all of it ($finished times)" test "$good" = yes
}

stopped() {
    local signal
    for signal in TERM INT HUP; do
        start_wrap
        feed 1500000
        check 'in the middle' wait_until 30 part_grew "$T/x.bk" 1000000
        kill "-$signal" "$wrap_pid"
        end_wrap
        check "ends by SIG$signal" test "$wrap_status" -eq $((128 + $(kill -l "$signal")))
        no_file "$T/x.bk"
    done
    # and takes a producer along that does not want to go
    env --default-signal=TERM,INT,HUP bk-wrap -q -r "$T/ec.pem" -s "$(key_uri signer backup)" -o "$T/x.bk" \
        -- sh -c 'trap "" TERM INT HUP; echo $$ >"$1"; cat "$2"; sleep 300 & wait' sh "$T/stubborn" "$T/plain" \
        2>"$T/stderr" </dev/null &
    wrap_pid=$!
    check 'in the middle' wait_until 30 part_grew "$T/x.bk" 1000000
    kill -TERM "$wrap_pid"
    end_wrap
    check 'ends by SIGTERM' test "$wrap_status" -eq 143
    check 'its producer is gone' wait_until 30 ended "$(cat "$T/stubborn")"
    no_file "$T/x.bk"

    # bk-unwrap as well
    mkfifo "$T/archive"
    bk-unwrap -q -t "$T/backup.pem" -k "$(token_uri kek)" -o "$T/x.out" - <"$T/archive" 2>"$T/stderr" &
    wrap_pid=$!
    exec 9>"$T/archive"
    head -c 2500000 "$T/good.bk" >&9
    check 'in the middle' wait_until 30 part_grew "$T/x.out" 1000000
    kill -TERM "$wrap_pid"
    end_wrap
    check 'bk-unwrap ends by SIGTERM' test "$wrap_status" -eq 143
    no_file "$T/x.out"
}

# Somebody else works in the same folder.
interfered() {
    start_wrap
    feed 1500000
    check 'in the middle' wait_until 30 part_grew "$T/x.bk" 1000000
    printf 'of somebody else\n' >"$T/x.bk"
    exec 9>&-
    end_wrap
    check 'a file that came meanwhile is not replaced: 2' test "$wrap_status" -eq 2
    expect_stderr 'exists already'
    check 'and is as it was' test "$(cat "$T/x.bk")" = 'of somebody else'
    rm "$T/x.bk"
    no_file "$T/x.bk"

    start_wrap
    feed 1500000
    check 'in the middle' wait_until 30 part_grew "$T/x.bk" 1000000
    rm "$T"/.x.bk.*.part
    exec 9>&-
    end_wrap
    check 'a staged file that was removed: 5' test "$wrap_status" -eq 5
    expect_stderr 'staged file .* is gone'
    no_file "$T/x.bk"
}

# --- disks --------------------------------------------------------------------------------------------------------

mounted=no
unmount() { [[ $mounted == no ]] || umount "$T/small"; }
on_exit() {
    local status=$?
    set +e
    unmount
    (exit "$status")
    clean_up
}
trap on_exit EXIT

full_disk() {
    if ((EUID != 0)) || ! mkdir "$T/small" || ! mount -t tmpfs -o size=2m,mode=700 tmpfs "$T/small" 2>/dev/null; then
        printf '# skipped: a full disk needs leave to mount one\n'
        return
    fi
    mounted=yes
    wrap 5 -o "$T/small/x.bk" "$T/plain"
    expect_stderr 'small/x.bk: cannot have the .*No space left'
    no_file "$T/small/x.bk"
    # of a length that is not known before
    wrap 5 -o "$T/small/x.bk" -- cat "$T/plain"
    expect_stderr 'small/x.bk: cannot write.*No space left'
    no_file "$T/small/x.bk"
    unwrap 5 -o "$T/small/out" "$T/good.bk"
    expect_stderr 'small/out: .*No space left'
    no_file "$T/small/out"
    cp "$T/small.bk" "$T/small/old.bk"
    wrap 5 --force -o "$T/small/old.bk" "$T/plain"
    same_file "$T/small.bk" "$T/small/old.bk"

    # not one byte is left
    head -c 3000000 /dev/zero >"$T/small/filler" 2>/dev/null || true
    wrap 5 --manifest "$T/small/m" -o "$T/x.bk" "$T/plain"
    expect_stderr 'small/m: .*No space left'
    no_file "$T/small/m"
    no_file "$T/x.bk"
    expect_exit 5 bk-key export -o "$T/small/k.pem" "$(key_uri signer backup)"
    no_file "$T/small/k.pem"
    wrap 5 --json="$T/small/j" -o "$T/j.bk" "$T/plain"
    expect_stderr '[-]-json'
    umount "$T/small"
    mounted=no
}

# The same without privileges: a file that may grow no further.
size_limit() {
    wrap 0 -q --force -o "$T/limited.bk" "$T/plain" # as it is without the limit
    expect_exit 5 bash -c 'ulimit -f 1024; exec "$@"' bash \
        bk-wrap -r "$T/ec.pem" -s "$(key_uri signer backup)" -o "$T/x.bk" "$T/plain"
    expect_stderr 'x.bk: .*File too large'
    no_file "$T/x.bk"
    expect_exit 5 bash -c 'ulimit -f 1024; exec "$@"' bash \
        bk-unwrap -t "$T/backup.pem" -k "$(token_uri kek)" -o "$T/x.out" "$T/good.bk"
    no_file "$T/x.out"
}

dev_full() {
    expect_exit 5 sh -c 'exec "$@" >/dev/full' sh \
        bk-wrap -r "$T/ec.pem" -s "$(key_uri signer backup)" -o - "$T/plain"
    expect_stderr 'standard output: .*No space left'
    wrap 5 -o /dev/full "$T/plain"
    check '/dev/full is still a device' test -c /dev/full
    expect_exit 5 sh -c 'exec "$@" >/dev/full' sh bk-verify -t "$T/backup.pem" "$T/good.bk"
    expect_exit 5 sh -c 'exec "$@" >/dev/full' sh bk-verify --json -t "$T/backup.pem" "$T/good.bk"
    expect_exit 5 sh -c 'exec "$@" >/dev/full' sh bk-key list "$(token_uri signer)"
    expect_exit 5 sh -c 'exec "$@" >/dev/full' sh bk-unwrap --meta -t "$T/backup.pem" -k "$(token_uri kek)" "$T/good.bk"
}

# --- inputs -------------------------------------------------------------------------------------------------------

inputs() {
    refused 5 'Is a directory' "$T"
    refused 5 'No such file' "$T/nothing"
    refused 5 'cannot read at byte' /proc/self/mem # page 0 is not mapped: EIO
    refused 5 'File name too long' "$T/$(printf 'n%.0s' {1..300})"
    expect_exit 5 sh -c 'exec "$@" <&-' sh bk-wrap -r "$T/ec.pem" -s "$(key_uri signer backup)" -o "$T/x.bk"
    expect_stderr 'empty'
    no_file "$T/x.bk"
    # closed standard descriptors must not become the archive's: messages would be written into it
    expect_exit 0 sh -c 'exec "$@" <&- >&- 2>&-' sh \
        bk-wrap -r "$T/ec.pem" -s "$(key_uri signer backup)" -o "$T/closed.bk" "$T/plain"
    expect_exit 0 bk-verify -q -t "$T/backup.pem" "$T/closed.bk"
    expect_exit 5 sh -c 'exec "$@" >&-' sh bk-wrap -r "$T/ec.pem" -s "$(key_uri signer backup)" -o - "$T/plain"
    expect_stderr 'standard output: .*Bad file descriptor'
    expect_exit 5 sh -c 'exec "$@" >&-' sh bk-unwrap -t "$T/backup.pem" -k "$(token_uri kek)" -o - "$T/good.bk"

    unwrap 5 -o "$T/x.out" "$T"
    unwrap 5 -o "$T/x.out" "$T/nothing.bk"
    unwrap 1 -o "$T/x.out" /dev/null
    expect_exit 2 bk-verify -t "$T/backup.pem" /dev/null
    expect_exit 6 bk-verify -q -t "$T/backup.pem" "$T/good.bk" "$T/nothing.bk"
    expect_exit 1 bk-verify -q -t "$T/backup.pem" "$T/good.bk" "$T/nothing.bk" "$T/plain"
    no_file "$T/x.out"
    refused 5 'x.bk|No such file|folder' -o /proc/x.bk "$T/plain"
    check 'nothing at all is left staged' test -z "$(find "$T" -name '*.part')"
}

make_token signer
make_token kek
make_key signer backup p256 sign
make_key kek ec p256 kek
make_key kek ec2 p256 kek
head -c 3500001 /dev/urandom >"$T/plain"
wrap 0 -q --meta a=b -o "$T/good.bk" "$T/plain"
head -c 1000 "$T/plain" >"$T/little"
wrap 0 -q -o "$T/small.bk" "$T/little"

producers
killed_before_the_end
killed_at_random
stopped
interfered
full_disk
size_limit
dev_full
inputs
finish
