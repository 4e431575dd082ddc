"""The inbox: Zocdoc's webhook calls, stored before they are answered, processed by reading the appointment.

A delivery says THAT an appointment changed and carries no status: it is a hint, and the read is the fact. So copies,
a wrong order and late deliveries do no harm, and many deliveries of one appointment need one read.
"""

from __future__ import annotations

import logging
import re
import time
from dataclasses import dataclass, fields, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from lifecycle import chart, errors, models, observations, zocdoc
from lifecycle.columns import UtcDateTime
from lifecycle.points import Point, reach
from lifecycle.zocdoc import webhook

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from datetime import datetime

    from lifecycle.resources import Resources

ACTOR: Final = "zocdoc"
SOURCE: Final = "webhook"
NOT_AN_UPDATE: Final = "not_an_update"
ACTIVE_COMMAND: Final = "active_command"
NO_CREDENTIAL: Final = "no_credential"
NOT_FOUND: Final = "not_found"

State = models.DeliveryState

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """A call that is durably stored. `copies` counts how often the same body came; 1: it is new.

    `is_stale`: it was signed, but at a time out of tolerance; it only causes a read.
    """

    delivery_id: str
    appointment_id: str | None
    is_stale: bool
    copies: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One row of `lifecycle_webhook_deliveries`. Instants are UTC."""

    delivery_id: str
    state: str
    copies: int
    is_stale: bool
    appointment_id: str | None
    update_type: str | None
    occurred_at: datetime | None
    signed_at: datetime
    received_at: datetime
    last_received_at: datetime
    attempts: int
    run_at: datetime | None
    reason_code: str | None
    processed_at: datetime | None

    @classmethod
    def of(cls, row: Mapping[Any, Any]) -> Delivery:
        """Make the record of a row."""
        return cls(**{field.name: row[field.name] for field in fields(cls)})


@dataclass(frozen=True, slots=True, kw_only=True)
class Processed:
    """What a run over the inbox ended, in deliveries, with how many reads; `waiting` ones are left, `next_at` first."""

    followed: int
    untracked: int
    failed: int
    reads: int
    waiting: int
    next_at: datetime | None


@dataclass(frozen=True, slots=True)
class Step:
    """What became of an appointment's deliveries: so many ended in a state, after so many calls of Zocdoc."""

    state: models.DeliveryState = State.RECEIVED
    ended: int = 0
    reads: int = 0


def check_keys(keys: Iterable[str]) -> tuple[str, ...]:
    """Accept base64 keys, none at all included. Raises `ConfigurationError`."""
    given = tuple([keys] if isinstance(keys, str) else keys)
    try:
        if given:
            webhook.check_keys(given)
    except zocdoc.InvalidConfiguration as error:
        raise errors.ConfigurationError(problem=str(error)) from None
    return given


def receive(resources: Resources, headers: Mapping[str, str], body: bytes, keys: Sequence[str]) -> Receipt:
    """Verify a call of Zocdoc and store it durably. When this returns, it may be answered.

    The same body again is counted, not stored again. An authentic call out of the tolerance of time is stored as a
    hint. Raises `WebhookRefused` (nothing is stored), `ConfigurationError` for missing or unusable keys,
    `DatabaseUnavailable`: then do not answer, so that Zocdoc delivers again. `keys` as `check_keys` gave them.
    """
    call, is_stale = _verify(headers, body, keys)
    update = webhook.parse(body)
    reach(Point.DELIVERY_VERIFIED)
    with resources.database.write() as connection:
        now = resources.database.now(connection)
        row = {
            "delivery_id": call.body_digest,
            "state": State.IGNORED if update is None else State.RECEIVED,
            "copies": 1,
            "is_stale": is_stale,
            "appointment_id": update and update.appointment_id,
            "update_type": update and update.update_type,
            "occurred_at": update and update.updated_at,
            "signed_at": call.signed_at,
            "received_at": now,
            "last_received_at": now,
            "attempts": 0,
            "run_at": None if update is None else now,
            "reason_code": NOT_AN_UPDATE if update is None else None,
            "processed_at": now if update is None else None,
        }
        insert = _STORE_POSTGRES if resources.database.is_postgres else _STORE_SQLITE
        copies = connection.execute(insert, row).scalar_one()
    reach(Point.DELIVERY_STORED)
    _log.info("webhook_received", extra={"delivery_id": call.body_digest, "copies": copies, "is_stale": is_stale})
    appointment_id = None if update is None else update.appointment_id
    return Receipt(delivery_id=call.body_digest, appointment_id=appointment_id, is_stale=is_stale, copies=copies)


def process(resources: Resources, *, track_unknown: bool = False, limit: int | None = None) -> Processed:
    """Read the appointments that deliveries tell of, each once, and record what has changed.

    Calls Zocdoc once for each appointment, outside of transactions. Deliveries of appointments that are not tracked
    end as `untracked`, or with `track_unknown` make them tracked (as booked machine-to-machine). A read that fails is
    tried again later, with growing pauses, then ends as `failed`. While a command is active on the appointment its
    deliveries wait: the command's own answer is on its way. At most `limit` appointments. Several processes may run
    this at once: each delivery is taken by one.
    """
    if limit is not None and limit < 1:
        raise errors.InvalidArgument(argument="limit", problem="at least 1 appointment is needed")
    ends = dict.fromkeys(State, 0)
    reads = done = 0
    while limit is None or done < limit:
        due = _due(resources, _BATCH if limit is None else min(limit - done, _BATCH))
        for appointment_id, booked_with, is_busy in due:
            step = _take_up(resources, appointment_id, booked_with, is_busy=is_busy, track_unknown=track_unknown)
            ends[step.state] += step.ended
            reads += step.reads
        done += len(due)
        if not due:
            break
    left, next_at = _outlook(resources)
    return Processed(
        followed=ends[State.FOLLOWED],
        untracked=ends[State.UNTRACKED],
        failed=ends[State.FAILED],
        reads=reads,
        waiting=left,
        next_at=next_at,
    )


def deliveries(resources: Resources, *, state: str | None) -> Iterator[Delivery]:
    """Iterate over the inbox, newest first, a page at a time. Raises `InvalidArgument` for an unknown state."""
    query = sa.select(_deliveries).order_by(_deliveries.c.received_at.desc(), _deliveries.c.delivery_id).limit(_PAGE)
    if state is not None:
        if state not in set(State):
            raise errors.InvalidArgument(argument="state", problem=f"use one of {', '.join(State)}")
        query = query.where(_deliveries.c.state == state)
    page = query
    while True:
        with resources.database.read() as connection:
            rows = connection.execute(page).mappings().all()
        yield from map(Delivery.of, rows)
        if len(rows) < _PAGE:
            return
        at, last = rows[-1]["received_at"], rows[-1]["delivery_id"]
        later = sa.and_(_deliveries.c.received_at == at, _deliveries.c.delivery_id > last)
        page = query.where(sa.or_(_deliveries.c.received_at < at, later))


def retry(resources: Resources, delivery_id: str) -> None:
    """Take a delivery up again that ended as `failed` or `untracked`. Raises `NothingToRetry`, `InvalidArgument`."""
    if not isinstance(delivery_id, str) or not _DELIVERY_ID.fullmatch(delivery_id):
        raise errors.InvalidArgument(argument="delivery_id", problem="64 hexadecimal digits are needed")
    with resources.database.write() as connection:
        again = sa.update(_deliveries).where(_deliveries.c.delivery_id == delivery_id, _deliveries.c.state.in_(_AGAIN))
        now = resources.database.now(connection)
        values = {"state": State.RECEIVED, "attempts": 0, "run_at": now, "reason_code": None, "processed_at": None}
        if connection.execute(again.values(values)).rowcount == 1:
            return
        query = sa.select(_deliveries.c.state).where(_deliveries.c.delivery_id == delivery_id)
        state = connection.execute(query).scalar()
    raise errors.NothingToRetry(delivery_id=delivery_id, state=state)


def waiting(resources: Resources) -> int:
    """Count the deliveries that have not ended."""
    return _outlook(resources)[0]


def _verify(headers: Mapping[str, str], body: bytes, keys: Sequence[str]) -> tuple[webhook.Call, bool]:
    if not keys:
        problem = "no webhook keys: pass webhook_keys=[...] (base64, as Zocdoc gave them)"
        raise errors.ConfigurationError(problem=problem)
    try:
        return webhook.verify(body=body, headers=headers, keys=keys, now=time.time()), False
    except webhook.OutOfTolerance as stale:
        return stale.call, True
    except webhook.WebhookError as refused:
        _log.warning("webhook_refused", extra={"reason_code": refused.reason_code})
        raise errors.WebhookRefused(reason_code=refused.reason_code) from None


def _due(resources: Resources, limit: int) -> list[tuple[str, str | None, bool]]:
    """List what is due: appointment, whose credential may read it (None: not tracked), is a command active on it."""
    # A process that acts for users only leaves the machine's appointments to one that may read them.
    query = _DUE if resources.clients.of(chart.MACHINE) is not None else _DUE_OF_USERS
    with resources.database.read() as connection:
        now = resources.database.now(connection)
        return [tuple(row) for row in connection.execute(query, {"now": now, "most": limit})]


def _take_up(
    resources: Resources, appointment_id: str, booked_with: str | None, *, is_busy: bool, track_unknown: bool
) -> Step:
    """Take the due deliveries of one appointment, and read it once for all of them."""
    client = _client(resources, booked_with or chart.MACHINE)
    lease, claimed = _claim(resources, appointment_id, deadline=0.0 if client is None else client.deadline)
    reach(Point.DELIVERY_CLAIMED)
    if not claimed:
        return Step()
    if booked_with is None and not track_unknown:
        return _leave(resources, appointment_id, claimed, lease=lease)
    if is_busy:
        return _postpone(resources, claimed)
    if client is None:
        return _fail(resources, claimed, NO_CREDENTIAL)
    return replace(_follow(resources, client, appointment_id, claimed, is_tracked=booked_with is not None), reads=1)


def _follow(
    resources: Resources, client: zocdoc.ZocdocClient, appointment_id: str, claimed: list[str], *, is_tracked: bool
) -> Step:
    newest = claimed[-1]
    try:
        if not is_tracked:
            observations.track(
                resources, appointment_id, actor=ACTOR, source=SOURCE, booked_with=chart.MACHINE, delivery_id=newest
            )
        elif not observations.observe(
            resources, client, appointment_id, actor=ACTOR, source=SOURCE, delivery_id=newest
        ):
            return _postpone(resources, claimed)
    except errors.ReadFailed as error:
        return _fail(resources, claimed, error.reason_code)
    except errors.AppointmentNotFound:
        return _fail(resources, claimed, NOT_FOUND)
    return _end(resources, claimed, State.FOLLOWED)


def _client(resources: Resources, identity: str) -> zocdoc.ZocdocClient | None:
    """Find the client; a resolver that fails for one user must not keep the others' deliveries from being processed."""
    try:
        return resources.clients.of(identity)
    except Exception as error:  # noqa: BLE001 # the caller's own function
        _log.warning("user_client_failed", extra={"error": type(error).__name__})
        return None


def _claim(resources: Resources, appointment_id: str, *, deadline: float) -> tuple[datetime, list[str]]:
    """Take an appointment's due deliveries, oldest first, until an instant; none if another process was faster.

    Only those that are stored now: a read that begins after this shows at least what they tell of.
    """
    with resources.database.write() as connection:
        now = resources.database.now(connection)
        lease = now + timedelta(seconds=_READS * deadline + resources.timing.lease_margin)
        found = connection.execute(_CLAIM, {"of_appointment": appointment_id, "now": now, "lease": lease}).all()
        oldest_first = sorted(found, key=lambda row: (row.received_at, row.delivery_id))
        return lease, [row.delivery_id for row in oldest_first]


def _leave(resources: Resources, appointment_id: str, claimed: list[str], *, lease: datetime) -> Step:
    """End deliveries of an appointment that nobody tracks, unless it has just become tracked (which wakes them)."""
    with resources.database.write() as connection:
        if connection.execute(_IS_TRACKED, {"id": appointment_id}).scalar() is None:
            now = resources.database.now(connection)
            values = {"state": State.UNTRACKED, "run_at": None, "reason_code": None, "processed_at": now}
            unwoken = _change_of(claimed).where(_deliveries.c.run_at == lease)
            return Step(State.UNTRACKED, connection.execute(unwoken.values(values)).rowcount)
        connection.execute(_change_of(claimed).values(run_at=resources.database.now(connection)))
    return Step()


def _end(resources: Resources, claimed: list[str], state: models.DeliveryState) -> Step:
    with resources.database.write() as connection:
        now = resources.database.now(connection)
        values = {"state": state, "run_at": None, "reason_code": None, "processed_at": now}
        ended = connection.execute(_change_of(claimed).values(values)).rowcount
    reach(Point.DELIVERY_ENDED)
    return Step(state, ended)


def _postpone(resources: Resources, claimed: list[str]) -> Step:
    """Wait for the command that is active on the appointment; that is no failure."""
    with resources.database.write() as connection:
        later = resources.database.now(connection) + timedelta(seconds=resources.timing.read_backoff)
        connection.execute(_change_of(claimed).values(run_at=later, reason_code=ACTIVE_COMMAND))
    return Step()


def _fail(resources: Resources, claimed: list[str], reason_code: str) -> Step:
    """Note a failed read: again later, or `failed` after so many; each delivery counts for itself."""
    timing, attempts = resources.timing, _deliveries.c.attempts + 1
    with resources.database.write() as connection:
        now = resources.database.now(connection)
        spent = _change_of(claimed).where(attempts >= timing.failed_deliveries)
        ended = {"state": State.FAILED, "run_at": None, "processed_at": now}
        count = connection.execute(spent.values(attempts=attempts, reason_code=reason_code, **ended)).rowcount
        tried = sa.select(sa.func.max(_deliveries.c.attempts)).where(_waiting_of(claimed))
        doublings = connection.execute(tried).scalar()
        if doublings is not None:
            pause = min(timing.read_backoff * 2.0**doublings, _LONGEST_PAUSE)
            later = {"run_at": now + timedelta(seconds=pause), "reason_code": reason_code, "attempts": attempts}
            connection.execute(_change_of(claimed).values(later))
    _log.warning("delivery_not_processed", extra={"reason_code": reason_code, "deliveries": len(claimed)})
    return Step(State.FAILED, count)


def _waiting_of(claimed: list[str]) -> sa.ColumnElement[bool]:
    return sa.and_(_deliveries.c.delivery_id.in_(claimed), _IS_WAITING)


def _change_of(claimed: list[str]) -> sa.Update:
    return sa.update(_deliveries).where(_waiting_of(claimed))


def _outlook(resources: Resources) -> tuple[int, datetime | None]:
    with resources.database.read() as connection:
        count, next_at = connection.execute(_OUTLOOK).one()
    return count, next_at


_BATCH: Final = 500
"""Appointments listed at a time."""

_PAGE: Final = 500
"""Rows read at a time while iterating."""

_READS: Final = 5
"""A lease covers as many reads as `observations` makes at most."""

_LONGEST_PAUSE: Final = 3600.0
"""Seconds; with the defaults a delivery is tried for about four hours, and sync finds what is given up."""

_DELIVERY_ID: Final = re.compile(r"[0-9a-f]{64}")
_AGAIN: Final = (State.FAILED, State.UNTRACKED)

_deliveries, _appointments, _commands = models.webhook_deliveries, models.appointments, models.commands
# A constant in the statement, so that the databases see that the partial index covers it.
_IS_WAITING: Final = _deliveries.c.state.in_([sa.literal_column(f"'{State.RECEIVED}'")])
_is_due: Final = sa.and_(_IS_WAITING, _deliveries.c.run_at <= sa.bindparam("now", type_=UtcDateTime()))
_IS_BUSY: Final = (
    sa.exists()
    .where(_commands.c.appointment_id == _deliveries.c.appointment_id, models.state_in(*models.ACTIVE_STATES))
    .correlate(_deliveries)
)
_DUE: Final = (
    sa.select(_deliveries.c.appointment_id, _appointments.c.booked_with, _IS_BUSY.label("is_busy"))
    .outerjoin_from(_deliveries, _appointments, _appointments.c.appointment_id == _deliveries.c.appointment_id)
    .where(_is_due)
    .group_by(_deliveries.c.appointment_id, _appointments.c.booked_with)
    .order_by(sa.func.min(_deliveries.c.run_at))
    .limit(sa.bindparam("most"))
)
_DUE_OF_USERS: Final = _DUE.where(sa.func.coalesce(_appointments.c.booked_with, chart.MACHINE) != chart.MACHINE)
_CLAIM: Final = (
    sa.update(_deliveries)
    .where(_is_due, _deliveries.c.appointment_id == sa.bindparam("of_appointment"))
    .values(run_at=sa.bindparam("lease", type_=UtcDateTime()))
    .returning(_deliveries.c.delivery_id, _deliveries.c.received_at)
)
_IS_TRACKED: Final = sa.select(1).where(_appointments.c.appointment_id == sa.bindparam("id"))
_OUTLOOK: Final = sa.select(sa.func.count(), sa.func.min(_deliveries.c.run_at)).where(_IS_WAITING)


def _store(insert: postgresql.Insert | sqlite.Insert) -> sa.Insert:
    again = {"copies": _deliveries.c.copies + 1, "last_received_at": insert.excluded.last_received_at}
    return insert.on_conflict_do_update(index_elements=["delivery_id"], set_=again).returning(_deliveries.c.copies)


_STORE_POSTGRES: Final = _store(postgresql.insert(_deliveries))
_STORE_SQLITE: Final = _store(sqlite.insert(_deliveries))
