"""What is aimed at, and whether it is met. Aims depend on the machine, and none is a condition."""

import plots
from measure import GIB, MIB
from rows import Rows, number

PEAK_LIMIT = 64 * 1024  # KiB
NOT_MEASURED = "not measured"
FAST = "ipsec-mb"  # the engine that the targets of throughput are for


class Targets:
    def __init__(self):
        self.list = []

    def add(self, name, aim, value, met, note=""):
        """met: None where there is nothing to judge; the note says why."""
        self.list.append({"name": name, "aim": aim, "value": value, "met": met, "note": note})

    def at_least(self, name, aim, value, note="", judged=True):
        if value is None:
            self.add(name, f"≥ {aim:g}", None, None, note or NOT_MEASURED)
        else:
            self.add(name, f"≥ {aim:g}", value, value >= aim if judged else None, note)

    def at_most(self, name, aim, value, note="", judged=True):
        if value is None:
            self.add(name, f"≤ {aim:g}", None, None, note or NOT_MEASURED)
        else:
            self.add(name, f"≤ {aim:g}", value, value <= aim if judged else None, note)


def ratio(above, below, member="GBps"):
    return above[member] / below[member] if above and below and below[member] else None


def engine_alone(rows, engine, work="seal"):
    """GB/s of the engine on two cores, and how it is known. work: as engine_bench calls it."""
    names = [engine] if engine else ["openssl", FAST]
    found = [r["GBps"] for r in (rows.get(f"roof/engine/{name} {work} x 2") for name in names) if r]
    if found:
        return max(found), "engine_bench"
    gcm, sha = rows.get("roof/cpu/openssl speed aes-256-gcm x 2"), rows.get("roof/cpu/openssl speed sha256 x 2")
    if not sha or not gcm or engine == FAST:
        return None, NOT_MEASURED
    return (sha["GBps"] if work == "root" else 1 / (1 / gcm["GBps"] + 1 / sha["GBps"])), "reckoned from openssl speed"


def wrap_targets(rows, targets):
    for sink in ("null", "file", "pipe"):
        for engine in rows.engines:
            name = rows.bk("bk-wrap", engine)
            ours = rows.get(f"encrypt/{sink}/{name}")
            age, gpg = rows.get(f"encrypt/{sink}/age"), rows.get(f"encrypt/{sink}/gpg")
            other = "" if engine == rows.best else "judged is the other engine"
            if engine == FAST:
                targets.at_least(f"{name} ÷ age, {sink}", 3.5, ratio(ours, age))
            else:
                targets.at_least(f"{name} ÷ age, {sink}", 3.5, ratio(ours, age), f"the target is for {FAST}", False)
            targets.at_least(f"{name} ÷ gpg, {sink}", 8, ratio(ours, gpg), other, not other)
            targets.at_most(
                f"CPU of {name} ÷ age, {sink}", 0.333, ratio(ours, age, "cpuSecondsPerGiB"), other, not other
            )
        if FAST not in rows.engines:
            targets.at_least(f"bk-wrap {FAST} ÷ age, {sink}", 3.5, None, "not built, or not for this machine")


def ceilings(rows, targets):
    """What the targets beside age could be at most here: the engine on two cores, if all else cost nothing."""
    note = "at most, if reading, writing and the token cost nothing"
    for work, program, what, aim in (("encrypt", "age", "seal", 3.5), ("decrypt", "age -d", "open", 4)):
        age, (alone, how) = rows.get(f"{work}/null/age"), engine_alone(rows, rows.best, what)
        if age and alone:
            targets.at_least(
                f"engine alone, {what} ÷ {program}, null", aim, alone / age["GBps"], f"{note}; {how}", False
            )
    age, (alone, how) = rows.get("encrypt/null/age"), engine_alone(rows, rows.best)
    if age and alone:
        cpu = 2 * GIB / 1e9 / alone / age["cpuSecondsPerGiB"]
        targets.at_most("CPU of engine alone ÷ age, null", 0.333, cpu, f"at least; {how}", False)
    reading = rows.get("roof/null/dd bs=1M")
    for engine in rows.engines:
        name = rows.bk("bk-wrap", engine)
        row, (alone, how) = rows.get(f"encrypt/null/{name}"), engine_alone(rows, engine)
        if row and alone and reading:
            bound = 2 / (2 / alone + 1 / reading["GBps"])
            note = f"limit {number(bound)} GB/s: the two cores also copy the file out of the page cache, as dd does"
            targets.at_least(f"{name} ÷ engine and reading, null", 0.8, row["GBps"] / bound, note, False)


SINKS = {"null": "dd bs=1M", "file": "cp", "pipe": "cat | cat"}


def roof_targets(rows, targets):
    """0.8 of the engine alone, or of the sink where that is less."""
    for engine in rows.engines:
        for sink, other in SINKS.items():
            row, limit = rows.get(f"encrypt/{sink}/{rows.bk('bk-wrap', engine)}"), rows.get(f"roof/{sink}/{other}")
            alone, how = engine_alone(rows, engine)
            name = f"{rows.bk('bk-wrap', engine)} ÷ its limit, {sink}"
            if not row or not limit or not alone:
                targets.at_least(name, 0.8, None)
                continue
            bound = min(alone, limit["GBps"])
            what = f"engine alone, {how}" if alone <= limit["GBps"] else other
            targets.at_least(name, 0.8, row["GBps"] / bound, f"limit {number(bound)} GB/s: {what}")


def reading_roofs(rows, targets):
    """No target, but how near unwrapping and verifying are to the engine."""
    for engine in rows.engines:
        for work, program, what in (("decrypt", "bk-unwrap", "open"), ("verify", "bk-verify", "root")):
            name = rows.bk(program, engine)
            row, (alone, how) = rows.get(f"{work}/null/{name}"), engine_alone(rows, engine, what)
            if row and alone:
                note = f"{number(alone)} GB/s, {how}; the target is bk-wrap's"
                targets.at_least(f"{name} ÷ engine alone, null", 0.8, row["GBps"] / alone, note, False)


def pipe_targets(rows, targets):
    for engine in rows.engines:
        row, pipe = rows.get(f"encrypt/pipe/{rows.bk('bk-wrap', engine)}"), rows.get("roof/pipe/cat | cat")
        alone = engine_alone(rows, engine)[0]
        limiting = bool(pipe and alone and pipe["GBps"] < alone)
        targets.at_least(
            f"{rows.bk('bk-wrap', engine)} through pipes ÷ cat | cat",
            0.85,
            ratio(row, pipe),
            "" if limiting else "the pipe is not the limit",
            limiting,
        )


def restore_targets(rows, targets):
    for engine in rows.engines:
        judged = engine == rows.best
        note = "" if judged else "judged is the other engine"
        for sink in ("null", "file"):
            name = rows.bk("bk-unwrap", engine)
            targets.at_least(
                f"{name} ÷ age -d, {sink}",
                4,
                ratio(rows.get(f"decrypt/{sink}/{name}"), rows.get(f"decrypt/{sink}/age")),
                note,
                judged,
            )
        name = rows.bk("bk-verify", engine)
        targets.at_least(
            f"{name} ÷ openssl dgst -sha256",
            3,
            ratio(rows.get(f"verify/null/{name}"), rows.get("verify/null/openssl dgst -sha256")),
            note,
            judged,
        )


def core_targets(rows, targets):
    if rows.results["machine"]["cores"] < 2:
        targets.at_least("two cores ÷ one", 1.8, None, "one core here")
        return
    for work, program in (("encrypt", "bk-wrap"), ("decrypt", "bk-unwrap"), ("verify", "bk-verify")):
        targets.at_least(
            f"{program}, two cores ÷ one",
            1.8,
            ratio(rows.get(f"{work}/null/{rows.bk(program, rows.best)}"), rows.get(f"{work}/null/{program}, one core")),
        )


def memory_targets(rows, targets):
    for row in rows.of("memory"):
        targets.at_most(
            f"peak MiB of bk-wrap, {plots.size_name(row['bytes'])} through a pipe",
            PEAK_LIMIT // 1024,
            row["maxRssKiB"] / 1024,
        )
    ours = [r for r in rows.rows.values() if r["name"].startswith("bk-") and r["maxRssKiB"]]
    largest = max(ours, key=lambda r: r["maxRssKiB"], default=None)
    if largest:
        targets.at_most(
            "peak MiB of any row of bk",
            PEAK_LIMIT // 1024,
            largest["maxRssKiB"] / 1024,
            f"{largest['name']}, {largest['work']}, {largest['sink']}",
        )


def small_targets(rows, targets):
    for engine in rows.engines:
        row = rows.get(f"small/file/{rows.bk('bk-wrap', engine)}")
        targets.at_most(f"{rows.bk('bk-wrap', engine)} of 1 KiB, ms", 40, row["seconds"] * 1000 if row else None)


def batch_targets(rows, targets):
    found = rows.results.get("batch", {})
    alone, how = engine_alone(rows, rows.best)
    for member, name in (("oneByOne", "16 MiB each, a process for each"), ("byList", "16 MiB each, bk-wrap --batch")):
        part = found.get(member)
        if not part or not alone:
            targets.at_least(f"{name}: (token + engine) ÷ time", 0.85, None)
            continue
        engine = part["bytes"] / alone / 1e9
        note = (
            f"{part['archives']} archives, {number(part['seconds'])} s: token {number(part['tokenSeconds'])} s, engine "
            f"{number(engine)} s ({how})"
        )
        targets.at_least(
            f"{name}: (token + engine) ÷ time",
            0.85,
            (engine + part["tokenSeconds"]) / part["seconds"],
            note if member == "byList" else f"the target is for --batch; {note}",
            member == "byList",
        )
        copying = rows.get("roof/file/cp")
        if copying:
            rate = part["bytes"] / part["seconds"] / 1e9
            note = f"{number(rate)} GB/s; cp of a file of the same file system {number(copying['GBps'])}"
            targets.at_least(f"{name} ÷ cp", 0.8, rate / copying["GBps"], note, False)


def size_targets(results, targets):
    found = results["fit"]
    if found:
        targets.at_most(
            "farthest from constant + slope × bytes, %",
            15,
            max(abs(p["residual"]) for p in found["points"]) * 100,
            f"{number(found['constant'] * 1000)} ms + {number(found['slope'] * GIB)} s/GiB",
        )
    else:
        targets.at_most("farthest from constant + slope × bytes, %", 15, None)


def rekey_targets(results, targets):
    parts = results.get("rekey")
    if not parts:
        targets.at_most("bytes that bk-rekey reads, large ÷ 1 MiB", 1, None)
        return
    note = "; ".join(
        f"{plots.size_name(p['archiveLength'] // MIB * MIB)}: {p['bytesRead']} read, {p['bytesWritten']} written, "
        f"{p['seconds'] * 1000:.0f} ms"
        for p in parts
    )
    targets.at_most("bytes that bk-rekey reads, large ÷ 1 MiB", 1, parts[1]["bytesRead"] / parts[0]["bytesRead"], note)


def targets(results):
    rows, found = Rows(results), Targets()
    for part in (
        wrap_targets,
        ceilings,
        roof_targets,
        reading_roofs,
        pipe_targets,
        restore_targets,
        core_targets,
        memory_targets,
        small_targets,
        batch_targets,
    ):
        part(rows, found)
    size_targets(results, found)
    rekey_targets(results, found)
    return found.list
