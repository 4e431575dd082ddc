"""What must hold when all is over: raw SQL, the stand-in's ledger and the trail. Shares no code with the product."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from lifecycle import (
    CommandRejected,
    DatabaseUnavailable,
    Done,
    LifecycleError,
    NotSent,
    OutcomeUnknown,
    ReadFailed,
    TransitionRefused,
)
from tests import trail
from tests.exhaustive.world import Crash

if TYPE_CHECKING:
    from lifecycle.sandbox import Entry
    from tests.exhaustive.stories import Scene

WITHOUT_EFFECT: Final = {"not_sent", "refused", "withdrawn", "expired"}
ENDED: Final = {"applied", "rejected", "needs_attention"} | WITHOUT_EFFECT
READS_BEFORE_REPEATING: Final = 3
NOT_PROCESSED: Final = {400, 401, 403, 404, 405, 409, 422, 429}
"""Answers that say that nothing was done."""

_MEANINGS: Final[dict[tuple[type, ...], tuple[set[str | None], bool]]] = {
    (Done,): ({"applied"}, True),
    (NotSent,): ({"not_sent"}, False),
    (CommandRejected,): ({"rejected"}, True),
    (OutcomeUnknown,): ({*ENDED}, True),
    (TransitionRefused, ReadFailed): ({None}, False),
    (DatabaseUnavailable,): ({None, "not_sent", "needs_attention"}, False),
}
"""What a caller hears: the states that the command may end in, and whether a request may have been processed."""


@dataclass(slots=True)
class Evidence:
    """What was seen while a cell ran: of a call, or of a command in the queue (`is_queued`).

    `since` is the length of the ledger when the act began, `until` when it ended.
    """

    scene: Scene
    is_sending: bool
    is_queued: bool = False
    since: int = 0
    until: int = 0
    heard: object = None
    repeated: object = None
    has_lied: bool = False
    problems: list[str] = field(default_factory=list)

    def entries(self, *, until: int | None = None) -> list[Entry]:
        """Give the requests about the appointment since the act began, tokens apart."""
        found = self.scene.world.stage.ledger.entries()[self.since : until]
        return [each for each in found if each.appointment_id == self.scene.appointment_id]

    def posts(self, *, until: int | None = None) -> list[Entry]:
        """Give the requests that could change the appointment."""
        return [each for each in self.entries(until=until) if each.method != "GET" and not each.late]


def after_recovery(seen: Evidence) -> list[str]:
    """Check what holds once recovery has come to its end, before anybody reads or calls again."""
    scene = seen.scene
    commands = _commands(scene)
    found = [f"command is {row['state']}" for row in commands if row["state"] not in ENDED]
    found += _trail(scene)
    found += _effects(seen)
    found += _reads_between(seen)
    found += _doubt(scene, commands)
    found += _agreement(seen, commands)
    found += _texts(commands)
    found += _attempts(seen, commands)
    appointment = _appointment(scene)
    settled = appointment is not None and not appointment["in_doubt"]
    if settled and not scene.provider_acted and not seen.has_lied and not _late(seen):
        found += _same(seen)
    return found


def at_rest(seen: Evidence) -> list[str]:
    """Check what holds after everything, the appointment read once more: here is what is there."""
    found = _trail(seen.scene) + _same(seen) + _effects(seen) + _reads_between(seen)
    return found + _doubt(seen.scene, _commands(seen.scene))


def on_repeating(seen: Evidence, before: list[dict[str, Any]], posts: int) -> list[str]:
    """Check what the same call with the same key gives: the first outcome, and nothing is sent for it."""
    own = [row for row in before if row["request_key"] == seen.scene.key and row["state"] not in WITHOUT_EFFECT]
    sent = len(seen.posts()) - posts
    match own[0]["state"] if own else None:
        case "applied":
            fits = isinstance(seen.repeated, Done) and sent == 0
        case "rejected":
            fits = isinstance(seen.repeated, CommandRejected) and sent == 0
        case "needs_attention":
            fits = isinstance(seen.repeated, OutcomeUnknown) and sent == 0
        case _:
            fits = isinstance(seen.repeated, (Done, TransitionRefused, CommandRejected)) and sent <= 1
    return [] if fits else [f"repeated after {own}: {seen.repeated!r}, {sent} sent"]


def _commands(scene: Scene) -> list[dict[str, Any]]:
    query = "SELECT * FROM lifecycle_commands WHERE appointment_id = ? ORDER BY created_at"
    return scene.world.rows(query, scene.appointment_id)


def _appointment(scene: Scene) -> dict[str, Any] | None:
    rows = scene.world.rows("SELECT * FROM lifecycle_appointments WHERE appointment_id = ?", scene.appointment_id)
    return rows[0] if rows else None


def _trail(scene: Scene) -> list[str]:
    """Fold the events: no gaps, each begins where the last one ended, the hashes fit, the row is the last one's."""
    query = "SELECT * FROM lifecycle_audit_events WHERE appointment_id = ? ORDER BY seq"
    found, status, head = [], None, "0" * 64
    for number, row in enumerate(scene.world.rows(query, scene.appointment_id), start=1):
        if row["appointment_seq"] != number or row["from_status"] != status:
            found.append(
                f"event {number} does not follow: {row['appointment_seq']}, {row['from_status']} after {status}"
            )
        if row["prev_hash"] != head or row["hash"] != trail.hash_of(row):
            found.append(f"event {number} breaks the chain")
        status, head = row["to_status"], row["hash"]
    row_status = (_appointment(scene) or {"status": None})["status"]
    return found if row_status == status else [*found, f"the row says {row_status}, the trail {status}"]


def _late(seen: Evidence) -> bool:
    return any(each.late and each.effect for each in seen.entries())


def _effects(seen: Evidence) -> list[str]:
    count = sum(each.effect and not each.late for each in seen.entries())
    return [f"{count} effects"] if count > 1 else []


def _reads_between(seen: Evidence) -> list[str]:
    """Look for a second request with too few reads after a first one that may have been processed."""
    reads, open_post, found = 0, False, []
    needed = 1 if seen.scene.operator_acted else READS_BEFORE_REPEATING
    for each in seen.entries():
        if each.late:
            continue
        if each.method == "GET":
            reads += each.answered == 200
        elif each.answered not in NOT_PROCESSED:
            if open_post and reads < needed:
                found.append(f"sent again after {reads} reads")
            open_post, reads = True, 0
    return found


def _doubt(scene: Scene, commands: list[dict[str, Any]]) -> list[str]:
    appointment = _appointment(scene)
    if appointment is None:
        return []
    expected = any(row["state"] in {"uncertain", "needs_attention"} for row in commands)
    return [] if bool(appointment["in_doubt"]) == expected else [f"in_doubt is {appointment['in_doubt']}"]


def _agreement(seen: Evidence, commands: list[dict[str, Any]]) -> list[str]:
    """Compare what the caller heard and what the database says with what really happened at the stand-in."""
    scene = seen.scene
    if not seen.is_sending and not seen.is_queued:
        return []
    own = [row for row in commands if row["request_key"] == scene.key]
    state = own[-1]["state"] if own else None
    effects = sum(each.effect and not each.late for each in seen.entries())
    found = []
    if state in WITHOUT_EFFECT | {"rejected"} and effects:
        found.append(f"{state}, but there was an effect")
    if state is None and seen.posts():
        found.append("sent without an intent")
    if state == "applied" and not effects and not scene.provider_acted and not _late(seen):
        found.append("applied, but there was no effect")
    if seen.is_sending and not _fits(seen, state):
        found.append(f"heard {seen.heard!r}, the command is {state}")
    return found


def _fits(seen: Evidence, state: str | None) -> bool:
    """Tell whether what the caller heard is true, in the end and at once: `not sent` means that nothing was."""
    if isinstance(seen.heard, Crash):
        return True
    sent = [each for each in seen.posts(until=seen.until) if each.answered not in NOT_PROCESSED]
    for kinds, (states, may_have_sent) in _MEANINGS.items():
        if isinstance(seen.heard, kinds):
            return state in states and (may_have_sent or not sent)
    return False


def _texts(commands: list[dict[str, Any]]) -> list[str]:
    return [f"text kept in {row['state']}" for row in commands if "reason" in json.loads(row["payload"])]


def _attempts(seen: Evidence, commands: list[dict[str, Any]]) -> list[str]:
    sent = sum(each.answered not in {401, 429} for each in seen.posts())
    attempts = sum(row["attempt"] for row in commands)
    return [] if sent <= attempts else [f"{sent} sent in {attempts} attempts"]


def _same(seen: Evidence) -> list[str]:
    here = _appointment(seen.scene)
    if here is None:
        return []
    there = seen.scene.world.stage.appointment(seen.scene.appointment_id)
    start = datetime.fromisoformat(here["start_time"]).astimezone(UTC)
    if (here["status"], start) == (there.status, there.start.astimezone(UTC)):
        return []
    return [f"here {here['status']} {start}, there {there.status} {there.start}"]


def documented(heard: object) -> bool:
    """Tell whether that may come out of a call."""
    return heard is None or isinstance(heard, (LifecycleError, Crash)) or not isinstance(heard, BaseException)
