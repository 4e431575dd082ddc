"""What is done and what happens to one appointment, as a list of timed actions. Pure.

`drawing` draws it, `playing` carries it out with the real engine, `scribe` writes down what the engine would have.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from lifecycle import chart, wishes

if TYPE_CHECKING:
    from datetime import datetime

    from lifecycle.samples.practice import Location

PROCESSING_SECONDS: Final = 1.0
"""From a webhook call until it is processed: the door's worker looks once a second."""


_NAMESPACE: Final = uuid.UUID("0c1f5d0e-5a0a-4c5b-9d2f-6f6a8a4e7b11")

UNCHANGED: Final = "unchanged"
"""The answer to a reschedule that keeps the status."""


class Trouble(StrEnum):
    """What goes wrong with a call; `_BEFORE`: Zocdoc has not applied it, `_AFTER`: it has."""

    RESET_BEFORE = "reset_before"
    RESET_AFTER = "reset_after"
    SILENCE_BEFORE = "silence_before"
    SILENCE_AFTER = "silence_after"
    GATEWAY_BEFORE = "gateway_before"
    GATEWAY_AFTER = "gateway_after"
    UNREACHABLE = "unreachable"
    BUSY = "busy"
    BAD_REQUEST = "bad_request"
    NOT_FOUND = "not_found"


SILENCES: Final = frozenset({Trouble.SILENCE_BEFORE, Trouble.SILENCE_AFTER})
"""There is no answer, and the client alone ends the waiting for it."""


@dataclass(frozen=True, slots=True)
class Effect:
    """How a call in trouble ends: its outcome, why, and what Zocdoc did and said."""

    outcome: str
    reason_code: str
    http_status: int | None = None
    is_applied: bool = False
    has_request_id: bool = False
    fields: tuple[str, ...] = ()


EFFECTS: Final = {
    Trouble.RESET_BEFORE: Effect("unknown", "connection_lost"),
    Trouble.RESET_AFTER: Effect("unknown", "connection_lost", is_applied=True),
    Trouble.SILENCE_BEFORE: Effect("unknown", "timed_out"),
    Trouble.SILENCE_AFTER: Effect("unknown", "timed_out", is_applied=True),
    Trouble.GATEWAY_BEFORE: Effect("unknown", "server_error", 502),
    Trouble.GATEWAY_AFTER: Effect("unknown", "server_error", 502, is_applied=True),
    Trouble.UNREACHABLE: Effect("not_sent", "connection_failed"),
    Trouble.BUSY: Effect("not_sent", "rate_limited", 429, has_request_id=True),
    Trouble.BAD_REQUEST: Effect("rejected", "bad_request", 400, has_request_id=True, fields=("start_time",)),
    Trouble.NOT_FOUND: Effect("rejected", "not_found", 404, has_request_id=True),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """Zocdoc calls the webhook at `at`; it is processed `PROCESSING_SECONDS` later."""

    at: datetime
    update_type: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Looked:
    """Somebody has the appointment tracked, or read again if it is."""

    at: datetime
    actor: str
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Changed:
    """The provider changes the appointment at Zocdoc. `start`: the new one, with its offset; None: as it is."""

    at: datetime
    status: str
    start: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Commands that are submitted together at `at`; who asks, how it comes in, and what it is called."""

    at: datetime
    name: str
    command: str
    actor: str
    source: str

    @property
    def batch_id(self) -> str:
        """Give its id, which follows from its name."""
        return str(uuid.uuid5(_NAMESPACE, self.name))


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """Somebody asks for a command. `answer`: the status that a reschedule is answered with, `unchanged` included.

    `start` is the new start of a reschedule, with its offset; `milliseconds` is how long the call takes. With a `batch`
    it was submitted before, and `at` is when its turn comes.
    """

    at: datetime
    command: str
    actor: str
    source: str
    milliseconds: int
    reason_type: str | None = None
    start: datetime | None = None
    answer: str | None = None
    trouble: Trouble | None = None
    batch: Batch | None = None

    @property
    def pauses(self) -> tuple[float, float]:
        """Milliseconds before Zocdoc acts and after; in silence there is no answer whose way could be told."""
        is_silent = self.trouble in SILENCES
        half = self.milliseconds / 2
        return (2 * half, 0.0) if is_silent else (half, half)

    def wish(self, appointment_id: str) -> wishes.Wish:
        """Give what is wanted, as the engine takes it."""
        payload = {} if self.reason_type is None else {"reason_type": self.reason_type}
        return wishes.Wish(
            appointment_id=appointment_id,
            command=chart.Command(self.command),
            actor=self.actor,
            source=self.source,
            payload=payload if self.start is None else {"start_time": self.start.isoformat()},
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved:
    """An operator decides on the command that needs attention then, if there is one."""

    at: datetime
    actor: str
    resolution: str
    reason_code: str


Action = Told | Looked | Changed | Asked | Resolved


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One appointment: how it was booked, and its actions in order of time. `start` has its offset, the rest is UTC."""

    appointment_id: str
    location: Location
    booked_at: datetime
    start: datetime
    status: str
    confirmation_type: str
    visit_reason_id: str
    actions: tuple[Action, ...]
