"""What must be true of a batch that was carried out: read from the ledger and the tables alone.

Nothing here is imported from the product, and nothing is taken from what the product returned.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import requests

from tests import trail
from tests.crashes.evidence import instant
from tests.crashes.grounds import rows

if TYPE_CHECKING:
    from datetime import datetime

    import sqlalchemy as sa

    from tests.chaos.scene import Scene

PROVING_READS: Final = 3
"""Reads after a lost answer that must have shown no effect before anything is sent again: written down by hand."""

UNPROCESSED: Final = {401, 429}
"""Answers that are given before a request is processed."""

_ENDINGS: Final = ("applied", "rejected", "not_sent", "refused", "withdrawn", "expired", "needs_attention")


@dataclass
class Verdict:
    """The figures of one round, and what was wrong.

    `cut_off`: commands whose sender died before their outcome was recorded; `in_the_air`: those of them whose request
    had arrived at the stand-in. `resent`: attempts beyond the first; `requests_beyond_the_first` also has what the
    client repeats by itself after a 429.
    """

    commands: int = 0
    lost: int = 0
    blind_duplicates: int = 0
    most_effects: int = 0
    cut_off: int = 0
    in_the_air: int = 0
    resent: int = 0
    requests_beyond_the_first: int = 0
    last_end: datetime | None = None
    faults: list[str] = field(default_factory=list)


def judge(scene: Scene) -> Verdict:
    """Judge a batch that is over. The ledger first: a call that is in it must have its row in the tables by then."""
    ledger = calls(scene)
    engine = scene.ground.raw()
    commands = rows(engine, "SELECT * FROM lifecycle_commands ORDER BY batch_row")
    verdict = Verdict(commands=len(commands), faults=[*trail.faults(engine), *_untold(engine, commands)])
    verdict.faults += [*_counts(engine, scene.batch_id, commands), *_appointments(scene)]
    by_id = {row["appointment_id"]: row for row in commands}
    verdict.lost = sum(each not in by_id or by_id[each]["state"] not in _ENDINGS for each in scene.ids)
    verdict.last_end = max((instant(row["ended_at"]) for row in commands if row["ended_at"]), default=None)
    lost_senders = {
        row["command_id"]
        for row in rows(
            engine,
            "SELECT command_id FROM lifecycle_audit_events "
            "WHERE event = 'outcome_lost' AND reason_code = 'lease_expired'",
        )
    }
    verdict.cut_off = len(lost_senders)
    for row in commands:
        asked = ledger[row["appointment_id"]]
        _judge_calls(verdict, row, asked)
        verdict.in_the_air += row["command_id"] in lost_senders and asked[:1] != [] and asked[0]["method"] != "GET"
    if verdict.lost:
        verdict.faults.append(f"{verdict.lost} lost")
    verdict.faults += [f"Traceback in a worker's log: {scene.logs()[-2000:]}"] * ("Traceback" in scene.logs())
    return verdict


def calls(scene: Scene) -> dict[str, list[dict[str, Any]]]:
    """Read the ledger over the stand-in's control address: the calls about each appointment, in order."""
    answer = requests.get(f"{scene.standin.base_url}/_sandbox/ledger", timeout=60)
    answer.raise_for_status()
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for entry in answer.json()["entries"]:
        found[entry["appointment_id"] or ""].append(entry)
    return found


def _judge_calls(verdict: Verdict, row: dict[str, Any], asked: list[dict[str, Any]]) -> None:
    """Each appointment has one command: all its requests are the command's."""
    who = f"row {row['batch_row']}, {row['command']}"
    changing = [entry for entry in asked if entry["method"] != "GET"]
    effects = sum(entry["effect"] for entry in changing)
    verdict.most_effects = max(verdict.most_effects, effects)
    verdict.resent += row["attempt"] - 1
    verdict.requests_beyond_the_first += max(0, len(changing) - 1)
    if again := blind(asked):
        verdict.blind_duplicates += again
        verdict.faults.append(f"{who} was sent again blindly: {_story(asked)}")
    if (row["state"], effects) != ("applied", 1):
        verdict.faults.append(f"{who} is {row['state']} and had {effects} effects")
    if {entry["operation"] for entry in changing} - {row["command"]}:
        verdict.faults.append(f"{who}: something else was sent")


def blind(asked: list[dict[str, Any]]) -> int:
    """Count the requests that were sent again although an effect could be seen, or nobody had looked often enough."""
    found, reads = 0, 0
    earlier: dict[str, Any] | None = None
    had_effect = False
    for entry in asked:
        if entry["method"] == "GET":
            reads += entry["answered"] == 200
            continue
        if earlier is not None:
            is_proved = earlier["answered"] in UNPROCESSED or reads >= PROVING_READS
            found += had_effect or not is_proved
        earlier, reads, had_effect = entry, 0, had_effect or entry["effect"]
    return found


def _story(asked: list[dict[str, Any]]) -> str:
    first = asked[0]["at"]
    return ", ".join(
        f"{entry['method']} {entry['answered']}{' effect' * entry['effect']} +{entry['at'] - first:.3f}"
        for entry in asked
    )


def _untold(engine: sa.Engine, commands: list[dict[str, Any]]) -> list[str]:
    """The trail tells each command: accepted once, sent again as often as its attempts say, applied once."""
    told: dict[str, Counter[str]] = defaultdict(Counter)
    query = "SELECT command_id, event FROM lifecycle_audit_events WHERE command_id IS NOT NULL"
    for row in rows(engine, query):
        told[row["command_id"]][row["event"]] += 1
    found = []
    for row in commands:
        events = told.pop(row["command_id"], Counter())
        again = events["command_resent"]
        if (events["command_accepted"], events["command_applied"], again) != (1, 1, row["attempt"] - 1):
            found.append(
                f"row {row['batch_row']} is {row['state']} at attempt {row['attempt']}, told as {dict(events)}"
            )
    return found + [f"{command_id}: events without a command" for command_id in told]


def _counts(engine: sa.Engine, batch_id: str, commands: list[dict[str, Any]]) -> list[str]:
    """The counts that triggers keep are those of the commands, and no row of the input was refused."""
    kept: Counter[str] = Counter()
    for row in rows(engine, "SELECT * FROM lifecycle_batch_counts WHERE batch_id = :id", id=batch_id):
        kept.update({name: count for name, count in row.items() if name not in {"batch_id", "slot"}})
    counted = Counter(row["state"] for row in commands if row["batch_id"] == batch_id)
    found = [] if +kept == counted else [f"the batch counts {dict(+kept)}, its commands are {dict(counted)}"]
    errors = rows(engine, "SELECT batch_row, reason_code FROM lifecycle_batch_errors")
    return found + [f"row {row['batch_row']} became no command: {row['reason_code']}" for row in errors]


def _appointments(scene: Scene) -> list[str]:
    """Nothing is in doubt, and both sides agree."""
    remote = scene.standin.remote(scene.ids)
    found = []
    query = "SELECT appointment_id, status, start_time, in_doubt FROM lifecycle_appointments"
    here = {row["appointment_id"]: row for row in rows(scene.ground.raw(), query)}
    for each in scene.ids:
        row = here[each]
        if row["in_doubt"]:
            found.append(f"{each} is in doubt")
        elif (row["status"], instant(row["start_time"])) != remote[each]:
            found.append(f"{each}: {row['status']} {row['start_time']} here, {remote[each]} there")
    return found
