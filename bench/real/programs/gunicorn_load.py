# SPDX-License-Identifier: Apache-2.0
"""Have two gunicorn workers on 127.0.0.1 serve so many requests: gunicorn_load.py REQUESTS.

Four client threads each send their share of the requests, one after another. Printed: the number of
answers, the number of different counts in them (the same number if no worker lost an increment),
and a checksum of the answers.
"""

import hashlib
import http.client
import json
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

CLIENTS = 4


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def get(port, path):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


def wait_until_listening(port, server):
    while server.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=5).close()
            return
        except ConnectionRefusedError:
            time.sleep(0.005)
    sys.exit(f"gunicorn ended with status {server.returncode}")


def share(client, port, requests):
    return [get(port, f"/{number}") for number in range(client, requests, CLIENTS)]


if __name__ == "__main__":
    requests = int(sys.argv[1])
    port = free_port()
    options = f"--workers 2 --preload --log-level error --no-control-socket --bind 127.0.0.1:{port}"
    place = ["--chdir", str(Path(__file__).parent), "gunicorn_application:application"]
    command = [sys.executable, "-m", "gunicorn", *options.split(), *place]
    server = subprocess.Popen(command)
    try:
        wait_until_listening(port, server)
        with ThreadPoolExecutor(CLIENTS) as clients:
            jobs = [clients.submit(share, client, port, requests) for client in range(CLIENTS)]
            answers = [answer for job in jobs for answer in job.result()]
    finally:
        server.send_signal(signal.SIGTERM)
        status = server.wait(30)
    digests = "".join(sorted(body["digest"] for _, body in answers))
    print("answers", sum(code == 200 for code, _ in answers), "status", status)
    print("counts", sorted(body["count"] for _, body in answers) == list(range(1, requests + 1)))
    print("digests", hashlib.sha256(digests.encode()).hexdigest())
