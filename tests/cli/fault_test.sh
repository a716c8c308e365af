#!/usr/bin/env bash
# Each program on a real token, and one of its calls fails, or one of its token worker's: each allocation of its own and
# of OpenSSL's, each system call, each call of the module, in turn (tests/nth). They are those with sanitizers: no
# crash, no hang, no leak, the right class of status with a message, no output that is not whole, no session left open,
# no secret left in the memory of either process, and a rotation that failed can be finished. Every so manieth call, or
# with BK_LONG=1 every one, but for OpenSSL's many allocations.
set -euo pipefail

# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

NTH=${BK_NTH_BIN:-$ROOT/build/asan/tests/nth/bin}
export ASAN_OPTIONS=exitcode=99:detect_leaks=1 UBSAN_OPTIONS=halt_on_error=1:exitcode=99
CKR_GENERAL_ERROR=5 CKR_HOST_MEMORY=2 CKR_DEVICE_REMOVED=50 CKR_SESSION_HANDLE_INVALID=179
EIO=5 ENOSPC=28

faults=0
bad=0
declare -A calls=() # by operation, side and class: the first n for which there was no call

# wrong TEXT : of the case at hand.
wrong() {
    bad=$((bad + 1))
    printf 'not ok - %s, %s: %s (status %s)\n' "$operation" "$case" "$1" "$status"
    sed -n 's/^/    stderr: /; 1,60p' "$T/stderr"
}

# one SIDE PLAN : runs the operation with it; its status in $status, the call in $hit, empty if there were fewer. SIDE
# is program; worker: one of them, and those started after it are good; or workers: each. What is left is counted over
# all of these processes that came to an end in order.
one() {
    local variable=BK_NTH_WORKER start=$SECONDS
    if [[ $1 == program ]]; then variable=BK_NTH; fi
    local -a every=()
    if [[ $1 == workers ]]; then every=(BK_NTH_EVERY_WORKER=1); fi
    "${operation}_prepare"
    : >"$T/report"
    status=0
    read -r -a words <<<"$("${operation}_command")"
    env "${every[@]}" "$variable=$2" BK_NTH_REPORT="$T/report" BK_NTH_SECRET="$T/$pin.pin" \
        timeout -k 5 60 "$NTH/${words[0]}" "${words[@]:1}" </dev/null >"$T/stdout" 2>"$T/stderr" || status=$?
    took=$((SECONDS - start))
    hit=$(sed -nE '/^(worker )?(end|failed) /!{s/^worker //;p;q}' "$T/report")
    ends=$(grep -c '^end ' "$T/report") || true
    read -r sessions secrets left < <(sed 's/^worker //' "$T/report" |
        awk '$1 == "end" { open += $3; kept += $4; left += $5 } END { print open + 0, kept + 0, left + 0 }')
}

# judge WANTED : the case; WANTED are the statuses, besides 0, that the failure may have.
judge() {
    case " 0 $1 $also " in
    *" $status "*) ;;
    *) wrong 'another status' ;;
    esac
    if grep -Eq 'Sanitizer|runtime error:' "$T/stderr"; then wrong 'a sanitizer has something to say'; fi
    if ((status != 0)) && ! grep -Eq "^bk-[a-z]+: " "$T/stderr"; then wrong 'fails without a word'; fi
    if ((sessions != 0)) && [[ $hit != C_CloseSession ]]; then wrong "$sessions sessions open"; fi
    if ((secrets != 0)); then wrong "$secrets bytes of secrets not wiped"; fi
    if ((left != 0)); then wrong "the PIN is in memory, $left times"; fi
    if ((ends == 0 && status <= 9)); then wrong 'no report'; fi
    # a worker that has gone astray is waited for two seconds, and a few are started in its place
    if ((took > 20)); then wrong "took $took seconds"; fi
    "${operation}_check"
}

# sweep SIDE CLASS ACTION VALUE STRIDE LONG-STRIDE WANTED : the classes of tests/nth/nth.h; a stride of 0 is none at
# all. Its last run is the one in which nothing was left to fail; the short form makes one for each class.
sweep() {
    local side=$1 class=$2 action=$3 value=$4 stride=$5 wanted=$7 n=1 before=$bad tried=0
    local key="$operation $side $class"
    if [[ -n ${BK_LONG:-} ]]; then stride=$6; fi
    if ((stride == 0)); then return; fi
    while [[ -n ${BK_LONG:-} || -z ${calls[$key]:-} ]] || ((n < calls[$key])); do
        one "$side" "$action:$class:$n:$value"
        if [[ -z $hit ]]; then
            case="$side, $class, fewer than $n calls"
            if ((status != 0)); then wrong 'fails although nothing was made to fail'; fi
            calls[$key]=$n
            break
        fi
        case="$side, $class $n $hit, $action $value"
        judge "$wanted"
        tried=$((tried + 1))
        n=$((n + stride))
    done
    faults=$((faults + tried))
    check "$operation: $side, $class, $action $value: $tried faults" test "$bad" -eq "$before"
}

# all OPERATION PIN : everything that can fail; PIN is looked for in memory.
all() {
    operation=$1
    pin=$2
    also=''
    if [[ $operation == wrap_batch ]]; then also=6; fi # one archive failed, and the other did not
    faults_before=$faults
    local token='3 5'
    sweep program memory fail 0 41 1 5
    sweep program system fail $EIO 41 1 '2 3 5 7'
    sweep program system short 0 71 1 '2 3 5 7'
    sweep program disk fail $EIO 2 1 5
    sweep program disk fail $ENOSPC 5 1 5
    sweep program disk short 0 5 1 5
    sweep program token fail 0 2 1 "$token"
    sweep worker memory fail 0 17 1 "$token"
    sweep worker system fail $EIO 7 1 "$token"
    sweep worker system short 0 17 1 "$token"
    sweep worker token fail $CKR_GENERAL_ERROR 59 1 "$token"
    sweep worker token fail $CKR_DEVICE_REMOVED 97 3 "$token"
    sweep worker token fail $CKR_HOST_MEMORY 0 5 "$token"
    sweep worker token fail $CKR_SESSION_HANDLE_INVALID 0 5 "$token"
    # the worker is killed there
    sweep worker token before 0 101 1 "$token"
    # the next worker meets the same, until the module is given up
    sweep workers memory fail 0 0 1 "$token"
    sweep workers system fail $EIO 0 1 "$token"
    sweep workers token before 0 0 7 "$token"
    # a decoder of OpenSSL's that finds no memory can say that it cannot decode: then it is the key that is called bad;
    # and OpenSSL's own parts, not what bk holds of it, leak when they find none
    ASAN_OPTIONS=$ASAN_OPTIONS:detect_leaks=0 sweep program library fail 0 11003 499 '1 2 3 5 8'
    ASAN_OPTIONS=$ASAN_OPTIONS:detect_leaks=0 sweep worker library fail 0 11003 499 '1 2 3 5 8'
    check "$operation: $((faults - faults_before)) faults injected" test $((faults - faults_before)) -gt 10
}

# --- the operations -------------------------------------------------------------------------------------------------

# of TOKEN OBJECT : its URI. It names the module by its path, which makes one worker; the operations that use key_uri have
# one for each module that p11-kit has configured.
of() { printf '%s&module-path=%s' "$(key_uri "$1" "$2")" "$SOFTHSM"; }

# opens FILE KEY : to the right plaintext, under that key of the token kek.
opens() {
    rm -f "$T/opened"
    bk-unwrap -q -t "$T/backup.pem" -t "rotate:$T/backup2.pem" -k "$(key_uri kek "$2")" -o "$T/opened" "$1" \
        </dev/null >/dev/null 2>&1 && cmp -s "$T/opened" "$T/plain"
}

# half_there FILE : a staged part of it. The removal of one may have been what failed.
half_there() {
    [[ $hit != unlink && $hit != unlinkat ]] && [[ -n $(find "$T" -maxdepth 1 -name ".$(basename "$1").*" -print -quit) ]]
}

clean() { find "$T" -maxdepth 1 \( -name '.*.part' -o -name 'x.*' -o -name 'out*' \) -delete; }

wrap_prepare() { clean; }
wrap_command() { echo "bk-wrap -q -j 2 -r $T/ec.pem -r $T/rsa.pem -s $(of signer backup) -o $T/x.bk $T/plain"; }
wrap_check() {
    if half_there "$T/x.bk"; then wrong 'a part is left'; fi
    if ((status == 0)) && [[ ! -e $T/x.bk ]]; then wrong 'no archive'; fi
    if [[ -e $T/x.bk ]] && ! opens "$T/x.bk" ec; then wrong 'an archive that does not open'; fi
}

# Two archives with one login, each whole or not there.
wrap_batch_prepare() {
    clean
    printf '%s\t%s\n' "$T/plain" "$T/x.1.bk" "$T/plain" "$T/x.2.bk" >"$T/list"
}
wrap_batch_command() { echo "bk-wrap -q -j 2 -r $T/ec.pem -s $(of signer backup) --batch $T/list"; }
wrap_batch_check() {
    local n count=0
    for n in 1 2; do
        if half_there "$T/x.$n.bk"; then wrong 'a part is left'; fi
        if [[ ! -e $T/x.$n.bk ]]; then continue; fi
        count=$((count + 1))
        if ! opens "$T/x.$n.bk" ec; then wrong 'an archive that does not open'; fi
    done
    if ((status == 0 && count != 2)); then wrong 'good, and an archive is missing'; fi
    if ((status == 6 && count == 0)); then wrong 'no archive, and some are said to be there'; fi
}

wrap_a_command_prepare() { clean; }
wrap_a_command_command() {
    echo "bk-wrap -q -r $(of kek aes) -s $(of kek signer) -o $T/x.bk -- cat $T/plain"
}
wrap_a_command_check() {
    if half_there "$T/x.bk"; then wrong 'a part is left'; fi
    if ((status == 0)) && [[ ! -e $T/x.bk ]]; then wrong 'no archive'; fi
    if [[ -e $T/x.bk ]] &&
        ! bk-verify -q --level decrypt -k "$(key_uri kek aes)" -t "$T/signer.pem" "$T/x.bk" >/dev/null 2>&1; then
        wrong 'an archive that does not open'
    fi
}

unwrap_prepare() { clean; }
unwrap_command() { echo "bk-unwrap -q -j 2 -t $T/backup.pem -k $(of kek ec) -o $T/out $T/a.bk"; }
unwrap_check() {
    if half_there "$T/out"; then wrong 'a part is left'; fi
    if ((status == 0)) && [[ ! -e $T/out ]]; then wrong 'no output'; fi
    if [[ -e $T/out ]] && ! cmp -s "$T/out" "$T/plain"; then wrong 'another output'; fi
}

# The consumer says by the file out that it saw a clean end.
unwrap_into_a_command_prepare() { clean; }
unwrap_into_a_command_command() {
    echo "bk-unwrap -q -t $T/backup.pem -k $(of kek rsa) --allow-unverified $T/a.bk -- $T/consumer $T/out"
}
unwrap_into_a_command_check() {
    if ((status == 0)) && [[ ! -e $T/out ]]; then wrong 'no output'; fi
    if [[ -e $T/out ]] && ! cmp -s "$T/out" "$T/plain"; then wrong 'another output'; fi
}

verify_prepare() { clean; }
verify_command() { echo "bk-verify -q --level decrypt --json -t $T/backup.pem -k $(key_uri kek rsa) $T/a.bk"; }
verify_check() {
    if ((status == 0)) && ! grep -q '"status":"ok"' "$T/stdout"; then wrong 'no answer'; fi
    if ((status != 0)) && grep -q '"status":"ok"' "$T/stdout"; then wrong 'called good, and failed'; fi
}

rekey_prepare() {
    clean
    cp "$T/a.bk" "$T/x.bk"
}
rekey_command() { rekey_words of ec ec2; }
rekey_check() { rekeyed of ec ec2; }

rekey_blind_prepare() {
    clean
    cp "$T/aes.bk" "$T/x.bk"
}
rekey_blind_command() { rekey_words key_uri aes aes2; }
rekey_blind_check() { rekeyed key_uri aes aes2; }

# rekey_words URI OLD NEW : URI makes them.
rekey_words() {
    echo "bk-rekey -q -t $T/backup.pem -t rotate:$T/backup2.pem -s $("$1" kek backup2)" \
        "--from $("$1" kek "$2") --to $("$1" kek "$3") $T/x.bk"
}

# rekeyed URI OLD NEW : old or new, never neither; it can be finished, and then the old one opens nothing.
rekeyed() {
    local -a words
    if half_there "$T/x.bk"; then wrong 'a part is left'; fi
    if ! opens "$T/x.bk" "$2" && ! opens "$T/x.bk" "$3"; then wrong 'nothing opens it'; fi
    read -r -a words <<<"$(rekey_words "$@")"
    if ! "${words[@]}" >/dev/null 2>&1 </dev/null; then wrong 'it cannot be finished'; fi
    if ! opens "$T/x.bk" "$3"; then wrong 'finished, and the new key does not open it'; fi
    if opens "$T/x.bk" "$2"; then wrong 'finished, and the old key opens it'; fi
}

generate_prepare() {
    clean
    take_tokens_again
}
generate_command() { echo "bk-key generate --type p256 --use kek -o $T/out $(of kek fresh)"; }
generate_check() {
    if ((status == 0)) && ! bk-key show "$(key_uri kek fresh)" >/dev/null 2>&1; then wrong 'no key'; fi
    if p11_objects | grep -q fresh && ! bk-key show "$(key_uri kek fresh)" >/dev/null 2>&1; then
        wrong 'half a key is left'
    fi
    # a whole one may be there after a failure: its public half could not be written, and that is said
    if ((status != 0)) && p11_objects | grep -q fresh && ! grep -Eq 'on the token|may have been made' "$T/stderr"; then
        wrong 'a key is left, without a word'
    fi
}

p11_objects() {
    pkcs11-tool --module "$SOFTHSM" --token-label kek --login --pin "$(cat "$T/kek.pin")" --list-objects 2>/dev/null
}

list_prepare() { clean; }
list_command() { echo "bk-key list --json $(key_uri kek ec)"; }
list_check() {
    if ((status == 0)) && ! grep -q '"ec"' "$T/stdout"; then wrong 'no list'; fi
}

export_prepare() { clean; }
export_command() { echo "bk-key export -o $T/out $(of kek ec)"; }
export_check() {
    if half_there "$T/out"; then wrong 'a part is left'; fi
    if [[ -e $T/out ]] && ! cmp -s "$T/out" "$T/ec.pem"; then wrong 'another key'; fi
}

make_token signer
make_token kek
make_key signer backup p256 sign
make_key kek signer p256 sign
make_key kek backup2 p256 sign
make_key kek ec p256 kek
make_key kek ec2 p256 kek
make_key kek rsa rsa3072 kek
make_key kek aes aes256 kek
make_key kek aes2 aes256 kek
put_tokens_by
head -c 50000 /dev/urandom >"$T/plain"
printf '#!/bin/sh\ncat >"$1.read" && mv "$1.read" "$1"\n' >"$T/consumer"
chmod +x "$T/consumer"
expect_exit 0 bk-wrap -q -r "$T/ec.pem" -r "$T/rsa.pem" -s "$(key_uri signer backup)" -o "$T/a.bk" "$T/plain"
expect_exit 0 bk-wrap -q -r "$(key_uri kek aes)" -s "$(key_uri signer backup)" -o "$T/aes.bk" "$T/plain"

operations='wrap wrap_batch wrap_a_command unwrap unwrap_into_a_command verify rekey rekey_blind generate list export'
for each in ${BK_OPERATIONS:-$operations}; do
    case $each in
    wrap | wrap_batch) all "$each" signer ;;
    *) all "$each" kek ;;
    esac
done
printf '# faults injected: %d\n' "$faults"
finish
