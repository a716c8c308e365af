#!/usr/bin/env bash
# Profiles and --meta-file as an operator uses them: one profile for all programs, and what is refused. The reading of
# profiles itself is tests/unit/profile_test.c.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

# profiles TEXT : the file that the programs find.
profiles() {
    printf '%s\n' "$@" >"$T/bk.conf"
    chmod 600 "$T/bk.conf"
}

orders() {
    profiles '[orders]' "recipient = $T/kek-a.pem" "recipient = $T/kek-b.pem" "sign = $(key_uri signer backup)" \
        'public-label = orders' 'meta = from=profile' "trust = $T/backup.pem" "trust = rotate:$T/rotator.pem" \
        "key = $(key_uri vault-a kek-a)" 'quiet = yes' '' \
        '[rotation]' "from = $(key_uri vault-a kek-a)" "to = $(key_uri vault-c kek-c)" \
        "sign = $(key_uri desk rotator)" "trust = $T/backup.pem" "trust = rotate:$T/rotator.pem" 'reason = age' \
        '' '[broken]' 'recipent = x'
}

one_for_all() {
    orders
    expect_exit 0 bk-wrap --profile orders -o "$T/a.bk" "$T/plain"
    check 'quiet = yes' test ! -s "$T/stderr"
    expect_exit 0 bk-verify --profile orders --show "$T/a.bk"
    expect_stdout 'orders'
    expect_exit 0 bk-verify --profile orders --json "$T/a.bk"
    json_is "$T/stdout" "o['level'] == 'integrity'"
    expect_exit 0 bk-verify --profile orders --json --show "$T/a.bk"
    json_is "$T/stdout" "len(o['recipients']) == 2"
    expect_exit 0 bk-unwrap --profile orders -o "$T/out" "$T/a.bk"
    same_file "$T/plain" "$T/out"
    expect_exit 0 bk-unwrap --profile orders --meta "$T/a.bk"
    expect_stdout '^from=profile$'

    expect_exit 0 bk-rekey --profile rotation "$T/a.bk"
    expect_exit 0 bk-verify --profile orders --min-generation 2 "$T/a.bk"
    expect_exit 0 bk-verify --profile orders --level decrypt -k "$(key_uri vault-c kek-c)" "$T/a.bk"
    # the profile's key is the old one
    expect_exit 3 bk-verify --profile orders --level decrypt "$T/a.bk"
    # but one on the command line asks for a level that uses it
    expect_exit 2 bk-verify --profile orders -k "$(key_uri vault-c kek-c)" "$T/a.bk"
    expect_stderr '--level decrypt only'
}

the_command_line_wins() {
    orders
    expect_exit 0 bk-wrap --profile orders -r "$T/kek-b.pem" --public-label other -o "$T/b.bk" "$T/plain"
    expect_stderr 'warning: .*one recipient|warning: .*recipient'
    expect_exit 0 bk-verify --profile orders --json --show "$T/b.bk"
    json_is "$T/stdout" "len(o['recipients']) == 1 and o['label'] == 'other'"
    # trust on the command line leaves none of the profile's
    expect_exit 1 bk-verify --profile orders -t "$T/rotator.pem" "$T/b.bk"
    expect_stderr 'not trusted'
}

refused() {
    local code=$1 pattern=$2
    shift 2
    expect_exit "$code" "$@"
    expect_stderr "$pattern"
    no_file "$T/no.bk"
}

refusals() {
    orders
    refused 2 "bk\.conf:[0-9]+: no bk program has an option \"recipent\"" \
        bk-wrap --profile broken -o "$T/no.bk" "$T/plain"
    refused 2 'hint: there are: orders, rotation, broken$' bk-wrap --profile order -o "$T/no.bk" "$T/plain"
    refused 2 'no-such.conf: No such file' bk-wrap --profile orders --config "$T/no-such.conf" -o "$T/no.bk" "$T/plain"
    refused 2 '--config goes with --profile' bk-wrap --config "$T/bk.conf" -r "$T/kek-a.pem" -o "$T/no.bk" "$T/plain"
    refused 2 'needs a value' bk-wrap --profile
    refused 2 'unknown option --prof' bk-wrap --prof orders -o "$T/no.bk" "$T/plain"
    chmod g+w "$T/bk.conf"
    refused 2 'others can write it \(mode 620\)' bk-wrap --profile orders -o "$T/no.bk" "$T/plain"
    expect_stderr 'hint: .*chmod go-w'
    chmod 600 "$T/bk.conf"
    mkdir "$T/open"
    cp "$T/bk.conf" "$T/open/"
    chmod 777 "$T/open"
    refused 2 'open: others can write into it' bk-wrap --profile orders --config "$T/open/bk.conf" -o "$T/no.bk" \
        "$T/plain"
    profiles '[p]' 'kind = monthly'
    refused 2 'bk\.conf:2: --kind: "monthly" is none of' bk-wrap --profile p -o "$T/no.bk" "$T/plain"
    profiles '[p]' 'jobs = 0'
    refused 2 'bk\.conf:2: --jobs' bk-verify --profile p "$T/a.bk"
    profiles '[p]' 'remove = xyz'
    refused 2 'bk\.conf:2: --remove' bk-rekey --profile p "$T/a.bk"
    expect_exit 0 bk-key --profile p list
    profiles '[p]' 'type = p512'
    refused 2 'bk\.conf:2: --type' bk-key --profile p list
}

# PostgreSQL must not take a profile that cannot be read for the end of its archive.
restore_command() {
    local program=(bk-unwrap --restore-command -o "$T/no.bk")
    orders
    expect_exit 1 "${program[@]}" --profile orders "$T/nothing.bk"
    refused 126 'has no profile' "${program[@]}" --profile nothing "$T/nothing.bk"
    refused 126 'No such file' "${program[@]}" --profile orders --config "$T/no-such.conf" "$T/nothing.bk"
    refused 126 'no bk program' "${program[@]}" --profile broken "$T/nothing.bk"
    profiles '[p]' 'restore-command = yes'
    refused 2 '--restore-command is for the command line only' bk-unwrap --profile p -o "$T/no.bk" "$T/nothing.bk"
}

notes() {
    orders
    printf '# private notes\r\n\nhost=db1\n  \nlocation=rack 7, left\r\nempty=\n' >"$T/notes"
    printf 'last=yes' >"$T/more"
    expect_exit 0 bk-wrap --profile orders --meta-file "$T/notes" --meta-file "$T/more" --meta first=1 -o "$T/n.bk" \
        "$T/plain"
    expect_exit 0 bk-unwrap --profile orders --meta "$T/n.bk"
    printf 'first=1\nhost=db1\nlocation=rack 7, left\nempty=\nlast=yes\n' >"$T/wanted"
    same_file "$T/wanted" "$T/stdout"
    check 'they are not to be read without a key' test "$(grep -c 'rack 7' "$T/n.bk")" -eq 0

    STDIN=$T/more expect_exit 0 bk-wrap --profile orders --meta-file - -o "$T/s.bk" "$T/plain"
    expect_exit 0 bk-unwrap --profile orders --meta "$T/s.bk"
    expect_stdout '^last=yes$'
    STDIN=$T/more refused 2 'cannot be read twice' bk-wrap --profile orders --meta-file - -o "$T/no.bk"
    STDIN=$T/more refused 2 'cannot be read twice' bk-wrap --profile orders --meta-file - --meta-file - -o "$T/no.bk" \
        "$T/plain"

    refused 2 'no-such-notes.*No such file' \
        bk-wrap --profile orders --meta-file "$T/no-such-notes" -o "$T/no.bk" "$T/plain"
    printf 'a=b\nnonsense\n' >"$T/notes"
    refused 2 'notes:2: "nonsense" is not KEY=VALUE' \
        bk-wrap --profile orders --meta-file "$T/notes" -o "$T/no.bk" "$T/plain"
    printf 'a=b\n=x\n' >"$T/notes"
    refused 2 'notes:2: "=x" is not KEY=VALUE' bk-wrap --profile orders --meta-file "$T/notes" -o "$T/no.bk" "$T/plain"
    printf 'a=b\0c\n' >"$T/notes"
    refused 2 'not a text file' bk-wrap --profile orders --meta-file "$T/notes" -o "$T/no.bk" "$T/plain"
    printf 'a=\033[2J\n' >"$T/notes"
    refused 2 'control' bk-wrap --profile orders --meta-file "$T/notes" -o "$T/no.bk" "$T/plain"
    { printf 'a='; head -c 70000 /dev/zero | tr '\0' x; } >"$T/notes"
    refused 2 'private metadata' bk-wrap --profile orders --meta-file "$T/notes" -o "$T/no.bk" "$T/plain"
    head -c 300000 /dev/zero | tr '\0' '\n' >"$T/notes"
    refused 2 'larger than' bk-wrap --profile orders --meta-file "$T/notes" -o "$T/no.bk" "$T/plain"
    # in a profile as well
    profiles "$(sed -n '/^\[orders\]/,/^$/p' "$T/bk.conf")" '[p]'
    printf 'meta-file = %s\n' "$T/more" >"$T/line"
    sed -i "/^meta = /r $T/line" "$T/bk.conf"
    expect_exit 0 bk-wrap --profile orders -o "$T/m.bk" "$T/plain"
    expect_exit 0 bk-unwrap --profile orders --meta "$T/m.bk"
    expect_stdout '^from=profile$'
    expect_stdout '^last=yes$'
}

for token in signer vault-a vault-b vault-c desk; do make_token "$token"; done
make_key signer backup p256 sign
make_key desk rotator p256 sign
make_key vault-a kek-a p256 kek
make_key vault-b kek-b p256 kek
make_key vault-c kek-c p256 kek
head -c 200000 /dev/urandom >"$T/plain"
export BK_CONFIG=$T/bk.conf
one_for_all
the_command_line_wins
refusals
restore_command
notes
finish
