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
    from lifecycle.zocdoc.webhook import Call, NotAuthentic, OutOfTolerance, Update, WebhookError
    from lifecycle.zocdoc.webhook import check_keys as check_webhook_keys
    from lifecycle.zocdoc.webhook import parse as parse_webhook
    from lifecycle.zocdoc.webhook import verify as verify_webhook

__all__ = [
    "PRODUCTION",
    "SANDBOX",
    "Applied",
    "AppointmentData",
    "AppointmentMissing",
    "Call",
    "Environment",
    "InvalidConfiguration",
    "ListWindowTooWide",
    "MalformedAppointmentId",
    "NotAuthentic",
    "NotSent",
    "OutOfTolerance",
    "Outcome",
    "ReadFailed",
    "ReadRefused",
    "Reading",
    "Reason",
    "Rejected",
    "Unknown",
    "Update",
    "WebhookError",
    "ZocdocClient",
    "ZocdocError",
    "check_appointment_id",
    "check_webhook_keys",
    "clock",
    "parse_webhook",
    "verify_webhook",
]

_LATE = {
    "AppointmentData": ("payloads", "AppointmentData"),
    "Call": ("webhook", "Call"),
    "NotAuthentic": ("webhook", "NotAuthentic"),
    "OutOfTolerance": ("webhook", "OutOfTolerance"),
    "Reading": ("answers", "Reading"),
    "Update": ("webhook", "Update"),
    "WebhookError": ("webhook", "WebhookError"),
    "ZocdocClient": ("client", "ZocdocClient"),
    "check_webhook_keys": ("webhook", "check_keys"),
    "parse_webhook": ("webhook", "parse"),
    "verify_webhook": ("webhook", "verify"),
}


def __getattr__(name: str) -> object:
    if name not in _LATE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, known_as = _LATE[name]
    found = globals()[name] = getattr(import_module(f"{__name__}.{module}"), known_as)
    return found
