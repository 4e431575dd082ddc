"""How long Zocdoc waits for the door's answer, against the bare commit that it must pay for.

    python tests/benchmarks/door.py [--calls 1000] [--callers 4]

The product: `lifecycle serve` in a process of its own on an SQLite file (WAL, synchronous=FULL), called over loopback
with signed, all different events; one caller at first, then several at once. The inbox is processed meanwhile, as
always. The floor, in blocks between: one INSERT of the same width in a transaction of its own, through the standard
library, with the same settings on the same disk. Prints milliseconds as JSON. Exits with 1 if p99 of one caller is over
50 ms.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import hmac
import http.client
import json
import os
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from lifecycle import database, schema

if TYPE_CHECKING:
    from collections.abc import Iterator

LIMIT = 50.0
KEY = base64.b64encode(b"a key of the benchmark, 32 bytes").decode()
BLOCK = 100
NODELAY = (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


@contextmanager
def door(url: str) -> Iterator[int]:
    """Run the command; gives its port."""
    settings = {
        "LIFECYCLE_DATABASE_URL": url,
        "LIFECYCLE_WEBHOOK_KEYS": KEY,
        "LIFECYCLE_ZOCDOC_BASE_URL": "http://127.0.0.1:9",  # nothing is tracked, so nothing is read
        "LIFECYCLE_ZOCDOC_ACCESS_TOKEN": "unused",
    }
    log = tempfile.TemporaryFile("w+")  # noqa: SIM115 # closed with the process
    process = subprocess.Popen(  # our own
        [sys.executable, "-m", "lifecycle", "serve", "--port", "0"],
        stderr=log,
        env=os.environ | settings,
    )
    try:
        while not (told := _told(log.fileno())):
            time.sleep(0.05)
        yield int(told.split(":")[-1].split("/")[0])
    finally:
        process.terminate()
        process.wait()
        log.close()


def _told(descriptor: int) -> str:
    return os.pread(descriptor, 200, 0).decode().partition("\n")[0]


def call(connection: http.client.HTTPConnection, number: str) -> float:
    """Deliver an event and give the milliseconds until its answer was read."""
    appointment = {"appointment_id": number, "appointment_update_type": "updated"}
    event = {"event_type": "appointment_updated", "data": {"appointment_data": appointment}}
    body, at = json.dumps(event).encode(), str(int(time.time()))
    mac = hmac.digest(base64.b64decode(KEY), f"{at}.".encode() + body, hashlib.sha256)
    headers = {"webhook-timestamp": at, "webhook-signature": f"v1:{base64.b64encode(mac).decode()}"}
    begun = time.perf_counter()
    connection.request("POST", "/webhooks/zocdoc", body, headers)
    answer = connection.getresponse()
    answer.read()
    taken = (time.perf_counter() - begun) * 1000
    if answer.status != 200:  # named by HTTP
        raise SystemExit(f"the door answered {answer.status}")
    return taken


@contextmanager
def connected(port: int) -> Iterator[http.client.HTTPConnection]:
    """Open a connection as a client that does not wait to fill its packets."""
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=30)) as connection:
        connection.connect()
        connection.sock.setsockopt(*NODELAY)
        yield connection


def commit(floor: sqlite3.Connection, number: str) -> float:
    """Insert a row of the same width and give the milliseconds until it was committed."""
    begun = time.perf_counter()
    floor.execute("BEGIN IMMEDIATE")
    floor.execute(
        "INSERT INTO floor VALUES (?, ?, ?)", (hashlib.sha256(number.encode()).hexdigest(), number, "x" * 200)
    )
    floor.execute("COMMIT")
    return (time.perf_counter() - begun) * 1000


def summary(taken: list[float]) -> dict[str, float]:
    """Give the middle, the slow end and the worst, in milliseconds."""
    parts = statistics.quantiles(taken, n=100, method="inclusive")
    return {"p50": round(parts[49], 2), "p99": round(parts[98], 2), "max": round(max(taken), 2)}


def crowd(port: int, calls: int, callers: int) -> list[float]:
    """Call from several threads at once, one connection each."""
    taken: list[float] = []

    def run(caller: int) -> None:
        with connected(port) as connection:
            taken.extend([call(connection, f"crowd-{caller}-{number}") for number in range(calls // callers)])

    threads = [threading.Thread(target=run, args=(caller,)) for caller in range(callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return taken


def main() -> int:
    """Run both in turns and print what they took."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--calls", type=int, default=1000)
    parser.add_argument("--callers", type=int, default=4)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{folder}/door.db"
        made = database.Database(url)
        schema.upgrade(made)
        made.close()
        with closing(sqlite3.connect(Path(folder) / "floor.db", isolation_level=None)) as floor, door(url) as port:
            floor.execute("PRAGMA journal_mode=WAL")
            floor.execute("PRAGMA synchronous=FULL")
            floor.execute("CREATE TABLE floor (a TEXT PRIMARY KEY, b TEXT, c TEXT)")
            product: list[float] = []
            bare: list[float] = []
            with connected(port) as connection:
                for number in range(BLOCK // 5):
                    call(connection, f"warm-{number}")
                for begun in range(0, given.calls, BLOCK):
                    product += [call(connection, f"one-{begun + number}") for number in range(BLOCK)]
                    bare += [commit(floor, f"one-{begun + number}") for number in range(BLOCK)]
            together = crowd(port, given.calls, given.callers)
    found = {"one_caller_ms": summary(product), f"{given.callers}_callers_ms": summary(together)}
    json.dump(found | {"bare_commit_ms": summary(bare)}, sys.stdout, indent=2)
    sys.stdout.write("\n")
    return 1 if found["one_caller_ms"]["p99"] > LIMIT else 0


if __name__ == "__main__":
    sys.exit(main())
