# SPDX-License-Identifier: Apache-2.0
"""A parent and a worker on two pipes: definitions without a pool.

    with Worker() as worker:            # a fresh interpreter, as a clean template gives
        worker.call(function, 1, 2)

The worker lives until the `with` block ends; `fork=True` makes it a fork of this process instead.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from typing import Any, BinaryIO

from shoal._pickling import _pickler
from shoal._pickling._definitions import Applied, Definitions, ForkedMain, decode_function
from shoal._pickling._exceptions import decode_exception, encode_exception


def send(file: BinaryIO, message: Any) -> None:
    data = pickle.dumps(message, 5)
    file.write(len(data).to_bytes(8, "little") + data)
    file.flush()


def receive(file: BinaryIO) -> Any:
    head = file.read(8)
    if not head:
        raise EOFError("the other process is gone")
    return pickle.loads(file.read(int.from_bytes(head, "little")))


class Worker:
    def __init__(self, definitions: Definitions | None = None, fork: bool = False) -> None:
        self.definitions = definitions or Definitions()
        self.sent = 0
        self.functions: set[Any] = set()
        self.shipped = 0  # functions that were sent in full, not by their token
        if fork:
            if definitions is None:
                self.definitions.workers_have(ForkedMain())
            to_worker, from_parent = os.pipe()
            to_parent, from_worker = os.pipe()
            self.pid = os.fork()
            if self.pid == 0:
                os.close(from_parent), os.close(to_parent)
                with open(to_worker, "rb") as inbox, open(from_worker, "wb") as outbox:
                    serve(inbox, outbox, Applied(forked=True))
                os._exit(0)
            os.close(to_worker), os.close(from_worker)
            self.outbox: Any = os.fdopen(from_parent, "wb")
            self.inbox: Any = os.fdopen(to_parent, "rb")
        else:
            code = "import process_pair; process_pair.main()"
            environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
            self.process = subprocess.Popen(
                [sys.executable, "-c", code],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=environment,
            )
            self.pid = 0
            self.outbox, self.inbox = self.process.stdin, self.process.stdout

    def call(self, function: Any, *args: Any) -> Any:
        definitions = self.definitions
        key = definitions.function_key(function)
        payload = None
        if key is None:
            arguments = _pickler.dumps((function, args), definitions)
        else:
            arguments = _pickler.dumps(args, definitions)
            if key not in self.functions:
                payload = definitions.encode_function(function)
                self.functions.add(key)
                self.shipped += 1
        data, buffers = arguments
        plain = [bytearray(b.raw()) for b in buffers or ()]
        entries = [definitions.entry(i) for i in range(self.sent, definitions.length)]
        self.sent = definitions.length
        send(self.outbox, (entries, key, payload, bytes(data), plain))
        fine, data, plain = receive(self.inbox)
        if fine:
            return _pickler.loads(data, plain)
        raise decode_exception(data)

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *exception: object) -> None:
        self.outbox.close()
        self.inbox.close()
        if self.pid:
            os.waitpid(self.pid, 0)
        else:
            self.process.wait()


def serve(inbox: BinaryIO, outbox: BinaryIO, applied: Applied) -> None:
    functions: dict[Any, Any] = {}
    while True:
        try:
            entries, key, payload, data, buffers = receive(inbox)
        except EOFError:
            return
        answer: tuple[Any, ...]
        try:
            for entry in entries:
                applied.apply(entry)
            if payload is not None:
                functions[key] = decode_function(payload)
            if key is None:
                function, args = _pickler.loads(data, buffers)
            else:
                function, args = functions[key], _pickler.loads(data, buffers)
            data, out = _pickler.dumps(function(*args))
            answer = (True, bytes(data), [bytearray(b.raw()) for b in out or ()])
        except BaseException as error:
            answer = (False, encode_exception(error), [])
        send(outbox, answer)


def main() -> None:
    from shoal._pickling import _applied

    inbox, outbox = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    _applied.make_main()
    serve(inbox, outbox, Applied())


def run(program: Any) -> None:
    """For a program whose functions are in `__main__`: calls `program(worker)`; argv has the kind
    of worker.
    """
    with Worker(fork=sys.argv[1] == "fork") as worker:
        program(worker)
    print("fine")
