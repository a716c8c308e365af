"""The rows: which command reads what, and where to."""

from functools import partial

from commands import named
from measure import MIB, Job


def three_sinks(work, name, size, command, source, out):
    """command(OUT, [FILE]) into nothing, into a file, and with a pipe on each side."""
    return [
        Job(work, "null", name, size, [command("-", str(source))]),
        Job(work, "file", name, size, [command(str(out), str(source))], made=out),
        Job(work, "pipe", name, size, [["cat", str(source)], command("-"), ["cat"]], measured=1),
    ]


def encryption(bk, peers, source, out, size):
    jobs = []
    for engine in bk.engines:
        jobs += three_sinks("encrypt", named("bk-wrap", engine), size, partial(bk.wrap, engine), source, out)
    jobs += three_sinks("encrypt", "age", size, peers.age, source, out)
    jobs += three_sinks("encrypt", "gpg", size, peers.gpg, source, out)
    jobs += three_sinks("encrypt", "openssl enc", size, peers.openssl, source, out)
    for name, init, command in (("restic", peers.restic_init, peers.restic), ("borg", peers.borg_init, peers.borg)):
        both = [
            Job("encrypt", "file", name, size, [command(str(source))]),
            Job("encrypt", "pipe", name, size, [["cat", str(source)], command("-")], measured=1),
        ]
        for job in both:
            job.prepare, job.clean = init, peers.drop_repository
        jobs += both
    return jobs


def to_disk(bk, peers, source, out, size):
    """The same into a file of a real disk, done when it is on the disk; bk syncs by itself."""
    jobs = [Job("encrypt", "disk", named("bk-wrap", e), size, [bk.wrap(e, str(out), str(source))]) for e in bk.engines]
    if bk.has("--direct"):
        direct = bk.wrap(bk.best, str(out), "--direct", str(source))
        jobs.append(Job("encrypt", "disk", "bk-wrap --direct", size, [direct]))
    jobs.append(Job("encrypt", "disk", "age", size, [peers.age(str(out), str(source))]))
    jobs.append(Job("roof", "disk", "cp", size, [["cp", str(source), str(out)]]))
    for job in jobs:
        job.made, job.sync = out, True
    return jobs


def decryption(bk, peers, made, source, out, size):
    """made: what of each contender is opened, by name. Any bytes do for AES-CTR; gpg has a quarter, to save room."""
    jobs = []
    for engine in bk.engines:
        name = named("bk-unwrap", engine)
        archive = str(made["bk"])
        piped = [["cat", archive], bk.unwrap(engine, "-", "-", "--allow-unverified"), ["cat"]]
        jobs += [
            Job("decrypt", "null", name, size, [bk.unwrap(engine, "-", archive)]),
            Job("decrypt", "file", name, size, [bk.unwrap(engine, str(out), archive)], made=out),
            Job("decrypt", "pipe", name, size, piped, measured=1),
        ]
    jobs += three_sinks("decrypt", "age", size, peers.age_open, made["age"], out)
    jobs.append(Job("decrypt", "null", "gpg", size // 4, [peers.gpg_open("-", str(made["gpg"]))]))
    jobs.append(Job("decrypt", "null", "openssl enc", size, [peers.openssl_open("-", str(source))]))
    return jobs


def verification(bk, archive, size):
    jobs = [Job("verify", "null", named("bk-verify", e), size, [bk.verify(e, str(archive))]) for e in bk.engines]
    jobs.append(Job("verify", "null", "openssl dgst -sha256", size, [["openssl", "dgst", "-sha256", str(archive)]]))
    jobs.append(Job("verify", "null", "sha256sum", size, [["sha256sum", str(archive)]]))
    return jobs


def one_core(bk, cores, source, archive, size):
    """bk on the first core alone; its rows on all of them are with the others."""
    pinned = ["taskset", "-c", str(cores[0])]
    return [
        Job("encrypt", "null", "bk-wrap, one core", size, [pinned + bk.wrap(bk.best, "-", str(source))]),
        Job("decrypt", "null", "bk-unwrap, one core", size, [pinned + bk.unwrap(bk.best, "-", str(archive))]),
        Job("verify", "null", "bk-verify, one core", size, [pinned + bk.verify(bk.best, str(archive))]),
    ]


def threads(bk, source, size):
    return [
        Job("jobs", "null", f"bk-wrap -j {n}", size, [bk.wrap(bk.best, "-", "-j", str(n), str(source))])
        for n in (1, 2, 4)
    ]


def small(bk, peers, source, out):
    """1 KiB: what a run costs before the first byte and after the last."""
    size = source.stat().st_size
    jobs = [
        Job("small", "file", named("bk-wrap", e), size, [bk.wrap(e, str(out), str(source))], made=out)
        for e in bk.engines
    ]
    jobs.append(Job("small", "file", "age", size, [peers.age(str(out), str(source))], made=out))
    jobs.append(Job("small", "file", "gpg", size, [peers.gpg(str(out), str(source))], made=out))
    jobs.append(Job("small", "null", "true", size, [["true"]]))
    return jobs


def sizes(bk, sparse, largest):
    """bk-wrap of 1 MiB to `largest` in steps of four. The file is a hole, which needs no room."""
    jobs = []
    size = MIB
    while size <= largest:
        path = sparse / f"hole-{size}"
        with open(path, "wb") as file:
            file.truncate(size)
        jobs.append(Job("size", "null", str(size), size, [bk.wrap(bk.best, "-", str(path))]))
        size *= 4
    return jobs


def memory(bk, block, lengths):
    """bk-wrap of what a pipe delivers, the same block over and over."""
    jobs = []
    for size in lengths:
        fill = ["cat"] + [str(block)] * (size // block.stat().st_size)
        jobs.append(Job("memory", "pipe", str(size), size, [fill, bk.wrap(bk.best, "-"), ["cat"]], measured=1))
    return jobs
