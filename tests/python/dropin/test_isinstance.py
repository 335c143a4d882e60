# SPDX-License-Identifier: Apache-2.0
"""`isinstance` with the standard library's classes holds while shoal is installed: for what shoal
makes in their place, for what the standard library makes itself, for what was made before.
"""

from __future__ import annotations

from typing import Any

import pytest

METHODS = ["fork", "spawn", "forkserver"]

PROGRAM = """
    import ctypes
    import multiprocessing as mp
    import multiprocessing.sharedctypes as sc
    import sys
    import threading
    from concurrent.futures import Future, ProcessPoolExecutor
    from concurrent.futures.process import ProcessPoolExecutor as Executor
    from multiprocessing import connection, managers, pool, queues, synchronize

    import shoal

    class MyLock(synchronize.Lock): pass
    class MyValue(sc.Synchronized): pass
    class MyQueue(queues.Queue): pass
    class MyPool(pool.Pool): pass
    class Point(ctypes.Structure): _fields_ = [("x", ctypes.c_int)]

    def carried(ctx):
        return [
            (ctx.Value("i"), sc.Synchronized, sc.SynchronizedBase),
            (ctx.Value("d", lock=ctx.Lock()), sc.Synchronized),
            (ctx.Value(Point), sc.SynchronizedBase),
            (ctx.Array("i", 2), sc.SynchronizedArray, sc.SynchronizedBase),
            (ctx.Array("c", 2), sc.SynchronizedString, sc.SynchronizedArray),
            (ctx.Lock(), synchronize.Lock, synchronize.SemLock),
            (ctx.RLock(), synchronize.RLock, synchronize.SemLock),
            (ctx.Semaphore(), synchronize.Semaphore, synchronize.SemLock),
            (ctx.BoundedSemaphore(), synchronize.BoundedSemaphore, synchronize.Semaphore),
            (ctx.Condition(), synchronize.Condition),
            (ctx.Event(), synchronize.Event),
            (ctx.Barrier(1), synchronize.Barrier),
            (ctx.Queue(), queues.Queue),
            (ctx.JoinableQueue(), queues.JoinableQueue, queues.Queue),
            (ctx.SimpleQueue(), queues.SimpleQueue),
            (MyLock(ctx=ctx), MyLock, synchronize.Lock),
            # (of its own class in this process only, as in the standard library)
            (MyValue(sc.RawValue("i"), ctx.RLock()), sc.Synchronized, sc.SynchronizedBase),
            (MyQueue(ctx=ctx), MyQueue, queues.Queue),
        ]

    def local(ctx):
        read, write = ctx.Pipe()
        yield read, connection.Connection
        yield write, connection.Connection
        # A lock of threads: the standard library's own class serves it.
        yield ctx.Value("i", lock=threading.RLock()), sc.Synchronized, sc.SynchronizedBase
        yield ctx.Array("i", 2, lock=threading.Lock()), sc.SynchronizedArray
        yield sc.synchronized(sc.RawValue("i"), ctx.Lock()), sc.Synchronized
        for workers in (ctx.Pool(1), MyPool(1, context=ctx), pool.ThreadPool(1)):
            with workers:
                yield workers, pool.Pool
                call, mapped = workers.apply_async(abs, (1,)), workers.map_async(abs, [1])
                yield call, pool.AsyncResult, pool.ApplyResult
                yield mapped, pool.MapResult, pool.AsyncResult
                yield workers.imap(abs, [1]), pool.IMapIterator
                yield workers.imap_unordered(abs, [1]), pool.IMapUnorderedIterator
                call.wait(), mapped.wait()
            workers.join()
        with ProcessPoolExecutor(1, ctx) as executor:
            yield executor, Executor
            yield executor.submit(abs, 1), Future
        with ctx.Manager() as manager:
            yield manager, managers.SyncManager, managers.BaseManager
            yield manager.dict(), managers.DictProxy, managers.BaseProxy
            yield manager.list(), managers.ListProxy, managers.BaseProxy
            yield manager.Namespace(), managers.NamespaceProxy, managers.BaseProxy
            yield manager.Value("i", 1), managers.ValueProxy, managers.BaseProxy
            yield manager.Lock(), managers.AcquirerProxy, managers.BaseProxy
            yield manager.Event(), managers.EventProxy, managers.BaseProxy
            yield manager.Queue(), managers.BaseProxy

    def check(where, things):
        for thing, *classes in things:
            for cls in classes:
                assert isinstance(thing, cls), (where, type(thing).__mro__, cls)
                assert issubclass(type(thing), cls)

    if __name__ == "__main__":
        ctx = mp.get_context(sys.argv[1])
        before = carried(ctx)
        with shoal.Pool(1) as native:
            native.apply(abs, (1,))
        shoal.install()
        check("made before", before)
        check("made here", carried(ctx))
        check("only here", local(ctx))
        kept = carried(ctx)  # stock locks are gone with their last object in this process
        child = ctx.Process(target=check, args=("in a child", kept))
        child.start()
        child.join()
        assert child.exitcode == 0
        shoal.uninstall()
        check("after uninstall", [*before, *carried(ctx)])
"""


@pytest.mark.parametrize("method", METHODS)
def test_instances_of_the_stock_classes_while_installed(interpreter: Any, method: str) -> None:
    interpreter(PROGRAM, method, options=("-W", "ignore")).check()
