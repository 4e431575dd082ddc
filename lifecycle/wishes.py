"""What somebody wants: a command with its arguments, checked for form before anything is opened or sent."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from lifecycle import chart, errors, guards
from lifecycle.resources import check_appointment_id, check_instant, check_name

if TYPE_CHECKING:
    from enum import StrEnum

    from lifecycle.audit import Locked


_LONGEST_REASON: Final = 10_000
"""Zocdoc documents no limit; a text beyond this would not be an explanation, and could cost the answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What somebody wants to be done with an appointment, checked for form. `payload` is what will be sent."""

    appointment_id: str
    command: chart.Command
    actor: str
    source: str
    request_key: str | None = None
    payload: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check what every wish has. Raises `InvalidArgument`."""
        check_name("actor", self.actor)
        if self.request_key is not None:
            check_name("request_key", self.request_key)
        check_appointment_id(self.appointment_id)

    @property
    def requested_start(self) -> datetime | None:
        """The new start of a reschedule, naive if it came without an offset."""
        text = self.payload.get("start_time")
        return None if text is None else guards.parse_start(text)


def of(
    command: object,
    appointment_id: object,
    *,
    actor: str,
    source: str,
    request_key: str | None = None,
    start_time: str | datetime | None = None,
    reason_type: str | None = None,
    reason: str | None = None,
) -> Wish:
    """Make a wish of a command's name and its arguments; those that it does not take are refused, not ignored.

    Raises `InvalidArgument`.
    """
    kind = command_named(command)
    payload: dict[str, Any] = {}
    if kind is chart.Command.RESCHEDULE:
        if start_time is None:
            raise errors.InvalidArgument(argument="start_time", problem="a reschedule needs the new start")
        payload = reschedule_payload(start_time)
    elif start_time is not None:
        raise errors.InvalidArgument(argument="start_time", problem=f"{kind} takes no start; only a reschedule does")
    if kind is chart.Command.CANCEL:
        payload = cancel_payload(reason_type, reason)
    elif reason_type is not None or reason is not None:
        argument = "reason_type" if reason_type is not None else "reason"
        raise errors.InvalidArgument(argument=argument, problem=f"{kind} takes no reason; only a cancel does")
    return Wish(
        appointment_id=check_appointment_id(appointment_id),
        command=kind,
        actor=actor,
        source=source,
        request_key=request_key,
        payload=payload,
    )


def instant_of(argument: str, value: object) -> datetime:
    """Accept an aware datetime, or ISO 8601 text with an offset. Raises `InvalidArgument`."""
    if isinstance(value, str):
        try:
            value = guards.parse_start(value)
        except ValueError:
            problem = "an ISO 8601 date and time with an offset is needed, such as 2026-12-01T09:00:00-05:00"
            raise errors.InvalidArgument(argument=argument, problem=problem) from None
    return check_instant(argument, value)


def cancel_payload(reason_type: str | None, reason: str | None) -> dict[str, Any]:
    """Check and assemble the arguments of a cancel. Raises `InvalidArgument`."""
    if reason_type is not None and not _is_one_of(reason_type, chart.CancellationReason):
        problem = f"use one of {', '.join(chart.CancellationReason)}"
        raise errors.InvalidArgument(argument="reason_type", problem=problem)
    if reason is not None and (not isinstance(reason, str) or not _is_sendable(reason)):
        problem = f"a text of at most {_LONGEST_REASON} characters, without NUL, is needed"
        raise errors.InvalidArgument(argument="reason", problem=problem)
    given = {"reason_type": None if reason_type is None else str(reason_type), "reason": reason}
    return {name: value for name, value in given.items() if value is not None}


def reschedule_payload(start_time: str | datetime) -> dict[str, Any]:
    """Check and assemble the arguments of a reschedule; text is sent word for word. Raises `InvalidArgument`."""
    text = start_time.isoformat() if isinstance(start_time, datetime) else start_time
    try:
        guards.parse_start(text)
    except (ValueError, TypeError):
        problem = "an ISO 8601 date and time with an offset is needed, such as 2026-12-01T09:00:00-05:00"
        raise errors.InvalidArgument(argument="start_time", problem=problem) from None
    return {"start_time": text}


def command_named(name: object) -> chart.Command:
    """Find a command by its name. Raises `InvalidArgument`."""
    if not isinstance(name, str) or not _is_one_of(name, chart.Command):
        raise errors.InvalidArgument(argument="command", problem=f"use one of {', '.join(chart.Command)}")
    return chart.Command(name)


def _is_one_of(value: object, names: type[StrEnum]) -> bool:
    return isinstance(value, str) and value in set(names)


def situation(locked: Locked, wish: Wish, *, credential: str | None) -> guards.Situation:
    """Put together what the checks look at."""
    return guards.Situation(
        command=wish.command,
        status=locked.status,
        booked_with=locked.row["booked_with"],
        credential=credential,
        start_time=locked.row["start_time"],
        now=locked.now,
        active_command=locked.active_state,
        requested_start=wish.requested_start,
        reason_type=wish.payload.get("reason_type"),
        has_reason_text="reason" in wish.payload,
    )


def _is_sendable(text: str) -> bool:
    """Tell whether Zocdoc and every database can take the text: not endless, no NUL, no lone surrogates."""
    is_unicode = not any("\ud800" <= letter <= "\udfff" for letter in text)
    return len(text) <= _LONGEST_REASON and "\0" not in text and is_unicode
