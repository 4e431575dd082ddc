"""What may go wrong: at a point of the program, at the remote, or by what somebody else does meanwhile."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from tests.exhaustive.world import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Mapping

SLOW: Final = 2.5 * PATIENCE
LONG: Final = 10**6
"""More often than any call is repeated."""

DATABASE_FAULTS: Final = ("statement_fails", "commit_fails", "commit_unheard", "database_down")
"""The next statement; the next COMMIT, not carried out or carried out unheard; everything from here on."""

NEEDS: Final = {
    "statement_fails": "statement",
    "commit_fails": "commit",
    "commit_unheard": "commit",
    "database_down": "statement",
}
"""What must come after a point for the fault to show there."""


@dataclass(frozen=True, slots=True)
class AtPoint:
    """Something happens when a point is passed for the `nth` time."""

    action: str
    point: str
    nth: int

    def __str__(self) -> str:
        return f"{self.action}@{self.point}#{self.nth}"


@dataclass(frozen=True, slots=True)
class Remote:
    """The call itself goes wrong, as `REMOTE` says under this name."""

    name: str

    def __str__(self) -> str:
        return self.name


Fault = AtPoint | Remote


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How a remote fault is made: with which client, and by which faults of the stand-in."""

    client: str = "main"
    operation: str = ""
    arm: tuple[Mapping[str, Any], ...] = field(default=())


def _answer(status: int, when: str = "before", times: int = 1, **more: Any) -> Recipe:
    return Recipe(arm=({"kind": "answer", "status": status, "when": when, "times": times, **more},))


def _odd(kind: str, when: str = "before", **more: Any) -> Recipe:
    return Recipe(arm=({"kind": kind, "when": when, **more},))


def _token(status: int, **more: Any) -> Recipe:
    fault = {"kind": "answer", "status": status, "times": LONG, **more}
    return Recipe(client="cold", operation="token", arm=(fault,))


def _slow(kind: str, when: str, seconds: float) -> Recipe:
    return Recipe(client="hasty", arm=({"kind": kind, "when": when, "seconds": seconds},))


_BODIES: Final[dict[str, dict[str, Any]]] = {
    "empty": {"body": ""},
    "html": {"body": "<html><body>Sign in</body></html>", "content_type": "text/html"},
    "list": {"body": "[1]"},
    "wrong_types": {"body": '{"request_id": 7, "data": {"appointment_id": 7, "appointment_status": []}}'},
    "no_data": {"body": '{"request_id": "rq"}'},
    "not_utf8": {"body": "{\ud800}"},
    "nested": {"body": "[", "repeat": 100_000},
    "huge": {"body": " " * 1024, "repeat": 1025},
}

REMOTE: Final[dict[str, Recipe]] = {
    "refused": Recipe(client="refused"),
    "token_refused": _token(401),
    "token_wrong_audience": _token(403),
    "token_server_error": _token(500),
    "token_unreadable": _token(200, body="{}"),
    "token_limited": _token(429),
    "token_reset": Recipe(client="cold", operation="token", arm=({"kind": "reset", "times": LONG},)),
    **{f"answered_{status}": _answer(status) for status in (400, 403, 404, 409, 422)},
    "answered_401_once": _answer(401),
    "answered_401_twice": _answer(401, times=2),
    "answered_429_once": _answer(429),
    "answered_429_for_long": _answer(429, times=LONG),
    **{
        f"answered_{status}_{when}": _answer(status, when)
        for status in (201, 204, 302, 307, 408, 500, 502, 503, 504)
        for when in ("before", "after")
    },
    **{
        f"{name}_body_{when}": _answer(200, when, **body)
        for name, body in _BODIES.items()
        for when in ("before", "after")
    },
    **{f"{kind}_{when}": _odd(kind, when) for kind in ("reset", "close") for when in ("before", "after")},
    "truncated": _odd("truncate"),
    "foreign_id": _odd("foreign_id"),
    "unknown_status": _odd("unknown_status"),
    "late_answer": _slow("delay", "after", SLOW),
    "late_effect": _slow("delay", "before", SLOW),
    "dripped_body": _slow("drip_body", "before", PATIENCE / 10),
    "dripped_headers": _slow("drip_headers", "before", PATIENCE / 10),
    "zombie_reset": _odd("zombie", status=0),
    "zombie_502": _odd("zombie", status=502),
    "zombie_empty_200": _odd("zombie", status=200, body=""),
}
"""The faults of the stand-in for the call of a command."""

READS: Final[dict[str, Recipe]] = {
    "refused": Recipe(client="refused"),
    "token_refused": _token(401),
    "reset": _odd("reset", times=LONG),
    "reset_once": _odd("reset"),
    "close": _odd("close", times=LONG),
    "truncated": _odd("truncate", times=LONG),
    "foreign_id": _odd("foreign_id"),
    "unknown_status": _odd("unknown_status"),
    "slow": _slow("delay", "before", SLOW),
    **{f"answered_{status}": _answer(status) for status in (204, 302, 400, 403, 404, 409, 422, 500)},
    "answered_401_twice": _answer(401, times=2),
    "answered_429_for_long": _answer(429, times=LONG),
    "answered_503_once": _answer(503),
    "answered_503_for_long": _answer(503, times=LONG),
    **{f"{name}_body": _answer(200, **body) for name, body in _BODIES.items()},
}
"""The faults of the stand-in for one read of recovery."""

PROVIDER: Final[dict[str, dict[str, Any]]] = {
    "cancels": {"status": "cancelled"},
    "confirms": {"status": "confirmed"},
    "marks_no_show": {"status": "no_show"},
    "moves": {"status": "rescheduled", "start_time": "2031-04-01T10:00:00+02:00"},
    "moves_there": {"start_time": "2031-03-01T09:00:00-05:00"},
    "touches": {},
    "invents_a_status": {"status": "waitlisted"},
    "takes_it_away": {"booked_by": "user:9"},
}
"""What the provider may do meanwhile."""
