# SPDX-License-Identifier: Apache-2.0
"""What users of named shared memory suffer from, each as a short program under the drop-in.

A test's name ends in the row of the list of pains.
"""

from __future__ import annotations


def test_who_only_attached_does_not_take_the_block_along_F1(interpreter) -> None:
    """A second program looks at a block and ends; the block and its contents are still there."""
    done = interpreter("""
        import subprocess, sys
        from shoal.multiprocessing.shared_memory import SharedMemory

        block = SharedMemory(create=True, size=10)
        look = f"from shoal.multiprocessing.shared_memory import *; SharedMemory({block.name!r})"
        subprocess.run([sys.executable, "-c", look], check=True)
        print(SharedMemory(block.name).size)
        block.unlink()
    """)
    assert done.check() == "10\n" and done.err == ""


def test_a_correct_program_is_not_told_of_leaks_F2(interpreter) -> None:
    """Made here, used in a child, removed there: each block once, and nothing on stderr."""
    done = interpreter("""
        import shoal.multiprocessing as mp
        from shoal.multiprocessing.shared_memory import SharedMemory

        def use(name):
            SharedMemory(name).unlink()

        if __name__ == "__main__":
            block = SharedMemory(create=True, size=10)
            child = mp.get_context("spawn").Process(target=use, args=(block.name,))
            child.start()
            child.join()
            raise SystemExit(child.exitcode)
    """)
    assert done.check() == "" and done.err == ""


def test_a_failing_attach_leaves_the_owners_block_F3(interpreter) -> None:
    """The address space is too small for the mapping: an error, and nobody else's trouble."""
    done = interpreter("""
        import resource
        from shoal.multiprocessing.shared_memory import SharedMemory

        block = SharedMemory(create=True, size=1 << 28)
        used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 26), resource.RLIM_INFINITY))
        try:
            SharedMemory(block.name)
        except OSError as error:
            print(error.errno == 12)
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY,) * 2)
        SharedMemory(block.name)
        block.unlink()
    """)
    assert done.check() == "True\n" and done.err == ""


def test_closing_with_a_view_in_use_is_no_error_F5(interpreter) -> None:
    """Neither close() nor the end of the program complains of the view, which stays usable."""
    done = interpreter("""
        from shoal.multiprocessing.shared_memory import SharedMemory

        block = SharedMemory(create=True, size=10)
        view = memoryview(block.buf)[2:4]
        block.close()
        block.unlink()
        view[:] = b"ok"
        print(bytes(view))
        del block
    """)
    assert done.check() == "b'ok'\n" and done.err == ""


def test_a_list_keeps_zero_bytes_and_any_text_F6(interpreter) -> None:
    """What went in comes out: zero bytes at the end, accents, emoji."""
    done = interpreter("""
        from shoal.multiprocessing.shared_memory import ShareableList

        items = [b"\\0\\x01\\0\\0", "zero\\0", "\\u00e9" * 30, "\\U0001f41f" * 3, b""]
        made = ShareableList(items)
        print(list(made) == items == list(ShareableList(name=made.shm.name)))
        made.shm.unlink()
    """)
    assert done.check() == "True\n" and done.err == ""


def test_many_shared_objects_need_no_descriptors_F8(interpreter) -> None:
    """Hundreds of blocks, queues and locks in a process that may open 64 files."""
    done = interpreter("""
        import resource
        import shoal.multiprocessing as mp
        from shoal.multiprocessing.shared_memory import SharedMemory

        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
        kept = [(mp.Queue(), mp.Lock(), SharedMemory(create=True, size=10)) for _ in range(200)]
        kept[199][0].put(SharedMemory(kept[0][2].name).size)
        print(kept[199][0].get())
        for _, _, block in kept:
            block.unlink()
    """)
    assert done.check() == "10\n" and done.err == ""


SMALL = """
import os, subprocess, sys
mount = "mount -t tmpfs -o {options} tmpfs /dev/shm && exec \\"$0\\" inner.py"
open("inner.py", "w").write({inner!r})
command = ["unshare", "-m", "sh", "-c", mount, sys.executable]
done = subprocess.run(command, capture_output=True, text=True)
refused = "mount" in done.stderr or "unshare" in done.stderr
print("no mounts" if refused else done.stdout + done.stderr)
"""


def in_small(interpreter, options: str, inner: str) -> str:
    out = interpreter(SMALL.format(options=options, inner=inner)).check().strip()
    if out == "no mounts":
        import pytest

        pytest.skip("needs to mount a /dev/shm of its own")
    return out


def test_a_small_dev_shm_does_not_bind_queues_and_pools_F9(interpreter) -> None:
    """Docker's 64 MB, here 1 MB: 8 MB go through a queue and a pool."""
    inner = """
import shoal.multiprocessing as mp
queue = mp.Queue()
queue.put(bytes(8_000_000))
with mp.Pool(1) as pool:
    print(len(queue.get()), pool.map(len, [bytes(8_000_000)]))
"""
    assert in_small(interpreter, "size=1m", inner) == "8000000 [8000000]"


def test_no_usable_dev_shm_and_everything_else_works_F10(interpreter) -> None:
    """Where nothing can be made in /dev/shm, the import, locks, queues and pools work."""
    inner = """
import shoal.multiprocessing as mp
from shoal.multiprocessing.shared_memory import SharedMemory
with mp.Lock(), mp.Pool(1) as pool:
    print(pool.map(abs, [-1]))
"""
    assert in_small(interpreter, "ro", inner) == "[1]"


def test_too_small_a_dev_shm_is_an_error_when_the_block_is_made_B9(interpreter) -> None:
    """No SIGBUS at the first write: MemoryError, with what was asked and what there is."""
    inner = """
from shoal.multiprocessing.shared_memory import SharedMemory
try:
    SharedMemory(create=True, size=5_000_000).buf[:] = bytes(5_000_000)
except MemoryError as error:
    print(error)
"""
    out = in_small(interpreter, "size=1m", inner)
    assert "5.0 MB was asked for" in out and "1.0 MB" in out
