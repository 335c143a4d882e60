# SPDX-License-Identifier: Apache-2.0
"""The program that the rows process-* run: `empty_process.py SIDE METHOD TIMES` prints, as JSON,
the seconds of each start and join of a process that does nothing.
"""

import json
import sys
import time

if sys.argv[1:2] == ["shoal"]:
    import shoal.multiprocessing as multiprocessing
else:
    import multiprocessing


def nothing() -> None:
    pass


def main() -> None:
    context = multiprocessing.get_context(sys.argv[2])
    times = []
    for _ in range(int(sys.argv[3])):
        started = time.perf_counter()
        process = context.Process(target=nothing)
        process.start()
        process.join()
        times.append(time.perf_counter() - started)
        assert process.exitcode == 0
    print(json.dumps(times))


if __name__ == "__main__":
    main()
