#!/usr/bin/env bash
# Damage by chance: single bits turned over anywhere, files cut, extended or mixed up. What damages the archive is refused
# by bk-verify and bk-unwrap, and no output file is left; one damaged slot is survived, named, and mended by bk-rekey.
# The places are random: BK_SEED repeats a run.
set -euo pipefail
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
umask 077
seed=${BK_SEED:-$(od -An -tu4 -N 4 /dev/urandom | tr -d ' ')}
RANDOM=$((seed % 32768))
printf '# BK_SEED=%s\n' "$seed"

edit() { /usr/bin/python3 "$ROOT/tests/cli/archive_edit.py" "$@"; }

# run COMMAND... : like expect_exit, but silent: the exit status goes to $status.
run() {
    status=0
    timeout -k 10 120 "$@" </dev/null >"$T/stdout" 2>"$T/stderr" || status=$?
}

# left_behind : whether the output or a staged part of it is there.
left_behind() { [[ -n $(find "$T/out" -mindepth 1 -print -quit) ]]; }

# flip_bit FILE OFFSET BIT : turns it over; done twice it is as it was.
flip_bit() {
    local byte
    byte=$(od -An -tu1 -j "$2" -N 1 "$1")
    # shellcheck disable=SC2059
    printf "\\x$(printf %02x $((byte ^ 1 << $3)))" | dd of="$1" bs=1 seek="$2" conv=notrunc status=none
}

# damaged TEXT FILE : both programs refuse it with exit status 1 and an error; no output.
damaged() {
    local text=$1 file=$2
    run bk-verify -t "$T/backup.pem" "$file"
    if ((status != 1)) || ! grep -q '^bk-verify: error: ' "$T/stderr"; then
        fail "$text: bk-verify exits $status, not 1"
        return
    fi
    run bk-unwrap -t "$T/backup.pem" -k "$kek" -o "$T/out/plain" "$file"
    if ((status != 1)) || ! grep -q '^bk-unwrap: error: ' "$T/stderr"; then
        fail "$text: bk-unwrap exits $status, not 1"
    elif left_behind; then
        fail "$text: bk-unwrap left something behind"
    else
        pass "$text: refused, no output"
    fi
    rm -rf "$T/out"
    mkdir "$T/out"
}

# slot_damaged TEXT LETTER FILE : bk-verify exits 1 and names the slot; bk-unwrap warns of it and restores all the same.
slot_damaged() {
    local text=$1 letter=$2 file=$3
    run bk-verify -t "$T/backup.pem" "$file"
    if ((status != 1)) || ! grep -q "error: .*slot $letter: " "$T/stderr" || ! grep -q '^bk-verify: hint: ' "$T/stderr"; then
        fail "$text: bk-verify exits $status, or does not name slot $letter and the way out"
        return
    fi
    run bk-unwrap -t "$T/backup.pem" -k "$kek" -o "$T/out/plain" "$file"
    if ((status != 0)) || ! grep -q "warning: .*slot $letter is damaged" "$T/stderr"; then
        fail "$text: bk-unwrap exits $status, or does not warn of slot $letter"
    elif ! cmp -s "$T/plain" "$T/out/plain"; then
        fail "$text: restored to something else"
    else
        pass "$text: named by bk-verify, survived by bk-unwrap"
    fi
    rm -f "$T/out/plain"
}

make_token signer
make_token kek
make_key signer backup p256 sign
make_key signer rotator p256 sign
make_key kek ec p256 kek
make_key kek next p256 kek
kek=$(key_uri kek ec)
mkdir "$T/out"
# two groups of segments, and a last segment that is not full
head -c 1100001 /dev/urandom >"$T/plain"
head -c 1100001 /dev/urandom >"$T/plain2"
expect_exit 0 bk-wrap -r "$T/ec.pem" -s "$(key_uri signer backup)" -o "$T/a.bk" "$T/plain"
expect_exit 0 bk-wrap -r "$T/ec.pem" -s "$(key_uri signer backup)" -o "$T/b.bk" "$T/plain2"
layout=$(edit layout "$T/a.bk")
eval "$layout"

# --- single bits --------------------------------------------------------------------------------------------------

cp "$T/a.bk" "$T/x.bk"
edit places "$T/a.bk" 200 "$seed" >"$T/places"
check '200 places to damage' test "$(wc -l <"$T/places")" -eq 200
while read -r part offset bit <&3; do
    flip_bit "$T/x.bk" "$offset" "$bit"
    case $part in
    slotA) slot_damaged "slot A, byte $offset, bit $bit" A "$T/x.bk" ;;
    slotB) slot_damaged "slot B, byte $offset, bit $bit" B "$T/x.bk" ;;
    *) damaged "$part, byte $offset, bit $bit" "$T/x.bk" ;;
    esac
    flip_bit "$T/x.bk" "$offset" "$bit"
done 3<"$T/places"
same_file "$T/a.bk" "$T/x.bk"

for _ in 1 2 3 4 5; do
    in_a=$((4096 + RANDOM % slot_size)) in_b=$((4096 + slot_size + RANDOM % slot_size))
    edit flip "$T/a.bk" "$T/x.bk" "$in_a:3" "$in_b:5"
    damaged "both slots, bytes $in_a and $in_b" "$T/x.bk"
    run bk-verify -t "$T/backup.pem" "$T/x.bk"
    expect_stderr 'neither slot is whole: A: .*; B: '
done

printf '# bk-rekey mends a damaged slot, and what is left is as good as new\n'
edit flip "$T/a.bk" "$T/x.bk" "$((4096 + 100)):0"
expect_exit 0 bk-rekey --from "$kek" --to "$(key_uri kek next)" -s "$(key_uri signer rotator)" -t "$T/backup.pem" \
    -t "rotate:$T/rotator.pem" "$T/x.bk"
expect_exit 0 bk-verify -t "$T/backup.pem" -t "rotate:$T/rotator.pem" "$T/x.bk"

# --- cut and extended ---------------------------------------------------------------------------------------------

for ((i = 0; i < 100; i++)); do
    # at the borders of every part, and anywhere else
    case $i in
    0) length=1 ;;
    1) length=4095 ;;
    2) length=4096 ;;
    3) length=$head ;;
    4) length=$((head + 3)) ;;
    5) length=$index_at ;;
    6) length=$manifest_at ;;
    7) length=$((size - 64)) ;;
    8) length=$((size - 1)) ;;
    *) length=$(((RANDOM << 15 | RANDOM) % size)) ;;
    esac
    head -c "$length" "$T/a.bk" >"$T/x.bk"
    damaged "cut to $length bytes of $size" "$T/x.bk"
done
head -c $((size - 100)) "$T/a.bk" >"$T/x.bk"
expect_exit 1 bk-verify -t "$T/backup.pem" "$T/x.bk"
expect_stderr 'error: .*incomplete|error: .*cut|error: .*no tail'

for length in 1 63 64 4096; do
    { cat "$T/a.bk" && head -c "$length" /dev/zero; } >"$T/x.bk"
    damaged "$length zero bytes more" "$T/x.bk"
done
{ cat "$T/a.bk" && tail -c 64 "$T/a.bk"; } >"$T/x.bk"
damaged 'its tail twice' "$T/x.bk"
cat "$T/a.bk" "$T/b.bk" >"$T/x.bk"
damaged 'two archives in one file' "$T/x.bk"
{ printf 'x' && cat "$T/a.bk"; } >"$T/x.bk"
damaged 'a byte before it' "$T/x.bk"

# --- mixed up -----------------------------------------------------------------------------------------------------

for pair in '0 1' '0 31' '31 32' '1 32'; do
    # shellcheck disable=SC2086
    edit swap "$T/a.bk" "$T/x.bk" $pair
    damaged "frames $pair exchanged" "$T/x.bk"
done
edit exchange "$T/a.bk" "$T/b.bk" "$T/x.bk" 0
damaged "another archive's frame 0" "$T/x.bk"
edit exchange "$T/a.bk" "$T/b.bk" "$T/x.bk" 33
damaged "another archive's last frame" "$T/x.bk"
edit exchange "$T/a.bk" "$T/b.bk" "$T/x.bk" 5 yes
damaged "another archive's frame 5, and the index that goes with it" "$T/x.bk"

# --- no archives --------------------------------------------------------------------------------------------------

: >"$T/x.bk"
damaged 'an empty file' "$T/x.bk"
expect_exit 1 bk-verify -t "$T/backup.pem" "$T/x.bk"
expect_stderr 'error: .*empty'
damaged 'a text file' "$T/backup.pem"
head -c 200000 /dev/zero >"$T/x.bk"
damaged 'zeros' "$T/x.bk"
head -c 200000 /dev/urandom >"$T/x.bk"
damaged 'noise' "$T/x.bk"
expect_exit 1 bk-verify -t "$T/backup.pem" "$T/x.bk"
expect_stderr 'error: .*not a bk archive'

mkdir "$T/folder"
for program in verify unwrap; do
    case $program in
    verify) expect_exit 5 bk-verify -t "$T/backup.pem" "$T/folder" ;;
    unwrap) expect_exit 5 bk-unwrap -t "$T/backup.pem" -k "$kek" -o "$T/out/plain" "$T/folder" ;;
    esac
    expect_stderr "^bk-$program: error: .*folder: .*[Dd]irectory"
done
check 'no output' test -z "$(find "$T/out" -mindepth 1)"

finish
