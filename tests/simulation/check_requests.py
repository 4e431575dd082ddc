"""I2, I3, I4, I16, I17: every request has one live, committed intent, and no command sends more than it may."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import TYPE_CHECKING

from tests.simulation import documents

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.simulation.case import Case
    from tests.simulation.evidence import Row
    from tests.simulation.remote import Request

READS_AT_MOST = 3 + 8
"""Reads that one lost answer may cost: three that tell, eight that fail."""

SPARE_READS = 20


def check(case: Case) -> Iterator[str]:
    """Go through every request, every read, and the requests of every command."""
    for request in case.remote.requests:
        yield from _request(case, request)
    for read in case.remote.reads:
        if read.is_locked:
            yield f"{read.appointment_id}: a transaction is open while HTTP is in the air (read {read.number})"
        call, booking = case.calls.get(read.caller), case.remote.bookings.get(read.appointment_id)
        # Of an appointment that nobody tracks yet the product cannot know who booked it.
        is_told = call is not None and call.kind in {"track", "command", "resolve"}
        if is_told and booking is not None and read.identity != booking.booked_with:
            yield f"{read.appointment_id}: read {read.number} was made with the credential of {read.identity}"
    for command_id, requests in case.requests.items():
        if command_id in case.commands:
            yield from _attempts(case, case.commands[command_id], requests)
    yield from _storm(case)


def _request(case: Case, request: Request) -> Iterator[str]:
    where = f"{request.appointment_id}: request {request.number} ({request.operation} by {request.caller})"
    if request.witness.is_locked:
        yield f"{where}: a transaction is open while HTTP is in the air"
    if len(request.witness.active) > 1:
        yield f"{where}: I4: {len(request.witness.active)} active commands"
    if request.identity != case.remote.bookings[request.appointment_id].booked_with:
        yield f"{where}: sent with the credential of {request.identity}"
    intent = case.intent(request)
    if intent is None or intent.command_id not in case.commands:
        yield f"{where}: I3: no committed intent of its own, but {request.witness.active}"
        return
    command = case.commands[intent.command_id]
    if intent.state != "sending":
        yield f"{where}: I17: sent although its command is {intent.state}"
    if intent.attempt > command["attempt"] or command["command"] != request.operation:
        yield f"{where}: sent as attempt {intent.attempt} of {command['command']}"
    wanted = json.loads(command["payload"]).get("start_time")
    if request.start_time != wanted:
        yield f"{where}: start {request.start_time} was sent, {wanted} was wanted"


def _attempts(case: Case, command: Row, requests: list[Request]) -> Iterator[str]:
    where = f"{command['appointment_id']}: command {command['command_id']} ({command['command']})"
    processed = [request for request in requests if not request.before_processing]
    if len(processed) > command["attempt"]:
        yield f"{where}: I2: {len(processed)} requests in {command['attempt']} attempts"
    if len(requests) > 2 * command["attempt"]:
        yield f"{where}: I16: {len(requests)} requests"
    effects = [request for request in processed if request.has_effect]
    unseen = [request for request in effects[:-1] if request.fault != "late_zombie" and case.is_undone(request)]
    case.verdict.undone += len(unseen)
    if any(request.fault != "late_zombie" and request not in unseen for request in effects[:-1]):
        yield f"{where}: I2: {len(effects)} effects"
    for first, second in pairwise(processed):
        between = case.reads_of(command["appointment_id"], first.at, second.at)
        if not between or documents.shows(command, between[-1]):
            yield f"{where}: I2: sent again without a read that shows no effect"


def _storm(case: Case) -> Iterator[str]:
    lost = sum(event["event"] == "outcome_lost" for event in case.evidence.events)
    reads = sum(read.site in {"settle", "calm"} for read in case.remote.reads)
    if reads > READS_AT_MOST * lost + len(case.evidence.appointments) + case.evidence.kills + SPARE_READS:
        yield f"-: I16: {reads} reads for {lost} lost answers"
