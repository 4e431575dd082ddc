"""The event feed: every audit event of the database in order of `seq`, resumable after any of them, none left out.

SQLite has one writer at a time: `seq` is taken under the write lock and given back by a rollback, so events become
visible in its order. PostgreSQL takes `seq` before the commit, so a lower one may become visible after a higher one.
There, events up to the first gap in `seq` are safe, because nobody can come between them. To pass a gap, the feed looks
for the transactions that may still fill it: an insert takes the table's lock (ROW EXCLUSIVE, which blocks no reader and
no writer) before its `seq` and holds it until its end. When those that held it after the page was read have
ended, what they committed is visible, and the page is read again up to where it ended.

Not by comparing snapshots: `pg_snapshot_xmax` is one past the highest transaction id that has *completed*, so a running
transaction that holds a lower `seq` may be beyond it; and every long transaction in the cluster would hold up the feed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa

from lifecycle import errors, models, records, writers

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from lifecycle.database import Database

_PAGE: Final = 500
"""Events read at a time: no transaction stays open while the caller works on them."""

_LAST: Final = 2**63 - 1
"""The largest `seq` that either database can hold."""

_DIGITS: Final = 16
"""Of an event's hash in its cursor: enough to tell databases apart."""


def events(database: Database, *, after: str | None, limit: int | None) -> Iterator[FeedEvent]:
    """Iterate over the events after a cursor, up to what is safe to deliver now; at most `limit`.

    Raises `InvalidArgument` for a cursor that is none or not of this database, `ConfigurationError` on a read replica
    or with a sequence that hands out numbers out of order. Never waits longer than a second for a page.
    """
    if limit is not None and (not isinstance(limit, int) or limit < 1):
        raise errors.InvalidArgument(argument="limit", problem="a whole number from 1 is needed, or None for no limit")
    place = None if after is None else _parsed(after)
    with database.read() as connection:
        _check_orderly(database, connection)
        start = 0 if place is None else _found(connection, *place)
    return _follow(database, start, limit)


def end(database: Database) -> str | None:
    """Give the cursor of the newest event, to follow from now on; None, from the beginning, if there is no event.

    Raises `DatabaseUnavailable` if a transaction that may still append an earlier event does not end in time.
    """
    with database.read() as connection:
        _check_orderly(database, connection)
        newest = connection.execute(_NEWEST).one_or_none()
    if newest is None:
        return None
    if database.is_postgres and not writers.have_ended(database):
        problem = "a transaction that appends audit events has been open for too long; end it, or call again"
        raise errors.DatabaseUnavailable(problem=problem, is_transient=True)
    return _cursor(newest.seq, newest.hash)


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedEvent(records.AuditEvent):
    """An audit event with its `cursor`: opaque, durable text to resume after it."""

    cursor: str

    @classmethod
    def of(cls, row: Mapping[Any, Any]) -> FeedEvent:
        """Make the record of a row."""
        return cls(cursor=_cursor(row["seq"], row["hash"]), **{name: row[name] for name in _EVENT_FIELDS})


def _follow(database: Database, seq: int, limit: int | None) -> Iterator[FeedEvent]:
    left = limit
    while left is None or left > 0:
        size = _PAGE if left is None else min(_PAGE, left)
        rows = _safe_page(database, seq, size)
        yield from map(FeedEvent.of, rows)
        if len(rows) < size:
            return
        seq = rows[-1]["seq"]
        left = None if left is None else left - size


def _safe_page(database: Database, after: int, size: int) -> Sequence[sa.RowMapping]:
    """Read the next events that no earlier one can follow any more; fewer than `size`: there are no more now."""
    rows = _page(database, after, size)
    if not database.is_postgres or not rows or rows[-1]["seq"] == after + len(rows):
        return rows
    if writers.have_ended(database):
        return _page(database, after, size, up_to=rows[-1]["seq"])
    return [row for place, row in enumerate(rows, after + 1) if row["seq"] == place]


def _page(database: Database, after: int, size: int, *, up_to: int = _LAST) -> Sequence[sa.RowMapping]:
    with database.read() as connection:
        return connection.execute(_EVENTS, {"after": after, "up_to": up_to, "size": size}).mappings().all()


def _check_orderly(database: Database, connection: sa.Connection) -> None:
    if not database.is_postgres:
        return
    server = connection.execute(_SERVER).one()
    if server.is_replica:
        problem = "a read replica does not show which transactions are running; read the feed from the primary"
        raise errors.ConfigurationError(problem=problem)
    if server.is_cached:
        problem = "the sequence of lifecycle_audit_events.seq hands out numbers out of order; alter it to CACHE 1"
        raise errors.ConfigurationError(problem=problem)


def _cursor(seq: int, digest: str) -> str:
    return f"v1-{seq}-{digest[:_DIGITS]}"


def _parsed(cursor: str) -> tuple[int, str]:
    match = _CURSOR.fullmatch(cursor) if isinstance(cursor, str) else None
    if match is None:
        problem = "this is no cursor of the feed; pass one as an event gave it, or none to begin with the first event"
        raise errors.InvalidArgument(argument="after", problem=problem)
    return int(match[1]), match[2]


def _found(connection: sa.Connection, seq: int, digits: str) -> int:
    stored = connection.execute(_HASH, {"seq": seq}).scalar()
    if stored is None or not stored.startswith(digits):
        problem = (
            "the event of this cursor is not in this database: it is of another one, or of a time that a restored "
            "backup does not have; check the database, or begin again without a cursor"
        )
        raise errors.InvalidArgument(argument="after", problem=problem)
    return seq


_events = models.audit_events
_EVENT_FIELDS: Final = tuple(field.name for field in fields(records.AuditEvent))
_CURSOR: Final = re.compile(rf"v1-([1-9][0-9]{{0,17}})-([0-9a-f]{{{_DIGITS}}})", re.ASCII)
_EVENTS: Final = (
    sa.select(_events)
    .where(_events.c.seq > sa.bindparam("after"), _events.c.seq <= sa.bindparam("up_to"))
    .order_by(_events.c.seq)
    .limit(sa.bindparam("size"))
)
_NEWEST: Final = sa.select(_events.c.seq, _events.c.hash).order_by(_events.c.seq.desc()).limit(1)
_HASH: Final = sa.select(_events.c.hash).where(_events.c.seq == sa.bindparam("seq"))
_SERVER: Final = sa.text(
    f"""
    SELECT pg_is_in_recovery() AS is_replica, EXISTS (
      SELECT FROM pg_sequence
      WHERE seqcache > 1 AND seqrelid = pg_get_serial_sequence('{_events.name}', 'seq')::regclass
    ) AS is_cached
    """  # noqa: S608 # constants
)
