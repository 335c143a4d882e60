# SPDX-License-Identifier: Apache-2.0
"""What cannot be sent: mentioning it is fine, touching it says why."""

import socket
import sqlite3
import threading

from process_pair import run

connection = sqlite3.connect(":memory:")
sock = socket.socket()
thread = threading.Thread()
generator = (i for i in [])
file = open("/dev/null")  # noqa: SIM115


def mention(touch):
    if touch:
        return connection, sock, thread, generator, file
    return 1


class Holder:
    c = connection
    fine = 1

    def get(self):
        return self.fine

    def touch(self):
        return self.c


class Refuses:
    def __reduce__(self):
        raise ValueError("not me")


refuses = Refuses()


class ComesApart:
    def __setstate__(self, state):
        raise ValueError("cannot be rebuilt")


apart = ComesApart()
apart.x = 1
after = ["still", "here"]


def rebuild(touch):
    return (apart, after) if touch else after


def refusing(touch):
    return refuses if touch else 2


def main(worker):
    assert worker.call(mention, False) == 1
    assert worker.call(Holder().get) == 1
    assert worker.call(refusing, False) == 2
    assert worker.call(rebuild, False) == after
    for function, arguments, reason in (
        (mention, (True,), "cannot pickle"),
        (lambda: Holder().touch(), (), "cannot pickle"),
        (refusing, (True,), "not me"),
        (rebuild, (True,), "cannot be rebuilt"),
    ):
        try:
            worker.call(function, *arguments)
        except (NameError, AttributeError) as error:
            assert "initializer" in str(error) and reason in str(error), error
        except Exception as error:
            # A fork has the objects; only the result cannot come back.
            assert worker.pid and not isinstance(error, NameError), error
        else:
            raise AssertionError(function)

    def over_connection():
        return connection, sock

    inside = sqlite3.connect(":memory:")
    try:
        worker.definitions.encode_function(lambda: inside)
    except TypeError as error:
        assert "cannot pickle" in str(error)
    else:
        raise AssertionError
    for opened in (connection, sock, file, inside):
        opened.close()


run(main)
