#!/usr/bin/env bash
# The bad day: a fresh machine with bk, the archive, a token and its PIN, and from the runbook the signer's fingerprint.
# No home, no configuration, no memory of options. Whoever does exactly what the messages say gets the data back; and
# whoever is shown a forged archive, a wrong token or a damaged copy is told so.
set -euo pipefail
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

# fresh CODE COMMAND ARG... : nothing in the environment but the way to the programs and to the token; no terminal.
fresh() {
    local code=$1
    shift
    expect_exit "$code" env -i HOME="$T/empty-home" PATH="$BK_BIN:/usr/bin:/bin" SOFTHSM2_CONF="$SOFTHSM2_CONF" \
        setsid -w "$@"
}

# hint PATTERN : what the last hint says that matches, or nothing.
hint() { grep '^bk-[a-z]*: hint: ' "$T/stderr" | grep -Eom 1 -- "$1" || true; }

# told TEXT VALUE : the message told us something.
told() {
    if [[ -n $2 ]]; then pass "the message tells $1"; else fail "the message does not tell $1"; fi
}

# step_by_step ARCHIVE : each step uses only what the messages before it said, and the runbook.
step_by_step() {
    local archive=$1 trust option key out
    out=$(mktemp -u "$T/out.XXXXXX")

    fresh 2 bk-unwrap "$archive"
    option=$(grep -Eom 1 -- '-o FILE' "$T/stderr" || true)
    told 'how to name an output' "$option"

    fresh 2 bk-unwrap "${option% FILE}" "$out" "$archive"
    trust=$(hint '-t sha256:[0-9a-f]{64}')
    told 'who signed it' "$trust"
    told 'to compare that with the runbook' "$(hint 'compare with your runbook')"
    check 'it is who stands in the runbook' test "${trust#-t }" = "$(cat "$T/runbook")"
    no_file "$out"

    # shellcheck disable=SC2086 # two words, as an operator would paste them
    fresh 9 bk-unwrap $trust "${option% FILE}" "$out" "$archive"
    key=$(hint "pkcs11:[^']*PATH")
    told 'where to say the PIN' "$key"
    told 'by which option' "$(hint '-k')"
    no_file "$out"

    # shellcheck disable=SC2086
    fresh 0 bk-unwrap $trust -k "${key%PATH}$T/restore.pin" "${option% FILE}" "$out" "$archive"
    same_file "$T/plain" "$out"
}

# The token stays in the safe at first: the message says which one to fetch.
token_missing() {
    local uri
    use_tokens no-tokens
    fresh 3 bk-unwrap -t "$(cat "$T/runbook")" -o "$T/o" "$T/a.bk"
    expect_stderr 'no token'
    uri=$(hint 'pkcs11:[^)]*token=restore%20safe[^)]*')
    told 'which token opens it' "$uri"
    told 'that there is another one' "$(hint 'token=elsewhere')"
    told 'what to do' "$(hint 'connect that token')"
    use_tokens tokens
    fresh 0 bk-unwrap -t "$(cat "$T/runbook")" -k "$uri?pin-source=file:$T/restore.pin" -o "$T/o" "$T/a.bk"
    same_file "$T/plain" "$T/o"
}

# Whoever can write to the storage can make an archive that opens, and it names its maker.
forged() {
    local trust
    fresh 2 bk-unwrap -o "$T/f" "$T/forged.bk"
    trust=$(hint '-t sha256:[0-9a-f]{64}')
    check 'it is not who stands in the runbook' test "${trust#-t }" != "$(cat "$T/runbook")"
    fresh 1 bk-unwrap -t "$(cat "$T/runbook")" -k "pkcs11:token=restore%20safe?pin-source=file:$T/restore.pin" \
        -o "$T/f" "$T/forged.bk"
    expect_stderr 'not trusted'
    told 'to compare before trusting' "$(hint 'compare')"
    no_file "$T/f"
}

# The copy on this disk is cut short or damaged: said before a token is needed.
bad_copies() {
    local size
    size=$(stat -c %s "$T/a.bk")
    head -c $((size - 1000)) "$T/a.bk" >"$T/cut.bk"
    fresh 1 bk-unwrap -t "$(cat "$T/runbook")" -o "$T/b" "$T/cut.bk"
    told 'to look for another copy' "$(hint 'another copy|older backup')"
    fresh 1 bk-verify -t "$(cat "$T/runbook")" "$T/cut.bk"
    cp "$T/a.bk" "$T/flipped.bk"
    flip "$T/flipped.bk" $((size / 2))
    fresh 1 bk-verify -t "$(cat "$T/runbook")" "$T/flipped.bk"
    expect_stderr 'group [0-9]+ \(plaintext from byte [0-9]+\)'
    fresh 0 bk-verify -t "$(cat "$T/runbook")" "$T/a.bk"
    no_file "$T/b"
}

# The other questions of that night, each answered without trust or PIN.
questions() {
    fresh 0 bk-verify --show "$T/a.bk"
    expect_stdout 'no trust was given'
    expect_stdout '^  label +orders nightly$'
    expect_stdout '^  recipient .*token=restore%20safe'
    expect_stdout "^  signed by +$(cat "$T/runbook")"
    fresh 0 bk-unwrap --help
    expect_stdout '^example: '
    fresh 0 bk-key list
    expect_stdout 'token=restore%20safe'
}

token_pin() { mv "$T/$1.pin" "$T/$2.pin"; }

mkdir "$T/empty-home"
head -c 2345678 /dev/urandom >"$T/plain"

# the day of the backup, on the host of the database, with tokens that are not here today
use_tokens database-host
make_token signer
make_key signer backup p256 sign
awk '/^fingerprint/ { print $2 }' "$T/stdout" >"$T/runbook"
make_key signer intruder p256 sign

use_tokens elsewhere
make_token elsewhere
make_key elsewhere second p384 kek

use_tokens tokens
make_token 'restore safe' # a label that a URI must encode
token_pin 'restore safe' restore
expect_exit 0 bk-key generate --type p256 --use kek -o "$T/first.pem" \
    "pkcs11:token=restore%20safe;object=first?pin-source=file:$T/restore.pin"

use_tokens database-host
expect_exit 0 bk-wrap -r "$T/second.pem" -r "$T/first.pem" -s "$(key_uri signer backup)" \
    --public-label 'orders nightly' -o "$T/a.bk" "$T/plain"
expect_exit 0 bk-wrap -r "$T/first.pem" -s "$(key_uri signer intruder)" -o "$T/forged.bk" "$T/plain"

use_tokens tokens
step_by_step "$T/a.bk"
token_missing
forged
bad_copies
questions
finish
