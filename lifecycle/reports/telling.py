"""Audit events in words, for timelines. Pure; plain text: whoever shows it escapes it."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import timedelta
    from zoneinfo import ZoneInfo

    from lifecycle.records import AuditEvent

_MINUTE: Final = 60
_HOUR: Final = 60 * _MINUTE
_DAY: Final = 24 * _HOUR
_TWO: Final = 2


def what(event: AuditEvent, *, zone: ZoneInfo) -> str:
    """Tell in a sentence what happened. A start of the visit is shown in the zone."""
    tell = _SENTENCES.get(event.event)
    sentence = event.event if tell is None else tell(event)
    return "".join((sentence, _moved(event), _new_start(event, zone), "" if event.conforming else ", unexpectedly"))


def how(event: AuditEvent) -> str:
    """Tell the outcome and its evidence: the code, the HTTP status, how long the call took."""
    facts = (
        event.outcome,
        event.reason_code,
        event.reason_type,
        None if event.http_status is None else f"HTTP {event.http_status}",
        None if event.duration_ms is None else f"{event.duration_ms} ms",
    )
    return ", ".join(dict.fromkeys(str(fact) for fact in facts if fact is not None))


def lasted(time: timedelta) -> str:
    """Tell a length of time in its two largest units: 3 d 4 h, 1 min 5 s, 12 ms."""
    seconds = time.total_seconds()
    if seconds < 0:
        return f"-{lasted(-time)}"
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < _MINUTE:
        return f"{seconds:.3g} s"
    parts = ((int(seconds // size) % most, unit) for size, most, unit in _UNITS)
    shown = [f"{number} {unit}" for number, unit in _from_first(list(parts)) if number]
    return " ".join(shown)


def _from_first(parts: list[tuple[int, str]]) -> list[tuple[int, str]]:
    first = next(place for place, (number, _) in enumerate(parts) if number)
    return parts[first : first + _TWO]


def _moved(event: AuditEvent) -> str:
    if event.from_status is None or event.from_status == event.to_status:
        return ""
    return f": {event.from_status} -> {event.to_status}"


def _new_start(event: AuditEvent, zone: ZoneInfo) -> str:
    told = event.details.get("start_time")
    if told is None:
        return ""
    start = datetime.fromisoformat(told).astimezone(zone).isoformat(" ", "minutes")
    return f", visit at {start}" if event.from_status is None else f", visit moved to {start}"


def _observed(event: AuditEvent) -> str:
    changed = [name for name in event.details.get("changed", ()) if not name.startswith("start_time")]
    return f"Zocdoc reported a change of {', '.join(changed)}" if changed else "Zocdoc reported a change"


_UNITS: Final = ((_DAY, 10**6, "d"), (_HOUR, 24, "h"), (_MINUTE, 60, "min"), (1, 60, "s"))
_SENTENCES: Final[dict[str, Callable[[AuditEvent], str]]] = {
    "appointment_tracked": lambda it: f"first read from Zocdoc: {it.to_status}",
    "appointment_observed": _observed,
    "command_refused": lambda it: f"{it.command} was refused, nothing was sent",
    "command_withdrawn": lambda it: f"{it.command} was withdrawn before it was sent",
    "command_expired": lambda it: f"{it.command} expired before it could be sent",
    "command_accepted": lambda it: f"{it.command} was accepted and goes to Zocdoc",
    "command_requeued": lambda it: f"{it.command} had no effect at Zocdoc and waits to be sent again",
    "command_resent": lambda it: f"{it.command} goes to Zocdoc again",
    "command_applied": lambda it: f"{it.command} was applied",
    "arrival_marked": lambda _: "the arrival was marked",
    "command_rejected": lambda it: f"Zocdoc rejected {it.command}",
    "command_not_sent": lambda it: f"{it.command} had no effect at Zocdoc",
    "outcome_lost": lambda it: f"the answer to {it.command} was lost: in doubt",
    "outcome_checked": lambda it: f"reading did not settle {it.command} yet",
    "attention_needed": lambda it: f"{it.command} needs a human: reading cannot settle it",
    "command_resolved": lambda it: f"an operator settled {it.command}",
    "command_retried": lambda it: f"an operator sends {it.command} again",
    "late_answer_received": lambda it: f"an answer to {it.command} came late",
}
"""A sentence for each event; a test holds them complete."""
