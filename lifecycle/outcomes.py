"""The outcome of a command as the database has it: what a repeated request key is answered with."""

from __future__ import annotations

import hashlib
import hmac
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa

from lifecycle import audit, errors, models

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lifecycle.wishes import Wish

State = models.CommandState


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """A command that was applied. `conforming` is False when the answer's status is one the chart does not expect.

    `reason_code` says how it was found to be applied when not by a plain answer: `already_so`, `recovered`.
    `advice` names what Zocdoc recommends otherwise; it never refuses.
    """

    appointment_id: str
    command: str
    command_id: str
    from_status: str
    to_status: str
    conforming: bool
    zocdoc_request_id: str | None
    reason_code: str | None = None
    advice: tuple[str, ...] = ()


def first(connection: sa.Connection, wish: Wish, digest: str | None) -> Done | None:
    """Give the outcome of the command that has the wish's request key; None when there is none yet.

    A command without effect does not hold its key, so the next call acts. Raises what the first
    call raised, `CommandInProgress` while it goes on, `RequestKeyReused` if the key came with other arguments.
    """
    if wish.request_key is None:
        return None
    row = connection.execute(BY_KEY, {"key": wish.request_key}).mappings().one_or_none()
    if row is None:
        return None
    check_same(row, wish, digest)
    return _recorded(connection, row)


def check_same(row: Mapping[Any, Any], wish: Wish, digest: str | None) -> None:
    """Refuse a wish whose request key belongs to a command with other arguments. Raises `RequestKeyReused`."""
    if digest is None or not hmac.compare_digest(row["payload_digest"] or "", digest):
        raise errors.RequestKeyReused(request_key=str(wish.request_key), command_id=row["command_id"])


def of_command(connection: sa.Connection, command_id: str) -> Done:
    """Give the recorded outcome of a command; raises what its caller would have got."""
    return _recorded(connection, connection.execute(_BY_ID, {"id": command_id}).mappings().one())


def digest_of(wish: Wish, key: bytes) -> str | None:
    """Make the keyed digest that tells whether a request key comes with the same wish again; None without a key.

    HMAC-SHA256 over a JSON list of appointment id, command and arguments. The actor is not part of it: a retry may
    come from another worker.
    """
    if wish.request_key is None:
        return None
    content = json.dumps([wish.appointment_id, wish.command, wish.payload], sort_keys=True)
    return hmac.new(key, content.encode(), hashlib.sha256).hexdigest()


def _recorded(connection: sa.Connection, row: Mapping[Any, Any]) -> Done:
    """Give the outcome of a command as the database has it, in the form in which its first caller got it."""
    facts = {
        name: row[name] for name in ("appointment_id", "command", "command_id", "http_status", "zocdoc_request_id")
    }
    reason_code = row["reason_code"] or row["state"]
    match State(row["state"]):
        case State.APPLIED:
            return _recorded_done(connection, row)
        case State.REJECTED:
            event = connection.execute(_REJECTION, {"id": row["command_id"]}).mappings().one()
            raise errors.CommandRejected(
                **facts, reason_code=reason_code, fields=tuple(event["details"].get("fields", ()))
            )
        case State.UNCERTAIN | State.NEEDS_ATTENTION as state:
            raise errors.OutcomeUnknown(**facts, reason_code=reason_code, state=str(state))
        case State.QUEUED | State.SENDING as state:
            raise errors.CommandInProgress(
                appointment_id=row["appointment_id"],
                command=row["command"],
                status=row["baseline_status"],
                reasons=("command_in_progress",),
                active_command_id=row["command_id"],
                active_state=str(state),
            )
        case State.REFUSED:
            refusal = connection.execute(_REFUSAL, {"id": row["command_id"]}).mappings().one()
            raise errors.TransitionRefused(
                appointment_id=row["appointment_id"],
                command=row["command"],
                status=refusal["to_status"],
                reasons=tuple(refusal["details"]["reasons"]),
            )
        case State.WITHDRAWN:
            raise errors.CommandWithdrawn(**facts, reason_code=reason_code)
        case State.EXPIRED:
            raise errors.CommandExpired(**facts, reason_code=reason_code)
        case State.NOT_SENT:
            raise errors.NotSent(**facts, reason_code=reason_code)


def _recorded_done(connection: sa.Connection, row: Mapping[Any, Any]) -> Done:
    event = connection.execute(_APPLICATION, {"id": row["command_id"]}).mappings().one()
    accepted = connection.execute(_ACCEPTANCE, {"id": row["command_id"]}).mappings().one()
    return Done(
        appointment_id=row["appointment_id"],
        command=row["command"],
        command_id=row["command_id"],
        from_status=event["from_status"],
        to_status=event["details"].get("answered", event["to_status"]),
        conforming=event["conforming"],
        zocdoc_request_id=row["zocdoc_request_id"],
        reason_code=row["reason_code"],
        advice=tuple(accepted["details"].get("advice", ())),
    )


_commands, _events = models.commands, models.audit_events
BY_KEY: Final = sa.select(_commands).where(_commands.c.request_key == sa.bindparam("key"), models.holds_key(_commands))
_BY_ID: Final = sa.select(_commands).where(_commands.c.command_id == sa.bindparam("id"))


def _event_of(*names: audit.Event) -> sa.Select[Any]:
    """Select a command's event of a kind: its newest, since a lost outcome may be settled later."""
    of_command = _events.c.command_id == sa.bindparam("id")
    return sa.select(_events).where(of_command, _events.c.event.in_(names)).order_by(_events.c.seq.desc()).limit(1)


_ACCEPTANCE: Final = _event_of(audit.Event.COMMAND_ACCEPTED)
_APPLICATION: Final = _event_of(
    audit.Event.COMMAND_APPLIED,
    audit.Event.ARRIVAL_MARKED,
    audit.Event.COMMAND_RESOLVED,
    audit.Event.LATE_ANSWER_RECEIVED,
)
_REFUSAL: Final = _event_of(audit.Event.COMMAND_REFUSED)
_REJECTION: Final = _event_of(
    audit.Event.COMMAND_REJECTED, audit.Event.COMMAND_RESOLVED, audit.Event.LATE_ANSWER_RECEIVED
)
