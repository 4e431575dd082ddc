"""What happens to a command in doubt: its answer is lost, a read did not tell, a human must look.

Each step is written by compare-and-set inside the caller's transaction, under the lock of the appointment's row.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from lifecycle import audit, columns, models, observations, settlement

if TYPE_CHECKING:
    from datetime import timedelta

    import sqlalchemy as sa

    from lifecycle import zocdoc
    from lifecycle.pending import Pending

State = models.CommandState


def lose(connection: sa.Connection, locked: audit.Locked, command: Pending, *, reason_code: str, source: str) -> bool:
    """Mark a command whose sender is gone as uncertain; False if its sender has just settled it."""
    values = {"state": State.UNCERTAIN, "outcome": "unknown", "reason_code": reason_code, "run_at": locked.now}
    if not settlement.change(connection, locked, command, {**values, "lease_until": None}, settlement.WHILE_SENDING):
        return False
    entry = settlement.entry_for(command, audit.Event.OUTCOME_LOST, source, outcome="unknown", reason_code=reason_code)
    audit.record(connection, locked, entry, in_doubt=True)
    return True


def postpone(
    connection: sa.Connection,
    locked: audit.Locked,
    command: Pending,
    counts: dict[str, int],
    *,
    pause: timedelta,
    source: str,
    **facts: Any,  # noqa: ANN401 # columns
) -> None:
    """Note a read that did not settle an uncertain command, and when to read again."""
    values = {**counts, "run_at": locked.now + pause, "lease_until": None}
    if settlement.change(connection, locked, command, values, settlement.WHILE_UNCERTAIN):
        audit.record(connection, locked, settlement.entry_for(command, audit.Event.OUTCOME_CHECKED, source, **facts))


def give_up(
    connection: sa.Connection,
    locked: audit.Locked,
    command: Pending,
    *,
    reason_code: str,
    source: str,
    reading: zocdoc.Reading | None = None,
) -> bool:
    """Leave an uncertain command to a human: reading cannot settle it. What was read is recorded all the same.

    False, and nothing written, if it was settled meanwhile.
    """
    values = {"state": State.NEEDS_ATTENTION, "reason_code": reason_code, "run_at": None, "lease_until": None}
    ended = {"ended_at": locked.now, "payload": settlement.without_text(command)}
    if not settlement.change(connection, locked, command, {**values, **ended}, settlement.WHILE_UNCERTAIN):
        return False
    entry = settlement.entry_for(
        command, audit.Event.ATTENTION_NEEDED, source, outcome="unknown", reason_code=reason_code
    )
    if reading is not None:
        entry = replace(entry, zocdoc_request_id=reading.request_id, details={"remote": remote_facts(reading)})
    locked = audit.record(connection, locked, entry, in_doubt=True)
    if reading is not None:
        observations.apply(connection, locked, reading, actor=command.actor, source=source)
    return True


def remote_facts(reading: zocdoc.Reading) -> dict[str, Any]:
    """Give what a read showed, as evidence for the trail: status and start, no text."""
    remote = reading.appointment
    return {"status": remote.appointment_status, "start_time": columns.utc_text(remote.start_time)}
