#!/usr/bin/env bash
# KEKs for blind rotation alone, with the programs: the security officer makes them, an operator rotates with them and
# reads nothing, somebody else restores, and no archive is left that nobody could restore.
set -euo pipefail

# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

SO_PIN=87654321 # of make_token

# officer_uri TOKEN OBJECT : the same as key_uri, with the security officer's PIN.
officer_uri() { printf 'pkcs11:token=%s;object=%s?pin-source=file:%s/so.pin' "$1" "$2" "$T"; }

# rekey STATUS FROM TO [OPTION...] : in place, by the operator.
rekey() {
    expect_exit "$1" bk-rekey --from "$(key_uri rotate "$2")" --to "$(key_uri rotate "$3")" "${@:4}" -s "$(key_uri signer rotator)" \
        -t "$T/backup.pem" -t "rotate:$T/rotator.pem" "$T/a.bk"
}

# opens TOKEN STATUS : bk-unwrap with whatever key of that token.
opens() {
    rm -f "$T/out"
    expect_exit "$2" bk-unwrap -t "$T/backup.pem" -t "rotate:$T/rotator.pem" -k "pkcs11:token=$1?pin-source=file:$T/$1.pin" \
        -o "$T/out" "$T/a.bk"
}

make_token signer
make_token rotate
make_token restore
make_key signer backup p256 sign
make_key signer rotator p256 sign
make_key restore kek p256 kek
make_key rotate plain aes256 kek
(umask 077 && printf '%s' "$SO_PIN" >"$T/so.pin")
head -c 100000 /dev/urandom >"$T/plain"

printf '\n# the officer makes them\n'
for name in one two; do
    expect_exit 0 bk-key generate --type aes256 --use rotate "$(officer_uri rotate "$name")"
done
expect_exit 0 bk-key list "pkcs11:token=rotate;object=one?pin-source=file:$T/rotate.pin"
expect_stdout 'one'
expect_exit 9 bk-key generate --type aes256 --use rotate "$(key_uri rotate three)"
expect_stderr 'the PIN was refused'
expect_exit 2 bk-key generate --type p256 --use rotate "$(officer_uri rotate three)"
expect_stderr 'only an AES key'
expect_exit 3 bk-key show "$(key_uri rotate three)"

printf '\n# what nobody could restore\n'
expect_exit 4 bk-wrap -r "$(key_uri rotate one)" -s "$(key_uri signer backup)" -o "$T/no.bk" "$T/plain"
expect_stderr 'no recipient could restore this'
no_file "$T/no.bk"
expect_exit 0 bk-wrap -r "$(key_uri rotate plain)" -s "$(key_uri signer backup)" -o "$T/a.bk" "$T/plain"
cp "$T/a.bk" "$T/before.bk"
rekey 4 plain one
expect_stderr 'nobody could restore this any more'
same_file "$T/a.bk" "$T/before.bk"
rm "$T/a.bk"

printf '\n# a life with one\n'
expect_exit 0 bk-wrap -r "$(key_uri rotate one)" -r "$T/kek.pem" -s "$(key_uri signer backup)" -o "$T/a.bk" "$T/plain"
rekey 0 one two --blind required
expect_stderr 'blindness tokenEnforced'
opens rotate 3
expect_stderr 'what the key .* opens stays in the token'
expect_stderr 'hint: .*restore with another recipient'
no_file "$T/out"
opens restore 0
same_file "$T/out" "$T/plain"
expect_exit 0 bk-verify --show -t "$T/backup.pem" -t "rotate:$T/rotator.pem" "$T/a.bk"
expect_stdout 'blindness tokenEnforced'
expect_exit 3 bk-verify --level decrypt -k "$(key_uri rotate two)" -t "$T/backup.pem" -t "rotate:$T/rotator.pem" "$T/a.bk"

printf '\n# to an ordinary key, and to a sealed one again\n'
rekey 4 two plain --blind required
rekey 3 two plain
rm "$T/a.bk"
expect_exit 0 bk-wrap -r "$(key_uri rotate plain)" -r "$T/kek.pem" -s "$(key_uri signer backup)" -o "$T/a.bk" "$T/plain"
rekey 0 plain one
expect_stderr 'blindness host$'
rekey 0 one two
expect_stderr 'blindness tokenEnforced'
opens restore 0
same_file "$T/out" "$T/plain"

printf '\n# two ordinary keys: no more is said than that the host was blind\n'
make_key rotate plain2 aes256 kek
rm "$T/a.bk"
expect_exit 0 bk-wrap -r "$(key_uri rotate plain)" -r "$T/kek.pem" -s "$(key_uri signer backup)" -o "$T/a.bk" "$T/plain"
rekey 0 plain plain2 --blind required
expect_stderr 'blindness hostBlind'

finish
