"""Checks of the database itself: reachable, of this version, guarded, writable, on time."""

from __future__ import annotations

import shutil
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from lifecycle import database as db
from lifecycle import errors, models, triggers
from lifecycle.doctor.checks import Check, Severity, found, well

if TYPE_CHECKING:
    import sqlalchemy as sa

    from lifecycle.database import Database
    from lifecycle.doctor.checks import Installation

SKEW: Final = 2.0
"""Seconds between the clocks that do no harm yet: less than the shortest pause that one process sets for another."""

WAL_LIMIT: Final = 256 * 1024**2
"""Bytes of an SQLite log: it is a few megabytes unless a reader never ends."""

DISK_WARNING: Final = 1024**3
DISK_ERROR: Final = 100 * 1024**2
"""Bytes that are left: a day's events of a large group, and what an SQLite checkpoint may need at once."""

_MILLION: Final = 1_000_000


def reachable(database: Database) -> Check:
    """Open the database."""
    begun = time.perf_counter()
    try:
        with database.look() as connection:
            query = "SHOW server_version" if database.is_postgres else "SELECT sqlite_version()"
            version = str(connection.exec_driver_sql(query).scalar_one())
    except errors.SchemaMismatch:
        problem, remedy = "there is no such database file", "check the database URL, then run `lifecycle db upgrade`"
        return found("database", Severity.ERROR, problem, remedy, backend=database.engine.dialect.name)
    except Exception as error:  # noqa: BLE001 # whatever it is, nothing works without the database
        unexpected = f"unexpected {type(error).__name__}"
        problem = error.problem if isinstance(error, errors.DatabaseUnavailable) else unexpected
        remedy = "check the database URL (LIFECYCLE_DATABASE_URL), the server or the file, and its permissions"
        return found("database", Severity.ERROR, problem, remedy, backend=database.engine.dialect.name)
    milliseconds = round((time.perf_counter() - begun) * 1000, 1)
    return well("database", backend=database.engine.dialect.name, version=version, milliseconds=milliseconds)


def schema(_installation: Installation, connection: sa.Connection) -> Check:
    """Compare the schema's revision with this code's."""
    revision = db.revision(connection)
    facts = {"found": revision, "expected": models.REVISION}
    if revision == models.REVISION:
        return well("schema", **facts)
    if revision is None:
        problem, remedy = "the database has no lifecycle tables", "run `lifecycle db upgrade`"
    else:
        problem = f"the schema is at revision {revision}, this version needs {models.REVISION}"
        remedy = "run `lifecycle db upgrade`, or upgrade this package if the database is newer"
    return found("schema", Severity.ERROR, problem, remedy, **facts)


def guards(_installation: Installation, connection: sa.Connection) -> Check:
    """Look for the triggers that keep the trail append-only."""
    differences = tuple(triggers.changes(connection))
    if not differences:
        return well("guards")
    problem = f"the guards of the audit trail were changed: {', '.join(differences)}"
    remedy = "find out who did it, run `lifecycle verify`, and put the guards of the migrations back"
    return found("guards", Severity.ERROR, problem, remedy, differences=differences)


def counts(_installation: Installation, connection: sa.Connection) -> Check:
    """Look for the triggers that count what becomes of the commands of batches."""
    missing = tuple(triggers.uncounted(connection))
    if not missing:
        return well("counts")
    problem = f"what becomes of batches is not counted: {', '.join(missing)}"
    remedy = "put the triggers of the migrations back; the progress of batches that moved meanwhile stays wrong"
    return found("counts", Severity.ERROR, problem, remedy, missing=missing)


def writable(installation: Installation, _connection: sa.Connection) -> Check:
    """Begin a writing transaction, and roll it back."""
    try:
        is_read_only = not _takes_writes(installation.database)
    except errors.DatabaseUnavailable as error:
        remedy = "see to the lock, the permissions or the disk; commands are refused until then"
        return found("writable", Severity.ERROR, f"nothing can be written: {error.problem}", remedy)
    if not is_read_only:
        return well("writable")
    problem = "the server takes no writes: it is a replica, or set to read-only"
    return found("writable", Severity.ERROR, problem, "point the database URL at the primary server")


def pragmas(_installation: Installation, connection: sa.Connection) -> Check:
    """Read SQLite's settings of this connection; a host's engine may have set others."""
    facts: dict[str, Any] = {name: _pragma(connection, name) for name in ("journal_mode", "synchronous")}
    facts["foreign_keys"] = bool(_pragma(connection, "foreign_keys"))
    if facts["synchronous"] < _FULL:
        remedy = "set PRAGMA synchronous=FULL on every connection of the engine"
        return found("pragmas", Severity.ERROR, "this SQLite engine may lose commits", remedy, **facts)
    if facts["journal_mode"] != "wal":
        problem, remedy = "readers and writers block each other", "set PRAGMA journal_mode=WAL (not on a network disk)"
        return found("pragmas", Severity.WARNING, problem, remedy, **facts)
    if not facts["foreign_keys"]:
        remedy = "set PRAGMA foreign_keys=ON on every connection of the engine"
        return found("pragmas", Severity.WARNING, "SQLite does not check references", remedy, **facts)
    return well("pragmas", **facts)


def wal(_installation: Installation, connection: sa.Connection) -> Check:
    """Measure SQLite's write-ahead log."""
    path = Path(f"{_file(connection)}-wal")
    size = path.stat().st_size if path.exists() else 0
    if size <= WAL_LIMIT:
        return well("wal", bytes=size)
    problem = f"SQLite's log has grown to {size // _MILLION} MB: some reader has kept its transaction open"
    return found("wal", Severity.WARNING, problem, "end that reader; the next checkpoint empties the log", bytes=size)


def disk(_installation: Installation, connection: sa.Connection) -> Check:
    """Measure what is left of the disk that holds an SQLite file."""
    free = shutil.disk_usage(_file(connection).parent).free
    if free >= DISK_WARNING:
        return well("disk", free_bytes=free)
    severity = Severity.ERROR if free < DISK_ERROR else Severity.WARNING
    problem = f"{free // _MILLION} MB are left on the disk of the database"
    return found("disk", severity, problem, "free some space: a full disk refuses every command", free_bytes=free)


def clock(installation: Installation, connection: sa.Connection) -> Check:
    """Compare the server's clock with this machine's, halving the round trip; SQLite has only this machine's."""
    trip, skew = min(_measured(installation.database, connection) for _ in range(3))
    facts = {"skew_seconds": round(skew, 3), "round_trip_ms": round(trip * 1000, 1)}
    if abs(skew) - trip / 2 <= SKEW:
        return well("clock", **facts)
    where = "ahead of" if skew > 0 else "behind"
    problem = f"the database's clock is {abs(skew):.1f} s {where} this machine's"
    remedy = "synchronise both machines (NTP): the times in the trail are the database's"
    return found("clock", Severity.WARNING, problem, remedy, **facts)


def _measured(database: Database, connection: sa.Connection) -> tuple[float, float]:
    """Give the round trip, and how far the server is ahead of the middle of it, in seconds."""
    begun, before = time.perf_counter(), datetime.now(UTC)
    there = database.now(connection)
    trip = time.perf_counter() - begun
    return trip, (there - before).total_seconds() - trip / 2


def _takes_writes(database: Database) -> bool:
    """Tell whether the server takes writes; SQLite is asked by a write, which fails if it does not."""
    with suppress(_Enough), database.transaction() as connection:
        if database.is_postgres:
            return str(connection.exec_driver_sql("SHOW transaction_read_only").scalar_one()) == "off"
        connection.exec_driver_sql(f"PRAGMA user_version = {_pragma(connection, 'user_version')}")
        raise _Enough
    return True


class _Enough(Exception):
    """The write was taken; it is rolled back."""


def _pragma(connection: sa.Connection, name: str) -> Any:  # noqa: ANN401 # a number or a word
    return connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()


def _file(connection: sa.Connection) -> Path:
    return Path(next(row[2] for row in connection.exec_driver_sql("PRAGMA database_list") if row[1] == "main"))


_FULL: Final = 2
