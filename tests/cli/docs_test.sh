#!/usr/bin/env bash
# Do --help, the manual pages, docs/CLI.md, the completions and the programs say the same? Do the examples of the manual
# pages work? Does an installation have everything, and work?
set -euo pipefail
. "$(dirname "$0")/lib.sh"

PROGRAMS=(bk-wrap bk-unwrap bk-verify bk-rekey bk-key)
VERSION=$(sed -nE 's/^project\(bk VERSION ([0-9.]+) .*/\1/p' "$ROOT/CMakeLists.txt")

# same_set TEXT A B : the same lines, in any order; what only one has is shown.
same_set() {
    local differs
    differs=$(diff <(sort -u <<<"$2") <(sort -u <<<"$3") | sed -n 's/^[<>]/    &/p') || true
    if [[ -z $differs && -n $2 ]]; then
        pass "$1"
    else
        : >"$T/stderr"
        fail "$1"
        printf '%s\n' "$differs"
    fi
}

# --- options ------------------------------------------------------------------------------------------------------

# Lines as "-r --recipient" or "--meta"; from the columns where --help and the manual have options.
option_lines() {
    sed -nE '/^ {6,7}--help, --version$/ { s/.*/--help\n--version/p; d }
        s/^ {2,7}(-[a-z0], )?(--[a-z][a-z-]*).*/\1\2/p' | tr -d ,
}
long_options() { grep -oE -- '--[a-z][a-z-]*' | sort -u; }
in_help() { "$1" --help | option_lines; }
in_manual() { section "$(rendered "$1.1")" OPTIONS | option_lines; }

# rendered PAGE : as man shows it, in plain text; each page is rendered once.
rendered() {
    [[ -s $T/$1.txt ]] || MANWIDTH=160 man -E ascii -l "$BK_BIN/man/$1" | col -bx >"$T/$1.txt"
    cat "$T/$1.txt"
}

# section TEXT NAME : of a rendered page.
section() { awk -v name="$2" '/^[A-Z]/ { on = $0 == name; next } on' <<<"$1"; }

# in_contract PROGRAM : what docs/CLI.md has in the first column of the program's tables; bk-key's are verbs.
in_contract() {
    awk -v begin="## $1 " '/^## / { on = index($0, begin) == 1 || $0 == "## Options of every program"; next }
        on && (begin == "## bk-key " || sub(/` \| .*/, "")) ' "$ROOT/docs/CLI.md" | long_options
}

options_agree() {
    local program all=''
    for program in "${PROGRAMS[@]}"; do
        same_set "$program: options of --help and of the manual page" "$(in_help "$program")" "$(in_manual "$program")"
        same_set "$program: options of --help and of docs/CLI.md" "$(in_help "$program" | long_options)" \
            "$(in_contract "$program")"
        same_set "$program: completion for bash" "$(in_help "$program" | long_options)" "$(in_bash "$program")"
        same_set "$program: completion for zsh" "$(in_help "$program" | long_options)" "$(in_zsh "$program")"
        all+=$(in_help "$program" | long_options)$'\n'
    done
    same_set 'options of all programs and names for profiles' "${all%$'\n'}" \
        "$(sed -nE 's/^    \{"([a-z-]+)", CMD_KEY_.*/--\1/p' "$ROOT/cmd/common/profile.c")"
    lists_agree
}

# What may be repeated in a profile is what bk.conf(5) says.
lists_agree() {
    local text
    text=$(tr '\n' ' ' <"$ROOT/man/bk.conf.5.scd" | sed 's/.*may stand more than once: //; s/\. Options without.*//')
    same_set 'options that are lists in a profile, and in bk.conf(5)' \
        "$(sed -nE 's/^    \{"([a-z-]+)", CMD_KEY_LIST\}.*/\1/p' "$ROOT/cmd/common/profile.c")" \
        "$(grep -oE '\*[a-z-]+\*' <<<"$text" | tr -d '*')"
}

# --- completion ---------------------------------------------------------------------------------------------------

# complete_bash WORD... : what the last word could become.
complete_bash() {
    # shellcheck disable=SC2016
    bash -c '. "$0"; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _bk "$1" 2>/dev/null; printf "%s\n" "${COMPREPLY[@]}"' \
        "$ROOT/completion/bk.bash" "$@"
}
in_bash() { complete_bash "$1" -- | long_options; }

# zsh's own completion functions take a terminal; _arguments shows what it was given instead.
in_zsh() {
    # shellcheck disable=SC2016
    zsh -fc '_arguments() { print -rl -- "$@" }; service=$1; words=("$1" ""); CURRENT=2; . "$2"' zsh "$1" \
        "$ROOT/completion/_bk" | sed -nE 's/^(\([^)]*\))?\*?(--[a-z-]+).*/\2/p'
}

completes() {
    local wanted=$1
    shift
    same_set "completion: $*" "$(tr ' ' '\n' <<<"$wanted")" "$(complete_bash "$@")"
}

completion() {
    check 'zsh reads its completion' zsh -n "$ROOT/completion/_bk"
    completes 'generate list show export probe audit' bk-key ''
    completes 'p256 p384' bk-key generate --type p
    completes 'wal' bk-wrap --kind w
    completes '--sign --sign-cert' bk-wrap -r a.pem --sign
    completes 'required preferred off' bk-rekey --blind ''
    completes 'archive= ' bk-verify --expect ar
    completes 'pkcs11:' bk-unwrap -k pk
    printf '[orders]\nsign=x\n [other] \n' >"$T/complete.conf"
    completes 'orders other' bk-verify --config "$T/complete.conf" --profile o
    completes "$T/complete.conf" bk-wrap -o out.bk -- cat "$T/complete."
    completes "$T/complete.conf" bk-unwrap "$T/complete."
}

# --- exit statuses ------------------------------------------------------------------------------------------------

codes_in_source() { sed -n '/^cmd_status/,/^}/s/.*return \([0-9]*\);/\1/p' "$ROOT/cmd/common/exit.c"; }
codes_in_table() { awk '/^## / { on = $0 == "## Exit status" } on' "$1" | sed -nE 's/^\| ([0-9]+) \|.*/\1/p'; }
codes_in_help() { "$1" --help | sed -n '/^exit status:/,$p' | grep -oE '(^|[ ,])[0-9] [a-zA-Z]' | tr -cd '0-9\n'; }
codes_in_manual() { section "$(rendered "$1.1")" 'EXIT STATUS' | sed -nE 's/^ *\|([0-9]+) .*/\1/p'; }

statuses_agree() {
    local program all=''
    same_set 'statuses of the code and of docs/CLI.md' "$(codes_in_source)" "$(codes_in_table "$ROOT/docs/CLI.md")"
    same_set 'statuses of docs/CLI.md and of README.md' "$(codes_in_table "$ROOT/docs/CLI.md")" \
        "$(codes_in_table "$ROOT/README.md")"
    for program in "${PROGRAMS[@]}"; do
        same_set "$program: statuses of --help and of the manual page" "$(codes_in_help "$program")" \
            "$(codes_in_manual "$program")"
        all+=$(codes_in_manual "$program")$'\n'
    done
    same_set 'statuses of all programs and of docs/CLI.md' "${all%$'\n'}" "$(codes_in_table "$ROOT/docs/CLI.md")"
}

# --- pages --------------------------------------------------------------------------------------------------------

pages() {
    local page complaints
    for page in "${PROGRAMS[@]/%/.1}" bk.conf.5 bk-archive.5; do
        complaints=$(MANWIDTH=80 man --warnings -E UTF-8 -l "$BK_BIN/man/$page" 2>&1 >/dev/null)
        check "$page: no warnings" test -z "$complaints"
        check "$page: has a name and a description" lexgrog -m "$BK_BIN/man/$page" >/dev/null
        check "$page: nothing was left out" test -z "$(grep -E '@[A-Z_]+@' "$BK_BIN/man/$page")"
    done
}

versions() {
    local program
    for program in "${PROGRAMS[@]}"; do
        expect_exit 0 "$program" --version
        check "$program $VERSION" test "$(cat "$T/stdout")" = "$program $VERSION"
        expect_exit 0 "$program" --help
        expect_stdout "^usage: $program "
        check "$program: --help fits a line of 100" test -z "$(grep -E '.{101}' "$T/stdout")"
    done
}

# --- the examples for PostgreSQL in the manual --------------------------------------------------------------------

# example PAGE FIRST-LINE : from the line after that one to the next empty one or the end of the block.
example() {
    awk -v first="$2" '$0 == first { on = 1; next } /^$|^```/ { on = 0 } on' "$ROOT/man/$1.scd" | sed 's/\\\\/\\/g'
}

# restore FILE PATH : what PostgreSQL runs.
restore() {
    example bk-unwrap.1 '# postgresql.conf' | tr -d '\\\n' | sed -E "s/^restore_command = '//; s/'\$//" |
        sed "s|/etc/bk/|$T/|; s|/wal/|$T/wal/|; s|%f|$1|g; s|%p|$2|g; s|%%|%|g"
}

postgresql_examples() {
    local segment=00000002000000000000000A
    mkdir "$T/wal"
    make_token signer
    make_token kek
    make_key signer backup p256 sign
    make_key kek kek p256 kek
    printf '[wal]\nrecipient = %s\nsign = %s\ntrust = %s\nkey = %s\n' "$T/kek.pem" "$(key_uri signer backup)" \
        "$T/backup.pem" "$(key_uri kek kek)" >"$T/bk.conf"
    head -c 100000 /dev/urandom >"$T/segment"
    example bk-wrap.1 '# /usr/local/bin/archive-wal' |
        sed "s|/var/lib/postgresql/|$T/|; s|/wal/|$T/wal/|" >"$T/archive-wal"
    export BK_CONFIG=$T/bk.conf

    expect_exit 0 sh "$T/archive-wal" "$T/segment" "$segment"
    expect_exit 0 sh "$T/archive-wal" "$T/segment" "$segment"
    expect_exit 0 sh -c "$(restore "$segment" "$T/restored")"
    same_file "$T/segment" "$T/restored"
    rm "$T/restored"
    expect_exit 1 sh -c "$(restore 00000002000000000000000B "$T/restored")"
    cp "$T/wal/$segment.bk" "$T/wal/00000003000000000000000A.bk"
    expect_exit 126 sh -c "$(restore 00000003000000000000000A "$T/restored")"
    expect_stderr 'sequence'
    no_file "$T/restored"

    # a refused PIN is not tried again, however often PostgreSQL asks
    mv "$T/signer.pin" "$T/right.pin"
    (umask 077 && printf wrong >"$T/signer.pin")
    expect_exit 9 sh "$T/archive-wal" "$T/segment" 00000002000000000000000B
    check 'somebody has to look' test -e "$T/pin-refused"
    mv "$T/right.pin" "$T/signer.pin"
    expect_exit 1 sh "$T/archive-wal" "$T/segment" 00000002000000000000000B
    no_file "$T/wal/00000002000000000000000B.bk"
    rm "$T/pin-refused"
    expect_exit 0 sh "$T/archive-wal" "$T/segment" 00000002000000000000000B
    wrap_wal_example
    unset BK_CONFIG
}

# The segments that are complete and have no archive yet, in one run.
wrap_wal_example() {
    mkdir "$T/received"
    cp "$T/segment" "$T/received/00000002000000000000000A" # has an archive
    cp "$T/segment" "$T/received/00000002000000000000000C"
    head -c 70000 /dev/urandom >"$T/received/00000002000000000000000D"
    cp "$T/segment" "$T/received/00000002000000000000000E.partial"
    example bk-wrap.1 '# /usr/local/bin/wrap-wal' |
        sed "s|/var/lib/postgresql/|$T/|g; s|/wal/|$T/wal/|g" >"$T/wrap-wal"
    expect_exit 0 sh "$T/wrap-wal"
    check 'two more archives' test "$(find "$T/wal" -name '*.bk' | wc -l)" -eq 5
    expect_exit 0 sh -c "$(restore 00000002000000000000000D "$T/restored")"
    same_file "$T/received/00000002000000000000000D" "$T/restored"
    expect_exit 0 sh "$T/wrap-wal"
    check 'and no more' test "$(find "$T/wal" -name '*.bk' | wc -l)" -eq 5
    rm "$T/restored"
}

# --- installation -------------------------------------------------------------------------------------------------

installation() {
    local prefix=$T/prefix program page file
    expect_exit 0 cmake --install "$BK_BIN" --prefix "$prefix"
    for program in "${PROGRAMS[@]}"; do
        check "installed: $program" test -x "$prefix/bin/$program"
        check "installed: $program(1)" test -s "$prefix/share/man/man1/$program.1"
        file=$prefix/share/bash-completion/completions/$program
        check "installed: completion of $program for bash" grep -q '^complete -F _bk ' "$file"
        check "found by man: $program" man -M "$prefix/share/man" -w "$program" >/dev/null
    done
    for page in bk.conf.5 bk-archive.5; do check "installed: $page" test -s "$prefix/share/man/man5/$page"; done
    check 'installed: completion for zsh' cmp -s "$ROOT/completion/_bk" "$prefix/share/zsh/site-functions/_bk"
    for file in README.md SECURITY.md CHANGELOG.md LICENSE FORMAT.md CLI.md BREAK-GLASS.md bk.asn; do
        check "installed: $file" test -n "$(find "$prefix/share/doc" -name "$file")"
    done
    check 'nothing but files of bk' test -z "$(find "$prefix" -type f ! -path '*bk*')"

    expect_exit 0 "$prefix/bin/bk-wrap" -q -r "$T/kek.pem" -s "$(key_uri signer backup)" -o "$T/installed.bk" \
        -- cat "$T/segment"
    expect_exit 0 "$prefix/bin/bk-verify" -q -t "$T/backup.pem" "$T/installed.bk"
    expect_exit 0 "$prefix/bin/bk-unwrap" -q -t "$T/backup.pem" -k "$(key_uri kek kek)" "$T/installed.bk" -- cat
    same_file "$T/segment" "$T/stdout"
}

versions
options_agree
completion
statuses_agree
pages
postgresql_examples
installation
finish
