"""Answering, before anybody tries, whether a command would pass and by which rule."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lifecycle import audit, errors, guards, wishes

if TYPE_CHECKING:
    from datetime import datetime

    from lifecycle.resources import Resources

_NOBODY = "explain"


def explain(
    resources: Resources, appointment_id: str, command: str, *, start_time: str | datetime | None
) -> tuple[guards.Explanation, ...]:
    """Run the checks that `commands.run` runs, on the database's picture; nothing is sent or written.

    Raises `AppointmentNotFound`, `InvalidArgument`.
    """
    wanted = wishes.command_named(command)
    payload = wishes.reschedule_payload(start_time) if start_time is not None else {}
    wish = wishes.Wish(appointment_id=appointment_id, command=wanted, actor=_NOBODY, source=_NOBODY, payload=payload)
    with resources.database.read() as connection:
        seen = audit.peek(resources.database, connection, appointment_id)
    if seen is None:
        raise errors.AppointmentNotFound(appointment_id=appointment_id)
    client = resources.clients.of(seen.row["booked_with"]) or resources.clients.default
    return guards.explain(wishes.situation(seen, wish, credential=client.identity if client else None))
