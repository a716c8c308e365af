"""Runs a pipeline of processes and says what it took: seconds, processor time, peak memory."""

import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable, Optional

GIB = 1 << 30
MIB = 1 << 20


class Failed(RuntimeError):
    """A process of a pipeline did not exit with 0."""


@dataclass
class Sample:
    """One run. cpu and rss are those of the program that is measured, with the children that it waited for."""

    seconds: float
    cpu: float = 0.0
    rss: int = 0  # KiB, of the largest of them
    cpu_all: float = 0.0  # of the whole pipeline


@dataclass
class Job:
    """A row of the tables: a pipeline, or with `rate` something that tells bytes a second itself."""

    work: str  # encrypt, decrypt, verify, roof, small, size, memory
    sink: str  # null, file, disk, pipe
    name: str
    size: int
    stages: list = field(default_factory=list)
    measured: int = 0  # the stage
    stdin: Optional[Path] = None
    made: Optional[Path] = None  # what it leaves; removed when it was measured
    sync: bool = False  # it is done when `made` is on the disk
    prepare: Optional[Callable[[], None]] = None
    clean: Optional[Callable[[], None]] = None
    rate: Optional[Callable[[], float]] = None
    samples: list = field(default_factory=list)

    @property
    def key(self):
        return f"{self.work}/{self.sink}/{self.name}"


def start(stages, stdin, log):
    """The processes, each reading what the one before it writes; the last one writes to /dev/null."""
    processes = []
    source = stdin
    for i, stage in enumerate(stages):
        last = i + 1 == len(stages)
        process = subprocess.Popen(
            stage, stdin=source, stdout=subprocess.DEVNULL if last else subprocess.PIPE, stderr=log
        )
        if source is not stdin:
            source.close()
        source = process.stdout
        processes.append(process)
    return processes


def wait(process):
    """Its rusage, with that of the children that it has waited for."""
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return usage


def sync(path):
    fd = os.open(path, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)


def run(job, log_path):
    with open(log_path, "wb") as log, open(job.stdin or os.devnull, "rb") as stdin:
        begin = time.monotonic()
        processes = start(job.stages, stdin, log)
        usages = [wait(p) for p in processes]
        if job.sync:
            sync(job.made)
        seconds = time.monotonic() - begin
    for process in processes:
        if process.returncode != 0:
            text = Path(log_path).read_text(encoding="utf-8", errors="replace")[-2000:]
            raise Failed(f"{job.key}: {Path(process.args[0]).name} ended with {process.returncode}\n{text}")
    cpu = [u.ru_utime + u.ru_stime for u in usages]
    return Sample(seconds, cpu[job.measured], usages[job.measured].ru_maxrss, sum(cpu))


def remove(path):
    if path is not None and path.exists():
        path.unlink()


def sample(job, log_path):
    """One run of the job, its preparation and its cleaning not counted."""
    if job.prepare:
        job.prepare()
    remove(job.made)
    try:
        if job.rate:
            job.samples.append(Sample(job.size / job.rate()))
        else:
            job.samples.append(run(job, log_path))
    finally:
        remove(job.made)
        if job.clean:
            job.clean()


def run_rounds(jobs, rounds, log_path, tell):
    """Every job once in each round, begun at another one each time. A job that failed is not tried again."""
    failed = {}
    for number in range(rounds):
        turn = number * len(jobs) // rounds
        for job in jobs[turn:] + jobs[:turn]:
            if job.key in failed:
                continue
            try:
                sample(job, log_path)
                tell(number, job)
            except (RuntimeError, OSError, LookupError, ValueError, subprocess.SubprocessError) as error:
                failed[job.key] = str(error)
                print(f"FAILED {error}", file=sys.stderr)
    return failed


def row(job):
    """What is kept of a job: medians, the least and the most."""
    seconds = [s.seconds for s in job.samples]
    middle = statistics.median(seconds)
    timed = job.rate is None
    return {
        "work": job.work,
        "sink": job.sink,
        "name": job.name,
        "bytes": job.size,
        "rounds": len(seconds),
        "seconds": middle,
        "secondsMin": min(seconds),
        "secondsMax": max(seconds),
        "samples": seconds,
        "GBps": job.size / middle / 1e9,
        "GiBps": job.size / middle / GIB,
        "cpuSeconds": statistics.median(s.cpu for s in job.samples) if timed else None,
        "cpuSecondsPerGiB": statistics.median(s.cpu for s in job.samples) * GIB / job.size if timed else None,
        "cpuAllSecondsPerGiB": statistics.median(s.cpu_all for s in job.samples) * GIB / job.size if timed else None,
        "maxRssKiB": max(s.rss for s in job.samples) if timed else None,
    }
