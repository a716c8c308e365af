#!/usr/bin/env bash
# Rotation: what bk-rekey changes and what it never touches, who may do it, what it refuses, and that an archive opens
# at every instant of it.
set -euo pipefail
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
umask 077

edit() { /usr/bin/python3 "$ROOT/tests/cli/archive_edit.py" "$@"; }

make_token signer
make_token kek
make_token away
make_key signer backup p256 sign
make_key signer rotator p256 sign
make_key kek ec p256 kek
make_key kek ec384 p384 kek
make_key kek rsa rsa3072 kek
make_key kek aes aes256 kek
make_key kek aes2 aes256 kek
make_key away aes3 aes256 kek
make_key away spare p256 kek
ec=$(key_uri kek ec)
ec384=$(key_uri kek ec384)
rsa=$(key_uri kek rsa)
aes=$(key_uri kek aes)
aes2=$(key_uri kek aes2)
aes3=$(key_uri away aes3)
spare=$(key_uri away spare)
backup=$(key_uri signer backup)
rotator=$(key_uri signer rotator)
trust=(-t "$T/backup.pem" -t "rotate:$T/rotator.pem")
rekey=(bk-rekey -s "$rotator" "${trust[@]}")
head -c 100001 /dev/urandom >"$T/plain"

# key_id TOKEN OBJECT
key_id() { bk-key show "$(key_uri "$1" "$2")" 2>/dev/null | awk '/private key|secret key/ { print $NF; exit }'; }

# wrap NAME RECIPIENT...
wrap() {
    local name=$1 r
    local -a recipients=()
    shift
    for r in "$@"; do recipients+=(-r "$r"); done
    bk-wrap -q --force "${recipients[@]}" -s "$backup" -o "$T/$name" "$T/plain" 2>"$T/stderr" || fail "bk-wrap $name"
}

opens() {
    rm -f "$T/out"
    expect_exit 0 bk-unwrap "${trust[@]}" -k "$1" -o "$T/out" "$2"
    same_file "$T/plain" "$T/out"
}

# opens_not KEY ARCHIVE : the archive is in order, but this key is no recipient of it.
opens_not() {
    rm -f "$T/out"
    expect_exit 3 bk-unwrap "${trust[@]}" -k "$1" -o "$T/out" "$2"
    no_file "$T/out"
}

valid() { expect_exit 0 bk-verify "${trust[@]}" "$1"; }

# json_has MEMBER VALUE : in the one line that the last command printed.
json_has() { expect_stdout "\"$1\":$2[,}]"; }

# only_slots_changed BEFORE AFTER : payload and manifest are untouched, and both slots, which are the same, are new.
only_slots_changed() {
    local changed
    changed=$(edit parts "$1" "$2")
    check "only the slots changed: $changed" test "$changed" = 'slotA slotB'
    at_rest "$2"
}

# at_rest ARCHIVE : both slots are the same.
at_rest() {
    local size
    size=$(od -An -tu4 --endian=big -j 12 -N 4 "$1" | tr -d ' ')
    check 'both slots are the same' cmp -s -n "$size" -i "4096:$((4096 + size))" "$1" "$1"
}

# unchanged BEFORE AFTER : to the byte, and not even written.
unchanged() {
    same_file "$1" "$2"
    check 'not written' test ! "$2" -nt "$T/stamp"
}

# keep NAME : a copy to compare with; writes after it are seen by the file's time.
keep() {
    cp "$T/$1" "$T/before.bk"
    touch -d '2 hours ago' "$T/$1"
    touch -d '1 hour ago' "$T/stamp"
}

# --- one key in the place of another ------------------------------------------------------------------------------

# rotates FROM TO BLINDNESS ARG... : and doing it again changes nothing.
rotates() {
    local from=$1 to=$2 blindness=$3
    shift 3
    printf '\n# %s to %s, %s %s\n' "$from" "$to" "$blindness" "$*"
    wrap a.bk "${!from}"
    keep a.bk
    expect_exit 0 "${rekey[@]}" --json --from "${!from}" --to "${!to}" "$@" "$T/a.bk"
    json_has status '"ok"'
    json_has changed true
    json_has oldStays false
    json_has generation 2
    json_has blindness "\"$blindness\""
    only_slots_changed "$T/before.bk" "$T/a.bk"
    expect_exit 0 bk-verify --show "${trust[@]}" "$T/a.bk"
    expect_stdout "generation +2, .*blindness $blindness\$"
    expect_stdout "past key +$(key_id kek "$from") in generation 1"
    opens "${!to}" "$T/a.bk"
    opens_not "${!from}" "$T/a.bk"
    keep a.bk
    expect_exit 0 "${rekey[@]}" --json --from "${!from}" --to "${!to}" "$@" "$T/a.bk"
    json_has changed false
    json_has mended false
    json_has bytesWritten 0
    unchanged "$T/before.bk" "$T/a.bk"
}
rotates ec ec384 host
rotates rsa ec host
rotates ec aes host
rotates aes aes2 hostBlind
rotates aes aes2 hostBlind --blind required
rotates aes aes2 host --blind off
rotates aes aes3 host

# refuses CODE PATTERN ARG... : bk-rekey ARG... ends so and leaves $T/a.bk as it was.
refuses() {
    local code=$1 pattern=$2
    shift 2
    keep a.bk
    expect_exit "$code" "$@"
    expect_stderr "error: .*$pattern"
    unchanged "$T/before.bk" "$T/a.bk"
}

printf '\n# what cannot be blind is refused if it must be\n'
wrap a.bk "$aes"
refuses 4 '--blind required forbids' "${rekey[@]}" --blind required --from "$aes" --to "$aes3" "$T/a.bk"
expect_stderr 'hint: .*two AES keys on one token'
refuses 4 '--blind required forbids' "${rekey[@]}" --blind required --from "$aes" --to "$ec" "$T/a.bk"
refuses 4 '--blind required forbids' "${rekey[@]}" --blind required --from "$aes" --add "$aes2" "$T/a.bk"
wrap a.bk "$aes" "$ec"
refuses 4 '--blind required forbids' "${rekey[@]}" --blind required --from "$aes" --remove "$(key_id kek ec)" "$T/a.bk"
wrap a.bk "$aes"
refuses 2 'the very key that opens' "${rekey[@]}" --from "$aes" --to "$aes" "$T/a.bk"

printf '\n# a blind rotation does not see whose ciphertext it is, and helps nobody: the archive stays refused\n'
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=thief -days 30 -keyout "$T/thief.key" \
    -out "$T/thief.pem" 2>/dev/null
edit resign "$T/a.bk" "$T/x.bk" plain "$T/thief.key" "$T/thief.pem"
expect_exit 1 "${rekey[@]}" -t "$T/thief.pem" --blind off --from "$aes" --to "$aes2" "$T/x.bk"
expect_stderr 'error: .*somebody signed a stolen ciphertext'
expect_exit 0 "${rekey[@]}" -t "$T/thief.pem" --blind required --from "$aes" --to "$aes2" "$T/x.bk"
rm -f "$T/out"
expect_exit 1 bk-unwrap "${trust[@]}" -t "$T/thief.pem" -k "$aes2" -o "$T/out" "$T/x.bk"
expect_stderr 'error: .*somebody signed a stolen ciphertext'
no_file "$T/out"

# --- a PEM file as the new key ------------------------------------------------------------------------------------

printf '\n# --to PEM: the old key stays until the new one was seen to open the archive\n'
wrap a.bk "$ec"
cp "$T/a.bk" "$T/first.bk"
expect_exit 0 "${rekey[@]}" --json --from "$ec" --to "$T/ec384.pem" "$T/a.bk"
expect_stderr 'warning: .*was not seen to open the archive, so the old one stays'
json_has oldStays true
json_has changed true
opens "$ec" "$T/a.bk"
opens "$ec384" "$T/a.bk"
keep a.bk
expect_exit 0 "${rekey[@]}" --json --from "$ec" --to "$T/ec384.pem" "$T/a.bk"
json_has oldStays true
json_has changed false
unchanged "$T/before.bk" "$T/a.bk"
expect_exit 0 "${rekey[@]}" --json --from "$ec" --to "$ec384" "$T/a.bk"
json_has oldStays false
json_has generation 3
opens "$ec384" "$T/a.bk"
opens_not "$ec" "$T/a.bk"
at_rest "$T/a.bk"

cp "$T/first.bk" "$T/a.bk"
expect_exit 0 "${rekey[@]}" --json --unproven --reason 'provider is gone' --from "$ec" --to "$T/ec384.pem" "$T/a.bk"
json_has oldStays false
opens_not "$ec" "$T/a.bk"
opens "$ec384" "$T/a.bk"
expect_exit 0 bk-verify --show "${trust[@]}" "$T/a.bk"
expect_stdout 'reason +provider is gone'
cat "$T/ec.pem" "$T/ec384.pem" >"$T/two.pem"
cp "$T/first.bk" "$T/a.bk"
refuses 2 'holds 2 keys' "${rekey[@]}" --from "$ec" --to "$T/two.pem" "$T/a.bk"

# --- beside, and away ---------------------------------------------------------------------------------------------

printf '\n# --add grants reading, --remove takes it\n'
expect_exit 0 "${rekey[@]}" --from "$ec" --add "$spare" --add "$T/rsa.pem" "$T/a.bk"
expect_stderr 'warning: .*granted reading'
for key in "$ec" "$spare" "$rsa"; do opens "$key" "$T/a.bk"; done
keep a.bk
expect_exit 0 "${rekey[@]}" --from "$ec" --add "$spare" --add "$T/rsa.pem" "$T/a.bk"
unchanged "$T/before.bk" "$T/a.bk"
expect_exit 0 "${rekey[@]}" --from "$ec" --remove "$(key_id kek rsa)" --remove "$(key_id away spare)" "$T/a.bk"
opens "$ec" "$T/a.bk"
opens_not "$rsa" "$T/a.bk"
opens_not "$spare" "$T/a.bk"
refuses 4 'nobody is left who was seen to open' "${rekey[@]}" --from "$ec" --remove "$(key_id kek ec)" "$T/a.bk"
refuses 4 'no recipient would be left' "${rekey[@]}" --unproven --from "$ec" --remove "$(key_id kek ec)" "$T/a.bk"
keep a.bk
expect_exit 0 "${rekey[@]}" --from "$ec" --remove "$(key_id away aes3)" "$T/a.bk"
expect_stderr 'warning: .*is no recipient of it'
unchanged "$T/before.bk" "$T/a.bk"
printf '# who removes itself must leave somebody who was seen to open the archive\n'
expect_exit 0 "${rekey[@]}" --from "$ec" --add "$T/spare.pem" "$T/a.bk"
refuses 4 'nobody is left who was seen to open' "${rekey[@]}" --from "$ec" --remove "$(key_id kek ec)" "$T/a.bk"
expect_exit 0 "${rekey[@]}" --from "$ec" --add "$spare" --remove "$(key_id kek ec)" "$T/a.bk"
opens "$spare" "$T/a.bk"
opens_not "$ec" "$T/a.bk"
cp "$T/first.bk" "$T/a.bk"
refuses 2 'is no key id' "${rekey[@]}" --from "$ec" --remove nonsense "$T/a.bk"

# --- who may, and what is checked first ---------------------------------------------------------------------------

printf '\n# the rotator must be trusted as one\n'
refuses 1 'signed by sha256:[0-9a-f]{64}, which is not trusted' bk-rekey -s "$rotator" -t "$T/backup.pem" --from "$ec" \
    --to "$ec384" "$T/a.bk"
expect_stderr 'hint: .*-t rotate:sha256:'
refuses 1 'trusted, but not in this role' bk-rekey -s "$backup" -t "$T/backup.pem" --from "$ec" --to "$ec384" "$T/a.bk"
refuses 1 'trusted, but not in this role' bk-rekey -s "$rotator" -t "$T/backup.pem" -t "verify:$T/rotator.pem" \
    --from "$ec" --to "$ec384" "$T/a.bk"
refuses 1 'manifest: signed by' bk-rekey -s "$rotator" -t "rotate:$T/rotator.pem" --from "$ec" --to "$ec384" "$T/a.bk"
refuses 2 'whom to trust' bk-rekey -s "$rotator" --from "$ec" --to "$ec384" "$T/a.bk"
expect_exit 0 bk-rekey -s "$rotator" -t "$T/backup.pem" -t "officer:$T/rotator.pem" --from "$ec" --to "$ec384" "$T/a.bk"
cp "$T/first.bk" "$T/a.bk"
refuses 3 '' "${rekey[@]}" --from "$rsa" --to "$ec384" "$T/a.bk"

printf '\n# --dry-run does everything but the writing, on a file that cannot be written too\n'
keep a.bk
expect_exit 0 "${rekey[@]}" --dry-run --json --from "$ec" --to "$ec384" "$T/a.bk"
json_has dryRun true
json_has changed true
json_has bytesWritten 0
unchanged "$T/before.bk" "$T/a.bk"
refuses 1 'not trusted' bk-rekey --dry-run -s "$rotator" -t "$T/backup.pem" --from "$ec" --to "$ec384" "$T/a.bk"

printf '\n# what cannot be read or written\n'
expect_exit 5 "${rekey[@]}" --from "$ec" --to "$ec384" "$T/absent.bk"
expect_stderr 'error: .*absent.bk.*No such file'
expect_exit 5 "${rekey[@]}" --from "$ec" --to "$ec384" "$T"
expect_stderr 'error: .*(not an ordinary file|Is a directory)'
# root may write everything, so that another user is needed
if ((EUID == 0)); then
    chmod 711 "$T"
    mkdir -m 755 "$T/nobody"
    cp "$T/a.bk" "$T/nobody/a.bk"
    cp "$T/backup.pem" "$T/rotator.pem" "$T/nobody/"
    cp -r "$T/tokens" "$T/nobody/tokens"
    cp "$T/signer.pin" "$T/kek.pin" "$T/nobody/"
    printf 'directories.tokendir = %s\nobjectstore.backend = file\nlog.level = ERROR\n' "$T/nobody/tokens" \
        >"$T/nobody/tokens.conf"
    chown -R nobody "$T/nobody"
    chown root "$T/nobody/a.bk"
    chmod 444 "$T/nobody/a.bk"
    as_nobody=(runuser -u nobody -- env "SOFTHSM2_CONF=$T/nobody/tokens.conf" "PATH=$PATH" HOME=/nonexistent)
    in_there() { printf '%s' "${1/"$T"/"$T/nobody"}"; }
    before=$(sha256sum <"$T/nobody/a.bk")
    expect_exit 5 "${as_nobody[@]}" bk-rekey -s "$(in_there "$rotator")" -t "$T/nobody/backup.pem" \
        -t "rotate:$T/nobody/rotator.pem" --from "$(in_there "$ec")" --to "$(in_there "$ec384")" "$T/nobody/a.bk"
    expect_stderr 'error: .*a\.bk.*(Permission denied|Read-only)'
    expect_stderr 'hint: .*write'
    check 'unchanged' test "$before" = "$(sha256sum <"$T/nobody/a.bk")"
    expect_exit 0 "${as_nobody[@]}" bk-rekey --dry-run -s "$(in_there "$rotator")" -t "$T/nobody/backup.pem" \
        -t "rotate:$T/nobody/rotator.pem" --from "$(in_there "$ec")" --to "$(in_there "$ec384")" "$T/nobody/a.bk"
    chmod 700 "$T"
else
    chmod 400 "$T/a.bk"
    refuses 5 'a\.bk.*(Permission denied|Read-only)' "${rekey[@]}" --from "$ec" --to "$ec384" "$T/a.bk"
    expect_stderr 'hint: .*write'
    chmod 600 "$T/a.bk"
fi

# --- many archives ------------------------------------------------------------------------------------------------

printf '\n# a batch goes on after a failure, and says which\n'
for i in 1 2 3 4 5; do cp "$T/first.bk" "$T/batch$i.bk"; done
flip "$T/batch3.bk" $(($(stat -c %s "$T/batch3.bk") - 20))
cp "$T/batch3.bk" "$T/before.bk"
batch=("$T"/batch{1,2,3,4,5}.bk)
expect_exit 1 "${rekey[@]}" "--json=$T/json" --from "$ec" --to "$ec384" "${batch[@]}"
expect_stderr 'error: .*batch3\.bk: tail'
same_file "$T/before.bk" "$T/batch3.bk"
lines_of() { /usr/bin/python3 -c 'import json, sys
for line in open(sys.argv[1]):
    o = json.loads(line)
    name = o["archive"].rsplit("/", 1)[1]
    print(name, o["status"], o["code"], o["layer"], o["generation"], o.get("changed"))' "$1"; }
printf '%s\n' 'batch1.bk ok 0 None 2 True' 'batch2.bk ok 0 None 2 True' 'batch3.bk failed 1 tail None None' \
    'batch4.bk ok 0 None 2 True' 'batch5.bk ok 0 None 2 True' >"$T/expected"
lines_of "$T/json" >"$T/lines"
same_file "$T/expected" "$T/lines"
for i in 1 2 4 5; do opens "$ec384" "$T/batch$i.bk"; done
expect_exit 6 "${rekey[@]}" "--json=$T/json" --from "$ec384" --to "$ec" "$T/batch1.bk" "$T/absent.bk" "$T/batch2.bk"
printf '%s\n' 'batch1.bk ok 0 None 3 True' 'absent.bk failed 5 file None None' 'batch2.bk ok 0 None 3 True' \
    >"$T/expected"
lines_of "$T/json" >"$T/lines"
same_file "$T/expected" "$T/lines"

# --- damaged and interrupted --------------------------------------------------------------------------------------

printf '\n# a damaged slot is no obstacle, and mended\n'
slot_size=$(od -An -tu4 --endian=big -j 12 -N 4 "$T/first.bk" | tr -d ' ')
for byte in 4200 $((4200 + slot_size)); do
    cp "$T/first.bk" "$T/a.bk"
    flip "$T/a.bk" "$byte"
    expect_exit 0 "${rekey[@]}" --json --from "$ec" --to "$ec384" "$T/a.bk"
    json_has changed true
    json_has mended true
    valid "$T/a.bk"
    at_rest "$T/a.bk"
    flip "$T/a.bk" "$byte"
    expect_exit 0 "${rekey[@]}" --json --from "$ec" --to "$ec384" "$T/a.bk"
    json_has changed false
    json_has mended true
    valid "$T/a.bk"
    at_rest "$T/a.bk"
done

printf '\n# interrupted between the two slots: the new key opens it, with a warning, and the next run finishes\n'
edit slots-of "$T/a.bk" "$T/first.bk" "$T/x.bk" a
expect_exit 0 bk-verify "${trust[@]}" "$T/x.bk"
expect_stderr 'warning: .*slots differ'
opens "$ec384" "$T/x.bk"
opens_not "$ec" "$T/x.bk"
expect_exit 0 "${rekey[@]}" --json --from "$ec" --to "$ec384" "$T/x.bk"
json_has changed false
json_has mended true
same_file "$T/a.bk" "$T/x.bk"

# opened_by : which of the two keys opens $T/k.bk, whole: old, new or none
opened_by() {
    rm -f "$T/out"
    if ! bk-unwrap -q "--json=$T/json" "${trust[@]}" -k "$ec" -k "$ec384" -o "$T/out" "$T/k.bk" 2>"$T/stderr" ||
        ! cmp -s "$T/plain" "$T/out"; then
        printf none
    elif grep -q "\"openedBy\":\"$ec_id\"" "$T/json"; then
        printf old
    else
        grep -q "\"openedBy\":\"$ec384_id\"" "$T/json" && printf new
    fi
}
ec_id=$(key_id kek ec)
ec384_id=$(key_id kek ec384)

# fresh_tokens : SoftHSM writes a token's file at every login, and not in one piece: killed in there it loses the token.
# So what is killed has tokens of its own.
fresh_tokens() {
    rm -rf "$T/killed"
    cp -r "$T/tokens" "$T/killed"
}
sed "s#$T/tokens#$T/killed#" "$T/tokens.conf" >"$T/killed.conf"

# finishes : the run after a killed one ends the work: both slots the same, the new key opens it, and the old one does
# not.
finishes() {
    expect_exit 0 "${rekey[@]}" --from "$ec" --to "$ec384" "$T/k.bk"
    valid "$T/k.bk"
    at_rest "$T/k.bk"
    opens "$ec384" "$T/k.bk"
    opens_not "$ec" "$T/k.bk"
}

printf '\n# killed at each moment of its writes\n'
cc -shared -fPIC -O1 -o "$T/kill_at_write.so" "$ROOT/tests/cli/kill_at_write.c" -ldl
moments=0
seen=''
for ((at = 1; at <= 50; at++)); do
    cp "$T/first.bk" "$T/k.bk"
    fresh_tokens
    status=0
    (exec env "SOFTHSM2_CONF=$T/killed.conf" "LD_PRELOAD=$T/kill_at_write.so" "BK_KILL_AT=$at" \
        "${rekey[@]}" -q --from "$ec" --to "$ec384" "$T/k.bk" 2>"$T/stderr") || status=$?
    ((status != 0)) || break
    moments=$at
    check "killed at moment $at" test "$status" -eq 137
    by=$(opened_by)
    # the old key first, and from some moment on the new one
    case $seen/$by in
    /old | old/old | old/new | new/new) pass "moment $at: opened by the $by key" ;;
    *) fail "moment $at: opened by $by, before it by $seen" ;;
    esac
    seen=$by
    expect_exit 0 "${rekey[@]}" -q --from "$ec" --to "$ec384" "$T/k.bk"
    valid "$T/k.bk"
    at_rest "$T/k.bk"
done
finishes
check 'moments within both writes of a slot' test "$moments" -ge 8
check 'the last moment is after the change' test "$seen" = new

# The moments are spread over what a whole run takes, so that they fall before, between and after its writes.
printf '\n# killed forty times, whenever\n'
cp "$T/first.bk" "$T/k.bk"
start=$(date +%s%N)
"${rekey[@]}" -q --from "$ec" --to "$ec384" "$T/k.bk" 2>"$T/stderr"
took=$((($(date +%s%N) - start) / 1000))
seen_old=0 seen_new=0
for ((i = 1; i <= 40; i++)); do
    cp "$T/first.bk" "$T/k.bk"
    fresh_tokens
    SOFTHSM2_CONF=$T/killed.conf "${rekey[@]}" -q --from "$ec" --to "$ec384" "$T/k.bk" 2>/dev/null &
    pid=$!
    at=$((took * (30 + 90 * i / 40) / 100))
    sleep "$(printf '%d.%06d' $((at / 1000000)) $((at % 1000000)))"
    kill -KILL "$pid" 2>/dev/null || true
    wait "$pid" 2>/dev/null || true
    by=$(opened_by)
    case $by in
    old) seen_old=$((seen_old + 1)) ;;
    new) seen_new=$((seen_new + 1)) ;;
    *) fail "killed after $at us: opened by $by" && continue ;;
    esac
    pass "killed after $at us of $took: opened by the $by key"
done
printf '# opened by the old key %d times, by the new one %d times\n' "$seen_old" "$seen_new"
finishes

printf '\n# two at once on one archive wait for each other\n'
cp "$T/first.bk" "$T/a.bk"
for _ in 1 2 3; do
    # each with tokens of its own: SoftHSM shows a token that is broken to whoever looks while another process logs in
    fresh_tokens
    SOFTHSM2_CONF=$T/killed.conf "${rekey[@]}" -q --from "$ec" --add "$spare" "$T/a.bk" 2>"$T/stderr.1" &
    first=$!
    "${rekey[@]}" -q --from "$ec" --add "$T/rsa.pem" "$T/a.bk" 2>"$T/stderr.2" &
    second=$!
    check 'the first of two at once' wait "$first"
    check 'the second of two at once' wait "$second"
    valid "$T/a.bk"
    at_rest "$T/a.bk"
    for key in "$ec" "$spare" "$rsa"; do opens "$key" "$T/a.bk"; done
    cp "$T/first.bk" "$T/a.bk"
done

# --- until the slot is full ---------------------------------------------------------------------------------------

printf '\n# rotated again and again, until the slot is full: then nothing is changed, and the archive still opens\n'
# 31 others, so that each generation takes much of the slot: docs/FORMAT.md says "with 32 about 20"
for ((i = 0; i < 31; i++)); do
    openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 2>/dev/null | openssl pkey -pubout
done >"$T/others.pem"
wrap full.bk "$aes" "$T/others.pem"
from=$aes to=$aes2 status=0 count=0
while ((count < 100)); do
    cp "$T/full.bk" "$T/before.bk"
    bk-rekey -q -s "$rotator" "${trust[@]}" --from "$from" --to "$to" "$T/full.bk" 2>"$T/stderr" || status=$?
    ((status == 0)) || break
    count=$((count + 1))
    held=$from from=$to to=$held
done
printf '# %d rotations\n' "$count"
check 'exit status 5 when it is full' test "$status" -eq 5
check 'after about 20 rotations' test "$count" -ge 18
expect_stderr 'error: .*full\.bk: '
expect_stderr 'hint: '
same_file "$T/before.bk" "$T/full.bk"
valid "$T/full.bk"
opens "$from" "$T/full.bk"
expect_exit 0 bk-verify --show --json "${trust[@]}" "$T/full.bk"
json_has generation "$((count + 1))"
check 'the history names every generation' test \
    "$(/usr/bin/python3 -c 'import json, sys; print(len(json.load(sys.stdin)["history"]))' <"$T/stdout")" -eq "$count"

finish
