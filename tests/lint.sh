#!/usr/bin/env bash
# What a machine can say about the C code without running it: layout, clang-tidy, cppcheck, gcc's analyzer, the directions
# of includes, and lengths. Needs the packages of `tests/setup.sh lint`.
set -euo pipefail
cd "$(dirname "$0")/.."

file_lines=900
function_lines=80
median_lines=20 # of all functions but those of tests
main_lines=40
folders=(base format pkcs11 worker store ops cmd)
out=build/lint
failures=0

pass() { printf 'ok - %s\n' "$*"; }

# fail WHAT : what was found comes on standard input.
fail() {
    failures=$((failures + 1))
    printf 'not ok - %s\n' "$*"
    head -n 40 | sed 's/^/# /'
}

# verdict WHAT FILE : passes if nothing was found.
verdict() {
    if [[ -s $2 ]]; then fail "$1" <"$2"; else pass "$1"; fi
}

sources() { find "${folders[@]}" -name '*.c' | sort; }
all_c() { find "${folders[@]}" tests -name '*.[ch]' | sort; }

# clang-format has no list of files that differ; each is asked.
check_format() {
    all_c | xargs -P "$(nproc)" -n 1 sh -c 'clang-format --dry-run -Werror "$0" >/dev/null 2>&1 || echo "$0"' |
        sort >"$out/format"
    verdict "clang-format: every file is laid out as .clang-format says ($(wc -l <"$out/format") of $(all_c | wc -l) are not)" \
        "$out/format"
}

# The flags of each file come from a build; include paths and macros are all that is wanted of them.
check_tidy() {
    local status=0
    cmake --preset dev >"$out/cmake.log" 2>&1 || { fail 'clang-tidy: the build can be configured' <"$out/cmake.log"; return; }
    # base/err.c is what analyzer.h speaks of
    sources | grep -vx base/err.c | xargs -P "$(nproc)" -n 6 clang-tidy -p build/dev --quiet \
        --extra-arg=-include --extra-arg=tests/lint/analyzer.h --extra-arg=-I. >"$out/tidy" 2>"$out/tidy.err" || status=1
    clang-tidy -p build/dev --quiet base/err.c >>"$out/tidy" 2>>"$out/tidy.err" || status=1
    if ((status == 0)); then
        pass "clang-tidy: $(sources | wc -l) files"
    else
        { grep -E '(warning|error):' "$out/tidy" | sort -u; grep -E 'error' "$out/tidy.err" || true; } |
            fail 'clang-tidy: nothing to say'
    fi
}

# Off: libraries' headers, which are not given; legacyUninitvar, which takes {.mechanism = ...} for no value of a variable
# of that name, and which both compilers' own analysis is better at.
check_cppcheck() {
    local status=0
    sources >"$out/cppcheck.files"
    cppcheck --std=c11 --enable=warning,performance,portability --inline-suppr --quiet --error-exitcode=1 -j "$(nproc)" \
        --suppress=missingInclude --suppress=missingIncludeSystem --suppress=legacyUninitvar \
        --template='{file}:{line}: {severity}: {message} [{id}]' -D_GNU_SOURCE -D__linux__ '-DBK_PROJECT_VERSION=""' -I. \
        --file-list="$out/cppcheck.files" >"$out/cppcheck" 2>&1 || status=1
    if ((status == 0)); then pass 'cppcheck: nothing to say'; else fail 'cppcheck: nothing to say' <"$out/cppcheck"; fi
}

# What gcc's analyzer finds must be what tests/lint/fanalyzer.known has, no more and no less; compared are the kinds of
# findings in each file. Of base/err.c analyzer.h speaks.
check_analyzer() {
    rm -rf "$out/analyzer.raw"
    mkdir "$out/analyzer.raw"
    # shellcheck disable=SC2016
    sources | grep -vx base/err.c | xargs -P "$(nproc)" -n 1 sh -c 'gcc -std=c17 -O1 -D_GNU_SOURCE \
        -D_FILE_OFFSET_BITS=64 "-DBK_PROJECT_VERSION=\"\"" -I. -isystem /usr/include/p11-kit-1 \
        -include tests/lint/analyzer.h -fanalyzer -fdiagnostics-plain-output -S -o /dev/null "$1" \
        >"$0/$(echo "$1" | tr / -)" 2>&1' "$out/analyzer.raw" || true
    sed -nE -e 's/^([^:]*):[0-9]+:[0-9]+: warning: .*\[(-W[a-z-]*)\]$/\1: \2/p' \
        -e 's/^([^:]*):[0-9]+:[0-9]+: ((fatal )?error: .*)$/\1: \2/p' "$out"/analyzer.raw/* |
        sort -u >"$out/analyzer"
    grep -v '^#' tests/lint/fanalyzer.known | sort -u | diff - "$out/analyzer" >"$out/analyzer.diff" || true
    verdict 'gcc -fanalyzer: what is known and looked at, and nothing else' "$out/analyzer.diff"
}

# allowed FOLDER : what its files may include, docs/ARCHITECTURE.md.
allowed() {
    case $1 in
    base) echo 'base' ;;
    format | pkcs11 | store) echo "base|$1" ;;
    worker) echo 'base|pkcs11|worker' ;;
    ops) echo 'base|format|pkcs11|store|ops' ;;
    cmd/bk-token-worker) echo 'base|worker' ;;
    cmd/common) echo 'base|format|pkcs11|store|ops|cmd/common' ;;
    cmd/*) echo "base|format|pkcs11|store|ops|cmd/common|$1" ;;
    esac
}

# Each file of a folder once, with the lines that include what that folder must not know.
check_includes() {
    local folder
    for folder in base format pkcs11 worker store ops cmd/*/; do
        folder=${folder%/}
        grep -HnE '^#include "' "$folder"/*.[ch] | grep -vE "#include \"($(allowed "$folder"))/[^/]*\"" || true
    done >"$out/includes"
    verdict 'includes run in one direction, from cmd/ down to base/' "$out/includes"
}

# Only code under cmd/ prints, prompts or exits; what returns from a fork leaves by _exit.
check_voices() {
    grep -HnE '(^|[^a-zA-Z0-9_])(printf|vprintf|puts|putchar|perror|exit|getopt|getopt_long|getpass)\(|std(out|err)\b' \
        base/*.c format/*.c pkcs11/*.c worker/*.c store/*.c ops/*.c | grep -vE '^[^:]*:[0-9]*: *(/?\*|//)' >"$out/voices" || true
    verdict 'nothing below cmd/ prints or exits' "$out/voices"
}

# functions : lines, file and name of each function in the files named on standard input.
functions() {
    ctags -L - -f - --languages=C --langmap=C:+.h --kinds-C=f --fields=+ne --output-format=u-ctags 2>/dev/null |
        awk -F '\t' '
            { line = end = 0
              for (i = 4; i <= NF; i++) { if ($i ~ /^line:/) line = substr($i, 6); if ($i ~ /^end:/) end = substr($i, 5) }
              if (end) print end - line + 1, $2, $1 }'
}

check_lengths() {
    all_c | xargs wc -l | awk -v max="$file_lines" '$2 != "total" && $1 > max { print $2 ": " $1 " lines" }' >"$out/files"
    verdict "no file is longer than $file_lines lines" "$out/files"
    all_c | functions >"$out/lengths"
    awk -v max="$function_lines" -v main="$main_lines" '
        $1 > max || ($2 ~ /^cmd\// && $3 == "main" && $1 > main) { print $2 ": " $3 " has " $1 " lines" }
        END { if (NR < 100) print "ctags found only " NR " functions" }' "$out/lengths" >"$out/functions"
    verdict "no function is longer than $function_lines lines, no main than $main_lines" "$out/functions"
    grep -v ' tests/' "$out/lengths" | sort -n | awk -v max="$median_lines" '
        { length_of[NR] = $1 }
        END { median = length_of[int((NR + 1) / 2)]; if (median > max) print "it is " median }' >"$out/median"
    verdict "the median function has at most $median_lines lines" "$out/median"
}

mkdir -p "$out"
check_format
check_includes
check_voices
check_lengths
check_cppcheck
check_tidy
check_analyzer
((failures == 0))
