"""What those do who submit commands instead of calling: on which terms, in which batches, and what they take back."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from tests.simulation import clock as clocks

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence
    from random import Random

Row = tuple[tuple[str, str], ...]
"""A row of a batch's input: its columns and values."""

Wanted = tuple[str, str, str | None, tuple[tuple[str, str], ...]]
"""Appointment, command, request key, arguments."""

SHARE = 0.5
"""How many of the wishes are submitted."""

IN_BATCHES = 0.12
"""How many of those begin a batch."""

_DISPATCHED = 0.4
"""How often a worker looks at the queue when something is due."""

_EXPIRES_IN = (None, None, None, None, 0.5, 10.0, 60.0, 200.0)
_ROWS_EXPIRE_IN = (1.0, 30.0, 200.0)
_TRANSACTIONS = ("", "", "", "", "caller's", "rolled back")
_INVALID = (
    (("appointment_id", "appointment-unknown"), ("command", "confirm")),
    (("appointment_id", "appointment-1"), ("command", "dance")),
    (("appointment_id", "appointment-1"), ("command", "reschedule")),
    (("appointment_id", "appointment-1"), ("command", "confirm"), ("colour", "red")),
)
"""Rows that cannot become commands."""


class Submitters:
    """Draws what is special about submitting."""

    def __init__(self, rng: Random, clock: clocks.Clock) -> None:
        self._rng, self._clock = rng, clock
        self._batches: list[str] = []

    def terms(self) -> tuple[float | None, str]:
        """Draw in how many seconds a wish expires, and in whose transaction it is submitted."""
        return self._rng.choice(_EXPIRES_IN), self._rng.choice(_TRANSACTIONS)

    def rows(self, batch_id: str, wanted: Sequence[Wanted], *, untracked: Sequence[str]) -> tuple[Row, ...]:
        """Make the input of a batch."""
        self._batches.append(batch_id)
        rows = [self._row(*each) for each in wanted]
        if self._rng.random() < 0.15:
            rows.insert(self._rng.randrange(len(rows)), self._rng.choice(_INVALID))
        if untracked and self._rng.random() < 0.1:
            rows.append((("appointment_id", self._rng.choice(untracked)), ("command", "cancel")))
        if self._rng.random() < 0.1:
            rows.append(rows[0])
        return tuple(rows)

    def upkeep(self, peephole: sqlite3.Connection) -> tuple[str, str]:
        """Draw what is done with the queue, and of what; empty: nothing this time."""
        drawn = self._rng.random()
        if drawn < _DISPATCHED:
            query = "SELECT 1 FROM lifecycle_commands WHERE due_at <= ? LIMIT 1"
            return (
                ("dispatch", "") if peephole.execute(query, (clocks.text(self._clock.now()),)).fetchone() else ("", "")
            )
        if drawn < _DISPATCHED + 0.03:
            query = "SELECT command_id FROM lifecycle_commands WHERE due_at IS NOT NULL ORDER BY command_id"
            rows = peephole.execute(query).fetchall()
            return ("withdraw", self._rng.choice(rows)[0]) if rows else ("", "")
        if drawn < _DISPATCHED + 0.04 and self._batches:
            return "cancel_batch", self._rng.choice(self._batches[-3:])
        return "", ""

    def _row(self, appointment_id: str, command: str, key: str | None, arguments: Row) -> Row:
        row: Row = (("appointment_id", appointment_id), ("command", command), *arguments)
        if key is not None:
            row = (*row, ("request_key", key))
        if self._rng.random() < 0.3:
            until = self._clock.now() + timedelta(seconds=self._rng.choice(_ROWS_EXPIRE_IN))
            row = (*row, ("expires_at", clocks.text(until)))
        return row
