"""Zocdoc's published sandbox fixtures: ids and provider locations that stand for an outcome."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from lifecycle.sandbox.appointments import whole_hour
from lifecycle.sandbox.vocabulary import Status

if TYPE_CHECKING:
    from lifecycle.sandbox.appointments import Appointment, Appointments

GUIDE_EXAMPLE: Final = "d04b049a-41b1-4aba-9268-d8973cf72cdd"
MISSING: Final = "83f5cf14-3eb1-4034-be1f-e7c3058aad21"
FAILING: Final = "dc69a428-8a73-461b-bd7b-df755910a3fb"
MISSING_LOCATION: Final = "pr_missing|lo_missing"
FAILING_LOCATION: Final = "pr_error|lo_error"

_A_DAY: Final = timedelta(days=1)  # inside the two days in which a no-show may be reported


@dataclass(frozen=True, slots=True)
class Fixture:
    """One published appointment; the same location books it again."""

    appointment_id: str
    status: Status
    provider_location_id: str
    visit_reason_id: str
    patient_type: str = "new"


FIXTURES: Final = (
    Fixture(
        "2b29f79b-6d7f-472a-9603-d0c378bc9531",
        Status.PENDING_BOOKING,
        "pr_pending|lo_pending",
        "pc_FRO-18leckytNKtruw5dLR",
    ),
    Fixture(
        "d2ee5bd8-643a-42c8-8c5a-be450e903430",
        Status.CONFIRMED,
        "pr_confirmed|lo_confirmed",
        "pc_TlZW-r06U0W3pCsIGtSI5B",
    ),
    Fixture(
        "423e6a11-8dac-4873-b933-d8d02f9a370f",
        Status.CONFIRMED,
        "pr_confirmed|lo_confirmed",
        "pc_TlZW-r06U0W3pCsIGtSI5B",
        "existing",
    ),
    Fixture(
        "34e4ead3-ca69-4448-9438-58702dd1048f",
        Status.BOOKING_FAILED,
        "pr_bookingfailed|lo_bookingfailed",
        "pc_zZWhkaURvEGlZpSimNILaB",
    ),
    Fixture(
        "21990114-ea71-4d7d-9d1e-00c43ae44bcd",
        Status.CANCELLED,
        "pr_cancelled|lo_cancelled",
        "pc_p1KdCTTzuU6A04ZjEt837x",
    ),
    Fixture(
        "a0a7770d-e667-416c-9f06-9c3b40a7bb84",
        Status.NO_SHOW,
        "pr_noshow|lo_noshow",
        "pc_T1T3MOA0kUuE201i1ZfIWR",
    ),
    Fixture(
        "63f995c2-49c4-40c8-a93a-140fb32e913b",
        Status.PENDING_RESCHEDULE,
        "pr_pendingreschedule|lo_pendingreschedule",
        "pc_FRO-18leckytNKtruw5dLR",
    ),
    Fixture(
        "8507d05f-cbe5-4732-b72a-22add9c80120",
        Status.RESCHEDULED,
        "pr_rescheduled|lo_rescheduled",
        "pc_peZqujk5w0jL8SblyLoIoz",
    ),
    Fixture(
        "84d04f67-b2cf-4afd-ab64-193072498ed5",
        Status.RESCHEDULE_FAILED,
        "pr_reschedulefailed|lo_reschedulefailed",
        "pc_PS_BTW9rmkuIfaIH_Hxdwg",
    ),
)

# The guide confirms and cancels this one; no location is published for it, so booking never answers it.
_EXAMPLE: Final = Fixture(GUIDE_EXAMPLE, Status.PENDING_BOOKING, "pr_example|lo_example", "pc_example")


def load(appointments: Appointments) -> None:
    """Put every fixture into the table; a no-show lies a day back, the others a week ahead."""
    for fixture in (*FIXTURES, _EXAMPLE):
        put(appointments, fixture)


def put(appointments: Appointments, fixture: Fixture) -> Appointment:
    """Put one fixture into the table in its published state."""
    row = appointments.put(
        fixture.appointment_id,
        status=fixture.status,
        provider_location_id=fixture.provider_location_id,
        visit_reason_id=fixture.visit_reason_id,
        patient_type=fixture.patient_type,
    )
    if fixture.status is not Status.NO_SHOW:
        return row
    return appointments.change(row, start_time=whole_hour(appointments.now() - _A_DAY))


def at(provider_location_id: str, patient_type: str) -> Fixture | None:
    """Return the fixture that a booking at this location answers with, or `None` at any other."""
    here = [fixture for fixture in FIXTURES if fixture.provider_location_id == provider_location_id]
    same = [fixture for fixture in here if fixture.patient_type == patient_type]
    return next(iter(same or here), None)
