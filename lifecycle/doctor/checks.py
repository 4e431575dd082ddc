"""What a check finds, as a record."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lifecycle.database import Database
    from lifecycle.resources import Clients

AT_MOST: Final = 10_000
"""Nothing is counted further: the reader needs to know that it is many."""

Fact = str | int | float | bool | tuple[str, ...] | None


class Severity(StrEnum):
    """How much it matters when a check finds something."""

    ERROR = "error"  # something does not work: act now
    WARNING = "warning"  # it works, and somebody should look
    ADVICE = "advice"


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One look at one thing. `ok`: well, or not, or None: it could not be looked at, and `problem` says why.

    `problem` is what was found, `severity` how much it matters, `remedy` what to do; None when it is well. `facts` are
    numbers, codes, names and instants (ISO 8601, UTC), never a secret and nothing of a patient.
    """

    name: str
    ok: bool | None
    severity: Severity | None
    facts: Mapping[str, Fact]
    problem: str | None
    remedy: str | None

    @property
    def is_failure(self) -> bool:
        """Tell whether something does not work."""
        return self.ok is False and self.severity is Severity.ERROR


@dataclass(frozen=True, slots=True)
class Installation:
    """What is examined. `dispatch`: who carries submitted commands out, as `Lifecycle` takes it."""

    database: Database
    clients: Clients
    dispatch: str


def well(name: str, **facts: Fact) -> Check:
    """Make the check of something that is well."""
    return Check(name=name, ok=True, severity=None, facts=facts, problem=None, remedy=None)


def unseen(name: str, why: str, remedy: str | None = None, **facts: Fact) -> Check:
    """Make the check of something that could not be looked at, and tell why."""
    return Check(name=name, ok=None, severity=None, facts=facts, problem=why, remedy=remedy)


def found(name: str, severity: Severity, problem: str, remedy: str, **facts: Fact) -> Check:
    """Make the check of something that is not well."""
    return Check(name=name, ok=False, severity=severity, facts=facts, problem=problem, remedy=remedy)


def many(count: int) -> str:
    """Write a bounded count."""
    return f"{count} or more" if count >= AT_MOST else str(count)


def instant(at: datetime) -> str:
    """Write an instant for programs."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def minute(at: datetime) -> str:
    """Write an instant for people."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%MZ")
