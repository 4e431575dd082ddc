"""Making the rows of many appointments, in order of time, a chunk at a time; many in a process of their own.

Memory is flat: beside a chunk, only the events are kept that follow the bookings of the chunk, which is some days'
worth.
"""

from __future__ import annotations

import gc
import json
import marshal
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from operator import itemgetter
from typing import TYPE_CHECKING, Any, BinaryIO, Final, NamedTuple

from lifecycle import columns, errors, models
from lifecycle.samples import drawing, scribe
from lifecycle.samples.chances import generator

if TYPE_CHECKING:
    from collections.abc import Iterator

    import sqlalchemy as sa

Rows = list[tuple[Any, ...]]

BORN_IN_A_CHUNK: Final = 4_000
"""Appointments of a chunk: 15,000 events, half a second's work, and a transaction that any database takes."""

FEW: Final = 20_000
"""Appointments up to which neither a second process nor building indexes afterwards is worth it."""

TABLES: Final = (models.appointments, models.commands, models.webhook_deliveries, models.audit_events)
"""In the order in which foreign keys let them be written."""

NAMES: Final = {
    str(table.name): tuple(column.name for column in table.columns if column.name != models.audit_events.c.seq.name)
    for table in TABLES
}
"""The columns of a row, by table; the database gives `seq`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What is to be made: so many appointments, booked in so many days before `until` (UTC)."""

    appointments: int
    seed: int
    days: int
    until: datetime

    @property
    def begin(self) -> datetime:
        """When the first patient may book."""
        return self.until - timedelta(days=self.days)

    def __post_init__(self) -> None:
        """Refuse what cannot be made. Raises `InvalidArgument`."""
        for name, most in (("appointments", 100_000_000), ("days", 3660)):
            if not 1 <= getattr(self, name) <= most:
                raise errors.InvalidArgument(argument=name, problem=f"a number from 1 to {most:,} is needed")
        if self.until.utcoffset() != timedelta(0):
            raise errors.InvalidArgument(argument="until", problem="an instant in UTC is needed")


class Chunk(NamedTuple):
    """Rows that follow those of the chunk before, by table: tuples of `NAMES`, values as SQLite stores them.

    `booked` counts the bookings, of which some are not known here at the end.
    """

    booked: int
    rows: dict[str, Rows]


def chunks(order: Order) -> Iterator[Chunk]:
    """Make the rows; the same order makes the same rows, hash for hash, on every machine and for every database."""
    ids = generator(f"{order.seed} ids")
    chunk, later = _empty(), list[tuple[str, int, int, tuple[Any, ...]]]()
    plans = drawing.plans(generator(order.seed), appointments=order.appointments, days=order.days, until=order.until)
    booked = 0
    for number, plan in enumerate(plans):
        life = scribe.write_down(plan, until=order.until, ids=ids)
        if life is not None:
            _take(chunk, later, life, number)
        booked += 1
        if booked == BORN_IN_A_CHUNK:
            yield _closed(chunk, later, booked, before=columns.utc_text(plan.booked_at))
            chunk, booked = _empty(), 0
    yield _closed(chunk, later, booked, before="9")


@contextmanager
def made(order: Order) -> Iterator[Iterator[Chunk]]:
    """Give the chunks of an order, made beside the caller if there are many."""
    if order.appointments <= FEW:
        yield chunks(order)
        return
    wanted = json.dumps({**asdict(order), "until": order.until.isoformat()})
    command = [sys.executable, "-m", __name__, wanted]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, start_new_session=True) as process:  # noqa: S603 # our own module
        try:
            yield _received(process)
        finally:
            process.terminate()


def _received(process: subprocess.Popen[bytes]) -> Iterator[Chunk]:
    while True:
        try:
            message: tuple[int, dict[str, Rows]] | None = marshal.load(process.stdout)  # type: ignore[arg-type] # noqa: S302 # our own process
        except (EOFError, ValueError, TypeError):
            raise ChildProcessError("the process that makes the rows has ended too early") from None
        if message is None:
            return
        yield Chunk(*message)


def _send(order: Order, pipe: BinaryIO) -> None:
    gc.set_threshold(200_000)  # millions of rows that are no garbage need not be looked through again and again
    for chunk in chunks(order):
        marshal.dump(tuple(chunk), pipe)
    marshal.dump(None, pipe)
    pipe.flush()


def _empty() -> dict[str, Rows]:
    return {name: [] for name in NAMES}


def _take(
    chunk: dict[str, Rows], later: list[tuple[str, int, int, tuple[Any, ...]]], life: scribe.Life, number: int
) -> None:
    chunk[models.appointments.name].append(_row(models.appointments, life.appointment))
    chunk[models.commands.name] += [_row(models.commands, each) for each in life.commands]
    chunk[models.webhook_deliveries.name] += [_row(models.webhook_deliveries, each) for each in life.deliveries]
    for place, event in enumerate(life.events):
        row = _row(models.audit_events, event)
        later.append((row[_RECORDED_AT], number, place, row))


def _closed(
    chunk: dict[str, Rows], later: list[tuple[str, int, int, tuple[Any, ...]]], booked: int, *, before: str
) -> Chunk:
    """Add the events of which nobody who books later can have earlier ones."""
    later.sort()
    count = next((place for place, each in enumerate(later) if each[0] >= before), len(later))
    chunk[models.audit_events.name] = [each[3] for each in later[:count]]
    del later[:count]
    return Chunk(booked, chunk)


def _row(table: sa.Table, values: dict[str, Any]) -> tuple[Any, ...]:
    return tuple([each if type(each) in _PLAIN else _stored(each) for each in _READ[table.name](values)])


def _stored(value: object) -> object:
    """Give a value as SQLite stores it; PostgreSQL reads the same text."""
    if isinstance(value, datetime):
        return _text(value)
    return (json.dumps(value) if value else "{}") if isinstance(value, dict) else str(value)


_text: Final = lru_cache(maxsize=1 << 12)(columns.utc_text)
_PLAIN: Final = frozenset({str, int, bool, type(None)})
_READ: Final = {name: itemgetter(*names) for name, names in NAMES.items()}
_RECORDED_AT: Final = NAMES[models.audit_events.name].index("recorded_at")

if __name__ == "__main__":
    _given = json.loads(sys.argv[1])
    _send(Order(**{**_given, "until": datetime.fromisoformat(_given["until"]).astimezone(UTC)}), sys.stdout.buffer)
