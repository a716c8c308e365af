"""bk beside what people use today, and beside what the machine can do. tests/bench/run.sh installs, builds, and calls
it; docs/PERFORMANCE.md says how it measures. Prints tables; the exit status is 0 if everything ran, met or missed."""

import argparse
import datetime
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import commands
import contenders
import extras
import machine
import report
import roof
import rows
import targets
from measure import GIB, MIB, row, run_rounds

ROOT = Path(__file__).resolve().parent.parent.parent
UNITS = {"K": 1 << 10, "M": MIB, "G": GIB}


def size_of(words):
    """4294967296, 4096M or 4G."""
    number = int(words[:-1]) * UNITS[words[-1].upper()] if words[-1:].upper() in UNITS else int(words)
    if number < 16 * MIB or number % (16 * MIB):
        raise argparse.ArgumentTypeError("a multiple of 16M is needed")
    return number


def options():
    parser = argparse.ArgumentParser(prog="tests/bench/run.sh", description=__doc__, allow_abbrev=False)
    parser.add_argument("--quick", action="store_true", help="128M, 3 rounds, and less of everything: whether it works")
    parser.add_argument("--size", type=size_of, metavar="BYTES", help="of the file, with K, M or G (default: 4G)")
    parser.add_argument("--rounds", type=int, help="(default: 5)")
    parser.add_argument(
        "--only",
        action="append",
        metavar="NAME",
        help="rows with NAME in them, as encrypt/null/age, or batch, or rekey; repeatable",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="everything that was measured")
    parser.add_argument("--plots", type=Path, metavar="DIR", help="SVG files")
    parser.add_argument("--write-docs", action="store_true", help="figures and plots of docs/PERFORMANCE.md")
    parser.add_argument("--from", dest="source", type=Path, metavar="FILE", help="measure nothing: from such JSON")
    parser.add_argument("--dir", type=Path, help="where files are made: in memory (default: /dev/shm if there is room)")
    parser.add_argument("--disk", type=Path, default=ROOT / "build", help="and those on a disk (default: build/)")
    chosen = parser.parse_args()
    chosen.size = chosen.size or (128 * MIB if chosen.quick else 4 * GIB)
    chosen.rounds = chosen.rounds or (3 if chosen.quick else 5)
    chosen.largest = GIB if chosen.quick else 16 * GIB
    if chosen.only and chosen.write_docs:
        parser.error("--write-docs needs all rows")
    if chosen.rounds < 1:
        parser.error("--rounds is 1 or more")
    return chosen


def room(folder):
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize


def choose_folder(chosen):
    """There are at most the file, three archives and one output in it at a time."""
    need = chosen.size * 19 // 4 + 2 * GIB
    if chosen.dir:
        return chosen.dir
    shm = Path("/dev/shm")
    if shm.is_dir() and room(shm) > need and machine.memory("MemAvailable") > need + GIB:
        return shm
    folder = Path(os.environ.get("TMPDIR", "/tmp"))
    print(
        f"note: /dev/shm or the memory has no room for {need / GIB:.1f} GiB: files are in {machine.filesystem(folder)}"
    )
    if room(folder) < need:
        sys.exit(f"compare.py: {need / GIB:.1f} GiB of room are needed in {folder}; see --size and --dir")
    return folder


def noise(path, size):
    """A key stream: cannot be compressed, and costs little."""
    with open("/dev/zero", "rb") as zero, open(path, "wb") as file:
        stream = subprocess.Popen(
            ["openssl", "enc", "-aes-128-ctr", "-K", "00" * 16, "-iv", "00" * 16],
            stdin=zero,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        subprocess.run(["head", "-c", str(size)], stdin=stream.stdout, stdout=file, check=True)
        stream.stdout.close()
        stream.wait()


class Bench:
    """One run: the folder, the files in it, and what came out."""

    def __init__(self, chosen, folder):
        self.chosen = chosen
        self.folder = folder
        self.log = folder / "log"
        self.cores = sorted(os.sched_getaffinity(0))[:2]
        os.sched_setaffinity(0, self.cores)
        self.source, self.out = folder / "in", folder / "out"
        self.rows, self.failed, self.parts, self.gaps = [], {}, {}, {}
        self.begin, self.busy = time.monotonic(), machine.busy_seconds()

    def say(self, words):
        print(f"[{time.monotonic() - self.begin:6.0f} s] {words}", flush=True)

    def tell(self, number, job):
        last = job.samples[-1]
        self.say(f"round {number + 1}: {job.key:40} {last.seconds:8.3f} s")

    def wanted(self, name):
        return not self.chosen.only or any(word in name for word in self.chosen.only)

    def measure(self, jobs, rounds, loud=True):
        jobs = [job for job in jobs if self.wanted(job.key)]
        self.failed.update(run_rounds(jobs, rounds, self.log, self.tell if loud else lambda number, job: None))
        self.rows += [row(job) for job in jobs if job.samples and job.key not in self.failed]

    def prepare(self):
        self.say(f"making {self.chosen.size / GIB:g} GiB, and the archives of it")
        noise(self.source, self.chosen.size)
        self.bk = commands.Bk(ROOT / "build" / "release", self.folder)
        self.gaps.update(self.bk.gaps)
        made = {name: self.folder / f"in.{name}" for name in ("bk", "age", "gpg", "part")}
        commands.quiet(self.bk.wrap(self.bk.best, str(made["bk"]), str(self.source)))
        commands.quiet(self.peers.age(str(made["age"]), str(self.source)))
        extras.part_of(self.source, made["part"], self.chosen.size // 4)
        commands.quiet(self.peers.gpg(str(made["gpg"]), str(made["part"])))
        made["part"].unlink()
        self.made = made
        self.warm()

    def warm(self):
        """A virtual machine gets its memory when it is first written, which takes longer than what is measured."""
        size = min(3 * self.chosen.size, machine.memory("MemAvailable") - 3 * GIB, room(self.folder) - GIB)
        with open(self.out, "wb") as file:
            for _ in range(size // MIB):
                file.write(bytes(MIB))
        self.out.unlink()

    def others(self):
        """The share of the machine's processors that was at work for others."""
        ours = sum(os.times()[:4])
        return max(0.0, machine.busy_seconds() - self.busy - ours) / (time.monotonic() - self.begin) / os.cpu_count()

    def main_rows(self):
        bk, size = self.bk, self.chosen.size
        disk = self.chosen.disk / f"bk-bench-{os.getpid()}"
        jobs = contenders.encryption(bk, self.peers, self.source, self.out, size)
        jobs += contenders.decryption(bk, self.peers, self.made, self.source, self.out, size)
        jobs += contenders.verification(bk, self.made["bk"], size)
        jobs += contenders.one_core(bk, self.cores, self.source, self.made["bk"], size)
        jobs += contenders.threads(bk, self.source, size)
        jobs += roof.jobs(self.source, self.out, size)
        engine_jobs, gap = roof.engines(ROOT / "build" / "release" / "tests" / "bench" / "engine_bench", size)
        jobs += engine_jobs
        if gap:
            self.gaps["engine alone"] = gap
        if room(self.chosen.disk) > size * 3 // 2:
            jobs += contenders.to_disk(bk, self.peers, self.source, disk, size)
        else:
            self.gaps["disk"] = "no room for the rows on a disk; see --disk"
        self.measure(jobs, self.chosen.rounds)

    def other_rows(self):
        quick = self.chosen.quick
        little, block = self.folder / "little", self.folder / "block"
        extras.part_of(self.source, little, 1024)
        extras.part_of(self.source, block, 16 * MIB)
        self.say("1 KiB, many times")
        self.measure(contenders.small(self.bk, self.peers, little, self.out), 15 if quick else 101, loud=False)
        self.say("sizes")
        by_size = contenders.sizes(self.bk, self.folder, self.chosen.largest)
        self.measure([j for j in by_size if j.size <= 64 * MIB], 7 if quick else 15, loud=False)
        self.measure([j for j in by_size if j.size > 64 * MIB], 3)
        self.say("memory")
        self.measure(contenders.memory(self.bk, block, [self.chosen.largest // 16, self.chosen.largest]), 1)
        for name, part in (("batch", extras.batch), ("rekey", extras.rekey)):
            if self.wanted(name):
                self.say(name)
                self.part(name, part, block)

    def part(self, name, function, block):
        try:
            self.parts[name], gaps = function(self, block)
            self.gaps.update(gaps)
        except (RuntimeError, OSError, LookupError, ValueError) as error:
            self.failed[name] = str(error)
            print(f"FAILED {name}: {error}", file=sys.stderr)

    def results(self):
        return {
            "version": 1,
            "measured": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d"),
            "options": {
                "quick": self.chosen.quick,
                "size": self.chosen.size,
                "rounds": self.chosen.rounds,
                "largest": self.chosen.largest,
                "only": self.chosen.only,
            },
            "minutes": (time.monotonic() - self.begin) / 60,
            "othersShare": self.others(),
            "engines": [e or "" for e in self.bk.engines],
            "machine": self.machine,
            "versions": machine.versions(self.bk, ROOT),
            "rows": self.rows,
            **self.parts,
            "gaps": self.gaps,
            "failed": self.failed,
        }

    def run(self):
        self.machine = machine.describe(self.cores, self.folder, self.chosen.disk)
        if self.machine["loadAtBegin"] > 0.5:
            print(f"note: this machine is not idle: load {self.machine['loadAtBegin']:.2f}")
        self.peers = commands.Peers(self.folder)
        try:
            self.prepare()
            self.main_rows()
            self.other_rows()
        finally:
            self.peers.end()
        return self.results()


def measure(chosen):
    chosen.disk.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="bk-bench.", dir=choose_folder(chosen)))
    try:
        return Bench(chosen, folder).run()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def main():
    os.environ["LC_ALL"] = "C.UTF-8"
    for name in ("BK_CONFIG", "CREDENTIALS_DIRECTORY", "P11_KIT_SERVER_ADDRESS", "BK_TOKEN_TRACE"):
        os.environ.pop(name, None)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    chosen = options()
    if chosen.source:
        results = json.loads(chosen.source.read_text(encoding="utf-8"))
    else:
        results = measure(chosen)
    results["fit"] = rows.fit(results)
    results["targets"] = targets.targets(results)
    report.show(results)
    if chosen.json:
        chosen.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    if chosen.plots:
        report.draw(results, chosen.plots)
    if chosen.write_docs:
        report.draw(results, ROOT / "docs" / "plots")
        report.write_docs(results, ROOT / "docs" / "PERFORMANCE.md")
    sys.exit(1 if results["failed"] else 0)


if __name__ == "__main__":
    main()
