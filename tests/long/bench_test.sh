#!/usr/bin/env bash
# That tests/bench/run.sh still runs all of what it compares, and writes JSON and plots. Nothing here depends on how
# fast anything is.
# shellcheck disable=SC2317 # functions are called by `check`
set -euo pipefail
# shellcheck source=../cli/lib.sh
. "$(dirname "$0")/../cli/lib.sh"

bench() { "$ROOT/tests/bench/run.sh" "$@" >"$T/log" 2>"$T/stderr"; }

# rows_are_whole : each row is there, with positive numbers.
rows_are_whole() {
    /usr/bin/python3 - "$T/json" <<'PYTHON'
import json
import sys

results = json.load(open(sys.argv[1], encoding="utf-8"))
rows = {f"{r['work']}/{r['sink']}/{r['name']}": r for r in results["rows"]}
sinks = ("null", "file", "pipe")
wanted = {f"{work}/{sink}/age" for work in ("encrypt", "decrypt") for sink in sinks}
wanted |= {f"encrypt/{sink}/{name}" for sink in sinks for name in ("gpg", "openssl enc")}
wanted |= {f"encrypt/{sink}/{name}" for sink in ("file", "pipe") for name in ("restic", "borg")}
wanted |= {"decrypt/null/gpg", "decrypt/null/openssl enc", "verify/null/openssl dgst -sha256", "verify/null/sha256sum"}
wanted |= {"encrypt/null/bk-wrap, one core", "decrypt/null/bk-unwrap, one core", "verify/null/bk-verify, one core"}
wanted |= {"roof/null/dd bs=1M", "roof/file/cp", "roof/pipe/cat | cat", "roof/pipe/cat | cat | cat"}
limits = ("memcpy", "openssl speed aes-256-gcm", "openssl speed sha256")
wanted |= {f"roof/cpu/{name} x {count}" for name in limits for count in (1, 2)}
wanted |= {"small/file/age", "small/file/gpg", "small/null/true"}
wanted |= {f"size/null/{1 << shift}" for shift in range(20, 31, 2)}
wanted |= {f"memory/pipe/{1 << shift}" for shift in (26, 30)}
for engine in results["engines"]:
    name = f" {engine}" if engine else ""
    wanted |= {f"{work}/{sink}/{program}{name}" for work, program in (("encrypt", "bk-wrap"), ("decrypt", "bk-unwrap"))
               for sink in sinks}
    wanted |= {f"verify/null/bk-verify{name}", f"small/file/bk-wrap{name}"}
wrong = [f"{key}: not there" for key in sorted(wanted - set(rows))]
for key, row in rows.items():
    numbers = [row[m] for m in ("bytes", "rounds", "seconds", "GBps", "GiBps")]
    if row["maxRssKiB"] is not None:
        numbers += [row["maxRssKiB"], row["cpuSeconds"] + 1]
    if min(numbers) <= 0 or not row["secondsMin"] <= row["seconds"] <= row["secondsMax"]:
        wrong.append(f"{key}: {numbers}")
if results["failed"]:
    wrong.append(f"failed: {results['failed']}")
if not results["engines"] or not results["machine"]["cpu"] or not results["targets"] or not results["fit"]:
    wrong.append("no engine, machine, targets or fit")
if results["batch"]["oneByOne"]["tokenSeconds"] <= 0:
    wrong.append("no token time in a batch")
if "byList" not in results["batch"] and "batch" not in results["gaps"]:
    wrong.append("no batch, and no word of it")
if [r["bytesRead"] > 0 for r in results["rekey"]] != [True, True]:
    wrong.append("rekey")
print("\n".join(wrong), file=sys.stderr)
sys.exit(1 if wrong else 0)
PYTHON
}

is_svg() { /usr/bin/python3 -c 'import sys, xml.etree.ElementTree as e; e.parse(sys.argv[1])' "$1" 2>"$T/stderr"; }

check 'run.sh --quick runs all' bench --quick --json "$T/json" --plots "$T/plots"
check 'every row is there, with positive numbers' rows_are_whole 2>"$T/stderr"
for plot in encrypt cpu decrypt verify roof sizes; do
    check "$plot.svg can be read" is_svg "$T/plots/$plot.svg"
    check "docs/plots/$plot.svg is kept" test -s "$ROOT/docs/plots/$plot.svg"
done
check 'tables again from the JSON' bench --from "$T/json" --json "$T/again"
check 'and the JSON again' cmp "$T/json" "$T/again"
check 'a size that is none is refused' eval '! bench --size 1Q'
finish
