#!/usr/bin/env bash
# A real PostgreSQL: dumps through bk-wrap and back, a base backup, and recovery from archived WAL, in which a damaged
# segment must stop the server instead of opening the database without the rows that it held.
# shellcheck disable=SC2317 # functions are called by `check` and traps
set -euo pipefail
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

PORT=5432 # of the socket's name only; nothing listens on a network

# as_owner COMMAND ARG... : as the user who may run a server, which root may not.
as_owner() {
    if ((EUID == 0)); then
        runuser -u postgres -- env PATH="$PATH" SOFTHSM2_CONF="$SOFTHSM2_CONF" "$@"
    else
        "$@"
    fi
}

own() { if ((EUID == 0)); then chown -R postgres "$@"; fi; }
token_uri() { printf 'pkcs11:token=%s?pin-source=file:%s/%s.pin' "$1" "$T" "$1"; }
sql() { psql -X -q -A -t -v ON_ERROR_STOP=1 -h "$T/socket" -p "$PORT" -U postgres -d "$1" -c "$2"; }

# All that the tables hold, as one line.
content() {
    sql "$1" "select count(*), sum(id), md5(string_agg(id || name || amount, ',' order by id)) from orders"
}

find_server() {
    local folder
    folder=$(find /usr/lib/postgresql -mindepth 2 -maxdepth 2 -name bin 2>/dev/null | sort -V | tail -n 1)
    [[ -n $folder ]] || folder=$(dirname "$(command -v initdb)")
    printf '%s' "$folder"
}

stop_servers() {
    local data
    for data in "$T"/data "$T"/pitr*; do
        [[ ! -f $data/postmaster.pid ]] || as_owner pg_ctl stop -D "$data" -m immediate >/dev/null 2>&1 || true
    done
}

on_exit() {
    local status=$?
    set +e
    stop_servers
    (exit "$status")
    clean_up
}
trap on_exit EXIT

start_server() { as_owner pg_ctl start -w -t 60 -D "$1" -l "$1.log" -o "-p $PORT" >/dev/null 2>&1; }
stop_server() { as_owner pg_ctl stop -w -t 60 -D "$1" -m fast >/dev/null 2>&1; }

# What archive_command and restore_command run. The words of the sequence hold a segment to its name: a genuine archive
# under another segment's name is refused.
write_commands() {
    cat >"$T/archive" <<SH
#!/bin/sh
# path of the segment, its name
exec bk-wrap -q -r "$T/first.pem" -r "$T/second.pem" -s "$(key_uri signer backup)" --kind wal \\
    --sequence "system=$system timeline=\$(printf %.8s "\$2") segment=\$2" -o "$T/wal/\$2.bk" "\$1"
SH
    cat >"$T/restore" <<SH
#!/bin/sh
# name of the segment, where to put it
exec bk-unwrap -q --restore-command -t "$T/backup.pem" -k "$(token_uri kek)" \\
    --expect "sequence=system=$system timeline=\$(printf %.8s "\$1") segment=\$1" -o "\$2" "$T/wal/\$1.bk"
SH
    chmod 755 "$T/archive" "$T/restore"
}

set_up() {
    mkdir "$T/bin" "$T/data" "$T/socket" "$T/wal"
    cp "$BK_BIN"/bk-{wrap,unwrap,verify,key,token-worker} "$T/bin" # where the server's user can reach them
    PATH=$T/bin:$(find_server):$PATH
    make_token signer
    make_token kek
    make_key signer backup p256 sign
    make_key kek first p256 kek
    make_key kek second p384 kek
    chmod 755 "$T"
    own "$T"
    cd "$T" # a folder that the server's user may enter
    as_owner initdb -D "$T/data" -U postgres -A trust --wal-segsize=4 --no-sync -E UTF8 --locale=C >/dev/null
    system=$(pg_controldata "$T/data" | awk -F': +' '/system identifier/ { print $2 }')
    write_commands
    cat >>"$T/data/postgresql.conf" <<CONF
listen_addresses = ''
unix_socket_directories = '$T/socket'
fsync = off
shared_buffers = 16MB
wal_level = replica
max_wal_size = 64MB
min_wal_size = 8MB
archive_mode = on
archive_command = '$T/archive %p %f'
CONF
    check 'the server starts' start_server "$T/data"
    sql postgres 'create database shop'
    sql shop "create table orders as select id, 'name ' || id as name, id * 7 % 1000 as amount
              from generate_series(1, 20000) id; alter table orders add primary key (id)"
}

dumps() {
    local before
    before=$(content shop)
    expect_exit 0 bk-wrap -r "$T/first.pem" -r "$T/second.pem" -s "$(key_uri signer backup)" -o "$T/shop.bk" \
        -- pg_dump -Fc -h "$T/socket" -p "$PORT" -U postgres shop
    expect_exit 0 bk-verify --show -t "$T/backup.pem" "$T/shop.bk"
    expect_stdout '^  producer +pg_dump$'
    sql postgres 'create database restored'
    expect_exit 0 bk-unwrap -t "$T/backup.pem" -k "$(token_uri kek)" "$T/shop.bk" \
        -- pg_restore --exit-on-error -h "$T/socket" -p "$PORT" -U postgres -d restored
    check "restored: the same rows ($before)" test "$(content restored)" = "$before"

    expect_exit 7 bk-wrap -r "$T/first.pem" -s "$(key_uri signer backup)" -o "$T/no.bk" \
        -- pg_dump -Fc -h "$T/socket" -p "$PORT" -U postgres no_such_database
    expect_stderr 'pg_dump: exited with status 1'
    expect_stderr 'database "no_such_database" does not exist'
    no_file "$T/no.bk"
    expect_exit 7 bk-unwrap -t "$T/backup.pem" -k "$(token_uri kek)" "$T/shop.bk" \
        -- pg_restore -h "$T/socket" -p "$PORT" -U postgres -d no_such_database
    expect_stderr 'pg_restore: exited with status 1'
}

# A plain dump in one transaction: with a damaged archive psql must never reach the commit.
no_half_restore() {
    local size
    expect_exit 0 bk-wrap -q -r "$T/first.pem" -s "$(key_uri signer backup)" -o "$T/plain.bk" \
        -- pg_dump -h "$T/socket" -p "$PORT" -U postgres --inserts shop
    size=$(stat -c %s "$T/plain.bk")
    sql postgres 'create database half'
    cp "$T/plain.bk" "$T/damaged.bk"
    flip "$T/damaged.bk" $((size - 4000)) # in the last segment, before index, manifest and tail
    expect_exit 1 bk-unwrap -t "$T/backup.pem" -k "$(token_uri kek)" "$T/damaged.bk" \
        -- psql -X -q -1 -v ON_ERROR_STOP=1 -h "$T/socket" -p "$PORT" -U postgres -d half
    check 'nothing of it was committed' test "$(sql half "select count(*) from pg_class where relname = 'orders'")" = 0
    expect_exit 0 bk-unwrap -t "$T/backup.pem" -k "$(token_uri kek)" "$T/plain.bk" \
        -- psql -X -q -1 -v ON_ERROR_STOP=1 -h "$T/socket" -p "$PORT" -U postgres -d half
    check 'undamaged, all of it' test "$(content half)" = "$(content shop)"
}

wait_archived() {
    local end=$((SECONDS + 60))
    until [[ -e $T/wal/$1.bk ]]; do
        if ((SECONDS > end)); then return 1; fi
        sleep 0.1
    done
}

# A server's own collector of segments: what it has whole is wrapped in one run, with one login.
start_receiver() {
    mkdir "$T/received" "$T/batch"
    own "$T/received" "$T/batch"
    as_owner pg_receivewal -D "$T/received" -h "$T/socket" -p "$PORT" -U postgres --no-loop >"$T/receiver.log" 2>&1 &
    receiver=$!
}

wait_received() { wait_until 60 test -f "$T/received/$1"; }

batch_of_segments() {
    local s
    wait "$receiver" || true # the server's end is its own
    for s in "$T"/received/????????????????????????; do
        s=$(basename "$s")
        printf '%s\t%s\tsystem=%s timeline=%.8s segment=%s\n' "$T/received/$s" "$T/batch/$s.bk" "$system" "$s" "$s"
    done >"$T/batch.list"
    check "segments to wrap: $(wc -l <"$T/batch.list")" test "$(wc -l <"$T/batch.list")" -ge 2
    expect_exit 0 as_owner_run bk-wrap -q -r "$T/first.pem" -r "$T/second.pem" -s "$(key_uri signer backup)" --kind wal \
        --batch "$T/batch.list"
    check 'every segment of the batch verifies' bk-verify -q -t "$T/backup.pem" "$T"/batch/*.bk
    mv "$T/wal" "$T/one-by-one"
    mv "$T/batch" "$T/wal"
    printf '# recovery from the batch\n'
    recover_all batch
    mv "$T/wal" "$T/batch"
    mv "$T/one-by-one" "$T/wal"
}

base_backup() {
    local last
    start_receiver
    expect_exit 0 bk-wrap -q -r "$T/first.pem" -r "$T/second.pem" -s "$(key_uri signer backup)" -o "$T/base.bk" \
        -- pg_basebackup -D - -Ft -X none -c fast --no-sync -h "$T/socket" -p "$PORT" -U postgres
    # the rows that only the archived WAL has
    sql shop "insert into orders select id, 'later ' || id, id % 13 from generate_series(20001, 40000) id"
    later=$(content shop)
    last=$(sql shop 'select pg_walfile_name(pg_current_wal_lsn())')
    sql shop 'select pg_switch_wal()' >/dev/null
    check "segment $last is archived" wait_archived "$last"
    check "segment $last is received" wait_received "$last"
    stop_server "$T/data"
    check 'every archived segment verifies' bk-verify -q -t "$T/backup.pem" "$T"/wal/*.bk
    expect_exit 0 bk-verify --show --level signature -t "$T/backup.pem" "$T/wal/$last.bk"
    expect_stdout "^  sequence +system=$system timeline=00000001 segment=$last$"
    lost=$last
}

# restore_base FOLDER : the base backup, with a restore_command.
restore_base() {
    mkdir -m 700 "$1"
    own "$1"
    expect_exit 0 as_owner_run bk-unwrap -q -t "$T/backup.pem" -k "$(token_uri kek)" "$T/base.bk" -- tar -x -C "$1"
    printf "restore_command = '%s/restore %%f %%p'\narchive_mode = off\n" "$T" >>"$1/postgresql.conf"
    as_owner touch "$1/recovery.signal"
}

# recover_all NAME : from what is in $T/wal.
recover_all() {
    restore_base "$T/pitr-$1"
    check 'the server recovers' start_server "$T/pitr-$1"
    check 'and opens' wait_open
    check "all rows are there ($later)" test "$(content shop)" = "$later"
    stop_server "$T/pitr-$1"
}

wait_open() {
    local end=$((SECONDS + 60))
    until [[ $(sql postgres 'select pg_is_in_recovery()' 2>/dev/null) == f ]]; do
        if ((SECONDS > end)); then return 1; fi
        sleep 0.1
    done
}

# refuses_to_open TEXT FOLDER PATTERN : the server must stop, with restore_command's 126.
refuses_to_open() {
    printf '# %s\n' "$1"
    restore_base "$2"
    if start_server "$2" && wait_open; then
        fail "the server opened: $1"
        stop_server "$2"
        return
    fi
    pass "the server does not open: $1"
    check 'and runs no more' not_running "$2"
    # PostgreSQL's words for status 126, to which it gives this meaning
    check 'because of restore_command' \
        grep -Eq 'could not restore file.*(command not executable|exit code 126)' "$2.log"
    check "its log says why: $3" grep -Eq -- "$3" "$2.log"
}

not_running() { ! as_owner pg_ctl status -D "$1" >/dev/null 2>&1; }

damaged_segment() {
    local size
    size=$(stat -c %s "$T/wal/$lost.bk")
    cp -p "$T/wal/$lost.bk" "$T/whole"
    flip "$T/wal/$lost.bk" $((size / 2))
    refuses_to_open 'a damaged segment' "$T/pitr-damaged" 'group [0-9]+ .*'
    cp "$T/wal/$(previous_of "$lost").bk" "$T/wal/$lost.bk"
    refuses_to_open "another segment under its name" "$T/pitr-swapped" 'not the expected archive: sequence'
    mv "$T/whole" "$T/wal/$lost.bk"
}

# The segment before it; there are several, of 4 MiB each.
previous_of() {
    find "$T/wal" -name '000000010*.bk' -printf '%f\n' | sort | grep -B 1 -x "$1.bk" | head -n 1 | cut -d. -f1
}

# expect_exit starts programs, not functions.
write_runner() {
    if ((EUID == 0)); then
        # shellcheck disable=SC2016 # for the script's own shell
        printf '#!/bin/sh\nexec runuser -u postgres -- env PATH="$PATH" SOFTHSM2_CONF="$SOFTHSM2_CONF" "$@"\n'
    else
        printf '#!/bin/sh\nexec "$@"\n'
    fi >"$T/bin/as_owner_run"
    chmod 755 "$T/bin/as_owner_run"
}

set_up
write_runner
dumps
no_half_restore
base_backup
recover_all single
batch_of_segments
damaged_segment
finish
