"""The evidence of one world, put in order for the checks."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

from tests.simulation import clock

if TYPE_CHECKING:
    from tests.simulation.evidence import Call, Evidence, Row
    from tests.simulation.remote import Change, Intent, Read, Remote, Request

RECOVERING = frozenset({"settle", "calm"})
"""Where reads are made that settle a command."""

REPLICA_LAG = 5.0
"""Seconds by which a read may tell of the past."""


@dataclass(slots=True)
class Verdict:
    """What was found: violations, and what was counted apart because the promise does not cover it.

    A late zombie is a request that took effect after its command was taken for not applied: it must be flagged, unless
    nothing of it could be seen. An effect is undone when the provider puts back, to the letter, what a command did
    before anybody looked.
    """

    violations: list[str] = field(default_factory=list)
    zombies_flagged: int = 0
    zombies_invisible: int = 0
    undone: int = 0


class Case:
    """Evidence by appointment and by command. `requests` of a command are those sent while it was active, for it."""

    def __init__(self, evidence: Evidence) -> None:
        self.evidence = evidence
        self.verdict = Verdict()
        self.remote: Remote = evidence.remote
        self.commands = evidence.commands
        self.calls: dict[str, Call] = {call.actor: call for call in evidence.calls}
        self.of_appointment: dict[str, list[Row]] = defaultdict(list)
        for command in self.commands.values():
            self.of_appointment[command["appointment_id"]].append(command)
        self.events: dict[str, list[Row]] = defaultdict(list)
        self.of_command: dict[str, list[Row]] = defaultdict(list)
        for event in evidence.events:
            event["at"] = clock.seconds(event["recorded_at"])
            self.events[event["appointment_id"]].append(event)
            self.of_command[event["command_id"]].append(event)
        self.reads: dict[str, list[Read]] = defaultdict(list)
        for read in self.remote.reads:
            self.reads[read.appointment_id].append(read)
        self.requests: dict[str, list[Request]] = defaultdict(list)
        for request in self.remote.requests:
            if intent := self.intent(request):
                self.requests[intent.command_id].append(request)

    def intent(self, request: Request) -> Intent | None:
        """Find the committed, active command that a request was sent for: its sender's own, or the one it retries.

        For what a worker sent, the command and the attempt that it says it has claimed.
        """
        call = self.calls.get(request.caller)
        for row in request.witness.active:
            if request.sends is not None:
                if (row.command_id, row.attempt) == request.sends:
                    return row
                continue
            is_retried = call is not None and call.kind == "resolve" and call.command_id == row.command_id
            if is_retried or row.actor == request.caller:
                return row
        return None

    def is_submitted(self, command: Row) -> bool:
        """Tell whether a command came through the queue; its row forgets it when an operator sends it once more."""
        first = self.of_command[command["command_id"]][:1]
        is_told = any("queued_at" in json.loads(event["details"]) for event in first)
        return command["queued_at"] is not None or is_told

    def has_rivals(self, command: Row) -> bool:
        """Tell whether another command came with the same request key."""
        key = command["request_key"]
        return (
            key is not None
            and sum(row["request_key"] == key for row in self.of_appointment[command["appointment_id"]]) > 1
        )

    def was_active(self, appointment_id: str, moment: float) -> bool:
        """Tell whether a command of an appointment was active, or waiting in the queue, at a moment."""
        return any(
            clock.seconds(row["created_at"]) <= moment <= clock.seconds(row["ended_at"])
            for row in self.of_appointment[appointment_id]
            if row["ended_at"] is not None
        )

    def reads_of(self, appointment_id: str, since: float, until: float) -> list[Read]:
        """List the reads that told something, made and answered between two moments."""
        return [
            read
            for read in self.reads[appointment_id]
            if read.status is not None and read.at >= since and (read.returned_at or 0.0) <= until
        ]

    def recovering_reads(self, appointment_id: str, since: float, until: float) -> list[Read]:
        """List those of them that recovery made."""
        return [read for read in self.reads_of(appointment_id, since, until) if read.site in RECOVERING]

    def read_of(self, event: Row) -> Read | None:
        """Find the read that an event quotes by its request id."""
        request_id = str(event["zocdoc_request_id"] or "")
        return self.remote.reads[int(request_id[5:])] if request_id.startswith("read-") else None

    def told(self, event: Row) -> tuple[str, str | None] | None:
        """Find what Zocdoc told of an event's appointment in the answer that it quotes: status, modification."""
        kind, _, number = str(event["zocdoc_request_id"] or "").partition("-")
        if kind == "list":
            return self.remote.lists[int(number)].get(event["appointment_id"])
        read = self.read_of(event)
        return None if read is None or read.status is None else (read.status, read.modified)

    def is_undone(self, request: Request) -> bool:
        """Tell whether a request's effect was put back, to the letter, so that no read could tell."""
        intent = self.intent(request)
        if intent is None or not any(
            event["reason_code"] == "proved_not_applied" for event in self.of_command[intent.command_id]
        ):
            return False
        before, _, later = self.around(request)
        baseline = (intent.baseline_status, datetime.fromisoformat(intent.baseline_start))
        is_back = any((change.status, change.start) in {(before.status, before.start), baseline} for change in later)
        tells_time = self.remote.bookings[request.appointment_id].tells_modified
        return is_back and not (tells_time and intent.baseline_modified is not None)

    def around(self, request: Request) -> tuple[Change, Change, list[Change]]:
        """Give Zocdoc's state before and after a request's effect, and what came later."""
        changes = self.remote.bookings[request.appointment_id].changes
        index = next(index for index, change in enumerate(changes) if change.request == request.number)
        return changes[index - 1], changes[index], changes[index + 1 :]
