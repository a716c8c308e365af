# shellcheck shell=bash
# Functions for tests of the programs as an operator meets them: exit status, message, and what was not left behind.
# A test tests/cli/NAME_test.sh begins with
#
#     #!/usr/bin/env bash
#     set -euo pipefail
#     . "$(dirname "$0")/lib.sh"
#
# and ends with `finish`. It prints "ok - ..." or "not ok - ..." for each check and goes on after a failed one; `finish`
# exits 1 if any failed. A test that dies before `finish` counts as failed. The programs come from $BK_BIN (default:
# the release build) and are in PATH. Everything is made in $T, a temporary folder that is removed at the end.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
BK_BIN=${BK_BIN:-$ROOT/build/release}
PATH=$BK_BIN:$PATH
export PATH LC_ALL=C.UTF-8
unset BK_CONFIG CREDENTIALS_DIRECTORY P11_KIT_SERVER_ADDRESS

T=$(mktemp -d "${TMPDIR:-/tmp}/bk-cli.XXXXXX")
checks=0
failures=0
finished=no

clean_up() {
    local status=$?
    rm -rf "$T"
    if [[ $finished == no ]]; then
        printf 'not ok - %s did not reach its end (exit status %d)\n' "$(basename "$0")" "$status"
        exit 1
    fi
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

pass() {
    checks=$((checks + 1))
    printf 'ok - %s\n' "$*"
}

# What the last command said goes with a failure, so that a log alone is enough to understand it.
fail() {
    checks=$((checks + 1))
    failures=$((failures + 1))
    printf 'not ok - %s\n' "$*"
    if [[ -s $T/stderr ]]; then sed -n 's/^/    stderr: /; 1,20p' "$T/stderr"; fi
    return 0
}

finish() {
    finished=yes
    printf '# %d checks, %d failed\n' "$checks" "$failures"
    if ((failures > 0)); then exit 1; fi
    exit 0
}

# check TEXT COMMAND ARG... : ok if the command succeeds.
check() {
    local text=$1
    shift
    if "$@"; then pass "$text"; else fail "$text"; fi
}

# expect_exit CODE COMMAND ARG... : runs it with standard input from $STDIN (default /dev/null), standard output to
# $T/stdout and messages to $T/stderr; five minutes are taken for hanging.
expect_exit() {
    local wanted=$1 got=0
    shift
    timeout -k 10 300 "$@" <"${STDIN:-/dev/null}" >"$T/stdout" 2>"$T/stderr" || got=$?
    if ((got == wanted)); then
        pass "exit $wanted: $(shorten "$@")"
    else
        fail "exit $wanted expected, $got seen: $(shorten "$@")"
    fi
}

# expect_stderr PATTERN, expect_stdout PATTERN : an extended regular expression against the last expect_exit.
expect_stderr() {
    if grep -Eq -- "$1" "$T/stderr"; then pass "message: $1"; else fail "no message like: $1"; fi
}

expect_stdout() {
    if grep -Eq -- "$1" "$T/stdout"; then
        pass "output: $1"
    else
        fail "no output like: $1"
        head -c 2000 "$T/stdout" | tr -cd '\11\12\40-\176' | sed -n 's/^/    stdout: /; 1,20p'
    fi
}

# wait_until SECONDS COMMAND ARG... : until it succeeds; fails when the time is over.
wait_until() {
    local end=$((SECONDS + $1))
    shift
    until "$@"; do
        ((SECONDS < end)) || return 1
        sleep 0.02
    done
}

ended() { ! kill -0 "$1" 2>/dev/null; }

# ends_in_time TEXT PID : in 30 seconds; else it is killed, so that nothing here waits for ever.
ends_in_time() {
    if wait_until 30 ended "$2"; then
        pass "$1"
    else
        fail "$1"
        kill -9 "$2"
    fi
}

parts_of() { find "$(dirname "$1")" -maxdepth 1 -name ".$(basename "$1").*.part"; }

# part_grew PATH SIZE : its staged part is there and at least that long.
part_grew() {
    local part
    part=$(parts_of "$1")
    [[ -n $part && $(stat -c %s "$part" 2>/dev/null || printf 0) -ge $2 ]]
}

# no_output : nothing at all went to standard output.
no_output() {
    if [[ -s $T/stdout ]]; then fail 'nothing on standard output'; else pass 'nothing on standard output'; fi
}

# no_file PATH : neither the file nor a staged part of it (".NAME.XXXXXX.part") is there.
no_file() {
    local part
    part=$(find "$(dirname "$1")" -maxdepth 1 -name ".$(basename "$1").*" -print -quit)
    if [[ -e $1 || -L $1 || -n $part ]]; then fail "not there: ${1#"$T"/}"; else pass "not there: ${1#"$T"/}"; fi
}

# same_file A B
same_file() {
    if cmp -s "$1" "$2"; then pass "same: ${1#"$T"/} ${2#"$T"/}"; else fail "differ: ${1#"$T"/} ${2#"$T"/}"; fi
}

# from_pipe FILE CODE COMMAND ARG... : expect_exit with standard input from a real pipe, which another process fills.
from_pipe() {
    local file=$1 feeder
    shift
    rm -f "$T/feed"
    mkfifo "$T/feed"
    cat "$file" >"$T/feed" 2>/dev/null &
    feeder=$!
    STDIN=$T/feed expect_exit "$@"
    wait "$feeder" || true # its reader may have left early
}

# json_is FILE EXPRESSION : FILE is one line with one JSON object, for which the Python expression, in which the object
# is `o`, is true.
json_is() {
    local text="json: $2"
    if [[ $(wc -l <"$1") -eq 1 ]] && /usr/bin/python3 -c '
import json, sys
o = json.load(open(sys.argv[1], encoding="utf-8"))
sys.exit(0 if isinstance(o, dict) and eval(sys.argv[2], {"o": o}) else 1)' "$1" "$2" 2>/dev/null; then
        pass "$text"
    else
        fail "$text"
        head -c 2000 "$1" | sed 's/^/    json: /'
    fi
}

# The command without the long temporary paths and URIs.
shorten() {
    local text="$*"
    text=${text:0:3000} # the pattern below takes quadratic time
    text=${text//"$T/"/}
    text=${text//"$ROOT/"/}
    printf '%s' "${text//"?pin-source=file:"*([^ ])/}"
}
shopt -s extglob

# --- tokens -------------------------------------------------------------------------------------------------------

SOFTHSM=$(find /usr/lib -name libsofthsm2.so -print -quit)

# use_tokens FOLDER : from now on the token folder of this "host" is $T/FOLDER.
use_tokens() {
    mkdir -p "$T/$1"
    printf 'directories.tokendir = %s\nobjectstore.backend = file\nlog.level = ERROR\n' "$T/$1" >"$T/$1.conf"
    export SOFTHSM2_CONF=$T/$1.conf
}

# token_folder : the one in use.
token_folder() {
    sed -n 's/^directories.tokendir = //p' "$SOFTHSM2_CONF"
}

# put_tokens_by, take_tokens_again : as they were then. SoftHSM rewrites a token's file when somebody logs in, and a kill at
# that instant can lose the token (docs/TOKENS.md).
put_tokens_by() {
    rm -rf "$T/put-by"
    cp -a "$(token_folder)" "$T/put-by"
}

take_tokens_again() {
    rm -rf "$(token_folder)"
    cp -a "$T/put-by" "$(token_folder)"
}

# make_token LABEL : a SoftHSM token with a random PIN in $T/LABEL.pin, in the folder in use.
make_token() {
    (umask 077 && openssl rand -hex 12 >"$T/$1.pin")
    softhsm2-util --init-token --free --label "$1" --pin "$(cat "$T/$1.pin")" --so-pin 87654321 >/dev/null
}

# key_uri TOKEN OBJECT : the URI with which bk finds the key and its PIN.
key_uri() {
    printf 'pkcs11:token=%s;object=%s?pin-source=file:%s/%s.pin' "$1" "$2" "$T" "$1"
}

# make_key TOKEN OBJECT TYPE USE : makes it with bk-key; its public half or certificate is $T/OBJECT.pem (not for AES).
make_key() {
    local -a out=()
    [[ $3 == aes256 ]] || out=(-o "$T/$2.pem")
    expect_exit 0 bk-key generate --type "$3" --use "$4" "${out[@]}" "$(key_uri "$1" "$2")"
}

# flip FILE OFFSET : turns one bit of that byte over.
flip() {
    local byte
    byte=$(od -An -tu1 -j "$2" -N 1 "$1" | tr -d ' ')
    # shellcheck disable=SC2059
    printf "\\x$(printf %02x $((byte ^ 1)))" | dd of="$1" bs=1 seek="$2" conv=notrunc status=none
}

use_tokens tokens
