#!/usr/bin/env bash
# bk-wrap, as docs/CLI.md has it: every way in and out, what is signed, what is warned of and what is refused.
# shellcheck disable=SC2317 # functions are called by `check` and traps
set -euo pipefail
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

# The usual recipients; the signer's token holds none of them.
recipients=()

# wrap CODE ARG... : bk-wrap with the usual recipients and signer.
wrap() {
    local code=$1
    shift
    expect_exit "$code" bk-wrap "${recipients[@]}" -s "$(key_uri signer backup)" "$@"
}

# restores PLAIN ARCHIVE ARG... : it verifies, and gives back exactly that.
restores() {
    local plain=$1 archive=$2
    shift 2
    expect_exit 0 bk-verify -q -t "$T/backup.pem" "$archive"
    unwraps "$plain" "$archive" "$@"
}

unwraps() {
    local plain=$1 archive=$2
    shift 2
    rm -f "$T/out"
    expect_exit 0 bk-unwrap -q -t "$T/backup.pem" -k "$(token_uri kek)" "$@" -o "$T/out" "$archive"
    same_file "$plain" "$T/out"
}

# shows ARCHIVE EXPRESSION : of what bk-verify --show --json says of the archive.
shows() {
    expect_exit 0 bk-verify --level signature --show --json -t "$T/backup.pem" "$1"
    json_is "$T/stdout" "$2"
}

# refused CODE PATTERN ARG... : bk-wrap says why and leaves nothing.
refused() {
    local code=$1 pattern=$2
    shift 2
    wrap "$code" -o "$T/refused.bk" "$@"
    expect_stderr "$pattern"
    no_file "$T/refused.bk"
    no_output
}

# Around the length of a segment and of a group of segments, from a file, a pipe and a command.
sizes() {
    local size way
    for size in 1 32767 32768 32769 1048575 1048576 1048577; do
        printf '# %d bytes\n' "$size"
        head -c "$size" /dev/urandom >"$T/sized"
        rm -f "$T"/s.*.bk
        wrap 0 -q -o "$T/s.file.bk" "$T/sized"
        from_pipe "$T/sized" 0 bk-wrap -q "${recipients[@]}" -s "$(key_uri signer backup)" -o "$T/s.pipe.bk"
        wrap 0 -q -o "$T/s.command.bk" -- cat "$T/sized"
        expect_exit 0 bk-verify --show -t "$T/backup.pem" "$T/s.file.bk" "$T/s.pipe.bk" "$T/s.command.bk"
        check "three archives of $size bytes" test "$(grep -c " $size bytes (" "$T/stdout")" -eq 3
        for way in file pipe command; do
            unwraps "$T/sized" "$T/s.$way.bk"
        done
    done
}

empty_input() {
    : >"$T/empty"
    refused 5 'input is empty' "$T/empty"
    expect_stderr 'hint: .*--allow-empty'
    refused 5 'input is empty' -- true
    from_pipe "$T/empty" 5 bk-wrap "${recipients[@]}" -s "$(key_uri signer backup)" -o "$T/refused.bk" -
    no_file "$T/refused.bk"
    wrap 0 --allow-empty -o "$T/empty.bk" "$T/empty"
    restores "$T/empty" "$T/empty.bk"
    wrap 0 --allow-empty -o "$T/empty-command.bk" -- true
    restores "$T/empty" "$T/empty-command.bk"
}

streams() {
    wrap 0 -o - "$T/plain"
    cp "$T/stdout" "$T/stream.bk"
    restores "$T/plain" "$T/stream.bk"

    rm -f "$T/out"
    from_pipe "$T/stream.bk" 0 bk-unwrap -t "$T/backup.pem" -k "$(token_uri kek)" -o "$T/out" -
    same_file "$T/plain" "$T/out"

    from_pipe "$T/stream.bk" 2 bk-unwrap -t "$T/backup.pem" -k "$(token_uri kek)" -o - -
    no_output
    expect_stderr 'signature comes last'
    from_pipe "$T/stream.bk" 2 bk-unwrap -t "$T/backup.pem" -k "$(token_uri kek)" - -- tee "$T/leaked"
    no_file "$T/leaked"
    from_pipe "$T/stream.bk" 0 bk-unwrap --allow-unverified -t "$T/backup.pem" -k "$(token_uri kek)" -o - -
    same_file "$T/plain" "$T/stdout"
    from_pipe "$T/stream.bk" 0 bk-unwrap --allow-unverified -t "$T/backup.pem" -k "$(token_uri kek)" - -- cat
    same_file "$T/plain" "$T/stdout"
}

# The archive's own copy stands between its length and the tail of 64 bytes.
manifest_in() {
    local length
    length=$(tail -c 64 "$1" | od -An -tu4 --endian=big -j 16 -N 4 | tr -d ' ')
    tail -c "$((length + 64))" "$1" | head -c "$length"
}

manifests() {
    wrap 0 --manifest "$T/m.manifest" -o "$T/m.bk" "$T/plain"
    wrap 0 --manifest "$T/other.manifest" -o "$T/other.bk" "$T/plain"
    manifest_in "$T/m.bk" >"$T/m.inside"
    same_file "$T/m.manifest" "$T/m.inside"
    restores "$T/plain" "$T/m.bk" --manifest "$T/m.manifest"

    from_pipe "$T/m.bk" 0 bk-unwrap -t "$T/backup.pem" -k "$(token_uri kek)" --manifest "$T/m.manifest" -o - -
    same_file "$T/plain" "$T/stdout"
    from_pipe "$T/m.bk" 1 bk-unwrap -t "$T/backup.pem" -k "$(token_uri kek)" --manifest "$T/other.manifest" -o - -
    no_output
    rm -f "$T/out"
    expect_exit 1 bk-unwrap --json -t "$T/backup.pem" -k "$(token_uri kek)" --manifest "$T/other.manifest" \
        -o "$T/out" "$T/m.bk"
    no_file "$T/out"
    json_is "$T/stdout" "o['code'] == 1 and o['layer'] == 'manifest'"
    expect_exit 1 bk-verify -t "$T/backup.pem" --manifest "$T/other.manifest" "$T/m.bk"

    refused 2 'exists already' --manifest "$T/m.manifest" "$T/plain"
    same_file "$T/m.manifest" "$T/m.inside"
}

existing_output() {
    printf 'precious\n' >"$T/old.bk"
    cp "$T/old.bk" "$T/old.kept"
    wrap 2 -o "$T/old.bk" "$T/plain"
    expect_stderr 'old.bk: exists already'
    expect_stderr 'hint: .*--force'
    same_file "$T/old.kept" "$T/old.bk"
    # a failure under --force must leave the old one as well
    wrap 7 --force -o "$T/old.bk" -- false
    same_file "$T/old.kept" "$T/old.bk"
    wrap 0 --force -o "$T/old.bk" "$T/plain"
    restores "$T/plain" "$T/old.bk"
    ln -s "$T/nowhere" "$T/link.bk"
    wrap 2 -o "$T/link.bk" "$T/plain"
    no_file "$T/nowhere"
    refused 5 'No such file' -o "$T/no-such-folder/x.bk" "$T/plain"
    mkdir "$T/folder.bk"
    wrap 2 --force -o "$T/folder.bk" "$T/plain"
    expect_stderr 'is a folder'
}

signed_words() {
    local wal='system=7301 timeline=1 segment=000000010000000000000007'
    wrap 0 --kind wal --sequence "$wal" --public-label 'Nightly, büro 7' --retain-until 2031-01-31 \
        --parent "$T/m.bk" --meta database=orders --meta 'note=a = b' -o "$T/w.bk" -- cat "$T/plain"
    shows "$T/w.bk" "o['kind'] == 'wal' and o['sequence'] == '$wal' and o['label'] == 'Nightly, büro 7'"
    shows "$T/w.bk" "o['retainUntil'].startswith('2031-01-31') and o['producer'] == 'cat'"
    shows "$T/m.bk" "o['kind'] == 'full' and o['producer'] is None and o['parent'] is None and o['label'] is None"
    expect_exit 0 bk-verify --level signature --show -t "$T/backup.pem" "$T/m.bk"
    expect_stdout 'not observed'
    parent_of "$T/w.bk" "$T/m.bk"
    expect_exit 0 bk-unwrap --meta -t "$T/backup.pem" -k "$(token_uri kek)" "$T/w.bk"
    printf 'database=orders\nnote=a = b\n' >"$T/notes"
    same_file "$T/notes" "$T/stdout"
    if grep -qa 'database' "$T/w.bk" || ! grep -qa 'Nightly' "$T/w.bk"; then
        fail 'notes are private, labels are public'
    else
        pass 'notes are private, labels are public'
    fi
    restores "$T/plain" "$T/w.bk"
}

# parent_of CHILD PARENT : the child names the parent's id and manifest digest.
parent_of() {
    bk-verify --level signature --show --json="$T/parent.json" -t "$T/backup.pem" "$2" 2>/dev/null >/dev/null
    expect_exit 0 bk-verify --level signature --show --json="$T/child.json" -t "$T/backup.pem" "$1"
    if /usr/bin/python3 - "$T/parent.json" "$T/child.json" <<'PY'; then
import json, sys
parent, child = (json.load(open(name)) for name in sys.argv[1:])
sys.exit(0 if parent["archiveId"] in json.dumps(child["parent"]) and parent["manifestDigest"] in
         json.dumps(child["parent"]) and parent["archiveId"] != child["archiveId"] else 1)
PY
        pass 'the parent is named by id and manifest digest'
    else
        fail 'the parent is named by id and manifest digest'
    fi
}

wrong_words() {
    refused 2 'kind' --kind weekly "$T/plain"
    refused 2 'segment' --kind wal --sequence 'system=1 timeline=1' "$T/plain"
    refused 2 'sequence' --kind wal "$T/plain"
    refused 2 'sequence' --sequence 'a=1 a=2' "$T/plain"
    refused 2 'sequence' --sequence 'a=' "$T/plain"
    refused 2 'sequence' --sequence 'A=1' "$T/plain"
    refused 2 'sequence' --sequence 'a=1  b=2' "$T/plain"
    refused 2 'public-label' --public-label $'two\nlines' "$T/plain"
    refused 2 'public-label' --public-label '' "$T/plain"
    refused 2 'retain-until' --retain-until soon "$T/plain"
    refused 2 'retain' --retain-until 2001-01-01 "$T/plain"
    refused 2 'KEY=VALUE' --meta novalue "$T/plain"
    refused 2 'KEY=VALUE' --meta '=x' "$T/plain"
    refused 2 '.' --meta "big=$(head -c 70000 /dev/zero | tr '\0' x)" "$T/plain"
    refused 5 'parent .*nothing.bk' --parent "$T/nothing.bk" "$T/plain"
    refused 1 'parent .*plain' --parent "$T/plain" "$T/plain"
}

wrong_options() {
    refused 2 'unknown option --recip' --recip "$T/ec.pem" "$T/plain"
    refused 2 'unknown option --js' --js "$T/plain"
    refused 2 'unknown option --allow' --allow "$T/plain"
    refused 2 'unknown option -z' -z "$T/plain"
    refused 2 'needs a value' "$T/plain" -j
    refused 2 'takes no value' --allow-empty=yes "$T/plain"
    refused 2 'jobs' -j 0 "$T/plain"
    refused 2 'jobs' -j 257 "$T/plain"
    refused 2 'jobs' -j 2x "$T/plain"
    refused 2 'one thing to wrap' "$T/plain" "$T/plain"
    refused 2 'one thing to wrap' "$T/plain" -- cat
    refused 2 'no command follows' --
    expect_exit 2 bk-wrap -s "$(key_uri signer backup)" -o "$T/refused.bk" "$T/plain"
    expect_stderr 'no recipient'
    expect_exit 2 bk-wrap "${recipients[@]}" -o "$T/refused.bk" "$T/plain"
    expect_stderr 'no signing key'
    expect_exit 2 bk-wrap "${recipients[@]}" -s "$(key_uri signer backup)" "$T/plain"
    expect_stderr 'no output'
    expect_exit 2 bk-wrap -r "$T/nothing.pem" -s "$(key_uri signer backup)" -o "$T/refused.bk" "$T/plain"
    expect_stderr 'nothing.pem'
    expect_exit 2 bk-wrap -r "$T/plain" -s "$(key_uri signer backup)" -o "$T/refused.bk" "$T/plain"
    expect_exit 3 bk-wrap "${recipients[@]}" -s "$(key_uri signer nothing)" -o "$T/refused.bk" "$T/plain"
    expect_exit 3 bk-wrap "${recipients[@]}" -s 'pkcs11:token=nothing;object=backup' -o "$T/refused.bk" "$T/plain"
    expect_exit 2 bk-wrap "${recipients[@]}" -s "$T/backup.pem" -o "$T/refused.bk" "$T/plain"
    expect_exit 2 bk-wrap "${recipients[@]}" -s 'pkcs11:tokn=signer;object=backup' -o "$T/refused.bk" "$T/plain"
    no_file "$T/refused.bk"
}

warnings() {
    expect_exit 0 bk-wrap -r "$T/ec.pem" -s "$(key_uri signer backup)" -o "$T/one.bk" "$T/plain"
    expect_stderr 'warning: only one recipient'
    wrap 0 -o "$T/two.bk" "$T/plain"
    check 'two recipients, no warning' quiet_about 'only one recipient|also open'
    wrap 0 -r "$T/own.pem" -o "$T/own.bk" "$T/plain"
    expect_stderr 'warning: the login that signs can also open'
    wrap 0 --retain-until 2036-01-01 -o "$T/harvest.bk" "$T/plain"
    expect_stderr 'warning: kept beyond 2035'
    wrap 0 --retain-until 2035-12-31 -o "$T/harvest-not.bk" "$T/plain"
    check 'kept until 2035, no warning' quiet_about 'beyond 2035'
    expect_exit 0 bk-wrap -r "$(key_uri kek2 aes)" -s "$(key_uri signer backup)" --retain-until 2036-01-01 \
        -o "$T/aes.bk" "$T/plain"
    check 'AES recipients only, no warning' quiet_about 'beyond 2035'
    wrap 0 -q -o "$T/quiet.bk" "$T/plain"
    check '-q, nothing said' quiet_about '.'
}

quiet_about() { ! grep -Eq -- "$1" "$T/stderr"; }

# opens_alone TOKEN OBJECT KEYID : of the archive for all four.
opens_alone() {
    rm -f "$T/out"
    expect_exit 0 bk-unwrap --json -t "$T/backup.pem" -k "$(key_uri "$1" "$2")" -o "$T/out" "$T/four.bk"
    same_file "$T/plain" "$T/out"
    json_is "$T/stdout" "o['openedBy'] == '$(cat "$T/$2.id")'"
}

many_recipients() {
    cat "$T/ec.pem" "$T/ec384.pem" >"$T/both.pem"
    expect_exit 0 bk-wrap --json -r "$T/both.pem" -r "$T/rsa.pem" -r "$(key_uri kek2 aes)" \
        -s "$(key_uri signer backup)" -o "$T/four.bk" "$T/plain"
    json_is "$T/stdout" "o['recipients'] == 4 and o['plaintextLength'] == $(stat -c %s "$T/plain")"
    opens_alone kek ec
    opens_alone kek rsa
    opens_alone kek2 ec384
    opens_alone kek2 aes
    rm -f "$T/out"
    expect_exit 3 bk-unwrap -t "$T/backup.pem" -k "$(key_uri signer own)" -o "$T/out" "$T/four.bk"
    no_file "$T/out"
    expect_exit 2 bk-wrap -r "$T/ec.pem" -r "$T/both.pem" -s "$(key_uri signer backup)" -o "$T/refused.bk" "$T/plain"
    expect_stderr 'twice'
    no_file "$T/refused.bk"
}

json_output() {
    wrap 0 --json -o "$T/j.bk" "$T/plain"
    json_is "$T/stdout" "o['status'] == 'ok' and o['code'] == 0 and o['layer'] is None and o['message'] is None"
    json_is "$T/stdout" "o['archive'].endswith('/j.bk') and o['generation'] == 1 and len(o['archiveId']) == 36"
    json_is "$T/stdout" "o['archiveLength'] == $(stat -c %s "$T/j.bk") and len(o['manifestDigest']) == 64"
    wrap 7 --json -o "$T/refused.bk" -- sh -c 'echo data; echo complaint >&2; exit 4'
    json_is "$T/stdout" "o['status'] == 'failed' and o['code'] == 7 and o['layer'] == 'producer'"
    json_is "$T/stdout" "'status 4' in o['message'] and 'archiveLength' not in o"
    expect_stderr '^complaint'
    wrap 2 --json -o - "$T/plain"
    no_output
    wrap 0 --json="$T/j.json" -o - "$T/plain"
    json_is "$T/j.json" "o['status'] == 'ok' and o['archiveLength'] == $(stat -c %s "$T/stdout")"
    cp "$T/stdout" "$T/j2.bk"
    restores "$T/plain" "$T/j2.bk"
}

jobs_alike() {
    local jobs
    for jobs in 1 4; do
        wrap 0 -j "$jobs" -o "$T/jobs$jobs.bk" "$T/plain"
        restores "$T/plain" "$T/jobs$jobs.bk" -j 1
        restores "$T/plain" "$T/jobs$jobs.bk" -j 4
    done
    # 0666 less the umask, as any program would
    check 'mode of the archive' test "$(stat -c %a "$T/jobs1.bk")" = "$(printf '%o' $((0666 & ~$(umask))))"
}

# What one engine has sealed every engine opens; a build without ipsec-mb says so and does nothing.
engines() {
    local engine reader have=(openssl auto)
    if [[ $(ldd "$BK_BIN/bk-wrap") == *libIPSec_MB* ]]; then have+=(ipsec-mb); fi
    for engine in "${have[@]}"; do
        wrap 0 --engine "$engine" -o "$T/by-$engine.bk" "$T/plain"
        for reader in "${have[@]}"; do
            expect_exit 0 bk-verify -q --engine "$reader" -t "$T/backup.pem" "$T/by-$engine.bk"
            expect_exit 0 bk-verify -q --engine "$reader" --level decrypt -t "$T/backup.pem" -k "$(token_uri kek)" \
                "$T/by-$engine.bk"
            unwraps "$T/plain" "$T/by-$engine.bk" --engine "$reader"
        done
        cp "$T/by-$engine.bk" "$T/flipped.bk"
        flip "$T/flipped.bk" 2000000
        expect_exit 1 bk-verify --engine "$engine" -t "$T/backup.pem" "$T/flipped.bk"
        expect_stderr 'group 1 .*the frames are not those that were signed'
        rm -f "$T/out"
        expect_exit 1 bk-unwrap --engine "$engine" -t "$T/backup.pem" -k "$(token_uri kek)" -o "$T/out" "$T/flipped.bk"
        expect_stderr 'group 1 .*the tag does not hold'
        no_file "$T/out"
    done
    if [[ ${#have[@]} -eq 2 ]]; then refused 2 'engine.*ipsec-mb' --engine ipsec-mb "$T/plain"; fi
    refused 2 '"fast" is none of auto, openssl, ipsec-mb' --engine fast "$T/plain"
}

# cached FILE : how many of its pages are in the system's cache.
cached() { fincore --bytes --noheadings --output PAGES "$1" | tr -d ' '; }

# Past the cache: the same bytes, from files, in all sizes; on a file system that has direct I/O nothing stays behind.
direct() {
    local size
    for size in 1 4096 1048576 1048577 3145728; do
        head -c "$size" "$T/plain" >"$T/sized"
        rm -f "$T/direct.bk" "$T/out"
        wrap 0 -q --direct -o "$T/direct.bk" "$T/sized"
        expect_exit 0 bk-verify -q --direct -t "$T/backup.pem" "$T/direct.bk"
        unwraps "$T/sized" "$T/direct.bk" --direct
    done
    rm -f "$T/direct.bk"
    wrap 0 -q --direct -o "$T/direct.bk" -- cat "$T/plain"
    unwraps "$T/plain" "$T/direct.bk" --direct -j 1
    expect_exit 0 bk-unwrap -q --direct --range 1000000:1100000 -t "$T/backup.pem" -k "$(token_uri kek)" \
        -o "$T/ranged" "$T/direct.bk"
    tail -c +1000001 "$T/plain" >"$T/range"
    truncate -s 1100000 "$T/range"
    same_file "$T/range" "$T/ranged"
    if dd if=/dev/zero of="$T/dd" bs=4096 count=1 oflag=direct status=none 2>"$T/stderr"; then
        head -c 20000000 /dev/urandom >"$T/big"
        wrap 0 -q --direct -o "$T/uncached.bk" "$T/big"
        check "pages of the archive in the cache: $(cached "$T/uncached.bk")" test "$(cached "$T/uncached.bk")" -lt 500
        expect_exit 0 bk-unwrap -q --direct -t "$T/backup.pem" -k "$(token_uri kek)" -o "$T/uncached" "$T/uncached.bk"
        same_file "$T/big" "$T/uncached"
        rm -f "$T/uncached"
        expect_exit 0 bk-unwrap -q --direct -t "$T/backup.pem" -k "$(token_uri kek)" -o "$T/uncached" "$T/uncached.bk"
        check "pages of the plaintext in the cache: $(cached "$T/uncached")" test "$(cached "$T/uncached")" -lt 500
    fi
}

help_texts() {
    local program
    for program in bk-wrap bk-unwrap bk-verify bk-rekey bk-key; do
        expect_exit 0 "$program" --help
        expect_stdout "^usage: $program "
        check "$program --help: at most 100 columns" awk 'length > 100 { exit 1 }' "$T/stdout"
        check "$program --help: nothing on standard error" test ! -s "$T/stderr"
        expect_exit 0 "$program" --version
        expect_stdout "^$program [0-9]+\.[0-9]+"
        expect_exit 2 "$program"
        expect_stderr "^$program: error: "
        no_output
        expect_exit 2 "$program" --nonsense
        expect_stderr "^$program: hint: see .*$program --help"
    done
    # nor must it vanish into a full disk unnoticed
    expect_exit 5 sh -c 'bk-wrap --help >/dev/full'
}

token_uri() { printf 'pkcs11:token=%s?pin-source=file:%s/%s.pin' "$1" "$T" "$1"; }

# keep_id OBJECT : the key id that bk-key generate just printed.
keep_id() { awk '/^key id/ { print $3 }' "$T/stdout" >"$T/$1.id"; }

make_token signer
make_token kek
make_token kek2
make_key signer backup p256 sign
make_key signer own p256 kek
make_key kek ec p256 kek
keep_id ec
make_key kek rsa rsa3072 kek
keep_id rsa
make_key kek2 ec384 p384 kek
keep_id ec384
make_key kek2 aes aes256 kek
keep_id aes
recipients=(-r "$T/ec.pem" -r "$T/ec384.pem")
head -c 3500001 /dev/urandom >"$T/plain"

sizes
empty_input
streams
manifests
existing_output
signed_words
wrong_words
wrong_options
warnings
many_recipients
json_output
jobs_alike
engines
direct
help_texts
finish
