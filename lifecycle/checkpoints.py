"""Checkpoints: the last event of every chain, signed, in a file to keep elsewhere; and holding a database against one.

The chains show an edit that leaves what follows as it was. Whoever owns the database can cut a tail, delete a chain or
rebuild it all; none of that fits a file that was signed before, with a key that the database's owner does not have.

A checkpoint knows nothing of what is recorded after it. It shows later events that claim to be older than it only as
well as the database's clock goes: one that is set back makes honest events look backdated.
"""

from __future__ import annotations

import itertools
import json
import sqlite3
import time
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa

from lifecycle import columns, errors, files, headfile, models, verification, writers
from lifecycle import database as db
from lifecycle.findings import FindingKind, Findings

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Iterator, Sequence

_BATCH: Final = 1_000
"""Heads that are looked up at a time."""

_TICK: Final = timedelta(microseconds=1)
"""What the clocks of both databases can tell apart."""

_PATIENCE: Final = 5.0
"""Seconds to wait for transactions whose beginning this role may not see."""

_POLL: Final = 0.05
"""Seconds between two looks at them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A checkpoint that was written. Instants are UTC.

    Everything that was recorded at `as_of` or before is in it; `events` counts all that the heads stand for.
    """

    path: str
    environment: str | None
    as_of: datetime
    created_at: datetime
    appointments: int
    events: int


def create(database: db.Database, path: str | os.PathLike[str], *, key: bytes, replace: bool = False) -> Checkpoint:
    """Write the heads of all chains to a new file, as of one moment. Does not verify them.

    Raises `InvalidArgument` (a key under 32 bytes; a file that is there, unless `replace`), `DatabaseUnavailable`,
    `ConfigurationError` on a read replica, `OSError`. On SQLite it holds writers up for an instant, on PostgreSQL it
    does not. Memory stays flat.
    """
    headfile.check_key(key)
    target = Path(path)
    with files.written(target, replace=replace, is_private=True) as file, _moment(database) as (connection, as_of):
        header = headfile.Header(
            environment=_environment(connection),
            schema_revision=models.REVISION,
            as_of=columns.utc_text(as_of),
            created_at=columns.utc_text(datetime.now(UTC)),
        )
        totals = _write(headfile.Writer(file, key), connection, header)
    return Checkpoint(
        path=str(target),
        environment=header.environment,
        as_of=as_of,
        created_at=datetime.fromisoformat(header.created_at),
        appointments=totals.appointments,
        events=totals.events,
    )


def verify(
    database: db.Database, path: str | os.PathLike[str], *, key: bytes, processes: int | None = None
) -> verification.Verification:
    """Hold the database against a checkpoint, then verify its chains; the result has the findings of both.

    Raises `CheckpointRefused` for a file that this key has not signed word for word, `InvalidArgument`,
    `DatabaseUnavailable`, `OSError`; then nothing was verified. Reads only.
    """
    started = time.monotonic()
    known = headfile.Reader(Path(path), headfile.check_key(key))
    with database.read() as connection:
        if known.header.environment not in {None, _environment(connection)}:
            raise errors.CheckpointRefused(path=str(path), reason_code="another_environment")
    found = Findings()
    for heads in _batches(known.heads()):
        _compare(database, heads, found)
    if found.counts or _count(database, known.header.as_of) != known.totals.events_until_as_of:
        _name_backdated(database, known, found)
    return verification.verify(database, processes=processes, findings=found, started=started)


def _write(out: headfile.Writer, connection: sa.Connection, header: headfile.Header) -> headfile.Totals:
    out.write(headfile.line_of(header))
    appointments = events = 0
    for row in _rows(connection, _HEADS, {}):
        head = _sound(row)
        out.write(head._asdict())
        appointments += 1
        events += head.appointment_seq
    [[until]] = _rows(connection, _UNTIL[connection.dialect.name], {"as_of": header.as_of})
    totals = headfile.Totals(appointments=appointments, events=events, events_until_as_of=until)
    out.write(headfile.line_of(totals))
    out.sign()
    return totals


def _sound(row: Sequence[Any]) -> headfile.Head:
    if [type(value) for value in row] != [str, int, str] or not row[0].isprintable():
        raise errors.DatabaseUnavailable(problem="the trail is damaged; `lifecycle verify` tells where")
    return headfile.Head(*row)


def _rows(connection: sa.Connection, query: str, values: dict[str, object]) -> Iterator[Sequence[Any]]:
    with db.any_text(connection):
        for rows in db.stored_rows(connection, query, values, size=_BATCH):
            yield from rows


def _environment(connection: sa.Connection) -> str | None:
    found: str | None = connection.execute(sa.select(models.installation.c.zocdoc_environment)).scalar()
    return found


@contextmanager
def _moment(database: db.Database) -> Iterator[tuple[sa.Connection, datetime]]:
    """Open a snapshot, with an instant up to which it has every event that will ever be recorded.

    An event gets its `recorded_at` in the transaction that appends it, before the commit. On SQLite nobody can be in
    between: the snapshot is taken under the write lock.
    """
    with ExitStack() as stack:
        if database.is_postgres:
            as_of = _settled_instant(database)
            yield stack.enter_context(database.snapshot()), as_of
            return
        with database.write() as connection:
            as_of = database.now(connection) - _TICK
            snapshot = stack.enter_context(database.snapshot())
        yield snapshot, as_of


def _settled_instant(database: db.Database) -> datetime:
    """Give an instant before which no transaction has begun that runs now: none of them can record anything older.

    Locks do not tell: a writer may have looked at the clock and not yet touched the table. Transactions of other roles
    show no beginning without the rights of pg_read_all_stats, so those that run now are waited for.
    """
    if writers.PREPARED in writers.active(database):
        raise errors.DatabaseUnavailable(problem="a prepared transaction has audit events; commit it or roll it back")
    with database.read() as connection:
        if connection.execute(_IS_REPLICA).scalar_one():
            problem = "a read replica does not show which transactions are running; make checkpoints on the primary"
            raise errors.ConfigurationError(problem=problem)
        now = database.now(connection)
    patient_until = time.monotonic() + _PATIENCE
    waited_for: set[str] | None = None
    while True:
        with database.read() as connection:
            running = connection.execute(_RUNNING).all()
        began: list[datetime] = [each.began for each in running if each.began is not None]
        hidden = {each.name for each in running if each.began is None}
        waited_for = hidden if waited_for is None else waited_for & hidden
        if not waited_for:
            return min([now, *began]).astimezone(UTC) - _TICK
        if time.monotonic() > patient_until:
            problem = "another role's transaction does not end; call again, or grant pg_read_all_stats to this role"
            raise errors.DatabaseUnavailable(problem=problem)
        time.sleep(_POLL)


def _batches(heads: Iterable[headfile.Head]) -> Iterator[list[headfile.Head]]:
    heads = iter(heads)
    while batch := list(itertools.islice(heads, _BATCH)):
        yield batch


def _compare(database: db.Database, heads: list[headfile.Head], found: Findings) -> None:
    """Look for each head in the database, with that hash."""
    kind = "postgresql" if database.is_postgres else "sqlite"
    wanted = {(head.appointment_id, head.appointment_seq): head.hash for head in heads}
    with database.snapshot() as connection:
        stored = _rows(connection, _THOSE[kind], {"heads": json.dumps(list(wanted))})
        for appointment_id, appointment_seq, digest, seq in stored:
            if digest != wanted.pop((appointment_id, appointment_seq), digest):
                what = "the checkpoint knows this event with another hash: it, or one before it, was rewritten"
                place = {"appointment_id": appointment_id, "appointment_seq": appointment_seq, "seq": seq}
                found.add(FindingKind.REWRITTEN, what, **place)
        if wanted:
            ids = [appointment_id for appointment_id, _ in wanted]
            ends = _rows(connection, _ENDS[kind], {"ids": json.dumps(ids)})
            _name_missing(wanted, {row[0]: row for row in ends}, found)


def _name_missing(wanted: Iterable[tuple[str, int]], ends: dict[str, Sequence[Any]], found: Findings) -> None:
    for appointment_id, known in wanted:
        if appointment_id not in ends:
            what = f"nothing is left of the chain, which had {known} events"
            found.add(FindingKind.CHAIN_DELETED, what, appointment_id=appointment_id)
            continue
        _, last, seq = ends[appointment_id]
        what = f"event {known} is gone, the chain ends at {last}"
        place = {"appointment_id": appointment_id, "appointment_seq": last, "seq": seq}
        found.add(FindingKind.TAIL_CUT, what, **place)


def _count(database: db.Database, as_of: str) -> int:
    with database.snapshot() as connection:
        [[count]] = _rows(connection, _UNTIL[connection.dialect.name], {"as_of": as_of})
    return int(count)


def _name_backdated(database: db.Database, known: headfile.Reader, found: Findings) -> None:
    """Name the events that claim to be as old as the checkpoint and are beyond its heads.

    The heads go into a file of SQLite's own, which it removes: a dictionary of them would grow with the trail.
    """
    with closing(sqlite3.connect("")) as heads, database.snapshot() as connection:
        heads.execute("CREATE TABLE heads (appointment_id TEXT PRIMARY KEY, appointment_seq INTEGER) WITHOUT ROWID")
        heads.executemany("INSERT INTO heads VALUES (?, ?)", (head[:2] for head in known.heads()))
        lookup = "SELECT appointment_seq FROM heads WHERE appointment_id = ?"
        as_of = known.header.as_of
        for appointment_id, appointment_seq, seq in _rows(connection, _OLD[connection.dialect.name], {"as_of": as_of}):
            head = heads.execute(lookup, (_bindable(appointment_id),)).fetchone()
            if head is None or not isinstance(appointment_seq, int) or appointment_seq > head[0]:
                what = f"it claims to be recorded by {as_of}, but the checkpoint of that moment does not have it"
                place = {"appointment_id": appointment_id, "appointment_seq": appointment_seq, "seq": seq}
                found.add(FindingKind.BACKDATED, what, **place)


def _bindable(value: object) -> object:
    """Give a value as SQLite takes it: a text that is none is in no checkpoint."""
    return value.encode("utf-8", "surrogateescape").decode("utf-8", "replace") if isinstance(value, str) else value


_EVENTS: Final = models.audit_events.name
_HEADS: Final = f"""
    SELECT head.appointment_id, head.appointment_seq, head.hash FROM (
      SELECT appointment_id, max(appointment_seq) AS appointment_seq FROM {_EVENTS} GROUP BY appointment_id
    ) last JOIN {_EVENTS} head
      ON head.appointment_id = last.appointment_id AND head.appointment_seq = last.appointment_seq
    """  # noqa: S608 # constants
_INSTANT: Final = {"sqlite": ":as_of", "postgresql": "CAST(:as_of AS timestamptz)"}
_UNTIL: Final = {
    dialect: f"SELECT count(*) FROM {_EVENTS} WHERE recorded_at <= {instant}"  # noqa: S608 # constants
    for dialect, instant in _INSTANT.items()
}
_OLD: Final = {
    dialect: f"SELECT appointment_id, appointment_seq, seq FROM {_EVENTS} WHERE recorded_at <= {instant}"  # noqa: S608 # constants
    for dialect, instant in _INSTANT.items()
}
_THOSE: Final = {
    "sqlite": f"""
    SELECT e.appointment_id, e.appointment_seq, e.hash, e.seq FROM json_each(:heads) h CROSS JOIN {_EVENTS} e
      ON e.appointment_id = json_extract(h.value, '$[0]') AND e.appointment_seq = json_extract(h.value, '$[1]')
    """,  # noqa: S608 # constants
    "postgresql": f"""
    SELECT e.appointment_id, e.appointment_seq, e.hash, e.seq
    FROM json_array_elements(CAST(:heads AS json)) h JOIN {_EVENTS} e
      ON e.appointment_id = h ->> 0 AND e.appointment_seq = CAST(h ->> 1 AS bigint)
    """,  # noqa: S608 # constants
}
_ENDS: Final = {
    "sqlite": f"""
    SELECT appointment_id, max(appointment_seq), max(seq) FROM {_EVENTS}
    WHERE appointment_id IN (SELECT value FROM json_each(:ids)) GROUP BY appointment_id
    """,  # noqa: S608 # constants
    "postgresql": f"""
    SELECT appointment_id, max(appointment_seq), max(seq) FROM {_EVENTS}
    WHERE appointment_id IN (SELECT json_array_elements_text(CAST(:ids AS json))) GROUP BY appointment_id
    """,  # noqa: S608 # constants
}
_IS_REPLICA: Final = sa.select(sa.func.pg_is_in_recovery())
_RUNNING: Final = sa.text(
    """
    SELECT l.virtualxid AS name, a.xact_start AS began
    FROM pg_stat_activity a JOIN pg_locks l ON l.pid = a.pid AND l.locktype = 'virtualxid' AND l.granted
    WHERE a.datid = (SELECT oid FROM pg_database WHERE datname = current_database()) AND a.pid <> pg_backend_pid()
      AND l.virtualxid = l.virtualtransaction
      AND coalesce(a.backend_type, '') NOT IN ('autovacuum worker', 'walsender')
    """
)
