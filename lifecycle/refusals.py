"""A command that a check refused: its event in the trail, and its error."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lifecycle import audit, errors

if TYPE_CHECKING:
    import sqlalchemy as sa

    from lifecycle.wishes import Wish


def record(
    connection: sa.Connection,
    locked: audit.Locked,
    wish: Wish,
    reasons: tuple[str, ...],
    *,
    actor: str | None = None,
    command_id: str | None = None,
) -> audit.Locked:
    """Append the refusal to the trail; `actor` is who asked, if not the one whose wish it was."""
    return audit.record(connection, locked, entry(wish, reasons, actor=actor, command_id=command_id))


def entry(
    wish: Wish, reasons: tuple[str, ...], *, actor: str | None = None, command_id: str | None = None
) -> audit.Entry:
    """Make the event of a refusal; `command_id` is that of a submitted command."""
    return audit.Entry(
        event=audit.Event.COMMAND_REFUSED,
        actor=actor or wish.actor,
        source=wish.source,
        command=wish.command,
        command_id=command_id,
        outcome="refused",
        reason_code=reasons[0],
        reason_type=wish.payload.get("reason_type"),
        details={"reasons": list(reasons)},
    )


def error(locked: audit.Locked, wish: Wish, reasons: tuple[str, ...]) -> errors.TransitionRefused:
    """Make the error of a refusal: `CommandInProgress` when another command is active."""
    facts: dict[str, Any] = {
        "appointment_id": wish.appointment_id,
        "command": str(wish.command),
        "status": locked.status,
        "reasons": reasons,
    }
    if locked.active_state is None or locked.active_command_id is None:
        return errors.TransitionRefused(**facts)
    return errors.CommandInProgress(
        **facts, active_command_id=locked.active_command_id, active_state=locked.active_state
    )
