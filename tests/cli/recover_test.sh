#!/usr/bin/env bash
# The way of docs/BREAK-GLASS.md, end to end: archives made by bk-wrap and rotated by bk-rekey, restored without bk by
# stock openssl, OpenSC and docs/recover.py; and archives that were tampered with, refused.
set -euo pipefail
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

recover=(/usr/bin/python3 "$ROOT/docs/recover.py")
export PKCS11_MODULE_PATH=/usr/lib/softhsm/libsofthsm2.so
umask 077

# key_package ARCHIVE FILE SKIP ARG... : as BREAK-GLASS.md has it; slot A begins at byte 4161, slot B one slot later.
# (The engine can crash openssl on its way out of a failure: the subshell keeps that from the log.)
key_package() {
    local archive=$1 package=$2 skip=$3
    shift 3
    rm -f "$package"
    (openssl cms -decrypt -binary -inform DER -out "$package" "$@" < <(tail -c "+$skip" "$archive")) 2>"$T/stderr" &&
        [[ -s $package ]]
}

# engine_key TOKEN OBJECT : for the engine, which takes the newline at the end of a PIN file for a part of the PIN.
engine_key() {
    tr -d '\n' <"$T/$1.pin" >"$T/$1.pin-alone"
    printf 'pkcs11:token=%s;object=%s;type=private?pin-source=file:%s/%s.pin-alone' "$1" "$2" "$T" "$1"
}

slot_b() { printf '%d' $((4096 + $(od -An -tu4 --endian=big -j 12 -N 4 "$1") + 65)); }

# recovers TEXT ARCHIVE ARG... : the plaintext comes out, whole.
recovers() {
    local text=$1 archive=$2
    shift 2
    rm -f "$T/out"
    printf '# %s\n' "$text"
    expect_exit 0 "${recover[@]}" "$@" "$archive" "$T/out"
    same_file "$T/plain" "$T/out"
}

# refuses TEXT PATTERN ARCHIVE ARG... : it says why, and writes nothing.
refuses() {
    local text=$1 pattern=$2 archive=$3
    shift 3
    rm -f "$T/out"
    printf '# %s\n' "$text"
    expect_exit 1 "${recover[@]}" "$@" "$archive" "$T/out"
    expect_stderr "$pattern"
    no_file "$T/out"
}

# spoil OFFSET : a copy of the archive, $T/bad.bk, with one bit turned over; a negative offset counts from the end.
spoil() {
    local at=$1
    cp "$T/a.bk" "$T/bad.bk"
    ((at >= 0)) || at=$(($(stat -c %s "$T/bad.bk") + at))
    flip "$T/bad.bk" "$at"
}

make_token signer
make_token kek
make_token next
make_key signer backup p256 sign
make_key signer stranger p256 sign
make_key kek ec p256 kek
make_key kek rsa rsa3072 kek
make_key kek aes aes256 kek
make_key next ec384 p384 kek
make_key next rotator p256 sign
openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:3072 -out "$T/soft.key" 2>/dev/null
openssl pkey -in "$T/soft.key" -pubout -out "$T/soft.pem"

# more than two groups of segments, and a last segment that is not full
head -c 2500001 /dev/urandom >"$T/plain"

expect_exit 0 bk-wrap -r "$T/ec.pem" -r "$T/rsa.pem" -r "$(key_uri kek aes)" -r "$T/soft.pem" \
    -s "$(key_uri signer backup)" --meta database=orders -o "$T/a.bk" "$T/plain"

engine=(-engine pkcs11 -keyform engine)
check 'key package, by a private key in a file' key_package "$T/a.bk" "$T/keys" 4161 -inkey "$T/soft.key"
check 'key package, from slot B' key_package "$T/a.bk" "$T/keys.b" "$(slot_b "$T/a.bk")" -inkey "$T/soft.key"
same_file "$T/keys" "$T/keys.b"
check 'key package, by an EC key on a token' \
    key_package "$T/a.bk" "$T/keys.ec" 4161 "${engine[@]}" -inkey "$(engine_key kek ec)"
same_file "$T/keys" "$T/keys.ec"
check 'key package, by an RSA key on a token' \
    key_package "$T/a.bk" "$T/keys.rsa" 4161 "${engine[@]}" -inkey "$(engine_key kek rsa)"
same_file "$T/keys" "$T/keys.rsa"
recovers 'as it was written' "$T/a.bk" --signer "$T/backup.pem" --keys "$T/keys"

# an AES KEK that cannot leave its token: the token opens the data key, recover.py the key package
openssl cms -cmsout -inform DER -outform DER -out "$T/envelope.der" < <(tail -c +4161 "$T/a.bk")
at=$(openssl asn1parse -inform DER -in "$T/envelope.der" |
    awk -F: '/cont \[ 2 \]/ { kekri = 1 } kekri && /l= *40 prim: OCTET STRING/ { print $1 + 2; exit }')
tail -c "+$((at + 1))" "$T/envelope.der" | head -c 40 >"$T/wrapped"
aes_id=$(pkcs11-tool --module "$PKCS11_MODULE_PATH" --token-label kek --login --pin "$(cat "$T/kek.pin")" \
    --list-objects --type secrkey 2>/dev/null | awk '/ID:/ { print $2; exit }')
unwrap_by_token() {
    pkcs11-tool --module "$PKCS11_MODULE_PATH" --token-label kek --login --pin "$(cat "$T/kek.pin")" --unwrap \
        --mechanism AES-KEY-WRAP --id "$aes_id" --input-file "$T/wrapped" --key-type AES: --application-label recovered \
        --application-id c0ffee --extractable >/dev/null 2>"$T/stderr" &&
        pkcs11-tool --module "$PKCS11_MODULE_PATH" --token-label kek --login --pin "$(cat "$T/kek.pin")" --read-object \
            --type secrkey --id c0ffee --output-file "$T/cek" >/dev/null 2>"$T/stderr"
}
check 'data key, by an AES key on a token' unwrap_by_token
recovers 'by the data key' "$T/a.bk" --signer "$T/backup.pem" --cek "$T/cek"

# what must be refused
refuses 'another signer' 'signed by a key that was not given' "$T/a.bk" --signer "$T/stranger.pem" --keys "$T/keys"
spoil 40
refuses 'key commitment' 'preamble: checksum' "$T/bad.bk" --signer "$T/backup.pem" --keys "$T/keys"
spoil $((4096 + 2 * $(od -An -tu4 --endian=big -j 12 -N 4 "$T/a.bk") + 1100000))
refuses 'a frame' 'frames: group 1 is damaged' "$T/bad.bk" --signer "$T/backup.pem" --keys "$T/keys"
spoil -100
refuses 'the signature' 'manifest' "$T/bad.bk" --signer "$T/backup.pem" --keys "$T/keys"
head -c 2000000 "$T/a.bk" >"$T/bad.bk"
refuses 'cut short' 'incomplete archive' "$T/bad.bk" --signer "$T/backup.pem" --keys "$T/keys"
head -c 32 /dev/urandom >"$T/wrong"
refuses 'a wrong data key' 'does not open it' "$T/a.bk" --signer "$T/backup.pem" --cek "$T/wrong"
expect_exit 0 bk-wrap -r "$T/soft.pem" -s "$(key_uri signer backup)" -o "$T/other.bk" "$T/plain"
check 'key package of another archive' key_package "$T/other.bk" "$T/keys.other" 4161 -inkey "$T/soft.key"
refuses 'key package of another archive' 'of another archive' "$T/a.bk" --signer "$T/backup.pem" --keys "$T/keys.other"

# one damaged slot is survived, by the other
spoil 4200
recovers 'slot A damaged' "$T/bad.bk" --signer "$T/backup.pem" --keys "$T/keys"

# rotated: the old KEK is out, the new one opens, and the rotator must be known
expect_exit 0 bk-rekey --from "$(key_uri kek ec)" --to "$(key_uri next ec384)" -s "$(key_uri next rotator)" \
    -t "$T/backup.pem" -t "rotate:$T/rotator.pem" "$T/a.bk"
check 'key package after rotation' \
    key_package "$T/a.bk" "$T/keys.next" 4161 "${engine[@]}" -inkey "$(engine_key next ec384)"
same_file "$T/keys" "$T/keys.next"
recovers 'rotated' "$T/a.bk" --signer "$T/backup.pem" --rotator "$T/rotator.pem" --keys "$T/keys.next"
refuses 'an unknown rotator' 'rotator' "$T/a.bk" --signer "$T/backup.pem" --keys "$T/keys"
refuses 'a backup signer as rotator' 'signed by a key that was not given' "$T/a.bk" --signer "$T/backup.pem" \
    --rotator "$T/backup.pem" --keys "$T/keys"
if key_package "$T/a.bk" "$T/keys.old" 4161 "${engine[@]}" -inkey "$(engine_key kek ec)"; then
    fail 'the old KEK still opens the envelope'
else
    pass 'the old KEK opens it no more'
    expect_stderr 'Error decrypting CMS'
fi

finish
