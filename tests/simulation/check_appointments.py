"""I1, I12: what is here is what is at Zocdoc, doubt is flagged exactly where there is doubt, free text is gone."""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from typing import TYPE_CHECKING

from tests.simulation import documents

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.simulation.case import Case
    from tests.simulation.evidence import Row

CANARY = "canary"


def check(case: Case) -> Iterator[str]:
    """Go through every appointment's row, and look for free text everywhere."""
    in_doubt = {"uncertain", "needs_attention"}
    doubts = Counter(row["appointment_id"] for row in case.commands.values() if row["state"] in in_doubt)
    for appointment_id, row in case.evidence.appointments.items():
        if bool(row["in_doubt"]) != bool(doubts[appointment_id]):
            yield f"{appointment_id}: in_doubt is {row['in_doubt']}, commands in doubt: {doubts[appointment_id]}"
        if not row["in_doubt"]:
            yield from _same(case, appointment_id, row)
        yield from _drifted(case, appointment_id)
        yield from _arrived(case, appointment_id, row)
    for appointment_id in case.remote.bookings:
        yield from _left_by_sync(case, appointment_id)
    yield from _private(case)


def _same(case: Case, appointment_id: str, row: Row) -> Iterator[str]:
    there = case.remote.bookings[appointment_id].now
    if row["status"] != there.status or bool(row["status_known"]) != (row["status"] in documents.STATUSES):
        yield f"{appointment_id}: I1: here {row['status']}, at Zocdoc {there.status}"
    if datetime.fromisoformat(row["start_time"]) != there.start:
        yield f"{appointment_id}: I1: here {row['start_time']}, at Zocdoc {there.start}"


def _left_by_sync(case: Case, appointment_id: str) -> Iterator[str]:
    """I1 after a full sync without faults: nothing that the list shows is behind, and nothing is untracked."""
    row, booking = case.evidence.after_sync.get(appointment_id), case.remote.bookings[appointment_id]
    if booking.booked_with != "machine":
        return
    if row is None:
        yield f"{appointment_id}: I1: sync did not track it"
    elif (row["status"], datetime.fromisoformat(row["start_time"])) != (booking.now.status, booking.now.start):
        yield f"{appointment_id}: I1: after a sync here {row['status']}, at Zocdoc {booking.now.status}"


def _drifted(case: Case, appointment_id: str) -> Iterator[str]:
    """I1 before the last reads: where our own settled command was the last to act, nothing is left to learn."""
    row, changes = case.evidence.before_sync.get(appointment_id), case.remote.bookings[appointment_id].changes
    last = changes[-1]
    if row is None or row["in_doubt"] or last.request is None:
        return
    intent = case.intent(case.remote.requests[last.request])
    command = case.commands.get(intent.command_id) if intent else None
    if command is None or command["state"] != "applied" or _was_told_of_the_past(case, appointment_id, last.at):
        return
    kinds = {event["event"] for event in case.of_command[command["command_id"]]}
    # An operator's word says less than an answer, and a late answer leaves the row to the read that follows.
    if not kinds & {"command_applied", "arrival_marked"}:
        return
    before = (command["baseline_status"], datetime.fromisoformat(command["baseline_start_time"]))
    if before != (changes[-2].status, changes[-2].start):
        return
    if row["status"] != last.status:
        yield f"{appointment_id}: I1: our command made it {last.status}, here it is {row['status']}"
    is_expected = last.status in documents.RESCHEDULED_TO | {before[0]}
    if is_expected and datetime.fromisoformat(row["start_time"]) != last.start:
        yield f"{appointment_id}: I1: our command moved it to {last.start}, here it is {row['start_time']}"


def _was_told_of_the_past(case: Case, appointment_id: str, since: float) -> bool:
    reads = case.reads[appointment_id]
    return any(read.fault == "read_stale" and (read.returned_at or 0.0) >= since for read in reads)


def _arrived(case: Case, appointment_id: str, row: Row) -> Iterator[str]:
    """Check that `arrived_at` is set by an arrival; an operator's word may come too late for the row."""
    wanted = {"appointment_id": appointment_id, "command": "mark_arrived", "state": "applied"}
    marked = [command for command in case.commands.values() if wanted.items() <= command.items()]
    kinds = {event["event"] for command in marked for event in case.of_command[command["command_id"]]}
    if bool(marked) != (row["arrived_at"] is not None) and "command_resolved" not in kinds:
        yield f"{appointment_id}: {len(marked)} arrivals, arrived_at is {row['arrived_at']}"


def _private(case: Case) -> Iterator[str]:
    for command in case.commands.values():
        if command["state"] not in documents.ACTIVE and CANARY in command["payload"]:
            yield f"{command['appointment_id']}: I12: free text is kept in an ended command"
    for event in case.evidence.events:
        if any(CANARY in value for value in event.values() if isinstance(value, str)):
            yield f"{event['appointment_id']}: I12: free text in the trail"
