"""Following Zocdoc: reading an appointment and recording what it says, conforming to the chart or not.

The version of the row is read before the call to Zocdoc, and what came back is stored only if the row is still at that
version and no command is under way: otherwise it may be older than what is known, and the appointment is read again.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa

from lifecycle import audit, chart, columns, errors, models, records, zocdoc
from lifecycle.resources import check_appointment_id, check_identity, check_name

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from lifecycle.resources import Resources

_READS_AT_MOST: Final = 5
"""Rereads while others keep changing the row; in practice the second one is calm."""

_STRAY: Final = timedelta(days=1)
"""Zocdoc's clock and ours do not differ by more."""


def track(
    resources: Resources,
    appointment_id: str,
    *,
    actor: str,
    source: str,
    booked_with: str,
) -> records.Appointment:
    """Read an appointment from Zocdoc and persist it; if it is tracked already, record what has changed.

    Raises `AppointmentNotFound` if Zocdoc does not know it, `ReadFailed`, `CredentialNotAllowed`, `InvalidArgument`.
    Calls Zocdoc once, or again if the row changes meanwhile; opens one transaction for each read.
    """
    check_appointment_id(appointment_id)
    check_name("actor", actor)
    client = resources.clients.of(check_identity(booked_with))
    if client is None:
        raise errors.CredentialNotAllowed(appointment_id=appointment_id, booked_with=booked_with)
    known = _version(resources, appointment_id)
    if known is not None:
        _check_same_booking(resources, appointment_id, booked_with)
        return follow(resources, client, appointment_id, actor=actor, source=source)
    if not begin(resources, client, appointment_id, actor=actor, source=source):
        # Somebody was faster; which of the two readings is newer nobody knows.
        _check_same_booking(resources, appointment_id, booked_with)
        return follow(resources, client, appointment_id, actor=actor, source=source)
    return records.get(resources.database, appointment_id)


def begin(
    resources: Resources,
    client: zocdoc.ZocdocClient,
    appointment_id: str,
    *,
    actor: str,
    source: str,
    delivery_id: str | None = None,
    leased_until: datetime | None = None,
) -> bool:
    """Read an appointment that is not tracked and track it, as booked with the client's identity.

    False: somebody has tracked it meanwhile, and nothing was stored. Deliveries that came before are woken, but those
    that the caller has taken itself (`leased_until`). Raises `AppointmentNotFound`, `ReadFailed`.
    """
    reading = read(client, appointment_id)
    booked_with = client.identity
    with resources.database.write() as connection:
        resources.stamp(connection, environment=client.environment)
        entry = first_entry(reading, actor=actor, source=source, booked_with=booked_with, delivery_id=delivery_id)
        now = resources.database.now(connection)
        row = first_row(reading.appointment, booked_with=booked_with)
        is_first = audit.begin(connection, row, entry, now=now) is not None
        if is_first:
            wake_deliveries(connection, [appointment_id], now=now, leased_until=leased_until)
    return is_first


def follow(
    resources: Resources, client: zocdoc.ZocdocClient, appointment_id: str, *, actor: str, source: str
) -> records.Appointment:
    """Read a tracked appointment from Zocdoc, record what has changed, and give it as it stands then.

    While a command is under way nothing is stored: its own settlement will tell. Raises `ReadFailed`,
    `AppointmentNotFound`.
    """
    observe(resources, client, appointment_id, actor=actor, source=source)
    return records.get(resources.database, appointment_id)


def observe(
    resources: Resources,
    client: zocdoc.ZocdocClient,
    appointment_id: str,
    *,
    actor: str,
    source: str,
    delivery_id: str | None = None,
) -> zocdoc.Reading | None:
    """Do as `follow`, and give what was read. None: nothing is stored, a command is under way or others write."""
    for _ in range(_READS_AT_MOST):
        version = _version(resources, appointment_id)
        reading = read(client, appointment_id)
        with resources.database.write() as connection:
            resources.stamp(connection, environment=client.environment)
            locked = audit.lock(resources.database, connection, appointment_id)
            if locked is None:
                raise errors.AppointmentNotFound(appointment_id=appointment_id)
            calm = locked.row["version"] == version and not locked.is_busy
            if calm:
                apply(connection, locked, reading, actor=actor, source=source, delivery_id=delivery_id)
        if calm or locked.is_busy:
            return reading if calm else None
    return None


def read(client: zocdoc.ZocdocClient, appointment_id: str) -> zocdoc.Reading:
    """Read from Zocdoc. Raises `AppointmentNotFound`, `ReadFailed`. No transaction may be open."""
    try:
        return client.get(appointment_id)
    except zocdoc.AppointmentMissing as error:
        raise errors.AppointmentNotFound(
            appointment_id=appointment_id, at_zocdoc=True, zocdoc_request_id=error.request_id
        ) from None
    except (zocdoc.ReadRefused, zocdoc.ReadFailed) as error:
        raise errors.ReadFailed(
            appointment_id=appointment_id,
            reason_code=str(error.reason_code),
            http_status=error.http_status,
            zocdoc_request_id=error.request_id,
        ) from None


def apply(
    connection: sa.Connection,
    locked: audit.Locked,
    reading: zocdoc.Reading,
    *,
    actor: str,
    source: str,
    delivery_id: str | None = None,
) -> audit.Locked:
    """Record what Zocdoc reports through the one door; an older remote modification never wins."""
    remote = reading.appointment
    if is_older(locked.row, remote, now=locked.now):
        return locked
    changes = differences(locked, remote)
    status_moved = remote.appointment_status != locked.status
    if not changes and not status_moved:
        audit.seen(connection, locked, last_modified=_newest(locked, remote))
        return locked
    moved = status_moved or "start_time" in changes
    entry = audit.Entry(
        event=audit.Event.APPOINTMENT_OBSERVED,
        actor=actor,
        source=source,
        to_status=remote.appointment_status,
        conforming=not moved or _is_conforming(locked.status, remote.appointment_status),
        delivery_id=delivery_id,
        zocdoc_request_id=reading.request_id,
        http_status=200,
        occurred_at=remote.last_modified_time_utc,
        details={"changed": sorted(changes)} if changes else {},
    )
    return audit.record(connection, locked, entry, **changes, **observed(locked, remote))


def differences(locked: audit.Locked, remote: zocdoc.AppointmentData) -> dict[str, Any]:
    """Give the columns, apart from the status, that Zocdoc reports otherwise; what it leaves out stays as it is."""
    return {name: value for name, value in _told(remote).items() if locked.row[name] != value}


def is_older(row: Mapping[Any, Any], remote: zocdoc.AppointmentData, *, now: datetime) -> bool:
    """Tell whether Zocdoc reports a modification before one that is known.

    A known one of the far future says nothing: a stray date must not blind the row for ever.
    """
    known, told = row["remote_last_modified"], remote.last_modified_time_utc
    return known is not None and told is not None and told < known <= now + _STRAY


def is_news(row: Mapping[Any, Any], remote: zocdoc.AppointmentData) -> bool:
    """Tell whether Zocdoc reports anything otherwise than a row has it: the status, or what `differences` compares."""
    if row["status"] != remote.appointment_status:
        return True
    return any(row[name] != value for name, value in _told(remote).items())


def observed(locked: audit.Locked, remote: zocdoc.AppointmentData) -> dict[str, Any]:
    """Give the columns that say when and how Zocdoc was last read, for the row's next version."""
    return {
        "observed_at": locked.now,
        "observed_version": locked.row["version"] + 1,
        "remote_last_modified": _newest(locked, remote),
    }


def _newest(locked: audit.Locked, remote: zocdoc.AppointmentData) -> datetime | None:
    """Keep the newest modification time that was ever told: a report without one tells nothing about it."""
    return remote.last_modified_time_utc or locked.row["remote_last_modified"]


def start_columns(start: datetime) -> dict[str, Any]:
    """Give the two columns of an aware start: the instant, and the offset that it was written in."""
    offset = start.utcoffset()
    return {"start_time": start, "start_time_offset_minutes": int(offset.total_seconds()) // 60 if offset else 0}


def _content(remote: zocdoc.AppointmentData) -> dict[str, Any]:
    return {
        **start_columns(remote.start_time),
        "provider_location_id": remote.provider_location_id,
        "practice_id": remote.practice_id,
        "visit_reason_id": remote.visit_reason_id,
        "developer_patient_id": remote.developer_patient_id,
        "confirmation_type": remote.confirmation_type,
    }


def _told(remote: zocdoc.AppointmentData) -> dict[str, Any]:
    return {name: value for name, value in _content(remote).items() if value is not None}


def _is_conforming(status: str, answer: str) -> bool:
    return chart.move(status=status, event=chart.OBSERVED, answer=answer).conforming


def wake_deliveries(
    connection: sa.Connection, appointment_ids: Sequence[str], *, now: datetime, leased_until: datetime | None = None
) -> None:
    """Have webhook deliveries processed that came before their appointments were tracked.

    Belongs into the transaction that tracks them: what was read for it may be older than what they tell of. Not those
    that are leased until that instant: their reader is the one that tracks.
    """
    woken = sa.update(_deliveries).where(
        _deliveries.c.appointment_id.in_(appointment_ids),
        _deliveries.c.state.in_((models.DeliveryState.RECEIVED, models.DeliveryState.UNTRACKED)),
    )
    if leased_until is not None:
        woken = woken.where(sa.or_(_deliveries.c.run_at.is_(None), _deliveries.c.run_at != leased_until))
    values = {"state": models.DeliveryState.RECEIVED, "run_at": now, "processed_at": None}
    connection.execute(woken.values(values))


def first_row(remote: zocdoc.AppointmentData, *, booked_with: str) -> dict[str, Any]:
    """Give the columns that an appointment's row begins with."""
    return {
        "appointment_id": remote.appointment_id,
        "status": remote.appointment_status,
        "booked_with": booked_with,
        "booked_at": remote.created_time_utc,
        "remote_last_modified": remote.last_modified_time_utc,
        **_content(remote),
    }


def first_entry(
    reading: zocdoc.Reading, *, actor: str, source: str, booked_with: str, delivery_id: str | None = None
) -> audit.Entry:
    """Give the event that an appointment's trail begins with."""
    remote = reading.appointment
    return audit.Entry(
        event=audit.Event.APPOINTMENT_TRACKED,
        actor=actor,
        source=source,
        conforming=remote.appointment_status in chart.STATUSES,
        delivery_id=delivery_id,
        zocdoc_request_id=reading.request_id,
        http_status=200,
        occurred_at=remote.last_modified_time_utc,
        details={"start_time": columns.utc_text(remote.start_time), "booked_with": booked_with},
    )


def _version(resources: Resources, appointment_id: str) -> int | None:
    with resources.database.read() as connection:
        version: int | None = connection.execute(_VERSION, {"id": appointment_id}).scalar()
        return version


def _check_same_booking(resources: Resources, appointment_id: str, booked_with: str) -> None:
    stored = records.get(resources.database, appointment_id).booked_with
    if stored != booked_with:
        problem = f"the appointment is already tracked as booked with '{stored}'"
        raise errors.InvalidArgument(argument="booked_with", problem=problem)


_deliveries = models.webhook_deliveries
_VERSION: Final = sa.select(models.appointments.c.version).where(
    models.appointments.c.appointment_id == sa.bindparam("id")
)
