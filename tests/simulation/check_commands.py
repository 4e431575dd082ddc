"""I2, I8, I15: every command has ended within bounded time, once, and as what it really was."""

from __future__ import annotations

from datetime import datetime
from itertools import pairwise
from typing import TYPE_CHECKING

from tests.simulation import clock, documents
from tests.simulation.case import REPLICA_LAG

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from tests.simulation.case import Case
    from tests.simulation.evidence import Row
    from tests.simulation.remote import Read, Request

READS = 3
SETTLE = 2.0
WINDOW = 28.0
"""Seconds between the loss of an answer and the last of the reads that prove that nothing happened."""

BOUND = 400.0
"""Simulated seconds after the faults within which everything is at rest: a lease, and the reads after it."""

LONGEST_BACKOFF = 600.0
"""Seconds after which the last of what is queued again is due."""

UNAUTHORIZED = 401
REFUSING = {400, 401, 403, 404, 409, 422}
BY_OTHERS = {"command_retried", "command_resolved", "command_withdrawn"}
"""Events that may be in the name of somebody else than the command's."""
LATE = "late_answer_received"
MORE = {"command_retried", "command_requeued"}
"""Events after which an older attempt may still be answered."""

SEEN = {"already_so", "recovered"}
"""Reasons of a command that is applied because a read showed it."""


def check(case: Case) -> Iterator[str]:
    """Go through every command."""
    is_queued_again = any(event["event"] == "command_requeued" for event in case.evidence.events)
    if not case.evidence.is_settled or case.evidence.settled_in > BOUND + LONGEST_BACKOFF * is_queued_again:
        yield f"-: I15: not at rest {case.evidence.settled_in:.0f} s after the faults were over"
    for command in case.commands.values():
        where = f"{command['appointment_id']}: command {command['command_id']} ({command['command']})"
        if command["state"] not in documents.ENDED:
            yield f"{where}: I8: still {command['state']}"
            continue
        if command["lease_until"] is not None or command["run_at"] is not None or command["ended_at"] is None:
            yield f"{where}: I17: ended, but not released"
            continue
        events = case.of_command[command["command_id"]]
        ending = yield from _told(case, where, command, events)
        if ending is not None:
            yield from _truth(case, where, command, ending)
        yield from _inferred(case, where, command, events)


def _told(case: Case, where: str, command: Row, events: list[Row]) -> Generator[str, None, Row | None]:
    """I5 for commands: the trail tells how it began, each attempt, how it ended. Returns the event that ended it."""
    kinds = [event["event"] for event in events]
    first = documents.FROM_THE_QUEUE | {"command_accepted"} if case.is_submitted(command) else {"command_accepted"}
    if not first & {*kinds[:1]} or "command_accepted" in kinds[1:]:
        yield f"{where}: I5: the trail of the command is {kinds}"
        return None
    for before, after in pairwise(_without_idle_answers(events)):
        if after["event"] not in ({LATE} if _settles(case, command, before) else documents.NEXT[before["event"]]):
            yield f"{where}: I5: {after['event']} after {before['event']}"
    if sum(kind in documents.ACCEPTED for kind in kinds) != command["attempt"]:
        yield f"{where}: I5: attempt {command['attempt']}, but {kinds}"
    if any(event["actor"] != command["actor"] and event["event"] not in BY_OTHERS for event in events):
        yield f"{where}: I5: events in the name of {sorted({event['actor'] for event in events})}"
    endings = [event for event in events if event["event"] in documents.ENDING or _settles(case, command, event)]
    if not endings or (documents.ENDING.get(endings[-1]["event"]) or endings[-1]["outcome"]) != command["state"]:
        yield f"{where}: I5: it is {command['state']}, its trail says {kinds}"
        return None
    if abs(clock.seconds(command["ended_at"]) - endings[-1]["at"]) > 0.001:
        yield f"{where}: I5: ended at another time than its trail says"
    return endings[-1]


def _without_idle_answers(events: list[Row]) -> list[Row]:
    """Leave out what came late of an attempt before another one, and settled nothing."""
    kept: list[Row] = []
    for event in events:
        is_idle = event["event"] == LATE and not documents.overrules(event)
        if not (is_idle and MORE & {before["event"] for before in kept}):
            kept.append(event)
    return kept


def _settles(case: Case, command: Row, event: Row) -> bool:
    """Tell whether an event is a late answer that settled its command: it cannot if another one has its key."""
    return documents.overrules(event) and (not case.has_rivals(command) or command["reason_code"] == "answered_late")


def _truth(case: Case, where: str, command: Row, ending: Row) -> Iterator[str]:
    effects = [request for request in case.requests[command["command_id"]] if request.has_effect]
    if command["state"] in documents.WITHOUT_EFFECT | {"rejected"}:
        for effect in effects:
            yield from _effect_of_none(case, where, command, effect)
    if ending["event"] == "command_rejected":
        yield from _rejected(case, where, command, ending)
    if ending["event"] == "late_answer_received" and command["state"] == "applied":
        if not any(request.answered == "Applied" for request in effects):
            yield f"{where}: applied by a late answer that was not given"
    elif ending["event"] in {"command_applied", "arrival_marked"}:
        answered = ending["reason_code"] is None
        yield from _answered(where, effects, ending) if answered else _seen(case, where, command, ending)


def _effect_of_none(case: Case, where: str, command: Row, effect: Request) -> Iterator[str]:
    """I2: what is called rejected or not sent had no effect, unless it came too late for anybody to see."""
    ended, appointment_id = clock.seconds(command["ended_at"]), command["appointment_id"]
    accepted = [each["at"] for each in case.of_command[command["command_id"]] if each["event"] in documents.ACCEPTED]
    # What is read about a further attempt does not judge this one any more.
    judged = min((at for at in accepted if at > effect.at), default=ended)
    looks = [read.at for read in case.recovering_reads(appointment_id, 0.0, judged)]
    if case.is_undone(effect):
        case.verdict.undone += 1
    elif effect.fault == "late_zombie" and (effect.processed_at or 0.0) > (looks or [judged])[-1] - REPLICA_LAG:
        yield from _zombie(case, where, effect)
    else:
        yield f"{where}: I2: it is {command['state']}, but request {effect.number} had an effect"


def _zombie(case: Case, where: str, effect: Request) -> Iterator[str]:
    """I2: an effect after the settle window is flagged, unless nothing of it can be seen."""
    before, after, later = case.around(effect)
    events = [event for event in case.events[effect.appointment_id] if event["at"] >= (effect.processed_at or 0.0)]
    noticed = {"appointment_observed", "attention_needed"}
    row = case.evidence.before_sync.get(effect.appointment_id) or case.evidence.appointments[effect.appointment_id]
    known = (row["status"], datetime.fromisoformat(row["start_time"]))
    if row["in_doubt"] or any(event["event"] in noticed or event["reason_code"] in SEEN for event in events):
        case.verdict.zombies_flagged += 1
    elif later or (after.status, after.start) in {known, (before.status, before.start)}:
        case.verdict.zombies_invisible += 1
    else:
        yield f"{where}: I2: a late effect (request {effect.number}) went unnoticed"


def _rejected(case: Case, where: str, command: Row, ending: Row) -> Iterator[str]:
    requests = case.requests[command["command_id"]]
    if ending["http_status"] not in REFUSING:
        yield f"{where}: rejected by HTTP {ending['http_status']}"
    # An operator's retry is a call: who asked for it hears of the 401, and nothing is tried again.
    if ending["http_status"] == UNAUTHORIZED and command["queued_at"] is not None:
        yield f"{where}: rejected for the credential of the moment"
    if not any(request.answered == "Rejected" for request in requests):
        yield f"{where}: rejected, but Zocdoc did not say so"


def _answered(where: str, effects: list[Request], ending: Row) -> Iterator[str]:
    answers = [request for request in effects if request.answered == "Applied"]
    if not answers:
        yield f"{where}: it is applied, but no request of it was answered so"
    elif ending["to_status"] != answers[-1].status:
        yield f"{where}: answered {answers[-1].status}, recorded {ending['to_status']}"
    elif ending["zocdoc_request_id"] != f"post-{answers[-1].number}" or ending["http_status"] != 200:
        yield f"{where}: recorded {ending['zocdoc_request_id']}, HTTP {ending['http_status']}"


def _seen(case: Case, where: str, command: Row, ending: Row) -> Iterator[str]:
    reads = case.reads_of(command["appointment_id"], 0.0, ending["at"])
    is_shown = any(read.status == ending["to_status"] and documents.shows(command, read) for read in reads)
    if ending["reason_code"] not in SEEN or not is_shown:
        yield f"{where}: it is {ending['reason_code']}, but no read showed it"


def _inferred(case: Case, where: str, command: Row, events: list[Row]) -> Iterator[str]:
    """I2: what reading proved, it could prove, attempt by attempt."""
    lost: list[Row] = []
    for number, event in enumerate(events):
        if event["event"] in documents.ACCEPTED:
            lost = []
        elif event["event"] == "outcome_lost":
            lost.append(event)
        elif event["reason_code"] == "proved_not_applied" and lost:
            yield from _proved(case, where, command, lost, event)
        elif event["event"] == "attention_needed":
            is_last = not any(later["event"] == "command_retried" for later in events[number:])
            yield from _left_to_a_human(case, where, command, event) if is_last else ()
    # A second loss is the sender's own late word, which brings the next read forward.
    if len(lost) == 1 and lost[0]["reason_code"] != "lease_expired":
        used = [read for event in events if event["at"] > lost[0]["at"] and (read := case.read_of(event))]
        pauses = [read.at - lost[0]["at"] for read in used]
        if pauses and min(pauses) < SETTLE - 0.001:
            yield f"{where}: I2: read {min(pauses):.1f} s after the answer was lost: too early to tell"


def _proved(case: Case, where: str, command: Row, lost: list[Row], event: Row) -> Iterator[str]:
    """Check that the reads were enough, were spaced, and showed no effect."""
    reads = case.recovering_reads(command["appointment_id"], lost[0]["at"], event["at"])
    if len(reads) < READS or (len(lost) == 1 and reads[-1].at - lost[0]["at"] < WINDOW):
        yield f"{where}: I2: taken for not applied after {len(reads)} reads"
    elif any(documents.shows(command, read) and not _died_with(case, read) for read in reads):
        yield f"{where}: I2: taken for not applied although a read showed it"


def _died_with(case: Case, read: Read) -> bool:
    """Tell whether the process that read was gone, or without its database, before it could say what it had seen."""
    call, events = case.calls.get(read.caller), case.events[read.appointment_id]
    return call is not None and call.result != "Done" and read not in map(case.read_of, events)


def _left_to_a_human(case: Case, where: str, command: Row, event: Row) -> Iterator[str]:
    """Check that a human is asked only for what the last read did not tell."""
    read = case.read_of(event)
    if read is None:
        return
    if documents.shows(command, read):
        yield f"{where}: I8: left to a human although a read showed that it was applied"
    before = (command["baseline_status"], datetime.fromisoformat(command["baseline_start_time"]))
    modified = {command["baseline_last_modified"], read.modified} - {None}
    if event["reason_code"] == "unexplained_change" and before == (read.status, read.start) and len(modified) < 2:
        yield f"{where}: I8: left to a human although nothing had changed"
