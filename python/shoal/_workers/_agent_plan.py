# SPDX-License-Identifier: Apache-2.0
"""The parameters that an agent and its workers get when they start."""

from __future__ import annotations

from shoal._runtime._records import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class AgentPlan(NamedTuple):
    """The parameters of an agent and its workers. Plain values, so that they can be sent to a fresh
    interpreter.
    """

    pool: int  # handle of the pool's state
    client_pid: int
    bell_read: int
    bell_write: int
    method: str  # "fork": workers are forked from this process; "exec": each is a fresh interpreter
    name: str  # prefix of the workers' process names
    identity: tuple[int, ...]  # the client's `_identity` in `multiprocessing`
    numbers: tuple[int, ...]  # by rank: the worker's number among all processes of the client
    memory_fd: int  # the session's memory, for processes started by exec
    context: dict[str, Any]  # see _context.py
    results_by_name: bool  # see Engine
    daemons: bool  # see Engine
    start_method: str | None  # the workers' multiprocessing start method; None: leave it alone
    mask: tuple[int, ...]  # the signals that the client blocks
    seeds: tuple[Any, ...]  # see _seeds.py


def worker_identity(plan: AgentPlan, rank: int) -> tuple[int, ...]:
    return (*plan.identity, plan.numbers[rank % len(plan.numbers)])


def worker_name(plan: AgentPlan, rank: int) -> str:
    what = "PoolWorker" if plan.daemons else "Process"
    return f"{plan.name}{what}-{':'.join(map(str, worker_identity(plan, rank)))}"
