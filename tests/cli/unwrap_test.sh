#!/usr/bin/env bash
# bk-unwrap, as docs/CLI.md has it: what comes out, which archive it must be, whom to trust, what a consumer may see,
# and the exit status that PostgreSQL's restore_command needs.
# shellcheck disable=SC2317 # functions are called by `check` and traps
set -euo pipefail
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

GROUP=1048576
SEGMENT=32768

# unwrap CODE ARG... : with the trusted signer and the token that opens.
unwrap() {
    local code=$1
    shift
    expect_exit "$code" bk-unwrap -t "$T/backup.pem" -k "$(token_uri kek)" "$@"
}

# refused CODE PATTERN ARG... : it says why, and nothing is left.
refused() {
    local code=$1 pattern=$2
    shift 2
    rm -f "$T/out"
    unwrap "$code" -o "$T/out" "$@"
    expect_stderr "$pattern"
    no_file "$T/out"
    no_output
}

token_uri() { printf 'pkcs11:token=%s?pin-source=file:%s/%s.pin' "$1" "$T" "$1"; }
fingerprint() { printf 'sha256:%s' "$(spki "$1" | sha256sum | cut -d' ' -f1)"; }
spki() { openssl x509 -in "$1" -noout -pubkey | openssl pkey -pubin -outform DER; }

# said FILE MEMBER : a member of the archive's JSON.
said() {
    bk-verify -q --level signature --show --json -t "$T/backup.pem" "$1" 2>/dev/null |
        /usr/bin/python3 -c 'import json, sys; print(json.load(sys.stdin)[sys.argv[1]])' "$2"
}

# --- ranges -------------------------------------------------------------------------------------------------------

slice() { dd if="$1" bs=64K iflag=skip_bytes,count_bytes skip="$2" count="$3" status=none; }

range() {
    local offset=$1 length=$2 way=$3
    slice "$T/plain" "$offset" "${length:-$GROUP$GROUP}" >"$T/wanted"
    rm -f "$T/out"
    if [[ $way == file ]]; then
        unwrap 0 -q --range "$offset:$length" -o "$T/out" "$T/a.bk"
        same_file "$T/wanted" "$T/out"
    else
        unwrap 0 -q --range "$offset:$length" -o - "$T/a.bk"
        same_file "$T/wanted" "$T/stdout"
    fi
}

ranges() {
    local size
    size=$(stat -c %s "$T/plain")
    range 0 1 file
    range 0 '' file
    range 1 "$((SEGMENT - 1))" stdout
    range "$((SEGMENT - 1))" 2 file
    range "$SEGMENT" "$SEGMENT" stdout
    range "$((GROUP - 1))" 1 file
    range "$((GROUP - 1))" 2 stdout
    range "$GROUP" "$GROUP" file
    range "$((GROUP + 77))" "$((GROUP * 2))" stdout
    range "$((size - 1))" 1 file
    range "$((size - 1))" '' stdout
    range "$((GROUP * 3))" '' file
    range 0 "$size" stdout
    refused 2 'only [0-9]+ bytes' --range "$size:1" "$T/a.bk"
    refused 2 'only [0-9]+ bytes' --range "$((size + 1)):" "$T/a.bk"
    refused 2 'only [0-9]+ bytes' --range "1:$size" "$T/a.bk"
    refused 2 'only [0-9]+ bytes' --range '9223372036854775807:9223372036854775807' "$T/a.bk"
    refused 2 'range' --range 5 "$T/a.bk"
    refused 2 'range' --range 5:0 "$T/a.bk"
    refused 2 'range' --range -5:1 "$T/a.bk"
    refused 2 'range' --range 99999999999999999999:1 "$T/a.bk"
    expect_exit 0 bk-unwrap -q -t "$T/backup.pem" -k "$(token_uri kek)" --range "$GROUP:4" "$T/a.bk" -- cat
    slice "$T/plain" "$GROUP" 4 >"$T/wanted"
    same_file "$T/wanted" "$T/stdout"
    rm -f "$T/out"
    from_pipe "$T/a.bk" 2 bk-unwrap -t "$T/backup.pem" -k "$(token_uri kek)" --range 0:1 -o "$T/out" -
    no_file "$T/out"

    # damage elsewhere does not touch a range, damage within it does
    cp "$T/a.bk" "$T/bad.bk"
    flip "$T/bad.bk" "$(payload_at "$T/a.bk" $((GROUP * 2 + 100)))"
    rm -f "$T/out"
    unwrap 0 -q --range "0:$GROUP" -o "$T/out" "$T/bad.bk"
    refused 1 'group 2 ' --range "$((GROUP * 2)):10" "$T/bad.bk"
}

# payload_at ARCHIVE OFFSET : where the archive keeps that byte of the plaintext (docs/FORMAT.md, section 5).
payload_at() {
    local slot
    slot=$(od -An -tu4 --endian=big -j 12 -N 4 "$1" | tr -d ' ')
    # shellcheck disable=SC2017 # the division is meant to round
    printf '%d' $((4096 + 2 * slot + $2 / SEGMENT * (SEGMENT + 20) + 4 + $2 % SEGMENT))
}

# --- output -------------------------------------------------------------------------------------------------------

# Until the last byte was verified the name is not there: the archive comes through a pipe that stops short of its end.
appears_whole() {
    local size pid status=0
    size=$(stat -c %s "$T/a.bk")
    mkfifo "$T/slow"
    bk-unwrap -q -t "$T/backup.pem" -k "$(token_uri kek)" -o "$T/out" - <"$T/slow" 2>"$T/stderr" &
    pid=$!
    exec 9>"$T/slow"
    head -c "$((size - 10))" "$T/a.bk" >&9
    check 'a staged part grows' wait_until 20 part_of "$T/out" "$GROUP"
    check 'no name before the end' test ! -e "$T/out"
    tail -c 10 "$T/a.bk" >&9
    exec 9>&-
    wait "$pid" || status=$?
    check 'restored when the end was seen' test "$status" -eq 0
    same_file "$T/plain" "$T/out"
    check 'mode of the file' test "$(stat -c %a "$T/out")" = "$(printf '%o' $((0666 & ~$(umask))))"

    unwrap 2 -o "$T/out" "$T/a.bk"
    expect_stderr 'exists already'
    : >"$T/old"
    unwrap 1 --force -o "$T/old" "$T/bad.bk"
    check 'a failure leaves the old file' test -e "$T/old" -a ! -s "$T/old"
    unwrap 0 --force -o "$T/old" "$T/a.bk"
    same_file "$T/plain" "$T/old"

    unwrap 2 "$T/a.bk"
    expect_stderr 'no output'
    unwrap 2 -o "$T/o" "$T/a.bk" -- cat
    unwrap 2 -o "$T/o" "$T/a.bk" "$T/a.bk"
    unwrap 2 --meta --range 0:1 "$T/a.bk"
    unwrap 2 --json "$T/a.bk" -- cat
    unwrap 2 --json -o - "$T/a.bk"
    no_file "$T/o"
    refused 5 'No such file' "$T/nothing.bk"
    refused 5 'directory' "$T"
    refused 1 'not a bk archive|preamble' "$T/plain"
}

# part_of PATH SIZE : its staged part is there and at least that long.
part_of() {
    local part
    part=$(find "$(dirname "$1")" -maxdepth 1 -name ".$(basename "$1").*.part" -print -quit)
    [[ -n $part && $(stat -c %s "$part") -ge $2 ]]
}

# --- which archive ------------------------------------------------------------------------------------------------

expectations() {
    local id digest signer
    id=$(said "$T/a.bk" archiveId)
    digest=$(said "$T/a.bk" manifestDigest)
    signer=$(fingerprint "$T/backup.pem")
    as_expected "archive=$id"
    as_expected "archive=${id^^}"
    as_expected "manifest=$digest"
    as_expected "manifest=sha256:$digest"
    as_expected "label=orders nightly"
    as_expected "signer=$signer"
    as_expected "sequence=lsn=0/17"
    as_expected "created-after=2020-01-01"
    as_expected "label=orders nightly" --expect "signer=$signer" --min-generation 1
    not_expected archive "archive=$(said "$T/b.bk" archiveId)"
    not_expected manifest "manifest=$(said "$T/b.bk" manifestDigest)"
    not_expected label "label=orders"
    not_expected label "label=" --expect "archive=$id"
    not_expected signer "signer=$(fingerprint "$T/stranger.pem")"
    not_expected sequence "sequence=lsn=0/18"
    not_expected 'too old' "created-after=2199-12-31T23:59:59Z"
    not_expected archive "label=orders nightly" --expect "archive=$(said "$T/b.bk" archiveId)"
    refused 2 'UUID' --expect archive=1234 "$T/a.bk"
    refused 2 'hex' --expect manifest=12 "$T/a.bk"
    refused 2 'hex' --expect signer=12 "$T/a.bk"
    refused 2 'date' --expect created-after=yesterday "$T/a.bk"
    refused 2 'none of' --expect owner=me "$T/a.bk"
    refused 1 'generation 1, expected at least 2' --min-generation 2 "$T/a.bk"
    refused 2 'min-generation' --min-generation 0 "$T/a.bk"

    # a stream is held to the same, although its manifest comes last
    rm -f "$T/out"
    from_pipe "$T/a.bk" 1 bk-unwrap -t "$T/backup.pem" -k "$(token_uri kek)" --expect label=other -o "$T/out" -
    no_file "$T/out"
    expect_stderr 'not the expected archive'
}

as_expected() {
    rm -f "$T/out"
    unwrap 0 --expect "$@" -o "$T/out" "$T/a.bk"
    same_file "$T/plain" "$T/out"
    case $1 in # a label or a signer stays the same from one backup to the next
    label=* | signer=*) (($# > 1)) || expect_stderr 'freshness not checked' ;;
    *) check 'freshness was checked' test ! -s <(grep 'freshness' "$T/stderr") ;;
    esac
}

not_expected() {
    local pattern=$1
    shift
    refused 1 "genuine, but.*$pattern" --expect "$@" "$T/a.bk"
    unwrap 1 --json --expect "$@" -o "$T/out" "$T/a.bk"
    json_is "$T/stdout" "o['layer'] == 'expect' and o['code'] == 1"
}

# --- whom to trust ------------------------------------------------------------------------------------------------

trust() {
    local signer key
    signer=$(fingerprint "$T/backup.pem")
    key=$(token_uri kek)
    untrusted 2 "hint: .*-t $signer"
    untrusted 1 "hint: .*-t $signer" -t "$T/stranger.pem"
    untrusted 1 'not trusted' -t "$(fingerprint "$T/stranger.pem")"
    untrusted 1 'not in this role' -t "rotate:$T/backup.pem"
    untrusted 1 'not in this role' -t "officer:$signer"
    untrusted 1 'not in this role' -t "custodian:$signer"
    untrusted 2 'nothing.pem' -t "$T/nothing.pem"
    untrusted 2 'hex' -t sha256:1234
    untrusted 2 '.' -t "$T/plain"
    untrusted 2 '.' -t "admin:$T/backup.pem"
    rm -f "$T/out"
    expect_exit 0 bk-unwrap -q -t "$signer" -k "$key" -o "$T/out" "$T/a.bk"
    rm -f "$T/out"
    expect_exit 0 bk-unwrap -q -t "$T/stranger.pem" -t "backup:$T/backup.pem" -k "$key" -o "$T/out" "$T/a.bk"
    spki "$T/backup.pem" | openssl pkey -pubin -inform DER -out "$T/bare.pem"
    rm -f "$T/out"
    expect_exit 0 bk-unwrap -q -t "$T/bare.pem" -k "$key" -o "$T/out" "$T/a.bk"
    same_file "$T/plain" "$T/out"
}

untrusted() {
    local code=$1 pattern=$2
    shift 2
    rm -f "$T/out"
    expect_exit "$code" bk-unwrap "$@" -k "$(token_uri kek)" -o "$T/out" "$T/a.bk"
    expect_stderr "$pattern"
    no_file "$T/out"
    expect_exit "$code" bk-unwrap "$@" -k "$(token_uri kek)" "$T/a.bk" -- tee "$T/leaked"
    no_file "$T/leaked"
}

keys() {
    refused_key 3 'no token|no key' 'pkcs11:token=nothing'
    refused_key 3 'nothing.so' "pkcs11:token=kek?module-path=$T/nothing.so"
    refused_key 3 '.' "$(token_uri signer)"
    refused_key 2 'PKCS#11 URI' "$T/backup.pem"
    refused_key 9 'PIN' 'pkcs11:token=kek'
    printf 'wrong-pin' >"$T/wrong.pin"
    chmod 600 "$T/wrong.pin"
    refused_key 9 'PIN' "pkcs11:token=kek?pin-source=file:$T/wrong.pin"
    refused_key 2 'nothing.pin' "pkcs11:token=kek?pin-source=file:$T/nothing.pin"
}

refused_key() {
    rm -f "$T/out"
    # setsid: without a terminal to ask at
    expect_exit "$1" setsid -w bk-unwrap -t "$T/backup.pem" -k "$3" -o "$T/out" "$T/a.bk"
    expect_stderr "$2"
    no_file "$T/out"
}

# --- raw RSA ------------------------------------------------------------------------------------------------------

# SoftHSM 2.6.1 does not know OAEP with SHA-256. Somebody wrapped to its key without asking it.
raw_rsa() {
    sed 's/^bk-scheme: rsa-oaep-sha1$/bk-scheme: rsa-oaep-sha256/' "$T/rsa.pem" >"$T/rsa256.pem"
    expect_exit 0 bk-wrap -r "$T/rsa256.pem" -s "$(key_uri signer backup)" -o "$T/rsa.bk" "$T/plain"
    refused 3 'CKR_ARGUMENTS_BAD' "$T/rsa.bk"
    expect_stderr 'hint: .*--raw-rsa'
    rm -f "$T/out"
    unwrap 0 --raw-rsa -o "$T/out" "$T/rsa.bk"
    same_file "$T/plain" "$T/out"
    expect_exit 3 bk-verify --level decrypt -t "$T/backup.pem" -k "$(token_uri kek)" "$T/rsa.bk"
    expect_exit 0 bk-verify --level decrypt --raw-rsa -t "$T/backup.pem" -k "$(token_uri kek)" "$T/rsa.bk"
    # from it to a key that needs none of that
    local -a rekey=(-s "$(key_uri signer rotator)" -t "$T/backup.pem" -t "rotate:$T/rotator.pem")
    expect_exit 3 bk-rekey "${rekey[@]}" --from "$(key_uri kek rsa)" --to "$(key_uri kek ec)" "$T/rsa.bk"
    expect_exit 0 bk-rekey "${rekey[@]}" --raw-rsa --from "$(key_uri kek rsa)" --to "$(key_uri kek ec)" "$T/rsa.bk"
    rm -f "$T/out"
    unwrap 0 -t "rotate:$T/rotator.pem" -o "$T/out" "$T/rsa.bk"
    same_file "$T/plain" "$T/out"
}

# --- consumers ----------------------------------------------------------------------------------------------------

# Writes what it read, and only after the end of its input the marker: a consumer that commits at the end.
write_consumers() {
    cat >"$T/commit" <<'SH'
#!/bin/sh
echo $$ >"$1.pid"
cat >"$1.data"
: >"$1.committed"
SH
    chmod +x "$T/commit"
}

consumers() {
    unwrap 0 -q "$T/a.bk" -- "$T/commit" "$T/c"
    same_file "$T/plain" "$T/c.data"
    check 'the consumer saw the end' test -e "$T/c.committed"

    unwrap 7 "$T/a.bk" -- sh -c 'cat >/dev/null; exit 3'
    expect_stderr 'sh: exited with status 3'
    unwrap 7 "$T/a.bk" -- sh -c 'head -c 10; exit 4'
    expect_stderr 'sh: exited with status 4'
    unwrap 7 "$T/a.bk" -- head -c 10
    expect_stderr 'head: stopped reading'
    # shellcheck disable=SC2016
    unwrap 7 "$T/a.bk" -- sh -c 'kill -9 $$'
    expect_stderr 'sh: killed by signal 9'
    unwrap 7 "$T/a.bk" -- "$T/no-such-command"
    expect_stderr 'no-such-command'
    unwrap 7 --json="$T/j" "$T/a.bk" -- false
    json_is "$T/j" "o['code'] == 7 and o['layer'] == 'consumer'"

    never_commits 'damaged in its last group' "$(payload_at "$T/a.bk" $(($(stat -c %s "$T/plain") - 1)))"
    never_commits 'damaged in its first byte' "$(payload_at "$T/a.bk" 0)"
}

# never_commits TEXT OFFSET : with that byte damaged the consumer is killed before its input ends.
never_commits() {
    printf '# %s\n' "$1"
    cp "$T/a.bk" "$T/bad.bk"
    flip "$T/bad.bk" "$2"
    rm -f "$T"/c.*
    unwrap 1 "$T/bad.bk" -- "$T/commit" "$T/c"
    expect_stderr 'group [0-9]+ '
    check 'the consumer saw no end' test ! -e "$T/c.committed"
    expect_exit 0 bk-verify -q --level signature -t "$T/backup.pem" "$T/bad.bk" # only the payload is bad
}

# bk-unwrap killed in the middle must not look like the end of the input either.
killed_unwrap() {
    local signal=$1 pid status=0 size
    size=$(stat -c %s "$T/a.bk")
    rm -f "$T"/c.* "$T/slow"
    mkfifo "$T/slow"
    # a shell without job control starts its background jobs deaf to SIGINT, nohup to SIGHUP, and bk respects that
    env --default-signal=TERM,INT,HUP bk-unwrap -q --allow-unverified -t "$T/backup.pem" -k "$(token_uri kek)" \
        - -- "$T/commit" "$T/c" <"$T/slow" 2>"$T/stderr" &
    pid=$!
    exec 9>"$T/slow"
    head -c "$((size - 10))" "$T/a.bk" >&9
    check 'the consumer reads' wait_until 20 test -s "$T/c.data"
    kill "-$signal" "$pid"
    check "bk-unwrap ends within 20 seconds of SIG$signal" wait_until 20 ended "$pid" || true
    kill -9 "$pid" 2>/dev/null || true
    wait "$pid" || status=$?
    exec 9>&-
    check "bk-unwrap ends by SIG$signal" test "$status" -eq $((128 + $(kill -l "$signal")))
    check 'no process of the consumer is left' wait_until 20 ended "$(cat "$T/c.pid")"
    check 'the consumer saw no end' test ! -e "$T/c.committed"
}

closed_pipes() {
    local -a status
    timeout 60 bk-unwrap -t "$T/backup.pem" -k "$(token_uri kek)" -o - "$T/a.bk" 2>"$T/stderr" | head -c 1 >/dev/null &&
        status=("${PIPESTATUS[@]}") || status=("${PIPESTATUS[@]}")
    check 'standard output closed early: 5' test "${status[0]}" -eq 5
    expect_stderr 'standard output: .*Broken pipe'
    # shellcheck disable=SC2016
    expect_exit 5 sh -c 'exec bk-unwrap -t "$1" -k "$2" --meta "$3" >&-' sh "$T/backup.pem" "$(token_uri kek)" "$T/a.bk"
    # shellcheck disable=SC2016
    expect_exit 5 sh -c 'exec bk-unwrap -t "$1" -k "$2" -o - "$3" >/dev/full' sh \
        "$T/backup.pem" "$(token_uri kek)" "$T/a.bk"
    expect_stderr 'No space left'
}

# --- PostgreSQL's restore_command ---------------------------------------------------------------------------------

# pg CODE ARG... : as restore_command runs it, without a terminal.
pg() {
    local code=$1
    shift
    rm -f "$T/out"
    expect_exit "$code" setsid -w bk-unwrap --restore-command "$@"
    ((code == 0)) || no_file "$T/out"
}

restore_command() {
    local key good pg_in_folder
    key=$(token_uri kek)
    good=(-t "$T/backup.pem" -k "$key" -o "$T/out")
    pg 0 "${good[@]}" "$T/a.bk"
    same_file "$T/plain" "$T/out"
    pg 1 "${good[@]}" "$T/nothing.bk"
    expect_stderr 'No such file'
    # shellcheck disable=SC2016 # for the inner shell
    pg_in_folder='cd "$1" && shift && exec bk-unwrap --restore-command "$@"'
    expect_exit 1 sh -c "$pg_in_folder" sh "$T" "${good[@]}" nothing.bk
    # the folder is missing as well: the archive is not mounted, and nobody knows where it ends
    pg 126 "${good[@]}" "$T/not-mounted/a.bk"
    pg 126 "${good[@]}" "$T/a.bk/below-a-file.bk"
    pg 126 "${good[@]}" "$T"
    cp "$T/a.bk" "$T/bad.bk"
    flip "$T/bad.bk" "$(payload_at "$T/a.bk" 0)"
    pg 126 "${good[@]}" "$T/bad.bk"
    expect_stderr 'group 0 '
    : >"$T/short.bk"
    pg 126 "${good[@]}" "$T/short.bk"
    pg 126 -t "$T/backup.pem" -k pkcs11:token=kek -o "$T/out" "$T/a.bk"
    expect_stderr 'PIN'
    pg 126 -t "$T/backup.pem" -k "pkcs11:token=kek?pin-source=file:$T/nothing.pin" -o "$T/out" "$T/a.bk"
    pg 126 -t "$T/backup.pem" -k 'pkcs11:token=nothing' -o "$T/out" "$T/a.bk"
    pg 126 -k "$key" -o "$T/out" "$T/a.bk"
    pg 126 -t "$T/nothing.pem" -k "$key" -o "$T/out" "$T/a.bk"
    pg 126 -t "$T/stranger.pem" -k "$key" -o "$T/out" "$T/a.bk"
    pg 126 -t "$T/backup.pem" -k "$key" -o "$T/nowhere/out" "$T/a.bk"
    pg 126 --expect label=other "${good[@]}" "$T/a.bk"
    pg 126 "${good[@]}"
    pg 126 --nonsense "${good[@]}" "$T/a.bk"
    pg 126 "${good[@]}" --range x "$T/a.bk"
    expect_exit 126 bk-unwrap --nonsense --restore-command

    # the archive is there, but the keys that stand beside it are not
    expect_exit 0 bk-wrap --detach -r "$T/ec.pem" -s "$(key_uri signer backup)" -o "$T/d.bk" "$T/plain"
    pg 0 "${good[@]}" "$T/d.bk"
    rm "$T/d.bk.keys"
    pg 126 "${good[@]}" "$T/d.bk"
}

make_token signer
make_token kek
make_key signer backup p256 sign
make_key signer stranger p256 sign
make_key signer rotator p256 sign
make_key kek ec p256 kek
make_key kek rsa rsa3072 kek
write_consumers
head -c $((GROUP * 3 + SEGMENT + 1234)) /dev/urandom >"$T/plain"
expect_exit 0 bk-wrap -r "$T/ec.pem" -s "$(key_uri signer backup)" --public-label 'orders nightly' \
    --sequence 'lsn=0/17' --meta a=b -o "$T/a.bk" "$T/plain"
expect_exit 0 bk-wrap -r "$T/ec.pem" -s "$(key_uri signer backup)" -o "$T/b.bk" "$T/plain"

ranges
appears_whole
expectations
trust
keys
raw_rsa
consumers
killed_unwrap KILL
killed_unwrap TERM
killed_unwrap INT
closed_pipes
restore_command
finish
