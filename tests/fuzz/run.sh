#!/usr/bin/env bash
# Builds the fuzzers and lets each run for a while, as many at a time as there are cores. Each starts from seeds made
# anew (fuzz_seeds), from tests/fuzz/corpus.tar.xz (keep.sh) and from what earlier runs on this machine found. An input
# that breaks a property, crashes, leaks, hangs or eats memory is kept, and the run fails.
#
#     tests/fuzz/run.sh [SECONDS]       for each; those in $riskiest get three times as many (default 2)
#     BK_FUZZ_ONLY="uri pem" tests/fuzz/run.sh 60
set -euo pipefail
cd "$(dirname "$0")/../.."

each=${1:-2}
seed=$(($# == 0)) # a short run finds what it found before; a long one, whose seed 0 stands for a new one, looks elsewhere
riskiest=' archive envelope signed record '
programs=build/fuzz/tests/fuzz
work=build/fuzz/work
kept=build/fuzz/crashes
failures=0

[[ $each =~ ^[0-9]+$ && $each -gt 0 ]] || { printf 'usage: tests/fuzz/run.sh [SECONDS]\n' >&2; exit 2; }
ulimit -c 0
# much memory is asked for and freed again: a short quarantine keeps the pages in use
export ASAN_OPTIONS=quarantine_size_mb=8:malloc_context_size=8

build() {
    local log=build/fuzz/build.log
    mkdir -p build/fuzz
    if ! { cmake --preset fuzz && cmake --build --preset fuzz --target fuzzers; } >"$log" 2>&1; then
        tail -n 40 "$log"
        printf 'not ok - the fuzzers build\n'
        exit 1
    fi
}

names() {
    local source name
    for source in tests/fuzz/*_fuzz.c; do
        name=$(basename "$source" _fuzz.c)
        [[ -n ${BK_FUZZ_ONLY:-} && " $BK_FUZZ_ONLY " != *" $name "* ]] || printf '%s\n' "$name"
    done
}

# fuzz NAME : one fuzzer; what it says goes to its log, its exit status to NAME.status.
fuzz() {
    local name=$1 seconds=$each status=0 max_len=20000 folder
    local folders=("$work/$name")
    [[ $riskiest != *" $name "* ]] || seconds=$((3 * each))
    [[ $name != archive && $name != frames ]] || max_len=160000 # two groups of segments
    for folder in "$work/seeds/$name" "build/fuzz/corpus/$name"; do
        [[ ! -d $folder ]] || folders+=("$folder")
    done
    mkdir -p "$work/$name"
    "$programs/${name}_fuzz" -seed="$seed" -max_total_time="$seconds" -timeout=25 -rss_limit_mb=3072 -max_len="$max_len" \
        -print_final_stats=1 -artifact_prefix="$kept/$name-" "${folders[@]}" >"$work/$name.log" 2>&1 </dev/null ||
        status=$?
    printf '%d\n' "$status" >"$work/$name.status"
}

# from NAME EXPRESSION : the last match of what stands in the parentheses, or 0.
from() {
    local found
    found=$(sed -nE "s/$2/\\1/p" "$work/$1.log" | tail -n 1)
    printf '%s' "${found:-0}"
}

# What a failed run leaves: its last words, the input, and how to run it again.
explain() {
    local name=$1 input
    input=$(sed -nE 's/.*Test unit written to (.*)/\1/p' "$work/$name.log" | tail -n 1)
    grep -aE 'does not hold|^code [0-9]|ERROR:|runtime error|SUMMARY|^    #[0-9]' "$work/$name.log" | head -n 30 |
        sed 's/^/# /' || true
    if [[ -n $input ]]; then
        printf '# the input: %s; again: %s/%s_fuzz %s\n' "$PWD/$input" "$PWD/$programs" "$name" "$PWD/$input"
    else
        printf '# no input was kept; its log: %s\n' "$PWD/$work/$name.log"
    fi
}

# A fuzzer that ran nothing, or whose parser took nothing at all, tests nothing.
judge() {
    local name=$1 status runs taken edges features
    status=$(<"$work/$name.status")
    runs=$(from "$name" 'stat::number_of_executed_units: ([0-9]+)')
    taken=$(from "$name" 'accepted: ([0-9]+)')
    edges=$(from "$name" '.* cov: ([0-9]+) .*')
    features=$(from "$name" '.* ft: ([0-9]+) .*')
    if ((status == 0 && runs > 0 && taken > 0)); then
        printf 'ok - fuzz %s: %d executions, %d accepted, %d edges covered, %d features\n' \
            "$name" "$runs" "$taken" "$edges" "$features"
        return
    fi
    failures=$((failures + 1))
    printf 'not ok - fuzz %s: exit status %d, %d executions, %d accepted\n' "$name" "$status" "$runs" "$taken"
    explain "$name"
}

build
mapfile -t fuzzers < <(names)
mkdir -p "$work" "$kept"
rm -rf "$work/seeds" "$work"/*.status
"$programs/fuzz_seeds" "$work/seeds"
rm -rf build/fuzz/corpus
mkdir -p build/fuzz/corpus
tar -C build/fuzz/corpus -xJf tests/fuzz/corpus.tar.xz
for name in "${fuzzers[@]}"; do
    while (($(jobs -rp | wc -l) >= $(nproc))); do wait -n; done
    fuzz "$name" &
done
wait
for name in "${fuzzers[@]}"; do judge "$name"; done
((failures == 0 && ${#fuzzers[@]} > 0))
