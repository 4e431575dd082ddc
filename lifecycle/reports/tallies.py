"""The audit events of a window, counted: what happened, how long statuses had stood, how long calls took.

PostgreSQL groups by hashing, on several cores. SQLite sorts for every GROUP BY, and making Python values of its columns
costs more than finding them: there each event becomes one text, and this process counts equal texts at C speed.
Memory grows with how many moves there are (8 bytes each), not with the events.
"""

from __future__ import annotations

import json
import sqlite3
from array import array
from collections import Counter, defaultdict
from dataclasses import dataclass
from datetime import date, datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import sqlalchemy as sa

from lifecycle import views
from lifecycle.columns import UtcDateTime
from lifecycle.reports import filters as filtering
from lifecycle.reports import quantiles, selection

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from lifecycle.reports.filters import Filters
    from lifecycle.reports.quantiles import Spread

MOST_LISTED: Final = 20
"""Lists of single appointments and commands have so many rows at most."""

_CHUNK: Final = 10_000
"""Rows fetched at a time: a few megabytes."""


class Step(NamedTuple):
    """What is the same for the events that are counted together. `day` is UTC.

    `why` is the reason code of a refusal or rejection, or the reason type of a cancellation, else None; `resolution`
    the outcome of a command that a human settled, else None.
    """

    day: date
    event: str
    command: str | None
    from_status: str | None
    to_status: str
    why: str | None
    resolution: str | None


class Move(NamedTuple):
    """A kind of move, as in `views`. `command` None: Zocdoc or the provider did it."""

    from_status: str
    to_status: str
    command: str | None
    conforming: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call of Zocdoc: how long the answer, or its loss, took."""

    appointment_id: str
    command: str
    event: str
    reason_code: str | None
    duration_ms: int
    recorded_at: datetime


def steps(connection: sa.Connection, filters: Filters) -> Mapping[Step, int]:
    """Count the events that the filters choose."""
    if _is_sqlite(connection):
        found: Counter[tuple[str]] = Counter()
        text = f"SELECT json_array(substr(recorded_at, 1, 10), {_STEP}) FROM {views.EVENTS} {where(filters)}"  # noqa: S608 # constants
        for chunk in chunks(connection, text, filters):
            found.update(chunk)
        return {_step(*json.loads(key)): number for (key,), number in found.items()}
    day = "CAST(recorded_at AT TIME ZONE 'UTC' AS date)"
    text = f"SELECT {day}, {_STEP}, count(*) FROM {views.EVENTS} {where(filters)} GROUP BY 1, 2, 3, 4, 5, 6, 7"  # noqa: S608 # constants
    return {Step(*row[:7]): row[7] for chunk in chunks(connection, text, filters) for row in chunk}


def moves(connection: sa.Connection, filters: Filters) -> Mapping[Move, Spread]:
    """Tell for each kind of move how often it was made, and how long the status before had stood, in seconds."""
    if not _is_sqlite(connection):
        rows = connection.execute(selection.rows(views.transitions, filters, dialect="postgresql"))
        return {Move(*row[:4]): quantiles.Spread(*row[4:]) for row in rows}
    stood: defaultdict[tuple[Any, ...], array[float]] = defaultdict(lambda: array("d"))
    text = f"{_MOVES} {where(filters, 'appointment_seq > 1', _MOVED)}"
    read = datetime.fromisoformat
    for chunk in chunks(connection, text, filters):
        for *kind, since, until in chunk:
            stood[tuple(kind)].append((read(until) - read(since)).total_seconds())
    return {
        Move(source, target, command, bool(conforming)): quantiles.spread(seconds)
        for (source, target, command, conforming), seconds in stood.items()
    }


def calls(connection: sa.Connection, filters: Filters) -> Mapping[str, Spread]:
    """Tell for each command how many calls there were and how long they took, in milliseconds."""
    condition = where(filters, "duration_ms IS NOT NULL")
    text = f"SELECT command, duration_ms, count(*) FROM {views.EVENTS} {condition} GROUP BY command, duration_ms"  # noqa: S608 # constants
    if _is_sqlite(connection):
        text = f"SELECT command, duration_ms FROM {views.EVENTS} {condition}"  # noqa: S608 # constants
    found: Counter[tuple[str, int]] = Counter()
    for chunk in chunks(connection, text, filters):
        found.update(chunk if _is_sqlite(connection) else {row[:2]: row[2] for row in chunk})
    durations: defaultdict[str, dict[int, int]] = defaultdict(dict)
    for (command, duration), number in found.items():
        durations[command][duration] = number
    return {command: quantiles.spread_of_counts(counts) for command, counts in durations.items()}


def slowest_calls(connection: sa.Connection, filters: Filters) -> tuple[Call, ...]:
    """List the calls that took longest, the slowest first."""
    order = f"ORDER BY duration_ms DESC, seq LIMIT {MOST_LISTED}"
    text = sa.text(f"{_CALLS} {where(filters, 'duration_ms IS NOT NULL')} {order}")
    typed = text.bindparams(*filtering.where(filters)[1]).columns(recorded_at=UtcDateTime())
    return tuple(Call(**row) for row in connection.execute(typed).mappings())


def where(filters: Filters, *conditions: str) -> str:
    """Write a WHERE with these conditions and the filters', whose values `chunks` binds."""
    texts = [*conditions, *filtering.where(filters)[0]]
    return f"WHERE {' AND '.join(texts)}" if texts else ""


def chunks(connection: sa.Connection, text: str, filters: Filters) -> Iterator[list[tuple[Any, ...]]]:
    """Run a statement with the filters' values bound, and give the rows as the driver has them, many at a time.

    SQLAlchemy's own rows would cost as much as the counting. What the driver raises is made SQLAlchemy's.
    """
    result = connection.execute(sa.text(text).bindparams(*filtering.where(filters)[1]))
    cursor: Any = result.cursor
    try:
        while chunk := cursor.fetchmany(_CHUNK):
            yield chunk
    except sqlite3.Error as error:
        raise sa.exc.DBAPIError(None, None, error) from None
    finally:
        result.close()


def instant(value: datetime | str) -> datetime:
    """Read an instant as a driver gives it: SQLite's is text."""
    return datetime.fromisoformat(value) if isinstance(value, str) else value


def _is_sqlite(connection: sa.Connection) -> bool:
    return connection.dialect.name == "sqlite"


def _step(day: str, *rest: Any) -> Step:  # noqa: ANN401 # the other columns
    return Step(date.fromisoformat(day), *rest)


_STEP: Final = """event, command, from_status, to_status, CASE
  WHEN event IN ('command_refused', 'command_rejected') THEN reason_code
  WHEN to_status = 'cancelled' AND from_status <> 'cancelled' THEN reason_type END,
  CASE event WHEN 'command_resolved' THEN outcome END"""
_MOVES: Final = (
    f"SELECT from_status, to_status, command, conforming, from_status_since, recorded_at FROM {views.EVENTS}"  # noqa: S608 # constants
)
# As HAS_NEW_START in `views`; most events have no details, and then JSON need not be read.
_MOVED: Final = """CASE WHEN from_status <> to_status THEN 1 WHEN details = '{}' THEN 0
  ELSE json_extract(details, '$.start_time') IS NOT NULL END"""
_CALLS: Final = f"SELECT appointment_id, command, event, reason_code, duration_ms, recorded_at FROM {views.EVENTS}"  # noqa: S608 # constants
