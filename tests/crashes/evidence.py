"""What must be true, read from the ledger and the tables alone; every finding is a sentence that begins with whose.

Nothing here is imported from the product, and nothing is taken from what the product returned.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from tests import trail
from tests.crashes.grounds import rows
from tests.crashes.wishes import OPERATIONS

if TYPE_CHECKING:
    from collections.abc import Iterable

    import sqlalchemy as sa

    from lifecycle.sandbox import Entry
    from tests.crashes.standin import Standin

ACTIVE = {"queued", "sending", "uncertain"}
ENDED = {"applied", "rejected", "not_sent", "needs_attention", "refused", "withdrawn", "expired"}
CLOSING = {
    "command_applied": "applied",
    "arrival_marked": "applied",
    "command_rejected": "rejected",
    "command_not_sent": "not_sent",
    "attention_needed": "needs_attention",
    "command_requeued": "queued",
}
"""Events after which another command may be accepted, and the state that each tells."""

FROM_THE_QUEUE = {"command_refused": "refused", "command_withdrawn": "withdrawn", "command_expired": "expired"}
"""Events that end a submitted command of which nothing is in the air."""

BEGINNING = {"command_accepted", "command_resent", "command_retried"}

NOTES = {"outcome_checked", "late_answer_received"}
"""Events about a command that may stand anywhere after its acceptance."""

NOT_PROCESSED = {400, 401, 403, 404, 405, 409, 422, 429}
"""Answers that say that nothing was done."""

READS_BEFORE_REPEATING = 3
OK = 200


@dataclass(frozen=True)
class Evidence:
    """The tables and the ledger of one moment."""

    commands: list[dict[str, Any]]
    appointments: list[dict[str, Any]]
    events: int
    calls: list[Entry]

    def of(self, appointment_id: str) -> list[dict[str, Any]]:
        """Give the commands of an appointment."""
        return [row for row in self.commands if row["appointment_id"] == appointment_id]


def gather(engine: sa.Engine, standin: Standin) -> Evidence:
    """Read everything. The ledger first: a call that is in it must have its row in the tables by then."""
    calls = standin.calls()
    return Evidence(
        commands=rows(engine, "SELECT * FROM lifecycle_commands ORDER BY created_at"),
        appointments=rows(engine, "SELECT * FROM lifecycle_appointments"),
        events=rows(engine, "SELECT count(*) AS n FROM lifecycle_audit_events")[0]["n"],
        calls=calls,
    )


def trail_faults(engine: sa.Engine) -> list[str]:
    """Judge the file and the trail: integrity, no gap, the chain, the status its fold, one active command at a time."""
    found = trail.faults(engine)
    if engine.name == "sqlite":
        found += [
            f"integrity_check: {row}" for row in rows(engine, "PRAGMA integrity_check") if "ok" not in row.values()
        ]
    return found + _overlaps(engine)


def intent_faults(seen: Evidence) -> list[str]:
    """No request without a committed intent: each changing request has a command of its kind and appointment (I3)."""
    intents = Counter((row["appointment_id"], OPERATIONS[row["command"]]) for row in seen.commands)
    starts = {(row["appointment_id"], _start(row)) for row in seen.commands if row["command"] == "reschedule"}
    found = []
    for entry in _changing(seen.calls):
        if not intents[entry.appointment_id or "", entry.operation]:
            found.append(f"{entry.appointment_id}: {entry.operation} was sent without an intent")
        elif entry.operation == "reschedule" and (entry.appointment_id, _body_start(entry)) not in starts:
            found.append(f"{entry.appointment_id}: a reschedule was sent to a start that no intent names")
    return found


def doubt_faults(seen: Evidence) -> list[str]:
    """At any time, an appointment is in doubt if and only if a command on it is uncertain or needs attention."""
    doubtful = {row["appointment_id"] for row in seen.commands if row["state"] in {"uncertain", "needs_attention"}}
    return [
        f"{row['appointment_id']}: in_doubt is {bool(row['in_doubt'])}"
        for row in seen.appointments
        if bool(row["in_doubt"]) != (row["appointment_id"] in doubtful)
    ]


def end_faults(engine: sa.Engine, standin: Standin) -> list[str]:
    """Judge what must hold once recovery is through and the remote is quiet (I1, I2, I3, I4, I5, I6, I8, I17)."""
    seen = gather(engine, standin)
    remote = standin.remote(row["appointment_id"] for row in seen.appointments)
    found = [*trail_faults(engine), *intent_faults(seen), *doubt_faults(seen), *_untold(engine, seen)]
    for row in seen.commands:
        found += _command_faults(row)
    for row in seen.appointments:
        found += _appointment_faults(row, seen, remote[row["appointment_id"]])
    return found


def _command_faults(row: dict[str, Any]) -> list[str]:
    who = f"{row['appointment_id']}: {row['command']} {row['command_id']}"
    found = []
    if row["state"] not in ENDED:
        found.append(f"{who} is {row['state']} after recovery")
    elif row["run_at"] is not None or row["lease_until"] is not None:
        found.append(f"{who} has ended and still holds a lease or a date")
    return found


def _appointment_faults(row: dict[str, Any], seen: Evidence, remote: tuple[str, datetime]) -> list[str]:
    who, commands = row["appointment_id"], seen.of(row["appointment_id"])
    calls = [entry for entry in seen.calls if entry.appointment_id == who]
    states = Counter(command["state"] for command in commands)
    found = []
    effects = sum(entry.effect for entry in calls)
    told_before = sum(command["reason_code"] == "already_so" for command in commands)
    least, most = states["applied"] - told_before, states["applied"] + states["needs_attention"]
    if not least <= effects <= most:
        found.append(f"{who}: {effects} effects of {dict(states)}")
    # A 401 and a 429 are answered before anything is processed; every other request may have had an effect.
    processed = sum(entry.answered not in {401, 429} for entry in _changing(calls))
    attempts = sum(command["attempt"] for command in commands)
    if processed > attempts:
        found.append(f"{who}: {processed} requests in {attempts} attempts of {len(commands)} commands")
    found += _reschedule_faults(who, commands, calls)
    in_doubt = bool(row["in_doubt"])
    if (row["status"], instant(row["start_time"])) != remote and not in_doubt:
        found.append(f"{who}: {row['status']} {row['start_time']} here, {remote} there, and nobody is told")
    return found


def _reschedule_faults(who: str, commands: list[dict[str, Any]], calls: list[Entry]) -> list[str]:
    """Each start is asked for by one command only, so requests and effects are counted for each command."""
    effects: dict[str, list[bool]] = defaultdict(list)
    for entry in _changing(calls):
        if entry.operation == "reschedule" and entry.answered not in {401, 429}:
            effects[_body_start(entry)].append(entry.effect)
    wanted: dict[str, list[str]] = defaultdict(list)
    attempts = Counter[str]()
    for command in commands:
        if command["command"] == "reschedule":
            wanted[_start(command)].append(command["state"])
            attempts[_start(command)] += command["attempt"]
    found = []
    for start, states in wanted.items():
        sent = effects[start]
        if len(sent) > attempts[start] or sum(sent) > len(states):
            found.append(f"{who}: the reschedule to {start} was sent {len(sent)} times")
        if len(states) == 1 and "needs_attention" not in states and sum(sent) != (states == ["applied"]):
            found.append(f"{who}: the reschedule to {start} is {states[0]} and had {sum(sent)} effects")
    return found


def _overlaps(engine: sa.Engine) -> list[str]:
    """Between an acceptance and its end no other command is accepted (I4), and nothing ends that was not accepted."""
    found, open_command = [], dict[str, str]()
    for row in trail.rows_of(engine):
        who = row["appointment_id"]
        if row["event"] in BEGINNING:
            if who in open_command:
                found.append(f"{who}: {row['command_id']} was accepted while {open_command[who]} was active")
            open_command[who] = row["command_id"]
        elif row["event"] in CLOSING and open_command.pop(who, None) != row["command_id"]:
            found.append(f"{who}: {row['event']} of {row['command_id']}, which was not active")
    return found


def _untold(engine: sa.Engine, seen: Evidence) -> list[str]:
    """The trail tells each command: accepted, lost if it was, and the end that its row shows; nothing else."""
    told: dict[str, list[dict[str, Any]]] = defaultdict(list)
    late: dict[str, str] = {}
    for row in trail.rows_of(engine):
        if row["command_id"] is not None and row["event"] not in NOTES:
            told[row["command_id"]].append(row)
        elif row["event"] == "late_answer_received" and told[row["command_id"]][-1]["event"] == "attention_needed":
            # An answer settles what reading could not, unless it was lost as well.
            late[row["command_id"]] = row["outcome"].replace("unknown", "needs_attention")
    found = []
    for command in seen.commands:
        events = told.pop(command["command_id"], [])
        names = [event["event"] for event in events]
        ends = CLOSING | FROM_THE_QUEUE if command["queued_at"] is not None else CLOSING
        told_end = late.get(command["command_id"]) or (ends.get(names[-1], "") if names else "")
        if not _are_in_order(events, names, command) or told_end != command["state"]:
            found.append(f"{command['appointment_id']}: {command['command_id']} is {command['state']}, told as {names}")
    return found + [f"{command_id}: events without a command" for command_id in told]


def _are_in_order(events: list[dict[str, Any]], names: list[str], command: dict[str, Any]) -> bool:
    """Tell whether an ending follows an attempt, or attempts, each of which has ended before the next one."""
    if command["queued_at"] is None:
        lost = ["outcome_lost"] if events and (events[-1]["source"] == "recovery" or "outcome_lost" in names) else []
        if names.count("outcome_lost") > 1 and events[1]["reason_code"] == "lease_expired":
            lost *= 2  # whoever was thought to be gone tells, while it is being read, that it got no answer
        return names[:-1] == ["command_accepted", *lost]
    plain = [name for name in names if name != "outcome_lost"]
    again = ["command_requeued", "command_resent"] * len(names)
    told = ["command_accepted", *again][: len(plain) - 1]
    return plain[:-1] == told and len([name for name in names if name in BEGINNING]) == command["attempt"]


def blind_faults(seen: Evidence) -> list[str]:
    """Of commands of which each has its own appointment: none was sent again before reads proved it had no effect."""
    found, reads = [], Counter[str]()
    sent: set[str] = set()
    for entry in seen.calls:
        who = entry.appointment_id or ""
        if entry.method == "GET":
            reads[who] += entry.answered == OK
        elif entry.answered not in NOT_PROCESSED:
            if who in sent and reads[who] < READS_BEFORE_REPEATING:
                found.append(f"{who}: sent again after {reads[who]} reads")
            sent.add(who)
            reads[who] = 0
    return found


def _changing(calls: Iterable[Entry]) -> list[Entry]:
    return [entry for entry in calls if entry.method != "GET" and entry.operation != "token"]


def _start(row: dict[str, Any]) -> str:
    payload = json.loads(row["payload"]) if isinstance(row["payload"], str) else row["payload"]
    return str(payload["start_time"])


def _body_start(entry: Entry) -> str:
    body = entry.body
    return str(body["start_time"]) if isinstance(body, dict) else ""


def instant(stored: datetime | str) -> datetime:
    """Read an instant as either database gives it."""
    found = stored if isinstance(stored, datetime) else datetime.fromisoformat(stored)
    return found.astimezone(UTC)
