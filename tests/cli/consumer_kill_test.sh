#!/usr/bin/env bash
# A restore into a command that dies half way, by whatever signal: the command never sees the end of its input, and
# neither it nor its guard is left behind. The command here stands for psql, which commits at the end of its input.
# shellcheck disable=SC2317  # functions that are called by way of within and check
set -euo pipefail
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

SIZE=$((200 * 1024 * 1024))
STEP=$((4 * 1024 * 1024))
ROUNDS=10

make_token signer
make_token kek
make_key signer backup p256 sign
make_key kek ec p256 kek
make_key kek spare p256 kek
head -c "$SIZE" /dev/urandom >"$T/plain"
expect_exit 0 bk-wrap -q -r "$T/ec.pem" -r "$T/spare.pem" -s "$(key_uri signer backup)" -o "$T/a.bk" "$T/plain"
digest=$(sha256sum <"$T/plain")

# Reads in steps with a pause after each, notes how far it came, and only after the end that it has seen the end.
cat >"$T/consumer" <<'EOF'
#!/usr/bin/env bash
set -euo pipefail
run=$1 step=$2
printf '%d\n' $$ >"$run/id"
while head -c "$step" >"$run/piece" && [[ -s $run/piece ]]; do
    cat "$run/piece" >>"$run/got"
    printf 'step\n' >>"$run/steps"
    sleep 0.05
done
: >"$run/clean-end"
EOF
# Hands on what it gets: here two processes read, and neither may take the other's death for an end.
cat >"$T/pipeline" <<'EOF'
#!/usr/bin/env bash
set -euo pipefail
cat | "$(dirname "$0")/consumer" "$@"
EOF
chmod 755 "$T/consumer" "$T/pipeline"

# fresh : an empty folder for a run, $run.
run=$T/run
fresh() {
    rm -rf "$run"
    mkdir "$run"
}

# What a shell without job control starts in the background ignores SIGQUIT.
restore() {
    exec env --default-signal=QUIT,TERM bk-unwrap -q -k "$(key_uri kek ec)" -t "$T/backup.pem" "$T/a.bk" -- "$@" "$run" "$STEP"
}

# within SECONDS COMMAND ARG... : as soon as the command succeeds; fails if it does not in that time.
within() {
    local end=$((SECONDS + $1 + 1))
    shift
    until "$@"; do
        ((SECONDS < end)) || return 1
        sleep 0.02
    done
}

has_come_to() { [[ -s $run/id && -e $run/steps && $(wc -l <"$run/steps") -ge $1 ]]; }
has_come_to_or_ended() { has_come_to "$1" || is_gone "$unwrap"; }

# look_at PID : its $state and $parent, empty if there is no such process. The name before them may hold anything.
look_at() {
    local text=''
    state='' parent=''
    { read -r text <"/proc/$1/stat"; } 2>/dev/null || return 0
    read -r state parent _ <<<"${text##*) }"
}

# A process that is dead and waits for an init that is in no hurry is gone.
is_gone() {
    look_at "$1"
    [[ -z $state || $state == [ZX] ]]
}

# guards_of PID : the guards among its children.
guards_of() {
    local name file
    for file in /proc/[0-9]*/comm; do
        { read -r name <"$file"; } 2>/dev/null || continue
        [[ $name == bk-guard ]] || continue
        name=${file//[!0-9]/}
        look_at "$name"
        if [[ $parent == "$1" ]]; then printf '%d\n' "$name"; fi
    done
}

# start CONSUMER STEPS : a restore that has come so far; $unwrap, $consumer and $guard are its processes.
start() {
    fresh
    (restore "$T/$1") >"$T/stdout" 2>"$T/stderr" </dev/null &
    unwrap=$!
    if ! within 60 has_come_to_or_ended "$2" || ! has_come_to "$2"; then
        fail "the restore came to step $2"
        kill -KILL "$unwrap" 2>/dev/null || true
        wait "$unwrap" || true
        return 1
    fi
    consumer=$(<"$run/id")
    guard=$(guards_of "$unwrap")
    check 'one guard' test "$(wc -w <<<"$guard")" -eq 1
}

# died TEXT STATUS : the restore ended by the signal, and all went with it, before the consumer saw an end.
died() {
    local text=$1 wanted=$2 status=0 pid
    wait "$unwrap" || status=$?
    if ((status != wanted)); then
        fail "$text: exit $wanted expected, $status seen"
        return
    fi
    for pid in "$consumer" $guard; do
        if ! within 20 is_gone "$pid"; then
            fail "$text: process $pid is still there ($state)"
            return
        fi
    done
    if [[ -e $run/clean-end ]]; then
        fail "$text: the consumer took a part for the whole"
    elif (($(stat -c %s "$run/got") >= SIZE)); then
        fail "$text: it was not half way"
    else
        pass "$text"
    fi
}

# By SIGKILL, at another place each time.
for ((i = 0; i < ROUNDS; i++)); do
    if ((i % 2 == 0)); then what=consumer; else what=pipeline; fi
    start "$what" $((3 + 3 * i)) || continue
    kill -KILL "$unwrap" || true
    died "killed, after $(wc -l <"$run/steps") steps of a $what" 137
done

# By other signals that end it at once, and by one that it hears.
if start pipeline 4; then
    kill -QUIT "$unwrap" || true
    died 'SIGQUIT' 131
fi
if start pipeline 4; then
    kill -TERM "$unwrap" || true
    died 'SIGTERM' 143
fi

# The guard alone is killed: the restore does not need it.
if start consumer 4; then
    kill -KILL "$guard" || true
    status=0
    wait "$unwrap" || status=$?
    check 'the guard killed: exit 0' test "$status" -eq 0
    check 'the guard killed: seen the end' test -e "$run/clean-end"
    check 'the guard killed: all of it' test "$(sha256sum <"$run/got")" = "$digest"
fi

# The counterpart: nothing is killed.
if start pipeline 1; then
    status=0
    wait "$unwrap" || status=$?
    check 'not killed: exit 0' test "$status" -eq 0
    check 'not killed: seen the end' test -e "$run/clean-end"
    check 'not killed: all of it' test "$(sha256sum <"$run/got")" = "$digest"
    check 'not killed: the guard is gone' is_gone "$guard"
fi

# The program is the guard's as well, but only bk starts one.
# shellcheck disable=SC2016
expect_exit 127 bash -c 'exec -a bk-guard bk-unwrap touch "$1"' bash "$T/by-hand"
no_file "$T/by-hand"

finish
