"""What a full sync costs, against the bare GETs of the same pages in the same run.

    python tests/benchmarks/sync.py [--appointments 10000] [--rounds 3]

The stand-in runs in a process of its own. The product: `Lifecycle.sync` into a fresh SQLite database, each appointment
with its row and its hashed audit event, each page in a durable commit. The floor: the same pages through one `requests`
session, decoded. `by_hand` is the floor with the product's own rows written into the same tables, a durable commit for
each page, through the standard library: no hash is computed, nothing is compared. All take turns; a ratio is the median
of the rounds' ratios. `again` is a second full sync, which
finds everything unchanged. `peak_mb` is how much the process grew during the first two syncs. Prints
JSON. Exits with 1 if the ratio is 6 or more.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import sqlite3
import statistics
import sys
import tempfile
import time
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import requests

from lifecycle import Lifecycle, ZocdocClient, database, schema
from lifecycle.sandbox import Sandbox, serve

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from multiprocessing.connection import Connection

LIMIT = 6.0
PAST = datetime(2026, 1, 1, tzinfo=UTC)


def serve_sandbox(pipe: Connection, count: int) -> None:
    """Run the stand-in until the parent says stop."""
    sandbox = Sandbox()
    sandbox.add_many(count, modified=PAST)
    with serve(sandbox) as server:
        pipe.send((server.base_url, server.token_url, server.audience))
        pipe.recv()


@contextmanager
def sandbox_process(count: int) -> Iterator[tuple[str, str, str]]:
    """Start the stand-in in a process of its own."""
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    process = multiprocessing.get_context("spawn").Process(target=serve_sandbox, args=(theirs, count))
    process.start()
    try:
        yield ours.recv()
    finally:
        ours.send("stop")
        process.join()


def floor(place: tuple[str, str, str], write: Callable[[], object] = lambda: None) -> tuple[float, int]:
    """Read every page and decode it; the next one begins at the last modification, as the product's."""
    base_url, token_url, audience = place
    with requests.Session() as session:
        credentials = {"client_id": "sandbox-client", "client_secret": "sandbox-secret"}
        body = {"grant_type": "client_credentials", "audience": audience, **credentials}
        token = session.post(token_url, json=body, timeout=10).json()["access_token"]
        headers = {"Authorization": f"Bearer {token}"}
        wanted: dict[str, Any] = {
            "page_size": 100,
            "sort_by": "last_modified_time_utc",
            "sort_direction": "ascending",
        }
        started, pages = time.perf_counter(), 0
        while True:
            answer = session.get(f"{base_url}/v1/appointments", params=wanted, headers=headers, timeout=10).json()
            pages += 1
            write()
            if not answer["next_url"]:
                return time.perf_counter() - started, pages
            newest = datetime.fromisoformat(answer["data"][-1]["last_modified_time_utc"])
            wanted["last_modified_time_utc_min"] = (newest - timedelta(microseconds=1)).isoformat()


def by_hand(source: str, target: str, place: tuple[str, str, str]) -> float:
    """Read every page and write 100 of the rows that the product has made."""
    tables = ("lifecycle_appointments", "lifecycle_audit_events")
    with closing(sqlite3.connect(source)) as made:
        rows = [made.execute(f"SELECT * FROM {table} ORDER BY appointment_id").fetchall() for table in tables]  # noqa: S608 # constants
    with closing(sqlite3.connect(target, isolation_level=None)) as connection:
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}")

        def write() -> None:
            connection.execute("BEGIN IMMEDIATE")
            for table, left in zip(tables, rows, strict=True):
                taken, left[:] = left[:100], left[100:]
                marks = ", ".join("?" * (len(taken[0]) if taken else 1))
                if taken:
                    connection.executemany(f"INSERT INTO {table} VALUES ({marks})", taken)  # noqa: S608 # constants
            connection.execute("COMMIT")

        return floor(place, write)[0]


def fresh(folder: str, name: str) -> str:
    """Make an empty database and give its file."""
    path = str(Path(folder) / name)
    made = database.Database(f"sqlite:///{path}")
    schema.upgrade(made)
    made.close()
    return path


def product(url: str, place: tuple[str, str, str], count: int) -> tuple[float, float, int]:
    """Sync everything into an empty database, then once more."""
    base_url, token_url, audience = place
    client = ZocdocClient(
        base_url=base_url,
        token_url=token_url,
        audience=audience,
        client_id="sandbox-client",
        client_secret="sandbox-secret",  # the stand-in's published one
    )
    with client, Lifecycle(url, zocdoc=client) as lifecycle:
        started = time.perf_counter()
        report = lifecycle.sync(full=True)
        first = time.perf_counter() - started
        if report.tracked < count:
            raise SystemExit(f"only {report.tracked} of {count} were tracked")
        started = time.perf_counter()
        lifecycle.sync(full=True)
        return first, time.perf_counter() - started, report.pages


def peak() -> float:
    """Tell the most memory that this process has had, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Measure and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--appointments", type=int, default=10_000, help="how many Zocdoc has")
    parser.add_argument("--rounds", type=int, default=3, help="turns of product and floor")
    options = parser.parse_args()
    rounds = []
    with tempfile.TemporaryDirectory() as folder, sandbox_process(options.appointments) as place:
        floor(place)
        before, grown = peak(), 0.0
        for number in range(options.rounds):
            path = fresh(folder, f"{number}.db")
            bare, pages = floor(place)
            first, again, read = product(f"sqlite:///{path}", place, options.appointments)
            if pages != read:
                raise SystemExit(f"the floor read {pages} pages, the product {read}")
            grown = max(grown, peak() - before) if number == 0 else grown
            written = by_hand(path, fresh(folder, f"{number}-by-hand.db"), place)
            seconds = {"floor_s": bare, "by_hand_s": written, "sync_s": first, "again_s": again}
            ratios = {"ratio": first / bare, "ratio_to_by_hand": first / written, "again_ratio": again / bare}
            rounds.append(seconds | ratios)
    figures = {name: round(statistics.median(each[name] for each in rounds), 3) for name in rounds[0]}
    figures["appointments_per_second"] = round(options.appointments / figures["sync_s"])
    print(json.dumps({**figures, "pages": pages, "peak_mb": round(grown, 1)}, indent=2))  # noqa: T201 # what it is for
    sys.exit(1 if figures["ratio"] >= LIMIT else 0)


if __name__ == "__main__":
    main()
