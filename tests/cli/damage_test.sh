#!/usr/bin/env bash
# Damage by chance: single bits turned over anywhere, files cut, extended or mixed up. What damages the archive is
# refused by bk-verify and bk-unwrap, and no output file is left; one damaged slot is survived, named, and mended by
# bk-rekey.
# The places are random: BK_SEED repeats a run.
set -euo pipefail
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
umask 077
shopt -s nullglob dotglob
seed=${BK_SEED:-$(od -An -tu4 -N 4 /dev/urandom | tr -d ' ')}
printf '# BK_SEED=%s\n' "$seed"

edit() { /usr/bin/python3 "$ROOT/tests/cli/archive_edit.py" "$@"; }

# run COMMAND... : like expect_exit, but silent: the exit status goes to $status, the messages to $messages.
run() {
    status=0
    timeout -k 10 120 "$@" </dev/null >"$T/stdout" 2>"$T/stderr" || status=$?
    messages=$(<"$T/stderr")
}

unwrap() { run bk-unwrap -t "$T/backup.pem" -k "$kek" -o "$T/out/plain" "$1"; }

# left_behind : whether the output or a staged part of it is there.
left_behind() {
    local -a found=("$T"/out/*)
    ((${#found[@]} > 0))
}

# unwrap_refuses TEXT FILE
unwrap_refuses() {
    unwrap "$2"
    if ((status != 1)) || [[ $messages != *'bk-unwrap: error: '* ]]; then
        fail "$1: bk-unwrap exits $status, not 1"
    elif left_behind; then
        fail "$1: bk-unwrap left something behind"
        rm -rf "$T"/out/*
    else
        pass "$1: refused, no output"
    fi
}

# unwrap_survives TEXT LETTER FILE : a warning that names the slot, and the plaintext all the same.
unwrap_survives() {
    unwrap "$3"
    if ((status != 0)) || [[ $messages != *"warning: "*"slot $2 is damaged"* ]]; then
        fail "$1: bk-unwrap exits $status, or does not warn of slot $2"
    elif ! cmp -s "$T/plain" "$T/out/plain"; then
        fail "$1: restored to something else"
    else
        pass "$1: survived"
    fi
    rm -rf "$T"/out/*
}

# verify_all FOLDER : bk-verify over all that is in it, in one run, which goes on after each failure and exits 1; one
# line of JSON for each file, in $results in the order of $files.
verify_all() {
    files=("$1"/*)
    expect_exit 1 bk-verify -q "--json=$T/json" -t "$T/backup.pem" "${files[@]}"
    mapfile -t results <"$T/json"
    check 'an answer for each archive' test "${#results[@]}" -eq "${#files[@]}"
    check 'and an error' test "$(grep -c '^bk-verify: error: ' "$T/stderr")" -ge "${#files[@]}"
}

# damaged TEXT FILE : both programs refuse it.
damaged() {
    run bk-verify -t "$T/backup.pem" "$2"
    if ((status != 1)) || [[ $messages != *'bk-verify: error: '* ]]; then
        fail "$1: bk-verify exits $status, not 1"
    fi
    unwrap_refuses "$1" "$2"
}

make_token signer
make_token kek
make_key signer backup p256 sign
make_key signer rotator p256 sign
make_key kek ec p256 kek
make_key kek next p256 kek
kek=$(key_uri kek ec)
mkdir "$T/out" "$T/bits" "$T/cuts"
wrap() { expect_exit 0 bk-wrap -r "$T/ec.pem" -s "$(key_uri signer backup)" -o "$T/$1" "$T/$2"; }
head -c 100001 /dev/urandom >"$T/plain"
wrap a.bk plain

# --- single bits --------------------------------------------------------------------------------------------------

# one_bit FILE RESULT : refused by the layer that it is in; a slot is survived.
one_bit() {
    local file=$1 result=$2 name part offset bit layer
    name=${file##*/}
    IFS=. read -r part offset bit <<<"$name"
    case $part in
    slot[AB]) layer=slots ;;
    *) layer=$part ;;
    esac
    if [[ $result != *'"status":"failed","code":1,"layer":"'"$layer"'",'* ]]; then
        fail "$part, byte $offset, bit $bit: bk-verify says $result"
    elif [[ $part == slot? && $result != *"slot ${part#slot}: "*"bk-rekey mends"* ]]; then
        fail "$part, byte $offset, bit $bit: bk-verify does not name the slot and the way out: $result"
    elif [[ $part == slot? ]]; then
        unwrap_survives "$part, byte $offset, bit $bit" "${part#slot}" "$file"
    else
        unwrap_refuses "$part, byte $offset, bit $bit" "$file"
    fi
}

edit bits "$T/a.bk" "$T/bits" 200 "$seed"
verify_all "$T/bits"
check '200 places' test "${#files[@]}" -eq 200
for i in "${!files[@]}"; do one_bit "${files[i]}" "${results[i]}"; done
rm -rf "$T/bits"

layout=$(edit layout "$T/a.bk")
# what it prints are assignments of numbers; these two are used here
slot_size=$(grep -Eo '\bslot_size=[0-9]+' <<<"$layout" | cut -d= -f2)
size=$(grep -Eo ' size=[0-9]+' <<<"$layout" | cut -d= -f2)
RANDOM=$((seed % 32768))
for _ in 1 2 3 4 5; do
    in_a=$((4096 + RANDOM % slot_size)) in_b=$((4096 + slot_size + RANDOM % slot_size))
    edit flip "$T/a.bk" "$T/x.bk" "$in_a:3" "$in_b:5"
    damaged "both slots, bytes $in_a and $in_b" "$T/x.bk"
    expect_stderr 'neither slot is whole: A: .*; B: '
done

printf '# bk-rekey mends a damaged slot, and what is left is as good as new\n'
for byte in 4100 $((4096 + slot_size + 100)); do
    edit flip "$T/a.bk" "$T/x.bk" "$byte:0"
    expect_exit 0 bk-rekey --from "$kek" --to "$(key_uri kek next)" -s "$(key_uri signer rotator)" -t "$T/backup.pem" \
        -t "rotate:$T/rotator.pem" "$T/x.bk"
    expect_exit 0 bk-verify -t "$T/backup.pem" -t "rotate:$T/rotator.pem" "$T/x.bk"
done

# --- cut and extended ---------------------------------------------------------------------------------------------

edit cuts "$T/a.bk" "$T/cuts" 100 "$seed"
verify_all "$T/cuts"
check '100 lengths' test "${#files[@]}" -eq 100
for i in "${!files[@]}"; do
    length=${files[i]##*/}
    [[ ${results[i]} == *'"status":"failed","code":1,"layer":"'* && ${results[i]} != *'"message":null'* ]] ||
        fail "cut to $length bytes: bk-verify says ${results[i]}"
    unwrap_refuses "cut to $length bytes of $size" "${files[i]}"
done
rm -rf "$T/cuts"
printf '# an archive without its end is called incomplete, and not only damaged\n'
head -c $((size - 100)) "$T/a.bk" >"$T/x.bk"
expect_exit 1 bk-verify -t "$T/backup.pem" "$T/x.bk"
expect_stderr 'error: .*not complete'
expect_stderr 'hint: '

for length in 1 63 64 4096; do
    { cat "$T/a.bk" && head -c "$length" /dev/zero; } >"$T/x.bk"
    damaged "$length zero bytes more" "$T/x.bk"
done
{ cat "$T/a.bk" && tail -c 64 "$T/a.bk"; } >"$T/x.bk"
damaged 'its tail twice' "$T/x.bk"
cat "$T/a.bk" "$T/a.bk" >"$T/x.bk"
damaged 'twice in one file' "$T/x.bk"
{ printf 'x' && cat "$T/a.bk"; } >"$T/x.bk"
damaged 'a byte before it' "$T/x.bk"

# --- mixed up -----------------------------------------------------------------------------------------------------

# two groups of segments, and a last segment that is not full
head -c 1100001 /dev/urandom >"$T/plain"
head -c 1100001 /dev/urandom >"$T/plain2"
wrap c.bk plain
wrap d.bk plain2
for pair in '0 1' '0 31' '31 32' '1 32'; do
    # shellcheck disable=SC2086
    edit swap "$T/c.bk" "$T/x.bk" $pair
    damaged "frames $pair exchanged" "$T/x.bk"
done
edit exchange "$T/c.bk" "$T/d.bk" "$T/x.bk" 0
damaged "another archive's frame 0" "$T/x.bk"
edit exchange "$T/c.bk" "$T/d.bk" "$T/x.bk" 33
damaged "another archive's last frame" "$T/x.bk"
edit exchange "$T/c.bk" "$T/d.bk" "$T/x.bk" 5 yes
damaged "another archive's frame 5, and the index that goes with it" "$T/x.bk"

# --- no archives --------------------------------------------------------------------------------------------------

: >"$T/x.bk"
damaged 'an empty file' "$T/x.bk"
expect_stderr 'error: .*empty'
damaged 'a text file' "$T/backup.pem"
head -c 200000 /dev/zero >"$T/x.bk"
damaged 'zeros' "$T/x.bk"
head -c 200000 /dev/urandom >"$T/x.bk"
damaged 'noise' "$T/x.bk"
expect_stderr 'error: .*not a bk archive'

mkdir "$T/folder"
expect_exit 5 bk-verify -t "$T/backup.pem" "$T/folder"
expect_stderr '^bk-verify: error: .*folder: .*[Dd]irectory'
expect_exit 5 bk-unwrap -t "$T/backup.pem" -k "$kek" -o "$T/out/plain" "$T/folder"
expect_stderr '^bk-unwrap: error: .*folder: .*[Dd]irectory'
no_file "$T/out/plain"

finish
