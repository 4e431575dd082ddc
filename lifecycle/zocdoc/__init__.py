"""A client of Zocdoc's appointment API that can say what became of every call.

A library of its own: it knows nothing of the rest of the project. What needs `requests` or pydantic is imported when
it is first asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from lifecycle.zocdoc.environments import PRODUCTION, SANDBOX, Environment
from lifecycle.zocdoc.errors import (
    AppointmentMissing,
    InvalidConfiguration,
    ListWindowTooWide,
    MalformedAppointmentId,
    ReadFailed,
    ReadRefused,
    ZocdocError,
)
from lifecycle.zocdoc.ids import check_appointment_id
from lifecycle.zocdoc.outcomes import Applied, NotSent, Outcome, Reason, Rejected, Unknown
from lifecycle.zocdoc.timing import clock

if TYPE_CHECKING:
    from lifecycle.zocdoc.answers import Reading
    from lifecycle.zocdoc.client import ZocdocClient
    from lifecycle.zocdoc.payloads import AppointmentData

__all__ = [
    "PRODUCTION",
    "SANDBOX",
    "Applied",
    "AppointmentData",
    "AppointmentMissing",
    "Environment",
    "InvalidConfiguration",
    "ListWindowTooWide",
    "MalformedAppointmentId",
    "NotSent",
    "Outcome",
    "ReadFailed",
    "ReadRefused",
    "Reading",
    "Reason",
    "Rejected",
    "Unknown",
    "ZocdocClient",
    "ZocdocError",
    "check_appointment_id",
    "clock",
]

_LATE = {"AppointmentData": "payloads", "Reading": "answers", "ZocdocClient": "client"}


def __getattr__(name: str) -> object:
    if name not in _LATE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(f"{__name__}.{_LATE[name]}"), name)
    return found
