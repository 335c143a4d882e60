# SPDX-License-Identifier: Apache-2.0
"""What users of `multiprocessing.Manager` suffered from for years, on shoal."""

from __future__ import annotations

from typing import Any

import pytest


def test_d3_an_access_needs_no_server(interpreter: Any) -> None:
    """D3: every access was a round trip to a process of its own, 20 to 60 us."""
    program = """
        import shoal.multiprocessing as mp

        if __name__ == "__main__":
            with mp.Manager() as manager:
                table, values = manager.dict(), manager.list()
                for i in range(1000):
                    table[i] = i
                    values.append(table[i])
                print(len(table), sum(values[:]), mp.active_children(), manager._process)
    """
    assert interpreter(program).check() == "1000 499500 [] None\n"


def test_d3_nested_edits_are_seen(interpreter: Any) -> None:
    """D3: what a program changed in a nested container was lost. Nested shared ones are one."""
    program = """
        import shoal
        import shoal.multiprocessing as mp

        def work(table):
            table["inner"]["list"].append("from the child")

        if __name__ == "__main__":
            with mp.Manager() as manager:
                table = manager.dict()
                table["inner"] = manager.dict()
                table["inner"]["list"] = manager.list()
                process = mp.Process(target=work, args=(table,))
                process.start()
                process.join()
                print(table["inner"]["list"][:])
            deep = shoal.share({"a": [{"b": 1}]})
            deep["a"][0]["b"] = 2
            print(shoal.plain(deep))
    """
    expected = "['from the child']\n{'a': [{'b': 2}]}\n"
    assert interpreter(program).check() == expected


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_d3_proxies_that_were_shared_work(interpreter: Any, method: str) -> None:
    """D3: a proxy out of a proxy, in a child with another key, failed with AuthenticationError;
    one that a child had made vanished with the child.
    """
    program = """
        import multiprocessing.process
        import sys
        import shoal.multiprocessing as mp
        from shoal.multiprocessing.managers import SyncManager

        def work(table):
            multiprocessing.process.current_process().authkey = b"another"
            table["inner"]["x"] += 1
            table["mine"] = mp.get_context(sys.argv[1]).Manager().list([1, 2, 3])

        if __name__ == "__main__":
            context = mp.get_context(sys.argv[1])
            manager = SyncManager(authkey=b"secret", ctx=context)
            manager.start()
            table = manager.dict(inner=manager.dict(x=1))
            process = context.Process(target=work, args=(table,))
            process.start()
            process.join()
            print(process.exitcode, table["inner"]["x"], table["mine"][:])
            manager.shutdown()
    """
    assert interpreter(program, method).check() == "0 2 [1, 2, 3]\n"


def test_d3_a_client_that_is_killed_in_an_update_blocks_nobody(interpreter: Any) -> None:
    """D3: beside the server's death, which ended everything, a lost update lost the connection."""
    program = """
        import os, signal, time
        import shoal.multiprocessing as mp

        def work(table, first):
            for i in range(first, first + 1_000_000):
                table[i] = i

        if __name__ == "__main__":
            with mp.Manager() as manager:
                table = manager.dict()
                for round in range(5):
                    process = mp.Process(target=work, args=(table, round * 1_000_000))
                    process.start()
                    while len(table) < (round + 1) * 100:
                        time.sleep(0.001)
                    os.kill(process.pid, signal.SIGKILL)
                    process.join()
                    table["alive"] = round
                numbers = table.copy()
                numbers.pop("alive")
                print(all(key == value for key, value in numbers.items()), len(numbers) >= 500)
    """
    assert interpreter(program).check() == "True True\n"
