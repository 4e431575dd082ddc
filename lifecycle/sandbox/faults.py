"""Faults on demand: what may go wrong between a client and the API, one request at a time."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from enum import StrEnum
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, Self, cast

from lifecycle.sandbox.messages import JSON_TYPE, Json, Reply, Wire, encode, failure
from lifecycle.sandbox.vocabulary import Operation

if TYPE_CHECKING:
    from collections.abc import Mapping

EVERY: Final = "*"

_LEAST_STATUS: Final = 200
_LONGEST: Final = 3600.0  # seconds; nobody waits longer, and it keeps NaN and infinity out
_MOST_STATUS: Final = 599  # proxies answer statuses that HTTP does not name

_PROXY_PAGE: Final = b"<html><head><title>Bad Gateway</title></head><body>Bad Gateway</body></html>"
_BARE: Final = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN})
_FROM_A_PROXY: Final = frozenset({HTTPStatus.BAD_GATEWAY, HTTPStatus.GATEWAY_TIMEOUT})


class Kind(StrEnum):
    """What goes wrong.

    - `answer`: the fault's own status, headers and body stand in for the real answer
    - `reset`, `close`: no answer; the connection ends with a TCP reset, or is closed in order
    - `delay`: the real answer, `seconds` late
    - `truncate`: half of the body is sent, though the length announces all of it, then the connection ends
    - `drip_body`, `drip_headers`: one byte every `seconds`
    - `unknown_status`: the real answer with `value` as `appointment_status`
    - `foreign_id`: the real answer with `value` as `appointment_id`
    - `zombie`: answered at once with `status` (reset when that is 0), applied `seconds` later
    """

    ANSWER = "answer"
    RESET = "reset"
    CLOSE = "close"
    DELAY = "delay"
    TRUNCATE = "truncate"
    DRIP_BODY = "drip_body"
    DRIP_HEADERS = "drip_headers"
    UNKNOWN_STATUS = "unknown_status"
    FOREIGN_ID = "foreign_id"
    ZOMBIE = "zombie"


_MEMBERS: Final[Mapping[str, type | tuple[type, ...]]] = {
    "kind": str,
    "operation": str,
    "appointment_id": str,
    "when": str,
    "times": int,
    "seconds": (int, float),
    "status": int,
    "body": str,
    "repeat": int,
    "content_type": str,
    "headers": dict,
    "value": str,
}


class Moment(StrEnum):
    """Whether the request is left unapplied (`before`) or applied (`after`) when the fault strikes."""

    BEFORE = "before"
    AFTER = "after"


_REPLACING: Final = frozenset({Kind.ANSWER, Kind.RESET, Kind.CLOSE})
_WIRES: Final[Mapping[Kind, Wire]] = {
    Kind.RESET: Wire.RESET,
    Kind.CLOSE: Wire.CLOSE,
    Kind.TRUNCATE: Wire.TRUNCATED,
    Kind.DRIP_BODY: Wire.DRIP_BODY,
    Kind.DRIP_HEADERS: Wire.DRIP_HEADERS,
}
_REWRITTEN: Final[Mapping[Kind, tuple[str, str]]] = {
    Kind.UNKNOWN_STATUS: ("appointment_status", "waitlisted"),
    Kind.FOREIGN_ID: ("appointment_id", "00000000-0000-4000-8000-000000000000"),
}
_DRIPS: Final = frozenset({Kind.DRIP_BODY, Kind.DRIP_HEADERS})


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One fault, armed for the next `times` requests that match.

    `operation` is an `Operation`, or `*` for each of them but `token`. `when` matters to `answer`,
    `reset`, `close` and `delay`; the other kinds but `zombie` always apply the request. `seconds` is
    waited at that moment, whatever the kind, except that drips and zombies read it as told under `Kind`.
    `answer` without a `body` sends what the API would: nothing with 401, 403 and below 400, a proxy's
    HTML page with 502 and 504, the error envelope otherwise. `repeat` makes a huge body of a small one.
    Raises `ValueError` for an unknown operation or a number out of range.
    """

    kind: Kind
    operation: str = EVERY
    appointment_id: str | None = None
    when: Moment = Moment.BEFORE
    times: int = 1
    seconds: float = 0.0
    status: int = 500
    body: str | bytes | None = None
    repeat: int = 1
    content_type: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    value: str = ""

    def __post_init__(self) -> None:
        if self.operation != EVERY and self.operation not in list(Operation):
            raise ValueError(f"no operation is called {self.operation}")
        if not 0 <= self.seconds <= _LONGEST or self.times < 1 or self.repeat < 1:
            raise ValueError("seconds may be 0 to 3600, times and repeat are 1 at least")
        if not (_LEAST_STATUS <= self.status <= _MOST_STATUS or (self.kind == Kind.ZOMBIE and not self.status)):
            raise ValueError(f"{self.status} is no status of an answer")

    @classmethod
    def parse(cls, document: object) -> Self:
        """Return the fault of a JSON object; raises `ValueError` when it is none."""
        if not isinstance(document, dict) or not set(document) <= set(_MEMBERS):
            raise ValueError(f"a fault has the members {', '.join(sorted(_MEMBERS))}")
        for name, value in document.items():
            if isinstance(value, bool) or not isinstance(value, _MEMBERS[name]):
                raise ValueError(f"{name} is of the wrong type")  # noqa: TRY004 - answered as a 400
        chosen = cast("dict[str, Any]", document)
        chosen |= {
            "kind": Kind(document.get("kind", "")),
            "when": Moment(document.get("when", Moment.BEFORE)),
        }
        return cls(**chosen)

    @property
    def replaces(self) -> bool:
        """True when the client gets no part of the real answer."""
        return self.kind in _REPLACING

    @property
    def unapplied(self) -> bool:
        """True when the request is never carried out."""
        return self.replaces and self.when == Moment.BEFORE

    @property
    def pause_before(self) -> float:
        """Seconds to wait before the request is carried out."""
        return self._pause if self.when == Moment.BEFORE else 0.0

    @property
    def pause_after(self) -> float:
        """Seconds to wait between carrying it out and answering."""
        return self._pause if self.when == Moment.AFTER else 0.0

    @property
    def _pause(self) -> float:
        return 0.0 if self.kind in _DRIPS or self.kind == Kind.ZOMBIE else self.seconds

    def matches(self, operation: Operation, appointment_id: str | None) -> bool:
        """Tell whether this fault is meant for such a request."""
        named = self.operation == operation
        every = self.operation == EVERY and operation is not Operation.TOKEN
        return (named or every) and self.appointment_id in (None, appointment_id)

    def reply(self, request_id: str) -> Reply:
        """Return the answer that takes the real one's place."""
        if self.kind in (Kind.RESET, Kind.CLOSE):
            return Reply(0, wire=_WIRES[self.kind])
        if self.kind == Kind.ZOMBIE and not self.status:
            return Reply(0, wire=Wire.RESET)
        content_type, body = self._content(request_id)
        return Reply(self.status, body, self.content_type or content_type, tuple(self.headers.items()))

    def disguise(self, reply: Reply) -> Reply:
        """Return the real answer as this fault sends it."""
        wire = _WIRES.get(self.kind, Wire.PLAIN)
        return Reply(reply.status, reply.body, reply.content_type, reply.headers, wire, self.seconds)

    def rewrite(self, document: Json | None) -> Json | None:
        """Return the answer's JSON with a foreign id or an unknown status, if this fault wants one."""
        if document is None or self.kind not in _REWRITTEN:
            return document
        name, default = _REWRITTEN[self.kind]
        replaced = {name: self.value or default}
        data = document.get("data")
        if isinstance(data, list):
            return document | {"data": [row | replaced for row in data]}
        return document | {"data": data | replaced} if isinstance(data, dict) else document

    def _content(self, request_id: str) -> tuple[str, bytes]:
        if self.body is not None:
            raw = self.body.encode("utf-8", "surrogatepass") if isinstance(self.body, str) else self.body
            return JSON_TYPE, raw * self.repeat
        if self.status in _FROM_A_PROXY:
            return "text/html", _PROXY_PAGE
        if self.status < HTTPStatus.BAD_REQUEST or self.status in _BARE:
            return JSON_TYPE, b""
        return JSON_TYPE, encode(failure(request_id, self.status, "A fault that was asked for."))


class Faults:
    """The faults that wait for their request, in the order they were added. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._armed: list[tuple[Fault, int]] = []

    def add(self, *faults: Fault) -> None:
        """Arm faults; the first one that matches a request strikes it."""
        with self._lock:
            self._armed += [(fault, fault.times) for fault in faults]

    def clear(self) -> None:
        """Disarm every fault."""
        with self._lock:
            self._armed = []

    @property
    def pending(self) -> int:
        """How many strikes are still to come."""
        with self._lock:
            return sum(left for _, left in self._armed)

    def take(self, operation: Operation, appointment_id: str | None) -> Fault | None:
        """Use up and return the fault that strikes this request, if there is one."""
        if not self._armed:
            return None
        with self._lock:
            for index, (fault, left) in enumerate(self._armed):
                if fault.matches(operation, appointment_id):
                    self._armed[index : index + 1] = [(fault, left - 1)] if left > 1 else []
                    return fault
        return None
