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

from lifecycle import chart, errors, models, observations, telemetry, zocdoc
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
READ_IS_OLDER: Final = "read_is_older"

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


def receive(
    resources: Resources,
    headers: Mapping[str, str],
    body: bytes,
    keys: Sequence[str],
    *,
    judged_at: float | None = None,
) -> Receipt:
    """Verify a call of Zocdoc and store it durably. When this returns, it may be answered.

    The same body again is counted, not stored again. An authentic call out of the tolerance of time is stored as a
    hint. Raises `WebhookRefused` (nothing is stored), `ConfigurationError` for missing or unusable keys,
    `DatabaseUnavailable`: then do not answer, so that Zocdoc delivers again. `keys` as `check_keys` gave them.
    `judged_at` is what the signature's age is judged by, in seconds since 1970; None: this machine's clock.
    """
    call, is_stale = _verify(headers, body, keys, time.time() if judged_at is None else judged_at)
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
    tried again later, with growing pauses, then ends as `failed`. While a command is under way on the appointment its
    deliveries wait: the command's own answer is on its way. What is due when this begins, at most `limit`
    appointments. Several processes may run
    this at once: each delivery is taken by one.
    """
    if limit is not None and limit < 1:
        raise errors.InvalidArgument(argument="limit", problem="at least 1 appointment is needed")
    ends = dict.fromkeys(State, 0)
    reads = done = 0
    until = _now(resources)
    while limit is None or done < limit:
        due = _due(resources, until, _BATCH if limit is None else min(limit - done, _BATCH))
        for appointment_id in due:
            step = _take_up(resources, appointment_id, track_unknown=track_unknown)
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


def _verify(headers: Mapping[str, str], body: bytes, keys: Sequence[str], now: float) -> tuple[webhook.Call, bool]:
    if not keys:
        problem = "no webhook keys: pass webhook_keys=[...] (base64, as Zocdoc gave them)"
        raise errors.ConfigurationError(problem=problem)
    try:
        return webhook.verify(body=body, headers=headers, keys=keys, now=now), False
    except webhook.OutOfTolerance as stale:
        return stale.call, True
    except webhook.WebhookError as refused:
        _log.warning("webhook_refused", extra={"reason_code": refused.reason_code})
        raise errors.WebhookRefused(reason_code=refused.reason_code) from None


def _now(resources: Resources) -> datetime:
    with resources.database.read() as connection:
        return resources.database.now(connection)


def _due(resources: Resources, until: datetime, limit: int) -> list[str]:
    """List the appointments that this process may read, on which no command is under way, the longest waiting first."""
    clients, query = resources.clients, _DUE
    identity = None if clients.default is None else clients.default.identity
    if clients.resolve is None:
        # What was booked with another credential is left to a process that has it.
        query = query.where(_BOOKED_WITH.in_([] if identity is None else [identity]))
    elif identity != chart.MACHINE:
        query = query.where(_BOOKED_WITH != chart.MACHINE)
    with resources.database.read() as connection:
        return list(connection.execute(query, {"now": until, "most": limit}).scalars())


@dataclass(frozen=True, slots=True)
class _Claim:
    """The deliveries of one appointment that this process has taken until an instant, with their newest and oldest.

    `booked_with` None: the appointment is not tracked.
    """

    appointment_id: str
    lease: datetime
    booked_with: str | None
    newest: str
    oldest_at: datetime
    occurred_at: datetime | None
    attempts: int

    @property
    def own(self) -> sa.ColumnElement[bool]:
        """Match the deliveries, unless somebody has woken or taken them since."""
        is_own = _deliveries.c.appointment_id == self.appointment_id
        return sa.and_(is_own, _IS_WAITING, _deliveries.c.run_at == self.lease)


def _take_up(resources: Resources, appointment_id: str, *, track_unknown: bool) -> Step:
    """Take the due deliveries of one appointment, and read it once for all of them."""
    claim = _claim(resources, appointment_id)
    reach(Point.DELIVERY_CLAIMED)
    if claim is None:
        return Step()
    if claim.booked_with is None and not track_unknown:
        # If it has just become tracked, that has woken them, and they are not ended.
        return _end(resources, claim, State.UNTRACKED)
    client = resources.clients.find(claim.booked_with or chart.MACHINE)
    if client is None:
        return _postpone(resources, claim, NO_CREDENTIAL, _NO_CREDENTIAL_PAUSE)
    return replace(_follow(resources, client, claim), reads=1)


def _follow(resources: Resources, client: zocdoc.ZocdocClient, claim: _Claim) -> Step:
    act = _begin if claim.booked_with is None else _observe
    try:
        return act(resources, client, claim)
    except errors.ReadFailed as error:
        return _fail(resources, claim, error.reason_code)
    except errors.AppointmentNotFound:
        return _fail(resources, claim, NOT_FOUND)


def _begin(resources: Resources, client: zocdoc.ZocdocClient, claim: _Claim) -> Step:
    is_first = observations.begin(
        resources,
        client,
        claim.appointment_id,
        actor=ACTOR,
        source=SOURCE,
        delivery_id=claim.newest,
        leased_until=claim.lease,
    )
    return _end(resources, claim, State.FOLLOWED) if is_first else _postpone(resources, claim, None, 0.0)


def _observe(resources: Resources, client: zocdoc.ZocdocClient, claim: _Claim) -> Step:
    reading = observations.observe(
        resources, client, claim.appointment_id, actor=ACTOR, source=SOURCE, delivery_id=claim.newest
    )
    if reading is None:
        return _postpone(resources, claim, ACTIVE_COMMAND, resources.timing.read_backoff)
    if claim.attempts < _READS_AGAIN and _is_behind(reading, claim.occurred_at):
        return _fail(resources, claim, READ_IS_OLDER)
    return _end(resources, claim, State.FOLLOWED)


def _is_behind(reading: zocdoc.Reading, occurred_at: datetime | None) -> bool:
    """Tell whether Zocdoc showed a state from before the change that it told of: a copy of its may lag."""
    told = reading.appointment.last_modified_time_utc
    return told is not None and occurred_at is not None and told < occurred_at - _PRECISION


def _claim(resources: Resources, appointment_id: str) -> _Claim | None:
    """Take an appointment's due deliveries for this process; None if another process was faster.

    Only those that are stored now: a read that begins after this is newer than what they tell of.
    """
    client = resources.clients.default
    deadline = _LONGEST_DEADLINE if client is None else client.deadline
    with resources.database.write() as connection:
        now = resources.database.now(connection)
        lease = now + timedelta(seconds=_READS * deadline + resources.timing.lease_margin)
        values = {"of_appointment": appointment_id, "now": now, "lease": lease}
        if connection.execute(_CLAIM, values).rowcount == 0:
            return None
        newest = connection.execute(_NEWEST, {"id": appointment_id, "lease": lease}).one()
        booked_with = connection.execute(_TRACKED, {"id": appointment_id}).scalar()
    told = newest.occurred_at
    return _Claim(
        appointment_id=appointment_id,
        lease=lease,
        booked_with=booked_with,
        newest=newest.delivery_id,
        oldest_at=newest.oldest_at,
        # One of the future cannot be waited for.
        occurred_at=told if told is None or told <= now else None,
        attempts=newest.attempts,
    )


def _end(resources: Resources, claim: _Claim, state: models.DeliveryState) -> Step:
    with resources.database.write() as connection:
        now = resources.database.now(connection)
        values = {"state": state, "run_at": None, "reason_code": None, "processed_at": now}
        ended = connection.execute(sa.update(_deliveries).where(claim.own).values(values)).rowcount
    reach(Point.DELIVERY_ENDED)
    if state is State.FOLLOWED and ended:
        resources.telemetry.record(telemetry.INBOX_LAG, (now - claim.oldest_at).total_seconds(), {})
    return Step(state, ended)


def _postpone(resources: Resources, claim: _Claim, reason_code: str | None, seconds: float) -> Step:
    """Take them up again later; that is no failure."""
    with resources.database.write() as connection:
        later = resources.database.now(connection) + timedelta(seconds=seconds)
        changed = sa.update(_deliveries).where(claim.own)
        connection.execute(changed.values(run_at=later, reason_code=reason_code))
    return Step()


def _fail(resources: Resources, claim: _Claim, reason_code: str) -> Step:
    """Note a failed read: again later, or `failed` after so many; each delivery counts for itself."""
    timing, attempts = resources.timing, _deliveries.c.attempts + 1
    pause = min(timing.read_backoff * 2.0**claim.attempts, _LONGEST_PAUSE)
    with resources.database.write() as connection:
        now = resources.database.now(connection)
        tried = sa.update(_deliveries).where(claim.own).values(attempts=attempts, reason_code=reason_code)
        is_spent = attempts >= timing.failed_deliveries
        ended = tried.where(is_spent).values(state=State.FAILED, run_at=None, processed_at=now)
        count = connection.execute(ended).rowcount
        connection.execute(tried.values(run_at=now + timedelta(seconds=pause)))
    _log.warning("delivery_not_processed", extra={"reason_code": reason_code})
    return Step(State.FAILED, count)


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

_LONGEST_DEADLINE: Final = 60.0
"""Seconds that a user's client is taken to need at most for a read, where there is none at hand to ask."""

_NO_CREDENTIAL_PAUSE: Final = 60.0
"""Seconds after which the caller's resolver is asked again for a user's client that it did not have."""

_READS_AGAIN: Final = 3
"""Reads that may be behind the change they were made for: half a minute with the default pauses; sync finds more."""

_PRECISION: Final = timedelta(seconds=1)
"""Times of Zocdoc's that are told with less precision differ by less."""

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
    .where(_commands.c.appointment_id == _deliveries.c.appointment_id, models.is_under_way())
    .correlate(_deliveries)
)
_BOOKED_WITH: Final = sa.func.coalesce(_appointments.c.booked_with, chart.MACHINE)
_DUE: Final = (
    sa.select(_deliveries.c.appointment_id)
    .outerjoin_from(_deliveries, _appointments, _appointments.c.appointment_id == _deliveries.c.appointment_id)
    .where(_is_due, ~_IS_BUSY)
    .group_by(_deliveries.c.appointment_id)
    .order_by(sa.func.min(_deliveries.c.run_at))
    .limit(sa.bindparam("most"))
)
_CLAIM: Final = (
    sa.update(_deliveries)
    .where(_is_due, _deliveries.c.appointment_id == sa.bindparam("of_appointment"))
    .values(run_at=sa.bindparam("lease", type_=UtcDateTime()))
)
_NEWEST: Final = (
    sa.select(
        _deliveries.c.delivery_id,
        sa.func.max(_deliveries.c.occurred_at).over().label("occurred_at"),
        sa.func.max(_deliveries.c.attempts).over().label("attempts"),
        sa.func.min(_deliveries.c.received_at).over().label("oldest_at"),
    )
    .where(
        _deliveries.c.appointment_id == sa.bindparam("id"),
        _IS_WAITING,
        _deliveries.c.run_at == sa.bindparam("lease", type_=UtcDateTime()),
    )
    .order_by(_deliveries.c.received_at.desc(), _deliveries.c.delivery_id.desc())
    .limit(1)
)
_TRACKED: Final = sa.select(_appointments.c.booked_with).where(_appointments.c.appointment_id == sa.bindparam("id"))
_OUTLOOK: Final = sa.select(sa.func.count(), sa.func.min(_deliveries.c.run_at)).where(_IS_WAITING)


def _store(insert: postgresql.Insert | sqlite.Insert) -> sa.Insert:
    """Count the same call again; one that had been given up is taken up once more."""
    is_over = _deliveries.c.state.in_(_AGAIN)
    again = {
        "copies": _deliveries.c.copies + 1,
        "last_received_at": insert.excluded.last_received_at,
        "state": sa.case((is_over, insert.excluded.state), else_=_deliveries.c.state),
        "attempts": sa.case((is_over, 0), else_=_deliveries.c.attempts),
        "run_at": sa.case((is_over, insert.excluded.run_at), else_=_deliveries.c.run_at),
        "processed_at": sa.case((is_over, insert.excluded.processed_at), else_=_deliveries.c.processed_at),
    }
    return insert.on_conflict_do_update(index_elements=["delivery_id"], set_=again).returning(_deliveries.c.copies)


_STORE_POSTGRES: Final = _store(postgresql.insert(_deliveries))
_STORE_SQLITE: Final = _store(sqlite.insert(_deliveries))
