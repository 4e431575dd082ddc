"""The five commands, as this proof sends them. Apart from `tests.support`, since that imports pytest: 27 MB a fork."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from lifecycle import Done, Lifecycle

COMMANDS = ("confirm", "cancel", "reschedule", "mark_arrived", "mark_no_show")
OPERATIONS = {
    "confirm": "confirm",
    "cancel": "cancel",
    "reschedule": "reschedule",
    "mark_arrived": "update_status",
    "mark_no_show": "update_status",
}
_PRESENT = ("confirmed", "pending_booking", "pending_reschedule", "reschedule_failed", "rescheduled")
ALLOWED = {
    "confirm": ("pending_booking",),
    "cancel": ("booking_failed", *_PRESENT),
    "reschedule": ("confirmed", "pending_booking", "pending_reschedule", "rescheduled"),
    "mark_arrived": _PRESENT,
    "mark_no_show": _PRESENT,
}
"""Written down from the design by hand, not taken from the code under test."""

LATER = "2031-03-01T09:00:00-05:00"
YESTERDAY = (datetime.now(UTC) - timedelta(days=1)).isoformat(timespec="seconds")
"""A start at which every command is allowed."""

_EPOCH = datetime(2031, 1, 1, tzinfo=UTC)


def send(product: Lifecycle, command: str, appointment_id: str, *, actor: str, start: str = LATER) -> Done:
    """Call the command's method with the arguments it cannot do without."""
    call: Callable[..., Done] = getattr(product, command)
    return call(appointment_id, actor=actor, **given_to(command, start))


def given_to(command: str, start: str = LATER) -> dict[str, Any]:
    """Give the arguments that a command cannot do without."""
    return {"start_time": start} if command == "reschedule" else {}


def start_number(number: int) -> str:
    """Give a start that no other number gives, so that a request tells which command it is of."""
    return (_EPOCH + timedelta(seconds=number)).isoformat()
