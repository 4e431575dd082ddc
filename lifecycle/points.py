"""Labelled points of the program at which a test may stop it. In use they do nothing.

Every claim about crashes is made at one of these points: a test arms them with a function that kills the process,
breaks a connection or hands control to another worker, and goes through all of them. `reach` costs one comparison
otherwise.
"""

from __future__ import annotations

from contextlib import contextmanager
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Point(StrEnum):
    """Where. Those about transactions are passed by every writing transaction, in the order of its life."""

    TRANSACTION_OPEN = "transaction_open"  # the write lock, or the connection, is there
    STATUS_UPDATED = "status_updated"  # the appointment's row is written
    AUDIT_INSERTED = "audit_inserted"  # the event is written
    BEFORE_COMMIT = "before_commit"
    AFTER_COMMIT = "after_commit"

    BEFORE_INTENT = "before_intent"  # a command was asked for, nothing is written
    INTENT_UNCOMMITTED = "intent_uncommitted"  # its row is written, the transaction is open
    INTENT_COMMITTED = "intent_committed"  # nothing is sent yet
    TOKEN_FETCHED = "token_fetched"  # noqa: S105 # a point, no secret
    REQUEST_SENT = "request_sent"  # every byte was handed to the system
    ANSWER_ARRIVING = "answer_arriving"  # some bytes of the answer were read
    ANSWER_UNREAD = "answer_unread"  # the status line and headers were read, the body was not
    ANSWER_CLASSIFIED = "answer_classified"  # the outcome is known to this process only
    OUTCOME_OPEN = "outcome_open"  # the second transaction holds the row's lock
    OUTCOME_COMMITTED = "outcome_committed"

    WISH_QUEUED = "wish_queued"  # a submitted command is written, the transaction is open
    QUEUE_SCANNED = "queue_scanned"  # what is due was locked, the transaction is open
    QUEUE_CLAIMED = "queue_claimed"  # intents, refusals and expiries of what was due are committed

    RECOVERY_SCANNED = "recovery_scanned"  # what is due was listed
    READ_CLAIMED = "read_claimed"  # this process may read
    READ_RETURNED = "read_returned"  # what Zocdoc shows is known to this process only
    SETTLEMENT_OPEN = "settlement_open"  # the settling transaction holds the row's lock
    SETTLEMENT_COMMITTED = "settlement_committed"

    DELIVERY_VERIFIED = "delivery_verified"  # a webhook call is authentic, nothing is written
    DELIVERY_STORED = "delivery_stored"  # its row is committed, it is not answered yet
    DELIVERY_CLAIMED = "delivery_claimed"  # this process may read the appointment
    DELIVERY_ENDED = "delivery_ended"  # its end is committed


_hook: Callable[[Point], None] | None = None


def reach(point: Point) -> None:
    """Pass a point."""
    if _hook is not None:
        _hook(point)


@contextmanager
def armed(hook: Callable[[Point], None]) -> Iterator[None]:
    """For tests: call `hook` at every point that any thread of this process passes, until the block ends."""
    global _hook  # noqa: PLW0603 # one switch for the process is the purpose
    before, _hook = _hook, hook
    try:
        yield
    finally:
        _hook = before
