# SPDX-License-Identifier: Apache-2.0
"""Old kernels and sandboxes: without pidfds and other recent calls (ENOSYS, or EPERM by a seccomp
profile), without memfd_create, without /proc.

A filter that the program installs for itself and its children answers for the kernel. What works on
the standard library, which uses none of these, works here.
"""

from __future__ import annotations

import errno
import platform
import subprocess

import pytest

METHODS = ("fork", "spawn", "forkserver")
pytestmark = pytest.mark.skipif(
    platform.machine() != "x86_64", reason="the numbers of the calls are those of x86-64"
)

HEAD = """
    import ctypes, multiprocessing as mp, os, struct, sys, time
    from concurrent.futures import ProcessPoolExecutor

    CALLS = {
        "memfd_create": 319, "pidfd_send_signal": 424, "pidfd_open": 434, "clone3": 435,
        "close_range": 436, "pidfd_getfd": 438, "futex_waitv": 449, "shmget": 29,
    }

    def forbid(names, error):
        load = [struct.pack("HBBI", 0x20, 0, 0, 0)]
        tests = [
            struct.pack("HBBI", 0x15, len(names) - i, 0, CALLS[name])
            for i, name in enumerate(names)
        ]
        ends = [struct.pack("HBBI", 6, 0, 0, n) for n in (0x7FFF0000, 0x00050000 | error)]
        code = ctypes.create_string_buffer(b"".join(load + tests + ends))
        program = struct.pack("HxxxxxxP", len(load + tests + ends), ctypes.addressof(code))
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(38, 1, 0, 0, 0)
        assert libc.prctl(22, 2, ctypes.create_string_buffer(program), 0, 0) == 0

    def square(x):
        return x * x

    def kill_me(x):
        os.kill(os.getpid(), 9)

    def put(items):
        items.put(bytes(100_000))

    def check(context):
        with context.Pool(2) as pool:
            assert pool.map(square, range(20)) == [x * x for x in range(20)]
        with ProcessPoolExecutor(2, mp_context=context) as executor:
            assert list(executor.map(square, range(5))) == [0, 1, 4, 9, 16]
        items = context.Queue()
        process = context.Process(target=put, args=(items,))
        process.start()
        assert len(items.get()) == 100_000
        process.join()
        first, second = context.Pipe()
        first.send(list(range(20_000)))
        assert len(second.recv()) == 20_000
"""

FORBIDDEN = (
    HEAD
    + """
    if __name__ == "__main__":
        forbid(sys.argv[3:], int(sys.argv[2]))
        check(mp.get_context(sys.argv[1]))
        print("done")
"""
)
RECENT = ("pidfd_send_signal", "pidfd_open", "close_range", "pidfd_getfd", "futex_waitv")


@pytest.mark.parametrize("error", [errno.ENOSYS, errno.EPERM])
@pytest.mark.parametrize("method", METHODS)
def test_recent_calls_are_not_needed(interpreter, method, error) -> None:
    # (The C library tries clone only where clone3 is unknown.)
    names = (*RECENT, "clone3") if error == errno.ENOSYS else RECENT
    finished = interpreter(
        FORBIDDEN, method, str(error), *names, env={"SHOAL_RUN": "1"}, timeout=120
    )
    assert finished.check() == "done\n"


@pytest.mark.parametrize("error", [errno.ENOSYS, errno.EPERM])
@pytest.mark.parametrize("method", METHODS)
def test_memory_files_are_not_needed(interpreter, method, error) -> None:
    finished = interpreter(
        FORBIDDEN, method, str(error), "memfd_create", env={"SHOAL_RUN": "1"}, timeout=120
    )
    assert finished.check() == "done\n"


def test_without_any_shared_memory_the_error_names_the_call(interpreter) -> None:
    program = HEAD + (
        """
    import shoal
    if __name__ == "__main__":
        forbid(["memfd_create", "shmget"], 38)
        try:
            shoal.Queue()
        except OSError as error:
            print(error)
    """
    )
    assert "shmget" in interpreter(program).check()


DEATHS = (
    HEAD
    + """
    import select, signal
    from shoal._runtime._native import core
    import shoal

    if __name__ == "__main__":
        forbid(["pidfd_send_signal", "pidfd_open"], int(sys.argv[1]))
        # A descriptor that tells a death, of a child and of another process.
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            grandchild = os.fork()
            if grandchild == 0:
                signal.pause()
            os.write(write, str(grandchild).encode())
            signal.pause()
        for pid in (int(os.read(read, 20)), child):
            watched = core.watch_process(pid)
            assert not select.select([watched], [], [], 0.05)[0]
            core.signal_process(watched, pid, signal.SIGKILL)
            assert select.select([watched], [], [], 30)[0]
            if pid == child:
                os.waitpid(pid, 0)
                try:
                    core.signal_process(watched, pid, signal.SIGKILL)
                except ProcessLookupError:
                    print("gone")
            os.close(watched)
        try:
            core.watch_process(child)
        except ProcessLookupError:
            print("gone")
        with shoal.Pool(2) as pool:
            try:
                pool.apply(kill_me, (1,))
            except shoal.WorkerDied as error:
                print(error.signal)
            print(pool.apply(square, (7,)))
"""
)


@pytest.mark.parametrize("error", [errno.ENOSYS, errno.EPERM])
def test_deaths_are_noticed_without_pidfds(interpreter, error) -> None:
    assert interpreter(DEATHS, str(error)).check().split() == ["gone", "gone", "9", "49"]


# ---- without /proc -------------------------------------------------------------------------------

PROCLESS = (
    HEAD
    + """
    if __name__ == "__main__":
        assert not os.path.exists("/proc/self")
        check(mp.get_context(sys.argv[1]))
        try:
            with mp.get_context("fork").Pool(1) as pool:
                items = mp.get_context("fork").Queue()
                items._reader.fileno()
        except OSError as error:
            print(error)
        print("done")
"""
)


def can_unmount() -> bool:
    command = ["unshare", "-m", "sh", "-c", "umount -l /proc"]
    try:
        return subprocess.run(command, capture_output=True).returncode == 0
    except OSError:
        return False


@pytest.mark.skipif(not can_unmount(), reason="/proc cannot be unmounted here")
@pytest.mark.parametrize("method", METHODS)
def test_proc_need_not_be_mounted(interpreter, method, tmp_path) -> None:
    import textwrap

    program = tmp_path / "proc_less.py"
    program.write_text(textwrap.dedent(PROCLESS))
    starter = """
    import os, sys
    os.execvp("unshare", ["unshare", "-m", "sh", "-c", 'umount -l /proc; exec "$@"', "sh",
              sys.executable, *sys.argv[1:]])
    """
    finished = interpreter(starter, str(program), method, env={"SHOAL_RUN": "1"}, timeout=120)
    lines = finished.check().splitlines()
    assert lines[-1] == "done"
    assert "/proc" in lines[-2]  # a queue's descriptor is what needs it, and says so
