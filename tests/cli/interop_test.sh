#!/usr/bin/env bash
# Is docs/FORMAT.md enough to build on? tests/interop/ is a second implementation, written from that page alone: it meets
# every vector of tests/vectors/ as the index says (bk does so in tests/unit/vectors_test.c), reads what bk writes, and
# writes what bk reads. Stock openssl is the third: it opens the key envelopes, and accepts the signatures.
set -euo pipefail
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
umask 077

interop=(/usr/bin/python3 "$ROOT/tests/interop/bk_interop.py")
export PYTHONDONTWRITEBYTECODE=1
vectors=$T/vectors
mkdir "$vectors" "$T/parts" "$T/written" "$T/again"

# --- the vectors -----------------------------------------------------------------------------------------------------

tar -xJf "$ROOT/tests/vectors/vectors.tar.xz" -C "$vectors"
same_file "$ROOT/tests/vectors/index.tsv" "$vectors/index.tsv"
expect_exit 0 "${interop[@]}" check "$vectors"
expect_stdout '^[0-9]+ vectors, 0 wrong$'

# a run of make.py makes them again, to the byte: nothing in them came from elsewhere
expect_exit 0 /usr/bin/python3 "$ROOT/tests/vectors/make.py" "$T/again/made"
check 'make.py makes the same bytes again' diff -rq "$vectors" "$T/again/made"
rm -rf "$T/again"

# the check itself can fail
head -n 1 "$vectors/index.tsv" >"$T/written/index.tsv"
awk -F '\t' -v OFS='\t' '$1 == "preamble-magic.bk" { $4 = 0; $5 = "ok"; $6 = "-"; print }' "$vectors/index.tsv" \
    >>"$T/written/index.tsv"
cp -r "$vectors/keys" "$vectors/preamble-magic.bk" "$T/written"
expect_exit 1 "${interop[@]}" check "$T/written"
expect_stdout '^1 vectors, 1 wrong$'
expect_exit 1 "$BK_BIN/tests/vectors_test" "$T/written"
rm -rf "$T/written"

# --- stock openssl -----------------------------------------------------------------------------------------------------

# (shellcheck does not see that check calls these)
# shellcheck disable=SC2317
# openssl_opens NAME KEY : the key package comes out of the envelope as the second implementation saw it.
openssl_opens() {
    local -a key=(-inkey "$2")
    local secret
    if [[ $2 == aes:* ]]; then
        secret=${2#aes:}
        key=(-secretkey "${secret%%:*}" -secretkeyid "${secret#*:}")
    fi
    rm -f "$T/package"
    openssl cms -decrypt -binary -inform DER -in "$T/parts/$1.envelope" -out "$T/package" "${key[@]}" 2>>"$T/openssl.log" &&
        cmp -s "$T/package" "$T/parts/$1.package"
}

# shellcheck disable=SC2317
# openssl_accepts FILE CERTIFICATES : its signatures, signing-certificate-v2 and signers; a certificate that was not valid
# then is reported by bk, not refused.
openssl_accepts() {
    openssl cms -verify -cades -binary -no_check_time -purpose any -CAfile "$2" -inform DER -in "$1" -out "$T/content" \
        2>>"$T/openssl.log"
}

# one line for all, since there are many; the first that fails is named
# shellcheck disable=SC2317
openssl_on_all() {
    local name line opened=0 accepted=0 file key
    local -a words
    while read -r line; do
        read -ra words <<<"$line"
        name=${words[0]}
        for key in "${words[@]:1}"; do
            openssl_opens "$name" "$key" || { printf '    %s: not opened by %s\n' "$name" "$key"; return 1; }
            opened=$((opened + 1))
        done
        for file in "$T/parts/$name.manifest" "$T/parts/$name.record"; do
            [[ -e $file ]] || continue
            openssl_accepts "$file" "$T/parts/$name.signers" || { printf '    %s: not accepted\n' "${file##*/}"; return 1; }
            accepted=$((accepted + 1))
        done
    done <"$T/stdout"
    printf '# openssl: %d envelopes opened, %d signatures accepted\n' "$opened" "$accepted"
    ((opened > 50 && accepted > 50))
}

expect_exit 0 "${interop[@]}" parts "$vectors" "$T/parts"
check 'openssl cms opens every good envelope and accepts every signature' openssl_on_all
rm -rf "$vectors" "$T/parts"

# --- written there, read by bk -----------------------------------------------------------------------------------------

written=$T/written
mkdir -p "$written/keys"

# software_key NAME ALGORITHM [OPTION] : a private key, its public half, and a certificate.
software_key() {
    openssl genpkey -algorithm "$2" ${3:+-pkeyopt "$3"} -out "$written/keys/$1.pem" 2>/dev/null
    openssl pkey -in "$written/keys/$1.pem" -pubout -out "$written/keys/$1.pub"
    openssl req -x509 -new -key "$written/keys/$1.pem" -subj "/CN=$1" -days 30 -out "$written/keys/$1.crt"
}

software_key p256 EC ec_paramgen_curve:P-256
software_key p384 EC ec_paramgen_curve:P-384
software_key rsa RSA rsa_keygen_bits:3072
software_key signer EC ec_paramgen_curve:P-256
software_key signer384 EC ec_paramgen_curve:P-384
software_key rotator EC ec_paramgen_curve:P-256
aes=aes:$(openssl rand -hex 32):$(openssl rand -hex 8)
head -c 300000 /dev/urandom >"$T/plain"
head -c 5000 /dev/urandom >"$T/short"
: >"$T/empty"
K=keys
trust="$K/signer.crt $K/signer384.crt $K/rsa.crt rotate:$K/rotator.crt"
head -n 1 "$ROOT/tests/vectors/index.tsv" >"$written/index.tsv"

# writes NAME INPUT KEYS OPTION... : an archive that must open with each of the keys.
writes() {
    local name=$1 input=$2 opened_by=$3
    shift 3
    (cd "$written" && "${interop[@]}" write "$@" "$input" "$name.bk") 2>"$T/stderr" || { fail "written: $name"; return 0; }
    pass "written: $name"
    printf '%s.bk\t%s\t%s\t0\tok\t-\t%d\t%s\t0:-\t0:-\twritten from the specification\n' "$name" "$trust" "$opened_by" \
        "$(stat -c %s "$input")" "$(sha256sum <"$input" | cut -d ' ' -f 1)" >>"$written/index.tsv"
}

by=(--sign "$K/signer.pem,$K/signer.crt")
turned=(--rotate-sign "$K/rotator.pem,$K/rotator.crt" --generations)
writes p256 "$T/plain" "$K/p256.pem" --recipient "$K/p256.pub" "${by[@]}"
writes p384 "$T/plain" "$K/p384.pem" --recipient "$K/p384.crt" "${by[@]}" --segment-size 4096
writes rsa "$T/plain" "$K/rsa.pem" --recipient "$K/rsa.pub" "${by[@]}" --segment-size 1048576
writes rsa-sha1 "$T/short" "$K/rsa.pem" --recipient "$K/rsa.pub" --oaep sha1 "${by[@]}"
writes aes "$T/short" "$aes" --recipient "$aes" "${by[@]}"
writes mixed "$T/plain" "$K/p256.pem $K/p384.pem $K/rsa.pem $aes" --recipient "$K/p256.pub" --recipient "$K/p384.pub" \
    --recipient "$K/rsa.pub" --recipient "$aes" "${by[@]}" --meta database=orders --meta host=db1 --slot-size 8192
writes empty "$T/empty" "$K/p256.pem" --recipient "$K/p256.pub" "${by[@]}"
writes signed-p384 "$T/short" "$K/p256.pem" --recipient "$K/p256.pub" --sign "$K/signer384.pem,$K/signer384.crt"
writes signed-rsa "$T/short" "$K/p256.pem" --recipient "$K/p256.pub" --sign "$K/rsa.pem,$K/rsa.crt"
writes signed-by-three "$T/short" "$K/p256.pem" --recipient "$K/p256.pub" "${by[@]}" \
    --sign "$K/signer384.pem,$K/signer384.crt" --sign "$K/rsa.pem,$K/rsa.crt"
writes options "$T/short" "$K/p256.pem" --recipient "$K/p256.pub" "${by[@]}" --kind wal --label 'nightly, Zürich' \
    --sequence 'system=7 timeline=1 segment=000000010000000000000002' --retain-until 20991231235959Z --producer pg_dump \
    --parent "01890a5d-ac96-774b-bcce-b302099a8057:$(openssl rand -hex 32)" --policy-digest "$(openssl rand -hex 32)" \
    --supersedes "01890a5d-ac96-774b-bcce-b302099a8058:$(openssl rand -hex 32)"
writes rotated "$T/short" "$K/p384.pem" --recipient "$K/p256.pub" "${by[@]}" "${turned[@]}" 5 --rotate-to "$K/p384.pub"
writes detached "$T/short" "$K/p256.pem" --recipient "$K/p256.pub" "${by[@]}" --detached "${turned[@]}" 2
expect_exit 0 "$BK_BIN/tests/vectors_test" "$written"

# --- written by bk, read there -----------------------------------------------------------------------------------------

make_token signer
make_token kek
make_key signer backup p256 sign
make_key signer rotator p384 sign
make_key kek rsa rsa3072 kek
cat "$written/keys/p256.pub" "$written/keys/rsa.pub" >"$T/recipients.pem"

# reads TEXT ARCHIVE KEY OPTION...
reads() {
    local text=$1 archive=$2 key=$3
    shift 3
    rm -f "$T/out"
    printf '# %s\n' "$text"
    expect_exit 0 "${interop[@]}" read --trust "$T/backup.pem" --key "$key" "$@" "$archive" "$T/out"
    same_file "$T/plain" "$T/out"
}

wrap=(bk-wrap -r "$T/recipients.pem" -r "$T/rsa.pem" -s "$(key_uri signer backup)")
expect_exit 0 "${wrap[@]}" --meta database=orders --public-label nightly -o "$T/a.bk" "$T/plain"
reads 'an EC key' "$T/a.bk" "$written/keys/p256.pem"
reads 'an RSA key' "$T/a.bk" "$written/keys/rsa.pem"
expect_exit 0 "${interop[@]}" verify --trust "$T/backup.pem" "$T/a.bk"
expect_exit 1 "${interop[@]}" read --trust "$T/rotator.pem" --key "$written/keys/rsa.pem" "$T/a.bk" "$T/none"
expect_stderr '^refused: trust: '
no_file "$T/none"

# a rotation on the token, and what a rotator who is not trusted brings about
expect_exit 0 bk-rekey --from "$(key_uri kek rsa)" --add "$written/keys/p384.pub" -s "$(key_uri signer rotator)" \
    -t "$T/backup.pem" -t "rotate:$T/rotator.pem" "$T/a.bk"
reads 'rotated' "$T/a.bk" "$written/keys/p384.pem" --rotate "$T/rotator.pem"
expect_exit 1 "${interop[@]}" read --trust "$T/backup.pem" --key "$written/keys/p384.pem" "$T/a.bk" "$T/none"
expect_stderr '^refused: trust: '

expect_exit 0 "${wrap[@]}" --detach -o "$T/d.bk" "$T/plain"
reads 'detached' "$T/d.bk" "$written/keys/rsa.pem"
rm "$T/d.bk.keys"
expect_exit 1 "${interop[@]}" read --trust "$T/backup.pem" --key "$written/keys/rsa.pem" "$T/d.bk" "$T/none"
expect_stderr '^refused: slots: '

finish
