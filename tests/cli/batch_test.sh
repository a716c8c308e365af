#!/usr/bin/env bash
# bk-wrap --batch, as docs/CLI.md has it: each archive with its own result and its own keys, one login for all, a list
# that is fed while the batch works, one archive begun while another one ends, and what happens when it is stopped or the
# token is gone.
# shellcheck disable=SC2317 # functions are called by `check` and traps
set -euo pipefail
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

MIMIC=$BK_BIN/tests/mimic/bk-mimic.so
export BK_MIMIC=$T/mimic.conf

# --- helpers ------------------------------------------------------------------------------------------------------

signer() { key_uri signer backup; }
signer_by_path() { printf '%s&module-path=%s' "$(key_uri signer backup)" "$1"; }

# batch CODE LIST ARG... : with the usual keys.
batch() {
    expect_exit "$1" bk-wrap -r "$T/ec.pem" -r "$T/rsa.pem" -s "$(signer)" --batch "$2" "${@:3}"
}

# line INPUT OUTPUT [SEQUENCE] : of a list; names are of $T.
line() { printf '%s\t%s%s\n' "$T/$1" "$T/$2" "${3:+$'\t'$3}"; }

# restores PLAIN ARCHIVE : it verifies, and gives back exactly that.
restores() {
    rm -f "$T/restored"
    expect_exit 0 bk-verify -q -t "$T/backup.pem" "$2"
    expect_exit 0 bk-unwrap -q -t "$T/backup.pem" -k "$(key_uri kek ec)" -o "$T/restored" "$2"
    same_file "$1" "$T/restored"
}

# json_lines FILE EXPRESSION : the Python expression is true of the list `o` of the objects, one a line.
json_lines() {
    local text="json: $2"
    if /usr/bin/python3 -c '
import json, sys
o = [json.loads(line) for line in open(sys.argv[1], encoding="utf-8")]
sys.exit(0 if eval(sys.argv[2], {"o": o}) else 1)' "$1" "$2" 2>/dev/null; then
        pass "$text"
    else
        fail "$text"
        head -c 4000 "$1" | sed 's/^/    json: /'
    fi
}

no_parts() {
    check 'no staged part is left' test -z "$(find "$T" -name '.*.part' -print -quit)"
}

lines_of() { [[ $(wc -l <"$1") -ge $2 ]]; }

# calls NAME : how often the module was called so, by what BK_TOKEN_TRACE made of the last run.
calls() { grep -c "^bk-token-worker: $1: " "$T/stderr" || true; }

# --- what a batch makes -------------------------------------------------------------------------------------------

mixed_results() {
    mkdir "$T/mixed"
    {
        line one mixed/1.bk
        line nothing mixed/2.bk
        printf '\n'
        line two mixed/3.bk 'system=1 timeline=2 segment=3'
        line one mixed/1.bk
        printf 'no tab\n'
        line one no-such-folder/5.bk
        line big mixed/6.bk
    } >"$T/mixed.list"
    batch 6 "$T/mixed.list" --json="$T/mixed.json"
    expect_stderr '^bk-wrap: error: .*/mixed/2.bk: .*/nothing: .*No such file'
    expect_stderr '^bk-wrap: error: .*/mixed/1.bk: exists already'
    expect_stderr '^bk-wrap: error: .*/mixed.list:6: no tab between INPUT and OUTPUT'
    expect_stderr '^bk-wrap: error: .*/no-such-folder/5.bk: '
    expect_stderr '^bk-wrap: .*/mixed.list: 3 made, 4 failed$'
    restores "$T/one" "$T/mixed/1.bk"
    restores "$T/two" "$T/mixed/3.bk"
    restores "$T/big" "$T/mixed/6.bk"
    no_file "$T/mixed/2.bk"
    no_parts
    json_lines "$T/mixed.json" 'len(o) == 7 and [x["code"] for x in o] == [0, 5, 0, 2, 2, 5, 0]'
    json_lines "$T/mixed.json" '[x["status"] == "ok" for x in o] == [x["code"] == 0 for x in o]'
    json_lines "$T/mixed.json" 'o[0]["archive"].endswith("/mixed/1.bk") and o[0]["input"].endswith("/one")'
    json_lines "$T/mixed.json" 'o[1]["archive"].endswith("/mixed/2.bk") and "No such file" in o[1]["message"]'
    json_lines "$T/mixed.json" 'o[4]["archive"] is None and o[4]["message"].endswith("INPUT and OUTPUT")'
    json_lines "$T/mixed.json" 'o[0]["recipients"] == 2 and o[0]["plaintextLength"] == 1000'
    all_differ
    expect_exit 0 bk-verify --level signature --show -t "$T/backup.pem" "$T/mixed/3.bk"
    expect_stdout '^  sequence +system=1 timeline=2 segment=3$'
    expect_exit 0 bk-verify --level signature --show -t "$T/backup.pem" "$T/mixed/6.bk"
    check 'the sequence is of its own archive only' not_in '^  sequence +system' "$T/stdout"
}

not_in() { ! grep -Eq -- "$1" "$2"; }

# Two archives of one input: other ids, commitments to other file keys, and data keys that are wrapped to other bytes by
# AES key wrap, which draws nothing at random (docs/FORMAT.md, Preamble, Key envelope).
all_differ() {
    json_lines "$T/mixed.json" 'len({x["archiveId"] for x in o if x["archiveId"]}) == 3'
    printf '%s\n' "$(line one mixed/same-a.bk)" "$(line one mixed/same-b.bk)" >"$T/same.list"
    batch 0 "$T/same.list" -q -r "$(key_uri kek aes)"
    check 'ids, commitments and data keys differ' /usr/bin/python3 -c '
import re, sys
a, b = (open(name, "rb").read() for name in sys.argv[1:])
wrapped = [set(re.findall(rb"\x04\x28(.{40})", x[4096 : 4096 + 32768], re.S)) for x in (a, b)]
same = a[20:36] == b[20:36] or a[36:68] == b[36:68] or wrapped[0] & wrapped[1]
sys.exit(1 if same or not all(wrapped) else 0)' "$T/mixed/same-a.bk" "$T/mixed/same-b.bk"
    restores "$T/one" "$T/mixed/same-b.bk"
}

common_options() {
    mkdir "$T/common"
    printf '%s\n' "$(line one common/1.bk)" "$(line two common/2.bk)" >"$T/common.list"
    batch 0 "$T/common.list" -q --detach --public-label nightly --meta a=b --kind snapshot
    check 'detached: two sidecars' test -s "$T/common/1.bk.keys" -a -s "$T/common/2.bk.keys"
    restores "$T/one" "$T/common/1.bk"
    restores "$T/two" "$T/common/2.bk"
    expect_exit 0 bk-verify --level signature --show -t "$T/backup.pem" "$T/common/2.bk"
    expect_stdout 'label +nightly'
    # kind wal must have a sequence, each archive its own
    {
        line one common/3.bk
        line two common/4.bk 'system=1 timeline=00000001 segment=000000010000000000000001'
        line two common/5.bk $'system=1\t'
    } >"$T/common.list"
    batch 6 "$T/common.list" -q --kind wal
    expect_stderr '/common/3.bk: .*sequence'
    expect_stderr ':3: more than INPUT, OUTPUT and SEQUENCE'
    no_file "$T/common/3.bk"
    restores "$T/two" "$T/common/4.bk"
    no_file "$T/common/5.bk"
    # empty inputs are refused one by one
    : >"$T/empty"
    line empty common/6.bk >"$T/common.list"
    batch 5 "$T/common.list"
    expect_stderr 'input is empty'
    batch 0 "$T/common.list" --allow-empty
}

forced() {
    mkdir "$T/forced"
    printf 'old\n' | tee "$T/forced/1.bk" >"$T/forced/2.bk"
    printf '%s\n' "$(line one forced/1.bk)" "$(line nothing forced/2.bk)" "$(line two forced/1.bk)" \
        "$(line two forced/2.bk)" >"$T/forced.list"
    batch 6 "$T/forced.list" --force
    expect_stderr '/forced/1.bk: was made in this batch already'
    restores "$T/one" "$T/forced/1.bk"
    # what failed may come again
    restores "$T/two" "$T/forced/2.bk"
}

# --- lists --------------------------------------------------------------------------------------------------------

# bad_line PATTERN TEXT : as printf has it, with @ for $T.
bad_line() {
    printf '%b' "${2//@/$T}" >"$T/bad.list"
    batch 2 "$T/bad.list" -q
    expect_stderr "bad.list:1: .*$1"
    no_file "$T/bad.bk"
}

bad_lists() {
    bad_line 'no tab' '@/one @/bad.bk\n'
    bad_line 'carriage return' '@/one\t@/bad.bk\r\n'
    bad_line 'does not end with a newline' '@/one\t@/bad.bk'
    bad_line 'INPUT is empty' '\t@/bad.bk\n'
    bad_line 'OUTPUT is empty' '@/one\t\n'
    bad_line 'INPUT is -' '-\t@/bad.bk\n'
    bad_line 'OUTPUT is -' '@/one\t-\n'
    bad_line 'INPUT and OUTPUT are one' '@/bad.bk\t@/bad.bk\n'
    bad_line 'more than INPUT, OUTPUT' '@/one\t@/bad.bk\t\t\n'
    bad_line 'a byte in it is 0' '@/one\t@/bad.bk\0\n'
    bad_line 'SEQUENCE: not key=value' '@/one\t@/bad.bk\tsystem=\0001\n'
    bad_line 'SEQUENCE: not key=value' '@/one\t@/bad.bk\tsystem=1  a=2\n'
    head -c 20000 /dev/zero | tr '\0' a >"$T/bad.list"
    printf '\n%s' "$(line one after.bk)" >>"$T/bad.list"
    printf '\n' >>"$T/bad.list"
    batch 6 "$T/bad.list" -q
    expect_stderr 'bad.list:1: longer than 16384 bytes'
    restores "$T/one" "$T/after.bk"
    batch 2 "$T/no-such-list"
    expect_stderr 'batch: .*no-such-list'
    batch 2 "$T"
    : >"$T/bad.list"
    batch 0 "$T/bad.list"
    expect_stderr ': 0 made, 0 failed'
}

odd_names() {
    local odd=$'odd\tname\nof two lines\r'
    mkdir "$T/odd"
    cp "$T/one" "$T/odd/$odd"
    printf '%s\0%s\0%s\0' "$T/odd/$odd" "$T/odd/$odd.bk" '' "$T/two" "$T/odd/2.bk" 'system=1 timeline=1 segment=2' \
        >"$T/odd.list"
    batch 0 "$T/odd.list" -q --null
    restores "$T/one" "$T/odd/$odd.bk"
    restores "$T/two" "$T/odd/2.bk"
    # one field is missing: what follows would be taken for something else
    printf '%s\0%s\0%s\0' "$T/one" "$T/odd/3.bk" "$T/two" "$T/odd/4.bk" '' "$T/one" >"$T/odd.list"
    batch 2 "$T/odd.list" -0 -q
    expect_stderr 'odd.list:1: SEQUENCE: not key=value words'
    no_file "$T/odd/3.bk"
    printf '%s\0' "$T/one" "$T/odd/5.bk" '' '' "$T/one" "$T/odd/6.bk" "$T/one" "$T/odd/7.bk" '' >"$T/odd.list"
    batch 6 "$T/odd.list" -0
    expect_stderr 'odd.list:2: INPUT is empty'
    expect_stderr 'stopped after item 2 of .*: 1 made, 1 failed, what followed was not read'
    no_file "$T/odd/6.bk"
    no_file "$T/odd/7.bk"
    printf '%s\0' "$T/one" "$T/odd/8.bk" >"$T/odd.list"
    batch 2 "$T/odd.list" -0
    expect_stderr 'fields are not all there'
    no_file "$T/odd/8.bk"
}

# The answer to a line is there before the next line is written.
fed_line_by_line() {
    local pid
    mkdir "$T/fed"
    rm -f "$T/feed"
    mkfifo "$T/feed"
    bk-wrap -q --json -r "$T/ec.pem" -r "$T/rsa.pem" -s "$(signer)" --batch - <"$T/feed" >"$T/answers" \
        2>"$T/stderr" &
    pid=$!
    exec 9>"$T/feed"
    line one fed/1.bk >&9
    check 'the first result before the second line' wait_until 30 lines_of "$T/answers" 1
    check 'and the archive' test -s "$T/fed/1.bk"
    line nothing fed/2.bk >&9
    check 'a failure as soon' wait_until 30 lines_of "$T/answers" 2
    line two fed/3.bk | head -c 20 >&9
    sleep 0.3
    check 'half a line is waited for' test ! -e "$T/fed/3.bk" -a "$(wc -l <"$T/answers")" -eq 2
    line two fed/3.bk | tail -c +21 >&9
    check 'the third' wait_until 30 lines_of "$T/answers" 3
    exec 9>&-
    ends_in_time 'ends with its list' "$pid"
    local status=0
    wait "$pid" || status=$?
    check 'exit status 6' test "$status" -eq 6
    json_lines "$T/answers" '[x["code"] for x in o] == [0, 5, 0]'
    restores "$T/two" "$T/fed/3.bk"
}

wrong_options() {
    local -a keys=(-r "$T/ec.pem" -s "$(signer)")
    printf '%s\n' "$(line one refused.bk)" >"$T/refused.list"
    expect_exit 2 bk-wrap "${keys[@]}" --batch "$T/refused.list" -o "$T/x.bk"
    expect_stderr 'batch: LIST names the outputs'
    expect_exit 2 bk-wrap "${keys[@]}" --batch "$T/refused.list" "$T/one"
    expect_stderr 'batch: what is wrapped stands in LIST'
    expect_exit 2 bk-wrap "${keys[@]}" --batch "$T/refused.list" -- cat "$T/one"
    expect_stderr 'batch: what is wrapped stands in LIST'
    expect_exit 2 bk-wrap "${keys[@]}" --batch "$T/refused.list" --manifest "$T/m"
    expect_stderr 'one file for all'
    expect_exit 2 bk-wrap "${keys[@]}" --batch "$T/refused.list" --sequence 'a=1'
    expect_stderr 'its own sequence'
    expect_exit 2 bk-wrap "${keys[@]}" --batch "$T/refused.list" --batch "$T/refused.list"
    expect_stderr 'given twice'
    expect_exit 2 bk-wrap "${keys[@]}" --null -o "$T/x.bk" "$T/one"
    expect_stderr 'null goes with --batch'
    STDIN=$T/refused.list expect_exit 2 bk-wrap "${keys[@]}" --batch - --meta-file -
    expect_stderr 'cannot be read twice'
    printf '[p]\nbatch = %s\n' "$T/refused.list" >"$T/bk.conf"
    expect_exit 2 bk-wrap "${keys[@]}" --config "$T/bk.conf" --profile p -o "$T/x.bk" "$T/one"
    expect_stderr 'for the command line only'
    no_file "$T/refused.bk"
    no_file "$T/x.bk"
}

warned_once() {
    mkdir "$T/warned"
    printf '%s\n' "$(line one warned/1.bk)" "$(line two warned/2.bk)" >"$T/warned.list"
    expect_exit 0 bk-wrap -r "$T/ec.pem" -s "$(signer)" --batch "$T/warned.list"
    check 'one warning for two archives' test "$(grep -c 'only one recipient' "$T/stderr")" -eq 1
}

# --- the token ----------------------------------------------------------------------------------------------------

many() {
    local i
    for ((i = 1; i <= $2; i++)); do line one "$1/$i.bk"; done
}

one_login() {
    mkdir "$T/login"
    many login 20 >"$T/login.list"
    BK_TOKEN_TRACE=1 expect_exit 0 bk-wrap -q -r "$T/ec.pem" -r "$T/rsa.pem" -s "$(signer_by_path "$SOFTHSM")" \
        --batch "$T/login.list"
    check 'one C_Login' test "$(calls C_Login)" -eq 1
    check 'one C_Sign for each archive' test "$(calls C_Sign)" -eq 20
    check 'one C_OpenSession' test "$(calls C_OpenSession)" -eq 1
    check 'no more searches than for one archive' test "$(calls C_FindObjectsInit)" -lt 20
    expect_exit 0 bk-verify -q -t "$T/backup.pem" "$T"/login/*.bk
}

# mimic LINE... : the module's configuration; a fresh log.
mimic() {
    printf '%s\n' "module = $SOFTHSM" "log = $T/mimic.log" "device = $T/device" 'profile = plain' "$@" >"$BK_MIMIC"
    rm -f "$T/device" "$T/counter"
    : >"$T/mimic.log"
}

with_mimic() {
    expect_exit "$1" bk-wrap -r "$T/ec.pem" -r "$T/rsa.pem" -s "$(signer_by_path "$MIMIC")" --batch "$T/lost.list" \
        "${@:2}"
}

made() { find "$T/lost" -name '*.bk' | wc -l; }

# A session that dies in the midst is opened again, and nothing is missing; a token that is gone ends the batch.
lost_tokens() {
    mkdir "$T/lost"
    many lost 6 >"$T/lost.list"
    mimic 'fault = C_Sign 3 session-lost'
    with_mimic 0 -q
    check 'six archives although a session was lost' test "$(made)" -eq 6
    rm -f "$T"/lost/*

    mimic 'fault = C_Sign 3 crash' "counter = $T/counter"
    with_mimic 0 -q
    check 'six archives although the module crashed once' test "$(made)" -eq 6
    rm -f "$T"/lost/*

    mimic 'fault = C_Sign 3 removed' 'fault = C_Initialize 2 0x30 100' "counter = $T/counter"
    with_mimic 3 -j 1 --json="$T/lost.json"
    expect_stderr 'lost/3.bk: .*(CKR_|C_)'
    expect_stderr '^bk-wrap: error: stopped after line 3 of .*lost.list: 2 made, 1 failed, 3 not tried'
    check 'two archives' test "$(made)" -eq 2
    no_parts
    json_lines "$T/lost.json" '[x["code"] for x in o] == [0, 0, 3]'
    expect_exit 0 bk-verify -q -t "$T/backup.pem" "$T"/lost/*.bk
    # the rest, once the token is back
    mimic
    with_mimic 6 -q
    check 'six archives after a second run' test "$(made)" -eq 6
    expect_exit 0 bk-verify -q -t "$T/backup.pem" "$T"/lost/*.bk
}

# What is begun when the token is lost ends too, and is counted, whatever it is then.
lost_amid_two() {
    local tried
    rm -f "$T"/lost/*
    mimic 'fault = C_Sign 3 removed' 'fault = C_Initialize 2 0x30 100' "counter = $T/counter"
    with_mimic 3 -j 2 --json="$T/lost.json"
    tried=$(wc -l <"$T/lost.json")
    json_lines "$T/lost.json" '[x["code"] for x in o] in ([0, 0, 3], [0, 0, 3, 3])'
    expect_stderr "stopped after line $tried of .*lost.list: 2 made, $((tried - 2)) failed, $((6 - tried)) not tried"
    check 'two archives, and no others' test "$(made)" -eq 2
    no_parts
}

# A line is waited for when the token is found to be gone: the batch ends without it.
lost_while_waiting() {
    local pid status=0
    mkdir "$T/gone"
    rm -f "$T/feed"
    mkfifo "$T/feed"
    mimic 'fault = C_Sign 1 removed' 'fault = C_Initialize 2 0x30 100' "counter = $T/counter"
    bk-wrap -q -j 2 -r "$T/ec.pem" -r "$T/rsa.pem" -s "$(signer_by_path "$MIMIC")" --batch - <"$T/feed" \
        >/dev/null 2>"$T/stderr" &
    pid=$!
    exec 9>"$T/feed"
    line one gone/1.bk >&9
    ends_in_time 'ends although another line might come' "$pid"
    wait "$pid" || status=$?
    exec 9>&-
    check 'exit status 3' test "$status" -eq 3
    expect_stderr 'stopped after line 1 of standard input: 0 made, 1 failed, what followed was not read'
    no_file "$T/gone/1.bk"
}

# Between two lines a token may let its sessions die.
slow_feeder() {
    mkdir "$T/slow.d"
    mimic 'idle = 300'
    mkfifo "$T/slow.feed"
    {
        line one slow.d/1.bk
        sleep 1
        line two slow.d/2.bk
    } >"$T/slow.feed" &
    STDIN=$T/slow.feed expect_exit 0 bk-wrap -q -r "$T/ec.pem" -r "$T/rsa.pem" -s "$(signer_by_path "$MIMIC")" --batch -
    wait
    restores "$T/two" "$T/slow.d/2.bk"
}

refused_pin() {
    mkdir "$T/pin"
    many pin 3 >"$T/pin.list"
    (umask 077 && printf wrong >"$T/wrong.pin")
    expect_exit 9 bk-wrap -q -r "$T/ec.pem" -s "pkcs11:token=signer;object=backup?pin-source=file:$T/wrong.pin" \
        --batch "$T/pin.list"
    no_file "$T/pin/1.bk"
    # so that the token's count of failures is at its beginning again
    batch 0 "$T/pin.list" -q
}

# --- two in the making --------------------------------------------------------------------------------------------

# holding FOLDER ARG... : starts a batch of $T/FOLDER.list in which 1.bk is held before it gets its name, and waits until
# it is. The answers are in $T/answers.
holding() {
    local folder=$1
    shift
    mkdir -p "$T/$folder" "$T/hold"
    rm -f "$T"/hold/*
    : >"$T/answers"
    touch "$T/hold/1.bk"
    LD_PRELOAD=$T/hold_at_publishing.so BK_HOLD=$T/hold bk-wrap -j 2 --json -r "$T/ec.pem" -r "$T/rsa.pem" \
        -s "$(signer)" --batch "$T/$folder.list" "$@" >"$T/answers" 2>"$T/stderr" </dev/null &
    held=$!
    check 'the first is held' wait_until 30 test -e "$T/hold/1.bk.held"
}

# let_go CODE : of the batch.
let_go() {
    local status=0
    rm -f "$T/hold/1.bk"
    ends_in_time 'the batch ends' "$held"
    wait "$held" || status=$?
    check "exit status $1" test "$status" -eq "$1"
    no_parts
}

codes_are() { json_lines "$T/answers" "[x[\"code\"] for x in o] == [$1]"; }

# What is made while the first one is held is told behind it, in the list's order, and is not without end.
overlapping() {
    local i
    for ((i = 1; i <= 8; i++)); do line one "over/$i.bk"; done >"$T/over.list"
    holding over
    check 'the second is made meanwhile' wait_until 30 test -e "$T/over/2.bk"
    check 'and the third' wait_until 30 test -e "$T/over/3.bk"
    sleep 0.5
    check 'none is told before the first' test ! -s "$T/answers"
    check 'some are not begun' test ! -e "$T/over/5.bk"
    let_go 0
    json_lines "$T/answers" '[x["archive"].split("/")[-1] for x in o] == [f"{i}.bk" for i in range(1, 9)]'
    codes_are '0, 0, 0, 0, 0, 0, 0, 0'
    restores "$T/one" "$T/over/1.bk"
    restores "$T/one" "$T/over/2.bk"

    line one alone/1.bk >"$T/alone.list"
    line one alone/2.bk >>"$T/alone.list"
    holding alone -j 1
    sleep 0.5
    check 'with -j 1 one at a time' test -z "$(find "$T/alone" -name '*2.bk*')"
    let_go 0
    codes_are '0, 0'
}

# The next is not begun while one is read: of pipes that are filled in turn none is waited for too early.
in_turn() {
    local pid
    mkdir "$T/turn"
    mkfifo "$T/turn-a" "$T/turn-b"
    printf '%s\n' "$(line turn-a turn/1.bk)" "$(line turn-b turn/2.bk)" >"$T/turn.list"
    bk-wrap -q -j 2 -r "$T/ec.pem" -r "$T/rsa.pem" -s "$(signer)" --batch "$T/turn.list" 2>"$T/stderr" </dev/null &
    pid=$!
    exec 9>"$T/turn-a"
    head -c 1500000 "$T/big" >&9
    check 'at work on the first' wait_until 30 part_grew "$T/turn/1.bk" 1000000
    sleep 0.3
    no_file "$T/turn/2.bk"
    tail -c +1500001 "$T/big" >&9
    exec 9>&-
    cat "$T/two" >"$T/turn-b"
    ends_in_time 'both are made' "$pid"
    wait "$pid" || true
    restores "$T/big" "$T/turn/1.bk"
    restores "$T/two" "$T/turn/2.bk"
}

# An output that is in the making is waited for, however it is spelt: then it is there, or was made.
repeated_in_the_making() {
    local i=0 option output
    for option in '' --force; do
        for output in same/1.bk same/../same/1.bk other/1.bk; do
            rm -rf "$T/same" "$T/other"
            mkdir "$T/same"
            ln -s same "$T/other"
            printf '%s\n' "$(line one same/1.bk)" "$(line two "$output")" "$(line two same/3.bk)" >"$T/same.list"
            # shellcheck disable=SC2086 # none or one
            holding same $option
            sleep 0.3
            check 'one is staged' test "$(find "$T/same" -name '.1.bk.*' | wc -l)" -eq 1
            let_go 6
            codes_are '0, 2, 0'
            [[ -n $option ]] || expect_stderr '/1.bk: exists already'
            [[ -z $option ]] || expect_stderr '/1.bk: was made in this batch already'
            restores "$T/one" "$T/same/1.bk"
            i=$((i + 1))
        done
    done
    check 'six times' test "$i" -eq 6
}

# An archive in the making can be another one's input.
made_of_one_in_the_making() {
    printf '%s\n' "$(line one nested/1.bk)" "$(line nested/1.bk nested/2.bk)" >"$T/nested.list"
    holding nested
    sleep 0.3
    let_go 0
    codes_are '0, 0'
    restores "$T/nested/1.bk" "$T/nested/2.bk"
}

# The first one is past its last look at a stop: it is made, and told. The second one is not.
stopped_amid_two() {
    rm -f "$T/slow"
    mkfifo "$T/slow"
    printf '%s\n' "$(line one amid/1.bk)" "$(line slow amid/2.bk)" "$(line one amid/3.bk)" >"$T/amid.list"
    holding amid
    exec 9>"$T/slow"
    cat "$T/big" >&9
    check 'at work on the second' wait_until 30 part_grew "$T/amid/2.bk" 1000000
    kill -TERM "$held"
    check 'the second is gone' wait_until 30 no_part_of "$T/amid/2.bk"
    let_go 143
    exec 9>&-
    expect_stderr '^bk-wrap: error: stopped after line 2 of .*amid.list: 1 made, 1 failed, 1 not tried'
    codes_are '0, 5'
    restores "$T/one" "$T/amid/1.bk"
    no_file "$T/amid/2.bk"
    no_file "$T/amid/3.bk"
}

no_part_of() { [[ -z $(parts_of "$1") ]]; }

# The first one hangs in the token, the second one is read.
stopped_amid_two_and_a_call() {
    local pid status=0
    mkdir "$T/call"
    rm -f "$T/slow"
    mkfifo "$T/slow"
    printf '%s\n' "$(line one call/1.bk)" "$(line slow call/2.bk)" "$(line one call/3.bk)" >"$T/call.list"
    mimic 'fault = C_Sign 1 hang'
    bk-wrap -j 2 --json -r "$T/ec.pem" -r "$T/rsa.pem" -s "$(signer_by_path "$MIMIC")" --batch "$T/call.list" \
        >"$T/answers" 2>"$T/stderr" </dev/null &
    pid=$!
    exec 9>"$T/slow"
    cat "$T/big" >&9
    check 'the second is read while the first one hangs' wait_until 30 part_grew "$T/call/2.bk" 1000000
    check 'both are staged' test -n "$(parts_of "$T/call/1.bk")"
    kill -TERM "$pid"
    ends_in_time 'ends by SIGTERM' "$pid"
    wait "$pid" || status=$?
    exec 9>&-
    check 'exit status of SIGTERM' test "$status" -eq 143
    expect_stderr '^bk-wrap: error: stopped after line 2 of .*call.list: 0 made, 2 failed, 1 not tried'
    codes_are '5, 5'
    no_parts
    check 'nothing is made' test -z "$(find "$T/call" -name '*.bk')"
}

# Lost by the second one while the first one ends: it ends well, and no third is begun.
lost_behind_one() {
    rm -f "$T/slow"
    mkfifo "$T/slow"
    {
        line one behind/1.bk
        line slow behind/2.bk
        many behind 6 | tail -n +3
    } >"$T/behind.list"
    mimic 'fault = C_Sign 2 removed' 'fault = C_Initialize 2 0x30 100' "counter = $T/counter"
    (
        signer() { signer_by_path "$MIMIC"; }
        holding behind
        cat "$T/two" >"$T/slow"
        check 'the token is lost' wait_until 30 grep -q fault "$T/mimic.log"
        check 'the second has failed' wait_until 30 no_part_of "$T/behind/2.bk"
        sleep 0.5
        check 'nothing is told yet' test ! -s "$T/answers"
        let_go 3
        printf '%d %d\n' "$checks" "$failures" >"$T/counts"
    )
    read -r checks failures <"$T/counts"
    expect_stderr '^bk-wrap: error: stopped after line 2 of .*behind.list: 1 made, 1 failed, 4 not tried'
    codes_are '0, 3'
    check 'one archive' test "$(find "$T/behind" -name '*.bk' | wc -l)" -eq 1
}

# Nobody would hear of what is made when the report cannot be written; what was begun is counted.
unwritable_report() {
    local n
    mkdir "$T/report"
    many report 8 >"$T/report.list"
    batch 5 "$T/report.list" -j 2 --json=/dev/full
    n=$(find "$T/report" -name '*.bk' | wc -l)
    expect_stderr "stopped after line $n of .*: $n made, 0 failed, $((8 - n)) not tried: --json: cannot write"
    check 'not all are made' test "$n" -lt 8
    check 'each is told' test "$(grep -c ' wrapped for ' "$T/stderr")" -eq "$n"
    no_parts
}

# Keys that wrap and keys that sign are used by one archive at a time, in the session that they were opened in.
one_session() {
    mkdir "$T/session"
    many session 40 >"$T/session.list"
    BK_TOKEN_TRACE=1 batch 0 "$T/session.list" -q -j 2 -r "$(key_uri kek aes)"
    check 'a login for each token' test "$(calls C_Login)" -eq 2
    check 'a session for each token' test "$(calls C_OpenSession)" -eq 2
    expect_exit 0 bk-verify -q -t "$T/backup.pem" "$T"/session/*.bk
    restores "$T/one" "$T/session/40.bk"
    # a signature takes as long as the rest, so that two would be wanted at once
    rm -f "$T"/session/*.bk
    mimic 'profile = lanhsm' 'latency = 1000'
    BK_TOKEN_TRACE=1 expect_exit 0 bk-wrap -q -j 2 -r "$T/ec.pem" -r "$T/rsa.pem" -s "$(signer_by_path "$MIMIC")" \
        --batch "$T/session.list"
    check 'a key is used in one session' test "$(calls C_OpenSession)" -eq 1
}

# --- stopped ------------------------------------------------------------------------------------------------------

# while_at_work LIST SIGNAL : a batch whose third input comes from a pipe that does not end is sent the signal.
while_at_work() {
    local pid status=0
    rm -f "$T/slow" "$T"/stop/*
    mkfifo "$T/slow"
    {
        line one stop/1.bk
        line two stop/2.bk
        line slow stop/old.bk
        line one stop/4.bk
        line one stop/5.bk
    } >"$T/stop.list"
    printf 'precious\n' >"$T/stop/old.bk"
    bk-wrap --force -r "$T/ec.pem" -r "$T/rsa.pem" -s "$(signer)" --batch "$T/stop.list" --json="$T/stop.json" \
        >/dev/null 2>"$T/stderr" </dev/null &
    pid=$!
    exec 9>"$T/slow"
    cat "$T/big" >&9
    check 'at work on the third' wait_until 30 part_grew "$T/stop/old.bk" 1000000
    kill "-$1" "$pid"
    ends_in_time "ends by SIG$1" "$pid"
    wait "$pid" || status=$?
    exec 9>&-
    check "exit status of SIG$1" test "$status" -eq $((128 + $(kill -l "$1")))
}

stopped() {
    mkdir "$T/stop"
    while_at_work TERM
    expect_stderr '^bk-wrap: error: stopped after line 3 of .*stop.list: 2 made, 1 failed, 2 not tried'
    restores "$T/one" "$T/stop/1.bk"
    restores "$T/two" "$T/stop/2.bk"
    check 'what was there is there' test "$(cat "$T/stop/old.bk")" = precious
    no_file "$T/stop/4.bk"
    no_parts
    json_lines "$T/stop.json" '[x["code"] for x in o] == [0, 0, 5]'

    while_at_work KILL
    restores "$T/two" "$T/stop/2.bk"
    check 'killed: what was there is there' test "$(cat "$T/stop/old.bk")" = precious
    find "$T/stop" -name '.*.part' -delete
}

# Between two lines: nothing is half-made, and the waiting is ended.
stopped_while_waiting() {
    local pid status=0
    mkdir "$T/wait"
    rm -f "$T/feed"
    mkfifo "$T/feed"
    bk-wrap -q --json -r "$T/ec.pem" -r "$T/rsa.pem" -s "$(signer)" --batch - <"$T/feed" >"$T/answers" \
        2>"$T/stderr" &
    pid=$!
    exec 9>"$T/feed"
    line one wait/1.bk >&9
    check 'the first is made' wait_until 30 lines_of "$T/answers" 1
    check "it is well: $(head -c 300 "$T/answers")" grep -q '"status":"ok"' "$T/answers"
    kill -INT "$pid" 2>/dev/null
    kill -TERM "$pid" 2>/dev/null || true
    ends_in_time 'a stop is heard while the list is waited for' "$pid"
    wait "$pid" || status=$?
    exec 9>&-
    check 'ends by the signal' test "$status" -gt 128
    restores "$T/one" "$T/wait/1.bk"
    no_parts
}

make_token signer
make_token kek
make_key signer backup p256 sign
make_key kek ec p256 kek
make_key kek rsa rsa3072 kek
make_key kek aes aes256 kek
head -c 1000 /dev/urandom >"$T/one"
head -c 70001 /dev/urandom >"$T/two"
head -c 2500000 /dev/urandom >"$T/big"

cc -shared -fPIC -O1 -o "$T/hold_at_publishing.so" "$ROOT/tests/cli/hold_at_publishing.c" -ldl

mixed_results
common_options
forced
bad_lists
odd_names
fed_line_by_line
wrong_options
warned_once
one_login
lost_tokens
lost_amid_two
lost_while_waiting
slow_feeder
refused_pin
overlapping
in_turn
repeated_in_the_making
made_of_one_in_the_making
stopped_amid_two
stopped_amid_two_and_a_call
lost_behind_one
unwritable_report
one_session
stopped
stopped_while_waiting
finish
