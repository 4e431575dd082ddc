"""The rows of the views as records: one class for each view, its fields the view's columns in their order.

What a column means is told by the catalogue, `lifecycle schema`. Instants are aware and UTC; None where the catalogue
says that NULL may be. Names of columns that are none in Python have underscores: `case:concept:name` is
`case_concept_name`.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Final

from lifecycle import errors, records, views
from lifecycle.reports import cells, selection, sources, streams

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping
    from datetime import date, datetime

    import sqlalchemy as sa

    from lifecycle.database import Database
    from lifecycle.reports.filters import Filters


def read(database: Database, view: type[Any] | str, filters: Filters) -> Generator[Any, None, None]:
    """Iterate over the rows of a view as records, in the view's order; `view` is the class or the view's name.

    One statement, so one snapshot; it ends with the iterator: exhaust or close it. Memory stays flat. Raises
    `InvalidArgument` for what is neither.
    """
    kind = _named(view) if isinstance(view, str) else view
    if kind not in VIEWS:
        problem = f"there are no such rows; there are {', '.join(each.__name__ for each in VIEWS)}"
        raise errors.InvalidArgument(argument="view", problem=problem)
    chosen = cells.plain(VIEWS[kind])
    statement = selection.statement(VIEWS[kind], filters, dialect=database.engine.dialect.name, cells=chosen)
    return _records(database, kind, statement)


def _named(name: str) -> type[Any]:
    view = sources.named(name)
    return next(kind for kind, each in VIEWS.items() if each is view)


def _records(database: Database, kind: type[Any], statement: sa.TextClause) -> Generator[Any, None, None]:
    names = [field.name for field in fields(kind)]
    converters = _converters(database, VIEWS[kind])
    for block in streams.blocks(database, statement):
        columns = list(zip(*block, strict=True))
        for place, convert in converters.items():
            columns[place] = tuple(map(convert, columns[place]))
        for row in zip(*columns, strict=True):
            yield kind(**dict(zip(names, row, strict=True)))


def _converters(database: Database, view: views.View) -> dict[int, Callable[[Any], Any]]:
    found = {
        place: streams.converter(column.type, database.engine.dialect)
        for place, column in enumerate(view.table.columns)
    }
    return {place: convert for place, convert in found.items() if convert is not None}


@dataclass(frozen=True, slots=True, kw_only=True)
class EventLogRow:
    """A row of `lifecycle_event_log`.

    One row for each audit event, with what is known of its appointment.
    """

    seq: int
    appointment_id: str
    appointment_seq: int
    recorded_at: datetime
    occurred_at: datetime | None
    event: str
    command: str | None
    from_status: str | None
    to_status: str
    moved: bool
    conforming: bool
    outcome: str | None
    reason_code: str | None
    reason_type: str | None
    actor: str
    source: str
    provider_location_id: str | None
    practice_id: str | None
    visit_reason_id: str | None
    booked_with: str
    command_id: str | None
    delivery_id: str | None
    zocdoc_request_id: str | None
    http_status: int | None
    duration_ms: int | None
    details: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class CurrentStatusRow:
    """A row of `lifecycle_current_status`.

    One row for each appointment as it stands now.
    """

    appointment_id: str
    status: str
    status_known: bool
    status_since: datetime
    in_doubt: bool
    start_time: datetime
    provider_location_id: str | None
    practice_id: str | None
    visit_reason_id: str | None
    booked_with: str
    confirmation_type: str | None
    booked_at: datetime | None
    tracked_at: datetime
    arrived_at: datetime | None
    events: int
    last_event: str
    last_event_at: datetime
    last_actor: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeInStatusRow:
    """A row of `lifecycle_time_in_status`.

    One row for each stay of an appointment in a status.
    """

    seq: int
    appointment_id: str
    status: str
    entered_at: datetime
    left_at: datetime | None
    seconds: float | None
    entered_by: str | None
    left_to: str | None
    left_by: str | None
    provider_location_id: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TransitionsRow:
    """A row of `lifecycle_transitions`.

    One row for each kind of move: how often, and how long the status before had stood.
    """

    from_status: str
    to_status: str
    command: str | None
    conforming: bool
    transitions: int
    median_seconds: float
    p90_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class FunnelRow:
    """A row of `lifecycle_funnel`.

    For the appointments tracked in each week: how many came how far, until now.
    """

    week: date
    position: int
    step: str
    appointments: int
    share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CancellationsRow:
    """A row of `lifecycle_cancellations`.

    How many appointments were cancelled in each week, why, and by whom.
    """

    week: date
    reason_type: str | None
    actor: str
    source: str
    command: str | None
    cancellations: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusalsRow:
    """A row of `lifecycle_refusals`.

    What was tried and not done: refused here before anything was sent, or rejected by Zocdoc.
    """

    command: str
    status: str
    refused_by: str
    reason_code: str
    http_status: int | None
    tries: int
    appointments: int
    actors: int
    first_at: datetime
    last_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandOutcomesRow:
    """A row of `lifecycle_command_outcomes`.

    One row for each accepted command: how it ended, after how long and how many attempts. What was submitted and never
    accepted is in `lifecycle_event_log`, and in `lifecycle_batch_rows` if it belonged to a batch.
    """

    command_id: str
    appointment_id: str
    command: str
    actor: str
    source: str
    batch_id: str | None
    batch_row: int | None
    provider_location_id: str | None
    reason_type: str | None
    state: str
    outcome: str | None
    reason_code: str | None
    http_status: int | None
    attempts: int
    call_ms: int | None
    queued_at: datetime | None
    queue_seconds: float | None
    accepted_at: datetime
    ended_at: datetime | None
    seconds: float | None
    was_unknown: bool
    was_recovered: bool
    needed_attention: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchOutcomesRow:
    """A row of `lifecycle_batch_outcomes`.

    One row for each batch of submitted commands: how many of its rows are in each state by now.
    """

    batch_id: str
    name: str | None
    command: str | None
    actor: str
    source: str
    total: int
    invalid: int
    queued: int
    sending: int
    uncertain: int
    applied: int
    rejected: int
    not_sent: int
    refused: int
    withdrawn: int
    expired: int
    needs_attention: int
    created_at: datetime
    submitted_at: datetime | None
    cancelled_at: datetime | None
    is_finished: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchRowsRow:
    """A row of `lifecycle_batch_rows`.

    One row for each row of each batch's input, and what has become of it by now.
    """

    batch_id: str
    batch_row: int
    appointment_id: str | None
    command: str | None
    command_id: str | None
    state: str
    reason_code: str | None
    http_status: int | None
    zocdoc_request_id: str | None
    attempts: int
    queued_at: datetime | None
    ended_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessLogRow:
    """A row of `lifecycle_process_log`.

    The audit events under the names that process-mining tools expect (XES).
    """

    seq: int
    case_concept_name: str
    concept_name: str
    time_timestamp: datetime
    org_resource: str
    source: str
    status: str
    provider_location_id: str | None


VIEWS: Final[Mapping[type[Any], views.View]] = {
    EventLogRow: views.event_log,
    CurrentStatusRow: views.current_status,
    TimeInStatusRow: views.time_in_status,
    TransitionsRow: views.transitions,
    FunnelRow: views.funnel,
    CancellationsRow: views.cancellations,
    RefusalsRow: views.refusals,
    CommandOutcomesRow: views.command_outcomes,
    BatchOutcomesRow: views.batch_outcomes,
    BatchRowsRow: views.batch_rows,
    ProcessLogRow: views.process_log,
    records.AuditEvent: sources.ARCHIVE,
}
"""The view of each class."""
