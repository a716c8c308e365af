#!/usr/bin/env bash
# Devices that nobody here has, imitated from their documentation, and modules that fail, hang and crash: by a module
# that stands before SoftHSM (tests/mimic/mimic.h).
#
#     BK_LONG=1             every call fails in every way, in place of some of them: about an hour
#     BK_PROGRAMS="..."     of these alone: wrap, unwrap, verify, rekey, generate
set -euo pipefail
# shellcheck source=../cli/lib.sh
. "$(dirname "$0")/../cli/lib.sh"

MIMIC=$BK_BIN/tests/mimic/bk-mimic.so
LONG=${BK_LONG:-0}
export BK_MIMIC=$T/mimic.conf
unset BK_TOKEN_TRACE

# --- the module ---------------------------------------------------------------------------------------------------

# mimic PROFILE [LINE...] : from now on the device is that one, with these lines of its configuration; a fresh log.
mimic() {
    printf '%s\n' "module = $SOFTHSM" "log = $T/log" "device = $T/device" "profile = $1" "${@:2}" >"$BK_MIMIC"
    rm -f "$T/device" "$T/counter"
    : >"$T/log"
}

# once : for a line of mimic: processes count calls together, so that one of them alone meets the fault.
once() { printf 'counter = %s/counter' "$T"; }

# key PROFILE OBJECT : its URI.
key() {
    printf 'pkcs11:token=bk;object=%s?module-path=%s&pin-source=file:%s/%s.pin' "$2" "$MIMIC" "$T" "$1"
}

# made CALL : how often processes made it (or all that use a private key: private).
made() {
    awk -v name="$1" '
        $2 == "finalize" || $2 == "exit" {
            for (i = 3; i <= NF; i++) if (split($i, a, "=") == 2 && a[1] == name) of[$1] = a[2]
        }
        END { for (pid in of) sum += of[pid]; print sum + 0 }' "$T/log"
}

# made_just N CALL
made_just() { check "$2: $1" test "$(made "$2")" -eq "$1"; }

# wrongs : what no run may do, whatever the module does, as far as the log tells: leave a session open in a process that
# ended by itself, log out with more than its own, give a PIN again after a login that failed or did not come back.
wrongs() {
    awk -v many="$MANY" '
        $2 == "fault" && $3 == "C_CloseSession" { unclosed = 1 } # it was not made, which is not the program\047s doing
        ($2 == "finalize" || $2 == "exit") && $3 != "open=0" && !unclosed { print "a process ended with " $3 }
        $2 == "logout" && $3 != "open=1" && $3 != "open=0" && !unclosed { print "a logout with " $3 }
        $2 == "login" && $3 == "begins" { if (spent[many ? $1 : 0]++) print "a PIN was given again" }
        $2 == "login" && ($3 == "rv=0x0" || $3 == "rv=0x100") { spent[many ? $1 : 0] = 0 }' "$T/log"
    local pid
    while read -r pid; do
        if ! ended "$pid"; then printf 'process %d is still there\n' "$pid"; fi
    done < <(awk '$2 == "start" { print $1 }' "$T/log")
}

in_order() {
    local what
    what=$(wrongs)
    check "in order${what:+: $what}" test -z "$what"
}

# --- programs -----------------------------------------------------------------------------------------------------

# Each of these runs a program as RUN CODE KIND..., where RUN is expect_exit or, in a sweep, silent_exit. PROFILE is the
# device, and OPTIONS go with each; MANY is 1 while several run at once.
PROFILE=plain
MANY=0
OPTIONS=()

recipient() { if [[ $1 == *aes* ]]; then key "$PROFILE" "$1"; else printf '%s/%s.pem' "$T" "$1"; fi; }

# generate RUN CODE OBJECT TYPE USE
generate() {
    local -a out=(-o "$T/$3.pem")
    [[ $4 != aes256 ]] || out=()
    "$1" "$2" bk-key generate "${OPTIONS[@]}" --type "$4" --use "$5" "${out[@]}" "$(key "$PROFILE" "$3")"
}

# wrap RUN CODE OUT RECIPIENT...
wrap() {
    local -a to=()
    local one
    for one in "${@:4}"; do to+=(-r "$(recipient "$one")"); done
    "$1" "$2" bk-wrap -q "${OPTIONS[@]}" "${to[@]}" -s "$(key "$PROFILE" "$signer")" -o "$T/$3" "$T/plain"
}

# unwrap RUN CODE OBJECT FILE
unwrap() {
    "$1" "$2" bk-unwrap -q "${OPTIONS[@]}" -t "$T/$signer.pem" -t "rotate:$T/$signer.pem" -k "$(key "$PROFILE" "$3")" \
        -o "$T/out" "$T/$4"
}

# verify RUN CODE OBJECT FILE
verify() {
    "$1" "$2" bk-verify -q "${OPTIONS[@]}" --level decrypt -t "$T/$signer.pem" -t "rotate:$T/$signer.pem" \
        -k "$(key "$PROFILE" "$3")" "$T/$4"
}

# rekey RUN CODE FROM TO FILE
rekey() {
    "$1" "$2" bk-rekey -q "${OPTIONS[@]}" --from "$(key "$PROFILE" "$3")" --to "$(key "$PROFILE" "$4")" \
        -s "$(key "$PROFILE" "$signer")" -t "$T/$signer.pem" -t "rotate:$T/$signer.pem" "$T/$5"
}

# --- devices ------------------------------------------------------------------------------------------------------

# kinds PROFILE : the KEKs that its documentation promises, as far as bk uses them.
kinds() {
    case $1 in
    plain | lanhsm) echo 'aes256 p256 p384 rsa3072' ;;
    yubihsm2 | smartcard) echo 'p256 p384 rsa3072' ;;
    cloudhsm | tpm) echo 'rsa3072' ;;
    esac
}

# probed PROFILE : bk-key probe finds what its documentation promises, and no damage that is taken.
probed() {
    local uri found
    mimic "$1"
    uri=$(key "$1" none)
    expect_exit 0 bk-key probe "${uri/;object=none/}"
    found=$(awk '$2 == "kek" && $3 ~ /^works/ { printf "%s ", $1 }' "$T/stdout")
    check "$1: its KEKs are $found" test "$found" = "$(kinds "$1") "
    found=$(awk '$2 == "sign" && $3 == "works" { printf "%s ", $1 }' "$T/stdout")
    check "$1: its signing keys are $found" test "$found" = 'p256 p384 rsa3072 '
    check "$1: takes nothing that was damaged" not_in DAMAGED "$T/stdout"
    in_order
}

not_in() { ! grep -q -- "$1" "$2"; }

# life PROFILE : a backup's, with keys that the device made; the keys that take over are of an earlier day.
life() {
    local kind uses
    printf '\n# a device like %s\n' "$1"
    PROFILE=$1
    signer=$1-signer
    probed "$1"
    mimic "$1" 'latency = 2'
    generate expect_exit 0 "$signer" p256 sign
    for kind in $(kinds "$1"); do
        [[ $kind != p384 ]] || continue
        uses=1
        [[ $1-$kind != lanhsm-aes256 ]] || uses=2 # it refuses the first template, of which it wants more
        generate expect_exit 0 "$1-$kind" "$kind" kek
        in_order
        mimic "$1" 'latency = 2'
        wrap expect_exit 0 "$1-$kind.bk" "$1-$kind"
        made_just 1 C_Sign
        [[ $kind == aes256 ]] || made_just 1 private
        expect_exit 0 bk-verify -q -t "$T/$signer.pem" "$T/$1-$kind.bk"
        mimic "$1" 'latency = 2'
        verify expect_exit 0 "$1-$kind" "$1-$kind.bk"
        made_just "$uses" private
        in_order
        mimic "$1" 'latency = 2'
        unwrap expect_exit 0 "$1-$kind" "$1-$kind.bk"
        made_just "$uses" private
        same_file "$T/plain" "$T/out"
        rm -f "$T/out"
        rekey expect_exit 0 "$1-$kind" "new-$kind" "$1-$kind.bk"
        unwrap expect_exit 0 "new-$kind" "$1-$kind.bk"
        rm -f "$T/out"
        unwrap expect_exit 3 "$1-$kind" "$1-$kind.bk"
        no_file "$T/out"
        in_order
    done
    PROFILE=plain
    signer=signer
}

devices() {
    local one
    for one in plain yubihsm2 cloudhsm lanhsm smartcard tpm; do life "$one"; done
    printf '\n# a PIN that is not what the device calls one\n'
    mimic cloudhsm
    cp "$T/cloudhsm.pin" "$T/kept.pin"
    cp "$T/plain.pin" "$T/cloudhsm.pin"
    PROFILE=cloudhsm unwrap expect_exit 9 rsa3072 rsa3072.bk
    mv "$T/kept.pin" "$T/cloudhsm.pin"
    expect_stderr CKR_PIN_INCORRECT
    no_file "$T/out"
    in_order
}

# --- calls that crash and hang ------------------------------------------------------------------------------------

# quickly SECONDS COMMAND... : it took no longer.
quickly() {
    local start=$SECONDS
    "${@:2}"
    check "in $1 s" test $((SECONDS - start)) -le "$1"
}

# dies HOW MESSAGE CALL PROGRAM ARG... : the call ends the process each time; then just once.
dies() {
    local how=$1 message=$2 call=$3 program=$4
    shift 4
    printf '\n# %s: %s in %s\n' "$program" "$how" "$call"
    mimic plain "fault = $call 1 $how"
    quickly 6 "$program" expect_exit 3 "$@"
    expect_stderr "error: .*$message"
    no_file "$T/out"
    in_order
    mimic plain "fault = $call 1 $how" "$(once)"
    if [[ $call == C_Login ]]; then
        quickly 6 "$program" expect_exit 3 "$@"
    else
        quickly 6 "$program" expect_exit 0 "$@"
    fi
    rm -f "$T/out"
    in_order
}

deaths() {
    local call how hangs='C_OpenSession C_Login C_DeriveKey'
    ((LONG == 0)) || hangs='C_Initialize C_GetSlotList C_OpenSession C_Login C_FindObjects C_DeriveKey'
    for call in $hangs; do dies hang "$call did not return in time" "$call" unwrap p256 p256.bk; done
    for call in C_Initialize C_GetSlotList C_OpenSession C_Login C_FindObjects C_DeriveKey; do
        dies crash "the module crashed in $call: signal 11" "$call" unwrap p256 p256.bk
    done
    dies hang 'C_Sign did not return in time' C_Sign wrap out p256
    dies crash 'the module crashed in C_Sign: signal 11' C_Sign wrap out p256
    dies abort 'the module crashed in C_Sign: signal 6' C_Sign wrap out p256
    dies exit 'the module ended its process in C_Sign, with status 7' C_Sign wrap out p256

    printf '\n# a module that damages its heap\n'
    mimic plain 'fault = C_FindObjectsInit 1 heap' "$(once)"
    unwrap expect_exit 0 p256 p256.bk
    same_file "$T/plain" "$T/out"
    rm -f "$T/out"
    in_order

    printf '\n# a module that hangs or crashes when all is done does no harm\n'
    for how in crash hang; do
        ((LONG == 1)) || [[ $how != hang ]] || continue # ten seconds are given
        mimic plain "fault = C_Finalize 1 $how"
        quickly 15 unwrap expect_exit 0 p256 p256.bk
        same_file "$T/plain" "$T/out"
        rm -f "$T/out"
        in_order
    done

    printf '\n# lengths that cannot be\n'
    for call in C_GetSlotList C_FindObjects; do
        mimic plain "fault = $call 1 lengths 1000"
        unwrap expect_exit 3 p256 p256.bk
        no_file "$T/out"
        in_order
    done
    mimic plain 'fault = C_Sign 1 lengths 1000'
    wrap expect_exit 3 out p256
    expect_stderr 'a signature of 2147483632 bytes'
    no_file "$T/out"
    in_order
}

# --- devices that go away, and devices that are busy --------------------------------------------------------------

lost() {
    printf '\n# sessions that are lost, devices that are removed, and throttling\n'
    for one in 'C_DeriveKey 1 session-lost' 'C_DeriveKey 1 0x30' 'C_DeriveKey 1 throttled' 'C_DeriveKey 1 throttled 3'; do
        mimic plain "fault = $one"
        unwrap expect_exit 0 p256 p256.bk
        rm -f "$T/out"
        in_order
    done
    mimic plain 'fault = C_DeriveKey 1 removed'
    unwrap expect_exit 3 p256 p256.bk
    expect_stderr CKR_DEVICE_REMOVED
    no_file "$T/out"
    in_order
    printf '\n# a device that works again once its module is started anew\n'
    mimic plain 'fault = C_DeriveKey 1 removed' "$(once)"
    unwrap expect_exit 0 p256 p256.bk
    same_file "$T/plain" "$T/out"
    rm -f "$T/out"
    in_order
    printf '\n# a device that lets sessions die of idleness, while the input comes slowly\n'
    mimic plain 'idle = 300'
    mkfifo "$T/slow"
    (sleep 1 && cat "$T/plain") >"$T/slow" &
    STDIN=$T/slow expect_exit 0 bk-wrap -q -r "$T/p256.pem" -s "$(key plain signer)" -o "$T/slow.bk"
    wait
    in_order
    printf '\n# a device that keeps what it unwraps\n'
    mimic plain 'quirk = forces-sensitive'
    unwrap expect_exit 3 aes256 aes256.bk
    expect_stderr 'keeps its value|CKR_ATTRIBUTE_SENSITIVE'
    no_file "$T/out"
}

# apart NAME CODE COMMAND ARG... : what fleet runs; its status is of the command, what it says in $T/NAME.said.
apart() {
    timeout -k 10 120 "${@:3}" >/dev/null 2>"$T/$1.said" </dev/null
}

# fleet SESSIONS WHAT : sixteen at once, on a device that has so many sessions.
fleet() {
    local sessions=$1 what=$2 i good=0
    local -a pids=()
    printf '\n# sixteen at once on a device with %d sessions: %s\n' "$sessions" "$what"
    mimic yubihsm2 "sessions = $sessions" 'latency = 20'
    PROFILE=yubihsm2 MANY=1
    for i in {1..16}; do
        case $what in
        wrap) wrap "apart_$i" 0 "fleet-$i.bk" p256 & ;;
        verify) verify "apart_$i" 0 p256 p256.bk & ;;
        rekey)
            cp "$T/p256.bk" "$T/fleet-$i.bk"
            rekey "apart_$i" 0 p256 new-p256 "fleet-$i.bk" &
            ;;
        esac
        pids+=($!)
    done
    : >"$T/stderr"
    for i in {0..15}; do
        if wait "${pids[i]}"; then good=$((good + 1)); else cat "$T/fleet-$((i + 1)).said" >>"$T/stderr"; fi
    done
    check "$what: $good of 16" test "$good" -eq 16
    in_order
    rm -f "$T"/fleet-*
    PROFILE=plain MANY=0
}

for one in {1..16}; do eval "apart_$one() { apart fleet-$one \"\$@\"; }"; done

# rate THREADS : signatures a second of one worker, in thousandths, on the device at hand.
rate() {
    BK_WORKER=$BK_BIN/bk-token-worker "$BK_BIN/tests/bench/token_bench_worker" rate \
        "$(key plain signer | sed 's/pin-source=.*/pin-value=/')$pin" "$1" 25 | awk '{ printf "%d", $3 * 1000 }'
}

# Sessions work side by side, until the device has no more hands; a busy machine may take its share.
rates() {
    local one four many
    printf '\n# sessions side by side\n'
    mimic lanhsm 'latency = 1000' 'parallel = 4'
    one=$(rate 1)
    four=$(rate 4)
    many=$(rate 16)
    check "four sessions give $((100 * four / one)) % of one's rate" test $((10 * four)) -gt $((25 * one))
    check "sixteen, where the device does four things at once, $((100 * many / one)) %" test "$many" -lt $((6 * one))
    in_order
}

# --- the sweep ----------------------------------------------------------------------------------------------------

# general, device, removed, function failed, session handle, session closed, not present, not logged in, operation
# active, host memory, key handle, arguments
RVS=(0x5 0x30 0x32 0x6 0xb3 0xb0 0xe0 0x101 0x90 0x2 0x60 0x7)

# silent CODE COMMAND ARG... : what is run is judged by others; CODE is not looked at.
silent() {
    status=0
    timeout -k 5 20 "${@:2}" >"$T/stdout" 2>"$T/stderr" </dev/null || status=$?
}

objects() { find "$(token_folder)" -name '*.object' | wc -l; }

# swept_PROGRAM : one run of it; what it left behind is judged by wrong_PROGRAM, which names what is wrong.
swept_wrap() { wrap silent 0 out aes256 p256; }
swept_unwrap() { unwrap silent 0 p256 p256.bk; }
swept_verify() { verify silent 0 rsa3072 rsa3072.bk; }
swept_rekey() {
    cp "$T/aes256.bk" "$T/rotated.bk"
    rekey silent 0 aes256 new-aes256 rotated.bk
}
swept_generate() {
    take_tokens_again
    generate silent 0 made p256 sign
}

wrong_wrap() {
    if ((status == 0)); then
        bk-verify -q -t "$T/$signer.pem" "$T/out" >/dev/null 2>&1 || echo 'what it made is not whole'
    fi
}
wrong_unwrap() {
    if ((status == 0)); then cmp -s "$T/plain" "$T/out" || echo 'what it opened is something else'; fi
}
wrong_verify() { :; }
wrong_rekey() {
    bk-verify -q -t "$T/$signer.pem" -t "rotate:$T/$signer.pem" "$T/rotated.bk" >/dev/null 2>&1 ||
        echo 'the archive is broken'
}
wrong_generate() {
    if ((status == 0)); then
        [[ -s $T/made.pem ]] || echo 'no public half'
    else
        [[ ! -e $T/made.pem ]] || echo 'a public half of a key that was not made'
        if [[ $(objects) -gt $objects_before ]] &&
            ! grep -Eq 'left on the token|may have been made|could not be removed' "$T/stderr"; then
            echo 'a key is left on the token, and nobody says so'
        fi
    fi
}

# allowed WHAT : what the last run may end with. No memory is 5, whoever has none; a login that failed may have been a
# wrong PIN, which is 9.
allowed() {
    case $status in
    0 | 3) return 0 ;;
    5) [[ $1 == 0x2 ]] ;;
    9) grep -q 'fault C_Login' "$T/log" ;;
    *) return 1 ;;
    esac
}

# judge PROGRAM WHAT : says what is wrong with the last run.
judge() {
    allowed "$2" || echo "exit status $status"
    "wrong_$1"
    if ((status != 0)); then
        [[ ! -e $T/out ]] || echo 'output of a run that failed'
        [[ -s $T/stderr ]] || echo 'not a word'
        if grep -q 'no key .* opens it' "$T/stderr" && ! grep -Eq 'could not be searched|left out' "$T/stderr"; then
            echo 'a key that is there is said not to be'
        fi
    fi
    [[ -z $(find "$T" -maxdepth 1 -name '.*.part' -print -quit) ]] || echo 'a staged part is left'
    wrongs
}

# fault PROGRAM NTH WHAT HOW : one run, of which the nth call fails: once in all processes, or in each. Fails after the
# last call.
fault() {
    local how=() found
    [[ $4 != once ]] || how=("$(once)")
    mimic plain "fault = * $2 $3" "${how[@]}"
    rm -f "$T/out" "$T/made.pem"
    "swept_$1"
    grep -q ' fault ' "$T/log" || return 1
    runs=$((runs + 1))
    found=$(judge "$1" "$3" | tr '\n' ';')
    [[ -z $found ]] || fail "$1, $3 at call $2 ($(awk '/ fault / { print $3; exit }' "$T/log"), $4): $found"
    return 0
}

# sweep PROGRAM STRIDE HANG-STRIDE : the nth call of it fails in every way, or in this run, for some n, in one way.
sweep() {
    local n what runs=0 before=$failures
    local -a ways
    for ((n = 1; ; n += $2)); do
        ways=("${RVS[(n / $2) % ${#RVS[@]}]}")
        ((n / $2 % 4 != 3)) || ways=(crash)
        ((LONG == 0)) || ways=("${RVS[@]}" crash)
        for what in "${ways[@]}"; do
            fault "$1" "$n" "$what" once || break 2
            ((LONG == 0)) || fault "$1" "$n" "$what" always
        done
    done
    for ((n = 2; ; n += $3)); do
        fault "$1" "$n" hang once || break
    done
    check "$1: $runs runs" test "$failures" -eq "$before"
}

sweeps() {
    local one stride=5 hang=120
    ((LONG == 0)) || stride=1 hang=1
    objects_before=$(objects)
    for one in ${BK_PROGRAMS:-wrap unwrap verify rekey generate}; do
        printf '\n# the nth call of bk-%s\n' "$one"
        sweep "$one" "$stride" "$hang"
    done
}

printf 'x%.0s' {1..100000} >"$T/plain"
make_token bk
pin=$(cat "$T/bk.pin")
umask 077
for one in plain lanhsm smartcard tpm; do printf '%s' "$pin" >"$T/$one.pin"; done
printf '00a1%s' "$pin" >"$T/yubihsm2.pin"
printf 'operator:%s' "$pin" >"$T/cloudhsm.pin"
OPTIONS=(--token-timeout 20)
signer=signer
mimic plain
generate expect_exit 0 signer p256 sign
for one in p256 rsa3072 aes256; do
    generate expect_exit 0 "$one" "$one" kek
    generate expect_exit 0 "new-$one" "$one" kek
    wrap expect_exit 0 "$one.bk" "$one"
done
put_tokens_by
devices
take_tokens_again # bk-wrap looks at every key of a token, and there are many now
OPTIONS=(--token-timeout 1)
deaths
lost
rates
for one in 16 6; do
    fleet "$one" wrap
    fleet "$one" verify
    fleet "$one" rekey
done
sweeps
finish
