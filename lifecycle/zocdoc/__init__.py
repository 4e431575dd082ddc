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
from lifecycle.zocdoc.pacing import Pace, background
from lifecycle.zocdoc.timing import clock

if TYPE_CHECKING:
    from lifecycle.zocdoc import webhook
    from lifecycle.zocdoc.answers import Page, Reading
    from lifecycle.zocdoc.client import ZocdocClient
    from lifecycle.zocdoc.payloads import AppointmentData
    from lifecycle.zocdoc.webhook import NotAuthentic, OutOfTolerance, WebhookError

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
    "NotAuthentic",
    "NotSent",
    "OutOfTolerance",
    "Outcome",
    "Pace",
    "Page",
    "ReadFailed",
    "ReadRefused",
    "Reading",
    "Reason",
    "Rejected",
    "Unknown",
    "WebhookError",
    "ZocdocClient",
    "ZocdocError",
    "background",
    "check_appointment_id",
    "clock",
    "webhook",
]

_LATE = {
    "AppointmentData": "payloads",
    "NotAuthentic": "webhook",
    "OutOfTolerance": "webhook",
    "Page": "answers",
    "Reading": "answers",
    "WebhookError": "webhook",
    "ZocdocClient": "client",
}
_LATE_MODULES = {"webhook"}


def __getattr__(name: str) -> object:
    if name in _LATE_MODULES:
        return import_module(f"{__name__}.{name}")
    if name not in _LATE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(f"{__name__}.{_LATE[name]}"), name)
    return found
