"""What is looked up beside the one pass over a window's events: few rows each, found by an index."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from heapq import nlargest
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa

from lifecycle import models, views
from lifecycle.columns import UtcDateTime
from lifecycle.reports import tallies
from lifecycle.reports.tallies import MOST_LISTED

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from datetime import date, datetime

    from lifecycle.reports.filters import Filters

RECOVERED: Final = "recovered"
RESOLVED: Final = "resolved"
ATTENTION: Final = "attention"
WAITING: Final = "waiting"
"""What became of a command that lost an answer: reading settled it, a human did, a human is to, or it is being read."""

_SETTLED: Final = ("applied", "rejected", "not_sent")


@dataclass(frozen=True, slots=True, kw_only=True)
class Lost:
    """A command that lost an answer and was settled all the same: how long that took, from accepted to ended."""

    command_id: str
    appointment_id: str
    command: str
    state: str
    reason_code: str | None
    accepted_at: datetime
    seconds: float


@dataclass(frozen=True, slots=True)
class Losses:
    """The commands that lost an answer in the window, by what became of them, and those that took longest to settle."""

    fates: Mapping[str, int]
    by_command: Mapping[str, Mapping[str, int]]
    longest: tuple[Lost, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Doubt:
    """An appointment in doubt now: which command's outcome is not known, since when, and whether a human is needed."""

    appointment_id: str
    status: str
    command: str
    command_id: str
    state: str
    reason_code: str | None
    since: datetime
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """An appointment that still waits for its confirmation, since it was booked (if not told: tracked)."""

    appointment_id: str
    provider_location_id: str | None
    since: datetime
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Now:
    """What stands now, whatever the window; the lists are the longest `MOST_LISTED`."""

    in_doubt: int
    attention: int
    waiting: int
    doubts: tuple[Doubt, ...]
    longest_waiting: tuple[Waiting, ...]


def environment(connection: sa.Connection) -> str | None:
    """Tell the Zocdoc environment that the database belongs to; None: nobody has used it yet."""
    found: str | None = connection.execute(sa.select(models.installation.c.zocdoc_environment)).scalar()
    return found


def events(connection: sa.Connection, filters: Filters) -> Counter[tuple[str, str | None]]:
    """Count the events of the window by event, those of `command_resolved` by outcome too."""
    column = _column("event", filters)
    plain = f"SELECT event, NULL, count(*) FROM {views.EVENTS} {tallies.where(filters, _COUNTED.format(column))}"  # noqa: S608 # constants
    resolved = tallies.where(filters, f"{column} = 'command_resolved'")
    by_outcome = f"SELECT event, outcome, count(*) FROM {views.EVENTS} {resolved}"  # noqa: S608 # constants
    text = f"{plain} GROUP BY event UNION ALL {by_outcome} GROUP BY event, outcome"
    return Counter({(row[0], row[1]): row[2] for chunk in tallies.chunks(connection, text, filters) for row in chunk})


def entered(connection: sa.Connection, filters: Filters, statuses: Sequence[str]) -> dict[str, int]:
    """Count how many appointments came to each of these statuses from another one."""
    listed = ", ".join(repr(status) for status in statuses)
    conditions = (f"{_column('to_status', filters)} IN ({listed})", "from_status <> to_status")
    text = f"SELECT to_status, count(*) FROM {views.EVENTS} {tallies.where(filters, *conditions)} GROUP BY to_status"  # noqa: S608 # constants
    return {status: number for chunk in tallies.chunks(connection, text, filters) for status, number in chunk}


def lost(connection: sa.Connection, filters: Filters) -> Losses:
    """Look at the commands that lost an answer in the window, as they stand now."""
    fates: Counter[str] = Counter()
    by_command: dict[str, Counter[str]] = {}
    longest: list[Lost] = []
    condition = tallies.where(filters, f"{_column('event', filters)} = 'outcome_lost'")
    text = _LOST.format(lost=f"SELECT DISTINCT command_id FROM {views.EVENTS} {condition}")  # noqa: S608 # constants
    for chunk in tallies.chunks(connection, text, filters):
        for command, state, was_attended, *_ in chunk:
            fate = _fate(state, was_attended=bool(was_attended))
            fates[fate] += 1
            by_command.setdefault(command, Counter())[fate] += 1
        settled = [_settled(*row) for row in chunk if row[1] in _SETTLED]
        longest = nlargest(MOST_LISTED, [*longest, *settled], key=lambda it: it.seconds)
    return Losses(fates, by_command, tuple(longest))


def confirmations(connection: sa.Connection, filters: Filters) -> Iterator[tuple[date, float]]:
    """Iterate over the first confirmations of bookings in the window: the day, UTC, and the seconds since the booking.

    Less than nothing, which two clocks can make, is nothing.
    """
    chosen = tallies.where(filters, f"{_column('to_status', filters)} = 'confirmed'", "from_status = 'pending_booking'")
    text = _CONFIRMATIONS.format(chosen=f"SELECT * FROM {views.EVENTS} {chosen}")  # noqa: S608 # constants
    for chunk in tallies.chunks(connection, text, filters):
        for recorded_at, booked_at in chunk:
            recorded = tallies.instant(recorded_at)
            yield recorded.date(), max((recorded - tallies.instant(booked_at)).total_seconds(), 0.0)


def now(connection: sa.Connection, filters: Filters, *, at: datetime) -> Now:
    """Tell what stands now, for the appointment and the location that the filters name."""
    of = _standing(filters)
    doubtful = sa.select(sa.func.count()).where(_IN_DOUBT, *of).select_from(_appointments)
    waiting = sa.select(sa.func.count()).where(_IS_WAITING, *of)
    attention = (
        sa.select(sa.func.count())
        .select_from(_commands.join(_appointments))
        .where(models.state_in(models.CommandState.NEEDS_ATTENTION), *of)
    )
    return Now(
        in_doubt=connection.execute(doubtful).scalar_one(),
        attention=connection.execute(attention).scalar_one(),
        waiting=connection.execute(waiting).scalar_one(),
        doubts=tuple(_lasting(Doubt, row, at) for row in connection.execute(_DOUBTS.where(*of)).mappings()),
        longest_waiting=tuple(_lasting(Waiting, row, at) for row in connection.execute(_WAITING.where(*of)).mappings()),
    )


def _column(name: str, filters: Filters) -> str:
    """Name a column whose index serves a window, but not where another filter chooses fewer events.

    SQLite keeps no statistics here and would take the wrong one; with a `+` it does not use the index. PostgreSQL knows
    better, and the `||` of nothing costs it nothing.
    """
    others = filters.given.keys() - {"since", "until", "as_of"}
    return f"({name} || '')" if others else name


def _standing(filters: Filters) -> list[sa.ColumnElement[bool]]:
    given = filters.given
    return [
        _appointments.c[name] == given[name] for name in ("appointment_id", "provider_location_id") if name in given
    ]


def _fate(state: str, *, was_attended: bool) -> str:
    if state in _SETTLED:
        return RESOLVED if was_attended else RECOVERED
    return ATTENTION if state == "needs_attention" else WAITING


def _settled(command: str, state: str, *facts: Any) -> Lost:  # noqa: ANN401 # a row
    _, command_id, appointment_id, reason_code, accepted_at, ended_at = facts
    accepted = tallies.instant(accepted_at)
    return Lost(
        command_id=command_id,
        appointment_id=appointment_id,
        command=command,
        state=state,
        reason_code=reason_code,
        accepted_at=accepted,
        seconds=(tallies.instant(ended_at) - accepted).total_seconds(),
    )


def _lasting(kind: Any, row: Mapping[Any, Any], at: datetime) -> Any:  # noqa: ANN401 # Doubt or Waiting
    return kind(**row, seconds=max((at - row["since"]).total_seconds(), 0.0))


_appointments, _commands, _events = models.appointments, models.commands, models.audit_events
_IN_DOUBT: Final = sa.text("lifecycle_appointments.in_doubt")  # word for word, or SQLite does not see the partial index
_COUNTED: Final = (
    "{} IN ('appointment_tracked', 'command_accepted', 'command_applied', 'arrival_marked', 'command_refused',"
    " 'command_rejected', 'command_not_sent')"
)
_LOST: Final = """
SELECT c.command, c.state, EXISTS (
    SELECT 1 FROM lifecycle_audit_events x WHERE x.command_id = c.command_id AND x.event || '' = 'attention_needed'
  ) AS was_attended, c.command_id, c.appointment_id, c.reason_code, c.created_at, c.ended_at
FROM ({lost}) l JOIN lifecycle_commands c ON c.command_id = l.command_id
"""
# While an appointment has stood in its status since it was tracked, nothing can have confirmed it before.
_CONFIRMATIONS: Final = """
SELECT e.recorded_at, coalesce(a.booked_at, a.tracked_at) AS booked
FROM ({chosen}) e JOIN lifecycle_appointments a ON a.appointment_id = e.appointment_id
WHERE e.from_status_since = a.tracked_at OR NOT EXISTS (
  SELECT 1 FROM lifecycle_audit_events x WHERE x.appointment_id = e.appointment_id
    AND x.appointment_seq < e.appointment_seq AND x.to_status = 'confirmed' AND x.from_status = 'pending_booking'
)
"""
_IS_WAITING: Final = _appointments.c.status == "pending_booking"
_booked: Final = sa.func.coalesce(_appointments.c.booked_at, _appointments.c.tracked_at, type_=UtcDateTime())
_WAITING: Final = (
    sa.select(_appointments.c.appointment_id, _appointments.c.provider_location_id, _booked.label("since"))
    .where(_IS_WAITING)
    .order_by(sa.literal_column("since"), _appointments.c.appointment_id)
    .limit(MOST_LISTED)
)
_last_loss: Final = (
    sa.select(sa.func.max(_events.c.recorded_at))
    .where(_events.c.command_id == _commands.c.command_id, _events.c.event.concat("") == "outcome_lost")
    .correlate(_commands)
    .scalar_subquery()
)
_DOUBTS: Final = (
    sa.select(
        _appointments.c.appointment_id,
        _appointments.c.status,
        _commands.c.command,
        _commands.c.command_id,
        _commands.c.state,
        _commands.c.reason_code,
        sa.func.coalesce(_last_loss, _commands.c.created_at, type_=UtcDateTime()).label("since"),
    )
    .join_from(_appointments, _commands)
    .where(_IN_DOUBT, models.state_in(models.CommandState.UNCERTAIN, models.CommandState.NEEDS_ATTENTION))
    .order_by(sa.literal_column("since"), _commands.c.command_id)
    .limit(MOST_LISTED)
)
