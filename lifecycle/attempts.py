"""One attempt: the call for a command, and the read that some answers ask for. No transaction is open meanwhile."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, assert_never

from lifecycle import chart, pending, zocdoc

if TYPE_CHECKING:
    from collections.abc import Callable

    from lifecycle.pending import Pending

ALREADY_SO: Final = "already_so"
"""Zocdoc answered 409 and the appointment is at the command's target: the wish is fulfilled."""

CONFLICT_UNREAD: Final = "conflict_unread"
"""Zocdoc answered 409 and the appointment could not be read: whether the wish is fulfilled is not known."""

_CONFLICT: Final = 409
_STALE: Final = {chart.Command.RESCHEDULE: {400, 404, 409}}
_STALE_OTHERWISE: Final = {404, 409}
"""Rejections that may mean that our picture of the appointment is old. Reschedule has no 409: it answers 400."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """How a call ended. `reading` is what was read after it, if anything was; `note` tells why it counts as applied."""

    outcome: zocdoc.Outcome
    duration_ms: int | None = None
    reading: zocdoc.Reading | None = None
    note: str | None = None


def make(
    client: zocdoc.ZocdocClient,
    command: Pending,
    *,
    send_before: float,
    monotonic: Callable[[], float] | None = None,
) -> Attempt:
    """Call Zocdoc for the command, once; read the appointment afterwards where the answer leaves it open.

    A 409 is followed by a read: at the target it counts as applied, otherwise as rejected, and if the read fails as
    unknown. `send_before` is a moment of `zocdoc.clock()` after which nothing is sent any more; `monotonic` gives the
    seconds that the call is measured in, None: this machine's.
    """
    clock = monotonic or time.monotonic
    started = clock()
    outcome = _call(client, command, send_before)
    duration_ms = round((clock() - started) * 1000)
    if isinstance(outcome, zocdoc.Rejected) and is_stale(command, outcome):
        return _followed(client, command, outcome, duration_ms)
    return Attempt(outcome=outcome, duration_ms=duration_ms)


def is_stale(command: Pending, rejected: zocdoc.Rejected) -> bool:
    """Tell whether a rejection may mean that our picture of the appointment is old: then it is read."""
    return rejected.http_status in _STALE.get(command.command, _STALE_OTHERWISE)


def after_reading(
    command: Pending, rejected: zocdoc.Rejected, reading: zocdoc.Reading, duration_ms: int | None
) -> Attempt:
    """Give what a stale rejection comes to in the light of what was read after it. Pure."""
    if rejected.http_status == _CONFLICT and pending.judge(command, reading.appointment) is pending.Finding.REACHED:
        applied = zocdoc.Applied(reading.appointment.appointment_status, _CONFLICT, rejected.request_id)
        return Attempt(outcome=applied, duration_ms=duration_ms, reading=reading, note=ALREADY_SO)
    return Attempt(outcome=rejected, duration_ms=duration_ms, reading=reading)


def _call(client: zocdoc.ZocdocClient, command: Pending, send_before: float) -> zocdoc.Outcome:
    appointment_id, payload = command.appointment_id, command.payload
    match command.command:
        case chart.Command.CONFIRM:
            return client.confirm(appointment_id, send_before=send_before)
        case chart.Command.CANCEL:
            return client.cancel(
                appointment_id,
                reason_type=payload.get("reason_type"),
                reason=payload.get("reason"),
                send_before=send_before,
            )
        case chart.Command.RESCHEDULE:
            return client.reschedule(appointment_id, start_time=payload["start_time"], send_before=send_before)
        case chart.Command.MARK_ARRIVED:
            return client.update_status(appointment_id, status="arrived", send_before=send_before)
        case chart.Command.MARK_NO_SHOW:
            return client.update_status(appointment_id, status="no_show", send_before=send_before)
        case _:
            assert_never(command.command)


def _followed(client: zocdoc.ZocdocClient, command: Pending, rejected: zocdoc.Rejected, duration_ms: int) -> Attempt:
    try:
        reading = client.get(command.appointment_id)
    except (zocdoc.ReadRefused, zocdoc.ReadFailed):
        unread = zocdoc.Unknown(CONFLICT_UNREAD, _CONFLICT, rejected.request_id)
        is_conflict = rejected.http_status == _CONFLICT
        return Attempt(outcome=unread if is_conflict else rejected, duration_ms=duration_ms)
    return after_reading(command, rejected, reading, duration_ms)
