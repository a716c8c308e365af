#!/usr/bin/env bash
# bk-key, and where PINs come from: docs/CLI.md, "Names on the command line" and "bk-key VERB".
# shellcheck disable=SC2317 # functions are called by `check` and traps
set -euo pipefail
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

token_uri() { printf 'pkcs11:token=%s?pin-source=file:%s/%s.pin' "$1" "$T" "$1"; }
quiet_about() { ! grep -Eq -- "$1" "$T/stderr"; }

# no_terminal CODE COMMAND ARG... : expect_exit for a command that must not find a terminal to ask at.
no_terminal() {
    local code=$1
    shift
    expect_exit "$code" setsid -w "$@"
}

# tool ARG... : a second opinion on what is in the token, of a program that is not ours.
tool() { pkcs11-tool --module "$SOFTHSM" --token-label keys "$@" 2>/dev/null; }
tool_in() { tool --login --pin "$(cat "$T/keys.pin")" "$@"; }

# made TYPE USE : generated, shown, listed and exported, and what pkcs11-tool says of it.
made() {
    local type=$1 use=$2 label=$1-$2 id
    printf '# %s for %s\n' "$type" "$use"
    make_key keys "$label" "$type" "$use"
    expect_stdout "^uri +pkcs11:.*token=keys;.*object=$label$"
    expect_stdout '^key id +[0-9a-f]{32,40}$'
    id=$(awk '/^key id/ { print $3 }' "$T/stdout")

    expect_exit 0 bk-key list "$(token_uri keys)"
    expect_stdout "^(private|secret) key .* $label +$id$"
    expect_exit 0 bk-key show "$(key_uri keys "$label")"
    expect_stdout '^  sensitive +yes$'
    expect_stdout '^  extractable +no$'
    expect_stdout '^  never extractable +yes$'
    expect_stdout '^  made on the token +yes$'
    if [[ $use == sign ]]; then
        expect_stdout '^  can sign +yes$'
        expect_stdout '^  can (decrypt|derive|unwrap) +no$'
        check 'the certificate is on the token' test -n "$(tool --list-objects --type cert | grep -w "$label")"
        check 'and what -o wrote is it' openssl x509 -in "$T/$label.pem" -noout
        check 'signed by itself' openssl verify -CAfile "$T/$label.pem" "$T/$label.pem" >/dev/null
    fi
    never_leaves "$label" "$([[ $type == aes256 ]] && printf secrkey || printf privkey)"
    exported "$type" "$label"
}

# Neither the module's word nor an attempt to read the value gives the key away.
never_leaves() {
    local label=$1 class=$2
    tool_in --list-objects --type "$class" | grep -A 8 -w "$label" | grep -m 1 'Access:' >"$T/access" || true
    check "pkcs11-tool: $label is sensitive" grep -q 'sensitive' "$T/access"
    check "pkcs11-tool: $label never left" grep -q 'never extractable' "$T/access"
    rm -f "$T/leak"
    tool_in --read-object --type "$class" --label "$label" --output-file "$T/leak" >/dev/null || true
    check "pkcs11-tool: $label cannot be read" test ! -s "$T/leak"
}

exported() {
    local type=$1 label=$2
    rm -f "$T/again.pem"
    if [[ $type == aes256 ]]; then
        expect_exit 2 bk-key export -o "$T/again.pem" "$(key_uri keys "$label")"
        expect_stderr 'secret key has no public half'
        no_file "$T/again.pem"
        return
    fi
    expect_exit 0 bk-key export -o "$T/again.pem" "$(key_uri keys "$label")"
    same_file "$T/$label.pem" "$T/again.pem"
    expect_exit 0 bk-key export "$(key_uri keys "$label")"
    same_file "$T/$label.pem" "$T/stdout"
    check 'no private key in it' test -z "$(grep -i 'private' "$T/again.pem")"
    check 'its URI is in it, without the PIN' test -z "$(grep -i 'pin-' "$T/again.pem")"
    check 'its URI is in it' grep -Eq "pkcs11:.*object=$label" "$T/again.pem"
    expect_exit 2 bk-key export -o "$T/again.pem" "$(key_uri keys "$label")"
    expect_stderr 'exists already'
    expect_exit 0 bk-key export --force -o "$T/again.pem" "$(key_uri keys "$label")"
}

all_types() {
    made p256 sign
    made p384 sign
    made rsa3072 sign
    made p256 kek
    made p384 kek
    made rsa3072 kek
    made aes256 kek
}

# rsa4096 can take a token many seconds; once is enough.
rsa4096() {
    make_key keys big rsa4096 kek
    check '4096 bits' test "$(openssl pkey -pubin -in "$T/big.pem" -noout -text | grep -c '(4096 bit)')" -eq 1
}

certificate_options() {
    expect_exit 0 bk-key generate --type p256 --use sign --owner 'Backup of büro 7' --days 30 -o "$T/owned.pem" \
        "$(key_uri keys owned)"
    openssl x509 -in "$T/owned.pem" -noout -subject -nameopt utf8,-esc_msb >"$T/subject"
    check 'the owner is the name in the certificate' grep -q 'Backup of büro 7' "$T/subject"
    check 'valid for 29 days' openssl x509 -in "$T/owned.pem" -noout -checkend $((29 * 86400)) >/dev/null
    check 'not for 31' not openssl x509 -in "$T/owned.pem" -noout -checkend $((31 * 86400)) >/dev/null
}

not() { ! "$@"; }

refused_generate() {
    local code=$1 pattern=$2
    shift 2
    expect_exit "$code" bk-key generate "$@"
    expect_stderr "$pattern"
    no_output
}

refusals() {
    local uri objects
    uri=$(key_uri keys p256-kek)
    objects=$(tool_in --list-objects | grep -c 'Object;')
    refused_generate 2 "label 'p256-kek' is there already" --type p256 --use kek "$uri"
    expect_stderr 'hint: choose another object='
    refused_generate 2 'already' --type aes256 --use kek "$uri"
    refused_generate 2 'exists already' --type p256 --use kek -o "$T/p256-kek.pem" "$(key_uri keys unborn)"
    refused_generate 5 'No such file' --type p256 --use kek -o "$T/nowhere/x.pem" "$(key_uri keys unborn)"
    refused_generate 2 'AES key cannot sign' --type aes256 --use sign "$(key_uri keys unborn)"
    refused_generate 2 'public half' --type aes256 --use kek -o "$T/unborn.pem" "$(key_uri keys unborn)"
    refused_generate 2 'type' --type rsa1024 --use kek "$(key_uri keys unborn)"
    refused_generate 2 'type' --use kek "$(key_uri keys unborn)"
    refused_generate 2 'use' --type p256 "$(key_uri keys unborn)"
    refused_generate 2 'use' --type p256 --use both "$(key_uri keys unborn)"
    refused_generate 2 'days' --type p256 --use sign --days 0 "$(key_uri keys unborn)"
    refused_generate 2 'owner' --type p256 --use sign --owner '' "$(key_uri keys unborn)"
    refused_generate 2 'URI' --type p256 --use kek
    refused_generate 2 'URI' --type p256 --use kek "$T/p256-kek.pem"
    refused_generate 2 'object' --type p256 --use kek "$(token_uri keys)"
    refused_generate 2 'token' --type p256 --use kek "pkcs11:object=unborn?pin-source=file:$T/keys.pin"
    refused_generate 2 'unknown option --typ' --typ p256 --use kek "$(key_uri keys unborn)"
    refused_generate 2 '.' --type p256 --use kek "pkcs11:token=keys;objekt=unborn?pin-source=file:$T/keys.pin"
    expect_exit 2 bk-key list --type p256 "$(token_uri keys)"
    expect_exit 2 bk-key destroy "$(key_uri keys p256-kek)"
    expect_exit 2 bk-key show
    expect_exit 2 bk-key list "$(token_uri keys)" -- true
    expect_exit 2 bk-key export --json "$(key_uri keys p256-kek)"
    check 'none of this left an object on the token' test "$(tool_in --list-objects | grep -c 'Object;')" -eq "$objects"
    no_file "$T/unborn.pem"
}

not_there() {
    no_terminal 3 bk-key list 'pkcs11:token=nothing'
    expect_stderr 'no token'
    no_terminal 3 bk-key show "$(key_uri keys nothing)"
    expect_stderr 'no key'
    no_terminal 3 bk-key export "$(key_uri keys nothing)"
    expect_stderr 'key'
    no_terminal 3 bk-key generate --type p256 --use kek 'pkcs11:token=nothing;object=x'
    expect_stderr 'token'
    no_terminal 3 bk-key list "pkcs11:token=keys?module-path=$T/nothing.so"
    expect_stderr 'nothing.so'
    printf 'not a library\n' >"$T/text.so"
    no_terminal 3 bk-key list "pkcs11:token=keys?module-path=$T/text.so"
    expect_stderr 'text.so'
    expect_exit 0 bk-key list "pkcs11:token=keys?module-path=$SOFTHSM&pin-source=file:$T/keys.pin"
    expect_stdout 'p256-kek'
}

listing() {
    no_terminal 0 bk-key list
    expect_stdout '^certificate .* p256-sign '
    check 'no private key without a login' not grep -Eq '^(private|secret) key' "$T/stdout"
    check 'and nobody was asked for a PIN' quiet_about 'PIN of'
    expect_exit 0 bk-key list --json "$(token_uri keys)"
    if /usr/bin/python3 - "$T/stdout" <<'PY'; then
import json, sys
keys = [json.loads(line) for line in open(sys.argv[1], encoding="utf-8")]
private = [k for k in keys if k["class"] in ("private key", "secret key")]
good = (len(private) >= 8 and all(k["status"] == "ok" and k["code"] == 0 and k["token"] == "keys" for k in keys)
        and all(k["sensitive"] is True and k["extractable"] is False for k in private)
        and len({k["ckaId"] for k in private}) == len(private) and all("pin" not in k["uri"] for k in keys))
sys.exit(0 if good else 1)
PY
        pass 'json: one object a line, every id its own'
    else
        fail 'json: one object a line, every id its own'
    fi
    expect_exit 0 bk-key generate --json --type p256 --use kek "$(key_uri keys from-json)"
    json_is "$T/stdout" "o['status'] == 'ok' and o['type'] == 'p256' and len(o['keyId']) == 40"
    json_is "$T/stdout" "'object=from-json' in o['uri'] and 'pin' not in o['uri']"
}

# --- PINs ---------------------------------------------------------------------------------------------------------

pin_file() {
    printf '%s' "$2" >"$T/$1"
    chmod "${3:-600}" "$T/$1"
}

# with_source CODE SOURCE : shows a key, with that pin-source.
with_source() { no_terminal "$1" bk-key show "pkcs11:token=keys;object=p256-kek?pin-source=$2"; }

pin_sources() {
    local pin
    pin=$(cat "$T/keys.pin")
    pin_file no-newline "$pin"
    pin_file newline "$pin"$'\n'
    pin_file two-newlines "$pin"$'\n\n'
    pin_file empty ''
    pin_file loose "$pin" 644
    with_source 0 "file:$T/no-newline"
    check 'mode 600, no warning' quiet_about 'warning'
    with_source 0 "file:$T/newline"
    with_source 0 "file://$T/newline"
    with_source 9 "file:$T/two-newlines"
    with_source 9 "file:$T/empty"
    expect_stderr 'empty; it was not tried'
    with_source 0 "file:$T/loose"
    expect_stderr 'warning: .*loose.*mode 644.*chmod 600'
    with_source 2 "file:$T/nothing"
    expect_stderr 'nothing.*No such file'
    with_source 2 "file:$T"
    with_source 2 "carrier-pigeon:$T/newline"
    check 'what might be a PIN is not shown' quiet_about 'pigeon'

    with_source 0 "|cat%20$T/newline"
    with_source 0 "|printf%20$pin"
    with_source 2 '|exit%203'
    expect_stderr 'status 3'
    with_source 2 "|cat%20$T/newline;%20exit%204"
    expect_stderr 'status 4'
    with_source 9 '|true'

    no_terminal 0 bk-key show "pkcs11:token=keys;object=p256-kek?pin-value=$pin"
    expect_stderr 'warning: .*PIN in a URI'
    check 'but it is not repeated' quiet_about "$pin"
    no_terminal 9 bk-key show 'pkcs11:token=keys;object=p256-kek?pin-value=wrong-pin'
    check 'nor a wrong one' quiet_about 'wrong-pin'
}

credentials() {
    mkdir -m 700 "$T/credentials"
    cp "$T/keys.pin" "$T/credentials/bk-pin.keys"
    export CREDENTIALS_DIRECTORY=$T/credentials
    no_terminal 0 bk-key show 'pkcs11:token=keys;object=p256-kek'
    printf 'wrong-pin' >"$T/credentials/bk-pin.keys"
    no_terminal 9 bk-key show 'pkcs11:token=keys;object=p256-kek'
    no_terminal 0 bk-key show "$(key_uri keys p256-kek)" # the URI's source comes first
    unset CREDENTIALS_DIRECTORY
}

no_pin() {
    no_terminal 9 bk-key show 'pkcs11:token=keys;object=p256-kek'
    expect_stderr 'token keys: it wants a PIN, and there is no terminal'
    expect_stderr 'hint: .*pin-source'
    no_terminal 9 bk-key generate --type p256 --use kek 'pkcs11:token=keys;object=unborn'
    check 'no key was made' test -z "$(tool_in --list-objects | grep -w unborn)"
}

# A wrong PIN is tried once, however many keys and archives would need it.
wrong_pin() {
    local uri wrong
    pin_file wrong.pin 'wrong-pin'
    wrong="pkcs11:token=keys;object=p256-sign?pin-source=file:$T/wrong.pin"
    no_terminal 9 bk-key show "$wrong"
    expect_stderr 'PIN'
    no_terminal 9 bk-key generate --type p256 --use kek "pkcs11:token=keys;object=unborn?pin-source=file:$T/wrong.pin"
    no_terminal 9 bk-key export "$wrong"

    printf 'a backup\n' >"$T/plain"
    expect_exit 0 bk-wrap -q -r "$T/p256-kek.pem" -s "$(key_uri keys p256-sign)" -o "$T/a.bk" "$T/plain"
    cp "$T/a.bk" "$T/b.bk"
    no_terminal 9 bk-wrap -r "$T/p256-kek.pem" -s "$wrong" -o "$T/c.bk" "$T/plain"
    no_file "$T/c.bk"
    uri="pkcs11:token=keys?pin-source=file:$T/wrong.pin"
    no_terminal 9 bk-verify --level decrypt -t "$T/p256-sign.pem" -k "$uri" "$T/a.bk" "$T/b.bk"
    check 'the second archive was not tried' quiet_about 'b.bk'
    no_terminal 9 bk-unwrap -t "$T/p256-sign.pem" -k "$uri" -k "$uri" -o "$T/out" "$T/a.bk"
    no_file "$T/out"

    spy_on_logins
    counted 1 bk-key show "$wrong"
    counted 1 bk-verify --level decrypt -t "$T/p256-sign.pem" -k "$uri" "$T/a.bk" "$T/b.bk"
    counted 1 bk-unwrap -t "$T/p256-sign.pem" -k "$uri" -k "$uri" -o "$T/out" "$T/a.bk"
    counted 1 bk-wrap -r "$T/p256-kek.pem" -r "$wrong" -s "$wrong" -o "$T/c.bk" "$T/plain"
    counted 1 bk-rekey --from "$uri" --to "$(key_uri keys p384-kek)" -s "$wrong" -t "$T/p256-sign.pem" \
        -t "rotate:$T/p256-sign.pem" "$T/a.bk" "$T/b.bk"
    no_file "$T/out"
    no_file "$T/c.bk"
    same_file "$T/a.bk" "$T/b.bk"
}

# A stand-in between bk and the module that notes each C_Login: the only way to see tries on a token that never locks.
spy_on_logins() {
    local cc=${CC:-cc}
    cat >"$T/spy.c" <<'C'
#define _GNU_SOURCE
#include <dlfcn.h>
#include <p11-kit/pkcs11.h>
#include <stdio.h>
#include <stdlib.h>
static CK_FUNCTION_LIST *real, ours;
static CK_RV login(CK_SESSION_HANDLE s, CK_USER_TYPE user, CK_UTF8CHAR *pin, CK_ULONG len)
{
    FILE *f = fopen(getenv("SPY_LOG"), "a");
    CK_RV rv = real->C_Login(s, user, pin, len);
    if (f != NULL) {
        fprintf(f, "C_Login %#lx\n", rv);
        fclose(f);
    }
    return rv;
}
CK_RV C_GetFunctionList(CK_FUNCTION_LIST **list)
{
    void *so = dlopen(getenv("SPY_MODULE"), RTLD_NOW | RTLD_LOCAL);
    CK_C_GetFunctionList get = so == NULL ? NULL : (CK_C_GetFunctionList)dlsym(so, "C_GetFunctionList");
    if (get == NULL || get(&real) != CKR_OK)
        return CKR_GENERAL_ERROR;
    ours = *real;
    ours.C_Login = login;
    *list = &ours;
    return CKR_OK;
}
C
    # shellcheck disable=SC2046
    "$cc" -shared -fPIC -o "$T/spy.so" "$T/spy.c" $(pkg-config --cflags p11-kit-1) -ldl
    export SPY_MODULE=$SOFTHSM SPY_LOG=$T/spy.log
}

# counted N COMMAND ARG... : status 9, and the token was tried N times; its URIs go through the spy.
counted() {
    local wanted=$1 got arg
    local -a command=()
    shift
    for arg in "$@"; do
        [[ $arg != pkcs11:*\?* ]] || arg="$arg&module-path=$T/spy.so"
        command+=("$arg")
    done
    rm -f "$SPY_LOG"
    no_terminal 9 "${command[@]}"
    got=$(grep -c '^C_Login' "$SPY_LOG" || true)
    check "$wanted login tried: $1" test "$got" -eq "$wanted"
}

# A terminal, by script(1): the PIN is asked for there, and not echoed.
terminal() {
    local typed=$1 code=$2 status=0
    # script passes on what it reads only as fast as it comes: the PIN is typed when the question is there
    mkfifo "$T/keyboard"
    : >"$T/screen"
    timeout 60 script -qefc "bk-key show 'pkcs11:token=keys;object=p256-kek'" "$T/screen" \
        <"$T/keyboard" >/dev/null 2>&1 &
    local pid=$!
    exec 8>"$T/keyboard"
    wait_for_text 'PIN of token keys' "$T/screen" && printf '%s\n' "$typed" >&8
    wait "$pid" || status=$?
    exec 8>&-
    rm "$T/keyboard"
    check "asked at the terminal: exit $code" test "$status" -eq "$code"
    check 'what is typed is not shown' not grep -qF -- "$typed" "$T/screen"
}

wait_for_text() {
    local end=$((SECONDS + 20))
    until grep -q -- "$1" "$2"; do
        if ((SECONDS > end)); then
            fail "no question at the terminal: $1"
            return 1
        fi
        sleep 0.05
    done
}

terminals() {
    terminal "$(cat "$T/keys.pin")" 0
    check 'and the key is shown' grep -q 'never extractable' "$T/screen"
    terminal 'wrong-typed-pin' 9
    check 'a second time is not asked' test "$(grep -c 'PIN of token' "$T/screen")" -eq 1
}

# What SoftHSM can do is what docs/TOKENS.md says of it; and afterwards the token holds what it held.
probes() {
    printf '\n# probe\n'
    local uri="pkcs11:token=probed?pin-source=file:$T/probed.pin" how
    make_token probed
    expect_exit 0 bk-key list "$uri"
    expect_stderr '1 token, no key'
    for how in '' --on-token; do
        # shellcheck disable=SC2086
        expect_exit 0 bk-key probe $how "$uri"
        expect_stdout '^aes256 +kek +works, aes-kw, rotates blind$'
        expect_stdout '^p256 +kek +works, ecdh-p256$'
        expect_stdout '^p384 +kek +works, ecdh-p384$'
        expect_stdout '^rsa3072 +kek +works, rsa-oaep-sha1$'
        expect_stdout '^rsa3072 +sign +works$'
        check 'seven kinds of key were tried' test "$(grep -c '^[a-z0-9]' "$T/stdout")" -eq 7
        check 'six facts of AES keys are told' test "$(grep -c '^  [yn?]' "$T/stdout")" -eq 6
        check 'and all work' test "$(grep -c ' works' "$T/stdout")" -eq 7
        expect_exit 0 bk-key list "$uri"
        no_output
    done
    expect_exit 0 bk-key probe --json="$T/json" "$uri"
    head -n 1 "$T/json" >"$T/json.1"
    json_is "$T/json.1" 'o["type"] == "aes256" and o["use"] == "kek" and o["works"] and o["scheme"] == "aes-kw"'
    json_is "$T/json.1" 'o["blind"] and o["refusesDamage"] and o["why"] is None'
    expect_exit 0 bk-key probe --on-token --json="$T/json" "$uri"
    head -n 1 "$T/json" >"$T/json.1"
    json_is "$T/json.1" 'o["works"] and o["blind"] and o["refusesDamage"] is None'
    expect_exit 2 bk-key probe
    expect_exit 2 bk-key probe "$(key_uri probed x)"
    expect_stderr 'name a token, not a key'
    expect_exit 2 bk-key list --on-token "$uri"
    expect_exit 3 bk-key probe "pkcs11:token=absent?pin-source=file:$T/probed.pin"
    expect_exit 2 bk-key probe "pkcs11:?pin-source=file:$T/probed.pin"
    expect_stderr 'matches [0-9]+ tokens'
}

not_in() { ! grep -qF -- "$1" "$2"; }

# What a probe found is kept, signed, compared, and held against the programs.
token_profiles() {
    printf '\n# profiles of tokens\n'
    local uri="pkcs11:token=probed?pin-source=file:$T/probed.pin"
    make_token signs
    make_key signs backup p256 sign
    make_key probed rsa rsa3072 kek
    expect_exit 0 bk-key probe -q -o "$T/profile.json" "$uri"
    tr -d '\n' <"$T/profile.json" >"$T/json" && echo >>"$T/json"
    json_is "$T/json" 'o["bkTokenProfile"] == 1 and "token=probed" in o["token"] and len(o["kinds"]) == 7'
    json_is "$T/json" 'o["kinds"][0]["facts"]["keepsValues"] and not o["kinds"][0]["facts"]["drawsNonce"]'
    expect_exit 2 bk-key probe -q -o "$T/profile.json" "$uri"
    expect_stderr 'exists already'
    expect_exit 0 bk-key probe -q --force -o "$T/signed" -s "$(key_uri signs backup)" "$uri"
    check 'openssl verifies the signed one' openssl cms -verify -inform DER -in "$T/signed" -noverify -out "$T/inner.json"
    check 'and gets the same out of it' diff <(grep -v probed "$T/profile.json") <(grep -v probed "$T/inner.json")
    expect_exit 0 bk-key probe --against "$T/profile.json" "$uri"
    expect_stderr 'nothing is missing of what'
    expect_exit 0 bk-key probe -q --against "$T/signed" -t "$T/backup.pem" "$uri"
    expect_exit 2 bk-key probe -q --against "$T/signed" "$uri"
    expect_stderr 'trust says by whom'
    expect_exit 1 bk-key probe -q --against "$T/signed" -t "$T/rsa.pem" "$uri"
    expect_exit 1 bk-key probe -q --against "$T/profile.json" -t "$T/backup.pem" "$uri"
    expect_stderr 'nobody has signed it'
    cp "$T/signed" "$T/forged"
    flip "$T/forged" 300
    expect_exit 1 bk-key probe -q --against "$T/forged" -t "$T/backup.pem" "$uri"
    expect_exit 2 bk-key probe -q --against "$T/profile.json" "pkcs11:token=signs?pin-source=file:$T/signs.pin"
    expect_stderr 'profile of another token'
    sed 's/rsa-oaep-sha1/rsa-oaep-sha256/' "$T/profile.json" >"$T/better.json"
    expect_exit 4 bk-key probe -q --against "$T/better.json" -o "$T/not.json" "$uri"
    expect_stderr 'rsa3072 kek: proved rsa-oaep-sha256, and only rsa-oaep-sha1 now'
    expect_stderr 'does less than .*: 1 of 7 lines'
    no_file "$T/not.json"
    local -a wrap=(bk-wrap -q -r "$(key_uri probed rsa)" -s "$(key_uri signs backup)" -o "$T/x.bk")
    expect_exit 4 "${wrap[@]}" --token-profile "$T/better.json" "$T/profile.json"
    expect_stderr 'no more than rsa-oaep-sha1 now'
    no_file "$T/x.bk"
    expect_exit 4 bk-wrap -q -r "$T/rsa.pem" "${wrap[@]:4}" --token-profile "$T/better.json" "$T/profile.json"
    expect_exit 0 "${wrap[@]}" --token-profile "$T/signed" "$T/profile.json"
    expect_exit 2 "${wrap[@]}" --token-profile "$T/signed" --token-profile "$T/profile.json" "$T/profile.json"
    expect_stderr 'are profiles of one token'
    expect_exit 2 bk-key probe -s "$(key_uri signs backup)" "$uri"
    expect_exit 2 bk-key list --against "$T/signed" "$uri"
    expect_exit 2 bk-key probe -t "$T/backup.pem" "$uri"
    expect_exit 2 bk-key probe --against "$T/nothing" "$uri"
    expect_exit 2 bk-key probe --against "$T/probed.pin" "$uri"
    check 'a PIN that was taken for a profile is not told' not_in "$(cat "$T/probed.pin")" "$T/stderr"
}

make_token keys
make_token other # so that a URI has to say which one it means
all_types
rsa4096
certificate_options
refusals
not_there
listing
pin_sources
credentials
no_pin
wrong_pin
terminals
probes
token_profiles
printf '\n# audit\n'
make_token audited
audited="pkcs11:token=audited?pin-source=file:$T/audited.pin"
expect_exit 3 bk-key audit "$audited"
make_key audited fine p256 sign
expect_exit 0 bk-key audit --max-age 1 "$audited"
expect_stdout '^  0 days old, made on 20[0-9]{2}-[0-9]{2}-[0-9]{2}$'
expect_stderr '1 key, 0 with findings'
# keys of others: one that can be had out of the token, was brought to it, and does not say when
openssl genrsa -traditional 2048 >"$T/brought.pem" 2>/dev/null
openssl pkcs8 -topk8 -nocrypt -in "$T/brought.pem" -out "$T/brought.p8"
softhsm2-util --import "$T/brought.p8" --token audited --label brought --id 00112233 --pin "$(cat "$T/audited.pin")" >/dev/null
expect_exit 4 bk-key audit --max-age 30 "$audited"
expect_stdout 'finding: it was not made on the token'
expect_stdout 'finding: it does not say when it was made'
expect_stdout 'finding: it can sign and also open archives'
expect_stderr '2 keys, 1 with findings'
expect_stderr '1 of 2 keys have findings'
expect_exit 0 bk-key audit "pkcs11:token=audited;object=fine?pin-source=file:$T/audited.pin"
expect_exit 4 bk-key audit --json="$T/json" "$audited"
grep '"fine"' "$T/json" >"$T/json.1"
grep '"brought"' "$T/json" >"$T/json.2"
json_is "$T/json.1" 'o["findings"] == [] and o["ageDays"] == 0 and len(o["made"]) == 10'
json_is "$T/json.2" 'len(o["findings"]) >= 2 and o["ageDays"] is None'
expect_exit 2 bk-key audit
expect_exit 2 bk-key list --max-age 3 "$audited"
expect_exit 2 bk-key audit --max-age none "$audited"

finish
