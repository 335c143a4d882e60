# SPDX-License-Identifier: Apache-2.0
"""Programs that take the default action for SIGPIPE, as tools that print into pipes do."""

from __future__ import annotations

import pytest


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_a_dead_agent_is_no_broken_pipe_for_a_program_with_the_default_action(interpreter, start):
    program = f"""
        import os, signal, shoal
        if __name__ == "__main__":
            signal.signal(signal.SIGPIPE, signal.SIG_DFL)
            with shoal.Pool(2, start={start!r}) as pool:
                pool.map(abs, [-1])
                agent = pool._engine._agent
                os.kill(agent.pid, signal.SIGKILL)
                os.waitid(os.P_PIDFD, agent.pidfd, os.WEXITED | os.WNOWAIT)
                agent.ring()
                print(pool.map(abs, [-2]))
    """
    assert interpreter(program).check() == "[2]\n"
