# SPDX-License-Identifier: Apache-2.0
"""Compressed size and salted checksum of each file of a folder: digests.py FOLDER ITERATIONS."""

import hashlib
import sys
import zlib
from functools import partial
from multiprocessing import Pool
from pathlib import Path


def digest(path, iterations):
    data = path.read_bytes()
    checksum = hashlib.pbkdf2_hmac("sha256", data, b"salt", iterations)
    return path.name, len(zlib.compress(data, 9)), checksum.hex()


if __name__ == "__main__":
    folder, iterations = Path(sys.argv[1]), int(sys.argv[2])
    with Pool(2) as pool:
        task = partial(digest, iterations=iterations)
        for line in sorted(pool.imap_unordered(task, folder.iterdir(), chunksize=4)):
            print(*line)
