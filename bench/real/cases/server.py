# SPDX-License-Identifier: Apache-2.0
"""gunicorn: a server that forks its workers before it listens, and they count in shared memory."""

from case import TOOLS, Case, program

CASES = [
    Case(
        name="gunicorn",
        title="gunicorn, 2 workers, requests counted",
        group=TOOLS,
        parallel_by="os.fork, multiprocessing.Value",
        arguments=program("gunicorn_load.py", 2000),
        quick_arguments=program("gunicorn_load.py", 40),
    )
]
