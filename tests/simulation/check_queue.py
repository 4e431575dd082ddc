"""What was submitted: sent again only after what proves that it had no effect, never too late; batches add up."""

from __future__ import annotations

from collections import Counter, defaultdict
from itertools import pairwise
from typing import TYPE_CHECKING

from tests.simulation import clock, documents

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.simulation.case import Case
    from tests.simulation.evidence import Row

SEND_WINDOW = 15.0
BACKOFF, LONGEST_BACKOFF = 5.0, 600.0
ATTEMPTS_AT_MOST = 1 + 15
BY_DISPATCH = {"command_accepted", "command_resent"}

RAISED = {
    "applied": "Done",
    "rejected": "CommandRejected",
    "not_sent": "NotSent",
    "refused": "TransitionRefused",
    "withdrawn": "CommandWithdrawn",
    "expired": "CommandExpired",
    "needs_attention": "OutcomeUnknown",
}
"""State of a command -> what its handle gives or raises."""


def check(case: Case) -> Iterator[str]:
    """Go through every submitted command, and every batch."""
    of_batch: dict[str, list[Row]] = defaultdict(list)
    for command in case.commands.values():
        if command["batch_id"] is not None:
            of_batch[command["batch_id"]].append(command)
        if case.is_submitted(command):
            where = f"{command['appointment_id']}: command {command['command_id']} ({command['command']})"
            yield from _in_time(case, where, command)
            yield from _requeued(case, where, command)
    for batch in case.evidence.batches.values():
        yield from _batch(case, batch, of_batch[batch["batch_id"]])
    for call in case.evidence.calls:
        state = case.commands[call.command_id]["state"] if call.kind == "result" and call.command_id else ""
        if state and call.result not in {RAISED[state], "DatabaseUnavailable"}:
            yield f"{call.appointment_id}: its handle gave {call.result}, but it is {state}"


def _in_time(case: Case, where: str, command: Row) -> Iterator[str]:
    """Check that it was not sent after its time, nor expired before it."""
    if command["expires_at"] is None:
        return
    expires_at = clock.seconds(command["expires_at"])
    for event in case.of_command[command["command_id"]]:
        if event["event"] in BY_DISPATCH and event["at"] >= expires_at:
            yield f"{where}: sent {event['at'] - expires_at:.1f} s after it had expired"
        if event["event"] == "command_expired" and event["at"] < expires_at:
            yield f"{where}: expired {expires_at - event['at']:.1f} s too early"
    for request in case.requests[command["command_id"]]:
        if request.sends is not None and request.at > expires_at + SEND_WINDOW:
            yield f"{where}: request {request.number} left {request.at - expires_at:.1f} s after it had expired"


def _requeued(case: Case, where: str, command: Row) -> Iterator[str]:
    """I2: it is queued again only after an attempt that Zocdoc did not process, or that reads proved; and it waits."""
    attempt = 0
    events = case.of_command[command["command_id"]]
    for event, following in pairwise([*events, {"event": "", "at": 0.0}]):
        attempt += event["event"] in documents.ACCEPTED
        if event["event"] != "command_requeued":
            continue
        sent = [each for each in case.requests[command["command_id"]] if each.sends == (command["command_id"], attempt)]
        processed = [request.number for request in sent if not request.before_processing]
        if processed and event["reason_code"] != "proved_not_applied":
            yield f"{where}: I2: queued again ({event['reason_code']}) although request {processed[0]} may have acted"
        pause = min(BACKOFF * 2.0 ** (attempt - 1), LONGEST_BACKOFF)
        if following["event"] == "command_resent" and following["at"] - event["at"] < pause - 0.001:
            yield f"{where}: I16: attempt {attempt + 1} after {following['at'] - event['at']:.1f} s"
    if command["attempt"] > ATTEMPTS_AT_MOST:
        yield f"{where}: I16: {command['attempt']} attempts"


def _batch(case: Case, batch: Row, commands: list[Row]) -> Iterator[str]:
    where = f"-: batch {batch['batch_id']}"
    errors = [row for row in case.evidence.batch_errors if row["batch_id"] == batch["batch_id"]]
    rows = sorted(row["batch_row"] for row in [*commands, *errors])
    if rows != list(range(1, batch["total"] + 1)) or batch["invalid"] != len(errors):
        yield f"{where}: I5: {batch['total']} rows were taken, {batch['invalid']} of them invalid; there are {rows}"
    stored = [row for row in case.evidence.batch_counts if row["batch_id"] == batch["batch_id"]]
    counted = {state: sum(row[state] for row in stored) for state in documents.ENDED | documents.ACTIVE}
    states = Counter(command["state"] for command in commands)
    if Counter(counted) != states:
        yield f"{where}: I5: its counts are {counted}, its commands {dict(states)}"
    given = {
        call.rows for call in case.evidence.calls if (call.kind, call.batch_id) == ("submit_many", batch["batch_id"])
    }
    if batch["submitted_at"] is not None and {batch["total"]} != given:
        yield f"{where}: {batch['total']} rows were taken of {given}"
    told = [
        call.result for call in case.evidence.calls if (call.kind, call.batch_id) == ("submit_many", batch["batch_id"])
    ]
    if batch["submitted_at"] is None and batch["cancelled_at"] is None and "Done" in told:
        yield f"{where}: its submitter was told that all of it was taken"
    if batch["cancelled_at"] is not None:
        yield from _cancelled(case, where, clock.seconds(batch["cancelled_at"]), commands)


def _cancelled(case: Case, where: str, since: float, commands: list[Row]) -> Iterator[str]:
    for command in commands:
        for event in case.of_command[command["command_id"]]:
            if event["event"] in BY_DISPATCH and event["at"] > since:
                yield f"{where}: {command['command_id']} was sent {event['at'] - since:.1f} s after it was cancelled"
