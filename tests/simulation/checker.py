"""The independent checker: Zocdoc's log, the callers' memories and raw rows in, violations out.

Shares no code with the product. The tables are written again from the design document; the hash from its published
description. Every finding names the appointment, so that its story can be told.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

from tests import trail
from tests.simulation import clock

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.simulation.evidence import Call, Evidence, Row
    from tests.simulation.remote import Change, Read, Request

STATUSES = frozenset(
    "pending_booking confirmed booking_failed cancelled no_show pending_reschedule rescheduled reschedule_failed".split()
)
PRESENT = STATUSES - {"cancelled", "booking_failed", "no_show"}
COMMAND_FROM = {
    "confirm": {"pending_booking"},
    "cancel": PRESENT | {"booking_failed"},
    "reschedule": {"pending_booking", "confirmed", "pending_reschedule", "rescheduled"},
    "mark_arrived": PRESENT,
    "mark_no_show": PRESENT,
}
COMMAND_TO = {"confirm": "confirmed", "cancel": "cancelled", "mark_no_show": "no_show"}
RESCHEDULED_TO = {"rescheduled", "pending_reschedule", "reschedule_failed"}
PROVIDER_MOVES = {
    "pending_booking": {"confirmed", "booking_failed", "cancelled", "pending_reschedule", "rescheduled"},
    "confirmed": {"cancelled", "no_show", "pending_reschedule", "rescheduled"},
    "pending_reschedule": {"rescheduled", "reschedule_failed", "confirmed", "cancelled"},
    "rescheduled": {"cancelled", "no_show", "pending_reschedule", "rescheduled"},
    "reschedule_failed": {"confirmed", "rescheduled", "pending_reschedule", "cancelled", "no_show"},
    "booking_failed": {"cancelled"},
}

ACTIVE = {"queued", "sending", "uncertain"}
ENDED = {"applied", "rejected", "not_sent", "needs_attention"}
ACCEPTED = {"command_accepted", "command_retried"}
CHANGING = {"command_applied", "arrival_marked", "command_resolved", "appointment_observed"}
CANARY = "canary"

READS = 3
SETTLE = 2.0
WINDOW = 28.0
"""Seconds between the loss of an answer and the last of the reads that prove that nothing happened."""

REPLICA_LAG = 5.0
"""Seconds by which a read may tell of the past."""

READS_AT_MOST = 3 + 8
BOUND = 400.0


@dataclass(slots=True)
class Verdict:
    """What was found: violations, and the late zombies that were counted apart because they were flagged."""

    violations: list[str] = field(default_factory=list)
    zombies_flagged: int = 0
    zombies_invisible: int = 0
    undone: int = 0


def check(evidence: Evidence) -> Verdict:
    """Check everything."""
    return _Check(evidence).run()


class _Check:
    def __init__(self, evidence: Evidence) -> None:
        self.e = evidence
        self.verdict = Verdict()
        self.events: dict[str, list[Row]] = defaultdict(list)
        self.of_command: dict[str, list[Row]] = defaultdict(list)
        for event in evidence.events:
            event["at"] = clock.seconds(event["recorded_at"])
            self.events[event["appointment_id"]].append(event)
            if event["command_id"]:
                self.of_command[event["command_id"]].append(event)
        self.requests: dict[str, list[Request]] = defaultdict(list)
        self.reads: dict[str, list[Read]] = defaultdict(list)
        for read in evidence.remote.reads:
            self.reads[read.appointment_id].append(read)
        self.calls = {call.actor: call for call in evidence.calls}
        self.unrecorded = {call.command_id for call in evidence.calls if call.told.get("reason_code") == "not_recorded"}

    def run(self) -> Verdict:
        for part in (
            self._surprises,
            self._trail,
            self._requests,
            self._commands,
            self._appointments,
            self._observations,
            self._calls,
            self._keys,
            self._privacy,
            self._rest,
        ):
            self.verdict.violations += part()
        return self.verdict

    def _surprises(self) -> Iterator[str]:
        """No error that is not documented, no damaged file."""
        yield from self.e.surprises
        if self.e.integrity != "ok":
            yield f"I14: integrity_check says {self.e.integrity}"

    def _trail(self) -> Iterator[str]:
        """I5, I6, I7, I11: the events fold to the status, are chained without gaps, conform as documented, stay."""
        for appointment_id, events in self.events.items():
            status, head = None, "0" * 64
            for number, event in enumerate(events, start=1):
                where = f"{appointment_id}/{event['appointment_seq']}"
                if event["appointment_seq"] != number:
                    yield f"{where}: I6: a gap before it"
                if event["from_status"] != status:
                    yield f"{where}: I5: begins at {event['from_status']}, the trail is at {status}"
                if event["prev_hash"] != head or event["hash"] != trail.hash_of(event):
                    yield f"{where}: I6: the chain is broken"
                if bool(event["conforming"]) != _conforms(event):
                    yield f"{where}: I7: {event['event']} {status}->{event['to_status']} says {event['conforming']}"
                if event["event"] not in CHANGING and status not in {None, event["to_status"]}:
                    yield f"{where}: I5: {event['event']} must not move the status"
                if event["at"] > self.e.ended_at + 60 or (number > 1 and event["at"] < events[number - 2]["at"]):
                    yield f"{where}: recorded at an impossible time"
                status, head = event["to_status"], event["hash"]
            for rows in (self.e.appointments,):
                if rows[appointment_id]["status"] != status:
                    yield f"{appointment_id}: I5: the row says {rows[appointment_id]['status']}, the trail {status}"
        for appointment_id in self.e.appointments.keys() - self.events.keys():
            yield f"{appointment_id}: I5: a row without a trail"
        for request in self.e.remote.requests:
            seen, events = request.witness.head, self.events[request.appointment_id]
            if seen and (len(events) < seen[0] or events[seen[0] - 1]["hash"] != seen[1]):
                yield f"{request.appointment_id}: I11: event {seen[0]} is not the one that was seen before"
        if self.e.events and max((r.witness.rows for r in self.e.remote.requests), default=0) > len(self.e.events):
            yield "-: I11: audit rows became fewer"

    def _requests(self) -> Iterator[str]:
        """I2, I3, I4, rule 3: each request has one live, committed, matching intent, and no transaction is open."""
        for request in self.e.remote.requests:
            where = f"{request.appointment_id}: request {request.number} ({request.operation} by {request.caller})"
            witness = request.witness
            if witness.is_locked:
                yield f"{where}: a transaction is open while HTTP is in the air"
            if len(witness.active) > 1:
                yield f"{where}: I4: {len(witness.active)} active commands"
            own = [row for row in witness.active if self._belongs(request, row)]
            if not own:
                yield f"{where}: I3: no committed intent of its own, but {witness.active}"
                continue
            command_id, state, attempt, _ = own[0]
            self.requests[command_id].append(request)
            if state != "sending":
                yield f"{where}: I17: sent although its command is {state}"
            row = self.e.commands.get(command_id)
            if row is None:
                yield f"{where}: I3: its command is gone"
                continue
            if attempt > row["attempt"] or row["command"] != request.operation:
                yield f"{where}: sent as attempt {attempt} of {row['command']}"
            if request.identity != self.e.remote.bookings[request.appointment_id].booked_with:
                yield f"{where}: sent with the credential of {request.identity}"
            wanted = json.loads(row["payload"]).get("start_time")
            if request.start_time != wanted:
                yield f"{where}: start {request.start_time} was sent, {wanted} was wanted"
        for read in self.e.remote.reads:
            if read.is_locked:
                yield f"{read.appointment_id}: a transaction is open while HTTP is in the air (read {read.number})"
        for command_id, requests in self.requests.items():
            yield from self._attempts(command_id, requests)

    def _belongs(self, request: Request, row: tuple[str, str, int, str]) -> bool:
        """Tell whether an active command is the one that the sender was asked for, or an operator had retried."""
        command_id, _, _, actor = row
        call = self.calls.get(request.caller)
        if call is not None and call.kind == "resolve":
            return call.command_id == command_id
        return actor == request.caller

    def _attempts(self, command_id: str, requests: list[Request]) -> Iterator[str]:
        row = self.e.commands.get(command_id)
        if row is None:
            return
        where = f"{row['appointment_id']}: command {command_id} ({row['command']})"
        processed = [request for request in requests if not request.before_processing]
        if len(processed) > row["attempt"]:
            yield f"{where}: I2: {len(processed)} requests in {row['attempt']} attempts"
        if len(requests) > 2 * row["attempt"]:
            yield f"{where}: I16: {len(requests)} requests"
        effects = [request for request in processed if request.has_effect]
        if len(effects) > 1 and not all(request.fault == "late_zombie" for request in effects[:-1]):
            yield f"{where}: I2: {len(effects)} effects"
        for first, second in zip(processed, processed[1:], strict=False):
            between = self._reads_of(row["appointment_id"], first.at, second.at)
            if not between or _shows(row, between[-1]):
                yield f"{where}: I2: sent again without a read that shows no effect"

    def _reads_of(self, appointment_id: str, since: float, until: float) -> list[Read]:
        return [
            read
            for read in self.reads[appointment_id]
            if read.status is not None and read.at >= since and (read.returned_at or 0.0) <= until
        ]

    def _commands(self) -> Iterator[str]:
        """I8, I2: every command has ended, and as what it really was."""
        for command_id, row in self.e.commands.items():
            where = f"{row['appointment_id']}: command {command_id} ({row['command']})"
            state, events = row["state"], self.of_command[command_id]
            kinds = [event["event"] for event in events]
            if state not in ENDED:
                yield f"{where}: I8: still {state}"
                continue
            if row["lease_until"] is not None or row["run_at"] is not None or row["ended_at"] is None:
                yield f"{where}: I17: ended, but not released"
                continue
            if kinds[:1] != ["command_accepted"] or kinds.count("command_accepted") != 1:
                yield f"{where}: I5: the trail of the command is {kinds}"
                continue
            if kinds.count("command_retried") != row["attempt"] - 1:
                yield f"{where}: attempt {row['attempt']}, but {kinds}"
            endings = [event for event in events if event["event"] in _ENDING or self._overruled(row, event)]
            if not endings or (_ENDING.get(endings[-1]["event"]) or endings[-1]["outcome"]) != state:
                yield f"{where}: I5: it is {state}, its trail says {kinds}"
                continue
            if abs(clock.seconds(row["ended_at"]) - endings[-1]["at"]) > 0.001:
                yield f"{where}: ended at another time than its trail says"
            if {event["actor"] for event in events} - {row["actor"]} and not self._operators(events, row):
                yield f"{where}: I5: events in the name of {sorted({event['actor'] for event in events})}"
            yield from self._truth(where, row, events, endings)
            yield from self._doubts(where, row, events)

    def _overruled(self, row: Row, event: Row) -> bool:
        """Tell whether it is the late answer that overruled what reading had inferred."""
        return event["event"] == "late_answer_received" and row["reason_code"] == "answered_late"

    def _operators(self, events: list[Row], row: Row) -> bool:
        allowed = {"command_retried", "command_resolved", "command_refused"}
        return all(event["actor"] == row["actor"] or event["event"] in allowed for event in events)

    def _truth(self, where: str, row: Row, events: list[Row], endings: list[Row]) -> Iterator[str]:
        requests = self.requests[row["command_id"]]
        effects = [request for request in requests if request.has_effect]
        state, ended = row["state"], clock.seconds(row["ended_at"])
        if state in {"rejected", "not_sent"}:
            for effect in effects:
                if self._was_undone(row, effect):
                    self.verdict.undone += 1
                elif (effect.processed_at or 0.0) <= ended - REPLICA_LAG or effect.fault != "late_zombie":
                    yield f"{where}: I2: it is {state}, but request {effect.number} had an effect"
                else:
                    yield from self._zombie(where, row, effect)
        if state == "rejected" and endings[-1]["event"] == "command_rejected":
            said_no = {(request.http_status if request.processed_at else None) for request in requests}
            if endings[-1]["http_status"] not in {400, 401, 403, 404, 409, 422}:
                yield f"{where}: rejected by HTTP {endings[-1]['http_status']}"
            if not requests or (said_no == {200}):
                yield f"{where}: rejected, but Zocdoc did not say so"
        if state == "applied" and endings[-1]["event"] == "late_answer_received":
            if not any(request.answered == "Applied" for request in effects):
                yield f"{where}: applied by a late answer that was not given"
        elif state == "applied" and endings[-1]["event"] != "command_resolved":
            yield from self._applied(where, row, effects, endings[-1])

    def _was_undone(self, row: Row, effect: Request) -> bool:
        """Tell whether the provider put back what a command had done, to the letter, and no time told of it."""
        booking = self.e.remote.bookings[row["appointment_id"]]
        index = next(i for i, change in enumerate(booking.changes) if change.request == effect.number)
        before = booking.changes[index - 1]
        back = [c for c in booking.changes[index + 1 :] if (c.status, c.start) == (before.status, before.start)]
        is_told = booking.tells_modified and row["baseline_last_modified"] is not None
        return bool(back) and not is_told and row["reason_code"] == "proved_not_applied"

    def _applied(self, where: str, row: Row, effects: list[Request], event: Row) -> Iterator[str]:
        if event["reason_code"] is None:
            answers = [request for request in effects if request.answered == "Applied"]
            if not answers:
                yield f"{where}: it is applied, but no request of it was answered so"
            elif event["to_status"] != answers[-1].status:
                yield f"{where}: answered {answers[-1].status}, recorded {event['to_status']}"
            elif event["zocdoc_request_id"] != f"post-{answers[-1].number}" or event["http_status"] != 200:
                yield f"{where}: recorded {event['zocdoc_request_id']}, HTTP {event['http_status']}"
            return
        reads = [
            read
            for read in self._reads_of(row["appointment_id"], 0.0, event["at"])
            if read.status == event["to_status"] and _shows(row, read)
        ]
        if event["reason_code"] not in {"already_so", "recovered"} or not reads:
            yield f"{where}: it is {event['reason_code']}, but no read showed it"
        if row["command"] == "mark_arrived":
            yield f"{where}: an arrival cannot be seen, so it cannot be {event['reason_code']}"

    def _zombie(self, where: str, row: Row, effect: Request) -> Iterator[str]:
        """An effect after the settle window: Zocdoc's state must be seen, or nothing of it can be seen."""
        booking = self.e.remote.bookings[row["appointment_id"]]
        moment = effect.processed_at or 0.0
        index = next(i for i, change in enumerate(booking.changes) if change.request == effect.number)
        before, after = booking.changes[index - 1], booking.changes[index]
        if (before.status, before.start) == (after.status, after.start):
            self.verdict.zombies_invisible += 1
            return
        later = [event for event in self.events[row["appointment_id"]] if event["at"] >= moment]
        if self.e.appointments[row["appointment_id"]]["in_doubt"] or any(_tells(event) for event in later):
            self.verdict.zombies_flagged += 1
            return
        if booking.changes[index + 1 :]:
            self.verdict.zombies_invisible += 1
            return
        yield f"{where}: a late effect (request {effect.number}) went unnoticed"

    def _doubts(self, where: str, row: Row, events: list[Row]) -> Iterator[str]:
        """I2: proved not applied means: enough reads, spaced, after the settle time, none of which showed an effect."""
        lost = [event["at"] for event in events if event["event"] == "outcome_lost"]
        for event in events:
            if event["event"] == "command_not_sent" and lost and event["reason_code"] == "proved_not_applied":
                reads = [
                    read
                    for read in self._reads_of(row["appointment_id"], lost[-1], event["at"])
                    if read.site in {"settle", "calm"}
                ]
                if len(reads) < READS or reads[-1].at - lost[-1] < WINDOW:
                    yield f"{where}: I2: taken for not applied after {len(reads)} reads"
                elif any(_shows(row, read) for read in reads):
                    yield f"{where}: I2: taken for not applied although a read showed it"
            if event["event"] == "command_not_sent" and event["reason_code"] in {"server_error", "connection_lost"}:
                yield f"{where}: I2: an unknown outcome was taken for not sent"
        for start in lost:
            reads = [read for read in self.reads[row["appointment_id"]] if read.site in {"settle", "calm"} and read.at > start]
            by_answer = [request for request in self.requests[row["command_id"]] if request.answered_at is not None]
            first = by_answer and abs(by_answer[-1].answered_at or 0.0) <= start
            if reads and first and reads[0].at - (by_answer[-1].answered_at or 0.0) < SETTLE - 0.001:
                yield f"{where}: read {reads[0].at - start:.1f} s after the answer was lost: too early to tell"

    def _appointments(self) -> Iterator[str]:
        """I1, and in_doubt exactly while a command is in doubt."""
        doubtful = Counter(
            row["appointment_id"] for row in self.e.commands.values() if row["state"] in {"uncertain", "needs_attention"}
        )
        for appointment_id, row in self.e.appointments.items():
            booking = self.e.remote.bookings[appointment_id]
            if bool(row["in_doubt"]) != bool(doubtful[appointment_id]):
                yield f"{appointment_id}: in_doubt is {row['in_doubt']} with {doubtful[appointment_id]} doubtful commands"
            if not row["in_doubt"]:
                if row["status"] != booking.now.status or bool(row["status_known"]) != (row["status"] in STATUSES):
                    yield f"{appointment_id}: I1: here {row['status']}, at Zocdoc {booking.now.status}"
                if datetime.fromisoformat(row["start_time"]) != booking.now.start:
                    yield f"{appointment_id}: I1: here {row['start_time']}, at Zocdoc {booking.now.start}"
            yield from self._drift(appointment_id, booking.changes)
            yield from self._arrivals(appointment_id, row)

    def _drift(self, appointment_id: str, changes: list[Change]) -> Iterator[str]:
        """I1 before the last reads: where our own, settled command was the last to act, nothing may be left to learn."""
        row = self.e.before_sync.get(appointment_id)
        last = changes[-1]
        if row is None or last.request is None or row["in_doubt"] or len(changes) < 2:
            return
        request = self.e.remote.requests[last.request]
        command = next((self.e.commands.get(entry[0]) for entry in request.witness.active), None)
        if command is None or command["state"] != "applied" or not _began_from(command, changes[-2]):
            return
        if any(read.fault == "read_stale" and (read.returned_at or 0.0) >= last.at for read in self.reads[appointment_id]):
            return
        if row["status"] != last.status:
            yield f"{appointment_id}: I1: our command made it {last.status}, here it is {row['status']}"
        expected = RESCHEDULED_TO | {changes[-2].status}
        if datetime.fromisoformat(row["start_time"]) != last.start and last.status in expected:
            yield f"{appointment_id}: I1: our command moved it to {last.start}, here it is {row['start_time']}"

    def _arrivals(self, appointment_id: str, row: Row) -> Iterator[str]:
        marked = [
            command
            for command in self.e.commands.values()
            if command["appointment_id"] == appointment_id
            and command["command"] == "mark_arrived"
            and command["state"] == "applied"
        ]
        if bool(marked) != (row["arrived_at"] is not None) and not self._was_touched(marked):
            yield f"{appointment_id}: {len(marked)} arrivals, arrived_at is {row['arrived_at']}"

    def _was_touched(self, marked: list[Row]) -> bool:
        """An operator's word that an arrival had happened does not reach an appointment that changed since."""
        return any(
            event["event"] == "command_resolved" for row in marked for event in self.of_command[row["command_id"]]
        )

    def _observations(self) -> Iterator[str]:
        """I10: no older modification over a newer one; nothing from outside is stored while a command is active."""
        for appointment_id, events in self.events.items():
            known, active = None, ""
            for event in events:
                where = f"{appointment_id}/{event['appointment_seq']}"
                if event["event"] in ACCEPTED:
                    active = event["command_id"]
                elif event["event"] in _ENDING and event["command_id"] == active:
                    active = ""
                if event["event"] in {"appointment_observed", "appointment_tracked"}:
                    if known and event["occurred_at"] and event["occurred_at"] < known:
                        yield f"{where}: I10: a modification of {event['occurred_at']} over one of {known}"
                    known = event["occurred_at"] or known
                    if active:
                        yield f"{where}: I10: an observation was stored while a command was active"
                    if not self._was_told(event):
                        yield f"{where}: observed {event['to_status']}, which Zocdoc did not tell"

    def _was_told(self, event: Row) -> bool:
        """Tell whether the read that an observation quotes told just this."""
        request_id = str(event["zocdoc_request_id"] or "")
        if not request_id.startswith("read-"):
            return False
        read = self.e.remote.reads[int(request_id.removeprefix("read-"))]
        return read.status == event["to_status"] and read.modified == event["occurred_at"]

    def _calls(self) -> Iterator[str]:
        """What callers were told agrees with what is recorded, and with what Zocdoc did."""
        senders = Counter(request.caller for request in self.e.remote.requests)
        for call in self.e.calls:
            if call.kind not in {"command", "resolve"}:
                if senders[call.actor]:
                    yield f"{call.appointment_id}: {call.kind} sent a command"
                continue
            where = f"{call.appointment_id}: {call.actor} was told {call.result}"
            row = self.e.commands.get(call.command_id or "")
            if call.result in {"TransitionRefused", "CommandInProgress", "RequestKeyReused"} and senders[call.actor]:
                yield f"{where}, but something was sent"
            if call.result == "TransitionRefused" and call.kind == "command":
                yield from self._refused(where, call)
            if call.result == "Done" and call.kind == "command":
                if row is None or row["state"] != "applied":
                    yield f"{where}, the command is {row and row['state']}"
                elif call.told.get("to_status") not in {e["to_status"] for e in self.of_command[row["command_id"]]}:
                    yield f"{where} with {call.told.get('to_status')}"
            if call.result in {"NotSent", "CommandRejected"}:
                expected = "not_sent" if call.result == "NotSent" else "rejected"
                if row is None or row["state"] != expected:
                    yield f"{where}, the command is {row and row['state']}"
            if call.result == "OutcomeUnknown" and call.told.get("state") == "uncertain" and row is not None:
                kinds = {event["event"] for event in self.of_command[row["command_id"]]}
                if "outcome_lost" not in kinds:
                    yield f"{where}, the trail does not know of it"

    def _refused(self, where: str, call: Call) -> Iterator[str]:
        own = [event for event in self.events[call.appointment_id] if event["actor"] == call.actor]
        if [event["event"] for event in own if event["event"] != "appointment_observed"][-1:] != ["command_refused"]:
            yield f"{where}, the refusal is not in the trail"
        reasons = tuple(call.told.get("reasons", ()))
        booking = self.e.remote.bookings[call.appointment_id]
        if "status_not_allowed" in reasons and call.told.get("status") in COMMAND_FROM[call.command]:
            yield f"{where} in status {call.told.get('status')}"
        if "credential_not_allowed" in reasons and booking.booked_with == "machine":
            yield f"{where} for its credential"

    def _keys(self) -> Iterator[str]:
        """One command at most acts for a request key; a key with other arguments does nothing."""
        by_key: dict[str, list[Row]] = defaultdict(list)
        for row in self.e.commands.values():
            if row["request_key"]:
                by_key[row["request_key"]].append(row)
        for key, rows in by_key.items():
            acted = [row for row in rows if row["state"] != "not_sent"]
            where = f"{rows[0]['appointment_id']}: request key {key}"
            if len(acted) > 1:
                yield f"{where}: {len(acted)} commands acted"
            effects = [r for row in rows for r in self.requests[row["command_id"]] if r.has_effect]
            if len(effects) > 1 and not any(effect.fault == "late_zombie" for effect in effects):
                yield f"{where}: I2: {len(effects)} effects"
        for call in self.e.calls:
            rows = by_key.get(call.key or "", [])
            row = self.e.commands.get(call.command_id or "")
            if call.key and call.kind == "command" and call.result in {"Done", "CommandRejected", "OutcomeUnknown"}:
                where = f"{call.appointment_id}: {call.actor} with request key {call.key}"
                if row is None or row["request_key"] != call.key:
                    yield f"{where} got the outcome of another command"
                elif row["command"] != call.command:
                    yield f"{where} got the outcome of another wish"

    def _privacy(self) -> Iterator[str]:
        """I12 in the database: free text is gone when its command has ended, and never in the trail."""
        for row in self.e.commands.values():
            if row["state"] not in ACTIVE and CANARY in row["payload"]:
                yield f"{row['appointment_id']}: I12: free text is kept in an ended command"
        for event in self.e.events:
            if any(CANARY in str(value) for value in event.values()):
                yield f"{event['appointment_id']}: I12: free text in the trail"

    def _rest(self) -> Iterator[str]:
        """I8, I15, I16: at rest within a bounded time, with a bounded number of reads."""
        if not self.e.is_settled or self.e.settled_in > BOUND:
            yield f"-: I15: not at rest {self.e.settled_in:.0f} s after the faults were over"
        lost = sum(event["event"] == "outcome_lost" for event in self.e.events)
        reads = sum(read.site == "settle" for read in self.e.remote.reads)
        calm = sum(read.site == "calm" for read in self.e.remote.reads)
        if reads + calm > READS_AT_MOST * lost + len(self.e.appointments) + self.e.kills + 20:
            yield f"-: I16: {reads} reads for {lost} lost answers"
        checks = sorted(event["at"] for event in self.e.events if event["event"] == "outcome_checked")
        if bisect_right(checks, self.e.ended_at) < len(checks):
            yield "-: I15: still reading after the end"


_ENDING: dict[str, str | None] = {
    "command_applied": "applied",
    "arrival_marked": "applied",
    "command_rejected": "rejected",
    "command_not_sent": "not_sent",
    "attention_needed": "needs_attention",
    "command_resolved": None,
}


def _tells(event: Row) -> bool:
    """Tell whether an event shows that Zocdoc was looked at and found changed."""
    return event["event"] in {"appointment_observed", "attention_needed"} or event["reason_code"] in {
        "already_so",
        "recovered",
    }


def _began_from(row: Row, change: Change) -> bool:
    """Tell whether a command was decided on the state that it then met."""
    start = datetime.fromisoformat(row["baseline_start_time"])
    return (row["baseline_status"], start) == (change.status, change.start)


def _shows(row: Row, read: Read) -> bool:
    """Tell whether a read shows what a command wanted, and that it was not so before."""
    if row["command"] == "reschedule":
        target = row["target_start_time"]
        if target is None or target == row["baseline_start_time"]:
            return False
        moved = {"rescheduled", "pending_reschedule", row["baseline_status"]}
        return read.start == datetime.fromisoformat(target) and read.status in moved
    return read.status == COMMAND_TO.get(row["command"])


def _conforms(event: Row) -> bool:
    """Judge a move by the documents: what is `conforming`."""
    before, after, kind = event["from_status"], event["to_status"], event["event"]
    if kind == "appointment_tracked":
        return after in STATUSES
    if kind in {"command_applied", "arrival_marked"}:
        return before in COMMAND_FROM[event["command"]] and after in _expected(event["command"], before)
    if kind == "appointment_observed":
        details = json.loads(event["details"])
        if before == after and "start_time" not in details.get("changed", []):
            return True
        return after in PROVIDER_MOVES.get(before, set())
    if kind == "command_resolved" and before != after:
        return before in COMMAND_FROM[event["command"]] and after in _expected(event["command"], before)
    return True


def _expected(command: str, before: str) -> set[str]:
    if command == "reschedule":
        return RESCHEDULED_TO | {before}
    return {COMMAND_TO.get(command, before)}
