"""The tables: columns, constraints and the comments that analysts read. SQLAlchemy Core, no mapped classes.

The names are an interface: analysts query them. All are prefixed `lifecycle_`, so that they can live in a host
application's own database. Instants are UTC; PostgreSQL stores `timestamptz`, SQLite ISO 8601 text of one fixed width
(`2026-12-01T14:00:00.000000Z`), which sorts as it reads.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

import sqlalchemy as sa

from lifecycle import chart
from lifecycle.columns import Json, UtcDateTime

REVISION: Final = "0002"
"""The Alembic revision that this code works with; a test holds it equal to the head of the migrations."""

VERSION_TABLE: Final = "lifecycle_alembic_version"
"""Alembic's own table, prefixed because the database may be shared."""


class CommandState(StrEnum):
    """Where a command stands. `QUEUED`, `SENDING` and `UNCERTAIN` are active: one such command per appointment."""

    QUEUED = "queued"  # submitted, not sent  -> sending | refused | withdrawn | expired
    SENDING = "sending"  # intent committed, perhaps in the air  -> applied | rejected | not_sent | uncertain | queued
    UNCERTAIN = "uncertain"  # the answer was lost  -> applied | rejected | not_sent | queued | needs_attention
    APPLIED = "applied"
    REJECTED = "rejected"
    NOT_SENT = "not_sent"
    REFUSED = "refused"
    WITHDRAWN = "withdrawn"
    EXPIRED = "expired"
    NEEDS_ATTENTION = "needs_attention"  # -> applied | rejected | sending, by an operator


class DeliveryState(StrEnum):
    """Where a webhook delivery stands. Only `RECEIVED` is to be processed; the others are ends."""

    RECEIVED = "received"  # stored, the appointment is still to be read  -> followed | untracked | failed
    FOLLOWED = "followed"  # the appointment was read after it was received
    UNTRACKED = "untracked"  # nobody follows that appointment here; kept
    FAILED = "failed"  # reading failed too often; an operator may retry  -> received
    IGNORED = "ignored"  # authentic, but nothing to follow: another type of event, or not readable


ACTIVE_STATES: Final = (CommandState.QUEUED, CommandState.SENDING, CommandState.UNCERTAIN)

WITHOUT_EFFECT: Final = (
    CommandState.NOT_SENT,
    CommandState.REFUSED,
    CommandState.WITHDRAWN,
    CommandState.EXPIRED,
)
"""How a command ends that had no effect at Zocdoc. It gives its request key back: the same call again acts."""


metadata = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def _one_of(column: str, values: type[StrEnum]) -> str:
    return f"{column} IN ({', '.join(repr(str(value)) for value in values)})"


installation = sa.Table(
    "lifecycle_installation",
    metadata,
    sa.Column("installation_id", sa.Integer, primary_key=True, autoincrement=False, comment="Always 1"),
    sa.Column(
        "zocdoc_environment",
        sa.String(255),
        nullable=False,
        comment="Whose appointments are here: Zocdoc's sandbox or production, another origin, or samples",
    ),
    sa.Column(
        "digest_key",
        sa.String(64),
        nullable=False,
        comment="Hex key of the payload digests; keep it from readers who must not guess free text",
    ),
    sa.Column("created_at", UtcDateTime, nullable=False, comment="When the first client used this database"),
    sa.CheckConstraint("installation_id = 1", name="single_row"),
    comment="One row: what this database belongs to. Written at first use",
)

appointments = sa.Table(
    "lifecycle_appointments",
    metadata,
    sa.Column("appointment_id", sa.String(64), primary_key=True, comment="Zocdoc's appointment id"),
    sa.Column(
        "status", sa.String(64), nullable=False, comment="Zocdoc's status; a cache of the last audit event's to_status"
    ),
    sa.Column("status_since", UtcDateTime, nullable=False, comment="When that status was recorded here"),
    sa.Column(
        "status_known",
        sa.Boolean,
        nullable=False,
        comment="False: a status that this version's chart does not have; no command is allowed from it",
    ),
    sa.Column("version", sa.Integer, nullable=False, comment="Counts the changes of this row, from 1"),
    sa.Column("start_time", UtcDateTime, nullable=False, comment="Start of the visit, UTC"),
    sa.Column(
        "start_time_offset_minutes",
        sa.Integer,
        nullable=False,
        comment="Offset from UTC, in minutes, in which Zocdoc or the caller wrote the start: -300 is -05:00",
    ),
    sa.Column("provider_location_id", sa.String(255), comment="Zocdoc's pr_...|lo_... id; NULL: not told"),
    sa.Column("practice_id", sa.String(255), comment="Zocdoc's practice id; NULL: not told"),
    sa.Column("visit_reason_id", sa.String(255), comment="Zocdoc's visit reason id; NULL: not told"),
    sa.Column("developer_patient_id", sa.String(255), comment="The developer's own patient id; NULL: not told"),
    sa.Column(
        "booked_with",
        sa.String(128),
        nullable=False,
        comment="Identity of the credential that booked: machine, or user:ID. Only such a credential may change it",
    ),
    sa.Column("confirmation_type", sa.String(255), comment="auto, manual or pending_evaluation; NULL: not told"),
    sa.Column("booked_at", UtcDateTime, comment="Zocdoc's created_time_utc; NULL: not told"),
    sa.Column("arrived_at", UtcDateTime, comment="When an arrival was marked through here; NULL: not marked"),
    sa.Column("in_doubt", sa.Boolean, nullable=False, comment="True: a command on it is uncertain or needs attention"),
    sa.Column(
        "remote_last_modified",
        UtcDateTime,
        comment="Zocdoc's newest last_modified_time_utc that was read; NULL: not told",
    ),
    sa.Column(
        "observed_version",
        sa.Integer,
        nullable=False,
        comment="The version at which Zocdoc was last read; below version: a command of ours has changed it since",
    ),
    sa.Column("observed_at", UtcDateTime, nullable=False, comment="When Zocdoc was last read for this row"),
    sa.Column("tracked_at", UtcDateTime, nullable=False, comment="When the row was made"),
    sa.Column("updated_at", UtcDateTime, nullable=False, comment="When the row last changed"),
    sa.CheckConstraint("version >= 1", name="version_positive"),
    sa.Index(None, "status"),
    sa.Index(None, "provider_location_id"),
    sa.Index(
        "ix_lifecycle_appointments_in_doubt",
        "appointment_id",
        sqlite_where=sa.text("in_doubt"),
        postgresql_where=sa.text("in_doubt"),
    ),
    comment="One row for each tracked appointment: the state-machine instance as it stands now",
)

_ACTIVE = sa.text(f"state IN ({', '.join(repr(str(state)) for state in ACTIVE_STATES)})")
_DUE = sa.text("run_at IS NOT NULL")
_ATTENTION = sa.text("state IN ('needs_attention')")
_KEYED = sa.text(f"request_key IS NOT NULL AND state NOT IN ({', '.join(repr(str(each)) for each in WITHOUT_EFFECT)})")
_QUEUED = sa.text("due_at IS NOT NULL")
_IN_BATCH = sa.text("batch_id IS NOT NULL")

batches = sa.Table(
    "lifecycle_batches",
    metadata,
    sa.Column("batch_id", sa.String(36), primary_key=True, comment="UUID of the batch"),
    sa.Column("name", sa.String(200), comment="What its submitter calls it; NULL: nothing"),
    sa.Column("command", sa.String(32), comment="The command of all its rows; NULL: each row has its own"),
    sa.Column("actor", sa.String(200), nullable=False, comment="Who asked: user:17, job:nightly"),
    sa.Column("source", sa.String(16), nullable=False, comment="How it came in: api, cli, ..."),
    sa.Column("total", sa.Integer, nullable=False, comment="Rows of the input that were taken so far"),
    sa.Column(
        "invalid", sa.Integer, nullable=False, comment="Those of them that are in lifecycle_batch_errors, not commands"
    ),
    sa.Column("created_at", UtcDateTime, nullable=False, comment="When its submission began"),
    sa.Column("submitted_at", UtcDateTime, comment="When all its rows were taken; NULL: not yet, or it was cut off"),
    sa.Column("cancelled_at", UtcDateTime, comment="When what was still queued was withdrawn; NULL: never"),
    sa.Index(None, "created_at"),
    comment="One row for each batch of submitted commands",
)

batch_counts = sa.Table(
    "lifecycle_batch_counts",
    metadata,
    sa.Column("batch_id", sa.ForeignKey("lifecycle_batches.batch_id"), primary_key=True, comment="The batch"),
    sa.Column(
        "slot",
        sa.String(2),
        primary_key=True,
        comment="First letters of the command ids: rows of their own, so that workers do not wait for each other",
    ),
    *(
        sa.Column(str(state), sa.Integer, nullable=False, comment=f"Commands that are {state}")
        for state in CommandState
    ),
    comment="How many commands of a batch are in each state; kept by triggers on lifecycle_commands",
)

batch_errors = sa.Table(
    "lifecycle_batch_errors",
    metadata,
    sa.Column("batch_id", sa.ForeignKey("lifecycle_batches.batch_id"), primary_key=True, comment="The batch"),
    sa.Column("batch_row", sa.Integer, primary_key=True, autoincrement=False, comment="Its row of the input, from 1"),
    sa.Column("appointment_id", sa.String(64), comment="The appointment it names; NULL: none that is well-formed"),
    sa.Column("command", sa.String(32), comment="The command it asks for; NULL: none that there is"),
    sa.Column("reason_code", sa.String(64), nullable=False, comment="Why it could not become a command"),
    comment="Rows of a batch's input that could not become commands; codes only, never what stood there",
)

commands = sa.Table(
    "lifecycle_commands",
    metadata,
    sa.Column("command_id", sa.String(36), primary_key=True, comment="UUID made by the client before the intent"),
    sa.Column(
        "appointment_id", sa.ForeignKey("lifecycle_appointments.appointment_id"), nullable=False, comment="Target"
    ),
    sa.Column(
        "command", sa.String(32), nullable=False, comment="confirm, cancel, reschedule, mark_arrived, mark_no_show"
    ),
    sa.Column(
        "payload",
        Json,
        nullable=False,
        comment="Arguments as sent. Free text (protected health information) is removed when the command ends",
    ),
    sa.Column(
        "payload_digest",
        sa.String(64),
        comment="Keyed digest of appointment, command and arguments: shows a request key's misuse; NULL: no key",
    ),
    sa.Column("actor", sa.String(200), nullable=False, comment="Who asked: user:17, job:nightly"),
    sa.Column("source", sa.String(16), nullable=False, comment="How it came in: api, cli, ..."),
    sa.Column(
        "request_key",
        sa.String(200),
        comment="The caller's own idempotency key; NULL: none. Unique among commands but those without effect",
    ),
    sa.Column(
        "state", sa.String(16), nullable=False, comment="Where it stands; queued, sending and uncertain are active"
    ),
    sa.Column(
        "attempt", sa.Integer, nullable=False, comment="Number of the current or last attempt, from 1; 0: none yet"
    ),
    sa.Column("lease_until", UtcDateTime, comment="Until when its sender or reader may act; NULL: nobody does"),
    sa.Column("run_at", UtcDateTime, comment="When recovery is next to look at it; NULL: not scheduled"),
    sa.Column(
        "queued_at",
        UtcDateTime,
        comment="When it was submitted; NULL: called synchronously, or sent once more by an operator",
    ),
    sa.Column(
        "priority", sa.SmallInteger, nullable=False, comment="Which queued ones go first: 0 alone, 10 in a batch"
    ),
    sa.Column("due_at", UtcDateTime, comment="When a queued command may next be sent; NULL: not queued"),
    sa.Column("expires_at", UtcDateTime, comment="After this a queued command is not sent any more; NULL: never"),
    sa.Column(
        "baseline_status", sa.String(64), nullable=False, comment="Status at intent, to compare with later reads"
    ),
    sa.Column("baseline_start_time", UtcDateTime, nullable=False, comment="Start of the visit at intent, UTC"),
    sa.Column(
        "baseline_last_modified", UtcDateTime, comment="Zocdoc's last_modified_time_utc at intent; NULL: not known"
    ),
    sa.Column(
        "target_status",
        sa.String(64),
        comment="Status that shows it was applied; NULL: several may, or none does (reschedule, mark_arrived)",
    ),
    sa.Column("target_start_time", UtcDateTime, comment="New start that shows a reschedule was applied; else NULL"),
    sa.Column("unchanged_reads", sa.Integer, nullable=False, comment="Reads after a lost answer that showed no effect"),
    sa.Column("failed_reads", sa.Integer, nullable=False, comment="Reads after a lost answer that failed"),
    sa.Column("outcome", sa.String(16), comment="Last attempt's: applied, rejected, not_sent, unknown; NULL: none yet"),
    sa.Column("reason_code", sa.String(64), comment="Why that outcome; NULL: nothing to add"),
    sa.Column(
        "zocdoc_request_id", sa.String(200), comment="Zocdoc's request_id, its support's only handle; NULL: none"
    ),
    sa.Column("http_status", sa.Integer, comment="HTTP status of the last answer; NULL: no answer"),
    sa.Column(
        "batch_id",
        sa.ForeignKey("lifecycle_batches.batch_id"),
        comment="The batch it was submitted with; NULL: called or submitted alone",
    ),
    sa.Column("batch_row", sa.Integer, comment="Its row of the batch's input, from 1; NULL: not in a batch"),
    sa.Column("created_at", UtcDateTime, nullable=False, comment="When the intent, or the wish, was recorded"),
    sa.Column("updated_at", UtcDateTime, nullable=False, comment="When the row last changed"),
    sa.Column("ended_at", UtcDateTime, comment="When it reached a state that is not active; NULL: still active"),
    sa.CheckConstraint(_one_of("command", chart.Command), name="command"),
    sa.CheckConstraint(_one_of("state", CommandState), name="state"),
    sa.CheckConstraint(f"(ended_at IS NULL) = ({_ACTIVE.text})", name="ended"),
    sa.CheckConstraint("attempt >= 0", name="attempt_not_negative"),
    sa.CheckConstraint("(due_at IS NOT NULL) = (state = 'queued')", name="due"),
    sa.CheckConstraint("(batch_row IS NULL) = (batch_id IS NULL)", name="batch"),
    sa.Index("ix_lifecycle_commands_queued", "priority", "due_at", sqlite_where=_QUEUED, postgresql_where=_QUEUED),
    sa.Index(
        "uq_lifecycle_commands_batch",
        "batch_id",
        "batch_row",
        unique=True,
        sqlite_where=_IN_BATCH,
        postgresql_where=_IN_BATCH,
    ),
    sa.Index(
        "uq_lifecycle_commands_active",
        "appointment_id",
        unique=True,
        sqlite_where=_ACTIVE,
        postgresql_where=_ACTIVE,
    ),
    sa.Index(
        "uq_lifecycle_commands_request_key",
        "request_key",
        unique=True,
        sqlite_where=_KEYED,
        postgresql_where=_KEYED,
    ),
    sa.Index("ix_lifecycle_commands_due", "run_at", sqlite_where=_DUE, postgresql_where=_DUE),
    sa.Index(None, "appointment_id", "created_at"),
    sa.Index("ix_lifecycle_commands_attention", "ended_at", sqlite_where=_ATTENTION, postgresql_where=_ATTENTION),
    comment="One row for each submitted or accepted command, written before anything is sent",
)


def holds_key(table: sa.FromClause) -> sa.ColumnElement[bool]:
    """Tell whether a command holds its request key; constants as in `state_in`."""
    return table.c.state.not_in([sa.literal_column(f"'{state}'") for state in WITHOUT_EFFECT])


def is_under_way() -> sa.ColumnElement[bool]:
    """Tell whether a command may be changing its appointment at Zocdoc: it is active, and not merely queued.

    Active word for word, so that the databases use its index.
    """
    return sa.and_(state_in(*ACTIVE_STATES), commands.c.state != sa.literal_column(f"'{CommandState.QUEUED}'"))


def state_in(*states: CommandState) -> sa.ColumnElement[bool]:
    """Compare a command's state with constants that are written into the statement.

    So it is compiled once, and the databases see that a partial index covers it.
    """
    return commands.c.state.in_([sa.literal_column(f"'{state}'") for state in states])


_WAITING = sa.text("state IN ('received')")

webhook_deliveries = sa.Table(
    "lifecycle_webhook_deliveries",
    metadata,
    sa.Column("delivery_id", sa.String(64), primary_key=True, comment="SHA-256 of the raw body, hex: the same call"),
    sa.Column("state", sa.String(16), nullable=False, comment="received, or how it ended"),
    sa.Column("copies", sa.Integer, nullable=False, comment="How often the same body was delivered, from 1"),
    sa.Column(
        "is_stale",
        sa.Boolean,
        nullable=False,
        comment="True: signed, but at a time out of tolerance: a hint to read, no news by itself",
    ),
    sa.Column("appointment_id", sa.String(64), comment="The appointment that changed; NULL: not told readably"),
    sa.Column("update_type", sa.String(32), comment="Zocdoc's: updated, cancelled, created; NULL: not told readably"),
    sa.Column("occurred_at", UtcDateTime, comment="Zocdoc's appointment_updated_timestamp; NULL: not told readably"),
    sa.Column("signed_at", UtcDateTime, nullable=False, comment="The webhook-timestamp of the first copy"),
    sa.Column("received_at", UtcDateTime, nullable=False, comment="When the first copy was stored"),
    sa.Column("last_received_at", UtcDateTime, nullable=False, comment="When the newest copy was stored"),
    sa.Column("attempts", sa.Integer, nullable=False, comment="Reads of the appointment that failed so far"),
    sa.Column("run_at", UtcDateTime, comment="When it is next to be processed; NULL: it has ended"),
    sa.Column("reason_code", sa.String(64), comment="Why it ended so, or why it waits; NULL: nothing to add"),
    sa.Column("processed_at", UtcDateTime, comment="When it ended; NULL: not yet"),
    sa.CheckConstraint(_one_of("state", DeliveryState), name="state"),
    sa.CheckConstraint(f"(processed_at IS NULL) = ({_WAITING.text})", name="ended"),
    sa.CheckConstraint("(run_at IS NULL) = (processed_at IS NOT NULL)", name="scheduled"),
    sa.CheckConstraint("copies >= 1", name="copies_positive"),
    sa.Index("ix_lifecycle_webhook_deliveries_due", "run_at", sqlite_where=_WAITING, postgresql_where=_WAITING),
    sa.Index(None, "appointment_id", "received_at"),
    sa.Index(None, "state", "received_at"),
    comment="The inbox: one row for each webhook call of Zocdoc, stored before it is answered. No body is kept",
)

sync_cursors = sa.Table(
    "lifecycle_sync_cursors",
    metadata,
    sa.Column("cursor_id", sa.String(16), primary_key=True, comment="delta, or full while a full run is under way"),
    sa.Column(
        "modified_through",
        UtcDateTime,
        comment="Everything that Zocdoc modified before this was read; NULL: nothing yet",
    ),
    sa.Column("rows_read", sa.BigInteger, nullable=False, comment="Rows that the current or last run has read"),
    sa.Column("started_at", UtcDateTime, nullable=False, comment="When the current or last run began"),
    sa.Column("finished_at", UtcDateTime, comment="When it ended; NULL: under way, or killed and to be resumed"),
    sa.Column("updated_at", UtcDateTime, nullable=False, comment="When the row last changed"),
    comment="How far sync has read Zocdoc's list of appointments, so that a killed run resumes",
)


def _present(column: str, *more: str) -> sa.Index:
    """Index the rows in which a column is not NULL: nobody looks for the others by it."""
    condition = sa.text(f"{column} IS NOT NULL")
    return sa.Index(None, column, *more, sqlite_where=condition, postgresql_where=condition)


audit_events = sa.Table(
    "lifecycle_audit_events",
    metadata,
    sa.Column(
        "seq",
        sa.BigInteger().with_variant(sa.Integer, "sqlite"),
        primary_key=True,
        comment="Order of insertion in this database; may have gaps",
    ),
    sa.Column(
        "appointment_id", sa.ForeignKey("lifecycle_appointments.appointment_id"), nullable=False, comment="Whose"
    ),
    sa.Column(
        "appointment_seq", sa.Integer, nullable=False, comment="1, 2, 3, ... within the appointment, without gaps"
    ),
    sa.Column("event", sa.String(32), nullable=False, comment="What happened, in the past tense"),
    sa.Column("command", sa.String(32), comment="The command it belongs to; NULL: none, Zocdoc reported it"),
    sa.Column("from_status", sa.String(64), comment="Status before; NULL: the appointment was not tracked yet"),
    sa.Column(
        "from_status_since",
        UtcDateTime,
        comment="When from_status had been recorded: how long it stood; NULL: the appointment was not tracked yet",
    ),
    sa.Column("to_status", sa.String(64), nullable=False, comment="Status after; equal to from_status: nothing moved"),
    sa.Column(
        "conforming", sa.Boolean, nullable=False, comment="False: the chart has no such move; recorded all the same"
    ),
    sa.Column("outcome", sa.String(16), comment="applied, rejected, not_sent, unknown, refused; NULL: not an outcome"),
    sa.Column("reason_code", sa.String(64), comment="Why; NULL: nothing to add"),
    sa.Column(
        "reason_type",
        sa.String(64),
        comment="Zocdoc's cancellation_reason_type of a cancel of ours; NULL: none given, or no cancel",
    ),
    sa.Column("actor", sa.String(200), nullable=False, comment="Who asked: user:17, job:nightly"),
    sa.Column("source", sa.String(16), nullable=False, comment="api, cli, webhook, sync, recovery or operator"),
    sa.Column(
        "provider_location_id",
        sa.String(255),
        comment="Where the visit was to be when this was recorded: Zocdoc's pr_...|lo_... id; NULL: not told",
    ),
    sa.Column("command_id", sa.ForeignKey("lifecycle_commands.command_id"), comment="The command; NULL: none"),
    sa.Column("delivery_id", sa.String(64), comment="The webhook delivery it came from; NULL: none"),
    sa.Column("zocdoc_request_id", sa.String(200), comment="Zocdoc's request_id; NULL: none was given"),
    sa.Column("http_status", sa.Integer, comment="HTTP status of the answer; NULL: no answer"),
    sa.Column("duration_ms", sa.Integer, comment="How long the call took, milliseconds; NULL: no call"),
    sa.Column("chart_version", sa.String(16), nullable=False, comment="The chart that judged it"),
    sa.Column("occurred_at", UtcDateTime, comment="When it happened at Zocdoc, if told; else NULL"),
    sa.Column("recorded_at", UtcDateTime, nullable=False, comment="When it was recorded here, the database's clock"),
    sa.Column("details", Json, nullable=False, comment="What else is known; codes, times and column names, never text"),
    sa.Column("hash_version", sa.SmallInteger, nullable=False, comment="Which canonical encoding the hash covers"),
    sa.Column("prev_hash", sa.String(64), nullable=False, comment="hash of the previous event; 64 zeros for the first"),
    sa.Column("hash", sa.String(64), nullable=False, comment="SHA-256 over the canonical encoding of this row"),
    sa.UniqueConstraint("appointment_id", "appointment_seq"),
    sa.CheckConstraint("seq >= 1", name="seq_positive"),
    sa.CheckConstraint("appointment_seq >= 1", name="appointment_seq_positive"),
    sa.CheckConstraint("(appointment_seq = 1) = (from_status IS NULL)", name="first_has_no_from"),
    sa.Index(None, "recorded_at"),
    sa.Index(None, "event", "recorded_at"),
    sa.Index(None, "actor", "recorded_at"),
    sa.Index(None, "source", "recorded_at"),
    sa.Index(None, "to_status", "recorded_at"),
    _present("command", "recorded_at"),
    _present("outcome", "recorded_at"),
    _present("provider_location_id", "recorded_at"),
    _present("command_id"),
    sa.Index(
        "ix_lifecycle_audit_events_not_conforming",
        "seq",
        sqlite_where=sa.text("conforming = 0"),
        postgresql_where=sa.text("NOT conforming"),
    ),
    sqlite_autoincrement=True,
    comment="The audit trail. Append-only by trigger, chained by hash within each appointment",
)
