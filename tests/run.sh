#!/usr/bin/env bash
# Builds bk and runs its tests, on Debian with nothing but the base system: what is missing is installed first. Leaves
# nothing outside its own folder but packages. The last line is "N passed, N failed".
#
#     tests/run.sh           unit tests (with sanitizers), tests of the programs and of other tokens than SoftHSM, the
#                            quickstart, a minute of fuzzing, lint
#     tests/run.sh --long    and tests/long/*.sh
set -euo pipefail
cd "$(dirname "$0")/.."

long=no
case ${1:-} in
'') ;;
--long) long=yes ;;
*)
    printf 'usage: tests/run.sh [--long]\n' >&2
    exit 2
    ;;
esac

passed=0
failed=0
logs=build/test-logs
export BK_BIN=$PWD/build/release
exec 3>&1

seconds() { printf '%d.%d' $(($1 / 1000)) $(($1 % 1000 / 100)); }
now() { printf '%d' $(($(date +%s%N) / 1000000)); }

# build PRESET : the end of its log is shown only if it fails; then the run is over.
build() {
    local start log=$logs/build-$1.log
    start=$(now)
    if ! { cmake --preset "$1" && cmake --build --preset "$1"; } >"$log" 2>&1; then
        tail -n 60 "$log"
        printf 'build %s: failed\n%d passed, %d failed\n' "$1" "$passed" $((failed + 1))
        exit 1
    fi
    printf 'build %-12s %6s s\n' "$1" "$(seconds $(($(now) - start)))"
}

# unit_tests : all CMocka programs, by ctest, in the build with sanitizers. Counted are the tests that each program
# reports; a program that failed without naming a failed test (a crash, a leak) counts as one.
unit_tests() {
    local log=$logs/ctest.log counts
    ctest --test-dir build/asan --no-tests=error -V -j "$(nproc)" >"$log" 2>&1 || true
    counts=$(awk '
        match($0, /^ *[0-9]+: /) { suite = $0; sub(/:.*/, "", suite); gsub(/ /, "", suite) }
        /: \[  PASSED  \] [0-9]+ test/ { sub(/.*\] /, ""); passed += $1 }
        /: \[  FAILED  \] [0-9]+ test/ { sub(/.*\] /, ""); failed += $1; named[suite] = 1 }
        /^ *[0-9]+\/[0-9]+ Test +#[0-9]+: / {
            suites++
            number = $0; sub(/^[^#]*#/, "", number); sub(/:.*/, "", number)
            name = $0; sub(/^[^:]*: /, "", name); sub(/ .*/, "", name)
            time = $(NF - 1)
            good = ($0 ~ / Passed +[0-9.]+ sec/)
            printf "unit  %-36s %6.1f s%s\n", name, time, good ? "" : "  FAILED" > "/dev/stderr"
            if (!good && !named[number]) failed++
        }
        END { if (!suites) failed++; print passed + 0, failed + 0 }' "$log" 2>&3)
    passed=$((passed + ${counts% *}))
    failed=$((failed + ${counts#* }))
    ((${counts#* } == 0)) || grep -E '\[  ERROR   \]|\[  FAILED  \]|\[   LINE   \]|ERROR: |runtime error|SUMMARY|No tests' \
        "$log" | head -80 || true
}

# run_script FILE : one test script that prints "ok - ..." and "not ok - ..." lines; its log, exit status and seconds are
# left for tally.
run_script() {
    local start status=0 log=$logs/$(basename "$1").log
    start=$(now)
    bash "$1" >"$log" 2>&1 </dev/null || status=$?
    printf '%d %d\n' "$status" $(($(now) - start)) >"$log.result"
}

# tally KIND FILE : counts what the script said.
tally() {
    local log=$logs/$(basename "$2").log status ms good bad
    read -r status ms <"$log.result"
    good=$(grep -c '^ok - ' "$log" || true)
    bad=$(grep -c '^not ok - ' "$log" || true)
    if ((bad == 0 && (status != 0 || good == 0))); then bad=1; fi
    passed=$((passed + good))
    failed=$((failed + bad))
    printf '%-5s %-36s %6s s%s\n' "$1" "$(basename "$2")" "$(seconds "$ms")" "$( ((bad == 0)) || printf '  FAILED')"
    if ((bad > 0)); then
        grep -A 20 '^not ok - ' "$log" || tail -n 40 "$log"
    fi
}

# quickstart : one test, for it has one answer.
quickstart() {
    local start log=$logs/quickstart.log result=passed
    start=$(now)
    bash softhsm-conf/quickstart.sh >"$log" 2>&1 </dev/null || result=FAILED
    printf '%-5s %-36s %6s s%s\n' show softhsm-conf/quickstart.sh "$(seconds $(($(now) - start)))" \
        "$([[ $result == passed ]] || printf '  FAILED')"
    if [[ $result == passed ]]; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        tail -n 60 "$log"
    fi
}

# scripts KIND JOBS FILE... : JOBS of them at a time; they share nothing but the programs.
scripts() {
    local kind=$1 jobs=$2 file
    shift 2
    for file in "$@"; do
        while (($(jobs -rp | wc -l) >= jobs)); do wait -n; done
        run_script "$file" &
    done
    wait
    for file in "$@"; do tally "$kind" "$file"; done
}

bash tests/setup.sh tokens fuzz lint
mkdir -p "$logs"
build asan
build release
unit_tests
scripts cli "$(nproc)" tests/cli/*_test.sh
scripts token 1 tests/tokens/*_test.sh
quickstart
scripts fuzz 1 tests/fuzz/run.sh
scripts lint 1 tests/lint.sh
[[ $long == no ]] || scripts long 1 tests/long/*.sh

printf '%d passed, %d failed\n' "$passed" "$failed"
((failed == 0 && passed > 0))
