"""`Lifecycle`: where the database, the Zocdoc clients and the intervals meet. It holds no logic of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self, TypeVar, Unpack, overload

from lifecycle import (
    batches,
    chart,
    checkpoints,
    commands,
    dispatching,
    engines,
    enqueuing,
    explaining,
    feed,
    inbox,
    observations,
    operators,
    previewing,
    reconciliation,
    records,
    recovery,
    selecting,
    submitting,
    verification,
    wishes,
    wishlists,
)
from lifecycle import drift as drifting
from lifecycle.database import Database
from lifecycle.doctor import diagnosis
from lifecycle.handles import Batch, Submission
from lifecycle.reports import arrow, exporting, figures, pages, past, rows
from lifecycle.reports.filters import Filters
from lifecycle.resources import Clients, Resources, Timing, check_instant, check_name
from lifecycle.telemetry import guarded
from lifecycle.zocdoc import pacing

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
    from datetime import datetime
    from types import TracebackType

    import pyarrow as pa
    import sqlalchemy as sa
    from sqlalchemy import orm

    from lifecycle.batches import BatchInfo
    from lifecycle.checkpoints import Checkpoint
    from lifecycle.doctor.diagnosis import Diagnosis
    from lifecycle.drift import Drift
    from lifecycle.engines.port import Engine
    from lifecycle.feed import FeedEvent
    from lifecycle.guards import Explanation
    from lifecycle.inbox import Delivery, Processed, Receipt
    from lifecycle.operators import Attention
    from lifecycle.outcomes import Done
    from lifecycle.previewing import Verdict
    from lifecycle.reconciliation import SyncReport
    from lifecycle.records import Appointment, AuditEvent
    from lifecycle.recovery import Recovery
    from lifecycle.reports.exporting import Exported, Progress, Target
    from lifecycle.reports.facts import Figures
    from lifecycle.reports.filters import Given
    from lifecycle.reports.pages import EventPage
    from lifecycle.reports.past import AsOf
    from lifecycle.selecting import Condition
    from lifecycle.telemetry import Telemetry
    from lifecycle.verification import Verification
    from lifecycle.wishlists import Wishlist
    from lifecycle.zocdoc import ZocdocClient

_R = TypeVar("_R")


class Lifecycle:
    """The appointments of one database, driven through Zocdoc's API. Thread-safe; processes may share a database.

    `database` is a SQLAlchemy URL (`sqlite:///file.db`, `postgresql://user@host/name`) or the Engine of a host
    application; its schema must have been made by `lifecycle db upgrade`. `zocdoc` is the client at hand, usually
    the machine-to-machine one; `user_client` gives the client of a Zocdoc user by the user's id, or None.
    `webhook_keys` are Zocdoc's base64 keys, several while they are rotated. `source` is written on audit rows.
    `dispatch` says who carries out what is submitted: `inline`, `concurrency` threads of this process, or
    `procrastinate`, the workers of a PostgreSQL database. `telemetry` is told of every command; give
    it to the client too, which tells of every call. Opens no connection until it is used; `close` closes the pool that
    it made itself.

    Every command raises `TransitionRefused` (with `reasons`; `CommandInProgress` while another one is active),
    `CommandRejected` (Zocdoc said no), `NotSent` (no effect, safe to call again), `OutcomeUnknown` (in doubt: do not
    repeat, `recover`), `AppointmentNotFound`, `RequestKeyReused`, `InvalidArgument`, `DatabaseUnavailable`; all are
    `LifecycleError`. `actor` says who asked (`user:17`, `job:nightly`). With a `request_key` of the caller's own, the
    same call again gives the first outcome instead of acting twice; after `NotSent` it acts again.
    """

    def __init__(
        self,
        database: str | sa.URL | sa.Engine,
        *,
        zocdoc: ZocdocClient | None = None,
        user_client: Callable[[str], ZocdocClient | None] | None = None,
        webhook_keys: Iterable[str] = (),
        timing: Timing | None = None,
        source: str = "api",
        dispatch: str = engines.INLINE,
        concurrency: int = 8,
        telemetry: Telemetry | None = None,
    ) -> None:
        self._resources = Resources(
            Database(database, connections=dispatching.check_concurrency(concurrency) + 4),
            Clients(zocdoc, user_client),
            timing or Timing(),
            telemetry=guarded(telemetry),
        )
        self._dispatch = dispatch
        self._engine = engines.named(dispatch, self._resources, concurrency=concurrency)
        self._source = check_name("source", source, at_most=16)
        self._webhook_keys = inbox.check_keys(webhook_keys)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def database(self) -> Database:
        """What the reports and the page read."""
        return self._resources.database

    @property
    def engine(self) -> Engine:
        """Who wakes up those that carry submitted commands out."""
        return self._engine

    @property
    def resources(self) -> Resources:
        """What a worker's dispatcher is handed."""
        return self._resources

    def close(self) -> None:
        """Finish the submitted commands that are being sent, and close the database connections, unless the host's.

        What is queued stays queued. The Zocdoc client stays the caller's.
        """
        self._engine.close()
        self._resources.database.close()

    def track(self, appointment_id: str, *, actor: str, booked_with: str = chart.MACHINE) -> Appointment:
        """Read an appointment from Zocdoc and persist it; again: record what has changed there since.

        `booked_with` is the identity of the credential that booked, `machine` or `user:ID`: no answer of Zocdoc tells
        it, and Zocdoc lets only such a credential read or change the appointment. Raises `AppointmentNotFound`,
        `ReadFailed`, `CredentialNotAllowed`, `InvalidArgument`.
        """
        return observations.track(
            self._resources, appointment_id, actor=actor, source=self._source, booked_with=booked_with
        )

    def confirm(self, appointment_id: str, *, actor: str, request_key: str | None = None) -> Done:
        """Confirm a booking. Zocdoc allows it from `pending_booking`."""
        return self._run(chart.Command.CONFIRM, appointment_id, actor, request_key)

    def cancel(
        self,
        appointment_id: str,
        *,
        actor: str,
        reason_type: str | None = None,
        reason: str | None = None,
        request_key: str | None = None,
    ) -> Done:
        """Cancel an appointment. `reason_type` is one of Zocdoc's, optional but recommended.

        `reason` is free text, which counts as protected health information: it is sent, kept until the command ends,
        and never written to the audit trail.
        """
        payload = wishes.cancel_payload(reason_type, reason)
        return self._run(chart.Command.CANCEL, appointment_id, actor, request_key, payload)

    def reschedule(
        self, appointment_id: str, *, actor: str, start_time: str | datetime, request_key: str | None = None
    ) -> Done:
        """Ask for another start: ISO 8601 text with an offset, sent word for word, or an aware datetime.

        The status that Zocdoc answers (`rescheduled`, `pending_reschedule`, ...) is in `Done.to_status`.
        """
        payload = wishes.reschedule_payload(start_time)
        return self._run(chart.Command.RESCHEDULE, appointment_id, actor, request_key, payload)

    def mark_arrived(self, appointment_id: str, *, actor: str, request_key: str | None = None) -> Done:
        """Tell Zocdoc that the patient has arrived. The status stays; `arrived_at` is set."""
        return self._run(chart.Command.MARK_ARRIVED, appointment_id, actor, request_key)

    def mark_no_show(self, appointment_id: str, *, actor: str, request_key: str | None = None) -> Done:
        """Tell Zocdoc that the patient did not come: within 2 days after the start."""
        return self._run(chart.Command.MARK_NO_SHOW, appointment_id, actor, request_key)

    def submit(
        self,
        command: str,
        appointment_id: str,
        *,
        actor: str,
        start_time: str | datetime | None = None,
        reason_type: str | None = None,
        reason: str | None = None,
        request_key: str | None = None,
        expires_at: datetime | None = None,
        session: sa.Connection | orm.Session | None = None,
    ) -> Submission:
        """Queue a command, to be sent soon by whoever dispatches, and give a handle on it. Calls nobody.

        With `session`, a SQLAlchemy Session or Connection of the caller on the same database, the command and its
        wake-up are part of the caller's transaction: rolled back together, and sent only after its commit. The checks
        run when it is dispatched; one that fails ends it as `refused`. An attempt that is proved to have had no effect
        is repeated, until `expires_at` (aware) if that is given. With the request key of another submission, the same
        wish gives a handle on that one.

        Raises `AppointmentNotFound`, `CommandInProgress` while another command on the appointment is active,
        `RequestKeyReused`, `EnvironmentMismatch`, `InvalidArgument`, `DatabaseUnavailable`; the caller's transaction
        stays usable. With `session`, failures of the database itself come as SQLAlchemy raises them.
        """
        wish = wishes.of(
            command,
            appointment_id,
            actor=actor,
            source=self._source,
            request_key=request_key,
            start_time=start_time,
            reason_type=reason_type,
            reason=reason,
        )
        until = None if expires_at is None else check_instant("expires_at", expires_at)
        command_id = submitting.submit(self._resources, self._engine, wish, expires_at=until, session=session)
        return Submission(self._resources, command_id)

    def submission(self, command_id: str) -> Submission:
        """Give a handle on a submitted command by its id. Asks nobody."""
        return Submission(self._resources, check_name("command_id", command_id))

    def submit_many(
        self,
        wanted: str | os.PathLike[str] | Iterable[Mapping[str, Any]] | Wishlist,
        *,
        actor: str,
        command: str | None = None,
        batch_id: str | None = None,
        name: str | None = None,
        expires_at: datetime | None = None,
        on_progress: Callable[[int], object] | None = None,
    ) -> Batch:
        """Queue many commands as a batch, and give a handle on it. Calls nobody.

        Each wish is a mapping with `appointment_id` and, as far as they apply, `command` (if it is not the argument),
        `start_time`, `reason_type`, `reason`, `request_key` and `expires_at`; or a .csv or .jsonl file has them as
        columns, and is refused as a whole if it cannot be used. A bad row becomes an error of the batch, the others go
        on. Rows are numbered from 1 and committed a thousand at a time; with the `batch_id` of a
        submission that was cut off, the same rows are gone on with after the last one that was taken. `on_progress` is
        called with the rows so far. Raises `InvalidArgument`, `DatabaseUnavailable`, `OSError`.
        """
        rows = wishlists.rows(wanted, command=command)
        order = enqueuing.Order(
            actor=actor,
            source=self._source,
            command=None if command is None else wishes.command_named(command),
            batch_id=batch_id,
            name=name,
            expires_at=expires_at,
        )
        return Batch(
            self._resources,
            submitting.submit_many(self._resources, self._engine, order, rows, on_progress=on_progress),
        )

    def batch(self, batch_id: str) -> Batch:
        """Give a handle on a batch by its id. Raises `BatchNotFound`. Database only."""
        return Batch(self._resources, batches.info(self._resources.database, check_name("batch_id", batch_id)).batch_id)

    def batch_id(self, *parts: str) -> str:
        """Make the id of a batch out of what is wanted, so that the same wish finds its batch again. Database only."""
        return batches.identity(self._resources, *parts)

    def batches(self, *, limit: int | None = None) -> Iterator[BatchInfo]:
        """Iterate over the batches, newest first. Database only."""
        return batches.infos(self._resources.database, limit=limit)

    def explain(
        self, appointment_id: str, command: str, *, start_time: str | datetime | None = None
    ) -> tuple[Explanation, ...]:
        """Answer for each check whether the command would pass now, with the code and the rule. Database only."""
        return explaining.explain(self._resources, appointment_id, command, start_time=start_time)

    def preview(
        self,
        wanted: str | os.PathLike[str] | Iterable[Mapping[str, Any]] | Wishlist,
        *,
        command: str | None = None,
        expires_at: datetime | None = None,
    ) -> Iterator[Verdict]:
        """Judge each of many wishes as `submit_many` takes them: would it pass now, and if not, by which rule not.

        The checks are those that run again when a command is dispatched. Raises `InvalidArgument` for a file that
        cannot be used as a whole, `OSError`. Database only; memory stays flat.
        """
        rows = wishlists.rows(wanted, command=command)
        return previewing.preview(self._resources, rows, command=command, expires_at=expires_at)

    def chosen(self, conditions: Iterable[Condition]) -> Iterator[str]:
        """Iterate over the ids of the tracked appointments that meet all conditions (`lifecycle.selecting.parse`).

        Of several `=` on one field one must hold. Database only; memory stays flat.
        """
        return selecting.appointments(self._resources.database, conditions)

    def get(self, appointment_id: str) -> Appointment:
        """Read one tracked appointment. Database only."""
        return records.get(self._resources.database, appointment_id)

    def history(self, appointment_id: str, *, as_of: datetime | None = None) -> list[AuditEvent]:
        """Read an appointment's audit events, oldest first; with `as_of`, as they stood then. Database only."""
        return records.history(self._resources.database, appointment_id, as_of=as_of)

    def as_of(self, appointment_id: str, at: datetime) -> AsOf | None:
        """Tell how an appointment stood here at an aware instant, from its audit events. Database only.

        None: it was not tracked yet. Raises `AppointmentNotFound` if it never was, `InvalidArgument`.
        """
        return past.as_of(self._resources.database, appointment_id, at)

    def audit(self, *, limit: int | None = None, **filters: Unpack[Given]) -> Iterator[AuditEvent]:
        """Iterate over the audit events that meet all conditions, newest first; at most `limit`.

        Conditions: `appointment_id`, `status` (after the event), `event`, `command`, `actor`, `source`, `outcome`,
        `provider_location_id`; `since` (inclusive), `until` (exclusive) and `as_of` (inclusive) are aware instants.
        Raises `InvalidArgument`. Database only; memory stays flat.
        """
        return pages.events(self._resources.database, Filters(**filters), limit=limit)

    def audit_page(self, *, cursor: str | None = None, limit: int = pages.LIMIT, **filters: Unpack[Given]) -> EventPage:
        """Read one page of what `audit` iterates over: `limit` events, 1 to 1000, from a cursor of another page on.

        A page may hold fewer events, even none, and still have a `next`. Raises `InvalidArgument`. Database only.
        """
        return pages.page(self._resources.database, Filters(**filters), cursor=cursor, limit=limit)

    def appointments(self, *, status: str | None = None, in_doubt: bool | None = None) -> Iterator[Appointment]:
        """Iterate over the tracked appointments by id, filtered in SQL. Database only; memory stays flat."""
        return records.appointments(self._resources.database, status=status, in_doubt=in_doubt)

    @overload
    def rows(self, view: type[_R], **filters: Unpack[Given]) -> Generator[_R, None, None]: ...

    @overload
    def rows(self, view: str, **filters: Unpack[Given]) -> Generator[Any, None, None]: ...

    def rows(self, view: type[Any] | str, **filters: Unpack[Given]) -> Generator[Any, None, None]:
        """Iterate over the rows of a view as records: `rows(EventLogRow, actor="user:17")`, or by the view's name.

        The filters are those of `audit`; they choose events before anything is counted. The rows are in the view's
        order and of one moment; a transaction is open until the iterator is exhausted or closed. Raises
        `InvalidArgument`. Database only; memory stays flat.
        """
        return rows.read(self._resources.database, view, Filters(**filters))

    def arrow(self, view: str, **filters: Unpack[Given]) -> pa.Table:
        """Read a view as an Arrow table for pandas, polars and DuckDB: `arrow("event_log").to_pandas()`.

        The table is in memory as a whole; for what is larger than that, `export` as Parquet. Raises
        `ConfigurationError` without pyarrow, `InvalidArgument`. Database only.
        """
        return arrow.table(self._resources.database, view, Filters(**filters))

    def export(
        self,
        view: str,
        target: Target,
        *,
        format: str = "csv",  # noqa: A002 # what everybody calls it
        guard: bool = True,
        on_progress: Progress | None = None,
        **filters: Unpack[Given],
    ) -> Exported:
        """Write the rows of a view, or `audit_events` with all hashes, into a file: whole, or not at all.

        `target` is a path, or a binary file that is open. `format`: csv, jsonl, parquet, cloudevents. `guard`: CSV
        cells that a spreadsheet would run get an apostrophe. `on_progress` is called now and then with the rows so far
        and about how many there are, None if that is not known cheaply. The filters are those of `audit`. What is
        written is of one moment; on PostgreSQL no time limit of the session applies. Raises `InvalidArgument`,
        `ConfigurationError` (Parquet without pyarrow), `OSError`. Database only; memory stays flat.
        """
        return exporting.export(
            self._resources.database,
            view,
            target,
            form=format,
            filters=Filters(**filters),
            guard=guard,
            on_progress=on_progress,
        )

    def events(self, *, after: str | None = None, limit: int | None = None) -> Iterator[FeedEvent]:
        """Iterate over the audit events of all appointments, in order of `seq`, up to what there is now.

        `after` is the `cursor` of an event: go on after it; None: from the first. Call again with the last cursor for
        what comes later; no committed event is ever left out. At most `limit` events. Raises `InvalidArgument` for a
        cursor that is not of this database, `ConfigurationError` on a read replica. Database only; memory stays flat.
        """
        return feed.events(self._resources.database, after=after, limit=limit)

    def figures(self, **filters: Unpack[Given]) -> Figures:
        """Compute the figures of the audit events that meet all conditions (see `audit`).

        `lifecycle.reports.report.write` makes the report of them. Raises `InvalidArgument`. Database only.
        """
        return figures.compute(self._resources.database, Filters(**filters))

    def feed_cursor(self) -> str | None:
        """Give the cursor to follow the events from now on; None, which is from the first, if there are none yet."""
        return feed.end(self._resources.database)

    def recover(self, *, wait: float = 0.0, resume: bool = True) -> Recovery:
        """Settle commands whose answer was lost, by reading from Zocdoc; sends nothing by itself.

        Looks at what is due now; with `wait`, goes on for so many seconds for what becomes due. With `resume`, whoever
        dispatches is woken if commands are queued, whatever the engine has lost: with `inline` that is this process.
        """
        with pacing.background():
            recovered = recovery.recover(self._resources, wait=wait)
        if resume and recovered.queued:
            self._engine.ensure()
        return recovered

    def sync(
        self,
        *,
        full: bool = False,
        actor: str = "job:sync",
        overlap: float = reconciliation.OVERLAP,
        on_progress: Callable[[int, int | None], object] | None = None,
    ) -> SyncReport:
        """Read from Zocdoc what was modified since the last sync, and record it; a killed run is gone on with.

        The first time, and with `full`, everything is read. Unknown appointments are tracked, as booked
        machine-to-machine. Begins `overlap` seconds before the end of the last sync. `on_progress` is called after each
        page with the rows so far and Zocdoc's count, None if it told none. Raises `SyncFailed`, `ConfigurationError`
        without a machine-to-machine client, `InvalidArgument`. Run it every few minutes beside the webhooks; two at
        once are harmless.
        """
        with pacing.background():
            return reconciliation.sync(
                self._resources, full=full, actor=actor, overlap=overlap, on_progress=on_progress
            )

    def drift(self, *, since: datetime | None = None) -> Iterator[Drift]:
        """Iterate over where Zocdoc and this database parted: not conforming, in doubt, found by sync only.

        `since`: recorded at or after that instant; what is in doubt now is always given. Database only; memory stays
        flat.
        """
        return drifting.drift(self._resources.database, since=since)

    def verify(self, *, processes: int | None = None) -> Verification:
        """Recompute every chain of the audit trail, compare it with appointments and commands, look at its guards.

        What is wrong is in the result, not raised. A large trail is judged by two other processes, or as many as
        `processes` says; 1: by this one. Concurrent writers do no harm. Database only; memory stays flat.
        """
        return verification.verify(self._resources.database, processes=processes)

    def checkpoint(self, path: str | os.PathLike[str], *, key: bytes, replace: bool = False) -> Checkpoint:
        """Write the last event of every chain, signed, to a file that is to be kept away from the database.

        `key` has 32 random bytes or more, and whoever can change the database must not have it. Raises
        `InvalidArgument`, also if there is such a file and `replace` is not set, and `OSError`. Database only.
        """
        return checkpoints.create(self._resources.database, path, key=key, replace=replace)

    def verify_checkpoint(
        self, path: str | os.PathLike[str], *, key: bytes, processes: int | None = None
    ) -> Verification:
        """Do as `verify`, and find what was cut off, deleted, rebuilt or backdated since the checkpoint was written.

        Raises `CheckpointRefused` if the file is not, word for word, what was signed with the key. Database only.
        """
        return checkpoints.verify(self._resources.database, path, key=key, processes=processes)

    def diagnose(self, *, online: bool = True) -> Diagnosis:
        """Check database, recovery, dispatch, inbox, clocks, credentials; what is wrong comes with what to do.

        Raises nothing: a check that cannot be made says so. Reads with short, bounded queries, each in a transaction of
        its own. `online` asks Zocdoc for one token and reads nothing there.
        """
        return diagnosis.diagnose(self._resources, dispatch=self._dispatch, online=online)

    def attention(self) -> list[Attention]:
        """List the commands whose outcome reading could not settle, with the evidence. Database only."""
        return operators.attention(self._resources.database)

    def resolve(self, command_id: str, *, resolution: str, reason_code: str, actor: str) -> Done | None:
        """Settle a command that needs attention: `applied`, `rejected`, or `retry` (reads, checks, sends once more).

        `reason_code` is a code, not text: `seen_in_portal`. Gives `Done` for a retry that was applied; raises
        `NothingToResolve`, `InvalidArgument`, and for a retry whatever a command raises.
        """
        return operators.resolve(
            self._resources, command_id, resolution=resolution, reason_code=reason_code, actor=actor
        )

    @property
    def receives_webhooks(self) -> bool:
        """Tell whether there are `webhook_keys`."""
        return bool(self._webhook_keys)

    def receive_webhook(self, headers: Mapping[str, str], body: bytes) -> Receipt:
        """Verify a webhook call of Zocdoc and store it durably; when this returns, answer 200.

        `headers` in any case, `body` raw as it came. The same call again is counted, not stored again; an authentic
        one out of the tolerance of 5 minutes is kept as a hint. Raises `WebhookRefused` (answer 401: nothing was
        stored), `ConfigurationError` without `webhook_keys`, and `DatabaseUnavailable`: then do not answer within
        Zocdoc's 5 seconds, because any answer, 500 included, ends its retries. Calls nobody.
        """
        return inbox.receive(self._resources, headers, body, self._webhook_keys)

    def process_inbox(self, *, track_unknown: bool = False, limit: int | None = None) -> Processed:
        """Read the appointments that stored webhook calls tell of, each once, and record what has changed.

        With `track_unknown` appointments that are not tracked yet are tracked, as booked machine-to-machine. A failed
        read is tried again later. Run it soon after each call, from one or more processes.
        """
        with pacing.background():
            return inbox.process(self._resources, track_unknown=track_unknown, limit=limit)

    def deliveries(self, *, state: str | None = None) -> Iterator[Delivery]:
        """Iterate over the stored webhook calls, newest first. Database only; memory stays flat."""
        return inbox.deliveries(self._resources, state=state)

    def waiting_deliveries(self) -> int:
        """Count the stored webhook calls that are still to be processed. Database only."""
        return inbox.waiting(self._resources)

    def retry_delivery(self, delivery_id: str) -> None:
        """Take a delivery up again that ended as `failed` or `untracked`. Raises `NothingToRetry`."""
        inbox.retry(self._resources, delivery_id)

    def _run(
        self,
        command: chart.Command,
        appointment_id: str,
        actor: str,
        request_key: str | None,
        payload: dict[str, Any] | None = None,
    ) -> Done:
        wish = wishes.Wish(
            appointment_id=appointment_id,
            command=command,
            actor=actor,
            source=self._source,
            request_key=request_key,
            payload=payload or {},
        )
        return commands.run(self._resources, wish)
