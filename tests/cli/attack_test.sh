#!/usr/bin/env bash
# What an attacker can write: archives with every checksum right, with genuine parts in the wrong place, and with
# signatures of keys that he holds. Each is refused, by the layer that docs/FORMAT.md names and with a message of its
# own, before any output appears. The messages are printed, so that a log shows them all.
set -euo pipefail
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
umask 077

edit() { /usr/bin/python3 "$ROOT/tests/cli/archive_edit.py" "$@"; }

# software_signer NAME [ARG...] : a key and its certificate as files, as an attacker has them.
software_signer() {
    local name=$1
    shift
    (($# > 0)) || set -- -newkey ec -pkeyopt ec_paramgen_curve:P-256
    openssl req -x509 "$@" -nodes -subj "/CN=$name" -days 30 -keyout "$T/$name.key" -out "$T/$name.pem" 2>/dev/null
}

# layer_is LAYER : in the JSON of the last run.
layer_is() {
    if grep -q "\"status\":\"failed\",\"code\":1,\"layer\":\"$1\"," "$T/json"; then
        pass "layer $1"
    else
        fail "layer $1 expected, seen: $(cat "$T/json")"
    fi
}

show_message() { sed -n 's/^bk-[a-z]*: \(error\|hint\): /# \1: /p' "$T/stderr" | sed "s#$T/##g"; }

# refused TEXT ARCHIVE LAYER PATTERN TRUST... : by bk-verify without any key, and by bk-unwrap, which leaves no output.
refused() {
    local text=$1 archive=$T/$2 layer=$3 pattern=$4 t
    local -a trust=()
    shift 4
    for t in "$@"; do trust+=(-t "$t"); done
    printf '\n# %s\n' "$text"
    rm -f "$T/out" "$T/json"
    expect_exit 1 bk-verify "--json=$T/json" "${trust[@]}" "$archive"
    show_message
    expect_stderr "error: .*$pattern"
    layer_is "$layer"
    rm -f "$T/json"
    expect_exit 1 bk-unwrap "--json=$T/json" "${trust[@]}" -k "$kek" -o "$T/out" "$archive"
    expect_stderr "error: .*$pattern"
    layer_is "$layer"
    no_file "$T/out"
}

# key_refused TEXT ARCHIVE LAYER PATTERN TRUST... : keyless checks pass, for all that is public about it is right; what
# opens it refuses, and bk-rekey changes nothing.
key_refused() {
    local text=$1 archive=$T/$2 layer=$3 pattern=$4 t before
    local -a trust=()
    shift 4
    for t in "$@"; do trust+=(-t "$t"); done
    printf '\n# %s\n' "$text"
    rm -f "$T/out" "$T/json"
    expect_exit 0 bk-verify "${trust[@]}" "$archive"
    expect_exit 1 bk-unwrap "--json=$T/json" "${trust[@]}" -k "$kek" -o "$T/out" "$archive"
    show_message
    expect_stderr "error: .*$pattern"
    layer_is "$layer"
    no_file "$T/out"
    expect_exit 1 bk-unwrap "${trust[@]}" -k "$kek" "$archive" -- touch "$T/out"
    no_file "$T/out"
    expect_exit 1 "$T/from_pipe" "$archive" "${trust[@]}" -k "$kek" -o "$T/out"
    expect_stderr "error: .*$pattern"
    no_file "$T/out"
    expect_exit 1 bk-verify --level decrypt -k "$kek" "${trust[@]}" "$archive"
    expect_stderr "error: .*$pattern"
    before=$(sha256sum <"$archive")
    expect_exit 1 bk-rekey --from "$kek" --to "$next" -s "$rotator" "${trust[@]}" -t "rotate:$T/rotator.pem" "$archive"
    expect_stderr "error: .*$pattern"
    check 'unchanged by bk-rekey' test "$before" = "$(sha256sum <"$archive")"
}

# from_pipe ARCHIVE ARG... : restores it from a pipe; a script, since expect_exit cannot run a function.
cat >"$T/from_pipe" <<'SCRIPT'
#!/bin/sh
archive=$1
shift
cat "$archive" | bk-unwrap "$@" -
SCRIPT
chmod +x "$T/from_pipe"

make_token signer
make_token kek
make_key signer backup p256 sign
make_key signer other_host p256 sign
make_key signer rotator p256 sign
make_key kek ec p256 kek
make_key kek ec2 p384 kek
software_signer mallory
software_signer mallory_rsa -newkey rsa:3072
cp "$T/mallory.key" "$T/mallory_again.key"
openssl req -x509 -key "$T/mallory.key" -subj /CN=again -days 30 -out "$T/mallory_again.pem"
software_signer softrot
kek=$(key_uri kek ec)
next=$(key_uri kek ec2)
rotator=$(key_uri signer rotator)
openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:3072 -out "$T/soft.key" 2>/dev/null
openssl pkey -in "$T/soft.key" -pubout -out "$T/soft.pem"
head -c 1200000 /dev/urandom >"$T/plain"
head -c 1200000 /dev/urandom >"$T/plain2"
expect_exit 0 bk-wrap -r "$T/ec.pem" -r "$T/soft.pem" -s "$(key_uri signer backup)" --manifest "$T/a.manifest" \
    -o "$T/a.bk" "$T/plain"
expect_exit 0 bk-wrap -r "$T/ec.pem" -r "$T/soft.pem" -s "$(key_uri signer backup)" --manifest "$T/b.manifest" \
    -o "$T/b.bk" "$T/plain2"
backup=$T/backup.pem
rotate=rotate:$T/softrot.pem

# --- who signed ---------------------------------------------------------------------------------------------------

edit resign "$T/a.bk" "$T/x.bk" plain "$T/mallory.key" "$T/mallory.pem"
refused 'manifest by a key that nobody trusts' x.bk trust \
    'manifest: signed by sha256:[0-9a-f]{64}, which is not trusted' "$backup"
refused 'manifest by a key that is trusted as a rotator only' x.bk trust 'manifest: .*trusted, but not in this role' \
    "$backup" "rotate:$T/mallory.pem"
edit rotate "$T/a.bk" "$T/x.bk" "$T/mallory.key" "$T/mallory.pem"
refused 'record by a key that nobody trusts' x.bk trust 'record: signed by sha256:[0-9a-f]{64}, which is not trusted' \
    "$backup" "$rotate"
refused 'record by a key that is trusted for backups only' x.bk trust 'record: .*trusted, but not in this role' \
    "$backup" "$T/mallory.pem"
edit as-record "$T/a.bk" "$T/x.bk" "$T/softrot.key" "$T/softrot.pem"
refused 'a signed manifest where a record belongs' x.bk record 'what is signed is not a key record' "$backup" "$rotate"

printf '\n# the same rotation by a trusted rotator is in order: what follows is refused for what is wrong with it\n'
edit rotate "$T/a.bk" "$T/x.bk" "$T/softrot.key" "$T/softrot.pem"
expect_exit 0 bk-verify -t "$backup" -t "$rotate" "$T/x.bk"
expect_exit 0 bk-unwrap -t "$backup" -t "$rotate" -k "$kek" -o "$T/out" "$T/x.bk"
same_file "$T/plain" "$T/out"

# --- stolen ciphertext --------------------------------------------------------------------------------------------

edit resign "$T/a.bk" "$T/x.bk" plain "$T/mallory.key" "$T/mallory.pem"
stolen='key package: the manifest is not signed by those who made this archive'
key_refused 'stolen ciphertext: signed by another backup host, which holds no KEK, as its own' x.bk signers "$stolen" \
    "$backup" "$T/mallory.pem"
edit resign "$T/a.bk" "$T/x.bk" plain "$T/mallory_rsa.key" "$T/mallory_rsa.pem"
key_refused 'the same, by an RSA key' x.bk signers "$stolen" "$backup" "$T/mallory_rsa.pem"
edit resign "$T/a.bk" "$T/x.bk" plain "$T/mallory.key" "$T/mallory.pem" "$T/mallory_rsa.key" "$T/mallory_rsa.pem"
key_refused 'the same, by two of them' x.bk signers "$stolen" "$T/mallory.pem" "$T/mallory_rsa.pem"
refused 'two signers, one of whom is not trusted' x.bk trust 'manifest: signed by .* not trusted' "$T/mallory.pem"

# --- genuine parts in the wrong place -----------------------------------------------------------------------------

foreign='envelope: it is not the one that was signed with this archive'
edit slots-of "$T/a.bk" "$T/b.bk" "$T/x.bk"
refused 'slots of another archive' x.bk envelope "$foreign" "$backup"
edit envelope-of "$T/a.bk" "$T/b.bk" "$T/x.bk"
refused "another archive's envelope beside this one's record" x.bk envelope "$foreign" "$backup"
edit extract-envelope "$T/b.bk" "$T/b.envelope"
edit rotate "$T/a.bk" "$T/x.bk" "$T/softrot.key" "$T/softrot.pem" envelope "$T/b.envelope"
refused "another archive's envelope, with a record by a trusted rotator" x.bk envelope "$foreign" "$backup" "$rotate"
edit rotate "$T/a.bk" "$T/x.bk" "$T/softrot.key" "$T/softrot.pem" cek "$T/b.bk"
key_refused "another archive's wrapped data keys, with a record by a trusted rotator" x.bk package 'key package' \
    "$backup" "$rotate"
edit manifest-of "$T/a.bk" "$T/b.bk" "$T/x.bk"
refused "another archive's manifest" x.bk manifest 'manifest: it belongs to another archive' "$backup"

printf '\n# the kept manifest of another archive\n'
kept_differs() {
    expect_exit 1 bk-verify -t "$backup" --manifest "$T/b.manifest" "$T/a.bk"
    show_message
    expect_stderr 'error: .*manifest'
    expect_exit 1 bk-unwrap -t "$backup" -k "$kek" --manifest "$T/b.manifest" -o "$T/out" "$T/a.bk"
    show_message
    expect_stderr 'error: .*manifest'
    no_file "$T/out"
}
rm -f "$T/out"
kept_differs
expect_exit 0 bk-unwrap -t "$backup" -k "$kek" --manifest "$T/a.manifest" -o "$T/out" "$T/a.bk"

# --- the envelope -------------------------------------------------------------------------------------------------

openssl req -x509 -key "$T/soft.key" -subj /CN=soft -days 30 -out "$T/soft.crt" 2>/dev/null
openssl cms -encrypt -binary -aes-256-gcm -keyid -in "$T/plain2" -outform DER -out "$T/v15.cms" -recip "$T/soft.crt"
edit recipient "$T/v15.cms" "$T/v15.der"
never='never accepted'
edit rotate "$T/a.bk" "$T/x.bk" "$T/softrot.key" "$T/softrot.pem" recipient "$T/v15.der"
refused 'an RSA PKCS#1 v1.5 recipient, made by openssl cms' x.bk envelope "recipient [0-9]: .*$never" "$backup" \
    "$rotate"
openssl ecparam -name prime256v1 -genkey -noout -out "$T/softec.key"
openssl req -x509 -key "$T/softec.key" -subj /CN=softec -days 30 -out "$T/softec.crt" 2>/dev/null
openssl cms -encrypt -binary -aes-256-gcm -keyid -in "$T/plain2" -outform DER -out "$T/sha1.cms" -recip "$T/softec.crt"
edit recipient "$T/sha1.cms" "$T/sha1.der"
edit rotate "$T/a.bk" "$T/x.bk" "$T/softrot.key" "$T/softrot.pem" recipient "$T/sha1.der"
refused 'an ECDH recipient with a SHA-1 KDF, made by openssl cms' x.bk envelope "recipient [0-9]: .*$never" "$backup" \
    "$rotate"
openssl cms -encrypt -binary -aes-256-cbc -in "$T/plain2" -outform DER -out "$T/pw.cms" -pwri_password guess
edit recipient "$T/pw.cms" "$T/pw.der"
edit rotate "$T/a.bk" "$T/x.bk" "$T/softrot.key" "$T/softrot.pem" recipient "$T/pw.der"
refused 'a recipient by password' x.bk envelope "recipient [0-9]: .*$never" "$backup" "$rotate"
head -c 300 "$T/plain2" >"$T/package"
openssl cms -encrypt -binary -aes-256-cbc -keyid -in "$T/package" -outform DER -out "$T/cbc.cms" \
    -recip "$T/soft.crt" -keyopt rsa_padding_mode:oaep
edit rotate "$T/a.bk" "$T/x.bk" "$T/softrot.key" "$T/softrot.pem" envelope "$T/cbc.cms"
refused 'EnvelopedData with CBC in the place of the envelope' x.bk envelope 'envelope' "$backup" "$rotate"
edit extract-recipient "$T/b.bk" "$T/extra.der" 0
edit one-more "$T/a.bk" "$T/x.bk" "$T/extra.der"
refused 'a key id twice' x.bk envelope 'key id [0-9a-f]{40} stands twice' "$backup"
openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:3072 2>/dev/null | openssl pkey -pubout -out "$T/extra.pem"
expect_exit 0 bk-wrap -r "$T/extra.pem" -s "$(key_uri signer backup)" -o "$T/c.bk" "$T/plain"
edit extract-recipient "$T/c.bk" "$T/extra.der" 0
edit one-more "$T/a.bk" "$T/x.bk" "$T/extra.der"
refused 'a recipient more, without a record' x.bk record 'record: envelopeHash is not that of the envelope' "$backup"

# --- the record ---------------------------------------------------------------------------------------------------

# bad_record TEXT PATTERN WHAT ARG... : by a rotator who is trusted, so that only its contents are wrong.
bad_record() {
    local text=$1 pattern=$2
    shift 2
    edit rotate "$T/a.bk" "$T/x.bk" "$T/softrot.key" "$T/softrot.pem" "$@"
    refused "$text" x.bk record "record: $pattern" "$backup" "$rotate"
}
bad_record 'a hint with a PIN' 'hint: .*pin-value' hint 'pkcs11:token=kek;object=ec?pin-value=0123456789'
check 'and the PIN is not repeated' bash -c "! grep -q 0123456789 '$T/stderr'"
bad_record 'a hint with a PIN source' 'hint: .*pin-source' hint 'pkcs11:token=kek?pin-source=|id'
bad_record 'a hint with a module' 'hint: .*module-path' hint 'pkcs11:token=kek?module-path=/tmp/evil.so'
bad_record 'a hint that is no URI' 'hint: not a pkcs11' hint 'https://example.com/'
bad_record 'a hint for a stranger' 'hint for key [0-9a-f]{40}, which is no recipient' hint-stranger
bad_record 'a stranger called proven' 'key [0-9a-f]{40} is called proven' proven
bad_record 'a generation that was skipped' 'generation 9' generation 9
bad_record "another archive's manifest" 'made for another manifest' manifest-digest
bad_record 'a previous record that is not in the history' 'history does not end' previous
bad_record 'a history that begins elsewhere' 'history does not begin' first

edit twins "$T/a.bk" "$T/x.bk" "$T/softrot.key" "$T/softrot.pem"
refused 'slots of one generation that differ' x.bk slots 'slots A and B are both whole, of generation 2, and differ' \
    "$backup" "$rotate"

# --- signatures outside the profile -------------------------------------------------------------------------------

# bad_signature TEXT HOW PATTERN KEYNAME... : the manifest signed again, by keys that are trusted.
bad_signature() {
    local text=$1 how=$2 pattern=$3 name
    local -a pairs=() trusts=()
    shift 3
    for name in "$@"; do
        pairs+=("$T/$name.key" "$T/$name.pem")
        trusts+=("$T/$name.pem")
    done
    edit resign "$T/a.bk" "$T/x.bk" "$how" "${pairs[@]}"
    refused "$text" x.bk manifest "manifest: $pattern" "${trusts[@]}"
}
bad_signature 'ECDSA with SHA-1' sha1 '.*signature algorithm that the profile does not have' mallory
bad_signature 'RSA PKCS#1 v1.5' v15 '.*signature algorithm that the profile does not have' mallory_rsa
bad_signature 'a signature over something else' bad-signature '.*signature' mallory
bad_signature 'an RSA-PSS signature over something else' bad-signature '.*signature' mallory_rsa
bad_signature 'a wrong message digest' wrong-digest '.*message-digest' mallory
bad_signature 'a wrong content type' wrong-content-type '.*content-type' mallory
bad_signature 'no signing certificate' no-signing-cert '.*attribute' mallory
bad_signature 'unsigned attributes' unsigned 'signature: ' mallory
bad_signature 'two signatures with one certificate' twice '.*certificates for 2 signers' mallory
bad_signature 'one key that signs twice, with two certificates' plain '.*twice' mallory mallory_again
bad_signature 'a certificate that nobody signed with' stray '.*certificate' mallory mallory_rsa

# --- the preamble -------------------------------------------------------------------------------------------------

edit preamble "$T/a.bk" "$T/x.bk" 8 0002
refused 'version 2' x.bk preamble 'preamble: version 2, and this program reads version 1' "$backup"
edit preamble "$T/a.bk" "$T/x.bk" 8 0000
refused 'version 0' x.bk preamble 'preamble: version 0 does not exist' "$backup"
edit preamble "$T/a.bk" "$T/x.bk" 10 0002
refused 'an unknown flag' x.bk preamble 'preamble: flags 0x0002 are not known' "$backup"
edit preamble "$T/a.bk" "$T/x.bk" 36 00000000
refused 'another key commitment' x.bk manifest 'manifest: the preamble is not the one that was signed' "$backup"
edit preamble "$T/a.bk" "$T/x.bk" 12 00008001
refused 'a slot size that cannot be' x.bk preamble 'preamble: slot size 32769 is not allowed' "$backup"

# --- rollback -----------------------------------------------------------------------------------------------------

printf '\n# rollback: the slots of before a rotation are genuine, and the old key opens them\n'
cp "$T/a.bk" "$T/x.bk"
expect_exit 0 bk-rekey --from "$kek" --to "$next" -s "$rotator" -t "$backup" -t "rotate:$T/rotator.pem" "$T/x.bk"
edit slots-of "$T/x.bk" "$T/a.bk" "$T/y.bk"
rm -f "$T/out"
expect_exit 0 bk-unwrap -t "$backup" -k "$kek" -o "$T/out" "$T/y.bk"
expect_stderr 'warning: .*freshness not checked'
same_file "$T/plain" "$T/out"
rm -f "$T/out"
expect_exit 1 bk-unwrap -t "$backup" -k "$kek" --min-generation 2 -o "$T/out" "$T/y.bk"
show_message
expect_stderr 'error: .*generation 1, expected at least 2: rolled back'
expect_stderr 'hint: '
no_file "$T/out"
expect_exit 0 bk-verify -t "$backup" "$T/y.bk"
expect_stdout 'freshness not checked'
expect_exit 1 bk-verify -t "$backup" --min-generation 2 "$T/y.bk"
expect_exit 0 bk-verify -t "$backup" -t "rotate:$T/rotator.pem" --min-generation 2 "$T/x.bk"

printf '\n# one old slot put back: the newer one is taken, and the old key opens nothing\n'
edit slots-of "$T/x.bk" "$T/a.bk" "$T/y.bk" a
expect_exit 3 bk-unwrap -t "$backup" -t "rotate:$T/rotator.pem" -k "$kek" -o "$T/out" "$T/y.bk"
expect_stderr 'warning: .*slots differ'
no_file "$T/out"
expect_exit 0 bk-unwrap -t "$backup" -t "rotate:$T/rotator.pem" -k "$next" -o "$T/out" "$T/y.bk"

printf '\n# a newer slot that is refused is no reason to fall back to the older one\n'
edit rotate "$T/a.bk" "$T/x.bk" "$T/mallory.key" "$T/mallory.pem"
edit slots-of "$T/a.bk" "$T/x.bk" "$T/y.bk" b
refused 'a forged newer slot beside the genuine one' y.bk trust 'record: signed by .* not trusted' "$backup" "$rotate"

finish
