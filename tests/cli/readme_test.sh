#!/usr/bin/env bash
# Does README.md's "The first night" work as it is written? Its commands are taken out of the page and run one after the
# other, with real tokens and a real PostgreSQL. Only the folders /backups, /srv/manifests and /etc/bk are elsewhere, PINs
# come from the files that a service manager would give (CREDENTIALS_DIRECTORY), and it is the night that the page
# speaks of.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
unset PGSERVICE PGDATABASE PGPORT PGPASSWORD PGHOSTADDR PGOPTIONS

pg=$(find /usr/lib/postgresql -mindepth 2 -maxdepth 2 -name bin -type d | sort -V | tail -n 1)
server_user=''

# as_server COMMAND ARG... : PostgreSQL refuses to run as root.
as_server() {
    if [[ -n $server_user ]]; then
        setpriv --reuid="$server_user" --regid="$server_user" --init-groups -- "$@"
    else
        "$@"
    fi
}

stop_database() {
    if [[ -e $database/data/postmaster.pid ]]; then
        as_server "$pg/pg_ctl" -D "$database/data" -m immediate -w stop >/dev/null 2>&1 || true
    fi
    rm -rf "$database"
}

# In a folder of its own, which the server's user can reach; the path of a unix socket has at most 107 bytes.
start_database() {
    local folder=${TMPDIR:-/tmp}
    ((${#folder} < 60)) || folder=/tmp
    database=$(mktemp -d "$folder/bk-readme.XXXXXX")
    trap 'stop_database; clean_up' EXIT
    ((EUID != 0)) || { server_user=postgres; chown postgres:postgres "$database"; }
    as_server "$pg/initdb" -A trust -U postgres -E UTF8 --locale=C.UTF-8 --no-sync -D "$database/data" >"$T/stderr" 2>&1
    printf "listen_addresses = ''\nunix_socket_directories = '%s'\nfsync = off\n" "$database" |
        as_server tee -a "$database/data/postgresql.conf" >/dev/null
    as_server "$pg/pg_ctl" -D "$database/data" -l "$database/log" -w start >"$T/stderr" 2>&1
    export PGHOST=$database PGUSER=postgres PATH=$pg:$PATH
    createdb orders
    psql -qX -d orders -c 'create table item (id int primary key, what text);
        insert into item select n, md5(n::text) from generate_series(1, 20000) n'
}

rows() { psql -qAtX -d "$1" -c 'copy (select * from item order by id) to stdout' </dev/null | md5sum; }

# commands N : those of step N, each on one line; folders that a test must not touch are elsewhere.
commands() {
    awk '/^## / { on = $0 == "## The first night" } on' "$ROOT/README.md" |
        awk -v step="$1." '/^[0-9]+\. / { on = $1 == step } on && /^       [^ ]|^        / { sub(/^ +/, ""); print }' |
        sed -e ':join' -e '/\\$/ { N; s/\\\n *//; b join' -e '}' |
        sed -E "s#(^|[ \"=:'])/(backups|srv/manifests|etc/bk)/#\1$T/\2/#g"
}

# step N COUNT : runs that step's commands, of which there are so many.
step() {
    local line
    local -a lines
    mapfile -t lines < <(commands "$1")
    check "step $1 has $2 command(s)" test "${#lines[@]}" -eq "$2"
    for line in "${lines[@]}"; do
        printf '# %s\n' "${line//"$T"/}"
        expect_exit 0 bash -euo pipefail -c "$line"
    done
}

host() {
    local token
    mkdir -p "$T/backups" "$T/srv/manifests" "$T/etc/bk" "$T/credentials" "$T/here" "$T/bin"
    # a night is over in no time, and midnight could be in the middle of it
    printf '#!/bin/sh\nexec /bin/date -d 2026-01-31 "$@"\n' >"$T/bin/date"
    chmod +x "$T/bin/date"
    PATH=$T/bin:$PATH
    for token in vault-a vault-b vault-c signer desk; do
        make_token "$token"
        cp "$T/$token.pin" "$T/credentials/bk-pin.$token"
        chmod 600 "$T/credentials/bk-pin.$token"
    done
    cp -p "$T/signer.pin" "$T/etc/bk/signer.pin"
    export CREDENTIALS_DIRECTORY=$T/credentials
    cd "$T/here"
}

first_night() {
    local archive=$T/backups/orders-2026-01-31.bk
    step 2 2
    check 'two recipients' test -s kek-a.pem -a -s kek-b.pem
    step 3 1
    step 4 1
    check 'an archive' test -s "$archive"
    check 'a manifest' test -s "$T/srv/manifests/2026-01-31.manifest"
    check 'no warning' test -z "$(grep warning: "$T/stderr")"
    step 5 1
    expect_stdout ': ok \(integrity\)'
    check 'fresh' test -z "$(grep 'not checked' "$T/stdout")"
    step 6 2
    check 'restored, row by row' test "$(rows orders)" = "$(rows orders_drill)"

    step 7 3
    expect_exit 0 bk-verify --level decrypt -k 'pkcs11:token=vault-c;object=kek-2027' -t signer.pem \
        -t rotate:rotator.pem --min-generation 2 "$archive"
    # as the page says: readers need the rotator from now on
    expect_exit 1 bk-verify -t signer.pem "$archive"
    expect_exit 3 bk-unwrap -k 'pkcs11:token=vault-a;object=kek-2026' -t signer.pem -t rotate:rotator.pem \
        -o "$T/old" "$archive"
    no_file "$T/old"
    # and the second recipient is still one
    expect_exit 0 bk-verify -q --level decrypt -k 'pkcs11:token=vault-b;object=kek-2026' -t signer.pem \
        -t rotate:rotator.pem "$archive"
}

# What the steps name is there.
papers() {
    check 'step 8: to be printed' test -s "$ROOT/docs/BREAK-GLASS.md" -a -s "$ROOT/docs/recover.py"
    # tests/run.sh builds with it, and docs_test.sh installs
    check 'step 1: the preset is there' test -n "$(cd "$ROOT" && cmake --list-presets=build | grep '"release"')"
}

host
start_database
first_night
papers
cd /
finish
