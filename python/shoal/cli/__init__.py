# SPDX-License-Identifier: Apache-2.0
"""The command `shoal`: run a program on shoal, compare both libraries, show facts of the machine.

Each sub-command is a module that is imported when needed: `shoal run` must start as fast as
`python`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

_HELP = """\
shoal: Python's process pools on one shared memory.

Run a program as it is:
  shoal run prog.py [args...]        with shoal's pools, executors, locks, queues, pipes and shared
  shoal run -m module [args...]      memory in the places of the standard library's, in children too
  shoal run --explain prog.py        and say at the end what was swapped and what was left
  shoal run --heal prog.py           a worker's death fails its task only, not the whole executor

Measure what that gains:
  shoal compare prog.py [args...]    both ways, interleaved, several rounds: the outputs must
  shoal compare -m module [args...]  agree, then medians and ratio

Look at the machine:
  shoal info                         CPUs and memory this process may use, kernel, start methods

  shoal COMMAND --help               all options of a command
  shoal --version

In code, the same by `import shoal; shoal.install()`, by `import shoal.multiprocessing`, or with
more than the standard library offers, by `shoal.Pool` and `shoal.Executor`.
"""


class _Parser(argparse.ArgumentParser):
    """Errors refer to the help instead of printing a less helpful usage line."""

    def error(self, message: str) -> None:  # type: ignore[override]
        self.exit(2, f"{self.prog}: {message}. Try '{self.prog} --help'.\n")


def _add_program(parser: argparse.ArgumentParser) -> None:
    """Add the program and its arguments: everything after the program's name belongs to it."""
    parser.add_argument(
        "-m", dest="module", nargs=argparse.REMAINDER, metavar="module", help="run a module"
    )
    parser.add_argument(
        "-c", dest="code", nargs=argparse.REMAINDER, metavar="code", help="run code given here"
    )
    parser.add_argument("program", nargs=argparse.REMAINDER, help="program and its arguments")


def _make_parser() -> _Parser:
    parser = _Parser(prog="shoal", add_help=False)
    parser.format_help = lambda: _HELP  # type: ignore[method-assign]
    parser.add_argument("-h", "--help", action="help")
    parser.add_argument("-V", "--version", action="store_true")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")

    run = commands.add_parser(
        "run",
        allow_abbrev=False,
        usage="shoal run [--explain] [--heal] prog.py [args...]\n"
        "       shoal run [--explain] [--heal] -m module [args...]",
        description="Run a program with shoal's pools, executors, locks, queues, pipes and shared"
        " memory in the places of the standard library's. The program, its exit status and its"
        " signals are its own: the command replaces itself by `python prog.py`.",
    )
    run.add_argument(
        "--explain", action="store_true", help="at exit, say on stderr what was swapped and left"
    )
    run.add_argument(
        "--heal",
        action="store_true",
        help="when a worker of a ProcessPoolExecutor dies, only the task that it ran fails, with"
        " WorkerDied; without this the executor breaks, as the standard library's does",
    )
    _add_program(run)

    compare = commands.add_parser(
        "compare",
        usage="shoal compare [options] prog.py [args...]\n"
        "       shoal compare [options] -m module [args...]",
        description="Run a program under the standard library and under shoal, in turn, each time"
        " in a fresh process. The standard output must be the same. Exit status 1 when it is not"
        " or when a run fails.",
    )
    compare.add_argument("--rounds", type=int, default=3, metavar="N", help="rounds (default: 3)")
    compare.add_argument(
        "--ignore",
        action="append",
        default=[],
        metavar="REGEX",
        help="leave lines that match out of the comparison (may be given again)",
    )
    compare.add_argument(
        "--timeout", type=float, metavar="SECONDS", help="a run that takes longer has failed"
    )
    compare.add_argument("--show", action="store_true", help="print the program's output, once")
    compare.add_argument("--json", action="store_true", help="the result as JSON on stdout")
    _add_program(compare)

    info = commands.add_parser("info", description="What shoal sees of this machine.")
    info.add_argument("--json", action="store_true", help="as JSON")
    return parser


def _plain_run(arguments: list[str]) -> tuple[list[str], list[str]] | None:
    """(options, program and its arguments) of `shoal run [options] program ...`; None for any other
    command line. The launcher parses the command line in the same way.
    """
    if arguments[:1] != ["run"]:
        return None
    at = 1
    while at < len(arguments) and arguments[at] in ("--explain", "--heal"):
        at += 1
    options, program = arguments[1:at], arguments[at:]
    first = program[0] if program else "--"
    if first[:2] in ("-m", "-c"):
        complete = len(first) > 2 or len(program) > 1
    else:
        complete = first == "-" or first[:1] != "-"
    return (options, program) if complete else None


def main(arguments: Sequence[str] | None = None) -> int:
    """The entry point. Returns the exit status."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    plain = _plain_run(arguments)
    if plain is not None:
        from shoal.cli import run

        chosen, program = plain
        return run.main(program, explain="--explain" in chosen, heal="--heal" in chosen)
    parser = _make_parser()
    options = parser.parse_args(arguments)
    if options.version:
        import shoal

        print(f"shoal {shoal.__version__}")
        return 0
    if options.command is None:
        sys.stdout.write(_HELP)
        return 0
    if options.command == "info":
        from shoal.cli import info

        return info.main(as_json=options.json)

    command = options.program
    if options.module is not None:
        command = ["-m", *options.module]
    elif options.code is not None:
        command = ["-c", *options.code]
    if not command or command in (["-m"], ["-c"]):
        parser.exit(2, f"shoal {options.command}: which program? Try 'shoal --help'.\n")
    if options.command == "run":
        from shoal.cli import run

        return run.main(command, explain=options.explain, heal=options.heal)

    from shoal.cli import compare

    if options.rounds < 1:
        parser.exit(2, "shoal compare: --rounds must be at least 1\n")
    return compare.main(
        command,
        rounds=options.rounds,
        ignore=options.ignore,
        timeout=options.timeout,
        show=options.show,
        as_json=options.json,
    )
