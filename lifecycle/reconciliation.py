"""Reconciliation: reading Zocdoc's list of appointments and following what differs, as far as it was ever read.

A cursor in the database says how far that is; it moves in the transaction that stores a page's rows, so a run that is
killed is resumed by the next one. A run that began later owns the cursor: an older one that is still at work stores
what it reads, which is as true, and moves it no more.
"""

from __future__ import annotations

import logging
import math
import time
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from lifecycle import audit, chart, errors, models, observations, paging, zocdoc
from lifecycle.columns import UtcDateTime
from lifecycle.resources import check_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from datetime import datetime

    from lifecycle.paging import Batch
    from lifecycle.resources import Resources
    from lifecycle.zocdoc import AppointmentData, ZocdocClient

SOURCE: Final = "sync"
DELTA: Final = "delta"
FULL: Final = "full"

OVERLAP: Final = 600.0
"""Seconds that a run begins before the end of the last one: beyond the difference of two clocks and any delay in which
Zocdoc's list may lag behind, and few enough rows to compare again."""

_LONGEST_OVERLAP: Final = 86_400.0 * 365

_FAILURES_IN_A_ROW: Final = 3
"""Failed reads of single appointments after which Zocdoc is taken to be unwell, and the run ends."""

_ABOUT_ONE: Final = frozenset({200, 400, 403, 422})
"""HTTP statuses of a failed read that are about this one appointment: it is told as unreadable, and the run goes on."""

_log = logging.getLogger(__name__)


def sync(
    resources: Resources,
    *,
    full: bool,
    actor: str,
    overlap: float = OVERLAP,
    on_progress: Callable[[int, int | None], object] | None = None,
) -> SyncReport:
    """Read what Zocdoc modified since the last sync (with `full`, and the first time: everything) and record it.

    Unknown appointments are tracked, as booked machine-to-machine; those that differ are read one by one and followed.
    Calls Zocdoc once for each 100 rows and for each row that differs; opens a short transaction for each page. Raises
    `SyncFailed`, `ConfigurationError` without a machine-to-machine client, `InvalidArgument`, `DatabaseUnavailable`.
    `on_progress` is called after each page with the rows so far and Zocdoc's count of them, None if it told none.
    """
    started = time.monotonic()
    run = _begin(resources, full=full, actor=check_name("actor", actor), overlap=_checked(overlap))
    total = None
    for batch in paging.walk(run.client, since=run.since):
        _store(run, batch)
        total = batch.total if total is None else total
        if on_progress is not None:
            on_progress(run.tally.rows, total)
    _look_again(run)
    _finish(run)
    report = run.tally.report(resumed=run.is_resumed, busy=len(run.held), seconds=round(time.monotonic() - started, 3))
    _log.info("synced", extra={name: getattr(report, name) for name in SyncReport.__slots__})
    return report


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncReport:
    """What a sync came to, in appointments, unless it says otherwise.

    `rows` and `pages` are what the list gave. `tracked`: unknown before. `changed`: Zocdoc's state differed and was
    recorded; `missed` are those of both that no webhook call had told of. `unchanged`: as known. `busy`: differed, but
    a command was under way or the read failed; the next run looks again. `foreign`: booked with a user credential that
    is not at hand; left as they are. `unreadable`: rows without a sound id, status or start, and appointments that
    Zocdoc lists but does not show; nothing was stored. `resumed`: a run that was killed or failed was gone on with.
    """

    rows: int
    pages: int
    tracked: int
    changed: int
    missed: int
    unchanged: int
    busy: int
    foreign: int
    unreadable: int
    resumed: bool
    seconds: float


@dataclass(slots=True)
class _Tally:
    rows: int = 0
    pages: int = 0
    tracked: int = 0
    changed: int = 0
    missed: int = 0
    unchanged: int = 0
    foreign: int = 0
    unreadable: int = 0

    def report(self, *, resumed: bool, busy: int, seconds: float) -> SyncReport:
        counts = {name: getattr(self, name) for name in self.__slots__}
        return SyncReport(**counts, resumed=resumed, busy=busy, seconds=seconds)


@dataclass(slots=True, kw_only=True)
class _Run:
    """One run: its cursor, where it begins, what it has come to.

    `asked_at` is before the call for the page at hand. `held`: what must be looked at again, and since when.
    """

    resources: Resources
    client: ZocdocClient
    actor: str
    cursor_id: str
    started_at: datetime
    since: datetime | None
    is_resumed: bool
    asked_at: datetime
    tally: _Tally = field(default_factory=_Tally)
    held: dict[str, datetime] = field(default_factory=dict)
    failures: int = 0

    def limit(self, instant: datetime | None) -> datetime | None:
        """Keep the cursor behind what must be looked at again, and behind now: a stray date must not blind it."""
        return None if instant is None else min(instant, self.started_at, *self.held.values())


def _checked(overlap: float) -> timedelta:
    if not isinstance(overlap, int | float) or not 0 <= overlap <= _LONGEST_OVERLAP or math.isnan(overlap):
        raise errors.InvalidArgument(argument="overlap", problem="a number of seconds is needed, from 0 to a year's")
    return timedelta(seconds=overlap)


def _begin(resources: Resources, *, full: bool, actor: str, overlap: timedelta) -> _Run:
    """Take the cursor over: a full run that was killed goes on, a delta run begins an overlap before the cursor."""
    client = resources.clients.of(chart.MACHINE)
    if client is None:
        problem = "sync reads the list with a machine-to-machine credential, and none is at hand"
        raise errors.ConfigurationError(problem=problem)
    with resources.database.write() as connection:
        resources.stamp(connection, environment=client.environment)
        known = connection.execute(_CURSOR, {"id": DELTA}).one_or_none()
        is_full = full or known is None or known.modified_through is None
        cursor_id = FULL if is_full else DELTA
        now = resources.database.now(connection)
        blank = {"cursor_id": cursor_id, "rows_read": 0, "started_at": now, "updated_at": now}
        is_new = _put_cursor(resources, connection, {**blank, "modified_through": None, "finished_at": None})
        row = connection.execute(_CURSOR_FOR_UPDATE, {"id": cursor_id}).one()
        is_resumed = not is_new and row.finished_at is None
        if not is_new and not (is_full and is_resumed):
            since = None if is_full else row.modified_through
            values = {**blank, "modified_through": since, "finished_at": None}
            connection.execute(sa.update(_cursors).where(_cursors.c.cursor_id == cursor_id).values(values))
            row = connection.execute(_CURSOR, {"id": cursor_id}).one()
    since = None if row.modified_through is None else paging.earlier(row.modified_through, overlap)
    return _Run(
        resources=resources,
        client=client,
        actor=actor,
        cursor_id=cursor_id,
        started_at=row.started_at,
        since=since,
        is_resumed=is_resumed,
        asked_at=now,
    )


def _put_cursor(resources: Resources, connection: sa.Connection, values: dict[str, Any]) -> bool:
    """Make the cursor's row unless it is there."""
    insert = postgresql.insert if resources.database.is_postgres else sqlite.insert
    statement = insert(_cursors).values(values).on_conflict_do_nothing()
    return connection.execute(statement, execution_options={"preserve_rowcount": True}).rowcount == 1


def _store(run: _Run, batch: Batch) -> None:
    """Follow what differs, then store the rest and move the cursor in one transaction."""
    rows = {row.appointment_id: row for row in batch.rows}
    with run.resources.database.read() as connection:
        known = _known(connection, rows)
    changed = [
        before
        for each, before in known.items()
        if _differs(run, before, rows[each])
        and _follow(run, before, rows[each].last_modified_time_utc or batch.through)
    ]
    with run.resources.database.write() as connection:
        now = run.resources.database.now(connection)
        tracked = audit.begin_all(connection, _beginnings(run, batch, rows, known), now=now)
        if tracked:
            observations.wake_deliveries(connection, sorted(tracked), now=now)
        audit.seen_all(connection, _confirmed(run, rows, known), now=now)
        missed = _untold(connection, tracked, changed)
        values = {"id": run.cursor_id, "started": run.started_at, "through": run.limit(batch.through)}
        connection.execute(_ADVANCE, {**values, "rows": len(batch.rows), "now": now})
    run.asked_at = now
    tally = run.tally
    tally.pages += 1
    tally.rows += len(batch.rows) + batch.unreadable
    tally.unreadable += batch.unreadable
    tally.tracked += len(tracked)
    tally.missed += missed
    tally.unchanged += len(rows) - len(known) - len(tracked)


def _known(connection: sa.Connection, ids: Iterable[str]) -> dict[str, Mapping[Any, Any]]:
    rows = connection.execute(_KNOWN, {"ids": list(ids)}).mappings()
    return {row["appointment_id"]: row for row in rows}


def _differs(run: _Run, before: Mapping[Any, Any], remote: AppointmentData) -> bool:
    """Compare a row of the list with ours; one that is older than what is known says nothing."""
    is_old = observations.is_older(before, remote, now=run.started_at)
    if not is_old and observations.is_news(before, remote):
        return True
    run.tally.unchanged += 1
    return False


def _follow(run: _Run, before: Mapping[Any, Any], since: datetime | None) -> bool:
    """Read an appointment that differs, and record what it says; True: it had changed. Else it is counted."""
    appointment_id = before["appointment_id"]
    client = run.resources.clients.find(before["booked_with"])
    if client is None:
        run.tally.foreign += 1
        return False
    try:
        is_stored = (
            before["active"] is None
            and observations.observe(run.resources, client, appointment_id, actor=run.actor, source=SOURCE) is not None
        )
        run.failures = 0
    except errors.AppointmentNotFound:
        run.tally.unreadable += 1
        return False
    except errors.ReadFailed as failure:
        if failure.http_status in _ABOUT_ONE:
            run.tally.unreadable += 1
            return False
        run.failures += 1
        if run.failures >= _FAILURES_IN_A_ROW:
            raise _failed(failure) from None
        is_stored = False
    if not is_stored:
        run.held[appointment_id] = since or run.started_at
        return False
    with run.resources.database.read() as connection:
        has_changed = bool(_known(connection, [appointment_id])[appointment_id]["version"] != before["version"])
    run.tally.changed += has_changed
    run.tally.unchanged += not has_changed
    return has_changed


def _failed(failure: errors.ReadFailed) -> errors.SyncFailed:
    return errors.SyncFailed(
        reason_code=failure.reason_code, http_status=failure.http_status, zocdoc_request_id=failure.zocdoc_request_id
    )


def _beginnings(
    run: _Run, batch: Batch, rows: Mapping[str, AppointmentData], known: Mapping[str, object]
) -> list[tuple[dict[str, Any], audit.Entry]]:
    who = {"actor": run.actor, "source": SOURCE, "booked_with": chart.MACHINE}
    return [
        (
            observations.first_row(remote, booked_with=chart.MACHINE),
            observations.first_entry(zocdoc.Reading(remote, batch.request_id), **who),
        )
        for each, remote in rows.items()
        if each not in known
    ]


def _confirmed(
    run: _Run, rows: Mapping[str, AppointmentData], known: Mapping[str, Mapping[Any, Any]]
) -> list[tuple[str, int, datetime]]:
    """Choose the rows that Zocdoc modified without a difference to us.

    Only those that nobody here had written since the page was asked for: it may be older than what was written.
    """
    return [
        (each, before["version"], told)
        for each, before in known.items()
        if (told := rows[each].last_modified_time_utc) is not None
        and (before["remote_last_modified"] is None or told > before["remote_last_modified"])
        and before["active"] is None
        and before["updated_at"] < run.asked_at
        and not observations.is_news(before, rows[each])
    ]


def _untold(connection: sa.Connection, tracked: set[str], changed: list[Mapping[Any, Any]]) -> int:
    """Count the appointments that no webhook call told of since they were last looked at."""
    since = {**dict.fromkeys(tracked), **{before["appointment_id"]: before["observed_at"] for before in changed}}
    if not since:
        return 0
    told = {row.appointment_id: row.newest for row in connection.execute(_TOLD, {"ids": list(since)})}
    return sum(each not in told or (seen is not None and told[each] < seen) for each, seen in since.items())


def _look_again(run: _Run) -> None:
    """Look once more at what was busy; what still is holds the cursor back, so that the next run finds it."""
    held, run.held = run.held, {}
    for appointment_id, since in held.items():
        with run.resources.database.read() as connection:
            before = _known(connection, [appointment_id])[appointment_id]
        if _follow(run, before, since):
            with run.resources.database.read() as connection:
                run.tally.missed += _untold(connection, set(), [before])


def _finish(run: _Run) -> None:
    """End the run: all that Zocdoc modified before it began was read. A full run moves the delta cursor, too."""
    with run.resources.database.write() as connection:
        values = {"started": run.started_at, "through": run.limit(run.started_at)}
        values["now"] = run.resources.database.now(connection)
        ended = connection.execute(_ADVANCE, {**values, "id": run.cursor_id, "rows": 0}).rowcount == 1
        if ended:
            connection.execute(_END, {**values, "id": run.cursor_id})
        if ended and run.cursor_id == FULL:
            blank = {"cursor_id": DELTA, "rows_read": 0, "started_at": run.started_at, "updated_at": values["now"]}
            instants = {"modified_through": values["through"], "finished_at": values["now"]}
            _put_cursor(run.resources, connection, {**blank, **instants})
            connection.execute(_MOVE, {**values, "id": DELTA})


_cursors, _appointments, _commands = models.sync_cursors, models.appointments, models.commands
_deliveries = models.webhook_deliveries
_now = sa.bindparam("now", type_=UtcDateTime())
_through = sa.bindparam("through", type_=UtcDateTime())
_this = _cursors.c.cursor_id == sa.bindparam("id")
_is_owner = _cursors.c.started_at == sa.bindparam("started", type_=UtcDateTime())
_farther = sa.case(
    (sa.or_(_cursors.c.modified_through.is_(None), _cursors.c.modified_through < _through), _through),
    else_=_cursors.c.modified_through,
)
_CURSOR: Final = sa.select(_cursors).where(_this)
_CURSOR_FOR_UPDATE: Final = _CURSOR.with_for_update()
_MOVE: Final = sa.update(_cursors).where(_this).values(modified_through=_farther, updated_at=_now)
_ADVANCE: Final = _MOVE.where(_is_owner).values(rows_read=_cursors.c.rows_read + sa.bindparam("rows"))
_END: Final = sa.update(_cursors).where(_this, _is_owner).values(finished_at=_now)
_KNOWN: Final = (
    sa.select(_appointments, _commands.c.command_id.label("active"))
    .outerjoin_from(
        _appointments,
        _commands,
        sa.and_(_commands.c.appointment_id == _appointments.c.appointment_id, models.is_under_way()),
    )
    .where(_appointments.c.appointment_id.in_(sa.bindparam("ids", expanding=True)))
)
_TOLD: Final = (
    sa.select(_deliveries.c.appointment_id, sa.func.max(_deliveries.c.last_received_at).label("newest"))
    .where(_deliveries.c.appointment_id.in_(sa.bindparam("ids", expanding=True)))
    .group_by(_deliveries.c.appointment_id)
)
