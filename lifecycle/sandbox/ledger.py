"""What was asked of the stand-in, in order: the witness that tests count effects with."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lifecycle.sandbox import bodies
from lifecycle.sandbox.vocabulary import Operation

if TYPE_CHECKING:
    from lifecycle.sandbox.messages import Json


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One request.

    `answered` is the status, `"reset"` or `"none"` (closed without an answer). `effect` tells that the
    request changed state. A late entry (`late`) is the second half of a zombie: its request was answered
    long before. `at` is monotonic seconds; `subject` is whose token it was, `None` without a valid one.
    The raw body of a token request is not kept, because it carries a secret.
    """

    operation: str
    method: str
    path: str
    query: str
    raw: bytes
    appointment_id: str | None
    answered: int | str
    effect: bool
    request_id: str
    subject: str | None
    at: float
    late: bool = False

    @property
    def body(self) -> object:
        """The body as JSON, or `None` when it is not JSON."""
        return bodies.parse(self.raw)

    def document(self) -> Json:
        """Return the entry as the control endpoint shows it."""
        return {
            "operation": self.operation,
            "method": self.method,
            "path": self.path,
            "query": self.query,
            "body": self.body,
            "raw": self.raw.decode("utf-8", "replace"),
            "appointment_id": self.appointment_id,
            "answered": self.answered,
            "effect": self.effect,
            "request_id": self.request_id,
            "subject": self.subject,
            "at": self.at,
            "late": self.late,
        }


class Ledger:
    """An append-only, thread-safe list of entries."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._entries: list[Entry] = []
        self._effects: Counter[tuple[str | None, str]] = Counter()

    def append(self, entry: Entry) -> None:
        """Add one entry."""
        with self._lock:
            self._entries.append(entry)
            if entry.effect:
                self._effects[entry.appointment_id, entry.operation] += 1

    def entries(self, *, operation: str | None = None, appointment_id: str | None = None) -> list[Entry]:
        """Return the entries so far, in order, of one operation and one appointment if given."""
        with self._lock:
            found = self._entries.copy()
        return [
            entry
            for entry in found
            if operation in (None, entry.operation) and appointment_id in (None, entry.appointment_id)
        ]

    def effects(self, appointment_id: str, operation: str | None = None) -> int:
        """Return how many requests changed this appointment, by one operation if given."""
        operations = Operation if operation is None else (operation,)
        return sum(self._effects[appointment_id, name] for name in operations)

    def all_effects(self) -> dict[str, dict[str, int]]:
        """Return the number of effects by appointment and operation."""
        with self._lock:
            counted = list(self._effects.items())
        result: dict[str, dict[str, int]] = {}
        for (appointment_id, operation), count in counted:
            result.setdefault(appointment_id or "", {})[operation] = count
        return result
