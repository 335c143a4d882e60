# SPDX-License-Identifier: Apache-2.0
"""The settings that a fresh process must take over from the client: paths, environment, modules.

A snapshot has them already. A clean template, and workers started by exec, get them as one
dictionary of plain values.
"""

from __future__ import annotations

import multiprocessing.process
import os
import sys

from shoal._workers import _library_settings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def capture(modules: bool, preparation: dict[str, Any] | None = None) -> dict[str, Any]:
    """The client's current context. `modules`: include the names of the imported modules, for a
    template to import. `preparation`: see `prepare`.
    """
    main = sys.modules.get("__main__")
    spec = getattr(main, "__spec__", None)
    process = multiprocessing.process.current_process()
    return {
        "path": list(sys.path),
        "argv": list(sys.argv),
        "cwd": _cwd(),
        "environment": dict(os.environ),
        "umask": _umask(),
        "main_file": getattr(main, "__file__", None),
        "main_name": getattr(spec, "name", None),
        "executable": _executable(),
        "recursion_limit": sys.getrecursionlimit(),
        "process": (process.name, process._identity, bytes(process.authkey)),
        "modules": _module_names() if modules else [],
        "settings": _library_settings.capture() if modules else [],
        "preparation": preparation,
    }


def _cwd() -> str | None:
    try:
        return os.getcwd()
    except OSError:
        return None


def _umask() -> int:
    try:
        with open("/proc/self/status", encoding="utf-8", errors="replace") as status:
            for line in status:
                if line.startswith("Umask:"):
                    return int(line.split()[1], 8)
    except OSError:
        pass  # /proc is not mounted
    mask = os.umask(0o077)  # reading needs setting; a strict value is safe for that moment
    os.umask(mask)
    return mask


def _executable() -> str:
    from multiprocessing import spawn

    return os.fsdecode(spawn.get_executable() or sys.executable)


# A notebook's debugger prints warnings into the cell when it is imported; no task needs it.
_DEBUGGERS = ("pydev", "_pydev", "debugpy")


def _module_names() -> list[str]:
    """Modules that can be imported by name, in the order in which the client imported them."""
    names = []
    for name, module in list(sys.modules.items()):
        spec = getattr(module, "__spec__", None)
        if name in ("__main__", "__mp_main__") or spec is None or spec.name != name:
            continue
        if spec.origin is None and not getattr(module, "__path__", None):
            continue
        if name.startswith(_DEBUGGERS):
            continue
        names.append(name)
    return names


def apply(context: dict[str, Any]) -> None:
    sys.path[:] = context["path"]
    sys.argv[:] = context["argv"]
    if context["cwd"] is not None:
        try:
            os.chdir(context["cwd"])
        except OSError as error:
            print(f"shoal: a worker cannot enter {context['cwd']}: {error}", file=sys.stderr)
    for name in set(os.environ) - set(context["environment"]):
        del os.environ[name]
    os.environ.update(context["environment"])
    os.umask(context["umask"])
    sys.setrecursionlimit(context["recursion_limit"])
    # So that a worker's name, its parent's name, and proxies of managers work as under a fork.
    process: Any = multiprocessing.process.current_process()
    process._name, process._identity, process.authkey = context["process"]


def make_main(context: dict[str, Any]) -> None:
    """Make an empty `__main__` that looks like the client's; definitions are added to it later. Not
    for workers that import the main module: the empty module would be mistaken for it.
    """
    if imports_main(context):
        return
    from shoal._pickling import _applied

    facts = {} if context["main_file"] is None else {"__file__": context["main_file"]}
    _applied.make_main(facts)


def prepare(context: dict[str, Any], name: str) -> None:
    """In a worker: do what the standard library does first in a fresh process, including the import
    of the main module as `__mp_main__`. `name`: the worker's process name.
    """
    data = context.get("preparation")
    if data is None:
        return
    from multiprocessing import spawn

    from shoal._runtime import _run_path

    _run_path.patch()
    process: Any = multiprocessing.process.current_process()
    own_name, process._inheriting = process._name, True
    try:
        spawn.prepare({"name": name, **data})
    except (Exception, SystemExit) as error:
        file = context["main_file"]
        what = f"a worker could not import the main module {file}: {type(error).__name__}: {error}"
        raise RuntimeError(what) from error
    finally:
        del process._inheriting
        process._name = own_name


def imports_main(context: dict[str, Any]) -> bool:
    """Whether workers import the main module."""
    data = context.get("preparation") or {}
    return "init_main_from_name" in data or "init_main_from_path" in data


def import_modules(context: dict[str, Any]) -> None:
    """Import the modules that the client had imported, and take over their settings. A module that
    cannot be imported is skipped; a task that needs it gets the error.
    """
    import importlib
    import warnings

    for name in context["modules"]:
        if name in sys.modules:
            continue
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                importlib.import_module(name)
        except Exception:
            continue
    _library_settings.apply(context["settings"])
