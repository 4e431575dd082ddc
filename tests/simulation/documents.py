"""What the design document says, written down a second time: which moves are documented, what a read can show.

Shares no code with the product, so that a mistake there is not repeated here.
"""

from __future__ import annotations

import json
from datetime import datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.simulation.evidence import Row
    from tests.simulation.remote import Read

PRESENT = frozenset({"pending_booking", "confirmed", "pending_reschedule", "rescheduled", "reschedule_failed"})
STATUSES = PRESENT | {"booking_failed", "cancelled", "no_show"}
COMMAND_FROM = {
    "confirm": {"pending_booking"},
    "cancel": PRESENT | {"booking_failed"},
    "reschedule": PRESENT - {"reschedule_failed"},
    "mark_arrived": PRESENT,
    "mark_no_show": PRESENT,
}
COMMAND_TO = {"confirm": "confirmed", "cancel": "cancelled", "mark_no_show": "no_show"}
RESCHEDULED_TO = {"rescheduled", "pending_reschedule", "reschedule_failed"}
PROVIDER_MOVES = {
    "pending_booking": {"confirmed", "booking_failed", "cancelled", "pending_reschedule", "rescheduled"},
    "confirmed": {"cancelled", "no_show", "pending_reschedule", "rescheduled"},
    "pending_reschedule": {"rescheduled", "reschedule_failed", "confirmed", "cancelled"},
    "rescheduled": {"cancelled", "no_show", "pending_reschedule", "rescheduled"},
    "reschedule_failed": {"confirmed", "rescheduled", "pending_reschedule", "cancelled", "no_show"},
    "booking_failed": {"cancelled"},
}
ACTIVE = frozenset({"queued", "sending", "uncertain"})
WITHOUT_EFFECT = frozenset({"not_sent", "refused", "withdrawn", "expired"})
"""Ends that give a request key back."""

ENDED = WITHOUT_EFFECT | {"applied", "rejected", "needs_attention"}

ACCEPTED = frozenset({"command_accepted", "command_resent", "command_retried"})
"""Events after which a command may be in the air: each begins an attempt."""

ENDING = {
    "command_applied": "applied",
    "arrival_marked": "applied",
    "command_rejected": "rejected",
    "command_not_sent": "not_sent",
    "command_refused": "refused",
    "command_withdrawn": "withdrawn",
    "command_expired": "expired",
    "attention_needed": "needs_attention",
    "command_resolved": "",
}
"""Events that end a command -> as what; an operator's word is in the event's outcome."""

FROM_THE_QUEUE = frozenset({"command_refused", "command_withdrawn", "command_expired"})
"""Events that end a submitted command while nothing of it is in the air."""

_ANSWERS = {
    "command_applied",
    "arrival_marked",
    "command_rejected",
    "command_not_sent",
    "command_requeued",
    "outcome_lost",
}
_LATE = {"late_answer_received"}
NEXT = {
    **dict.fromkeys(ACCEPTED, _ANSWERS),
    **dict.fromkeys(("outcome_lost", "outcome_checked"), _ANSWERS | {"outcome_checked", "attention_needed"}),
    **dict.fromkeys(_ANSWERS - {"outcome_lost"}, _LATE),
    **dict.fromkeys(FROM_THE_QUEUE, _LATE),
    "command_requeued": _LATE | FROM_THE_QUEUE | {"command_resent"},
    "attention_needed": _LATE | {"command_resolved", "command_retried"},
    "command_resolved": _LATE,
    "late_answer_received": _LATE | {"command_resolved", "command_retried"},
}
"""Event of a command -> the events of the same command that may come next.

A late answer that settled nothing may meet a new attempt: then what may come next is what might have come before it.
"""

OVERRULED_BY = {
    "applied": frozenset({"queued", "sending", "uncertain", "needs_attention"}) | WITHOUT_EFFECT,
    "rejected": frozenset({"queued", "needs_attention"}),
    "not_sent": frozenset({"needs_attention"}),
}
"""Outcome of a late answer -> the states in which it settles its command after all, and for good."""

MOVING = frozenset({"command_applied", "arrival_marked", "command_resolved", "appointment_observed"})
"""Events that may move the status; `appointment_tracked` begins it."""


def overrules(event: Row) -> bool:
    """Tell whether an event is a late answer that settles its command, if no other command has its request key."""
    if event["event"] != "late_answer_received":
        return False
    return json.loads(event["details"])["settled_as"] in OVERRULED_BY.get(event["outcome"], ())


def expected(command: str, before: str) -> set[str]:
    """List the answers that a command is documented to get."""
    return RESCHEDULED_TO | {before} if command == "reschedule" else {COMMAND_TO.get(command, before)}


def is_documented(command: str, before: str, after: str) -> bool:
    """Tell whether a command may make such a move."""
    return before in COMMAND_FROM[command] and after in expected(command, before)


def conforms(event: Row) -> bool:
    """Judge an event's move: what its `conforming` must say."""
    before, after, kind = event["from_status"], event["to_status"], event["event"]
    if kind == "appointment_tracked":
        return after in STATUSES
    if kind in {"command_applied", "arrival_marked"} or (kind == "command_resolved" and before != after):
        return is_documented(event["command"], before, after)
    is_moved = before != after or "start_time" in json.loads(event["details"]).get("changed", [])
    return kind != "appointment_observed" or not is_moved or after in PROVIDER_MOVES.get(before, set())


def shows(command: Row, read: Read) -> bool:
    """Tell whether a read shows what a command wanted, and that it was not so before."""
    if command["command"] != "reschedule":
        return read.status == COMMAND_TO.get(command["command"])
    target = command["target_start_time"]
    if target is None or target == command["baseline_start_time"]:
        return False
    moved = {"rescheduled", "pending_reschedule", command["baseline_status"]}
    return read.start == datetime.fromisoformat(target) and read.status in moved
