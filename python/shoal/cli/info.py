# SPDX-License-Identifier: Apache-2.0
"""`shoal info`: the facts of this machine that shoal sees, and the decisions that follow from them.

Reads /proc, /sys and the environment in Python, so that it works even where the core does not load:
then the command is needed most.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import platform
import sys
from pathlib import Path

from shoal._runtime import _cpus
from shoal.cli.run import find_start_up_file
from shoal.cli.screen import print_facts

Facts = dict[str, str]


def _read(path: str) -> str | None:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return None


def _own_groups(controller: str, filename: str) -> list[str]:
    """Contents of a cgroup file, for this process's group and the groups above it."""
    found = []
    for line in (_read("/proc/self/cgroup") or "").splitlines():
        _, controllers, group = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        root = f"/sys/fs/cgroup/{controllers}" if controllers else "/sys/fs/cgroup"
        folder = group
        while True:
            text = _read(f"{root}{folder}/{filename}" if folder != "/" else f"{root}/{filename}")
            if text is not None:
                found.append(text)
            if folder in ("/", ""):
                break
            folder = os.path.dirname(folder)
    return found


def cpu_quota() -> float | None:
    """CPUs that the cgroup's quota allows, None without a quota."""
    quotas = []
    for text in _own_groups("cpu", "cpu.max"):
        quota, period = text.split()
        if quota != "max":
            quotas.append(int(quota) / int(period))
    periods = _own_groups("cpu", "cpu.cfs_period_us")
    for text, period in zip(_own_groups("cpu", "cpu.cfs_quota_us"), periods):
        if int(text) > 0:
            quotas.append(int(text) / int(period))
    return min(quotas, default=None)


def memory_limit() -> int | None:
    """Bytes that the cgroup allows, None without a limit."""
    texts = _own_groups("memory", "memory.max") + _own_groups("memory", "memory.limit_in_bytes")
    limits = [int(text) for text in texts if text.isdigit()]
    return min((limit for limit in limits if limit < 2**60), default=None)


def _size(number: int | None) -> str:
    return "none" if number is None else f"{number / 2**30:,.1f} GB"


def _memory(field: str) -> int | None:
    for line in (_read("/proc/meminfo") or "").splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    return None


def _cpu_model() -> str:
    for line in (_read("/proc/cpuinfo") or "").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _works(call: str) -> str:
    """Whether a system call of the `os` module works here."""
    try:
        if call == "memfd_create":
            os.close(os.memfd_create("shoal-info"))
        else:
            os.close(os.pidfd_open(os.getpid()))
    except (OSError, AttributeError) as error:
        return f"no ({error})"
    return "yes"


def _core() -> str:
    try:
        from shoal._runtime._native import core
    except Exception as error:
        return f"does not load: {error}"
    return f"loaded ({getattr(core, '__file__', 'built in')})"


def collect() -> dict[str, Facts]:
    """All facts by section."""
    import shoal

    quota = cpu_quota()
    release = tuple(int(part) for part in platform.release().split(".")[:2])
    shmem = _read("/sys/kernel/mm/transparent_hugepage/shmem_enabled") or "not there"
    variables = {name: value for name, value in os.environ.items() if name.startswith("SHOAL_")}
    method = multiprocessing.get_context().get_start_method()
    return {
        "shoal": {
            "version": shoal.__version__,
            "core": _core(),
            "start-up file": find_start_up_file() or "not installed: `shoal run` cannot work",
            "environment": " ".join(f"{k}={v}" for k, v in sorted(variables.items())) or "none set",
        },
        "Python": {
            "version": f"{platform.python_implementation()} {platform.python_version()}",
            "executable": sys.executable,
            "start method of the standard library": method,
            "start method of shoal.Pool and Executor": "zygote",
            "start method of the drop-in": {"forkserver": "zygote"}.get(method, method),
        },
        "CPUs": {
            "model": _cpu_model(),
            "in the machine": str(os.cpu_count()),
            "by affinity": str(len(os.sched_getaffinity(0))),
            "by cgroup quota": "no quota" if quota is None else f"{quota:g}",
            "workers by default": str(_cpus.cpu_count()),
        },
        "Memory": {
            "in the machine": _size(_memory("MemTotal")),
            "available": _size(_memory("MemAvailable")),
            "cgroup limit": _size(memory_limit()),
            "page size": f"{os.sysconf('SC_PAGE_SIZE'):,} bytes",
        },
        "Kernel": {
            "release": platform.release(),
            "memfd (the arena)": _works("memfd_create"),
            "pidfd (deaths of members)": _works("pidfd_open"),
            "huge pages on request (6.1)": "yes" if release >= (6, 1) else "no",
            "huge pages for shared memory": shmem,
        },
    }


def main(as_json: bool) -> int:
    """Print the facts."""
    facts = collect()
    if as_json:
        print(json.dumps(facts, indent=2))
    else:
        print_facts(facts)
    return 0
