"""I5, I6, I7, I10, I11: the events fold to the status, are chained, conform as documented, stay, and are in order."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tests import trail
from tests.simulation import documents

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from tests.simulation.case import Case
    from tests.simulation.evidence import Row
    from tests.simulation.remote import Read

BUSY = {"command_in_progress", "outcome_in_doubt"}
"""Reasons of a refusal that name another command."""


def check(case: Case) -> Iterator[str]:
    """Go through every appointment's events, for every prefix."""
    for appointment_id, events in case.events.items():
        status = yield from _folded(events)
        stored = case.evidence.appointments[appointment_id]["status"]
        if stored != status:
            yield f"{appointment_id}: I5: the row says {stored}, the trail {status}"
        yield from _in_order(case, events)
    for appointment_id in case.evidence.appointments.keys() - case.events.keys():
        yield f"{appointment_id}: I5: a row without a trail"
    yield from _kept(case)


def _folded(events: list[Row]) -> Generator[str, None, str | None]:
    status: str | None = None
    head, moment = "0" * 64, 0.0
    for number, event in enumerate(events, start=1):
        where = f"{event['appointment_id']}/{event['appointment_seq']}"
        if event["appointment_seq"] != number:
            yield f"{where}: I6: a gap before it"
        if event["prev_hash"] != head or event["hash"] != trail.hash_of(event):
            yield f"{where}: I6: the chain is broken"
        if event["at"] < moment:
            yield f"{where}: I6: recorded before the event before it"
        if event["from_status"] != status:
            yield f"{where}: I5: begins at {event['from_status']}, the trail is at {status}"
        if event["event"] not in documents.MOVING and status not in {None, event["to_status"]}:
            yield f"{where}: I5: {event['event']} must not move the status"
        if bool(event["conforming"]) != documents.conforms(event):
            move = f"{event['from_status']}->{event['to_status']}"
            yield f"{where}: I7: {event['event']} {move} is called conforming={event['conforming']}"
        status, head, moment = event["to_status"], event["hash"], event["at"]
    return status


def _kept(case: Case) -> Iterator[str]:
    """I11: what another process saw at any time is still there, unchanged."""
    most = 0
    for request in case.remote.requests:
        seen, events = request.witness.head, case.events[request.appointment_id]
        most = max(most, request.witness.rows)
        if seen and (len(events) < seen[0] or events[seen[0] - 1]["hash"] != seen[1]):
            yield f"{request.appointment_id}: I11: event {seen[0]} is not the one that was seen before"
    if most > len(case.evidence.events):
        yield "-: I11: audit rows became fewer"


def _in_order(case: Case, events: list[Row]) -> Iterator[str]:
    known, active = None, ""
    doubts: set[str] = set()
    for event in events:
        where = f"{event['appointment_id']}/{event['appointment_seq']}"
        yield from _in_turn(case, where, event, active, doubts)
        if event["event"] in {"appointment_tracked", "appointment_observed"}:
            if active:
                yield f"{where}: I10: an observation was stored while a command was active"
            if known and event["occurred_at"] and event["occurred_at"] < known:
                yield f"{where}: I10: a modification of {event['occurred_at']} over one of {known}"
            known = event["occurred_at"] or known
            if case.told(event) != (event["to_status"], event["occurred_at"]):
                yield f"{where}: observed {event['to_status']}, which Zocdoc did not tell"
        if event["event"] in documents.ACCEPTED:
            active = event["command_id"]
        elif event["command_id"] == active and _releases(event):
            active = ""


def _releases(event: Row) -> bool:
    """Tell whether nothing of an active command is in the air after an event: it has ended, or is queued again."""
    kinds = {*documents.ENDING, "command_requeued"}
    return event["event"] in kinds or documents.overrules(event)


def _in_turn(case: Case, where: str, event: Row, active: str, doubts: set[str]) -> Iterator[str]:
    """I4, and after an outcome that nobody could tell: nothing is accepted before a read."""
    if event["event"] == "attention_needed":
        doubts.add(event["command_id"])
    elif event["event"] in {"command_resolved", "command_retried", "late_answer_received"}:
        doubts.discard(event["command_id"])
    if event["event"] in documents.ACCEPTED and active:
        yield f"{where}: I4: accepted while {active} is active"
    if event["event"] in {"command_accepted", "command_resent"} and doubts:
        reads = case.reads_of(event["appointment_id"], 0.0, event["at"])
        if not any(_is_first(case, event, read) for read in reads):
            yield f"{where}: accepted in doubt without a read"
    if event["event"] in documents.ACCEPTED and event["from_status"] not in documents.COMMAND_FROM[event["command"]]:
        yield f"{where}: {event['command']} was accepted in status {event['from_status']}"
    yield from _refused(case, where, event)


def _refused(case: Case, where: str, event: Row) -> Iterator[str]:
    is_busy = event["event"] == "command_refused" and BUSY & set(json.loads(event["details"])["reasons"])
    if is_busy and not case.was_active(event["appointment_id"], event["at"]):
        yield f"{where}: refused for an active command, but there is none"


def _is_first(case: Case, event: Row, read: Read) -> bool:
    """Tell whether a read is the one that goes before an acceptance in doubt: its caller's, or a worker's."""
    if not case.is_submitted(case.commands[event["command_id"]]):
        return str(event["actor"]) == read.caller
    call = case.calls.get(read.caller)
    earlier = case.events[event["appointment_id"]][: event["appointment_seq"]]
    since = max(each["at"] for each in earlier if each["event"] == "attention_needed")
    return read.at >= since and (call is None or call.kind == "dispatch")
