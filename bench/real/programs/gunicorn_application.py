# SPDX-License-Identifier: Apache-2.0
"""A WSGI application that counts its requests over all worker processes and answers the count."""

import hashlib
import json
import multiprocessing

# Made when the server loads the application, before it forks its workers.
counter = multiprocessing.Value("Q")


def application(environ, start_response):
    with counter.get_lock():
        counter.value += 1
        count = counter.value
    digest = hashlib.pbkdf2_hmac("sha256", environ["PATH_INFO"].encode(), b"salt", 500).hex()
    body = json.dumps({"count": count, "digest": digest}).encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
