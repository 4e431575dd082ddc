"""A command as a span: what is told of it while it goes on, and what it came to."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from lifecycle import errors, telemetry, zocdoc

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lifecycle.outcomes import Done
    from lifecycle.telemetry import Fact, Span, Telemetry

APPLIED: Final = "applied"
FAILED: Final = "failed"
REPLAYED: Final = "replayed"
"""Nothing was tried: the request key's first outcome was given again."""

_OUTCOMES: Final[dict[type[BaseException], str]] = {
    errors.CommandRejected: "rejected",
    errors.NotSent: "not_sent",
    errors.OutcomeUnknown: "unknown",
    errors.TransitionRefused: "refused",
}
"""What an error says of the command; any other means that it failed."""

_ENDS: Final[dict[type, str]] = {
    zocdoc.Applied: APPLIED,
    zocdoc.Rejected: "rejected",
    zocdoc.NotSent: "not_sent",
    zocdoc.Unknown: "unknown",
}
_NO_FAILURE: Final = frozenset({APPLIED, REPLAYED, "refused"})
"""A check that says no is doing what it is there for."""


class CommandSpan:
    """What is known of a command by and by."""

    __slots__ = ("_is_claimed", "_span", "outcome")

    def __init__(self, span: Span) -> None:
        self._span = span
        self._is_claimed = False
        self.outcome = FAILED

    def claimed(self, command_id: str, attempt: int) -> None:
        """Tell that the intent is committed: this very command is carried out now."""
        self._is_claimed = True
        self._span.set(command_id=command_id, attempt=attempt)

    def done(self, done: Done) -> Done:
        """Tell that it was applied, and give the outcome back."""
        self.outcome = APPLIED if self._is_claimed else REPLAYED
        self._span.set(
            outcome=self.outcome,
            command_id=done.command_id,
            reason_code=done.reason_code,
            zocdoc_request_id=done.zocdoc_request_id,
        )
        return done

    def ended(self, outcome: zocdoc.Outcome) -> None:
        """Tell what came of an attempt that raises nothing, as those of submitted commands do."""
        self.outcome = _ENDS[type(outcome)]
        reason_code = None if isinstance(outcome, zocdoc.Applied) else str(outcome.reason_code)
        self._span.set(
            outcome=self.outcome,
            reason_code=reason_code,
            http_status=outcome.http_status,
            zocdoc_request_id=outcome.request_id,
        )
        if reason_code is not None:
            self._span.fail(reason_code)

    def raised(self, error: BaseException) -> None:
        """Tell what it raised."""
        is_old = isinstance(error, errors.CommandEnded) and not self._is_claimed
        self.outcome = REPLAYED if is_old else _outcome_of(error)
        facts = _facts_of(error)
        self._span.set(outcome=self.outcome, **facts)
        if self.outcome not in _NO_FAILURE:
            self._span.fail(str(facts.get("reason_code") or type(error).__name__))


@contextmanager
def command(hook: Telemetry, *, command: str, appointment_id: str, source: str) -> Iterator[CommandSpan]:
    """Tell of a command while the block carries it out; it is counted and timed by its outcome in the end.

    `hook` is guarded. What the block raises goes on.
    """
    begun = time.perf_counter()
    with hook.span(telemetry.COMMAND, {"command": command, "appointment_id": appointment_id, "source": source}) as span:
        told = CommandSpan(span)
        try:
            yield told
        except BaseException as error:
            told.raised(error)
            raise
        finally:
            labels = {"command": command, "outcome": told.outcome}
            hook.count(telemetry.COMMANDS, 1, labels)
            hook.record(telemetry.COMMAND_DURATION, time.perf_counter() - begun, labels)


def _outcome_of(error: BaseException) -> str:
    return next((outcome for kind, outcome in _OUTCOMES.items() if isinstance(error, kind)), FAILED)


def _facts_of(error: BaseException) -> dict[str, Fact]:
    match error:
        case errors.CommandEnded():
            return {
                "command_id": error.command_id,
                "reason_code": str(error.reason_code),
                "http_status": error.http_status,
                "zocdoc_request_id": error.zocdoc_request_id,
            }
        case errors.TransitionRefused():
            return {"reason_code": str(error.reasons[0])}
        case _:
            return {"error": type(error).__name__}
