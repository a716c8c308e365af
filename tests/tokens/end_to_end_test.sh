#!/usr/bin/env bash
# A backup's life on every real PKCS#11 module that Debian has, and rotations from each of them to each other.
set -euo pipefail

# mounts and daemons are the test's own, and end with it
if [[ -z ${BK_NAMESPACE:-} ]]; then
    export BK_NAMESPACE=1 BK_NAMESPACE_ROOT=1
    as_root=()
    if ((EUID != 0)); then as_root=(--user --map-root-user) BK_NAMESPACE_ROOT=0; fi
    exec unshare "${as_root[@]}" --mount --ipc --pid --fork --kill-child --mount-proc bash "$0"
fi

# shellcheck source=../cli/lib.sh
. "$(dirname "$0")/../cli/lib.sh"
# shellcheck source=tokens.sh
. "$(dirname "$0")/tokens.sh"

# made MODULE OBJECT KIND USE : a key of that module, its public half in $T/MODULE-OBJECT.pem.
made() {
    local -a out=(-o "$T/$1-$2.pem")
    [[ $3 != aes256 ]] || out=()
    expect_exit 0 bk-key generate --type "$3" --use "$4" "${out[@]}" "$(key "$1" "$2")"
}

# opens CODE FILE MODULE OBJECT : bk-unwrap with that key ends with CODE; with 0 it gives the plaintext.
opens() {
    rm -f "$T/out"
    expect_exit "$1" bk-unwrap -q -t "$T/$signer.pem" -t "rotate:$T/$signer.pem" -k "$(key "$3" "$4")" -o "$T/out" "$2"
    if (($1 == 0)); then same_file "$T/plain" "$T/out"; else no_file "$T/out"; fi
}

# rekeyed CODE FILE FROM-MODULE OBJECT TO-MODULE OBJECT [OPTION...] : signed by $signer's token.
rekeyed() {
    expect_exit "$1" bk-rekey -q --from "$(key "$3" "$4")" --to "$(key "$5" "$6")" -s "$(key "${signer%-*}" signer)" \
        -t "$T/$signer.pem" -t "rotate:$T/$signer.pem" "${@:7}" --json="$T/json" "$2"
}

# recipient MODULE KIND OBJECT : as bk-wrap is given it: public halves need no token.
recipient() { if [[ $2 == aes256 ]]; then key "$1" "$3"; else printf '%s' "$T/$1-$3.pem"; fi; }

# probed MODULE : bk-key probe finds what tokens.sh says of it, refuses damage, and leaves nothing. A TPM makes no passing
# keys.
probed() {
    local how=() uri found
    uri=$(key "$1" none)
    uri=${uri/;object=none/}
    [[ $1 != tpm ]] || how=(--on-token)
    expect_exit 0 bk-key probe "${how[@]}" "$uri"
    found=$(awk '$2 == "kek" && $3 ~ /^works/ { printf "%s ", $1 }' "$T/stdout")
    check "$1: its KEKs are $found" test "$found" = "$(kinds "$1") "
    found=$(awk '$2 == "sign" && $3 == "works" { printf "%s ", $1 }' "$T/stdout")
    check "$1: its signing keys are $found" test "$found" = "$(signs "$1") "
    check "$1: takes nothing that was damaged" not_in DAMAGED "$T/stdout"
    found=$(table_row "$1" <"$T/stdout")
    check "$1: docs/TOKENS.md has the row: $found" grep -qxF -- "$found" "$ROOT/docs/TOKENS.md"
    found=$(facts_row "$1" <"$T/stdout")
    if [[ $found != *'? | ? | ? | ? | ? | ?'* ]]; then
        check "$1: and of AES keys: $found" grep -qxF -- "$found" "$ROOT/docs/TOKENS.md"
    fi
    expect_exit 0 bk-key probe -q "${how[@]}" -o "$T/$1.profile" "$uri"
    expect_exit 0 bk-key probe -q "${how[@]}" --against "$T/$1.profile" "$uri"
    expect_exit 0 bk-key list "$uri"
    check "$1: no key of the trial is left" not_in bk-probe "$T/stdout"
}

# table_row MODULE : what bk-key probe said, on standard input, as a row of the table in docs/TOKENS.md.
table_row() {
    awk -v row="| $1" '
        BEGIN { split("aes256.kek p256.kek p384.kek rsa3072.kek p256.sign p384.sign rsa3072.sign", order, " ") }
        $3 ~ /^works/ { said = $0; sub(/^.*works,? ?/, "", said); works[$1 "." $2] = said == "" ? "works" : said }
        END {
            for (i = 1; i <= 7; i++) row = row " | " (order[i] in works ? works[order[i]] : "–")
            print row " |"
        }'
}

# facts_row MODULE : the same of the facts about AES keys.
facts_row() { awk -v row="| $1" '/^  [yn?]/ { row = row " | " $1 } END { print row " |" }'; }

not_in() { ! grep -q -- "$1" "$2"; }

# life MODULE : of one token alone.
life() {
    local m=$1 kind signers
    printf '\n# %s\n' "$m"
    signer=$m-signer
    read -r -a signers <<<"$(signs "$m")"
    made "$m" signer "${signers[0]}" sign
    for kind in $(kinds "$m"); do
        made "$m" "old-$kind" "$kind" kek
        made "$m" "new-$kind" "$kind" kek
        expect_exit 0 bk-wrap -q -r "$(recipient "$m" "$kind" "old-$kind")" -s "$(key "$m" signer)" \
            -o "$T/$m-$kind.bk" "$T/plain"
        expect_exit 0 bk-verify -q -t "$T/$signer.pem" "$T/$m-$kind.bk"
        expect_exit 0 bk-verify -q --level decrypt -t "$T/$signer.pem" -k "$(key "$m" "old-$kind")" "$T/$m-$kind.bk"
        opens 0 "$T/$m-$kind.bk" "$m" "old-$kind"
        opens 3 "$T/$m-$kind.bk" "$m" "new-$kind"
        cp "$T/$m-$kind.bk" "$T/rotated.bk"
        if [[ $kind == aes256 ]]; then
            rekeyed 0 "$T/rotated.bk" "$m" "old-$kind" "$m" "new-$kind" --blind required
            json_is "$T/json" 'o["blindness"] == "hostBlind"'
        else
            rekeyed 4 "$T/rotated.bk" "$m" "old-$kind" "$m" "new-$kind" --blind required
            rekeyed 0 "$T/rotated.bk" "$m" "old-$kind" "$m" "new-$kind"
        fi
        opens 0 "$T/rotated.bk" "$m" "new-$kind"
        opens 3 "$T/rotated.bk" "$m" "old-$kind"
    done
    for kind in "${signers[@]:1}"; do
        made "$m" "signer-$kind" "$kind" sign
        expect_exit 0 bk-wrap -q -r "$T/$m-old-rsa3072.pem" -s "$(key "$m" "signer-$kind")" -o "$T/signed.bk" "$T/plain"
        expect_exit 0 bk-verify -q -t "$T/$m-signer-$kind.pem" "$T/signed.bk"
        rm "$T/signed.bk"
    done
    probed "$m"
    expect_exit 0 bk-key list "$(key "$m" signer)"
    expect_stdout "private key +${signers[0]%3072} +signer"
}

# wrong_pin MODULE
wrong_pin() {
    local kept
    kept=$(cat "$T/$1.pin")
    pin "$1" "${kept%?}#"
    expect_exit 9 bk-unwrap -q -t "$T/$1-signer.pem" -k "$(key "$1" old-rsa3072)" -o "$T/out" "$T/$1-rsa3072.bk"
    no_file "$T/out"
    pin "$1" "$kept"
}

# signals SIGNAL : to the listener of the token's host, and to what serves a connection.
signals() { pkill "-$1" -f "p11-kit-remote|$T/far.sock"; }

# remote_meets WHAT [OPTION...] : bk-wrap is in the midst of its input, its signer logged in, when WHAT is done to the
# host of the token; then its input ends. Its status in $status.
remote_meets() {
    local pid
    status=0
    mkfifo "$T/input"
    bk-wrap -q "${@:2}" -r "$T/softhsm-old-p256.pem" -s "$(key remote signer)" -o "$T/lost.bk" <"$T/input" \
        2>"$T/stderr" &
    pid=$!
    exec 9>"$T/input"
    head -c 2500000 "$T/plain" >&9
    check 'in the midst' wait_until 30 part_grew "$T/lost.bk" 1000000
    "$1"
    exec 9>&-
    ends_in_time 'bk-wrap ends' "$pid"
    wait "$pid" || status=$?
    rm "$T/input"
}

stops_for_good() { signals STOP; }

stops_and_goes_on() {
    signals STOP
    (sleep 2 && signals CONT) 9>&- &
}

dies() { signals KILL; }

# remote_fails PATTERN : no archive, and an error of the token's that says so.
remote_fails() {
    check "it fails with 3 ($status)" test "$status" -eq 3
    expect_stderr "$1"
    no_file "$T/lost.bk"
}

modules=(softhsm nss remote tpm)
# its daemon insists on a group of its own, which a user namespace does not have
if ((BK_NAMESPACE_ROOT)); then modules+=(opencryptoki); else printf '# openCryptoki: not tested, since that needs root\n'; fi

use_no_module
head -c 3000000 /dev/urandom >"$T/plain"
for m in "${modules[@]}"; do "start_$m"; done
for m in "${modules[@]}"; do life "$m"; done

printf '\n# from each to each\n'
for from in "${modules[@]}"; do
    for to in "${modules[@]}"; do
        [[ $from != "$to" ]] || continue
        signer=$from-signer
        cp "$T/$from-rsa3072.bk" "$T/rotated.bk"
        rekeyed 0 "$T/rotated.bk" "$from" old-rsa3072 "$to" new-rsa3072
        opens 0 "$T/rotated.bk" "$to" new-rsa3072
        opens 3 "$T/rotated.bk" "$from" old-rsa3072
    done
done

printf '\n# a wrong PIN\n'
for m in "${modules[@]}"; do wrong_pin "$m"; done

printf '\n# the host of a token goes silent, for a while and for good, and goes away\n'
remote_meets stops_and_goes_on --token-timeout 30
check "it waits, and succeeds ($status)" test "$status" -eq 0
expect_exit 0 bk-verify -q -t "$T/remote-signer.pem" "$T/lost.bk"
rm "$T/lost.bk"
remote_meets stops_for_good --token-timeout 3
remote_fails "^bk-wrap: error: .*C_[A-Za-z]* did not return in time"
signals CONT
remote_meets dies
remote_fails "^bk-wrap: error: .*token 'far'"
finish
