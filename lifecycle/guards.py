"""What guards a command: named checks with reason codes, one list for deciding and for explaining. Pure.

A refusal is decided on the local picture and costs no call to Zocdoc. Advice tells what is only recommended and never
refuses: the calls of Zocdoc's own guide (a start in the past, a reason text beside a plain type) must pass.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from lifecycle import chart

if TYPE_CHECKING:
    from collections.abc import Callable

NO_SHOW_WINDOW: Final = timedelta(days=2)
"""Zocdoc: a no-show can be set when the start lies in the past and is at most 2 days old."""


def decide(situation: Situation) -> Decision:
    """Say whether a command may be sent, and advise. Pure; runs every check, so all reasons are named at once."""
    return Decision(
        reasons=tuple(
            code for check in CHECKS if check.concerns(situation.command) and (code := check.failure(situation))
        ),
        advice=tuple(code for hint in ADVICE if hint.concerns(situation.command) and (code := hint.failure(situation))),
    )


def explain(situation: Situation) -> tuple[Explanation, ...]:
    """Answer for each check and each advice that concerns the command: passed or not, the code, the rule behind it.

    A check that lacks what it looks at (the new start time, a client's identity) has `passed=None`: not judged.
    """
    return tuple(_explain(check, situation) for check in CHECKS + ADVICE if check.concerns(situation.command))


def parse_start(text: str) -> datetime:
    """Parse an RFC 3339 date-time; the result is naive when the text has no offset. Raises `ValueError`."""
    if not _DATE_TIME.fullmatch(text):
        raise ValueError(_NOT_A_START)
    try:
        start = datetime.fromisoformat(text)
        start.astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError(_NOT_A_START) from None
    return start


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """All that the checks look at.

    `credential` is the identity of the client at hand that may act (`machine`, `user:ID`), None when none is.
    `now` and `start_time` are aware. `active_command` is the state of the appointment's active command, if any.
    `requested_start` is the wanted new start, naive if the caller gave no offset.
    """

    command: chart.Command
    status: str
    booked_with: str
    credential: str | None
    start_time: datetime
    now: datetime
    active_command: str | None = None
    requested_start: datetime | None = None
    reason_type: str | None = None
    has_reason_text: bool = False


@dataclass(frozen=True, slots=True)
class Decision:
    """The codes of the checks that failed (none: the command may be sent) and of the advice that applies."""

    reasons: tuple[str, ...]
    advice: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Explanation:
    """One check's answer. `required` is False for advice, which never refuses; `code` is None when it passed."""

    check: str
    passed: bool | None
    code: str | None
    rule: str
    required: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """A named rule. `failure` returns a reason code, or None when the rule is kept."""

    name: str
    rule: str
    failure: Callable[[Situation], str | None]
    commands: frozenset[str] = frozenset(chart.Command)
    required: bool = True
    needs: str | None = None

    def concerns(self, command: chart.Command) -> bool:
        """Tell whether the rule is about this command at all."""
        return command in self.commands

    def can_be_judged(self, situation: Situation) -> bool:
        """Tell whether the one thing that an explanation may lack is there."""
        return self.needs is None or getattr(situation, self.needs) is not None


def _explain(check: Check, situation: Situation) -> Explanation:
    if not check.can_be_judged(situation):
        return Explanation(check.name, passed=None, code=None, rule=check.rule, required=check.required)
    code = check.failure(situation)
    return Explanation(check.name, passed=code is None, code=code, rule=check.rule, required=check.required)


def status_allows(situation: Situation) -> str | None:
    """Judge the local status by the chart."""
    if situation.status in chart.TOPOLOGY[situation.command]:
        return None
    return "status_not_allowed" if situation.status in chart.AppointmentChart.states_map else "status_unknown"


def credential_allows(situation: Situation) -> str | None:
    """Judge the identity at hand by who booked."""
    return None if situation.credential == situation.booked_with else "credential_not_allowed"


def no_show_in_window(situation: Situation) -> str | None:
    """Judge the start time by the clock: `start < now <= start + 2 days`."""
    if situation.start_time >= situation.now:
        return "no_show_before_start"
    return "no_show_too_late" if situation.now - situation.start_time > NO_SHOW_WINDOW else None


def start_has_offset(situation: Situation) -> str | None:
    """Judge the wanted start: local times are ambiguous, so an offset is required."""
    start = situation.requested_start
    return None if start is None or start.utcoffset() is not None else "start_time_without_offset"


def no_active_command(situation: Situation) -> str | None:
    """Judge whether another command on this appointment has not ended."""
    if situation.active_command is None:
        return None
    return "outcome_in_doubt" if situation.active_command == "uncertain" else "command_in_progress"


def start_in_past(situation: Situation) -> str | None:
    """Advise on a start that has gone by. Never a refusal: availability is Zocdoc's to judge."""
    start = situation.requested_start
    past = start is not None and start.utcoffset() is not None and start < situation.now
    return "start_time_in_past" if past else None


def reason_type_given(situation: Situation) -> str | None:
    """Advise on a cancel without a reason type."""
    return "reason_type_missing" if situation.reason_type is None else None


def reason_text_fits(situation: Situation) -> str | None:
    """Advise on free text beside a type other than the two `other_*` types."""
    other = {chart.CancellationReason.OTHER_PATIENT_REASON, chart.CancellationReason.OTHER_PROVIDER_REASON}
    unexpected = situation.has_reason_text and situation.reason_type not in other
    return "reason_text_without_other_type" if unexpected else None


def _status_rule(command: chart.Command) -> str:
    sources = ", ".join(status for status in chart.Status if status in chart.TOPOLOGY[command])
    if command in {chart.Command.MARK_ARRIVED, chart.Command.MARK_NO_SHOW}:
        return f"Ours: {command} from {sources}; Zocdoc documents no statuses for it."
    return f"Zocdoc reference: {command} from {sources}."


_STATUS_RULES: Final = {command: _status_rule(command) for command in chart.Command}

CHECKS: Final = (
    *(
        Check(name="status", rule=rule, failure=status_allows, commands=frozenset({command}))
        for command, rule in _STATUS_RULES.items()
    ),
    Check(
        name="credential",
        rule="Zocdoc guide: booked with a user credential, only that user may view or modify; booked "
        "machine-to-machine, any of the developer's machine-to-machine credentials.",
        failure=credential_allows,
        needs="credential",
    ),
    Check(
        name="no_show_window",
        rule="Zocdoc reference: no_show needs a start time in the past that is at most 2 days old.",
        failure=no_show_in_window,
        commands=frozenset({chart.Command.MARK_NO_SHOW}),
    ),
    Check(
        name="start_time_offset",
        rule="Zocdoc reference: start_time is ISO 8601 with an offset, such as 2026-12-01T09:00:00-05:00.",
        failure=start_has_offset,
        commands=frozenset({chart.Command.RESCHEDULE}),
        needs="requested_start",
    ),
    Check(
        name="active_command",
        rule="Ours: at most one active command per appointment, because Zocdoc takes no idempotency key.",
        failure=no_active_command,
    ),
)

ADVICE: Final = (
    Check(
        name="start_time_ahead",
        rule="Ours: a visit is usually moved to a time ahead; Zocdoc judges availability, so this is advice.",
        failure=start_in_past,
        commands=frozenset({chart.Command.RESCHEDULE}),
        required=False,
        needs="requested_start",
    ),
    Check(
        name="reason_type",
        rule="Zocdoc reference: cancellation_reason_type is optional but recommended.",
        failure=reason_type_given,
        commands=frozenset({chart.Command.CANCEL}),
        required=False,
    ),
    Check(
        name="reason_text",
        rule="Zocdoc reference: cancellation_reason goes with the two other_* types; "
        "Zocdoc's own guide sends it with another.",
        failure=reason_text_fits,
        commands=frozenset({chart.Command.CANCEL}),
        required=False,
    ),
)

_DATE_TIME: Final = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,6})?)?(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])?"
)
_NOT_A_START: Final = "not an ISO 8601 date and time such as 2026-12-01T09:00:00-05:00"
