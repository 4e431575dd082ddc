"""The bulk way: rows as the engine would have written them, tens of thousands of events a second.

Use it for large numbers and on PostgreSQL, whose clock cannot be made to run faster. Triggers, foreign keys and all
other constraints are in force, and the rows pass every verification.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from lifecycle import models
from lifecycle.samples import ground, making

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime

    import sqlalchemy as sa

    from lifecycle.database import Database


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What was made, in rows, and how long it took."""

    appointments: int
    batches: int
    commands: int
    deliveries: int
    events: int
    seconds: float


def generate(
    database: Database,
    *,
    appointments: int,
    seed: int,
    until: datetime,
    days: int = 90,
    on_progress: Callable[[int, int], object] | None = None,
) -> Summary:
    """Fill an empty database with a practice group's last `days` before `until` (UTC), with so many bookings.

    The same arguments give the same rows, hash for hash, in both databases. Bookings that nobody here has heard of by
    then leave no row. `on_progress` is called with the bookings so far and all. Each chunk is a transaction: of a run
    that is killed the database holds a part, and wants to be made anew. Raises `ConfigurationError` for a database
    that is not empty, `InvalidArgument`, `DatabaseUnavailable`, `SchemaMismatch`.

    More than `making.FEW` appointments are made in a second process, and loaded without the indexes that no constraint
    needs, which are built again afterwards: that wants the rights of the tables' owner.
    """
    started = time.monotonic()
    order = making.Order(appointments=appointments, seed=seed, days=days, until=until)
    ground.claim(database)
    counts, booked = dict.fromkeys((table.name for table in making.TABLES), 0), 0
    with _unindexed(database, is_wanted=appointments > making.FEW), making.made(order) as chunks:
        for chunk in chunks:
            _store(database, chunk)
            booked += chunk.booked
            for name, rows in chunk.rows.items():
                counts[name] += len(rows)
            if on_progress is not None:
                on_progress(booked, appointments)
    _analyze(database)
    return Summary(
        appointments=counts[models.appointments.name],
        batches=counts[models.batches.name],
        commands=counts[models.commands.name],
        deliveries=counts[models.webhook_deliveries.name],
        events=counts[models.audit_events.name],
        seconds=round(time.monotonic() - started, 3),
    )


@contextmanager
def _unindexed(database: Database, *, is_wanted: bool) -> Iterator[None]:
    """Load without the indexes that no constraint needs: sorted in one go, they cost a third of the time."""
    if not is_wanted:
        yield
        return
    spare = [index for table in making.TABLES for index in table.indexes if not index.unique]
    with database.write() as connection:
        _give_memory(connection, _LOADING_KILOBYTES)
        for index in spare:
            index.drop(connection)
    try:
        yield
    finally:
        with database.write() as connection:
            for index in spare:
                index.create(connection)
            _give_memory(connection, _USUAL_KILOBYTES)


def _give_memory(connection: sa.Connection, kilobytes: int) -> None:
    """Let SQLite hold so much of the file in memory: ids are random, so every row touches another page."""
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql(f"PRAGMA cache_size = -{kilobytes}")


def _store(database: Database, chunk: making.Chunk) -> None:
    write = _copy if database.is_postgres else _insert
    with database.write() as connection:
        for name, rows in chunk.rows.items():
            if rows:
                write(connection, name, rows)


def _insert(connection: sa.Connection, name: str, rows: making.Rows) -> None:
    names = making.NAMES[name]
    marks = ", ".join("?" * len(names))
    connection.exec_driver_sql(f"INSERT INTO {name} ({', '.join(names)}) VALUES ({marks})", rows)  # noqa: S608 # our tables


def _copy(connection: sa.Connection, name: str, rows: making.Rows) -> None:
    if not connection.in_transaction():
        connection.begin()  # what the driver is told directly does not begin SQLAlchemy's transaction
    driver: Any = connection.connection.driver_connection
    with driver.cursor() as cursor, cursor.copy(f"COPY {name} ({', '.join(making.NAMES[name])}) FROM STDIN") as copy:
        for start in range(0, len(rows), _LINES):
            copy.write("".join(map(_line, rows[start : start + _LINES])))


def _line(row: tuple[Any, ...]) -> str:
    """Write a row in the text format of COPY."""
    return "\t".join([_cell(value) for value in row]) + "\n"


def _cell(value: object) -> str:
    if value is None:
        return "\\N"
    return value.translate(_ESCAPES) if isinstance(value, str) else str(value)


def _analyze(database: Database) -> None:
    """Tell PostgreSQL's planner what has come, as its autovacuum would within minutes."""
    if database.is_postgres:
        with database.write() as connection:
            connection.exec_driver_sql(f"ANALYZE {', '.join(table.name for table in making.TABLES)}")


_LOADING_KILOBYTES: Final = 256 * 1024
_USUAL_KILOBYTES: Final = 2_000
"""SQLite's own default."""

_LINES: Final = 1_000
"""Rows that are handed to the driver at a time."""

_ESCAPES: Final = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})
