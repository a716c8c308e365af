#!/usr/bin/python3
"""Runs a program and finds out where its secrets were: in its memory while it worked and at its very end, and in what
it wrote. Linux; x86_64 or aarch64. Any user may trace his own child; only root is told the names of the files that it
writes.

    secret_watch.py --report FILE --archive ARCHIVE --key PEM --trust [ROLE:]PEM... [--look NAME=FILE]... [--every N]
                    [--module NAME] [--term FILE] -- PROGRAM ARG...
    secret_watch.py --report FILE --abort FILE -- PROGRAM ARG...

The program is traced from its first instruction on, so that its memory can be read although it is undumpable: at every
Nth of its system calls and at every one that writes ("working"), and when it asks the system to end it, after all exit
handlers, or ends itself by a signal ("end"). Looked for are the keys of ARCHIVE, recovered with a recipient's private
key by stock openssl and by the independent reader of tests/interop, and what the --look files hold (but one newline at
their end). If the program is to make ARCHIVE, memory is kept at some of the calls that write, and searched when the run
is over. FILE gets a line for each kind of finding and one for each moment's stops without any, in four columns:

    moment  working, end, or written (the bytes that the program handed to the system to be written)
    name    cek, file-key, prk, payload-key, or the NAME of a --look; none
    place   arena: anonymous memory, locked and left out of core dumps; unlocked: the same, not locked; heap; stack; the
            mapped file; module: heap or stack, while the thread that stopped has returns into the module NAME on its
            stack, which old ones that were not overwritten can feign. For what was written: the file
    count   at how many stops of that moment

and a line "stops", "all", "all" and how often memory was searched.

With --term the program gets SIGTERM when it first writes to a file of that name (".part" at its end: a staged file,
without the six random characters). With --abort it gets SIGABRT then, with core dumps unlimited, and FILE gets "core"
or "no-core". The exit status is the program's, or 128 and the signal that ended it.
"""

import argparse
import collections
import ctypes
import hashlib
import hmac
import os
import platform
import re
import resource
import signal
import struct
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "interop"))

import keys  # noqa: E402
import reader  # noqa: E402
import rules  # noqa: E402

TRACEME, CONT_SYSCALL, SETOPTIONS, GET_SYSCALL_INFO = 0, 24, 0x4200, 0x420E
TRACESYSGOOD, TRACECLONE, EXITKILL = 1, 8, 1 << 20
WALL = 0x40000000
SYSCALL_STOP = signal.SIGTRAP | 0x80
SYSCALL_ENTRY = 1
STACK_WINDOW = 16384  # of the stack, searched for returns into the module
KEPT_STOPS = 80
CALLS = {
    "x86_64": {"write": 1, "pwrite": 18, "writev": 20, "sendto": 44, "end": 231, "raise": 234},
    "aarch64": {"write": 64, "pwrite": 68, "writev": 66, "sendto": 206, "end": 94, "raise": 131},
}
PAGE = 4096
TIME_LIMIT = 240

Mapping = collections.namedtuple("Mapping", "place data")
Stop = collections.namedtuple("Stop", "moment in_module mappings")

libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.restype = ctypes.c_long
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]


def ptrace(request, pid, addr=0, data=0):
    result = libc.ptrace(request, pid, addr, data)
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


class Memory:
    """Opened when the program is not undumpable yet; what was opened then can be read until the end."""

    def __init__(self, pid):
        self.mem = os.open(f"/proc/{pid}/mem", os.O_RDONLY)
        self.smaps = os.open(f"/proc/{pid}/smaps", os.O_RDONLY)
        self.pagemap = os.open(f"/proc/{pid}/pagemap", os.O_RDONLY)

    def read(self, start, size):
        """What can be read of the range: a guard page or a mapping that has gone ends it."""
        parts = []
        while size > 0:
            try:
                part = os.pread(self.mem, min(size, 1 << 20), start)
            except OSError:
                break
            if not part:
                break
            parts.append(part)
            start += len(part)
            size -= len(part)
        return b"".join(parts)

    def code_of(self, module):
        """The range of the module's code, empty as long as it is not loaded."""
        lines = re.findall(rf"([0-9a-f]+)-([0-9a-f]+) r-xp .*/{re.escape(module)}", self._smaps_text())
        return (int(lines[0][0], 16), int(lines[0][1], 16)) if lines else (0, 0)

    def used(self, start, end):
        """The parts of a mapping whose pages were ever touched: most of a stack or a thread's heap never was."""
        count = (end - start) // PAGE
        entries = struct.unpack(f"<{count}Q", os.pread(self.pagemap, count * 8, start // PAGE * 8))
        parts, since = [], None
        for number, entry in enumerate(entries + (0,)):
            if entry >> 62 and since is None:
                since = number
            elif not entry >> 62 and since is not None:
                parts.append(self.read(start + since * PAGE, (number - since) * PAGE))
                since = None
        return parts

    def _smaps_text(self):
        os.lseek(self.smaps, 0, os.SEEK_SET)
        parts = []
        while part := os.read(self.smaps, 1 << 16):
            parts.append(part)
        return b"".join(parts).decode()

    def mappings(self):
        """All that can be written, and whatever else is not a file: code and constants hold nothing of ours."""
        found = []
        for block in re.split(r"\n(?=[0-9a-f]+-[0-9a-f]+ )", self._smaps_text()):
            head = re.match(r"([0-9a-f]+)-([0-9a-f]+) (\S+) \S+ \S+ \d+ *(.*)", block)
            name = head.group(4)
            flags = re.search(r"VmFlags:(.*)", block).group(1).split()
            if "r" not in head.group(3) or name.startswith("[v") or (name.startswith("/") and "w" not in head.group(3)):
                continue
            # where memory cannot be locked, the arena is only left out of core dumps
            if name == "" and "dd" in flags:
                place = "arena" if "lo" in flags else "unlocked"
            elif name.startswith("/"):
                place = os.path.basename(name)
            else:
                place = "stack" if name == "[stack]" else "heap"
            start, end = int(head.group(1), 16), int(head.group(2), 16)
            found += [Mapping(place, data) for data in self.used(start, end)]
        return found


class Run:
    """One run of the program under observation; wanted is None as long as the secrets cannot be known."""

    def __init__(self, args, wanted):
        self.calls = CALLS[platform.machine()]
        self.names = {number: name for name, number in self.calls.items()}
        self.args, self.wanted = args, wanted
        self.kept, self.written = [], collections.defaultdict(list)
        self.found = collections.Counter()
        self.seen = self.writes = 0
        self.status = None
        self.pid = os.fork()
        if self.pid == 0:
            ptrace(TRACEME, 0)
            if args.abort:
                resource.setrlimit(resource.RLIMIT_CORE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            try:
                os.execvp(args.command[0], args.command)
            finally:
                os._exit(127)
        os.waitpid(self.pid, WALL)
        ptrace(SETOPTIONS, self.pid, 0, TRACESYSGOOD | TRACECLONE | EXITKILL)
        self.memory = Memory(self.pid)
        self._go_on(self.pid, 0)

    @staticmethod
    def _go_on(tid, number):
        try:
            ptrace(CONT_SYSCALL, tid, 0, number)
        except ProcessLookupError:
            pass  # the whole process is ending

    def follow(self):
        threads = {self.pid}
        while self.status is None:
            tid, status = os.waitpid(-1, WALL)
            if os.WIFSTOPPED(status):
                self._go_on(tid, self._stopped(tid, status, threads))
            elif tid == self.pid:
                self.status = status
        return self.status

    def _stopped(self, tid, status, threads):
        """The signal to go on with."""
        number = os.WSTOPSIG(status)
        if number == SYSCALL_STOP:
            return self._call(tid)
        if status >> 16 or number == signal.SIGTRAP:
            return 0
        if tid not in threads:  # a new thread's first stop
            threads.add(tid)
            return 0
        return number

    def _call(self, tid):
        info = ctypes.create_string_buffer(128)
        try:
            ptrace(GET_SYSCALL_INFO, tid, 128, ctypes.addressof(info))
        except ProcessLookupError:
            return 0
        if info.raw[0] != SYSCALL_ENTRY:
            return 0
        stack, number, *args = struct.unpack("<8Q", info.raw[16:80])
        name = self.names.get(number)
        self.seen += 1
        if name in ("end", "raise"):
            self._look_at("end", stack)
            return 0
        if name:
            self.writes += 1
            self._note_written(name, args)
        # what is not known yet must be kept: all of the first writes, since keys are made there, and some of the later
        if self.wanted is None:
            due = name and (self.writes <= KEPT_STOPS // 2 or self.writes % 8 == 0)
            due = due and len(self.kept) < KEPT_STOPS
        else:
            due = name is not None or self.seen % self.args.every == 0
        if due:
            self._look_at("working", stack)
        return 0

    def _look_at(self, moment, stack):
        if self.args.abort:
            return
        low, high = self.memory.code_of(self.args.module)
        words = self.memory.read(stack, STACK_WINDOW)
        inside = any(low <= word < high for (word,) in struct.iter_unpack("<Q", words[: len(words) // 8 * 8]))
        stop = Stop(moment, inside, self.memory.mappings())
        if self.wanted is None:
            self.kept.append(stop)
        else:
            self._search(stop)

    def _search(self, stop):
        hits = set()
        self.found["stops", "all", "all"] += 1
        for m in stop.mappings:
            place = "module" if stop.in_module and m.place in ("heap", "stack") else m.place
            hits |= {(stop.moment, name, place) for name, value in self.wanted.items() if value in m.data}
        self.found.update(hits or {(stop.moment, "none", "none")})

    def findings(self, wanted):
        self.wanted = wanted
        for stop in self.kept:
            self._search(stop)
        hits = {("written", name, target) for target, parts in self.written.items() for name, value in wanted.items()
                if value in b"".join(parts)}
        self.found.update(hits or {("written", "none", "none")})
        return [(*key, count) for key, count in sorted(self.found.items())]

    def _note_written(self, name, args):
        if name in ("write", "pwrite", "sendto"):
            data = self.memory.read(args[1], args[2])
        elif name == "writev":
            vector = struct.unpack(f"<{2 * args[2]}Q", self.memory.read(args[1], 16 * args[2]))
            data = b"".join(self.memory.read(*vector[i : i + 2]) for i in range(0, len(vector), 2))
        else:
            return
        try:
            target = os.readlink(f"/proc/{self.pid}/fd/{args[0]}")
        except OSError:
            target = f"descriptor {args[0]}"
        target = re.sub(r"\.[0-9A-Za-z]{6}\.part$", ".part", os.path.basename(target))
        for number, name in ((signal.SIGABRT, self.args.abort), (signal.SIGTERM, self.args.term)):
            if name == target and target not in self.written:
                os.kill(self.pid, number)
        self.written[target].append(data)


def archive_secrets(args):
    """The keys of the archive, by two ways that have nothing in common with the programs."""
    trust = reader.Trust()
    for spec in args.trust:
        trust.add(spec)
    archive = reader.Archive(args.archive, trust)
    key = keys.Key(args.key)
    recipient = next(r for r in archive.envelope.recipients if r.id == key.id)
    package = subprocess.run(["openssl", "cms", "-decrypt", "-binary", "-inform", "DER", "-inkey", args.key],
                             input=archive.slot.envelope, stdout=subprocess.PIPE, check=True).stdout
    file_key = reader.Package(package).file_key
    return {
        "cek": key.unwrap(recipient),
        "file-key": file_key,
        "prk": hmac.new(archive.preamble.archive_id, file_key, hashlib.sha256).digest(),
        "payload-key": rules.payload_key(file_key, archive.preamble.raw, archive.envelope.digest, 0),
    }


def look_for(args):
    wanted = archive_secrets(args)
    for spec in args.look:
        name, path = spec.split("=", 1)
        with open(path, "rb") as file:
            wanted[name] = file.read().removesuffix(b"\n")
    return wanted


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--report", required=True)
    parser.add_argument("--archive")
    parser.add_argument("--key")
    parser.add_argument("--trust", action="append", default=[])
    parser.add_argument("--look", action="append", default=[])
    parser.add_argument("--every", type=int, default=24)
    parser.add_argument("--module", default="libsofthsm2.so")
    parser.add_argument("--term", default="")
    parser.add_argument("--abort", default="")
    parser.add_argument("command", nargs="+")
    args = parser.parse_args()
    run = Run(args, None if args.abort or not os.path.exists(args.archive) else look_for(args))

    def too_long(*_):
        os.kill(run.pid, signal.SIGKILL)
        sys.exit("secret_watch.py: the program did not end")

    signal.signal(signal.SIGALRM, too_long)
    signal.alarm(TIME_LIMIT)
    status = run.follow()
    signal.alarm(0)
    if args.abort:
        lines = [("core" if os.WCOREDUMP(status) else "no-core",)]
    else:
        lines = run.findings(run.wanted or look_for(args))
    with open(args.report, "w", encoding="ascii") as file:
        file.writelines("\t".join(map(str, line)) + "\n" for line in lines)
    return os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)


if __name__ == "__main__":
    sys.exit(main())
