"""A command that has been accepted and has not ended, and what a later read of the appointment says about it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from lifecycle import chart

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from lifecycle.zocdoc import AppointmentData

TARGET_STATUS: Final = {
    chart.Command.CONFIRM: chart.Status.CONFIRMED,
    chart.Command.CANCEL: chart.Status.CANCELLED,
    chart.Command.MARK_NO_SHOW: chart.Status.NO_SHOW,
}
"""The one status that shows that a command was applied. A reschedule shows by its time, an arrival by nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pending:
    """An accepted command: who wants what, what the appointment was like before, what would show that it happened."""

    command_id: str
    appointment_id: str
    command: chart.Command
    payload: dict[str, Any]
    actor: str
    attempt: int
    baseline_status: str
    baseline_start_time: datetime
    baseline_last_modified: datetime | None
    target_status: str | None
    target_start_time: datetime | None
    queued_at: datetime | None = None
    expires_at: datetime | None = None

    @property
    def is_submitted(self) -> bool:
        """Tell whether it is sent again by itself when an attempt is proved to have had no effect."""
        return self.queued_at is not None

    @classmethod
    def of(cls, row: Mapping[Any, Any]) -> Pending:
        """Make it of a row of `lifecycle_commands`."""
        values = {name: row[name] for name in cls.__slots__}
        return cls(**{**values, "command": chart.Command(row["command"])})


def baseline(row: Mapping[Any, Any]) -> dict[str, Any]:
    """Give the `baseline_*` of a command from its appointment's row.

    Zocdoc's modification time is part of it only if nothing of ours has changed the appointment since it was read.
    """
    is_current = row["observed_version"] == row["version"]
    return {
        "baseline_status": row["status"],
        "baseline_start_time": row["start_time"],
        "baseline_last_modified": row["remote_last_modified"] if is_current else None,
    }


class Finding(StrEnum):
    """What a read of the appointment says about a command whose answer was lost."""

    REACHED = "reached"
    UNCHANGED = "unchanged"
    UNTELLABLE = "untellable"


def judge(pending: Pending, remote: AppointmentData) -> Finding:
    """Compare what Zocdoc shows now with the command's target and with the state before it. Instants, not strings.

    `UNTELLABLE` covers what no read can tell apart: an arrival, a reschedule to the start it already had, and any
    change that the command does not explain.
    """
    if _is_reached(pending, remote):
        return Finding.REACHED
    blind = pending.target_status is None and pending.target_start_time in {None, pending.baseline_start_time}
    return Finding.UNTELLABLE if blind or not _is_unchanged(pending, remote) else Finding.UNCHANGED


def moves_time(pending: Pending, *, from_status: str, answer: str) -> bool:
    """Tell whether a reschedule that was answered with a status has moved the visit: not when it failed."""
    moved = {chart.Status.RESCHEDULED, chart.Status.PENDING_RESCHEDULE, from_status}
    return pending.target_start_time is not None and answer in moved


def _is_reached(pending: Pending, remote: AppointmentData) -> bool:
    if pending.target_status is not None:
        return remote.appointment_status == pending.target_status
    return (
        remote.start_time == pending.target_start_time
        and pending.target_start_time != pending.baseline_start_time
        and moves_time(pending, from_status=pending.baseline_status, answer=remote.appointment_status)
    )


def _is_unchanged(pending: Pending, remote: AppointmentData) -> bool:
    modified = (pending.baseline_last_modified, remote.last_modified_time_utc)
    return (
        remote.appointment_status == pending.baseline_status
        and remote.start_time == pending.baseline_start_time
        and (None in modified or modified[0] == modified[1])
    )
