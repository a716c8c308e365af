#!/usr/bin/env bash
# Common mistakes, and what the programs say about them: the exit status of docs/CLI.md, one error line that names what
# is wrong, a hint where there is a way out, and never a PIN or a key. All messages are printed, so that a log can be
# read as an operator would.
set -euo pipefail
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
umask 077

edit() { /usr/bin/python3 "$ROOT/tests/cli/archive_edit.py" "$@"; }

mkdir "$T/said"
said=0

# keep_said : everything that the last command said, for the search for secrets at the end.
keep_said() {
    said=$((said + 1))
    cat "$T/stdout" "$T/stderr" >"$T/said/$said"
    if [[ -e $T/json ]]; then cat "$T/json" >>"$T/said/$said"; fi
    rm -f "$T/json"
}

# mistake CODE hint|no-hint PATTERN COMMAND ARG...
mistake() {
    local code=$1 hint=$2 pattern=$3 program errors
    shift 3
    program=$(printf '%s\n' "$@" | grep -Eom1 'bk-(wrap|unwrap|verify|rekey|key)$')
    printf '\n'
    expect_exit "$code" "$@"
    grep -E '^bk-[a-z]*: (error|hint|warning): ' "$T/stderr" | sed "s#$T/##g; s/^/# /" || true
    expect_stderr "^$program: error: .*$pattern"
    errors=$(grep -c '^bk-[a-z]*: error: ' "$T/stderr" || true)
    check 'one error' test "$errors" -eq 1
    if [[ $hint == hint ]]; then expect_stderr "^$program: hint: "; fi
    # a return value of a token is named, and nothing of the inside of a program is shown
    if grep -E '0x[0-9a-fA-F]{2,}' "$T/stderr" | grep -Evq 'CKR_|flags 0x'; then fail 'a bare number'; fi
    if grep -Eq '\(null\)|assert|/home/|\.c:[0-9]' "$T/stderr"; then fail 'something from the inside'; fi
    if grep -vEq '^bk-[a-z]*: ' "$T/stderr"; then fail 'a line that does not say which program it is from'; fi
    keep_said
}

make_token signer
make_token kek
make_key signer backup p256 sign
make_key signer rotator p256 sign
make_key kek ec p256 kek
make_key kek ec2 p256 kek
make_key kek aes aes256 kek
# a PIN that can be searched for: hexadecimal would not be unlike a key id
pin=Canary-$(openssl rand -hex 6)
softhsm2-util --init-token --free --label canary --pin "$pin" --so-pin 87654321 >/dev/null
printf '%s' "$pin" >"$T/canary.pin"
make_key canary ckek p256 kek
make_key canary csign p256 sign
make_key canary caes aes256 kek
make_key canary caes2 aes256 kek
cat "$T/signer.pin" >"$T/wrong.pin"
: >"$T/empty.pin"
head -c 100001 /dev/urandom >"$T/plain"
openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:3072 -out "$T/soft.key" 2>/dev/null
openssl pkey -in "$T/soft.key" -pubout -out "$T/soft.pem"
backup=$(key_uri signer backup)
kek=$(key_uri kek ec)
trust=(-t "$T/backup.pem")
expect_exit 0 bk-wrap -r "$T/ec.pem" -r "$T/soft.pem" -s "$backup" -o "$T/a.bk" "$T/plain"
expect_exit 0 bk-wrap -r "$T/ec.pem" -r "$T/soft.pem" -s "$backup" -o "$T/b.bk" "$T/plain"

# --- the token ----------------------------------------------------------------------------------------------------

mistake 3 no-hint 'no-such-module\.so' bk-key list "pkcs11:token=kek?module-path=$T/no-such-module.so"
mistake 3 no-hint 'backup\.pem' bk-key list "pkcs11:token=kek?module-path=$T/backup.pem"
mistake 3 no-hint "no token matches .*token=absent.*'kek'" bk-wrap -r "$T/ec.pem" \
    -s 'pkcs11:token=absent;object=backup' -o "$T/x.bk" "$T/plain"
mistake 3 no-hint 'no key matches .*object=absent' bk-wrap -r "$T/ec.pem" -s "$(key_uri signer absent)" -o "$T/x.bk" \
    "$T/plain"
mistake 3 hint 'no key on these tokens opens it|no key matches' bk-unwrap "${trust[@]}" -k "$(key_uri kek ec2)" \
    -o "$T/out" "$T/a.bk"
mistake 3 hint 'no token matches .*token=absent' bk-unwrap "${trust[@]}" -k 'pkcs11:token=absent' -o "$T/out" "$T/a.bk"
expect_stderr 'hint: it opens with any of: .*[0-9a-f]{40}'
# a label is given twice by another tool; bk-key refuses to
mistake 2 no-hint 'ec' bk-key generate --type p256 --use kek "$kek"
pkcs11-tool --module /usr/lib/softhsm/libsofthsm2.so --token-label kek --login --pin "$(cat "$T/kek.pin")" \
    --keypairgen --key-type EC:prime256v1 --label ec2 --id 77 --usage-derive >/dev/null 2>&1
mistake 3 no-hint '2 keys match .*id=' bk-wrap -r "$(key_uri kek ec2)" -s "$backup" -o "$T/x.bk" "$T/plain"
mistake 9 hint 'it wants a PIN, and there is no terminal.*no PIN was tried' setsid -w bk-wrap -r "$T/ec.pem" \
    -s 'pkcs11:token=signer;object=backup' -o "$T/x.bk" "$T/plain"
mistake 9 no-hint 'PIN was refused and is not tried again' bk-unwrap "${trust[@]}" \
    -k "pkcs11:token=kek;object=ec?pin-source=file:$T/wrong.pin" -o "$T/out" "$T/a.bk"
mistake 9 no-hint 'PIN was refused' bk-rekey --from "pkcs11:token=kek;object=ec?pin-source=file:$T/wrong.pin" \
    --to "$T/ec2.pem" -s "$(key_uri signer rotator)" "${trust[@]}" -t "rotate:$T/rotator.pem" "$T/a.bk" "$T/b.bk"
mistake 9 no-hint 'PIN is empty; it was not tried' bk-unwrap "${trust[@]}" \
    -k "pkcs11:token=kek;object=ec?pin-source=file:$T/empty.pin" -o "$T/out" "$T/a.bk"
mistake 2 no-hint 'PIN.s file: .*absent\.pin.*No such file' bk-unwrap "${trust[@]}" \
    -k "pkcs11:token=kek;object=ec?pin-source=file:$T/absent.pin" -o "$T/out" "$T/a.bk"
mistake 2 no-hint 'pin-source: .*exited with status 3' bk-unwrap "${trust[@]}" \
    -k 'pkcs11:token=kek;object=ec?pin-source=|exit%203' -o "$T/out" "$T/a.bk"
mistake 2 no-hint 'colour' bk-unwrap "${trust[@]}" -k 'pkcs11:token=kek;colour=red' -o "$T/out" "$T/a.bk"
mistake 3 no-hint 'sign' bk-wrap -r "$T/ec.pem" -s "$kek" -o "$T/x.bk" "$T/plain"
mistake 3 no-hint 'names' bk-wrap -r "$backup" -s "$backup" -o "$T/x.bk" "$T/plain"

# --- the command line ---------------------------------------------------------------------------------------------

mistake 2 hint 'unknown option --colour' bk-wrap --colour
mistake 2 hint 'unknown option --recip' bk-wrap --recip x
mistake 2 hint 'unknown option -z' bk-verify -z "$T/a.bk"
mistake 2 hint 'option (-o|--output) needs a value' bk-unwrap "$T/a.bk" --output
mistake 2 no-hint 'signing key' bk-wrap -r "$T/ec.pem" -o "$T/x.bk" "$T/plain"
mistake 2 no-hint 'recipient' bk-wrap -s "$backup" -o "$T/x.bk" "$T/plain"
mistake 2 no-hint '--sign: not a PKCS#11 URI' bk-wrap -r "$T/ec.pem" -s "$T/soft.key" -o "$T/x.bk" "$T/plain"
mistake 2 no-hint 'no output' bk-unwrap "${trust[@]}" "$T/a.bk"
mistake 2 no-hint 'one archive at a time' bk-unwrap "${trust[@]}" -o "$T/out" "$T/a.bk" "$T/b.bk"
mistake 2 no-hint 'no archive to verify' bk-verify "${trust[@]}"
mistake 2 hint 'whom to trust was not said' bk-verify "$T/a.bk"
expect_stderr 'hint: signed by sha256:[0-9a-f]{64}: compare with your runbook, then -t sha256:'
mistake 2 hint 'whom to trust was not said' bk-unwrap -o "$T/out" "$T/a.bk"
mistake 2 no-hint 'nothing to do' bk-rekey --from "$kek" -s "$backup" "${trust[@]}" "$T/a.bk"

# --- files --------------------------------------------------------------------------------------------------------

: >"$T/empty.pem"
head -c 3000 /dev/urandom >"$T/garbage.pem"
printf -- '-----BEGIN PUBLIC KEY-----\nTm90IGEga2V5\n-----END PUBLIC KEY-----\n' >"$T/broken.pem"
wrap_for() { mistake "$1" "$2" "$3" bk-wrap -r "$4" -s "$backup" -o "$T/x.bk" "$T/plain"; }
wrap_for 2 hint '[Pp]rivate key' "$T/soft.key"
wrap_for 2 no-hint 'absent\.pem.*No such file' "$T/absent.pem"
wrap_for 2 no-hint 'empty\.pem' "$T/empty.pem"
wrap_for 2 no-hint 'garbage\.pem' "$T/garbage.pem"
wrap_for 2 no-hint 'broken\.pem' "$T/broken.pem"
wrap_for 2 no-hint 'directory' "$T"
mistake 2 no-hint 'trust: .*absent\.pem.*No such file' bk-verify -t "$T/absent.pem" "$T/a.bk"
mistake 2 no-hint 'trust: .*empty\.pem' bk-verify -t "$T/empty.pem" "$T/a.bk"
mistake 2 no-hint 'trust: .*64 hex digits' bk-verify -t sha256:1234 "$T/a.bk"
mistake 2 no-hint 'trust: .*No such file' bk-verify -t "rotator:$T/rotator.pem" "$T/a.bk"
mistake 5 no-hint 'absent\.bk.*No such file' bk-verify "${trust[@]}" "$T/absent.bk"
mistake 5 no-hint 'absent\.bk.*No such file' bk-unwrap "${trust[@]}" -k "$kek" -o "$T/out" "$T/absent.bk"
mistake 5 no-hint 'absent.*No such file' bk-wrap -r "$T/ec.pem" -s "$backup" -o "$T/x.bk" "$T/absent"
mistake 5 no-hint 'nowhere.*No such file' bk-wrap -r "$T/ec.pem" -s "$backup" -o "$T/nowhere/x.bk" "$T/plain"
mistake 5 no-hint 'nowhere.*No such file' bk-unwrap "${trust[@]}" -k "$kek" -o "$T/nowhere/out" "$T/a.bk"
mkdir "$T/folder"
mistake 2 no-hint 'folder' bk-wrap -r "$T/ec.pem" -s "$backup" -o "$T/folder" "$T/plain"
mistake 2 no-hint 'folder' bk-unwrap "${trust[@]}" -k "$kek" -o "$T/folder" "$T/a.bk"
mistake 2 hint 'exists already' bk-unwrap "${trust[@]}" -k "$kek" -o "$T/plain" "$T/a.bk"
mistake 5 hint 'empty' bk-wrap -r "$T/ec.pem" -s "$backup" -o "$T/x.bk" /dev/null
if ((EUID == 0)); then
    chmod 711 "$T"
    mkdir -m 755 "$T/shared"
    cp "$T/a.bk" "$T/backup.pem" "$T/shared/"
    chmod 644 "$T/shared/backup.pem"
    mistake 5 no-hint 'a\.bk.*Permission denied' runuser -u nobody -- "$BK_BIN/bk-verify" -t "$T/shared/backup.pem" \
        "$T/shared/a.bk"
    chmod 700 "$T"
else
    cp "$T/a.bk" "$T/unreadable.bk"
    chmod 0 "$T/unreadable.bk"
    mistake 5 no-hint 'unreadable\.bk.*Permission denied' bk-verify "${trust[@]}" "$T/unreadable.bk"
fi

# --- archives -----------------------------------------------------------------------------------------------------

mistake 1 no-hint 'not a bk archive' bk-verify "${trust[@]}" "$T/backup.pem"
edit preamble "$T/a.bk" "$T/x.bk" 8 0002
mistake 1 no-hint 'version 2, and this program reads version 1' bk-unwrap "${trust[@]}" -k "$kek" -o "$T/out" "$T/x.bk"
edit preamble "$T/a.bk" "$T/x.bk" 10 0004
mistake 1 no-hint 'flags 0x0004 are not known' bk-unwrap "${trust[@]}" -k "$kek" -o "$T/out" "$T/x.bk"
head -c 90000 "$T/a.bk" >"$T/x.bk"
mistake 1 hint 'not complete' bk-verify "${trust[@]}" "$T/x.bk"
edit detach "$T/a.bk" "$T/x.bk"
mistake 1 hint 'its key envelope is detached' bk-unwrap "${trust[@]}" -k "$kek" -o "$T/out" "$T/x.bk"
edit sidecar "$T/a.bk" "$T/x.bk"
mistake 1 no-hint '' bk-verify "${trust[@]}" "$T/x.bk"
mistake 1 hint 'which is not trusted' bk-verify -t "$T/rotator.pem" "$T/a.bk"
expect_stderr 'hint: compare this fingerprint with your runbook'
mistake 1 no-hint 'not the expected archive: label is absent, expected orders' bk-verify "${trust[@]}" \
    --expect label=orders "$T/a.bk"
mistake 7 no-hint 'absent-program' bk-wrap -r "$T/ec.pem" -s "$backup" -o "$T/y.bk" -- absent-program
mistake 7 no-hint 'exit.* 3' bk-wrap -r "$T/ec.pem" -s "$backup" -o "$T/y.bk" -- sh -c 'echo half; exit 3'
no_file "$T/y.bk"
no_file "$T/out"

# --- secrets ------------------------------------------------------------------------------------------------------

# quiet_about WHO COMMAND ARG... : exits 0, and what it said is kept for the search.
quiet_about() {
    expect_exit 0 "$@"
    keep_said
}

# cmdline_of PID... : of a process and all of its children, with its environment as far as others may read it.
cmdline_of() {
    local pid
    for pid in "$@"; do
        tr '\0' '\n' <"/proc/$pid/cmdline" || true
        # shellcheck disable=SC2046
        cmdline_of $(cat "/proc/$pid/task/"*/children 2>/dev/null || true)
    done
}

# seen_running FIFO PID : what the process list shows of it once its command has opened the pipe, which it then gets.
seen_running() {
    printf 'go\n' >"$1"
    cmdline_of "$2" >"$T/said/cmdline.$2"
    check "bk was seen running" grep -q '^pkcs11:token=canary' "$T/said/cmdline.$2"
}

canary_sign=$(key_uri canary csign)
canary_kek=$(key_uri canary ckek)
printf '\n# a PIN from a file is in no process list, while the programs run\n'
mkfifo "$T/gate" "$T/gate2"
# the producer waits at the second gate, so that bk-wrap is logged in and alive while it is looked at
# shellcheck disable=SC2016
bk-wrap -r "$canary_kek" -r "$T/soft.pem" -s "$canary_sign" --json="$T/json" -o "$T/c.bk" -- \
    sh -c 'read -r _ <"$1"; cat "$2"; read -r _ <"$3"' sh "$T/gate" "$T/plain" "$T/gate2" >"$T/stdout" 2>"$T/stderr" &
bk=$!
seen_running "$T/gate" "$bk"
printf 'go\n' >"$T/gate2"
check 'bk-wrap ends well' wait "$bk"
keep_said
# shellcheck disable=SC2016
bk-unwrap -t "$T/csign.pem" -k "$canary_kek" --json="$T/json" "$T/c.bk" -- \
    sh -c 'read -r _ <"$1"; cat >"$2"; read -r _ <"$3"' sh "$T/gate" "$T/out" "$T/gate2" >"$T/stdout" 2>"$T/stderr" &
bk=$!
seen_running "$T/gate" "$bk"
printf 'go\n' >"$T/gate2"
check 'bk-unwrap ends well' wait "$bk"
keep_said
same_file "$T/plain" "$T/out"

printf '\n# what the programs say when all is well, and when it is not\n'
cp "$T/c.bk" "$T/d.bk"
canary_trust=(-t "$T/csign.pem" -t "rotate:$T/csign.pem")
quiet_about bk-verify --json="$T/json" --show --level decrypt -k "$canary_kek" -t "$T/csign.pem" "$T/c.bk"
quiet_about bk-verify --show -t "$T/csign.pem" "$T/c.bk"
quiet_about bk-rekey --json="$T/json" --from "$canary_kek" --to "$(key_uri canary caes)" -s "$canary_sign" \
    "${canary_trust[@]}" "$T/d.bk"
quiet_about bk-rekey --json="$T/json" --from "$(key_uri canary caes)" --to "$(key_uri canary caes2)" -s "$canary_sign" \
    "${canary_trust[@]}" "$T/d.bk"
quiet_about bk-unwrap "${canary_trust[@]}" -k "$(key_uri canary caes2)" --meta "$T/d.bk"
quiet_about bk-verify --show --json "${canary_trust[@]}" "$T/d.bk"
quiet_about bk-key list "pkcs11:token=canary?pin-source=file:$T/canary.pin"
quiet_about bk-key show --json "$canary_kek"
flip "$T/d.bk" $(($(stat -c %s "$T/d.bk") - 1500))
expect_exit 1 bk-unwrap "${canary_trust[@]}" -k "$(key_uri canary caes2)" --json="$T/json" -o "$T/out2" "$T/d.bk"
keep_said

printf '\n# a PIN in the URI itself is warned of, and not repeated by whatever fails\n'
in_uri() { printf 'pkcs11:token=%s;object=%s?pin-value=%s' "$1" "$2" "$pin"; }
mistake 3 no-hint 'no key matches' bk-wrap -r "$T/ec.pem" -s "$(in_uri canary absent)" -o "$T/x2.bk" "$T/plain"
expect_stderr 'warning: a PIN in a URI is seen by everybody'
mistake 3 no-hint 'no token matches' bk-wrap -r "$T/ec.pem" -s "$(in_uri absent csign)" -o "$T/x2.bk" "$T/plain"
mistake 3 hint 'no token matches' bk-unwrap -t "$T/csign.pem" -k "$(in_uri absent ckek)" -o "$T/x2" "$T/c.bk"
mistake 9 no-hint 'PIN was refused' bk-unwrap -t "$T/backup.pem" -k "$(in_uri kek ec)" -o "$T/x2" "$T/a.bk"
mistake 2 no-hint '' bk-unwrap -t "$T/csign.pem" -k "$(in_uri canary ckek)&colour=red" -o "$T/x2" "$T/c.bk"
mistake 2 no-hint '' bk-unwrap -t "$T/csign.pem" -k "pkcs11:token=canary?pin-value=$pin%zz" -o "$T/x2" "$T/c.bk"
mistake 2 no-hint '' bk-unwrap -t "$T/csign.pem" -k "pkcs11:token=canary?pin-value=$pin&pin-value=$pin" -o "$T/x2" \
    "$T/c.bk"
mistake 2 no-hint '--sign: not a PKCS#11 URI' bk-wrap -r "$T/ec.pem" -s "token=canary?pin-value=$pin" -o "$T/x2.bk" \
    "$T/plain"
mistake 2 no-hint 'not a PKCS#11 URI' bk-key show "token=canary?pin-value=$pin"
mistake 2 no-hint 'recipient with a PIN' bk-wrap -r "token=canary?pin-value=$pin" -s "$canary_sign" -o "$T/x2.bk" \
    "$T/plain"
mistake 2 no-hint 'pin-value' bk-unwrap -t "$T/csign.pem" -k "pkcs11:token=canary;pin-value=$pin" -o "$T/x2" "$T/c.bk"
mistake 2 no-hint 'neither file:PATH nor' bk-unwrap -t "$T/csign.pem" \
    -k "pkcs11:token=canary;object=ckek?pin-source=$pin" -o "$T/x2" "$T/c.bk"

# not_found NAME NEEDLE FILE... : the search itself is tried first, on a file that holds it.
not_found() {
    local name=$1 needle=$2
    shift 2
    { printf 'x' && cat "$needle" && printf 'y'; } >"$T/planted"
    check "the search finds $name" edit holds "$needle" "$@" "$T/planted"
    if edit holds "$needle" "$@" >"$T/where"; then
        fail "$name is in $(cat "$T/where"): $(grep -a "$(cat "$needle")" "$(cat "$T/where")" | head -3)"
    else
        pass "$name is nowhere in what was said"
    fi
}
files=("$T"/said/*)
check 'what was said was kept' test "${#files[@]}" -ge 80
# one more place where secrets must not be: the archives themselves
files+=("$T/c.bk" "$T/d.bk")
not_found 'the PIN' "$T/canary.pin" "${files[@]}"
printf '%s' "$pin" | base64 -w0 >"$T/pin.base64"
not_found 'the PIN in base64' "$T/pin.base64" "${files[@]}"
mkdir "$T/keys"
edit secrets "$T/c.bk" "$T/soft.key" "$T/keys"
for key in "$T"/keys/*; do not_found "${key##*/}" "$key" "${files[@]}"; done

finish
