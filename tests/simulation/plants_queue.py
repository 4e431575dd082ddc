"""Planted bugs of the queue: what is claimed, sent again, taken back, and counted."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from lifecycle import (
    attempts,
    claiming,
    decisions,
    endings,
    guards,
    models,
    points,
    resources,
    sending,
    withdrawals,
    zocdoc,
)
from tests.simulation import faults
from tests.simulation.planting import Patch, Plant

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from lifecycle import pending


def _requeued_unread() -> list[Patch]:
    original = attempts.make

    def make(client: Any, command: pending.Pending, **given: Any) -> attempts.Attempt:
        attempt = original(client, command, **given)
        if not command.is_submitted or not isinstance(attempt.outcome, zocdoc.Unknown):
            return attempt
        return replace(attempt, outcome=zocdoc.NotSent("timed_out"))

    return [(attempts, "make", make)]


def _claimed_unlocked() -> list[Patch]:
    """Look at the queue in one transaction, and claim in another one, whatever has happened in between."""
    take, scan = claiming.take, claiming._scan
    found: list[Any] = []

    def early(place: Any, *, most: int, clients: Any, command_id: str | None = None) -> decisions.Taken:
        with place.database.read() as connection:
            found[:] = scan(place, connection, most, list(clients), command_id)
        seen = list(found)
        points.reach(points.Point.QUEUE_CLAIMED)
        found[:] = seen
        return take(place, most=most, clients=clients, command_id=command_id)

    return [(claiming, "take", early), (claiming, "_scan", lambda *_a: list(found)), *_unfenced()]


def _withdrawn_unlocked() -> list[Patch]:
    """Look whether a command is queued in one transaction, and withdraw it in another one."""

    def withdraw(place: Any, command_id: str, *, actor: str) -> bool:
        with place.database.read() as connection:
            rows = connection.execute(withdrawals._THIS, {"id": command_id}).mappings().all()
        points.reach(points.Point.QUEUE_CLAIMED)
        with place.database.write() as connection:
            facts = {"actor": actor, "reason_code": withdrawals.WITHDRAWN}
            return len(withdrawals._withdraw(place, connection, rows, **facts).rows) == 1

    return [(withdrawals, "withdraw", withdraw), *_unfenced()]


def _unfenced() -> list[Patch]:
    anyhow = sa.update(models.commands).where(models.commands.c.command_id == sa.bindparam("of_command"))
    return [(endings, "is_queued", lambda *_a: True), (endings, "_WHILE_QUEUED", anyhow)]


def _judged(change: Callable[[Mapping[Any, Any]], dict[str, Any]]) -> Callable[[], list[Patch]]:
    """Change what is known of a command when it is decided about."""

    def patches() -> list[Patch]:
        original = decisions.Decisions.judge

        def judge(self: Any, row: Mapping[Any, Any], locked: Any) -> None:
            original(self, {**row, **change(row)}, locked)

        return [(decisions.Decisions, "judge", judge)]

    return patches


def _unguarded() -> list[Patch]:
    return [(decisions, "guards", SimpleNamespace(decide=lambda _situation: guards.Decision((), ())))]


def _endings_silent() -> list[Patch]:
    return [(endings.Endings, "write", lambda self, connection: endings.change(connection, self.rows))]


_MANY_STALLS = faults.Rates(stall=0.03)
_BUSY_PROVIDER = faults.Rates(provider=0.2)

PLANTS = (
    Plant("requeued_unread", "a submitted command whose answer was lost is queued again at once", _requeued_unread),
    Plant("claimed_unlocked", "a command is claimed as it was seen before", _claimed_unlocked, rates=_MANY_STALLS),
    Plant(
        "withdrawn_unlocked",
        "a command is withdrawn although it is being sent",
        _withdrawn_unlocked,
        rates=_MANY_STALLS,
    ),
    Plant(
        "unguarded_dispatch", "the checks are not run when a command is dispatched", _unguarded, rates=_BUSY_PROVIDER
    ),
    Plant("expiry_ignored", "a command is sent after it has expired", _judged(lambda _row: {"expires_at": None})),
    Plant(
        "cancel_ignored",
        "what was in the air is sent again after its batch was cancelled",
        _judged(lambda _row: {"cancelled_at": None}),
        rates=_MANY_STALLS,
    ),
    Plant(
        "attempt_uncounted",
        "a further attempt has the number of the one before",
        _judged(lambda row: {"attempt": max(row["attempt"] - 1, 0)}),
    ),
    Plant(
        "no_backoff",
        "what had no effect is sent again at once",
        lambda: [(resources.Timing, "resend_after", lambda *_a: timedelta(0))],
    ),
    Plant(
        "queued_and_forgotten",
        "what had no effect is never due again",
        lambda: [(resources.Timing, "resend_after", lambda *_a: timedelta(days=300))],
    ),
    Plant(
        "no_read_before_dispatch",
        "a command is dispatched in doubt without a read",
        lambda: [(decisions.Decisions, "_read_first", decisions.Decisions._decide)],
    ),
    Plant(
        "batch_rejected_by_401",
        "a credential of no use rejects what was submitted",
        lambda: [(sending, "_unauthorised_is_not_sent", lambda attempt: attempt)],
    ),
    Plant("endings_silent", "what ends in the queue leaves no event", _endings_silent),
    Plant(
        "counts_not_kept",
        "a batch does not count what has changed",
        list,
        tamper="DROP TRIGGER lifecycle_batch_counts_update;",
    ),
)
