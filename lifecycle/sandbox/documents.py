"""The three documented shapes of an appointment in an answer.

Absent optional values come as JSON null for some fields and are left out for others, as the contract
says that a reader must accept both.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime

    from lifecycle.sandbox.appointments import Appointment
    from lifecycle.sandbox.messages import Json


def base(row: Appointment) -> Json:
    """Return what confirm, cancel and update-status answer."""
    return {
        "appointment_id": row.appointment_id,
        "appointment_status": row.status,
        "developer_patient_id": row.developer_patient_id,
    }


def full(row: Appointment) -> Json:
    """Return what booking and reschedule answer."""
    return base(row) | {
        "is_provider_resource": False,
        "location_phone_number": "555-0100",
        "waiting_room_path": None,
        "confirmation_type": row.confirmation_type,
        "visit_type": row.visit_type,
        "notes": row.notes,
    }


def status_data(row: Appointment) -> Json:
    """Return what a read answers, alone or in a list."""
    document = full(row) | {
        "start_time": row.start_time,
        "created_time_utc": utc_text(row.created),
        "last_modified_time_utc": utc_text(row.modified),
        "provider_location_id": row.provider_location_id,
        "practice_id": row.practice_id,
        "visit_reason_id": row.visit_reason_id,
        "patient_type": row.patient_type,
    }
    if row.cancellation_reason is not None:
        document["cancellation_reason"] = row.cancellation_reason
    if row.source is not None:
        document["source"] = row.source
    return document


def utc_text(instant: datetime) -> str:
    """Return a UTC instant in the form of the `*_time_utc` fields, with microseconds."""
    return instant.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
