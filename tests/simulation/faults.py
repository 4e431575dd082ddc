"""What can go wrong, how often, and which cells of (fault, point, command) a run must have hit."""

from __future__ import annotations

from dataclasses import dataclass

COMMANDS = ("confirm", "cancel", "reschedule", "mark_arrived", "mark_no_show")

POST_FAULTS = {
    "none": 90,
    "connection_refused": 3,
    "no_token": 2,
    "unauthorized_once": 2,
    "unauthorized_twice": 1,
    "forbidden": 1,
    "missing": 1,
    "bad_request": 2,
    "unprocessable": 1,
    "conflict": 6,
    "rate_limited_once": 1,
    "rate_limited": 2,
    "server_error_applied": 2,
    "server_error_not_applied": 2,
    "lost_applied": 3,
    "lost_not_applied": 3,
    "timeout_applied": 2,
    "timeout_not_applied": 2,
    "zombie": 3,
    "late_zombie": 2,
    "unknown_status": 1,
    "odd_status": 1,
    "foreign_answer": 1,
    "unreadable_answer": 1,
    "slow": 3,
    "interrupted_before": 1,
    "interrupted_after": 1,
}
"""Fault of a call that changes an appointment -> its weight."""

GET_FAULTS = {
    "none": 80,
    "read_failed": 7,
    "read_forbidden": 2,
    "read_missing": 3,
    "read_late": 7,
    "read_stale": 3,
}
"""Fault of a read -> its weight. Late: the answer tells of a moment long before it arrives. Stale: an old replica's."""

GET_FAULTS_IN_CONFLICT = {**GET_FAULTS, "none": 45, "read_forbidden": 6, "read_missing": 6, "read_stale": 6}
"""The same for the read that follows a 409, of which there are few."""

LIST_FAULTS = {"none": 95, "list_failed": 5}

IN_TRANSACTION = frozenset(
    {
        "transaction_open",
        "intent_uncommitted",
        "wish_queued",
        "queue_scanned",
        "outcome_open",
        "settlement_open",
        "status_updated",
        "audit_inserted",
        "before_commit",
    }
)
DATABASE_POINTS = IN_TRANSACTION | {"after_commit"}
"""Where the database can fail; `after_commit` is a COMMIT whose reply is lost."""


@dataclass(frozen=True, slots=True)
class Rates:
    """How probable faults are when a labelled point is passed, the provider's acts at a step, and reads at a draw."""

    kill: float = 0.003
    database: float = 0.004
    outage: float = 0.0006
    stall: float = 0.004
    provider: float = 0.012
    sync: float = 0.02


INTENT = ("before_intent", "transaction_open", "intent_uncommitted", "audit_inserted", "before_commit", "after_commit")
SEND = ("intent_committed", "token_fetched", "request_sent", "answer_unread", "answer_arriving")
OUTCOME = (
    "answer_classified",
    "transaction_open",
    "outcome_open",
    "status_updated",
    "audit_inserted",
    "before_commit",
    "after_commit",
    "outcome_committed",
)
SETTLE = (
    "read_returned",
    "transaction_open",
    "settlement_open",
    "status_updated",
    "audit_inserted",
    "before_commit",
    "after_commit",
    "settlement_committed",
)
DELIVER = ("delivery_verified", "transaction_open", "before_commit", "after_commit", "delivery_stored")
PROCESS = (
    "transaction_open",
    "before_commit",
    "after_commit",
    "delivery_claimed",
    "status_updated",
    "audit_inserted",
    "delivery_ended",
)
SUBMIT = ("transaction_open", "wish_queued", "before_commit", "after_commit")
QUEUE = ("transaction_open", "queue_scanned", "audit_inserted", "before_commit", "after_commit", "queue_claimed")
SUBMIT_MANY = ("transaction_open", "before_commit", "after_commit")
TAKE_BACK = ("transaction_open", "audit_inserted", "before_commit", "after_commit")
SCAN = ("claim.recovery_scanned", "claim.transaction_open", "claim.before_commit", "read.read_claimed")
STALLS = {
    "intent": ("before_intent", "after_commit"),
    "send": ("intent_committed", "token_fetched", "request_sent", "answer_unread"),
    "outcome": ("answer_classified", "after_commit", "outcome_committed"),
    "settle": ("read_returned", "after_commit", "settlement_committed"),
    "submit": ("after_commit",),
    "queued send": ("intent_committed", "token_fetched", "request_sent", "answer_unread"),
    "queued outcome": ("answer_classified", "after_commit", "outcome_committed"),
}
STAGES = {
    "intent": INTENT,
    "send": SEND,
    "outcome": OUTCOME,
    "settle": SETTLE,
    "submit": SUBMIT,
    "queued send": SEND,
    "queued outcome": OUTCOME,
}
"""Stages of the story of one command; those of a submitted one as it is dispatched begin with `queued`."""


def legal_cells() -> frozenset[tuple[str, str, str]]:
    """List every (fault, stage.point, command) that can happen; recovery's first steps serve no one command (`-`)."""
    cells = set()
    for command in COMMANDS:
        for stage, points in STAGES.items():
            cells |= {("kill", f"{stage}.{point}", command) for point in points}
            cells |= {("database", f"{stage}.{point}", command) for point in points if point in DATABASE_POINTS}
        cells |= {("stall", f"{stage}.{point}", command) for stage, points in STALLS.items() for point in points}
        for site in ("post", "queued post"):
            cells |= {(fault, site, command) for fault in POST_FAULTS if is_legal(fault, command)}
        cells |= {(fault, "settle.read", command) for fault in GET_FAULTS}
        cells |= {(fault, "conflict.read", command) for fault in GET_FAULTS}
    cells |= {("kill", point, "-") for point in SCAN}
    cells |= {("stall", f"dispatch.{point}", "-") for point in ("after_commit", "queue_claimed")}
    several = {
        "deliver": DELIVER,
        "process": PROCESS,
        "dispatch": QUEUE,
        "withdraw": TAKE_BACK,
        "submit_many": SUBMIT_MANY,
    }
    for stage, points in several.items():
        cells |= {("kill", f"{stage}.{point}", "-") for point in points}
        cells |= {("database", f"{stage}.{point}", "-") for point in points if point in DATABASE_POINTS}
    cells |= {("database", f"claim.{point}", "-") for point in ("transaction_open", "before_commit", "after_commit")}
    cells |= {(fault, "follow.read", "-") for fault in GET_FAULTS}
    cells |= {(fault, "sync.list", "-") for fault in LIST_FAULTS}
    for point in ("transaction_open", "before_commit", "after_commit", "status_updated", "audit_inserted"):
        cells |= {("kill", f"sync.{point}", "-"), ("database", f"sync.{point}", "-")}
    return frozenset(cells)


def is_legal(fault: str, command: str) -> bool:
    """Tell whether a fault can happen to a command: reschedule knows no 409."""
    return not (fault == "conflict" and command == "reschedule")
