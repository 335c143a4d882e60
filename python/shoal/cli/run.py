# SPDX-License-Identifier: Apache-2.0
"""`shoal run`: sets an environment variable and executes `python prog.py`. The compiled launcher
does the same where it can (`bindings/launcher/shoal.cpp`); the following holds for both.

No process is between the caller and the program: exit status, signals, standard streams, `__main__`
and `sys.argv` are those of `python prog.py`. In every interpreter of the program the start-up file
`shoal_boot.pth`, which is installed beside the package, sees the variable and installs shoal.
"""

from __future__ import annotations

import os
import site
import sys
from collections.abc import Sequence


def find_start_up_file() -> str | None:
    """The path of the start-up file that this interpreter reads; None if it is not installed."""
    for folder in [*site.getsitepackages(), site.getusersitepackages()]:
        path = os.path.join(folder, "shoal_boot.pth")
        if os.path.isfile(path):
            return path
    return None


def interpreter_flags() -> list[str]:
    """The options that this interpreter was given before the script, `-m` or `-c`."""
    flags = sys.orig_argv[1 : len(sys.orig_argv) - len(sys.argv)]
    return flags[:-1] if flags[-1:] in (["-m"], ["-c"]) else flags


def environment(explain: bool = False, heal: bool = False) -> dict[str, str]:
    """The environment of a program that is to run on shoal; its children inherit it."""
    chosen = {**os.environ, "SHOAL_RUN": "1"}
    chosen.pop("SHOAL_EXPLAIN", None)
    chosen.pop("SHOAL_HEAL", None)
    if heal:
        chosen["SHOAL_HEAL"] = "1"
    if explain:
        chosen["SHOAL_EXPLAIN"] = str(os.getpid())
    return chosen


def main(command: Sequence[str], explain: bool, heal: bool = False) -> int:
    """Replace this process by the program. Returns only if that is impossible."""
    if find_start_up_file() is None:
        sys.stderr.write(
            f"shoal run: shoal_boot.pth is in no folder for packages of {sys.executable}, so the"
            " program would run on the standard library alone: install shoal there (pip install),"
            " not by PYTHONPATH or --target\n"
        )
        return 1
    sys.stdout.flush()
    sys.stderr.flush()
    arguments = [sys.executable, *interpreter_flags(), *command]
    os.execve(sys.executable, arguments, environment(explain, heal))
