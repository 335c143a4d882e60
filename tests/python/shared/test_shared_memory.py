# SPDX-License-Identifier: Apache-2.0
"""SharedMemory and ShareableList: lifetime, room, views, exactness."""

from __future__ import annotations

import os
import pickle
import resource
import subprocess
import sys
import time
from multiprocessing import shared_memory as stock
from pathlib import Path

import pytest
import shoal
from hypothesis import given
from hypothesis import strategies as st
from shoal._runtime import _leftovers
from shoal._shared import _shared_memory
from shoal.multiprocessing import shared_memory as dropin

SHM = Path(_leftovers.FOLDER)
START_METHODS = ["fork", "spawn", "forkserver"]  # (joblib adds its own to those of multiprocessing)
KINDS = (shoal.SharedMemory, dropin.SharedMemory)


@pytest.fixture(params=["attribute", "link"])
def record(request, monkeypatch) -> str:
    """Both ways to keep the owners of a block; the variable is for programs."""
    if request.param == "link":

        def refuse(*arguments: object, **keywords: object) -> None:
            raise OSError(95, "not supported")

        monkeypatch.setattr(os, "setxattr", refuse)
    return request.param


LINKS_ONLY = """
import os
def refuse(*arguments, **keywords):
    raise OSError(95, "not supported")
os.setxattr = refuse
"""


def program(record: str, text: str) -> str:
    import textwrap

    return (LINKS_ONLY if record == "link" else "") + textwrap.dedent(text)


@pytest.mark.parametrize("kind", KINDS)
def test_what_one_object_writes_another_reads(kind) -> None:
    block = kind(create=True, size=100)
    try:
        assert block.size == len(block.buf) == 100 and bytes(block.buf) == bytes(100)
        block.buf[:3] = b"abc"
        other = kind(block.name, size=5000)
        assert other.size == 100 and bytes(other.buf[:3]) == b"abc"
        again = pickle.loads(pickle.dumps(block))
        assert type(again) is kind and again.name == block.name and again.buf[0] == ord("a")
        assert repr(block) == f"SharedMemory({block.name!r}, size=100)"
    finally:
        block.unlink()
    with pytest.raises(FileNotFoundError):
        kind(block.name)
    with pytest.raises(FileNotFoundError):
        block.unlink()


def test_the_standard_librarys_class_attaches_to_shoals_blocks_and_shoals_to_its() -> None:
    mine = shoal.SharedMemory("shoal_test_mixed", create=True, size=10)
    theirs = stock.SharedMemory("shoal_test_mixed")
    theirs.buf[0] = 7
    assert mine.buf[0] == 7
    theirs.close()
    mine.unlink()
    theirs = stock.SharedMemory(create=True, size=10)
    mine = shoal.SharedMemory(theirs.name)
    mine.buf[1] = 8
    assert theirs.buf[1] == 8 and isinstance(dropin.SharedMemory(theirs.name), stock.SharedMemory)
    theirs.close()
    theirs.unlink()


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"create": True}, ValueError),
        ({"create": True, "size": -1}, ValueError),
        ({}, ValueError),
        ({"name": "shoal_not_there"}, FileNotFoundError),
        ({"name": "a\0b"}, ValueError),
        ({"name": "a/b", "create": True, "size": 1}, OSError),
        ({"name": "x" * 300, "create": True, "size": 1}, OSError),
        ({"create": True, "size": 1 << 60}, MemoryError),
    ],
)
def test_wrong_arguments_are_refused_and_leave_nothing(arguments, error) -> None:
    with pytest.raises(error):
        dropin.SharedMemory(**arguments)


def test_a_name_that_is_taken_is_refused_and_the_block_stays(record) -> None:
    block = shoal.SharedMemory("shoal_test_taken", create=True, size=10)
    before = sorted(os.listdir(SHM))
    with pytest.raises(FileExistsError):
        shoal.SharedMemory("shoal_test_taken", create=True, size=10)
    assert sorted(os.listdir(SHM)) == before
    block.unlink()


def test_without_unnamed_files_blocks_are_made_all_the_same(monkeypatch, record) -> None:
    opened = os.open

    def no_unnamed(path, flags, *rest, **keywords):
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(95, "not supported")
        return opened(path, flags, *rest, **keywords)

    monkeypatch.setattr(os, "open", no_unnamed)
    with pytest.raises(FileNotFoundError):
        shoal.SharedMemory("shoal_test_named")
    block = shoal.SharedMemory("shoal_test_named", create=True, size=10)
    with pytest.raises(FileExistsError):
        shoal.SharedMemory("shoal_test_named", create=True, size=10)
    block.unlink()
    block = shoal.SharedMemory(create=True, size=10)
    monkeypatch.setattr(_shared_memory, "reserve", lambda fd, size: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        shoal.SharedMemory("shoal_test_named", create=True, size=10)
    block.unlink()
    assert not list(SHM.glob("shoal_test*")) and not list(SHM.glob(".shoal-owners*"))


def test_views_outlive_close_and_then_the_memory_is_unmapped() -> None:
    def mapped() -> bool:
        return block_name in Path("/proc/self/maps").read_text()

    block = shoal.SharedMemory(create=True, size=1 << 20)
    block_name = f"{os.stat(SHM / block.name).st_ino} "
    view = block.buf[:10]
    block.close()
    block.close()
    assert block.buf is None and mapped()
    view[0] = 5
    with shoal.SharedMemory(block.name) as other:
        assert other.buf[0] == 5
    assert other.buf is None
    del view
    assert not mapped()
    block.unlink()


def test_an_array_outlives_close() -> None:
    numpy = pytest.importorskip("numpy")
    block = dropin.SharedMemory(create=True, size=800)
    arrays = [numpy.ndarray(100, float, buffer=block.buf), numpy.frombuffer(block.buf, float)]
    arrays[0][:] = 1.5
    block.close()
    block.unlink()
    del block
    assert [array.sum() for array in arrays] == [150.0, 150.0]


def test_blocks_take_no_file_descriptors() -> None:
    before = len(os.listdir("/proc/self/fd"))
    blocks = [shoal.SharedMemory(create=True, size=10) for _ in range(50)]
    assert len(os.listdir("/proc/self/fd")) <= before + 1  # the resource tracker's, the first time
    for block in blocks:
        block.unlink()


# ---- Lifetime ------------------------------------------------------------------------------------


def test_attaching_and_ending_leaves_the_block(interpreter) -> None:
    block = shoal.SharedMemory(create=True, size=10)
    for mode in ("shoal.install()", "pass"):
        done = interpreter(
            f"""
            import shoal
            {mode}
            from {"" if "install" in mode else "shoal."}multiprocessing import shared_memory
            shared_memory.SharedMemory({block.name!r}).buf[0] += 1
            """
        )
        assert done.check() == "" and done.err == ""
    assert block.buf[0] == 2
    block.unlink()


@pytest.mark.parametrize("method", START_METHODS)
def test_a_block_that_a_child_made_outlives_the_child(interpreter, method: str) -> None:
    done = interpreter(
        """
        import sys

        import shoal.multiprocessing as mp

        def make(queue):
            from shoal.multiprocessing.shared_memory import SharedMemory

            block = SharedMemory(create=True, size=10)
            block.buf[:2] = b"hi"
            queue.put(block.name)

        if __name__ == "__main__":
            from shoal._runtime import _leftovers

            context = mp.get_context(sys.argv[1])
            queue = context.Queue()
            child = context.Process(target=make, args=(queue,))
            child.start()
            name = queue.get()
            child.join()
            _leftovers.remove_all()  # as another program that starts
            from shoal.multiprocessing.shared_memory import SharedMemory

            block = SharedMemory(name)
            print(bytes(block.buf[:2]))
            block.unlink()
        """,
        method,
    )
    assert done.check() == "b'hi'\n" and done.err == ""


@pytest.mark.parametrize("start", ["zygote", "spawn"])
def test_a_block_that_a_worker_made_outlives_its_pool(interpreter, start: str) -> None:
    done = interpreter(
        """
        import sys, threading

        import shoal

        def make(_):
            return shoal.SharedMemory(create=True, size=10).name

        if __name__ == "__main__":
            from shoal._runtime import _leftovers

            with shoal.Pool(1, start=sys.argv[1]) as pool:
                name = pool.apply(make, (0,))
            _leftovers.remove_all()
            shoal.SharedMemory(name).unlink()
        """,
        start,
    )
    assert done.check() == "" and done.err == ""


MAKE_AND_WAIT = """
    import sys, time
    import shoal

    block = shoal.SharedMemory(sys.argv[1], create=True, size=10, track=sys.argv[2] == "track")
    print("made", flush=True)
    time.sleep(600)
"""


def kill_a_maker(interpreter, record: str, name: str, track: str = "track") -> None:
    maker = interpreter.start(program(record, MAKE_AND_WAIT), name, track)
    assert maker.stdout.readline() == "made\n"
    interpreter.kill_group(maker)  # its resource tracker too
    maker.communicate()


def test_the_next_program_removes_what_a_killed_one_left(interpreter, record) -> None:
    kill_a_maker(interpreter, record, "shoal_test_left")
    assert (SHM / "shoal_test_left").exists()
    alive = shoal.SharedMemory("shoal_test_alive", create=True, size=10)
    interpreter("import shoal; shoal.install(); import multiprocessing").check()
    assert not (SHM / "shoal_test_left").exists() and (SHM / "shoal_test_alive").exists()
    assert len(list(SHM.glob(".shoal-owners*"))) == (record == "link")
    alive.unlink()
    assert not list(SHM.glob(".shoal-owners*"))


def test_what_was_made_with_track_false_stays(interpreter, record) -> None:
    kill_a_maker(interpreter, record, "shoal_test_kept", "no")
    assert "shoal_test_kept" not in _leftovers.remove_all()
    shoal.SharedMemory("shoal_test_kept").unlink()


@pytest.mark.parametrize(
    "text", ["1 999999999.5", "nonsense", "", "{namespace}", "{namespace} {self}"]
)
def test_what_is_not_certainly_left_stays(text: str) -> None:
    block = shoal.SharedMemory("shoal_test_doubt", create=True, size=10, track=False)
    text = text.format(namespace=_leftovers._namespace(), self=_leftovers.myself())
    try:
        os.setxattr(SHM / block.name, _leftovers._ATTRIBUTE, text.encode())
    except OSError:
        pytest.skip("no extended attributes on /dev/shm here")
    assert block.name not in _leftovers.remove_all()
    block.unlink()


def test_a_link_that_names_another_file_removes_nothing_but_itself() -> None:
    block = shoal.SharedMemory("shoal_test_other", create=True, size=10, track=False)
    link = SHM / ".shoal-owners.1"
    link.symlink_to(f"{_leftovers._namespace()} 999999999.5\n{block.name}")
    assert block.name not in _leftovers.remove_all()
    assert not link.is_symlink()
    block.unlink()


def test_a_process_is_known_by_its_start_too() -> None:
    pid, _, start = _leftovers.myself().partition(".")
    assert _leftovers.is_alive(f"{pid}.{start}")
    assert not _leftovers.is_alive(f"{pid}.{int(start) + 1}")


def test_a_process_that_ended_is_dead_before_it_is_waited_for(wait_until) -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    try:
        identity = _leftovers._identity(pid)
        wait_until(lambda: not _leftovers.is_alive(identity))
    finally:
        os.waitpid(pid, 0)


@pytest.mark.slow
def test_a_maker_killed_at_any_instant_leaves_what_is_removed(
    interpreter, record, wait_until
) -> None:
    def nothing_left() -> bool:
        _leftovers.remove_all()
        return not list(SHM.glob("shoal_kill*")) and not list(SHM.glob(".shoal-owners*"))

    text = """
        import shoal

        print("begun", flush=True)
        while True:
            blocks = [shoal.SharedMemory(f"shoal_kill_{i}", create=True, size=5000)
                      for i in range(5)]
            for block in blocks:
                block.unlink()
    """
    for number in range(10):
        maker = interpreter.start(program(record, text))
        assert maker.stdout.readline() == "begun\n"
        time.sleep(number * 0.003)  # any instant
        interpreter.kill_group(maker)
        maker.communicate()
        wait_until(nothing_left)  # its tracker may take a moment to die


def test_no_warning_when_another_program_removes_the_block(interpreter) -> None:
    maker = interpreter.start("""
        import shoal
        block = shoal.SharedMemory(create=True, size=10)
        print(block.name, flush=True)
        input()
    """)
    name = maker.stdout.readline().strip()
    shoal.SharedMemory(name).unlink()
    _, err = maker.communicate("\n")
    assert err == "" and maker.returncode == 0


def test_no_warning_when_a_child_removes_the_block(interpreter) -> None:
    done = interpreter("""
        import shoal.multiprocessing as mp
        from shoal.multiprocessing.shared_memory import SharedMemory

        def remove(name):
            SharedMemory(name).unlink()

        if __name__ == "__main__":
            for method in mp.get_all_start_methods():
                block = SharedMemory(create=True, size=10)
                child = mp.get_context(method).Process(target=remove, args=(block.name,))
                child.start()
                child.join()
                assert child.exitcode == 0
    """)
    assert done.check() == "" and done.err == ""


def test_the_usual_way_around_the_tracker_does_no_harm(interpreter) -> None:
    """Programs unregister what the standard library registers in a process that attaches."""
    block = shoal.SharedMemory(create=True, size=10)
    done = interpreter(
        """
        import sys
        import shoal
        shoal.install()
        from multiprocessing import resource_tracker, shared_memory

        block = shared_memory.SharedMemory(sys.argv[1])
        resource_tracker.unregister(block._name, "shared_memory")
        block.close()
        """,
        block.name,
    )
    assert done.check() == "" and done.err == ""
    block.unlink()


def test_a_leak_is_removed_and_told_at_the_end(interpreter) -> None:
    done = interpreter("""
        import shoal
        print(shoal.SharedMemory(create=True, size=10).name)
    """)
    name = done.check().strip()
    assert "1 leaked shared_memory objects" in done.err
    assert not (SHM / name).exists()


def test_a_manager_of_shared_memory_removes_its_blocks(interpreter) -> None:
    done = interpreter("""
        import shoal
        shoal.install()
        from multiprocessing.managers import SharedMemoryManager
        from multiprocessing.shared_memory import SharedMemory

        if __name__ == "__main__":
            with SharedMemoryManager() as manager:
                block, items = manager.SharedMemory(size=9), manager.ShareableList([1, "two"])
                assert type(block).__module__.startswith("shoal"), type(block)
                assert list(items) == [1, "two"]
            for name in (block.name, items.shm.name):
                try:
                    SharedMemory(name)
                except FileNotFoundError:
                    continue
                raise AssertionError(name)
    """)
    assert done.check() == "" and done.err == ""


def in_small_shared_memory(tmp_path: Path, text: str, options: str) -> str:
    """Run a program that sees a /dev/shm of its own."""
    path = tmp_path / "program.py"
    path.write_text(text)
    mount = f"mount -t tmpfs -o {options} tmpfs /dev/shm && exec {sys.executable} {path}"
    done = subprocess.run(["unshare", "-m", "sh", "-c", mount], capture_output=True, text=True)
    if "unshare" in done.stderr or "mount:" in done.stderr:
        pytest.skip(f"needs a mount of its own: {done.stderr}")
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_block_that_does_not_fit_is_refused_when_it_is_made(tmp_path) -> None:
    out = in_small_shared_memory(
        tmp_path,
        """
import os, shoal
from shoal._shared import _shared_memory
for look_first in (True, False):
    if not look_first:
        _shared_memory.check_room = lambda size: None  # another program was faster
    try:
        shoal.SharedMemory(create=True, size=3_000_000)
    except MemoryError as error:
        print(error)
    assert os.listdir("/dev/shm") == []
shoal.SharedMemory(create=True, size=900_000).unlink()
""",
        "size=1m",
    )
    lines = out.splitlines()
    assert len(lines) == 2
    for line in lines:
        assert "3.0 MB was asked for" in line and "free of 1.0 MB" in line and "--shm-size" in line


def test_without_dev_shm_a_clear_error_and_all_else_works(tmp_path) -> None:
    out = in_small_shared_memory(
        tmp_path,
        """
import shoal, shoal.multiprocessing as mp
from shoal.multiprocessing import shared_memory
queue = mp.Queue()
queue.put(1)
assert queue.get() == 1 and mp.Lock().acquire()
with mp.Pool(1) as pool:
    assert pool.map(abs, [-1]) == [1]
try:
    shared_memory.SharedMemory(create=True, size=10)
except OSError as error:
    print(error)
""",
        "ro",
    )
    assert "needs a writable /dev/shm" in out


@pytest.mark.skipif(sys.version_info >= (3, 13), reason="the standard library has it from 3.13 on")
def test_track_is_there_on_older_versions() -> None:
    block = dropin.SharedMemory(create=True, size=10, track=False)
    assert block._track is False
    block.unlink()


def test_a_low_limit_of_file_size_is_an_error_and_no_signal(interpreter) -> None:
    done = interpreter("""
        import resource, shoal
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, resource.RLIM_INFINITY))
        try:
            shoal.SharedMemory(create=True, size=3 << 20)
        except MemoryError as error:
            print("refused")
    """)
    assert done.check() == "refused\n"
    assert resource.getrlimit(resource.RLIMIT_FSIZE)


# ---- ShareableList -------------------------------------------------------------------------------

ITEM = st.one_of(
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
    st.booleans(),
    st.none(),
    st.text(st.characters(), max_size=20),
    st.binary(max_size=20),
    st.builds(lambda data, zeros: data + bytes(zeros), st.binary(max_size=9), st.integers(0, 20)),
)


def same(left: object, right: object) -> bool:
    return type(left) is type(right) and left == right


@given(st.lists(ITEM, max_size=8), st.data())
def test_a_list_gives_back_exactly_what_was_put(items, data) -> None:
    made = shoal.ShareableList(items)
    try:
        other = shoal.ShareableList(name=made.shm.name)
        assert all(map(same, other, items)) and len(other) == len(items)
        for _ in range(3 if items else 0):
            position, value = data.draw(st.integers(0, len(items) - 1)), data.draw(ITEM)
            try:
                other[position] = value
            except ValueError as error:
                assert "exceeds available storage" in str(error)
            else:
                items[position] = value
            assert all(map(same, made, items))
    finally:
        made.shm.unlink()


def test_a_list_of_the_standard_library_is_read_and_written() -> None:
    theirs = stock.ShareableList(["one", b"two", 3, None])
    mine = dropin.ShareableList(name=theirs.shm.name)
    assert list(mine) == ["one", b"two", 3, None] and isinstance(mine, stock.ShareableList)
    mine[0], mine[2] = "uno", 33
    assert list(theirs) == ["uno", b"two", 33, None] and theirs.format == mine.format
    theirs.shm.close()
    theirs.shm.unlink()


def test_the_standard_library_reads_and_writes_a_list_of_shoals() -> None:
    mine = shoal.ShareableList(["one", b"two\0", 3, None, "x"])
    theirs = stock.ShareableList(name=mine.shm.name)
    assert list(theirs) == ["one", b"two", 3, None, "x"]
    theirs[4] = "longer"
    assert mine[4] == "longer" and mine[1] == b"two\0"
    theirs.shm.close()
    mine.shm.unlink()


def test_wrong_uses_of_a_list_are_refused() -> None:
    made = shoal.ShareableList([1, "abc"])
    with pytest.raises(TypeError, match="not list"):
        made[0] = []
    with pytest.raises(IndexError, match="index out of range: 2, with 2 items"):
        made[2]
    with pytest.raises(ValueError, match="9 bytes, and item 1 has room for 8"):
        made[1] = "encodées"
    assert made[-1] == "abc" and made.count(1) == 1 and made.index("abc") == 1
    made.shm.close()
    with pytest.raises(ValueError, match="closed"):
        made[0]
    made.shm.unlink()
    block = shoal.SharedMemory(create=True, size=16)
    block.buf[:] = b"\xff" * 16
    with pytest.raises(ValueError, match="holds no ShareableList"):
        shoal.ShareableList(name=block.name)
    block.unlink()


@pytest.mark.parametrize("kind", KINDS)
def test_a_name_may_begin_with_a_slash_as_in_posix(kind):
    name = f"/slash-{os.getpid()}"
    block = kind(name, create=True, size=8)
    try:
        assert block.name == name
        for other in (
            kind(name),
            kind(name[1:]),
            stock.SharedMemory(name),
            pickle.loads(pickle.dumps(block)),
        ):
            other.buf[0] += 1
            other.close()
        assert block.buf[0] == 4
    finally:
        block.unlink()
    assert not (SHM / name[1:]).exists()


@pytest.mark.parametrize("name", ["", "/", ".", "/..", "a/b", "/a/b", "x" * 256])
@pytest.mark.parametrize("kind", KINDS)
def test_a_name_that_no_file_can_have_is_an_oserror(kind, name):
    for options in ({}, {"create": True, "size": 1}):
        with pytest.raises(OSError, match="name"):
            kind(name, **options)
