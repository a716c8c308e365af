"""What the machine can do at all: copying, pipes, and the ciphers and hashes without any program around them."""

import json
import re
import subprocess
import sys

from measure import Job, MIB

BLOCK = 64 * MIB
CALLS = 32768  # bytes of each call of openssl speed: one of bk's segments


# In a process of its own, because what a process has had is charged to those that it starts, too
MEMCPY = """
import ctypes, sys, time
size = int(sys.argv[1])
source, target = ctypes.create_string_buffer(b"1" * size, size), ctypes.create_string_buffer(size)
ctypes.memmove(target, source, size)
begin = time.monotonic()
for _ in range(32):
    ctypes.memmove(target, source, size)
print(32 * size / (time.monotonic() - begin))
"""


def memcpy(processes):
    """The sum of the processes' bytes a second, of blocks that no cache holds."""
    running = [
        subprocess.Popen([sys.executable, "-c", MEMCPY, str(BLOCK)], stdout=subprocess.PIPE) for _ in range(processes)
    ]
    return sum(float(p.communicate()[0]) for p in running)


def openssl_speed(algorithm, processes):
    """The sum of the processes' bytes a second."""
    argv = ["openssl", "speed", "-elapsed", "-mr", "-seconds", "1", "-bytes", str(CALLS), "-evp", algorithm]
    if processes > 1:
        argv += ["-multi", str(processes)]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    # Each process tells its rate as +F:number:name:rate, and with -multi the sum comes last, with the same beginning
    rates = re.findall(r"^\+F:\d+:[^:]+:([0-9.e+]+)", done.stdout, re.M)
    return float(rates[-1])


def jobs(source, out, size):
    rows = [
        Job("roof", "null", "dd bs=1M", size, [["dd", f"if={source}", "of=/dev/null", "bs=1M", "status=none"]]),
        Job("roof", "file", "cp", size, [["cp", str(source), str(out)]], made=out),
        Job("roof", "pipe", "cat | cat", size, [["cat", str(source)], ["cat"]], measured=1),
        Job("roof", "pipe", "cat | cat | cat", size, [["cat", str(source)], ["cat"], ["cat"]], measured=1),
    ]
    for count in (1, 2):
        rows.append(Job("roof", "cpu", f"memcpy x {count}", size, rate=lambda n=count: memcpy(n)))
        for name in ("aes-256-gcm", "sha256"):
            rows.append(
                Job(
                    "roof",
                    "cpu",
                    f"openssl speed {name} x {count}",
                    size,
                    rate=lambda a=name, n=count: openssl_speed(a, n),
                )
            )
    return rows


class EngineBench:
    """engine_bench tells the rates of all works in one run; it is run anew when one is asked for twice."""

    def __init__(self, program, engine, threads):
        self.argv = [str(program), "--json", engine, str(threads), "0.5"]
        self.rates = {}

    def run(self):
        done = subprocess.run(self.argv, capture_output=True, text=True, check=True)
        said = [json.loads(line) for line in done.stdout.splitlines()]
        return {line["work"]: line["gigabytesPerSecond"] * 1e9 for line in said}

    def rate(self, work):
        if work not in self.rates:
            self.rates = self.run()
        return self.rates.pop(work)


def knows(program, engine):
    argv = [str(program), "--json", engine, "1", "0.01"]
    return subprocess.run(argv, capture_output=True, check=False).stdout != b""


def engines(program, size):
    """Rows of each engine alone, and why there are none."""
    if not program.exists():
        return [], "engine_bench is not built: reckoned from openssl speed, a pass of AES-256-GCM and one of SHA-256"
    rows = []
    for engine in ("openssl", "ipsec-mb"):
        for threads in (1, 2) if knows(program, engine) else ():
            bench = EngineBench(program, engine, threads)
            for work in ("seal", "open", "root"):
                name = f"{engine} {work} x {threads}"
                rows.append(Job("roof", "engine", name, size, rate=lambda b=bench, w=work: b.rate(w)))
    return rows, "" if rows else "engine_bench knows no engine"
