"""What was known of an appointment at an instant, folded from its audit events."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Final

from lifecycle import audit, models, records
from lifecycle.resources import check_instant

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lifecycle.database import Database


@dataclass(frozen=True, slots=True, kw_only=True)
class AsOf:
    """An appointment as it stood here at an instant, `at`. Instants are UTC.

    `event`, `actor`, `recorded_at` and `appointment_seq` are those of the last event until then, that instant
    included. `in_doubt`: a command's outcome was lost and not settled yet.
    """

    appointment_id: str
    at: datetime
    status: str
    status_since: datetime
    start_time: datetime
    provider_location_id: str | None
    in_doubt: bool
    appointment_seq: int
    event: str
    actor: str
    recorded_at: datetime


def as_of(database: Database, appointment_id: str, at: datetime) -> AsOf | None:
    """Tell what `get` said at that instant; None: the appointment was not tracked yet.

    Raises `AppointmentNotFound` if it never was, `InvalidArgument` for an instant without an offset. Database only.
    """
    instant = check_instant("at", at)
    events = records.history(database, appointment_id, as_of=instant)
    if not events:
        return None
    last = events[-1]
    return AsOf(
        appointment_id=appointment_id,
        at=instant,
        status=last.to_status,
        status_since=_status_since(last),
        start_time=_start(events),
        provider_location_id=last.provider_location_id,
        in_doubt=_is_in_doubt(events),
        appointment_seq=last.appointment_seq,
        event=last.event,
        actor=last.actor,
        recorded_at=last.recorded_at,
    )


def _status_since(event: records.AuditEvent) -> datetime:
    if event.from_status_since is None or event.from_status != event.to_status:
        return event.recorded_at
    return event.from_status_since


def _start(events: list[records.AuditEvent]) -> datetime:
    told = next(event.details["start_time"] for event in reversed(events) if "start_time" in event.details)
    return datetime.fromisoformat(told)


def _is_in_doubt(events: Iterable[records.AuditEvent]) -> bool:
    doubtful: set[str | None] = set()
    for event in events:
        if event.event in _LOSES:
            doubtful.add(event.command_id)
        elif event.event in _SETTLES or _is_settled_late(event):
            doubtful.discard(event.command_id)
    return bool(doubtful)


def _is_settled_late(event: records.AuditEvent) -> bool:
    """Tell whether an answer came after all to a command that was in doubt."""
    if event.event != audit.Event.LATE_ANSWER_RECEIVED:
        return False
    settled_as = event.details["settled_as"]
    if settled_as == models.CommandState.NEEDS_ATTENTION:
        return event.outcome != "unknown"
    # A yes to an earlier attempt settles the command, whatever becomes of a later one.
    return settled_as == models.CommandState.UNCERTAIN and event.outcome == "applied"


_LOSES: Final = {audit.Event.OUTCOME_LOST, audit.Event.ATTENTION_NEEDED}
_SETTLES: Final = {
    audit.Event.COMMAND_APPLIED,
    audit.Event.ARRIVAL_MARKED,
    audit.Event.COMMAND_REJECTED,
    audit.Event.COMMAND_NOT_SENT,
    audit.Event.COMMAND_REQUEUED,
    audit.Event.COMMAND_RESOLVED,
    audit.Event.COMMAND_RETRIED,
}
