"""What callers were told agrees with what is recorded and with what Zocdoc did; a request key acts once."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING

from tests.simulation import documents

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.simulation.case import Case
    from tests.simulation.evidence import Call, Row

SENDING = {"command", "resolve", "dispatch"}
"""Kinds of calls that may send something."""

NOTHING_SENT = {"TransitionRefused", "CommandInProgress", "RequestKeyReused", "AppointmentNotFound"}
STATE_OF = {"Done": "applied", "NotSent": "not_sent", "CommandRejected": "rejected"}


def check(case: Case) -> Iterator[str]:
    """Go through every call and every request key."""
    sent = Counter(request.caller for request in case.remote.requests)
    for call in case.evidence.calls:
        where = f"{call.appointment_id}: {call.actor} was told {call.result}"
        if call.result == "ConstraintViolated":
            yield f"{where}: the database had to prevent it"
        if sent[call.actor] and (call.kind not in SENDING or call.result in NOTHING_SENT):
            yield f"{where}, but something was sent"
        if call.kind == "command":
            yield from _told(case, where, call)
        elif call.kind in {"submit", "withdraw"}:
            yield from _queued(case, where, call)
    yield from _keys(case)


def _told(case: Case, where: str, call: Call) -> Iterator[str]:
    command = case.commands.get(call.command_id or "")
    if call.result == "TransitionRefused":
        yield from _refused(case, where, call)
    if call.result in STATE_OF and (command is None or command["state"] != STATE_OF[call.result]):
        yield f"{where}, the command is {command and command['state']}"
    if call.result in {"Done", "CommandRejected", "OutcomeUnknown"} and command is not None:
        if (command["request_key"], command["command"]) != (call.key, call.command):
            yield f"{where}, which is the outcome of another wish ({command['command']}, {command['request_key']})"
        kinds = {event["event"] for event in case.of_command[command["command_id"]]}
        if call.told.get("state") == "uncertain" and "outcome_lost" not in kinds:
            yield f"{where}, the trail does not know of it"


def _queued(case: Case, where: str, call: Call) -> Iterator[str]:
    """Check what was told of the queue: what is in it, what is not, and what was taken back."""
    command = case.commands.get(call.told.get("command_id", call.command_id) or "")
    if call.kind == "withdraw":
        kinds = {(event["event"], event["actor"]) for event in case.of_command[call.command_id]}
        if call.result == "Done" and bool(call.told["answer"]) != (("command_withdrawn", call.actor) in kinds):
            yield f"{where}, {call.told['answer']}: the trail says {sorted(kinds)}"
    elif call.result == "RolledBackError":
        if command is not None and command["request_key"] is None:
            yield f"{where}, but the command is there"
    elif call.result == "Done":
        if command is None or (command["command"], command["request_key"]) != (call.command, call.key):
            yield f"{where}, the command is {command and command['command']}"
    elif call.result == "CommandInProgress" and not call.transaction:
        yield from _refused(case, where, call)


def _refused(case: Case, where: str, call: Call) -> Iterator[str]:
    own = [event["event"] for event in case.events[call.appointment_id] if event["actor"] == call.actor]
    if "command_refused" not in own:
        yield f"{where}, the refusal is not in the trail"
    reasons = call.told.get("reasons", ())
    if "status_not_allowed" in reasons and call.told.get("status") in documents.COMMAND_FROM[call.command]:
        yield f"{where} in status {call.told.get('status')}"
    if "credential_not_allowed" in reasons and case.remote.bookings[call.appointment_id].booked_with == "machine":
        yield f"{where} for its credential"


def _keys(case: Case) -> Iterator[str]:
    by_key: dict[str, list[Row]] = defaultdict(list)
    for command in case.commands.values():
        by_key[command["request_key"]].append(command)
    by_key.pop(None, None)  # type: ignore[call-overload] # commands without a key
    for key, commands in by_key.items():
        where = f"{commands[0]['appointment_id']}: request key {key}"
        acted = sum(command["state"] not in documents.WITHOUT_EFFECT for command in commands)
        if acted > 1:
            yield f"{where}: {acted} commands acted"
        requests = [request for command in commands for request in case.requests[command["command_id"]]]
        effects = [request for request in requests if request.has_effect]
        if len(effects) > 1 and not any(effect.fault == "late_zombie" or case.is_undone(effect) for effect in effects):
            yield f"{where}: I2: {len(effects)} effects"
