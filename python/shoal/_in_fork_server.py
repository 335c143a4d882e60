# SPDX-License-Identifier: Apache-2.0
"""An agent as a child of the standard library's fork server.

The fork server starts it like any process of the forkserver context: with the modules that the
program asked for (`set_forkserver_preload`), its start method, its logging level, and the session.
Only the main module is left to the workers. The agent is no child of this process, and
`active_children()` does not know of it. Design: docs/design/drop_in.md
"""

from __future__ import annotations

import io
import os
from multiprocessing import forkserver, popen_forkserver, reduction, spawn, util
from multiprocessing.context import set_spawning_popen
from typing import Any, NoReturn

from shoal import _agent
from shoal._native import core


class _AgentToBe:
    """What the fork server's child unpickles and calls: as much of a process object as it needs."""

    def __init__(self, settings: _agent.Settings) -> None:
        self._name = _agent.worker_name(settings, 0)
        self._settings = settings

    def __reduce__(self) -> tuple[Any, ...]:
        settings = self._settings
        descriptors = (settings.bell_read, settings.bell_write)
        facts = core.session_identity(), tuple(settings)
        return _rebuild, (*facts, *map(reduction.DupFd, descriptors))

    def _bootstrap(self, parent_sentinel: int) -> NoReturn:
        _agent.run_in_fork_server(self._settings, parent_sentinel)


def _rebuild(
    session: tuple[int, int], settings: tuple[Any, ...], bell_read: Any, bell_write: Any
) -> _AgentToBe:
    if core.session_identity() != session:  # of a fork server that was in one before it was ours
        raise RuntimeError("shoal: the fork server belongs to another session")
    places = {"bell_read": bell_read.detach(), "bell_write": bell_write.detach()}
    return _AgentToBe(_agent.Settings(*settings)._replace(**places))


class _Popen(popen_forkserver.Popen):
    """The standard library's, but for the main module. Whoever drops it tells the agent that this
    process has ended.
    """

    _fds: list[int]

    def _launch(self, agent: _AgentToBe) -> None:
        data = spawn.get_preparation_data(agent._name)
        data = {key: value for key, value in data.items() if not key.startswith("init_main_from")}
        message = io.BytesIO()
        set_spawning_popen(self)
        try:
            reduction.dump(data, message)
            reduction.dump(agent, message)
        finally:
            set_spawning_popen(None)
        self.sentinel, write = forkserver.connect_to_new_process(self._fds)
        while_we_live = os.dup(write)
        self.finalizer = util.Finalize(self, _close, (while_we_live, self.sentinel))
        with open(write, "wb") as pipe:
            pipe.write(message.getbuffer())
        self.pid = forkserver.read_signed(self.sentinel)


def _close(*descriptors: int) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


def start(settings: _agent.Settings) -> Any:
    """The Popen object of a new agent. OSError or EOFError: the fork server does not answer."""
    agent: Any = _AgentToBe(settings)
    return _Popen(agent)
