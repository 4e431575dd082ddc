"""Answering, before anything is submitted, what would become of each of many wishes, and by which rule."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from datetime import UTC
from enum import StrEnum
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa

from lifecycle import errors, guards, models, wishes, wishlists
from lifecycle.resources import check_instant

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from datetime import datetime

    from lifecycle.resources import Resources
    from lifecycle.wishlists import Row

_NOBODY: Final = "preview"
_TOGETHER: Final = 500
"""Rows judged by one query: few enough values to bind for every database."""


class Judgement(StrEnum):
    """What would become of a row."""

    PASS = "pass"  # noqa: S105 # no secret: all checks pass now, so it would be sent
    REFUSED = "refused"  # a check fails, or it has expired: nothing would be sent
    INVALID = "invalid"  # it cannot become a command


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What would become of one row now: the codes of what is wrong with it, and the rule behind each.

    `status` is the local one, None if the appointment is not tracked or not told readably.
    """

    row: int
    appointment_id: str | None
    command: str | None
    status: str | None
    verdict: str
    codes: tuple[str, ...]
    rules: tuple[str, ...]


def preview(
    resources: Resources, rows: Iterable[Row], *, command: str | None = None, expires_at: datetime | None = None
) -> Iterator[Verdict]:
    """Judge rows of wishes on the database's picture, in their order; nothing is sent or written.

    The checks are those that run again when a command is dispatched. Without a client the credential is not judged.
    `command` and `expires_at` are for rows that name none. Memory stays flat, and no transaction is open while the
    caller works. Raises `InvalidArgument`.
    """
    if expires_at is not None:
        check_instant("expires_at", expires_at)
    remaining = iter(rows)
    with closing(wishlists.Seen()) as keys:
        judge = _Judge(resources, command, expires_at, keys)
        while some := list(islice(remaining, _TOGETHER)):
            known = _known(resources, some)
            for row in some:
                yield judge.of(row, known)


@dataclass(frozen=True, slots=True)
class _Known:
    """What the database says about some rows, by appointment; which of their request keys are taken; its time."""

    rows: dict[str, Mapping[Any, Any]]
    keys: set[str]
    now: datetime


def _known(resources: Resources, some: Sequence[Row]) -> _Known:
    ids = [row.appointment_id for row in some if row.appointment_id is not None]
    keys = [key for row in some if isinstance(key := (row.values or {}).get("request_key"), str)]
    with resources.database.read() as connection:
        now = resources.database.now(connection)
        rows: dict[str, Mapping[Any, Any]] = {
            row["appointment_id"]: row for row in connection.execute(_THOSE, {"ids": ids}).mappings()
        }
        return _Known(rows, set(connection.execute(_TAKEN, {"keys": keys}).scalars()) if keys else set(), now)


class _Judge:
    """Judges rows one by one; remembers which credential acts on whose appointments, and the rows' request keys."""

    def __init__(
        self, resources: Resources, command: str | None, expires_at: datetime | None, keys: wishlists.Seen
    ) -> None:
        self._clients = resources.clients
        self._command = command
        self._expires_at = expires_at
        self._keys = keys
        self._identities: dict[str, str | None] = {}

    def of(self, row: Row, known: _Known) -> Verdict:
        """Judge a row by what the database says about its appointment."""
        found = known.rows.get(row.appointment_id or "")
        verdict, failed = Judgement.INVALID, [(row.problem or "", wishlists.meaning(row))]
        if row.values is not None:
            verdict, failed = self._judged(row.number, row.values, found, known)
        return Verdict(
            row=row.number,
            appointment_id=row.appointment_id,
            command=self._command or (row.values or {}).get("command"),
            status=None if found is None else found["status"],
            verdict=verdict,
            codes=tuple(code for code, _ in failed),
            rules=tuple(rule for _, rule in failed),
        )

    def _judged(
        self, number: int, values: Mapping[str, Any], found: Mapping[Any, Any] | None, known: _Known
    ) -> tuple[Judgement, list[tuple[str, str]]]:
        try:
            wish = wishlists.wish(values, command=self._command, actor=_NOBODY, source=_NOBODY)
        except errors.InvalidArgument as error:
            return Judgement.INVALID, [(f"invalid_{error.argument}", error.problem)]
        if found is None:
            return Judgement.INVALID, [("not_tracked", _NOT_TRACKED)]
        if wish.request_key is not None and self._is_taken(wish.request_key, number, known):
            return Judgement.INVALID, [("request_key_taken", _KEY_TAKEN)]
        if self._has_expired(values, known.now):
            return Judgement.REFUSED, [("expired", _EXPIRED)]
        answers = guards.explain(_situation(wish, found, known.now, self._credential(found["booked_with"])))
        failed = [(each.code, each.rule) for each in answers if each.required and each.code is not None]
        return Judgement.REFUSED if failed else Judgement.PASS, failed

    def _is_taken(self, key: str, number: int, known: _Known) -> bool:
        return key in known.keys or self._keys.first(key, number) != number

    def _has_expired(self, values: Mapping[str, Any], now: datetime) -> bool:
        until = values.get("expires_at")
        at = self._expires_at if until is None else wishes.instant_of("expires_at", until)
        return at is not None and at <= now

    def _credential(self, booked_with: str) -> str | None:
        """Give the identity that would act; each is asked for once, because the caller's function may be slow."""
        if booked_with not in self._identities:
            client = self._clients.find(booked_with) or self._clients.default
            self._identities[booked_with] = None if client is None else client.identity
        return self._identities[booked_with]


def _situation(wish: wishes.Wish, row: Mapping[Any, Any], now: datetime, credential: str | None) -> guards.Situation:
    return guards.Situation(
        command=wish.command,
        status=row["status"],
        booked_with=row["booked_with"],
        credential=credential,
        start_time=row["start_time"].astimezone(UTC),
        now=now,
        active_command=row["active_state"],
        requested_start=wish.requested_start,
        reason_type=wish.payload.get("reason_type"),
        has_reason_text="reason" in wish.payload,
    )


_NOT_TRACKED: Final = "an appointment is tracked before it is changed; `track` or `sync` reads it from Zocdoc"
_KEY_TAKEN: Final = "Ours: a request key names one command; another one, or a row before this, has it."
_EXPIRED: Final = "Ours: after its expires_at a wish is not sent any more."

_appointments, _commands = models.appointments, models.commands
_TAKEN: Final = sa.select(_commands.c.request_key).where(
    _commands.c.request_key.in_(sa.bindparam("keys", expanding=True)), models.holds_key(_commands)
)
_THOSE: Final = (
    sa.select(
        _appointments.c.appointment_id,
        _appointments.c.status,
        _appointments.c.booked_with,
        _appointments.c.start_time,
        _commands.c.state.label("active_state"),
    )
    .select_from(
        _appointments.outerjoin(
            _commands,
            sa.and_(
                _commands.c.appointment_id == _appointments.c.appointment_id, models.state_in(*models.ACTIVE_STATES)
            ),
        )
    )
    .where(_appointments.c.appointment_id.in_(sa.bindparam("ids", expanding=True)))
)
