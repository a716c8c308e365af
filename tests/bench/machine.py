"""What was measured on: processor, kernel, memory, file systems, versions."""

import os
import platform
import re
import subprocess
from pathlib import Path

FLAGS = (
    "aes",
    "pclmulqdq",
    "vaes",
    "vpclmulqdq",
    "sha_ni",
    "gfni",
    "avx2",
    "avx512f",
    "avx512bw",
    "avx512vl",
    "avx512ifma",
)
PACKAGES = (
    "age",
    "gnupg",
    "gpg",
    "openssl",
    "libssl3",
    "restic",
    "borgbackup",
    "softhsm2",
    "libipsec-mb1",
    "libp11-kit0",
    "coreutils",
    "gcc",
    "libc6",
    "python3",
)


def output(argv):
    try:
        return subprocess.run(argv, capture_output=True, text=True, check=False).stdout
    except OSError:
        return ""


def field(text, name):
    found = re.search(rf"^{name}\s*:\s*(.*)$", text, re.M)
    return found.group(1).strip() if found else "unknown"


def memory(name):
    return int(field(Path("/proc/meminfo").read_text(encoding="ascii"), name).split()[0]) * 1024


def busy_seconds():
    """Of all processors since the start of the machine, with what a hypervisor gave to others."""
    user, low, system, _, _, irq, soft, steal = (int(n) for n in Path("/proc/stat").read_text().split()[1:9])
    return (user + low + system + irq + soft + steal) / os.sysconf("SC_CLK_TCK")


def filesystem(folder):
    """The type of the file system in which the folder is, and its options."""
    best = ("", "unknown", "")
    real = os.path.realpath(folder)
    for entry in Path("/proc/mounts").read_text(encoding="utf-8").splitlines():
        _, where, kind, options = entry.split()[:4]
        if (real + "/").startswith(where.rstrip("/") + "/") and len(where) >= len(best[0]):
            best = (where, kind, options)
    return f"{best[1]} ({best[2]})"


def describe(cores, scratch, disk):
    lscpu = output(["lscpu"])
    flags = field(lscpu, "Flags").split()
    governor = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
    return {
        "cpu": field(lscpu, "Model name"),
        "cpuIds": f"family {field(lscpu, 'CPU family')}, model {field(lscpu, 'Model')}",
        "flags": [f for f in FLAGS if f in flags],
        "flagsMissing": [f for f in FLAGS if f not in flags],
        "cores": len(cores),
        "coresOfMachine": os.cpu_count(),
        "l3": field(lscpu, "L3 cache"),
        "l2": field(lscpu, "L2 cache"),
        "hypervisor": field(lscpu, "Hypervisor vendor"),
        "governor": governor.read_text(encoding="ascii").strip() if governor.exists() else "not visible",
        "memoryBytes": memory("MemTotal"),
        "kernel": platform.release(),
        "system": field(Path("/etc/os-release").read_text(encoding="utf-8").replace("=", ":"), "PRETTY_NAME").strip(
            '"'
        ),
        "folder": filesystem(scratch),
        "disk": filesystem(disk),
        "loadAtBegin": os.getloadavg()[0],
    }


def versions(bk, root):
    found = {}
    listed = output(["dpkg-query", "-W", "-f", "${Package} ${Version} ${db:Status-Status}\n", *PACKAGES])
    for entry in listed.splitlines():
        name, version, status = (entry.split() + ["", ""])[:3]
        if status == "installed":
            found[name] = version
    found["bk"] = output([bk.program("bk-wrap"), "--version"]).strip().splitlines()[0]
    commit = output(["git", "-C", str(root), "rev-parse", "--short=12", "HEAD"]).strip()
    dirty = output(["git", "-C", str(root), "status", "--porcelain", "--untracked-files=no"]).strip()
    found["commit"] = (commit or "unknown") + (" and changes" if dirty else "")
    return found
