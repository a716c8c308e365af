#!/usr/bin/env bash
# bk beside age, gpg, openssl, restic and borg, and beside what the machine can do at all: docs/PERFORMANCE.md. Installs
# those from Debian if they are missing, builds bk, and measures for half an hour; --quick takes three minutes.
#
#     tests/bench/run.sh [--quick] [--size 4G] [--rounds N] [--only NAME] [--json FILE] [--plots DIR] [--write-docs]
#     tests/bench/run.sh --from FILE [--plots DIR] [--write-docs]      tables and plots of what was measured before
#     tests/bench/run.sh --help
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)

measures=yes
for argument in "$@"; do
    case $argument in
    -h | --help | --from | --from=*) measures=no ;;
    esac
done
if [[ $measures == yes ]]; then
    bash "$root/tests/setup.sh" bench
    log=$root/build/bench-build.log
    mkdir -p "$root/build"
    if ! (cd "$root" && cmake --preset release && cmake --build --preset release) >"$log" 2>&1; then
        tail -n 60 "$log" >&2
        exit 1
    fi
fi
exec /usr/bin/python3 -B "$root/tests/bench/compare.py" "$@"
