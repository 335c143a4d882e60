# SPDX-License-Identifier: Apache-2.0
"""The facts that every measurement needs beside it: machine, kernel, Python, commit, load."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import sysconfig
from datetime import datetime, timezone
from pathlib import Path
from typing import Any


def facts() -> dict[str, Any]:
    """The facts that are stored with a result. No host name, no path."""
    return {
        "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "cpu": _cpu_model(),
        "cpus": len(os.sched_getaffinity(0)),
        "memory_bytes": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        "kernel": platform.release(),
        "c_library": " ".join(platform.libc_ver()),
        "python": platform.python_version(),
        "python_build": "optimised" if _is_optimised() else "plain",
        "numpy": _version("numpy"),
        "shoal": _version("shoal"),
        "commit": _commit(),
        "load": os.getloadavg()[0],
    }


def describe(machine: dict[str, Any]) -> str:
    """One line for the head of a table."""
    return (
        f"{machine['cpus']} CPUs ({machine['cpu']}), Linux {machine['kernel']}, CPython"
        f" {machine['python']} ({machine['python_build']} build), commit {machine['commit']},"
        f" load {machine['load']:.1f}"
    )


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _is_optimised() -> bool:
    return "--enable-optimizations" in (sysconfig.get_config_var("CONFIG_ARGS") or "")


def _version(name: str) -> str | None:
    import importlib.metadata

    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _commit() -> str:
    def git(*arguments: str) -> str:
        folder = Path(__file__).parent
        command = ["git", "-C", str(folder), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no")
        return git("rev-parse", "--short", "HEAD") + ("+changes" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        print("bench: not a git checkout, results carry no commit", file=sys.stderr)
        return "unknown"
