"""Tables and plots of what compare.py measured; the figures of docs/PERFORMANCE.md."""

import re

import plots
from extras import BATCH_PART
from measure import GIB
from rows import Rows, number

IDLE = 0.05  # of the processors at work for others


class Table:
    def __init__(self, title, *heads):
        self.title, self.heads, self.lines = title, heads, []

    def add(self, *cells):
        self.lines.append([str(c) for c in cells])

    def text(self):
        widths = [max(len(line[i]) for line in [self.heads, *self.lines]) for i in range(len(self.heads))]
        lines = ["  ".join(c.ljust(w) for c, w in zip(line, widths)).rstrip() for line in [self.heads, *self.lines]]
        return "\n".join([self.title, "-" * len(self.title), *lines, ""])

    def markdown(self):
        lines = [self.heads, ["---"] * len(self.heads), *self.lines]
        return "\n".join("| " + " | ".join(c.replace("|", "\\|") for c in line) + " |" for line in lines)


def peak(rows, row):
    if row["maxRssKiB"] is None:
        return ""
    mebibytes = f"{row['maxRssKiB'] / 1024:.1f}"
    return f"< {mebibytes}" if row["maxRssKiB"] <= rows.floor * 1.03 else mebibytes


def speed_cells(rows, row):
    cpu = row["cpuSecondsPerGiB"]
    return (
        number(row["GBps"]),
        f"{number(row['bytes'] / row['secondsMax'] / 1e9)}–{number(row['bytes'] / row['secondsMin'] / 1e9)}",
        number(row["GiBps"]),
        "" if cpu is None else number(cpu),
        peak(rows, row),
    )


def speed_table(rows, title, chosen, beside=None):
    """beside: the name of the contender that the ratios are to."""
    heads = ["program", "to", "GB/s", "least–most", "GiB/s", "CPU s/GiB", "peak MiB"]
    table = Table(title, *heads, *([f"× {beside}"] if beside else []))
    for row in chosen:
        cells = [row["name"], row["sink"], *speed_cells(rows, row)]
        if beside:
            other = rows.get(f"{row['work']}/{row['sink']}/{beside}")
            cells.append(number(row["GBps"] / other["GBps"]) if other else "")
        table.add(*cells)
    return table


def verdict(target):
    if target["met"] is None:
        return "open" if target["value"] is None else "as reached"
    return "met" if target["met"] else "**missed**"


def target_table(results):
    table = Table("Targets", "what", "target", "measured", "verdict", "remark")
    for t in results["targets"]:
        table.add(t["name"], t["aim"], "" if t["value"] is None else number(t["value"]), verdict(t), t["note"])
    return table


def machine_table(results):
    m = results["machine"]
    table = Table("Machine", "what", "value")
    table.add("processor", f"{m['cpu']} ({m['cpuIds']}), L2 {m['l2']}, L3 {m['l3']}")
    table.add(
        "flags that matter",
        " ".join(m["flags"]) + (f"; not: {' '.join(m['flagsMissing'])}" if m["flagsMissing"] else ""),
    )
    table.add(
        "cores used",
        f"{m['cores']} of {m['coresOfMachine']}; hypervisor: {m['hypervisor']}; frequency governor: {m['governor']}",
    )
    table.add("memory", f"{m['memoryBytes'] / GIB:.1f} GiB")
    table.add("system", f"{m['system']}, Linux {m['kernel']}")
    table.add("files are in", m["folder"])
    table.add("rows `disk` are in", m["disk"])
    table.add(
        "others meanwhile",
        f"{results['othersShare']:.1%} of the processors; load at the beginning {m['loadAtBegin']:.2f}",
    )
    table.add("versions", ", ".join(f"{k} {v}" for k, v in results["versions"].items()))
    return table


def size_table(results):
    table = Table("Time over size, bk-wrap to /dev/null", "bytes", "seconds", "constant + slope × bytes", "off by")
    found = results["fit"]
    for p in found["points"] if found else []:
        table.add(
            plots.size_name(p["bytes"]),
            f"{p['seconds']:.4f}",
            f"{p['seconds'] / (1 + p['residual']):.4f}",
            f"{p['residual'] * 100:+.1f} %",
        )
    return table


def small_table(rows):
    table = Table("1 KiB", "program", "to", "ms", "least–most", "runs")
    for r in rows.of("small"):
        table.add(
            r["name"],
            r["sink"],
            number(r["seconds"] * 1000),
            f"{number(r['secondsMin'] * 1000)}–{number(r['secondsMax'] * 1000)}",
            r["rounds"],
        )
    return table


def memory_table(rows):
    table = Table("Memory of bk-wrap", "input, through a pipe", "peak MiB", "GB/s", "CPU s/GiB")
    for r in rows.of("memory"):
        table.add(plots.size_name(r["bytes"]), peak(rows, r), number(r["GBps"]), number(r["cpuSecondsPerGiB"]))
    return table


def batch_table(results):
    table = Table("Archives of 16 MiB", "how", "archives", "seconds", "archives/s", "GB/s", "token s", "token ms each")
    for member, name in (("oneByOne", "a process for each"), ("byList", f"bk-wrap --batch, {BATCH_PART} at a time")):
        part = results.get("batch", {}).get(member)
        if part:
            table.add(
                name,
                part["archives"],
                number(part["seconds"]),
                number(part["archives"] / part["seconds"]),
                number(part["bytes"] / part["seconds"] / 1e9),
                number(part["tokenSeconds"]),
                number(part["tokenSeconds"] / part["archives"] * 1000),
            )
    return table


def rekey_table(results):
    table = Table("bk-rekey", "archive", "bytes read", "bytes written", "ms")
    for p in results.get("rekey") or []:
        table.add(f"{p['archiveLength']} bytes", p["bytesRead"], p["bytesWritten"], number(p["seconds"] * 1000))
    return table


def gap_table(results):
    table = Table("Not measured, or not so", "what", "why")
    for name, why in {**results["gaps"], **results["failed"]}.items():
        table.add(name, why.strip().splitlines()[0])
    return table


def by_sink(rows, work):
    return [r for sink in ("null", "file", "pipe", "disk") for r in rows.of(work, sink)]


def tables(results):
    """By the name of their place in docs/PERFORMANCE.md."""
    rows = Rows(results)
    return {
        "targets": target_table(results),
        "encrypt": speed_table(rows, "Encrypt", by_sink(rows, "encrypt"), "age"),
        "decrypt": speed_table(rows, "Decrypt", by_sink(rows, "decrypt"), "age"),
        "verify": speed_table(rows, "Verify without keys", rows.of("verify"), "openssl dgst -sha256"),
        "roof": speed_table(rows, "What the machine can do", rows.of("roof")),
        "small": small_table(rows),
        "sizes": size_table(results),
        "jobs": speed_table(rows, "Threads", rows.of("jobs")),
        "memory": memory_table(rows),
        "batch": batch_table(results),
        "rekey": rekey_table(results),
        "gaps": gap_table(results),
        "machine": machine_table(results),
    }


def summary(results):
    options = results["options"]
    judged = [t["met"] for t in results["targets"] if t["met"] is not None]
    quick = " (--quick: too short to be quoted)" if options["quick"] else ""
    others = results["othersShare"]
    idle = "" if others < IDLE else f" **Not an idle machine: others used {others:.0%} of its processors meanwhile.**"
    return (
        f"{plots.size_name(options['size'])} of incompressible bytes, {options['rounds']} interleaved rounds, "
        f"measured {results['measured']} in {results['minutes']:.0f} minutes{quick}. {sum(judged)} of {len(judged)} "
        f"targets are met, {len(judged) - sum(judged)} missed.{idle}"
    )


def show(results):
    print()
    for table in tables(results).values():
        if table.lines:
            print(table.text().replace("**", ""))
    print(summary(results).replace("**", ""))


# --- plots and the document ---------------------------------------------------------------------------------------


def bar(row, member="GBps"):
    kind = "bk" if row["name"].startswith("bk-") else "roof" if row["work"] == "roof" else "peer"
    if member == "GBps":
        return (
            row["name"],
            kind,
            row["GBps"],
            row["bytes"] / row["secondsMax"] / 1e9,
            row["bytes"] / row["secondsMin"] / 1e9,
        )
    return (row["name"], kind, row[member], row[member], row[member])


HEADINGS = {"null": "to /dev/null", "file": "to a file", "pipe": "cat | … | cat", "disk": "to a disk, synced"}


def bar_groups(rows, work, member="GBps"):
    """Each sink's contenders, with the sink's own limit as the last bar where there is one."""
    groups = []
    for sink, heading in HEADINGS.items():
        found = [r for r in rows.of(work, sink) if "one core" not in r["name"]]
        if member == "GBps":
            found += [r for r in rows.of("roof", sink) if found]
        groups.append((heading, [bar(r, member) for r in found]))
    return groups


ROOF_HEADINGS = {"cpu": "in memory, x processes", "engine": "bk's engines alone, x threads", **HEADINGS}


def bar_pictures(rows):
    """By file name: title, subtitle, groups."""
    note = f"GB/s (10^9 bytes), median of {rows.results['options']['rounds']} rounds, whiskers: least and most"
    roofs = [(heading, [bar(r) for r in rows.of("roof", sink)]) for sink, heading in ROOF_HEADINGS.items()]
    cpu = bar_groups(rows, "encrypt", "cpuSecondsPerGiB")
    return {
        "encrypt": ("Encrypting: throughput", note, bar_groups(rows, "encrypt")),
        "cpu": ("Encrypting: processor time", "CPU seconds per GiB; less is better", cpu),
        "decrypt": ("Decrypting: throughput", note, bar_groups(rows, "decrypt")),
        "verify": ("Verifying without keys: throughput", note, [("from memory", [bar(r) for r in rows.of("verify")])]),
        "roof": ("What the machine can do", note, roofs),
    }


def pictures(results):
    """SVG by file name, of what there is."""
    drawn = {}
    for name, (title, note, groups) in bar_pictures(Rows(results)).items():
        if any(bars for _, bars in groups):
            drawn[name] = plots.bars(title, note, groups)
    fitted = results["fit"]
    if fitted:
        points = [(p["bytes"], p["seconds"]) for p in fitted["points"]]
        title = "bk-wrap: time over size"
        drawn["sizes"] = plots.over_size(title, "to /dev/null", points, fitted["constant"], fitted["slope"])
    return drawn


def draw(results, folder):
    folder.mkdir(parents=True, exist_ok=True)
    for name, svg in pictures(results).items():
        (folder / f"{name}.svg").write_text(svg, encoding="utf-8")


def write_docs(results, path):
    """What stands between <!-- begin NAME --> and <!-- end NAME --> is replaced; the rest is people's."""
    words = path.read_text(encoding="utf-8")
    parts = {name: table.markdown() if table.lines else "None." for name, table in tables(results).items()}
    parts["summary"] = summary(results)
    for name, part in parts.items():
        marks = (f"<!-- begin {name} -->", f"<!-- end {name} -->")
        pattern = re.compile(f"{re.escape(marks[0])}.*?{re.escape(marks[1])}", re.S)
        if not pattern.search(words):
            raise ValueError(f"{path.name} has no place for {name}")
        words = pattern.sub(lambda _, p=part, m=marks: f"{m[0]}\n{p}\n{m[1]}", words)
    path.write_text(words, encoding="utf-8")
