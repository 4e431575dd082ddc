"""Where kills strike: points, and what the remote does meanwhile."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from lifecycle.points import Point

RECOVERY_POINTS: Final = (
    Point.RECOVERY_SCANNED,
    Point.READ_CLAIMED,
    Point.READ_RETURNED,
    Point.SETTLEMENT_OPEN,
    Point.STATUS_UPDATED,
    Point.AUDIT_INSERTED,
    Point.BEFORE_COMMIT,
    Point.AFTER_COMMIT,
    Point.SETTLEMENT_COMMITTED,
    Point.TRANSACTION_OPEN,
    Point.TOKEN_FETCHED,
    Point.REQUEST_SENT,
    Point.ANSWER_ARRIVING,
    Point.ANSWER_UNREAD,
)
COMMAND_POINTS: Final = (
    *(point for point in RECOVERY_POINTS[4:] if point is not Point.SETTLEMENT_COMMITTED),
    Point.BEFORE_INTENT,
    Point.INTENT_UNCOMMITTED,
    Point.INTENT_COMMITTED,
    Point.ANSWER_CLASSIFIED,
    Point.OUTCOME_OPEN,
    Point.OUTCOME_COMMITTED,
)

DEEP_IN_A_DRIP: Final = (2, 5, 20, 60, 100)
"""Bytes of the answer that were read when the process dies; nearly all others would only repeat these."""


@dataclass(frozen=True)
class Weather:
    """What the remote does while the command runs. `sends` names the requests that it makes the product send.

    `tells` is False for a 409 about a command that was applied (a proxy has repeated it): a read must show the effect,
    and nothing shows an arrival, so that is left out; the product counts it as rejected.
    """

    name: str
    sends: tuple[str, ...] = ("post",)
    fault: dict[str, Any] | None = None
    cold: bool = False
    tells: bool = True


WEATHER: Final = (
    Weather("calm"),
    Weather("cold", ("token", "post"), cold=True),
    Weather("drip_body", fault={"kind": "drip_body", "seconds": 0.0005}),
    Weather("drip_headers", fault={"kind": "drip_headers", "seconds": 0.0005}),
    Weather("unauthorized", ("post", "token", "post"), {"kind": "answer", "status": 401}),
    Weather("conflict_applied", ("post", "get"), {"kind": "answer", "status": 409, "when": "after"}, tells=False),
    Weather("conflict", ("post", "get"), {"kind": "answer", "status": 409}),
    Weather("missing", ("post", "get"), {"kind": "answer", "status": 404}),
    Weather("reset", fault={"kind": "reset"}),
    Weather("reset_applied", fault={"kind": "reset", "when": "after"}),
    Weather("failure_applied", fault={"kind": "answer", "status": 502, "when": "after"}),
)


@dataclass(frozen=True)
class Cell:
    """One kill: a command from a status in some weather, killed at the n-th passing of a point."""

    command: str
    status: str
    weather: Weather
    point: Point
    nth: int

    def posts(self, passed: list[Point]) -> int:
        """Count the changing requests among those that had left when the child died."""
        return self.weather.sends[: passed.count(Point.REQUEST_SENT)].count("post")

    def __str__(self) -> str:
        return f"{self.command} from {self.status}, {self.weather.name}, killed at {self.point}#{self.nth}"
