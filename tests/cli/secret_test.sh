#!/usr/bin/env bash
# Secrets, as SECURITY.md has them: where PINs and keys are while a program and its token workers work, that none is
# left when they end, and that none is written but from the one to the other. secret_watch.py traces them and knows the
# true values.
set -euo pipefail

# What an undumpable program has open, only root can see: root of a user namespace will do.
if ((EUID != 0)); then exec unshare --user --map-root-user bash "$0"; fi

# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

shopt -s lastpipe
# the modules of tests/interop are read here, and must leave nothing in the tree
export PYTHONDONTWRITEBYTECODE=1

# watch ARCHIVE WATCH-OPTION... -- CODE PROGRAM ARG... : runs it under observation; the findings are in $T/found.
watch() {
    local archive=$1
    local -a options=()
    shift
    while [[ $1 != -- ]]; do
        options+=("$1")
        shift
    done
    local code=$2
    shift 2
    rm -f "$T/found"
    expect_exit "$code" "${limits[@]}" /usr/bin/python3 "$ROOT/tests/cli/secret_watch.py" --report "$T/found" \
        --archive "$archive" --key "$T/soft.key" --trust "$T/backup.pem" --trust "rotate:$T/rotator.pem" \
        --look "pin-signer=$T/signer.pin" --look "pin-kek=$T/kek.pin" --look "plaintext=$T/marker" \
        "${options[@]}" -- "$@"
    runs=$((runs + 1))
    searches=$((searches + $(awk '$1 == "stops" { n += $4 } END { print n }' "$T/found")))
}

# found MOMENT NAME PLACE : extended regular expressions.
found() {
    check "$1: $2 in $3" grep -Eq "^$1"$'\t'"($2)"$'\t'"($3)"$'\t' "$T/found"
}

# found_not MOMENT NAME PLACE... : of these names, nothing in that moment but in these places ("-": nowhere).
found_not() {
    local bad
    bad=$(awk -F '\t' -v moment="$1" -v name="^($2)\$" -v place="^($3)\$" \
        '$1 == moment && $2 ~ name && $3 !~ place { print $2 " in " $3 " at " $4 }' "$T/found")
    if [[ -z $bad ]]; then pass "$1: $2 nowhere but in $3"; else fail "$1: $(tr '\n' ';' <<<"$bad")"; fi
}

# tidy ARENA [WRITTEN] : what holds for every run. ARENA is where secrets are while the programs work; WRITTEN is where
# plaintext may be written. A worker knows PINs and data keys alone, and while a call of the module is under way they
# are where the module has them. The payload key is in OpenSSL's cipher contexts, which are ordinary memory, and
# plaintext in the buffers between the stages.
tidy() {
    found_not working 'pin-signer|pin-kek|cek' "$1|worker:$1|worker:module"
    found_not working 'file-key|prk' "$1"
    found_not working payload-key "$1|heap"
    found_not working plaintext heap
    # PINs are passed on before anything is stored; a worker that waits has no data key
    found_not storing 'pin-signer|pin-kek' '-'
    found_not resting cek '-'
    found end none none
    found end none worker:none
    found_not end '.*' 'none|worker:none'
    found_not written 'pin-signer|pin-kek' to-worker
    found_not written cek 'to-worker|worker:to-program'
    found_not written 'file-key|prk|payload-key' '-'
    found_not written plaintext "${2:--}"
    found_not dumpable memory '-'
}

# The watcher finds what there is to find: in a shell that read a PIN, at its end and in what it writes, and in a
# worker, which another shell can be taken for.
control() {
    printf '\n# the watcher itself\n'
    # shellcheck disable=SC2016
    local leak='read -r pin <"$1"; printf "%s\n" "$pin" >"$2"; exit 0'
    cp /bin/sh "$T/bk-token-worker"
    watch "$T/a.bk" -- 0 sh -c "$leak" sh "$T/kek.pin" "$T/leak"
    found end pin-kek 'heap|stack'
    found written pin-kek leak
    found dumpable memory program
    # shellcheck disable=SC2016
    watch "$T/a.bk" -- 0 sh -c '"$@"; exit 0' sh "$T/bk-token-worker" -c "$leak" sh "$T/kek.pin" "$T/leak"
    found end pin-kek 'worker:(heap|stack)'
    found written pin-kek worker:leak
    found dumpable memory worker:
    found_not end pin-kek 'worker:.*'
    rm "$T/leak"
}

wraps() {
    printf '\n# bk-wrap\n'
    watch "$T/a.bk" -- 0 bk-wrap -j 2 -r "$T/ec.pem" -r "$T/rsa.pem" -r "$(key_uri kek aes)" -r "$T/soft.pem" \
        -s "$(key_uri signer backup)" --json -o "$T/a.bk" "$T/plain"
    found working pin-signer arena
    found working pin-signer worker:arena
    found working pin-signer worker:module
    found working cek arena
    found working cek worker:arena
    found working prk arena
    found working plaintext heap
    found storing prk arena
    found_not storing cek '-'
    found written pin-signer to-worker
    found written cek to-worker
    tidy arena
}

# While the second archive is made, and at the end, nothing is left of the first.
wraps_many() {
    printf '\n# bk-wrap --batch\n'
    printf '%s\t%s\n' "$T/plain" "$T/first.bk" "$T/plain" "$T/second.bk" >"$T/list"
    watch "$T/first.bk" -- 0 bk-wrap -j 2 -r "$T/ec.pem" -r "$(key_uri kek aes)" -r "$T/soft.pem" \
        -s "$(key_uri signer backup)" --batch "$T/list"
    found working cek arena
    found working plaintext heap
    found written pin-signer to-worker
    tidy arena
}

unwraps() {
    local key
    for key in ec rsa aes; do
        printf '\n# bk-unwrap with an %s key\n' "$key"
        watch "$T/a.bk" -- 0 bk-unwrap -j 2 -t "$T/backup.pem" -k "$(key_uri kek "$key")" --json -o "$T/out" "$T/a.bk"
        found working pin-kek arena
        found working pin-kek worker:arena
        found working pin-kek worker:module
        found working cek arena
        found working cek worker:arena
        found working prk arena
        found working plaintext heap
        found storing plaintext heap
        found_not storing cek '-'
        found written pin-kek to-worker
        found written cek worker:to-program
        tidy arena '\.out\.part'
        same_file "$T/plain" "$T/out"
        rm "$T/out"
    done
    printf '\n# bk-unwrap into a command\n'
    # shellcheck disable=SC2016
    watch "$T/a.bk" -- 0 bk-unwrap -j 1 -t "$T/backup.pem" -k "$(key_uri kek ec)" "$T/a.bk" -- \
        sh -c 'cat >"$1"' sh "$T/out"
    found written plaintext 'pipe:.*|socket:.*'
    tidy arena 'pipe:.*|socket:.*'
    same_file "$T/plain" "$T/out"
    rm "$T/out"
}

# In the command line a PIN is where the system puts command lines, and nowhere else.
on_the_command_line() {
    printf '\n# a PIN in a URI, and one from a command\n'
    watch "$T/a.bk" -- 0 bk-verify --level decrypt -t "$T/backup.pem" \
        -k "pkcs11:token=kek;object=ec?pin-value=$(cat "$T/kek.pin")" "$T/a.bk"
    found end pin-kek stack
    found_not end '.*' 'stack|worker:none'
    found_not working pin-kek 'arena|stack|worker:arena|worker:module'
    found_not written pin-kek to-worker
    found_not written cek worker:to-program
    watch "$T/a.bk" -- 0 bk-verify --level decrypt -t "$T/backup.pem" \
        -k "pkcs11:token=kek;object=ec?pin-source=|cat%20$T/kek.pin" "$T/a.bk"
    found working pin-kek arena
    tidy arena
}

rekeys() {
    local change
    for change in 'ec ec2' 'aes aes2 --blind off' 'aes aes2 --blind required'; do
        printf '\n# bk-rekey: %s\n' "$change"
        read -r -a words <<<"$change"
        cp "$T/a.bk" "$T/b.bk"
        watch "$T/b.bk" -- 0 bk-rekey --from "$(key_uri kek "${words[0]}")" --to "$(key_uri kek "${words[1]}")" \
            "${words[@]:2}" -s "$(key_uri signer rotator)" -t "$T/backup.pem" -t "rotate:$T/rotator.pem" "$T/b.bk"
        found working pin-signer arena
        found storing 'none|cek' 'none|arena'
        # blind: the data key is the module's alone
        if [[ $change == *required ]]; then
            found_not working 'cek|file-key|prk' worker:module
            found_not written cek '-'
        else
            found working cek arena
            found working cek worker:arena
        fi
        tidy arena
    done
}

# Ends that are not good ones: damage found in the last group, and a signal in the midst of it.
fails() {
    printf '\n# bk-unwrap that fails, and that is stopped\n'
    cp "$T/a.bk" "$T/damaged.bk"
    flip "$T/damaged.bk" $((4096 + 2 * $(od -An -tu4 --endian=big -j 12 -N 4 "$T/a.bk") + 2500000))
    watch "$T/a.bk" -- 1 bk-unwrap -j 2 -t "$T/backup.pem" -k "$(key_uri kek ec)" -o "$T/out" "$T/damaged.bk"
    tidy arena '\.out\.part'
    no_file "$T/out"
    watch "$T/a.bk" --term .out.part -- $((128 + 15)) bk-unwrap -j 2 -t "$T/backup.pem" -k "$(key_uri kek ec)" \
        -o "$T/out" "$T/a.bk"
    tidy arena '\.out\.part'
    no_file "$T/out"
}

# Root may lock memory whatever the limit says, so it gives that up first.
unlocked() {
    printf '\n# where no memory can be locked\n'
    limits=(setpriv --bounding-set=-ipc_lock --inh-caps=-ipc_lock prlimit --memlock=0)
    watch "$T/a.bk" -- 0 bk-unwrap -j 2 -t "$T/backup.pem" -k "$(key_uri kek ec)" -o "$T/out" "$T/a.bk"
    limits=()
    expect_stderr 'warning: secrets are wiped but could be swapped out: raise the limit of locked memory'
    found working pin-kek unlocked
    found working pin-kek worker:unlocked
    tidy unlocked '\.out\.part'
    same_file "$T/plain" "$T/out"
    rm "$T/out"
}

# aborts [--abort-workers] FILE PROGRAM ARG... : it, or its workers, killed by SIGABRT when it writes to FILE, core
# dumps unlimited; prints core or no-core.
aborts() {
    local -a whom=()
    if [[ $1 == --* ]]; then
        whom=("$1")
        shift
    fi
    local file=$1
    shift
    rm -f "$T/found"
    (cd "$T" && /usr/bin/python3 "$ROOT/tests/cli/secret_watch.py" --report "$T/found" --abort "$file" "${whom[@]}" -- \
        "$@") </dev/null >"$T/stdout" 2>"$T/stderr" || true
    cat "$T/found"
}

# A system that never dumps core proves nothing, so something else dumps first: a shell, and a shell that is taken for a
# worker, which is there when its end of a pipe is open.
cores() {
    printf '\n# no core dump\n'
    # shellcheck disable=SC2016
    if [[ $(aborts note sh -c 'echo here >"$1"; exit 0' sh "$T/note") != core ]]; then
        printf '# nothing leaves a core dump on this system: not tested\n'
        return
    fi
    mkfifo "$T/line"
    # shellcheck disable=SC2016
    check 'a worker could leave a core' test core = "$(aborts --abort-workers note sh -c \
        './bk-token-worker -c "read -r end <line" & exec 3>line; echo here >note; wait')"
    check 'no core of bk-unwrap' test no-core = "$(aborts .out.part bk-unwrap -t "$T/backup.pem" \
        -k "$(key_uri kek ec)" -o "$T/out" "$T/a.bk")"
    check 'no core of bk-wrap' test no-core = "$(aborts .w.bk.part bk-wrap -r "$T/ec.pem" -r "$T/soft.pem" \
        -s "$(key_uri signer backup)" -o "$T/w.bk" "$T/plain")"
    check 'no core of the workers' test no-core = "$(aborts --abort-workers .w.bk.part bk-wrap -r "$T/ec.pem" \
        -r "$(key_uri kek aes)" -s "$(key_uri signer backup)" -o "$T/w.bk" "$T/plain")"
    rm -f "$T"/core*
}

# Neither token, archive, JSON nor message of all these runs holds a PIN; the files that have them by name do.
nothing_left() {
    printf '\n# what is left in the folder\n'
    local pin
    for pin in signer kek; do
        grep -rlF -- "$(cat "$T/$pin.pin")" "$T" | sort | mapfile -t holders
        check "the PIN of $pin is in its own file alone" test "${holders[*]}" = "$T/$pin.pin"
    done
}

limits=()
runs=0
searches=0
make_token signer
make_token kek
make_key signer backup p256 sign
make_key signer rotator p256 sign
make_key kek ec p256 kek
make_key kek ec2 p256 kek
make_key kek rsa rsa3072 kek
make_key kek aes aes256 kek
make_key kek aes2 aes256 kek
openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$T/soft.key" 2>/dev/null
openssl pkey -in "$T/soft.key" -pubout -out "$T/soft.pem"
# three groups, the last one not full, with a text that comes again and again
openssl rand -hex 24 >"$T/marker"
for _ in {1..60}; do
    head -c 50000 /dev/urandom
    tr -d '\n' <"$T/marker"
done >"$T/plain"

wraps
wraps_many
control
unwraps
on_the_command_line
rekeys
fails
unlocked
cores
nothing_left
printf '# %d runs watched, memory searched %d times\n' "$runs" "$searches"
finish
