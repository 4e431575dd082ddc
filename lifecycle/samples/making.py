"""Making the rows of many appointments, in order of time, a chunk at a time; many in a process of their own.

Memory is flat: beside a chunk, only what follows the bookings of the chunk is kept, which is some days' worth.
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
from lifecycle.samples import drawing, plans, scribe
from lifecycle.samples.chances import generator

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import sqlalchemy as sa

Rows = list[tuple[Any, ...]]

BORN_IN_A_CHUNK: Final = 4_000
"""Appointments of a chunk: 15,000 events, half a second's work, and a transaction that any database takes."""

FEW: Final = 20_000
"""Appointments up to which neither a second process nor building indexes afterwards is worth it."""

TABLES: Final = (models.appointments, models.batches, models.commands, models.webhook_deliveries, models.audit_events)
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


class _Later(NamedTuple):
    """A row that may have to wait for those of appointments that are booked later; sorts by time, then by booking."""

    at: str
    number: int
    place: int
    row: tuple[Any, ...]


class _Waiting:
    """Rows that wait, and the batches that they belong to, of which nobody knows yet how large they will be."""

    def __init__(self) -> None:
        self.rows: dict[str, list[_Later]] = {name: [] for name in _TIME}
        self.batches: dict[str, dict[str, Any]] = {}

    def numbered(self, command: dict[str, Any], batches: Mapping[str, plans.Batch]) -> dict[str, Any]:
        """Give a command of a batch the next number in it."""
        batch = batches.get(command["batch_id"])
        if batch is None:
            return command
        row = self.batches.setdefault(batch.batch_id, _batch(batch))
        row["total"] += 1
        return {**command, "batch_row": row["total"]}

    def add(self, table: sa.Table, values: dict[str, Any], number: int, place: int) -> None:
        """Keep a row until nothing can come before it."""
        row = _row(table, values)
        self.rows[table.name].append(_Later(row[_TIME[table.name]], number, place, row))

    def taken(self, before: str) -> Iterator[tuple[str, Rows]]:
        """Give, by table, the rows of which nobody who books later can have earlier ones."""
        closed = [each for each in self.batches.values() if columns.utc_text(each["created_at"]) < before]
        closed.sort(key=itemgetter("created_at", "batch_id"))
        for each in closed:
            del self.batches[each["batch_id"]]
        yield models.batches.name, [_row(models.batches, each) for each in closed]
        for name, rows in self.rows.items():
            rows.sort()
            count = next((place for place, each in enumerate(rows) if each.at >= before), len(rows))
            yield name, [each.row for each in rows[:count]]
            del rows[:count]


class Chunk(NamedTuple):
    """Rows that follow those of the chunk before, by table: tuples of `NAMES`, values as SQLite stores them.

    `booked` counts the bookings, of which some are not known here at the end.
    """

    booked: int
    rows: dict[str, Rows]


def chunks(order: Order) -> Iterator[Chunk]:
    """Make the rows; the same order makes the same rows, hash for hash, on every machine and for every database."""
    ids = generator(f"{order.seed} ids")
    chunk, waiting = _empty(), _Waiting()
    drawn = drawing.plans(generator(order.seed), appointments=order.appointments, days=order.days, until=order.until)
    booked = 0
    for number, plan in enumerate(drawn):
        life = scribe.write_down(plan, until=order.until, ids=ids)
        if life is not None:
            _take(chunk, waiting, life, plan, number)
        booked += 1
        if booked == BORN_IN_A_CHUNK:
            yield _closed(chunk, waiting, booked, before=columns.utc_text(plan.booked_at))
            chunk, booked = _empty(), 0
    yield _closed(chunk, waiting, booked, before="9")


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


def _take(chunk: dict[str, Rows], waiting: _Waiting, life: scribe.Life, plan: plans.Plan, number: int) -> None:
    chunk[models.appointments.name].append(_row(models.appointments, life.appointment))
    chunk[models.webhook_deliveries.name] += [_row(models.webhook_deliveries, each) for each in life.deliveries]
    batches = {each.batch.batch_id: each.batch for each in plan.actions if isinstance(each, plans.Asked) and each.batch}
    for place, command in enumerate(life.commands):
        waiting.add(models.commands, waiting.numbered(command, batches), number, place)
    for place, event in enumerate(life.events):
        waiting.add(models.audit_events, event, number, place)


def _closed(chunk: dict[str, Rows], waiting: _Waiting, booked: int, *, before: str) -> Chunk:
    """Add what nobody who books later can be before."""
    return Chunk(booked, {**chunk, **dict(waiting.taken(before))})


def _batch(batch: plans.Batch) -> dict[str, Any]:
    return {
        "batch_id": batch.batch_id,
        "name": batch.name,
        "command": batch.command,
        "actor": batch.actor,
        "source": batch.source,
        "total": 0,
        "invalid": 0,
        "created_at": batch.at,
        "submitted_at": batch.at,
        "cancelled_at": None,
    }


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
_TIME: Final = {
    models.commands.name: NAMES[models.commands.name].index("created_at"),
    models.audit_events.name: NAMES[models.audit_events.name].index("recorded_at"),
}
"""Where the time stands by which rows are put in order, by table."""

if __name__ == "__main__":
    _given = json.loads(sys.argv[1])
    _send(Order(**{**_given, "until": datetime.fromisoformat(_given["until"]).astimezone(UTC)}), sys.stdout.buffer)
