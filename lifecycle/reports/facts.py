"""What the figures of a window are: frozen records, without how they are computed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import date, datetime

    from lifecycle.reports.filters import Filters
    from lifecycle.reports.lookups import Lost, Now
    from lifecycle.reports.quantiles import Bin, Spread
    from lifecycle.reports.tallies import Call

OURS: Final = "ours"
PROVIDER: Final = "provider"
"""Who moved an appointment: a command of ours, or Zocdoc or the provider."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Headline:
    """Counts of one window. `lost`: commands that lost an answer in it; `recovered`: those that reading settled."""

    tracked: int
    accepted: int
    applied: int
    refused: int
    rejected: int
    not_sent: int
    lost: int
    recovered: int
    cancelled: int
    no_shows: int
    arrivals: int

    @property
    def applied_share(self) -> float | None:
        """Commands applied, as a part of those that ended; None: none ended."""
        ended = self.applied + self.rejected + self.not_sent
        return self.applied / ended if ended else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Week:
    """Counts of the week that begins with this Monday, UTC; the first and the last may be partly outside the window."""

    week: date
    tracked: int
    applied: int
    refused: int
    rejected: int
    answers_lost: int
    cancelled: int
    no_shows: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Transition:
    """A kind of move: how often, and how long `from_status` had stood, in seconds. `command` None: the provider's."""

    from_status: str
    to_status: str
    command: str | None
    conforming: bool
    count: int
    median_seconds: float
    p90_seconds: float

    @property
    def by(self) -> str:
        """Tell who moved it: `ours` or `provider`."""
        return PROVIDER if self.command is None else OURS


@dataclass(frozen=True, slots=True, kw_only=True)
class WeekOfConfirmations:
    """The confirmations of a week: how long they took, in seconds."""

    week: date
    seconds: Spread


@dataclass(frozen=True, slots=True, kw_only=True)
class Confirmations:
    """Times from the booking (if not told: from when it was tracked) to its first `confirmed`, in seconds."""

    seconds: Spread
    classes: tuple[Bin, ...]
    weeks: tuple[WeekOfConfirmations, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancellations:
    """Cancellations of a week, for one reason type (None: none was given), by us or by the provider."""

    week: date
    reason_type: str | None
    by: str
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """What was tried and not done, how often. `refused_by`: `guard`, before anything was sent, or `zocdoc`."""

    command: str
    status: str
    refused_by: str
    reason_code: str | None
    tries: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandOutcomes:
    """What became of one command in the window, and how long its calls took, in milliseconds.

    `accepted`, `applied`, `rejected`, `not_sent` and `refused` count events of the window; `lost` counts commands that
    lost an answer in it: until now reading has settled `recovered`, a human `resolved`; `waiting` are still read,
    `attention` wait for a human.
    """

    command: str
    accepted: int
    applied: int
    rejected: int
    not_sent: int
    refused: int
    lost: int
    recovered: int
    resolved: int
    waiting: int
    attention: int
    call_ms: Spread


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """All figures. `filters` has the end of the window that was taken; `before` is the window before of equal length.

    `before` is None for a window without a beginning. `entries` counts the statuses that appointments were tracked in.
    """

    filters: Filters
    computed_at: datetime
    environment: str | None
    headline: Headline
    before: Headline | None
    weeks: tuple[Week, ...]
    moves: tuple[Transition, ...]
    entries: Mapping[str, int]
    confirmations: Confirmations
    cancellations: tuple[Cancellations, ...]
    refusals: tuple[Refusal, ...]
    outcomes: tuple[CommandOutcomes, ...]
    slowest_calls: tuple[Call, ...]
    longest_lost: tuple[Lost, ...]
    now: Now

    @property
    def not_conforming(self) -> int:
        """How many moves the chart does not have."""
        return sum(move.count for move in self.moves if not move.conforming)
