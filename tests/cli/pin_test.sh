#!/usr/bin/env bash
# PINs, as docs/CLI.md has them: where they come from, that none is ever shown, and what a mistyped URI does. And names
# of files and keys that try to command a terminal.
set -euo pipefail
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

SECRET=SECRET7

# wrap CODE SIGNER ARG... : a small archive, signed by that key; without a terminal to ask at.
wrap() {
    local code=$1 signer=$2
    shift 2
    rm -f "$T/out.bk"
    expect_exit "$code" setsid -w bk-wrap -q -r "$T/kek.pem" -s "$signer" -o "$T/out.bk" "$@"
}

# shows_no TEXT : neither output of the last command holds it.
shows_no() {
    if grep -Fq -- "$1" "$T/stdout" "$T/stderr"; then fail "shown: $1"; else pass "not shown: $1"; fi
}

# quiet_about PATTERN : no message of the last command is like it.
quiet_about() {
    if grep -Eq -- "$1" "$T/stderr"; then fail "said: $1"; else pass "not said: $1"; fi
}

mistyped() {
    local uri
    printf '\n# a PIN in a URI that is wrong is not shown\n'
    for uri in "pkcs1:token=signer;object=backup?pin-value=$SECRET" "token=signer?pin-value=$SECRET" \
        "pkcs11:token=signer;object=backup&pin-value=$SECRET" "pkcs11:token=signer;pin-value=$SECRET" \
        "pkcs11:token=signer;object=backup?pin-source=$SECRET" "pkcs11:token=signer?pin=$SECRET"; do
        wrap 2 "$uri" "$T/plain"
        shows_no "$SECRET"
        # a token that is open already needs no second PIN, and then its source is not looked at
        [[ $uri == *pin-source* ]] || expect_exit 2 bk-wrap -r "$uri" -s "$(key_uri signer backup)" -o "$T/out.bk" "$T/plain"
        shows_no "$SECRET"
        expect_exit 2 bk-unwrap -t "$T/backup.pem" -k "$uri" -o "$T/out" "$T/good.bk"
        shows_no "$SECRET"
        expect_exit 2 bk-verify --level decrypt -t "$T/backup.pem" -k "$uri" --json="$T/json" "$T/good.bk"
        shows_no "$SECRET"
        expect_exit 2 bk-rekey --from "$uri" --to "$T/kek.pem" -s "$uri" -t "$T/backup.pem" "$T/good.bk"
        shows_no "$SECRET"
        expect_exit 2 bk-key export "$uri"
        shows_no "$SECRET"
    done
}

warned() {
    local pin uri
    printf '\n# a PIN in a URI that is right works, with a warning for each option that can carry one\n'
    pin=$(cat "$T/signer.pin")
    wrap 0 "pkcs11:token=signer;object=backup?pin-value=$pin" "$T/plain"
    expect_stderr 'warning: a PIN in a URI is seen by everybody'
    shows_no "$pin"
    uri="pkcs11:token=keks;object=kek?pin-value=$(cat "$T/keks.pin")"
    cp "$T/good.bk" "$T/rekey.bk"
    expect_exit 2 bk-rekey --from "$(key_uri keks kek)" --to "$uri" -s "$(key_uri signer backup)" \
        -t "$T/backup.pem" "$T/rekey.bk"
    expect_stderr 'warning: a PIN in a URI is seen by everybody'
    expect_exit 0 bk-rekey --from "$(key_uri keks kek)" --add "${uri/object=kek/object=other}" \
        -s "$(key_uri signer backup)" -t "$T/backup.pem" -t "rotate:$T/backup.pem" "$T/rekey.bk"
    expect_stderr 'warning: a PIN in a URI is seen by everybody'
    shows_no "$(cat "$T/keks.pin")"
}

commands() {
    local source
    printf '\n# the command that tells a PIN does not read the backup\n'
    source="|cat%20>/dev/null;%20cat%20$T/signer.pin"
    seq 1 5000 >"$T/numbers"
    from_pipe "$T/numbers" 0 bk-wrap -q -r "$T/kek.pem" -s "pkcs11:token=signer;object=backup?pin-source=$source" \
        -o "$T/numbers.bk"
    expect_exit 0 bk-unwrap -q -t "$T/backup.pem" -k "$(key_uri keks kek)" -o "$T/numbers.out" "$T/numbers.bk"
    same_file "$T/numbers" "$T/numbers.out"
    wrap 2 "pkcs11:token=signer;object=backup?pin-source=|exit%203" "$T/plain"
    expect_stderr 'pin-source: .*status 3'
    no_file "$T/out.bk"
}

files() {
    printf '\n# files: who else can read them, and which one is wrong\n'
    chmod 640 "$T/signer.pin"
    wrap 0 "$(key_uri signer backup)" "$T/plain"
    expect_stderr "warning: .*signer.pin: others can read this PIN \(mode 640\)"
    chmod 600 "$T/signer.pin"
    wrap 0 "$(key_uri signer backup)" "$T/plain"
    quiet_about 'others can read'
    : >"$T/empty.pin"
    wrap 9 "pkcs11:token=signer;object=backup?pin-source=file:$T/empty.pin" "$T/plain"
    expect_stderr "empty.pin: the PIN is empty; it was not tried"
    wrap 2 "pkcs11:token=signer;object=backup?pin-source=file:$T/none.pin" "$T/plain"
    expect_stderr "none.pin: cannot open"
}

# As systemd leaves them for a service of another user: readable by the group, through an ACL.
credentials() {
    printf '\n# credentials of a service\n'
    mkdir -p "$T/credentials"
    cp "$T/signer.pin" "$T/credentials/bk-pin.signer"
    chmod 440 "$T/credentials/bk-pin.signer"
    export CREDENTIALS_DIRECTORY=$T/credentials
    wrap 0 'pkcs11:token=signer;object=backup' "$T/plain"
    quiet_about 'others can read'
    rm -f "$T/credentials/bk-pin.signer"
    mkdir "$T/credentials/bk-pin.signer"
    wrap 2 'pkcs11:token=signer;object=backup' "$T/plain"
    expect_stderr 'bk-pin.signer'
    unset CREDENTIALS_DIRECTORY
    wrap 9 'pkcs11:token=signer;object=backup' "$T/plain"
    expect_stderr 'there is no terminal to ask at; no PIN was tried'
}

refused() {
    printf '\n# a refused PIN: once, and what to do\n'
    printf 'wrong\n' >"$T/wrong.pin"
    chmod 600 "$T/wrong.pin"
    wrap 9 "pkcs11:token=signer;object=backup?pin-source=file:$T/wrong.pin" "$T/plain"
    expect_stderr "error: token 'signer': the PIN was refused and is not tried again: C_Login: CKR_PIN_INCORRECT"
    expect_stderr 'hint: each wrong PIN brings the token nearer to locking'
    expect_exit 2 bk-key list "pkcs11:manufacturer=SoftHSM%20project?pin-source=file:$T/wrong.pin"
    expect_stderr 'has a PIN and matches 2 tokens'
}

names() {
    local name
    printf '\n# names of files that would command a terminal, forge a line, or spoil JSON\n'
    name=$'x\xff\033[31m\nall.bk: ok'
    cp "$T/plain" "$T/$name"
    # named by a pattern, to keep it out of this test's own output
    # shellcheck disable=SC2016
    expect_exit 1 sh -c 'exec bk-verify --json="$1/json" -t "$1/backup.pem" "$1"/x*' sh "$T"
    check 'one line of error' test "$(wc -l <"$T/stderr")" -eq 1
    expect_stderr 'x\?\?\[31m\?all\.bk: ok: '
    json_is "$T/json" 'o["archive"].endswith("x??[31m?all.bk: ok") and o["message"] and o["code"] == 1'
    cp "$T/good.bk" "$T/$name"
    # shellcheck disable=SC2016
    expect_exit 0 sh -c 'exec bk-verify --show -t "$1/backup.pem" "$1"/x*' sh "$T"
    check 'no line is forged' test "$(grep -c '^all.bk' "$T/stdout")" -eq 0
    check 'nothing steers the terminal' test -z "$(tr -d '\12\40-\176' <"$T/stdout" | head -c 1)"
    expect_exit 0 bk-key generate --type p256 --use kek \
        "pkcs11:token=keks;object=%1b%5b31m%ff?pin-source=file:$T/keks.pin"
    expect_exit 0 bk-key list --json "pkcs11:token=keks;object=%1b%5b31m%ff;type=private?pin-source=file:$T/keks.pin"
    json_is "$T/stdout" 'o["label"] == "?[31m?" and o["uri"].endswith("object=%1B%5B31m%FF")'
}

printf 'a small backup\n' >"$T/plain"
make_token signer
make_token keks
make_key signer backup p256 sign
make_key keks kek p256 kek
make_key keks other p256 kek
expect_exit 0 bk-wrap -q -r "$T/kek.pem" -s "$(key_uri signer backup)" -o "$T/good.bk" "$T/plain"
mistyped
warned
commands
files
credentials
refused
names
finish
