#!/usr/bin/env bash
# A whole life of a backup, for real, in about a minute: three tokens, a PostgreSQL database, an encrypted backup made
# by a host that cannot read it, a check without any key, a rotation of the key, a restore by another host, a comparison
# row by row, and proof that the old key opens nothing any more. Each command is shown as a person would type it.
#
#     softhsm-conf/quickstart.sh [SCALE]     SCALE of the pgbench data, 5 by default (100,000 rows each)
#
# Runs on Debian's base system: missing packages are installed first (as root). Tokens and PINs are made anew at every
# run under softhsm-conf/state/; the database server lives in a temporary folder and is gone at the end.
#
# SoftHSM tokens are folders. "Plugging a token in" is moving its folder into the tokendir of a host; SoftHSM does not
# follow symbolic links there. Each host is a SOFTHSM2_CONF of its own and sees only what is plugged in.
set -euo pipefail
[[ -z ${BK_BIN:-} ]] || BK_BIN=$(cd "$BK_BIN" && pwd)
cd "$(dirname "$0")"

scale=${1:-5}
if ! [[ $scale =~ ^[1-9][0-9]{0,3}$ ]]; then
    printf 'usage: quickstart.sh [SCALE]\n' >&2
    exit 2
fi

state=state
work=''
server_user=''
umask 077
export LC_ALL=C.UTF-8
unset BK_CONFIG CREDENTIALS_DIRECTORY P11_KIT_SERVER_ADDRESS PGSERVICE PGDATABASE PGPORT PGPASSWORD

step() { printf '\n== %s\n' "$*"; }
note() { printf '   %s\n' "$*"; }
surprise() {
    printf 'quickstart: FAILED: %s\n' "$*" >&2
    exit 1
}

# show COMMAND ARG... : as a person would type it; only what the shell would take apart is quoted.
show() {
    local word line='$'
    for word in "$@"; do
        [[ $word =~ ^[A-Za-z0-9_./:=,@%+-]+$ ]] || word="'$word'"
        line+=" $word"
    done
    printf '%s\n' "$line"
}

run() {
    show "$@"
    "$@"
}

# as_server COMMAND ARG... : PostgreSQL refuses to run as root.
as_server() {
    if [[ -n $server_user ]]; then
        setpriv --reuid="$server_user" --regid="$server_user" --init-groups -- "$@"
    else
        "$@"
    fi
}

clean_up() {
    local status=$?
    trap - EXIT
    if [[ -n $work ]]; then
        if [[ -e $work/data/postmaster.pid ]]; then
            as_server "$pg/pg_ctl" -D "$work/data" -m immediate -w stop >/dev/null 2>&1 || true
        fi
        rm -rf "$work"
    fi
    exit "$status"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# --- tokens and hosts ---------------------------------------------------------------------------------------------

# softhsm_folder FOLDER : a configuration of SoftHSM whose tokens are in FOLDER/tokens.
softhsm_folder() {
    mkdir -p "$1/tokens"
    printf 'directories.tokendir = %s/%s/tokens\nobjectstore.backend = file\nlog.level = ERROR\n' "$PWD" "$1" \
        >"$1/softhsm2.conf"
}

# at HOST : the commands that follow run on that host, and see the tokens that are plugged in there.
at() {
    export SOFTHSM2_CONF=$PWD/$state/hosts/$1/softhsm2.conf
    printf '\n   -- on host "%s": ' "$1"
    local there
    there=$(cd "$state/hosts/$1" && find tokens -mindepth 1 -maxdepth 1 -type d | wc -l)
    printf '%s token(s) plugged in\n' "$there"
    show export "SOFTHSM2_CONF=$SOFTHSM2_CONF"
}

# make_token NAME : an empty token, not plugged in anywhere, with a random PIN in a file that only its owner can read.
make_token() {
    local pin=$state/pins/$1
    softhsm_folder "$state/drawer/$1"
    openssl rand -hex 16 >"$pin"
    SOFTHSM2_CONF=$PWD/$state/drawer/$1/softhsm2.conf softhsm2-util --init-token --free --label "$1" \
        --pin "$(cat "$pin")" --so-pin "$(openssl rand -hex 16)" >/dev/null
    note "token $1, PIN in state/pins/$1"
}

# move_token NAME FROM TO : the token's folder has its UUID for a name; $state/drawer/NAME/uuid remembers which.
move_token() {
    local uuid
    if [[ ! -e $state/drawer/$1/uuid ]]; then
        find "$2/tokens" -mindepth 1 -maxdepth 1 -type d -printf '%f\n' >"$state/drawer/$1/uuid"
    fi
    uuid=$(cat "$state/drawer/$1/uuid")
    run mv "$2/tokens/$uuid" "$3/tokens/"
}

plug() {
    note "plug token $1 into host \"$2\""
    move_token "$1" "$state/drawer/$1" "$state/hosts/$2"
}

unplug() {
    note "unplug token $1 from host \"$2\""
    move_token "$1" "$state/hosts/$2" "$state/drawer/$1"
}

# uri TOKEN OBJECT
uri() {
    local path=$PWD/$state/pins/$1 safe='' i c
    for ((i = 0; i < ${#path}; i++)); do
        c=${path:i:1}
        [[ $c =~ [A-Za-z0-9/._~-] ]] || printf -v c '%%%02X' "'$c"
        safe+=$c
    done
    printf 'pkcs11:token=%s;object=%s?pin-source=file:%s' "$1" "$2" "$safe"
}

# --- the database -------------------------------------------------------------------------------------------------

start_database() {
    local folder=${TMPDIR:-/tmp}
    ((${#folder} < 60)) || folder=/tmp # the path of a unix socket has at most 107 bytes
    work=$(mktemp -d "$folder/bk-quickstart.XXXXXX")
    ((EUID != 0)) || { server_user=postgres; chown postgres:postgres "$work"; }
    as_server "$pg/initdb" -A trust -U postgres -E UTF8 --locale=C.UTF-8 --no-sync -D "$work/data" >/dev/null
    printf "listen_addresses = ''\nunix_socket_directories = '%s'\nfsync = off\n" "$work" >>"$work/data/postgresql.conf"
    as_server "$pg/pg_ctl" -D "$work/data" -l "$work/log" -w start >/dev/null || surprise "PostgreSQL does not start"
    export PGHOST=$work PGUSER=postgres
}

# table_sums DATABASE : name, rows and digest of every table's rows in order.
table_sums() {
    local table count digest
    psql -d "$1" -AtX -c "select format('%I.%I', schemaname, tablename) from pg_tables
        where schemaname not in ('pg_catalog', 'information_schema') order by 1" >"$work/tables"
    while read -r table; do
        count=$(psql -d "$1" -AtX -c "select count(*) from $table" </dev/null)
        digest=$(psql -d "$1" -qAtX -c "copy (select * from $table t order by t) to stdout" </dev/null | md5sum)
        printf '%s %s %s\n' "$table" "$count" "${digest%% *}"
    done <"$work/tables"
}

# payload_digest ARCHIVE : over all that follows preamble and slots; the slot size stands at byte 12 of the preamble.
payload_digest() {
    local slot_size
    slot_size=$(od -An -tu4 --endian=big -j 12 -N 4 "$1")
    tail -c "+$((4096 + 2 * slot_size + 1))" "$1" | sha256sum
}

# --- the story ----------------------------------------------------------------------------------------------------

step 'Packages and programs'
bash ../tests/setup.sh
if [[ -n ${BK_BIN:-} ]]; then
    note "programs in $BK_BIN"
else
    (
        cd ..
        log=$(mktemp)
        if ! { run cmake --preset release && run cmake --build --preset release; } >"$log" 2>&1; then
            cat "$log"
            rm -f "$log"
            exit 1
        fi
        grep '^\$' "$log"
        rm -f "$log"
    )
    BK_BIN=$(cd .. && pwd)/build/release
fi
pg=$(find /usr/lib/postgresql -mindepth 2 -maxdepth 2 -name bin -type d | sort -V | tail -n 1)
export PATH=$BK_BIN:$pg:$PATH
for program in bk-key bk-wrap bk-verify bk-rekey bk-unwrap pg_dump pg_restore pgbench; do
    command -v "$program" >/dev/null || surprise "$program is not there"
done

step 'Three tokens, each made where it belongs'
show cd "$PWD"
rm -rf "$state"
mkdir -p "$state/pins" "$state/public"
for host in backup rotation restore auditor; do softhsm_folder "$state/hosts/$host"; done
for token in signer kek-old kek-new; do make_token "$token"; done

plug signer backup
at backup
run bk-key generate --type p256 --use sign --owner 'backup host' -o "$state/public/signer.pem" "$(uri signer backup)"

plug kek-old rotation
plug kek-new rotation
at rotation
run bk-key generate --type p256 --use kek -o "$state/public/kek-old.pem" "$(uri kek-old kek)"
run bk-key generate --type p256 --use kek -o "$state/public/kek-new.pem" "$(uri kek-new kek)"
run bk-key generate --type p256 --use sign --owner 'rotation desk' -o "$state/public/rotator.pem" \
    "$(uri kek-new rotator)"

step "A database with something in it (pgbench, scale $scale)"
start_database
run createdb orders
run pgbench -q -i -s "$scale" orders >"$work/pgbench.log" 2>&1 || { cat "$work/pgbench.log"; surprise 'pgbench failed'; }
head -n 1 "$work/pgbench.log"
run pgbench -n -t 200 -c 2 orders >"$work/pgbench.log" 2>&1 || { cat "$work/pgbench.log"; surprise 'pgbench failed'; }
head -n 1 "$work/pgbench.log"
before=$(table_sums orders)
note 'table, rows, digest:'
printf '%s\n' "$before"

step 'Backup: the host has a signing key, and only the public half of the KEK'
archive=$state/orders.bk
at backup
run bk-wrap -r "$state/public/kek-old.pem" -s "$(uri signer backup)" --kind full --public-label 'orders, nightly' \
    --meta database=orders --manifest "$state/orders.manifest" -o "$archive" -- pg_dump -Fc orders
note "$(stat -c '%s bytes' "$archive") in state/orders.bk"

step 'Check it with no key and no token'
at auditor
run bk-verify --level integrity -t "$state/public/signer.pem" --manifest "$state/orders.manifest" "$archive"

step 'Rotate: the new KEK in place of the old one, the payload untouched'
payload_before=$(payload_digest "$archive")
at rotation
run bk-rekey --from "$(uri kek-old kek)" --to "$(uri kek-new kek)" -s "$(uri kek-new rotator)" \
    -t "$state/public/signer.pem" -t "rotate:$state/public/rotator.pem" --reason age "$archive"
[[ $payload_before == "$(payload_digest "$archive")" ]] || surprise 'the rotation changed the payload'
note 'payload, index, manifest and tail are byte for byte what they were'

step 'Restore from the rotated archive, on a host that has the new token'
unplug kek-new rotation
plug kek-new restore
at restore
run createdb orders_restored
run bk-unwrap -k "$(uri kek-new kek)" -t "$state/public/signer.pem" -t "rotate:$state/public/rotator.pem" \
    --min-generation 2 "$archive" -- pg_restore -d orders_restored

step 'Compare, table by table and row by row'
after=$(table_sums orders_restored)
printf '%s\n' "$after"
[[ -n $before && $before == "$after" ]] || surprise 'the restored database differs'
note 'all equal'

step 'The old KEK opens nothing any more'
unplug kek-new restore
unplug kek-old rotation
plug kek-old restore
at restore
status=0
run bk-unwrap -k "$(uri kek-old kek)" -t "$state/public/signer.pem" -t "rotate:$state/public/rotator.pem" \
    -o "$state/refused.dump" "$archive" || status=$?
[[ $status == 3 ]] || surprise "exit status 3 was expected of the old key, $status was seen"
[[ ! -e $state/refused.dump ]] || surprise 'something was written for the old key'
note 'refused with exit status 3, and nothing was written'

rows=$(awk '{ n += $2 } END { print n }' <<<"$after")
printf '\nquickstart: ok: %s rows in %s tables backed up, verified, rotated, restored and equal; the old key is out\n' \
    "$rows" "$(wc -l <<<"$after")"
