"""The words of the contract: statuses, operations and from where each command is allowed."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

READ_SCOPE: Final = "external.appointment.read"
WRITE_SCOPE: Final = "external.appointment.write"
ALL_SCOPES: Final = frozenset({READ_SCOPE, WRITE_SCOPE})


class Status(StrEnum):
    """The eight documented appointment statuses."""

    PENDING_BOOKING = "pending_booking"
    CONFIRMED = "confirmed"
    BOOKING_FAILED = "booking_failed"
    CANCELLED = "cancelled"
    NO_SHOW = "no_show"
    PENDING_RESCHEDULE = "pending_reschedule"
    RESCHEDULED = "rescheduled"
    RESCHEDULE_FAILED = "reschedule_failed"


class Operation(StrEnum):
    """What a request asks for; faults and the ledger use these names."""

    BOOK = "book"
    LIST = "list"
    GET = "get"
    CONFIRM = "confirm"
    CANCEL = "cancel"
    RESCHEDULE = "reschedule"
    UPDATE_STATUS = "update_status"
    MOCK_WEBHOOK = "mock_webhook"
    TOKEN = "token"  # noqa: S105 - a name, not a secret
    UNKNOWN = "unknown"


class CancellationReason(StrEnum):
    """The documented values of `cancellation_reason_type`."""

    PATIENT_NO_LONGER_NEEDS_APPOINTMENT = "patient_no_longer_needs_appointment"
    PATIENT_NO_LONGER_AVAILABLE = "patient_no_longer_available"
    OTHER_PATIENT_REASON = "other_patient_reason"
    MISSING_NEEDED_PATIENT_INFORMATION = "missing_needed_patient_information"
    PAYMENT_OR_INSURANCE_ISSUE = "payment_or_insurance_issue"
    PATIENT_OR_VISIT_TYPE_NOT_ACCEPTED = "patient_or_visit_type_not_accepted"
    PROVIDER_NOT_AVAILABLE = "provider_not_available"
    RESCHEDULING_PATIENT = "rescheduling_patient"
    OTHER_PROVIDER_REASON = "other_provider_reason"


ALLOWED_FROM: Final[Mapping[Operation, frozenset[Status]]] = {
    Operation.CONFIRM: frozenset({Status.PENDING_BOOKING}),
    Operation.CANCEL: frozenset(Status) - {Status.CANCELLED, Status.NO_SHOW},
    Operation.RESCHEDULE: frozenset(
        {Status.PENDING_BOOKING, Status.CONFIRMED, Status.PENDING_RESCHEDULE, Status.RESCHEDULED}
    ),
    # The reference lists a 409 for update-status without naming the statuses. This set is the
    # stand-in's own choice: nobody can arrive at, or miss, an appointment that does not take place.
    Operation.UPDATE_STATUS: frozenset(Status) - {Status.CANCELLED, Status.BOOKING_FAILED, Status.NO_SHOW},
}

READS: Final = frozenset({Operation.LIST, Operation.GET})
