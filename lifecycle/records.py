"""What the database says, as frozen records; reading it never calls Zocdoc."""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa

from lifecycle import errors, models
from lifecycle.resources import check_appointment_id, check_instant, check_name

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from lifecycle.database import Database

_PAGE: Final = 500
"""Rows read at a time while iterating: no transaction stays open while the caller works on them."""


def get(database: Database, appointment_id: str) -> Appointment:
    """Read one appointment. Raises `AppointmentNotFound` if it is not tracked."""
    check_appointment_id(appointment_id)
    with database.read() as connection:
        row = connection.execute(_ONE, {"id": appointment_id}).mappings().one_or_none()
    if row is None:
        raise errors.AppointmentNotFound(appointment_id=appointment_id)
    return Appointment.of(row)


def history(database: Database, appointment_id: str, *, as_of: datetime | None = None) -> list[AuditEvent]:
    """Read an appointment's audit events, oldest first; with `as_of`, those recorded until then, that instant included.

    Raises `AppointmentNotFound` if it is not tracked, `InvalidArgument` for an instant without an offset.
    """
    check_appointment_id(appointment_id)
    if as_of is not None:
        check_instant("as_of", as_of)
    with database.read() as connection:
        rows = connection.execute(_EVENTS, {"id": appointment_id}).mappings().all()
    if not rows:
        raise errors.AppointmentNotFound(appointment_id=appointment_id)
    return [AuditEvent.of(row) for row in rows if as_of is None or row["recorded_at"] <= as_of]


def appointments(database: Database, *, status: str | None, in_doubt: bool | None) -> Iterator[Appointment]:
    """Iterate over the tracked appointments by id, filtered in SQL, a page at a time."""
    query = sa.select(_appointments).order_by(_appointments.c.appointment_id).limit(_PAGE)
    if status is not None:
        check_name("status", status)
        query = query.where(_appointments.c.status == status)
    if in_doubt is not None:
        query = query.where(_appointments.c.in_doubt if in_doubt else ~_appointments.c.in_doubt)
    last = ""
    while True:
        with database.read() as connection:
            rows = connection.execute(query.where(_appointments.c.appointment_id > last)).mappings().all()
        yield from map(Appointment.of, rows)
        if len(rows) < _PAGE:
            return
        last = rows[-1]["appointment_id"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Appointment:
    """A tracked appointment as it stands here. Instants are aware; `start_time` carries its original offset."""

    appointment_id: str
    status: str
    status_since: datetime
    status_known: bool
    version: int
    start_time: datetime
    provider_location_id: str | None
    practice_id: str | None
    visit_reason_id: str | None
    booked_with: str
    confirmation_type: str | None
    booked_at: datetime | None
    arrived_at: datetime | None
    in_doubt: bool
    remote_last_modified: datetime | None
    observed_at: datetime
    tracked_at: datetime
    updated_at: datetime

    @classmethod
    def of(cls, row: Mapping[Any, Any]) -> Appointment:
        """Make the record of a row."""
        values = {name: row[name] for name in _APPOINTMENT_FIELDS}
        offset = timezone(timedelta(minutes=row["start_time_offset_minutes"]))
        return cls(**{**values, "start_time": row["start_time"].astimezone(offset)})


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEvent:
    """One row of the audit trail; the columns of `lifecycle_audit_events`. Instants are UTC."""

    seq: int
    appointment_id: str
    appointment_seq: int
    event: str
    command: str | None
    from_status: str | None
    from_status_since: datetime | None
    to_status: str
    conforming: bool
    outcome: str | None
    reason_code: str | None
    reason_type: str | None
    actor: str
    source: str
    provider_location_id: str | None
    command_id: str | None
    delivery_id: str | None
    zocdoc_request_id: str | None
    http_status: int | None
    duration_ms: int | None
    chart_version: str
    occurred_at: datetime | None
    recorded_at: datetime
    details: dict[str, Any]
    hash_version: int
    prev_hash: str
    hash: str

    @classmethod
    def of(cls, row: Mapping[Any, Any]) -> AuditEvent:
        """Make the record of a row."""
        return cls(**{name: row[name] for name in _EVENT_FIELDS})


_APPOINTMENT_FIELDS: Final = tuple(field.name for field in fields(Appointment))
_EVENT_FIELDS: Final = tuple(field.name for field in fields(AuditEvent))

_appointments, _events = models.appointments, models.audit_events
_ONE: Final = sa.select(_appointments).where(_appointments.c.appointment_id == sa.bindparam("id"))
_EVENTS: Final = (
    sa.select(_events).where(_events.c.appointment_id == sa.bindparam("id")).order_by(_events.c.appointment_seq)
)
