# SPDX-License-Identifier: Apache-2.0
"""The main function of a worker, from its initializer to its last task.

There are two kinds of worker processes: those of an agent (`_worker_process.py`) and those of the
drop-in's pools (`_dropin/_processes.py`). Both call `serve`.
Design: docs/design/pool.md
"""

from __future__ import annotations

import os
import signal
import sys

from shoal._runtime._native import core
from shoal._workers import _signals, _watch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from shoal._workers import _plan


def import_parts() -> None:
    """Import the modules that `serve` needs, and build the set of module names that `Applied` uses.
    Called once before workers are forked, so that they share the results.
    """
    from shoal._pickling import _applied, _definitions, _names, _pickler  # noqa: F401
    from shoal._workers import _worker_hooks  # noqa: F401

    _names.present_modules()


def serve(plan: _plan.Plan, seat: int, bell: int, unprepared: RuntimeError | None) -> None:
    """Initialize, then run tasks until the pool ends. `bell`: the write end of the bell of this
    worker's watcher. `unprepared`: why the worker cannot serve.
    """
    from shoal._pickling._definitions import Applied
    from shoal._workers import _worker_hooks

    imported = False
    if plan.context:  # without a context, this is a fork of the program and has its main module
        from shoal._workers import _context

        imported = _context.imports_main(plan.context)
    applied = Applied(forked=not plan.context, imported=imported)
    hooks = _worker_hooks.WorkerHooks(applied, plan.results_by_name)
    worker = core.Worker(plan.pool, seat, bell, hooks, _worker_hooks.TaskInterrupted)

    def stop(number: int, frame: object) -> None:
        if worker.stopping():
            raise _worker_hooks.TaskInterrupted

    _signals.catch_stop(_watch.STOP_SIGNAL, stop)
    _prefer_as_victim()
    _initialize(worker, hooks, unprepared)
    worker.run()
    _signals.leave()
    worker.leaving(core.EXIT_PLANNED)
    # Drop our references, so that the main module's objects are freed together with it.
    signal.signal(_watch.STOP_SIGNAL, signal.SIG_IGN)
    applied.end()


def _initialize(worker: Any, hooks: Any, unprepared: RuntimeError | None) -> None:
    payload = worker.startup()
    if payload is None and unprepared is None:
        return
    try:
        if unprepared is not None:
            raise unprepared
        worker.apply_definitions()
        from shoal._pickling import _pickler

        initializer, arguments = _pickler.loads(payload)
        initializer(*arguments)
    except BaseException as error:
        worker.fail_start(hooks.encode_error(error, "run"))
        worker.leaving(core.EXIT_INITIALIZER_FAILED)
        core.leave_session()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(1)


def _prefer_as_victim() -> None:
    """When memory runs out, the kernel should kill a worker, which is replaced, not the client."""
    try:
        file = os.open("/proc/self/oom_score_adj", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return
    try:
        score = int(os.read(file, 16))
        os.pwrite(file, b"%d" % min(1000, score + 100), 0)
    except OSError:
        pass
    finally:
        os.close(file)
