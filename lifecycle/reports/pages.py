"""Pages of audit events, newest first, in either direction: a few milliseconds each, however many events there are.

Neither database is left to choose among the indexes: SQLite knows nothing about the values, and PostgreSQL takes rows
that were recorded one after the other for cheap to read, and conditions for independent. One condition leads, the one
whose events are the rarest where the page begins. It is written as a range of pairs, its column and `recorded_at`,
which its index alone can read in the order of the page; the others are hidden in functions, and only tested.

No index helps where two common conditions never meet (a source and an event of another one): so a page looks through a
limited number of events, and may then hold fewer than were asked for and still have a `next`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa

from lifecycle import columns, errors, models, records
from lifecycle.reports import filters as filtering

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from lifecycle.database import Database
    from lifecycle.reports.filters import Filters

LIMIT: Final = 100
"""Events on a page, if nobody says otherwise."""

_LARGEST: Final = 1_000
_WHILE_ITERATING: Final = 500
"""Events read at a time: no transaction stays open while the caller works on them."""

LOOKED_AT: Final = 2_500
"""How many events a page looks through at most: a few milliseconds in memory, some 30 if each is read from a disk."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EventPage:
    """Audit events, newest first. `next` is the cursor of the earlier ones, `previous` of the later ones; None: none.

    With several conditions a page looks through 2,500 events at most, so it may hold fewer than its limit, or none,
    and still have a `next`. Cursors are opaque and durable: they hold a place in the order, so nothing is skipped or
    shown twice when events are recorded between two pages.
    """

    events: tuple[records.AuditEvent, ...]
    next: str | None
    previous: str | None


def page(database: Database, filters: Filters, *, cursor: str | None = None, limit: int = LIMIT) -> EventPage:
    """Read a page of the events that the filters choose, ordered by `recorded_at` and `seq`, newest first.

    `cursor` is the `next` or `previous` of another page with the same filters; None: the newest. `limit` is 1 to 1000.
    Raises `InvalidArgument`. Database only.
    """
    if not isinstance(limit, int) or not 1 <= limit <= _LARGEST:
        raise errors.InvalidArgument(argument="limit", problem=f"a whole number from 1 to {_LARGEST} is needed")
    place = _NEWEST if cursor is None else _parsed(cursor)
    found, beyond = _read(database, filters, place, limit + 1)
    shown = tuple(map(records.AuditEvent.of, found[:limit]))
    if len(found) > limit:
        beyond = _after(found[limit - 1], place)
    back = _Place(shown[0].recorded_at, shown[0].seq, is_later=not place.is_later) if shown else _turned(place)
    if place.is_later:
        return EventPage(events=shown[::-1], next=_cursor(back), previous=_cursor(beyond))
    return EventPage(events=shown, next=_cursor(beyond), previous=None if cursor is None else _cursor(back))


def events(database: Database, filters: Filters, *, limit: int | None = None) -> Iterator[records.AuditEvent]:
    """Iterate over the events that the filters choose, newest first; at most `limit`. Memory stays flat.

    Raises `InvalidArgument`.
    """
    if limit is not None and (not isinstance(limit, int) or limit < 1):
        raise errors.InvalidArgument(argument="limit", problem="a whole number from 1 is needed, or None for no limit")
    return _iterate(database, filters, limit)


def _iterate(database: Database, filters: Filters, limit: int | None) -> Iterator[records.AuditEvent]:
    place: _Place | None = _NEWEST
    left = limit
    while place is not None and (left is None or left > 0):
        size = _WHILE_ITERATING if left is None else min(_WHILE_ITERATING, left)
        rows, beyond = _read(database, filters, place, size)
        yield from map(records.AuditEvent.of, rows)
        place = _after(rows[-1], place) if len(rows) == size else beyond
        left = None if left is None else left - len(rows)


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a page begins: after the event of this instant and `seq`, towards later or earlier ones; and until when."""

    at: datetime | None
    seq: int
    is_later: bool
    until: datetime | None = None


_NEWEST: Final = _Place(None, 0, is_later=False)


def _after(row: sa.RowMapping, place: _Place) -> _Place:
    return replace(place, at=row["recorded_at"], seq=row["seq"])


def _turned(place: _Place) -> _Place:
    """Look back from a place between two events: from there on, so that what was shown before is shown again."""
    seq = min(place.seq + 1, _LAST) if place.is_later else max(place.seq - 1, 0)
    return replace(place, seq=seq, is_later=not place.is_later)


def _read(
    database: Database, filters: Filters, place: _Place, size: int
) -> tuple[Sequence[sa.RowMapping], _Place | None]:
    """Read the next events in the direction of the place, the nearest first, and tell where it stopped looking.

    None: there are no more events that could be meant.
    """
    given = {name: value for name, value in filters.given.items() if name in _LEADS}
    with database.read() as connection:
        lead, until = _lead(connection, given, _window(filters, place), is_later=place.is_later)
        window = _window(filters, place if until is None else replace(place, until=until))
        query = sa.select(_events).where(*window.of(lead, given), *window.shown, *_others(lead, given))
        order = [column if place.is_later else column.desc() for column in (*_leading(lead), _at, _seq)]
        rows = connection.execute(query.order_by(*order).limit(size)).mappings().all()
    return rows, None if until is None else replace(place, at=until, seq=_LAST if place.is_later else 0)


def _lead(
    connection: sa.Connection, given: Mapping[str, Any], window: _Window, *, is_later: bool
) -> tuple[str | None, datetime | None]:
    """Choose the condition whose index is read, None: there is none; and until when, None: to the end.

    It is the one whose first events reach furthest, or that has not even so many; an appointment never has many.
    """
    names = [name for name in _LEADS if name in given]
    if len(names) < _CHOICE or names[0] == _OF_ONE:
        return (names[0] if names else None), None
    reach = connection.execute(sa.select(*(_probe(name, given, window, is_later=is_later) for name in names))).one()
    few = [name for name, at in zip(names, reach, strict=True) if at is None]
    if few:
        return few[0], None
    until, lead = (max if is_later else min)(zip(reach, names, strict=True))
    return lead, until


def _probe(name: str, given: Mapping[str, Any], window: _Window, *, is_later: bool) -> sa.ScalarSelect[datetime]:
    """Ask when the last of so many events was recorded, for one condition alone."""
    order = [column if is_later else column.desc() for column in (*_leading(name), _at)]
    query = sa.select(_at).where(*window.of(name, given), *window.shown).order_by(*order)
    return query.limit(1).offset(LOOKED_AT - 1).scalar_subquery()


def _leading(lead: str | None) -> tuple[sa.Column[Any], ...]:
    return () if lead in {None, _OF_ONE} else (_COLUMNS[lead],)


def _others(lead: str | None, given: Mapping[str, Any]) -> list[sa.ColumnElement[bool]]:
    """Test the other conditions; PostgreSQL expects half of the events to pass such a test, and reads in order."""
    hidden = {name: value for name, value in given.items() if name != lead}
    return [sa.func.coalesce(_COLUMNS[name] == value, sa.false()) for name, value in hidden.items()]


@dataclass(frozen=True, slots=True)
class _Window:
    """Between which instants, and without the events that were shown."""

    lower: datetime
    upper: datetime
    is_inclusive: bool
    shown: tuple[sa.ColumnElement[bool], ...]

    def of(self, lead: str | None, given: Mapping[str, Any]) -> list[sa.ColumnElement[bool]]:
        """Write the range so that the index of this condition, and no other, has it in the order of the page."""
        if lead is None:
            return [_at >= self.lower, _at <= self.upper if self.is_inclusive else _at < self.upper]
        column, value = _COLUMNS[lead], given[lead]
        if lead == _OF_ONE:
            # The index of its events does not hold the instants, and no other one is to be used for them.
            late = sa.func.coalesce(_at <= self.upper if self.is_inclusive else _at < self.upper, sa.false())
            return [column == value, sa.func.coalesce(_at >= self.lower, sa.false()), late]
        pair, low, high = (
            sa.tuple_(column, _at),
            sa.tuple_(sa.literal(value, column.type), sa.literal(self.lower, _at.type)),
            sa.tuple_(sa.literal(value, column.type), sa.literal(self.upper, _at.type)),
        )
        return [column.is_not(None), pair >= low, pair <= high if self.is_inclusive else pair < high]


def _window(filters: Filters, place: _Place) -> _Window:
    """Give one lower and one upper bound, the tightest of each: SQLite would use just any of several."""
    near, far = (place.at, place.until) if place.is_later else (place.until, place.at)
    lower = max(at for at in (_FIRST, filters.since, near) if at)
    ends = [(at, True) for at in (_NEVER, filters.as_of, far) if at]
    upper, is_inclusive = min([*ends, (filters.until, False)] if filters.until else ends)
    shown: tuple[sa.ColumnElement[bool], ...] = ()
    if place.at is not None:
        shown = (sa.not_(sa.and_(_at == place.at, _seq <= place.seq if place.is_later else _seq >= place.seq)),)
    return _Window(lower, upper, is_inclusive, shown)


def _cursor(place: _Place | None) -> str | None:
    if place is None or place.at is None:
        return None
    digits = columns.utc_text(place.at).translate(_WITHOUT_SIGNS)
    return f"v1-{_LATER if place.is_later else _EARLIER}-{digits}-{place.seq}"


def _parsed(cursor: str) -> _Place:
    match = _CURSOR.fullmatch(cursor) if isinstance(cursor, str) else None
    at = None if match is None else _instant(match[2])
    if match is None or at is None:
        problem = "this is no cursor of a page; pass one as a page gave it, or none for the newest events"
        raise errors.InvalidArgument(argument="cursor", problem=problem)
    return _Place(at, int(match[3]), is_later=match[1] == _LATER)


def _instant(digits: str) -> datetime | None:
    try:
        return datetime.strptime(digits, "%Y%m%dT%H%M%S%fZ").replace(tzinfo=UTC)
    except ValueError:  # a 13th month
        return None


_events = models.audit_events
_at, _seq = _events.c.recorded_at, _events.c.seq
_FIRST: Final = datetime.min.replace(tzinfo=UTC)
_NEVER: Final = datetime.max.replace(tzinfo=UTC)
_LAST: Final = 10**18 - 1
"""Beyond every `seq`."""

_CHOICE: Final = 2
_OF_ONE: Final = "appointment_id"
_LEADS: Final = (
    _OF_ONE,
    "provider_location_id",
    "actor",
    "outcome",
    "command",
    "status",
    "event",
    "source",
)
"""The conditions that have an index, the usually rarest first."""

_COLUMNS: Final = {name: _events.c[column] for name, (column, _) in filtering.COMPARISONS.items()}
_EARLIER: Final = "earlier"
_LATER: Final = "later"
_CURSOR: Final = re.compile(rf"v1-({_EARLIER}|{_LATER})-([0-9]{{8}}T[0-9]{{12}}Z)-([0-9]{{1,18}})")
_WITHOUT_SIGNS: Final = str.maketrans("", "", "-:.")
