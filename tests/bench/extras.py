"""What is not a row of medians: a batch of archives, and what rekey reads."""

import json
import os
import re
import subprocess
import time
from pathlib import Path

import commands
from measure import MIB

BATCH_PART = 100  # archives of a batch that are in the folder at a time


def part_of(source, target, size):
    with open(source, "rb") as whole, open(target, "wb") as part:
        while size > 0:
            size -= part.write(whole.read(min(size, MIB)))


def traced(argv, log):
    """Seconds that it took, and those that the token's calls took by themselves."""
    with open(log, "wb") as stderr:
        begin = time.monotonic()
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            check=False,
            env=dict(os.environ, BK_TOKEN_TRACE="1"),
        )
        seconds = time.monotonic() - begin
    text = log.read_text(encoding="utf-8", errors="replace")
    if done.returncode != 0:
        raise RuntimeError(f"{Path(argv[0]).name} ended with {done.returncode}: {text[-2000:]}")
    return seconds, sum(int(us) for us in re.findall(r"^bk-token-worker: C_\w+: .*, (\d+) us$", text, re.M)) / 1e6


def one_by_one(bench, block, count):
    """A process for each archive."""
    total = token = 0.0
    for _ in range(count):
        took = traced(bench.bk.wrap(bench.bk.best, str(bench.out), str(block)), bench.log)
        total, token = total + took[0], token + took[1]
        bench.out.unlink()
    return {"archives": count, "bytes": count * block.stat().st_size, "seconds": total, "tokenSeconds": token}


def by_list(bench, block, count):
    """One process for BATCH_PART archives, whose outputs are removed in between."""
    total = token = 0.0
    folder = bench.folder / "batch"
    listed = bench.folder / "list"
    for begin in range(0, count, BATCH_PART):
        folder.mkdir()
        outs = [folder / f"{i}.bk" for i in range(begin, min(begin + BATCH_PART, count))]
        listed.write_text("".join(commands.batch_line(block, out) for out in outs))
        took = traced(bench.bk.wrap_batch(listed), bench.log)
        total, token = total + took[0], token + took[1]
        for out in outs:
            out.unlink()
        folder.rmdir()
    return {"archives": count, "bytes": count * block.stat().st_size, "seconds": total, "tokenSeconds": token}


def batch(bench, block):
    quick = bench.chosen.quick
    found = {"oneByOne": one_by_one(bench, block, 5 if quick else 50)}
    if not bench.bk.has("--batch"):
        return found, {"batch": "bk-wrap has no --batch in this build: only a process for each archive is measured"}
    found["byList"] = by_list(bench, block, 20 if quick else 1000)
    return found, {}


def rekeyed(bench, archive):
    begin = time.monotonic()
    said = json.loads(commands.quiet(bench.bk.rekey(str(archive))).strip().splitlines()[-1])
    return {
        "archiveLength": archive.stat().st_size,
        "seconds": time.monotonic() - begin,
        "bytesRead": said["bytesRead"],
        "bytesWritten": said["bytesWritten"],
    }


def rekey(bench, block):
    """Of 1 MiB and of the whole; the archives are not needed afterwards."""
    little, archive = bench.folder / "mebibyte", bench.folder / "mebibyte.bk"
    part_of(block, little, MIB)
    commands.quiet(bench.bk.wrap(bench.bk.best, str(archive), str(little)))
    return [rekeyed(bench, archive), rekeyed(bench, bench.made["bk"])], {}
