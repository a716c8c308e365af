#!/usr/bin/python3
"""Runs a program and finds out where its secrets were: in its memory and that of its token workers while they worked
and at their very end, and in what they wrote. Linux; x86_64 or aarch64. Any user may trace his own child; only root is
told the names of the files that it writes.

    secret_watch.py --report FILE --archive ARCHIVE --key PEM --trust [ROLE:]PEM... [--look NAME=FILE]... [--every N]
                    [--module NAME] [--term FILE] -- PROGRAM ARG...
    secret_watch.py --report FILE --abort FILE [--abort-workers] -- PROGRAM ARG...

The program is traced from its first instruction on, so that its memory can be read although it is undumpable, and so is
every bk-token-worker that it starts; other children are let go when they execute something. Memory is searched at every
Nth system call of each process and at every one that writes or receives ("working"), and when a process asks the system
to end it, after all exit handlers, or ends itself by a signal ("end"). Looked for are the keys of ARCHIVE, recovered
with a recipient's private key by stock openssl and by the independent reader of tests/interop, and what the --look
files hold (but one newline at their end). If the program is to make ARCHIVE, memory is kept, and searched when the run
is over. FILE gets a line for each kind of finding and one for each moment's stops without any, in four columns:

    moment  working, end, or written (the bytes that were handed to the system to be written); of the working ones also:
            storing, the program writes to a file; resting, a worker goes to receive a message
    name    cek, file-key, prk, payload-key, or the NAME of a --look; none
    place   arena: anonymous memory, locked and left out of core dumps; unlocked: the same, not locked; heap; stack; the
            mapped file; module: heap or stack, while the thread that stopped has returns into the module NAME on its
            stack, which old ones that were not overwritten can feign. For what was written: the file; to-worker and
            to-program, if it is a socket whose two ends the program and a worker use. A worker's are worker:PLACE
    count   at how many stops of that moment

and lines "stops", "all", "program" or "worker:", and how often memory of that kind of process was searched; "dumpable",
"memory", the same, and how many of them could be looked into at their end by another process of the same user.

With --term the program gets SIGTERM when it first writes to a file of that name (".part" at its end: a staged file,
without the six random characters). With --abort it gets SIGABRT then, or its workers do, with core dumps unlimited as
far as the system lets us, and FILE gets "core", "no-core", or "no-abort" if none ended by that signal. The exit status
is the program's, or 128 and the signal that ended it.
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

TRACEME, DETACH, CONT_SYSCALL, SETOPTIONS, GET_SYSCALL_INFO = 0, 17, 24, 0x4200, 0x420E
TRACESYSGOOD, TRACEFORK, TRACEVFORK, TRACECLONE, TRACEEXEC, EXITKILL = 1, 2, 4, 8, 16, 1 << 20
EVENT_EXEC = 4
WALL = 0x40000000
SYSCALL_STOP = signal.SIGTRAP | 0x80
SYSCALL_ENTRY, SYSCALL_EXIT = 1, 2
CAPBSET_DROP, CAP_SYS_PTRACE = 24, 19
WORKER = "bk-token-worker"
STACK_WINDOW = 16384  # of the stack, searched for returns into the module
KEPT_PAGES = 1 << 16  # 256 MiB; then the calls that write are no longer stops of their own
UNLIMITED = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
CALLS = {
    "x86_64": {"write": 1, "pwrite": 18, "writev": 20, "pwritev": 296, "sendto": 44, "sendmsg": 46, "recvfrom": 45,
               "socketpair": 53, "end": 231, "raise": 234},
    "aarch64": {"write": 64, "pwrite": 68, "writev": 66, "pwritev": 70, "sendto": 206, "sendmsg": 211, "recvfrom": 207,
                "socketpair": 199, "end": 94, "raise": 131},
}
PAGE = 4096
TIME_LIMIT = 240

Mapping = collections.namedtuple("Mapping", "place data")
Stop = collections.namedtuple("Stop", "prefix moments in_module mappings")

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


class Pages:
    """Memory that is kept: the content of each page once, since from one stop to the next few of them change."""

    def __init__(self):
        self.numbers = {}
        self.seams = {}
        self.content = self.inside = None

    def keep(self, data):
        return [self.numbers.setdefault(data[i : i + PAGE], len(self.numbers)) for i in range(0, len(data), PAGE)]

    def full(self):
        return len(self.numbers) > KEPT_PAGES

    def search(self, pages, wanted):
        """The names of what is in these pages, which follow each other."""
        if self.content is None:
            self.content = list(self.numbers)
            self.inside = [names_in(data, wanted) for data in self.content]
        found = set().union(*(self.inside[number] for number in pages))
        for seam in zip(pages, pages[1:]):
            if seam not in self.seams:
                left = max(map(len, wanted.values())) - 1
                self.seams[seam] = names_in(self.content[seam[0]][-left:] + self.content[seam[1]][:left], wanted)
            found |= self.seams[seam]
        return found


def names_in(data, wanted):
    return {name for name, value in wanted.items() if value in data}


class Process:
    """The program, or one of its workers."""

    def __init__(self, pid, prefix):
        self.pid, self.prefix = pid, prefix
        self.memory = Memory(pid)
        self.seen = 0
        self.sockets = set()  # that it sends to or receives from

    def target(self, descriptor):
        try:
            return os.readlink(f"/proc/{self.pid}/fd/{descriptor}")
        except OSError:
            return f"descriptor {descriptor}"

    def _vector(self, at, count):
        parts = struct.unpack(f"<{2 * count}Q", self.memory.read(at, 16 * count))
        return b"".join(self.memory.read(*parts[i : i + 2]) for i in range(0, len(parts), 2))

    def data_of(self, name, args):
        """What the call is to write."""
        if name in ("write", "pwrite", "sendto"):
            return self.memory.read(args[1], args[2])
        if name in ("writev", "pwritev"):
            return self._vector(args[1], args[2])
        return self._vector(*struct.unpack("<2Q", self.memory.read(args[1] + 16, 16)))

    def is_dumpable(self):
        """Whether a process of the same user with no greater rights may look into it."""
        return subprocess.run(["readlink", f"/proc/{self.pid}/cwd"], stdout=subprocess.DEVNULL,
                              stderr=subprocess.DEVNULL, preexec_fn=trace_no_more, check=False).returncode == 0


def trace_no_more():
    """What root executes after this may not look into whatever it likes; any other user's may not anyway."""
    libc.prctl(CAPBSET_DROP, CAP_SYS_PTRACE, 0, 0, 0)


class Run:
    """One run of the program under observation; wanted is None as long as the secrets cannot be known."""

    def __init__(self, args, wanted):
        self.calls = CALLS[platform.machine()]
        self.names = {number: name for name, number in self.calls.items()}
        self.args, self.wanted = args, wanted
        self.kept, self.pages = [], Pages()
        self.written = collections.defaultdict(list)
        self.found = collections.Counter()
        self.made = {}  # by a thread that is making a pair of sockets: where their descriptors will be
        self.peers = {}
        self.workers = []
        self.ended = set()  # processes
        self.aborted = {}  # by process: its status
        self.pid = os.fork()
        if self.pid == 0:
            ptrace(TRACEME, 0)
            trace_no_more()
            if args.abort:
                resource.setrlimit(resource.RLIMIT_CORE, UNLIMITED)
            try:
                os.execvp(args.command[0], args.command)
            finally:
                os._exit(127)
        os.waitpid(self.pid, WALL)
        ptrace(SETOPTIONS, self.pid, 0,
               TRACESYSGOOD | TRACEFORK | TRACEVFORK | TRACECLONE | TRACEEXEC | EXITKILL)
        self.program = Process(self.pid, "")
        self.processes = {self.pid: self.program}
        self.threads = {self.pid: self.program}  # the process of each, None: a child that has executed nothing yet
        self._go_on(self.pid, 0)

    @staticmethod
    def _go_on(tid, number):
        try:
            ptrace(CONT_SYSCALL, tid, 0, number)
        except ProcessLookupError:
            pass  # the whole process is ending

    def follow(self):
        """The program's status, once its workers have ended too."""
        result = None
        while self.processes:
            tid, status = os.waitpid(-1, WALL)
            if os.WIFSTOPPED(status):
                self._stopped(tid, status)
                continue
            self.threads.pop(tid, None)
            process = self.processes.pop(tid, None)
            if process in self.aborted:
                self.aborted[process] = status
            if process is self.program:
                result = status
        return result

    def _stopped(self, tid, status):
        number = os.WSTOPSIG(status)
        if tid not in self.threads:  # the first stop of a new thread or child
            self.threads[tid] = self.processes.get(self._group_of(tid))
            self._go_on(tid, 0)
        elif status >> 16 == EVENT_EXEC and self.threads[tid] is None:
            self._executed(tid)
        elif number == SYSCALL_STOP:
            if self.threads[tid] is not None:
                self._call(tid, self.threads[tid])
            self._go_on(tid, 0)
        else:
            self._go_on(tid, 0 if status >> 16 or number == signal.SIGTRAP else number)

    @staticmethod
    def _group_of(tid):
        try:
            with open(f"/proc/{tid}/status", encoding="ascii", errors="replace") as file:
                return int(re.search(r"^Tgid:\s+(\d+)", file.read(), re.MULTILINE).group(1))
        except OSError:
            return tid

    def _executed(self, pid):
        if os.path.basename(os.readlink(f"/proc/{pid}/exe")) != WORKER:
            ptrace(DETACH, pid)
            del self.threads[pid]
            return
        self.processes[pid] = self.threads[pid] = Process(pid, "worker:")
        self.workers.append(self.processes[pid])
        self._go_on(pid, 0)

    def _call(self, tid, process):
        info = ctypes.create_string_buffer(128)
        try:
            ptrace(GET_SYSCALL_INFO, tid, 128, ctypes.addressof(info))
        except ProcessLookupError:
            return
        stack, number, *args = struct.unpack("<8Q", info.raw[16:80])
        if info.raw[0] == SYSCALL_EXIT:
            self._note_pair(tid, process)
        elif info.raw[0] == SYSCALL_ENTRY:
            self._entry(tid, process, stack, self.names.get(number), args)

    def _entry(self, tid, process, stack, name, args):
        process.seen += 1
        moments = ["working"]
        if name in ("end", "raise"):
            self._end(process, stack)
            return
        if name == "socketpair":
            self.made[tid] = args[3]
        elif name == "recvfrom":
            process.sockets.add(process.target(args[0]))
            if process is not self.program:
                moments.append("resting")
        elif name is not None:
            target = self._note_written(process, name, args)
            if process is self.program and args[0] > 2 and re.match("/(?!dev/)", target):
                moments.append("storing")
        # what is not known yet must be kept
        room = self.wanted is not None or not self.pages.full()
        if process.seen % self.args.every == 0 or (name is not None and room):
            self._look_at(process, moments, stack)

    def _end(self, process, stack):
        self._look_at(process, ["end"], stack)
        if process not in self.ended:
            self.ended.add(process)
            self.found["dumpable", "memory", process.prefix or "program"] += process.is_dumpable()

    def _note_pair(self, tid, process):
        at = self.made.pop(tid, None)
        if at is not None:
            one, other = map(process.target, struct.unpack("<2i", process.memory.read(at, 8)))
            self.peers[one], self.peers[other] = other, one

    def _look_at(self, process, moments, stack):
        if self.args.abort:
            return
        low, high = process.memory.code_of(self.args.module)
        words = process.memory.read(stack, STACK_WINDOW)
        inside = any(low <= word < high for (word,) in struct.iter_unpack("<Q", words[: len(words) // 8 * 8]))
        stop = Stop(process.prefix, moments, inside, process.memory.mappings())
        if self.wanted is None:
            mappings = [Mapping(place, self.pages.keep(data)) for place, data in stop.mappings]
            self.kept.append(stop._replace(mappings=mappings))
        else:
            self._search(stop, names_in)

    def _search(self, stop, names):
        hits = set()
        self.found["stops", "all", stop.prefix or "program"] += 1
        for m in stop.mappings:
            place = "module" if stop.in_module and m.place in ("heap", "stack") else m.place
            hits |= {(name, stop.prefix + place) for name in names(m.data, self.wanted)}
        for moment in stop.moments:
            self.found.update((moment, *hit) for hit in hits or {("none", stop.prefix + "none")})

    def findings(self, wanted):
        self.wanted = wanted
        for stop in self.kept:
            self._search(stop, self.pages.search)
        hits = {("written", name, process.prefix + self._line(process, target))
                for (process, target), parts in self.written.items() for name in names_in(b"".join(parts), wanted)}
        self.found.update(hits or {("written", "none", "none")})
        return [(*key, count) for key, count in sorted(self.found.items()) if count]

    def _line(self, process, target):
        """What a socket is: the line between the program and a worker, if both ends were seen in use by the two."""
        peer = self.peers.get(target)
        if process is not self.program:
            return "to-program" if peer in self.program.sockets else target
        return "to-worker" if any(peer in worker.sockets for worker in self.workers) else target

    def _note_written(self, process, name, args):
        target = process.target(args[0])
        if name.startswith("send"):
            process.sockets.add(target)
        file = re.sub(r"\.[0-9A-Za-z]{6}\.part$", ".part", os.path.basename(target))
        if process is self.program and (process, file) not in self.written:
            if file == self.args.term:
                os.kill(self.pid, signal.SIGTERM)
            if file == self.args.abort:
                self._abort()
        self.written[process, file].append(process.data_of(name, args))
        return target

    def _abort(self):
        for process in self.processes.values():
            if (process is not self.program) == self.args.abort_workers:
                try:  # whatever it did about that itself, so that its memory alone says no
                    resource.prlimit(process.pid, resource.RLIMIT_CORE, UNLIMITED)
                except PermissionError:
                    pass
                os.kill(process.pid, signal.SIGABRT)
                self.aborted[process] = None

    def cores(self):
        """core, no-core or no-abort."""
        statuses = [status for status in self.aborted.values() if status is not None and os.WIFSIGNALED(status)]
        if not statuses or any(os.WTERMSIG(status) != signal.SIGABRT for status in statuses):
            return "no-abort"
        return "core" if any(map(os.WCOREDUMP, statuses)) else "no-core"


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
    parser.add_argument("--abort-workers", action="store_true")
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
        lines = [(run.cores(),)]
    else:
        lines = run.findings(run.wanted or look_for(args))
    with open(args.report, "w", encoding="ascii") as file:
        file.writelines("\t".join(map(str, line)) + "\n" for line in lines)
    return os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)


if __name__ == "__main__":
    sys.exit(main())
