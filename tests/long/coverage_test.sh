#!/usr/bin/env bash
# Which lines of the code the tests run: the unit tests and those of the programs, without sanitizers. Prints each file's
# share, and fails if the whole is under a limit. What a program covers that is killed is not counted.
set -euo pipefail
cd "$(dirname "$0")/../.."

limit=90
out=build/coverage/report
bash tests/setup.sh coverage
rm -rf "$out"
mkdir -p "$out"
{ cmake --preset coverage && cmake --build --preset coverage; } >"$out/build.log" 2>&1 || { tail -40 "$out/build.log"; exit 1; }
find build/coverage -name '*.gcda' -delete
ctest --test-dir build/coverage -j "$(nproc)" >"$out/ctest.log" 2>&1 || { tail -40 "$out/ctest.log"; exit 1; }
for script in tests/cli/*_test.sh; do
    # these need other builds, and the messages another user, who cannot write the counters
    case $script in */fault_test.sh | */secret_test.sh | */messages_test.sh) continue ;; esac
    BK_BIN=$PWD/build/coverage bash "$script" >"$out/$(basename "$script").log" 2>&1 </dev/null ||
        printf '# %s does not pass in this build\n' "$(basename "$script")"
done
timeout 900 gcovr -r . -f base/ -f format/ -f pkcs11/ -f store/ -f ops/ -f cmd/ --exclude-throw-branches -j "$(nproc)" \
    --json-summary "$out/summary.json" --txt "$out/report.txt" build/coverage
sed 's/^/# /' "$out/report.txt"
/usr/bin/python3 - "$out/summary.json" "$limit" <<'EOF'
import json
import sys

total = json.load(open(sys.argv[1], encoding="utf-8"))
ok = total["line_percent"] >= float(sys.argv[2])
print(f"{'ok' if ok else 'not ok'} - lines {total['line_percent']} % ({total['line_covered']} of {total['line_total']}), "
      f"functions {total['function_percent']} %, branches {total['branch_percent']} %; at least {sys.argv[2]} % of lines")
sys.exit(not ok)
EOF
