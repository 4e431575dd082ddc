"""The core: installation, appointments, commands, batches, inbox, sync cursors, and the append-only audit trail.

Revision ID: 0001
Revises: nothing
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_INSTANT = sa.String(27).with_variant(postgresql.TIMESTAMP(timezone=True), "postgresql")
_JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")

# REPLACE deletes the old row without firing DELETE triggers, so an insert is refused when its key is taken.
_SQLITE_TRIGGERS = (
    """
    CREATE TRIGGER lifecycle_audit_no_update BEFORE UPDATE ON lifecycle_audit_events
    BEGIN SELECT RAISE(ABORT, 'lifecycle_audit_events is append-only'); END
    """,
    """
    CREATE TRIGGER lifecycle_audit_no_delete BEFORE DELETE ON lifecycle_audit_events
    BEGIN SELECT RAISE(ABORT, 'lifecycle_audit_events is append-only'); END
    """,
    """
    CREATE TRIGGER lifecycle_audit_gapless BEFORE INSERT ON lifecycle_audit_events
    WHEN EXISTS (SELECT 1 FROM lifecycle_audit_events WHERE seq = NEW.seq)
      OR NEW.appointment_seq IS NOT (
        SELECT coalesce(max(appointment_seq), 0) + 1 FROM lifecycle_audit_events
        WHERE appointment_id = NEW.appointment_id
      )
    BEGIN SELECT RAISE(ABORT, 'lifecycle_audit_events takes only the next event of an appointment'); END
    """,
)

# Statement-level, so that TRUNCATE, upserts and statements that match no row are refused too; ENABLE ALWAYS, so that
# session_replication_role does not switch them off.
_POSTGRES_TRIGGERS = (
    """
    CREATE FUNCTION lifecycle_audit_refuse() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
      RAISE EXCEPTION 'lifecycle_audit_events is append-only' USING ERRCODE = 'integrity_constraint_violation';
    END $$
    """,
    """
    CREATE TRIGGER lifecycle_audit_no_change BEFORE UPDATE OR DELETE OR TRUNCATE ON lifecycle_audit_events
    FOR EACH STATEMENT EXECUTE FUNCTION lifecycle_audit_refuse()
    """,
    "ALTER TABLE lifecycle_audit_events ENABLE ALWAYS TRIGGER lifecycle_audit_no_change",
    """
    CREATE FUNCTION lifecycle_audit_next() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
      IF NEW.appointment_seq IS DISTINCT FROM (
        SELECT coalesce(max(appointment_seq), 0) + 1 FROM lifecycle_audit_events
        WHERE appointment_id = NEW.appointment_id
      ) THEN
        RAISE EXCEPTION 'lifecycle_audit_events takes only the next event of an appointment'
          USING ERRCODE = 'integrity_constraint_violation';
      END IF;
      RETURN NEW;
    END $$
    """,
    """
    CREATE TRIGGER lifecycle_audit_gapless BEFORE INSERT ON lifecycle_audit_events
    FOR EACH ROW EXECUTE FUNCTION lifecycle_audit_next()
    """,
    "ALTER TABLE lifecycle_audit_events ENABLE ALWAYS TRIGGER lifecycle_audit_gapless",
)

# Row by row: an SQLite database has one writer at a time.
_SQLITE_COUNTS = (
    """
    CREATE TRIGGER lifecycle_batch_counts_insert AFTER INSERT ON lifecycle_commands WHEN NEW.batch_id IS NOT NULL
    BEGIN
      INSERT INTO lifecycle_batch_counts
      VALUES (NEW.batch_id, substr(NEW.command_id, 1, 2), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
      ON CONFLICT DO NOTHING;
      UPDATE lifecycle_batch_counts SET
        queued = queued + (NEW.state = 'queued'), sending = sending + (NEW.state = 'sending'),
        uncertain = uncertain + (NEW.state = 'uncertain'), applied = applied + (NEW.state = 'applied'),
        rejected = rejected + (NEW.state = 'rejected'), not_sent = not_sent + (NEW.state = 'not_sent'),
        refused = refused + (NEW.state = 'refused'), withdrawn = withdrawn + (NEW.state = 'withdrawn'),
        expired = expired + (NEW.state = 'expired'),
        needs_attention = needs_attention + (NEW.state = 'needs_attention')
      WHERE batch_id = NEW.batch_id AND slot = substr(NEW.command_id, 1, 2);
    END
    """,
    """
    CREATE TRIGGER lifecycle_batch_counts_update AFTER UPDATE OF state ON lifecycle_commands
    WHEN NEW.batch_id IS NOT NULL AND NEW.state <> OLD.state
    BEGIN
      UPDATE lifecycle_batch_counts SET
        queued = queued + (NEW.state = 'queued') - (OLD.state = 'queued'),
        sending = sending + (NEW.state = 'sending') - (OLD.state = 'sending'),
        uncertain = uncertain + (NEW.state = 'uncertain') - (OLD.state = 'uncertain'),
        applied = applied + (NEW.state = 'applied') - (OLD.state = 'applied'),
        rejected = rejected + (NEW.state = 'rejected') - (OLD.state = 'rejected'),
        not_sent = not_sent + (NEW.state = 'not_sent') - (OLD.state = 'not_sent'),
        refused = refused + (NEW.state = 'refused') - (OLD.state = 'refused'),
        withdrawn = withdrawn + (NEW.state = 'withdrawn') - (OLD.state = 'withdrawn'),
        expired = expired + (NEW.state = 'expired') - (OLD.state = 'expired'),
        needs_attention = needs_attention + (NEW.state = 'needs_attention') - (OLD.state = 'needs_attention')
      WHERE batch_id = NEW.batch_id AND slot = substr(NEW.command_id, 1, 2);
    END
    """,
)

# A statement adds up what it changed, and takes the slots in order: so two statements cannot wait for each other in a
# circle. Inserts show no old rows, and an update of commands outside batches ends at once.
_POSTGRES_COUNTS = (
    """
    CREATE FUNCTION lifecycle_batch_count() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
      IF TG_OP = 'INSERT' THEN
        INSERT INTO lifecycle_batch_counts AS counts (
        batch_id, slot, queued, sending, uncertain, applied, rejected, not_sent, refused, withdrawn, expired,
        needs_attention
        )
        SELECT batch_id, substr(command_id, 1, 2),
        sum(CASE state WHEN 'queued' THEN n ELSE 0 END), sum(CASE state WHEN 'sending' THEN n ELSE 0 END),
        sum(CASE state WHEN 'uncertain' THEN n ELSE 0 END), sum(CASE state WHEN 'applied' THEN n ELSE 0 END),
        sum(CASE state WHEN 'rejected' THEN n ELSE 0 END), sum(CASE state WHEN 'not_sent' THEN n ELSE 0 END),
        sum(CASE state WHEN 'refused' THEN n ELSE 0 END), sum(CASE state WHEN 'withdrawn' THEN n ELSE 0 END),
        sum(CASE state WHEN 'expired' THEN n ELSE 0 END), sum(CASE state WHEN 'needs_attention' THEN n ELSE 0 END)
        FROM (SELECT batch_id, command_id, state, 1 AS n FROM new_rows WHERE batch_id IS NOT NULL) changed
        GROUP BY 1, 2 ORDER BY 1, 2
        ON CONFLICT (batch_id, slot) DO UPDATE SET
        queued = counts.queued + EXCLUDED.queued, sending = counts.sending + EXCLUDED.sending,
        uncertain = counts.uncertain + EXCLUDED.uncertain, applied = counts.applied + EXCLUDED.applied,
        rejected = counts.rejected + EXCLUDED.rejected, not_sent = counts.not_sent + EXCLUDED.not_sent,
        refused = counts.refused + EXCLUDED.refused, withdrawn = counts.withdrawn + EXCLUDED.withdrawn,
        expired = counts.expired + EXCLUDED.expired,
        needs_attention = counts.needs_attention + EXCLUDED.needs_attention;
      ELSIF EXISTS (SELECT FROM new_rows WHERE batch_id IS NOT NULL) THEN
        INSERT INTO lifecycle_batch_counts AS counts (
        batch_id, slot, queued, sending, uncertain, applied, rejected, not_sent, refused, withdrawn, expired,
        needs_attention
        )
        SELECT batch_id, substr(command_id, 1, 2),
        sum(CASE state WHEN 'queued' THEN n ELSE 0 END), sum(CASE state WHEN 'sending' THEN n ELSE 0 END),
        sum(CASE state WHEN 'uncertain' THEN n ELSE 0 END), sum(CASE state WHEN 'applied' THEN n ELSE 0 END),
        sum(CASE state WHEN 'rejected' THEN n ELSE 0 END), sum(CASE state WHEN 'not_sent' THEN n ELSE 0 END),
        sum(CASE state WHEN 'refused' THEN n ELSE 0 END), sum(CASE state WHEN 'withdrawn' THEN n ELSE 0 END),
        sum(CASE state WHEN 'expired' THEN n ELSE 0 END), sum(CASE state WHEN 'needs_attention' THEN n ELSE 0 END)
        FROM (
          SELECT batch_id, command_id, state, 1 AS n FROM new_rows WHERE batch_id IS NOT NULL
          UNION ALL
          SELECT batch_id, command_id, state, -1 FROM old_rows WHERE batch_id IS NOT NULL
        ) changed
        GROUP BY 1, 2 ORDER BY 1, 2
        ON CONFLICT (batch_id, slot) DO UPDATE SET
        queued = counts.queued + EXCLUDED.queued, sending = counts.sending + EXCLUDED.sending,
        uncertain = counts.uncertain + EXCLUDED.uncertain, applied = counts.applied + EXCLUDED.applied,
        rejected = counts.rejected + EXCLUDED.rejected, not_sent = counts.not_sent + EXCLUDED.not_sent,
        refused = counts.refused + EXCLUDED.refused, withdrawn = counts.withdrawn + EXCLUDED.withdrawn,
        expired = counts.expired + EXCLUDED.expired,
        needs_attention = counts.needs_attention + EXCLUDED.needs_attention;
      END IF;
      RETURN NULL;
    END $$
    """,
    """
    CREATE TRIGGER lifecycle_batch_counts_insert AFTER INSERT ON lifecycle_commands
    REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION lifecycle_batch_count()
    """,
    """
    CREATE TRIGGER lifecycle_batch_counts_update AFTER UPDATE ON lifecycle_commands
    REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION lifecycle_batch_count()
    """,
)


def upgrade() -> None:
    """Create the tables, their indexes and the triggers that keep the trail append-only."""
    op.create_table(
        "lifecycle_appointments",
        sa.Column("appointment_id", sa.String(length=64), nullable=False, comment="Zocdoc's appointment id"),
        sa.Column(
            "status",
            sa.String(length=64),
            nullable=False,
            comment="Zocdoc's status; a cache of the last audit event's to_status",
        ),
        sa.Column("status_since", _INSTANT, nullable=False, comment="When that status was recorded here"),
        sa.Column(
            "status_known",
            sa.Boolean(),
            nullable=False,
            comment="False: a status that this version's chart does not have; no command is allowed from it",
        ),
        sa.Column("version", sa.Integer(), nullable=False, comment="Counts the changes of this row, from 1"),
        sa.Column("start_time", _INSTANT, nullable=False, comment="Start of the visit, UTC"),
        sa.Column(
            "start_time_offset_minutes",
            sa.Integer(),
            nullable=False,
            comment="Offset from UTC, in minutes, in which Zocdoc or the caller wrote the start: -300 is -05:00",
        ),
        sa.Column(
            "provider_location_id",
            sa.String(length=255),
            nullable=True,
            comment="Zocdoc's pr_...|lo_... id; NULL: not told",
        ),
        sa.Column("practice_id", sa.String(length=255), nullable=True, comment="Zocdoc's practice id; NULL: not told"),
        sa.Column(
            "visit_reason_id", sa.String(length=255), nullable=True, comment="Zocdoc's visit reason id; NULL: not told"
        ),
        sa.Column(
            "developer_patient_id",
            sa.String(length=255),
            nullable=True,
            comment="The developer's own patient id; NULL: not told",
        ),
        sa.Column(
            "booked_with",
            sa.String(length=128),
            nullable=False,
            comment="Identity of the credential that booked: machine, or user:ID. Only such a credential may change it",
        ),
        sa.Column(
            "confirmation_type",
            sa.String(length=255),
            nullable=True,
            comment="auto, manual or pending_evaluation; NULL: not told",
        ),
        sa.Column("booked_at", _INSTANT, nullable=True, comment="Zocdoc's created_time_utc; NULL: not told"),
        sa.Column(
            "arrived_at", _INSTANT, nullable=True, comment="When an arrival was marked through here; NULL: not marked"
        ),
        sa.Column(
            "in_doubt", sa.Boolean(), nullable=False, comment="True: a command on it is uncertain or needs attention"
        ),
        sa.Column(
            "remote_last_modified",
            _INSTANT,
            nullable=True,
            comment="Zocdoc's newest last_modified_time_utc that was read; NULL: not told",
        ),
        sa.Column(
            "observed_version",
            sa.Integer(),
            nullable=False,
            comment="The version at which Zocdoc was last read; below version: a command of ours has changed it since",
        ),
        sa.Column("observed_at", _INSTANT, nullable=False, comment="When Zocdoc was last read for this row"),
        sa.Column("tracked_at", _INSTANT, nullable=False, comment="When the row was made"),
        sa.Column("updated_at", _INSTANT, nullable=False, comment="When the row last changed"),
        sa.CheckConstraint("version >= 1", name=op.f("ck_lifecycle_appointments_version_positive")),
        sa.PrimaryKeyConstraint("appointment_id", name=op.f("pk_lifecycle_appointments")),
        comment="One row for each tracked appointment: the state-machine instance as it stands now",
    )
    op.create_index(
        "ix_lifecycle_appointments_in_doubt",
        "lifecycle_appointments",
        ["appointment_id"],
        unique=False,
        sqlite_where=sa.text("in_doubt"),
        postgresql_where=sa.text("in_doubt"),
    )
    op.create_index(
        op.f("ix_lifecycle_appointments_provider_location_id"),
        "lifecycle_appointments",
        ["provider_location_id"],
        unique=False,
    )
    op.create_index(op.f("ix_lifecycle_appointments_status"), "lifecycle_appointments", ["status"], unique=False)
    op.create_table(
        "lifecycle_batches",
        sa.Column("batch_id", sa.String(length=36), nullable=False, comment="UUID of the batch"),
        sa.Column("name", sa.String(length=200), nullable=True, comment="What its submitter calls it; NULL: nothing"),
        sa.Column(
            "command",
            sa.String(length=32),
            nullable=True,
            comment="The command of all its rows; NULL: each row has its own",
        ),
        sa.Column("actor", sa.String(length=200), nullable=False, comment="Who asked: user:17, job:nightly"),
        sa.Column("source", sa.String(length=16), nullable=False, comment="How it came in: api, cli, ..."),
        sa.Column("total", sa.Integer(), nullable=False, comment="Rows of the input that were taken so far"),
        sa.Column(
            "invalid",
            sa.Integer(),
            nullable=False,
            comment="Those of them that are in lifecycle_batch_errors, not commands",
        ),
        sa.Column("created_at", _INSTANT, nullable=False, comment="When its submission began"),
        sa.Column(
            "submitted_at",
            _INSTANT,
            nullable=True,
            comment="When all its rows were taken; NULL: not yet, or it was cut off",
        ),
        sa.Column(
            "cancelled_at", _INSTANT, nullable=True, comment="When what was still queued was withdrawn; NULL: never"
        ),
        sa.PrimaryKeyConstraint("batch_id", name=op.f("pk_lifecycle_batches")),
        comment="One row for each batch of submitted commands",
    )
    op.create_index(op.f("ix_lifecycle_batches_created_at"), "lifecycle_batches", ["created_at"], unique=False)
    op.create_table(
        "lifecycle_installation",
        sa.Column("installation_id", sa.Integer(), autoincrement=False, nullable=False, comment="Always 1"),
        sa.Column(
            "zocdoc_environment",
            sa.String(length=255),
            nullable=False,
            comment="Whose appointments are here: Zocdoc's sandbox or production, another origin, or samples",
        ),
        sa.Column(
            "digest_key",
            sa.String(length=64),
            nullable=False,
            comment="Hex key of the payload digests; keep it from readers who must not guess free text",
        ),
        sa.Column("created_at", _INSTANT, nullable=False, comment="When the first client used this database"),
        sa.CheckConstraint("installation_id = 1", name=op.f("ck_lifecycle_installation_single_row")),
        sa.PrimaryKeyConstraint("installation_id", name=op.f("pk_lifecycle_installation")),
        comment="One row: what this database belongs to. Written at first use",
    )
    op.create_table(
        "lifecycle_sync_cursors",
        sa.Column(
            "cursor_id", sa.String(length=16), nullable=False, comment="delta, or full while a full run is under way"
        ),
        sa.Column(
            "modified_through",
            _INSTANT,
            nullable=True,
            comment="Everything that Zocdoc modified before this was read; NULL: nothing yet",
        ),
        sa.Column("rows_read", sa.BigInteger(), nullable=False, comment="Rows that the current or last run has read"),
        sa.Column("started_at", _INSTANT, nullable=False, comment="When the current or last run began"),
        sa.Column(
            "finished_at",
            _INSTANT,
            nullable=True,
            comment="When it ended; NULL: under way, or killed and to be resumed",
        ),
        sa.Column("updated_at", _INSTANT, nullable=False, comment="When the row last changed"),
        sa.PrimaryKeyConstraint("cursor_id", name=op.f("pk_lifecycle_sync_cursors")),
        comment="How far sync has read Zocdoc's list of appointments, so that a killed run resumes",
    )
    op.create_table(
        "lifecycle_webhook_deliveries",
        sa.Column(
            "delivery_id", sa.String(length=64), nullable=False, comment="SHA-256 of the raw body, hex: the same call"
        ),
        sa.Column("state", sa.String(length=16), nullable=False, comment="received, or how it ended"),
        sa.Column("copies", sa.Integer(), nullable=False, comment="How often the same body was delivered, from 1"),
        sa.Column(
            "is_stale",
            sa.Boolean(),
            nullable=False,
            comment="True: signed, but at a time out of tolerance: a hint to read, no news by itself",
        ),
        sa.Column(
            "appointment_id",
            sa.String(length=64),
            nullable=True,
            comment="The appointment that changed; NULL: not told readably",
        ),
        sa.Column(
            "update_type",
            sa.String(length=32),
            nullable=True,
            comment="Zocdoc's: updated, cancelled, created; NULL: not told readably",
        ),
        sa.Column(
            "occurred_at",
            _INSTANT,
            nullable=True,
            comment="Zocdoc's appointment_updated_timestamp; NULL: not told readably",
        ),
        sa.Column("signed_at", _INSTANT, nullable=False, comment="The webhook-timestamp of the first copy"),
        sa.Column("received_at", _INSTANT, nullable=False, comment="When the first copy was stored"),
        sa.Column("last_received_at", _INSTANT, nullable=False, comment="When the newest copy was stored"),
        sa.Column("attempts", sa.Integer(), nullable=False, comment="Reads of the appointment that failed so far"),
        sa.Column("run_at", _INSTANT, nullable=True, comment="When it is next to be processed; NULL: it has ended"),
        sa.Column(
            "reason_code",
            sa.String(length=64),
            nullable=True,
            comment="Why it ended so, or why it waits; NULL: nothing to add",
        ),
        sa.Column("processed_at", _INSTANT, nullable=True, comment="When it ended; NULL: not yet"),
        sa.CheckConstraint(
            "(processed_at IS NULL) = (state IN ('received'))", name=op.f("ck_lifecycle_webhook_deliveries_ended")
        ),
        sa.CheckConstraint(
            "state IN ('received', 'followed', 'untracked', 'failed', 'ignored')",
            name=op.f("ck_lifecycle_webhook_deliveries_state"),
        ),
        sa.CheckConstraint(
            "(run_at IS NULL) = (processed_at IS NOT NULL)", name=op.f("ck_lifecycle_webhook_deliveries_scheduled")
        ),
        sa.CheckConstraint("copies >= 1", name=op.f("ck_lifecycle_webhook_deliveries_copies_positive")),
        sa.PrimaryKeyConstraint("delivery_id", name=op.f("pk_lifecycle_webhook_deliveries")),
        comment="The inbox: one row for each webhook call of Zocdoc, stored before it is answered. No body is kept",
    )
    op.create_index(
        op.f("ix_lifecycle_webhook_deliveries_appointment_id_received_at"),
        "lifecycle_webhook_deliveries",
        ["appointment_id", "received_at"],
        unique=False,
    )
    op.create_index(
        "ix_lifecycle_webhook_deliveries_due",
        "lifecycle_webhook_deliveries",
        ["run_at"],
        unique=False,
        sqlite_where=sa.text("state IN ('received')"),
        postgresql_where=sa.text("state IN ('received')"),
    )
    op.create_index(
        op.f("ix_lifecycle_webhook_deliveries_state_received_at"),
        "lifecycle_webhook_deliveries",
        ["state", "received_at"],
        unique=False,
    )
    op.create_table(
        "lifecycle_batch_counts",
        sa.Column("batch_id", sa.String(length=36), nullable=False, comment="The batch"),
        sa.Column(
            "slot",
            sa.String(length=2),
            nullable=False,
            comment="First letters of the command ids: rows of their own, so that workers do not wait for each other",
        ),
        sa.Column("queued", sa.Integer(), nullable=False, comment="Commands that are queued"),
        sa.Column("sending", sa.Integer(), nullable=False, comment="Commands that are sending"),
        sa.Column("uncertain", sa.Integer(), nullable=False, comment="Commands that are uncertain"),
        sa.Column("applied", sa.Integer(), nullable=False, comment="Commands that are applied"),
        sa.Column("rejected", sa.Integer(), nullable=False, comment="Commands that are rejected"),
        sa.Column("not_sent", sa.Integer(), nullable=False, comment="Commands that are not_sent"),
        sa.Column("refused", sa.Integer(), nullable=False, comment="Commands that are refused"),
        sa.Column("withdrawn", sa.Integer(), nullable=False, comment="Commands that are withdrawn"),
        sa.Column("expired", sa.Integer(), nullable=False, comment="Commands that are expired"),
        sa.Column("needs_attention", sa.Integer(), nullable=False, comment="Commands that are needs_attention"),
        sa.ForeignKeyConstraint(
            ["batch_id"], ["lifecycle_batches.batch_id"], name=op.f("fk_lifecycle_batch_counts_batch_id")
        ),
        sa.PrimaryKeyConstraint("batch_id", "slot", name=op.f("pk_lifecycle_batch_counts")),
        comment="How many commands of a batch are in each state; kept by triggers on lifecycle_commands",
    )
    op.create_table(
        "lifecycle_batch_errors",
        sa.Column("batch_id", sa.String(length=36), nullable=False, comment="The batch"),
        sa.Column(
            "batch_row", sa.Integer(), autoincrement=False, nullable=False, comment="Its row of the input, from 1"
        ),
        sa.Column(
            "appointment_id",
            sa.String(length=64),
            nullable=True,
            comment="The appointment it names; NULL: none that is well-formed",
        ),
        sa.Column(
            "command", sa.String(length=32), nullable=True, comment="The command it asks for; NULL: none that there is"
        ),
        sa.Column("reason_code", sa.String(length=64), nullable=False, comment="Why it could not become a command"),
        sa.ForeignKeyConstraint(
            ["batch_id"], ["lifecycle_batches.batch_id"], name=op.f("fk_lifecycle_batch_errors_batch_id")
        ),
        sa.PrimaryKeyConstraint("batch_id", "batch_row", name=op.f("pk_lifecycle_batch_errors")),
        comment="Rows of a batch's input that could not become commands; codes only, never what stood there",
    )
    op.create_table(
        "lifecycle_commands",
        sa.Column(
            "command_id", sa.String(length=36), nullable=False, comment="UUID made by the client before the intent"
        ),
        sa.Column("appointment_id", sa.String(length=64), nullable=False, comment="Target"),
        sa.Column(
            "command",
            sa.String(length=32),
            nullable=False,
            comment="confirm, cancel, reschedule, mark_arrived, mark_no_show",
        ),
        sa.Column(
            "payload",
            _JSON,
            nullable=False,
            comment="Arguments as sent. Free text (protected health information) is removed when the command ends",
        ),
        sa.Column(
            "payload_digest",
            sa.String(length=64),
            nullable=True,
            comment="Keyed digest of appointment, command and arguments: shows a request key's misuse; NULL: no key",
        ),
        sa.Column("actor", sa.String(length=200), nullable=False, comment="Who asked: user:17, job:nightly"),
        sa.Column("source", sa.String(length=16), nullable=False, comment="How it came in: api, cli, ..."),
        sa.Column(
            "request_key",
            sa.String(length=200),
            nullable=True,
            comment="The caller's own idempotency key; NULL: none. Unique among commands but those without effect",
        ),
        sa.Column(
            "state",
            sa.String(length=16),
            nullable=False,
            comment="Where it stands; queued, sending and uncertain are active",
        ),
        sa.Column(
            "attempt",
            sa.Integer(),
            nullable=False,
            comment="Number of the current or last attempt, from 1; 0: none yet",
        ),
        sa.Column(
            "lease_until", _INSTANT, nullable=True, comment="Until when its sender or reader may act; NULL: nobody does"
        ),
        sa.Column(
            "run_at", _INSTANT, nullable=True, comment="When recovery is next to look at it; NULL: not scheduled"
        ),
        sa.Column(
            "queued_at",
            _INSTANT,
            nullable=True,
            comment="When it was submitted; NULL: called synchronously, or sent once more by an operator",
        ),
        sa.Column(
            "priority", sa.SmallInteger(), nullable=False, comment="Which queued ones go first: 0 alone, 10 in a batch"
        ),
        sa.Column(
            "due_at", _INSTANT, nullable=True, comment="When a queued command may next be sent; NULL: not queued"
        ),
        sa.Column(
            "expires_at",
            _INSTANT,
            nullable=True,
            comment="After this a queued command is not sent any more; NULL: never",
        ),
        sa.Column(
            "baseline_status",
            sa.String(length=64),
            nullable=False,
            comment="Status at intent, to compare with later reads",
        ),
        sa.Column("baseline_start_time", _INSTANT, nullable=False, comment="Start of the visit at intent, UTC"),
        sa.Column(
            "baseline_last_modified",
            _INSTANT,
            nullable=True,
            comment="Zocdoc's last_modified_time_utc at intent; NULL: not known",
        ),
        sa.Column(
            "target_status",
            sa.String(length=64),
            nullable=True,
            comment="Status that shows it was applied; NULL: several may, or none does (reschedule, mark_arrived)",
        ),
        sa.Column(
            "target_start_time",
            _INSTANT,
            nullable=True,
            comment="New start that shows a reschedule was applied; else NULL",
        ),
        sa.Column(
            "unchanged_reads", sa.Integer(), nullable=False, comment="Reads after a lost answer that showed no effect"
        ),
        sa.Column("failed_reads", sa.Integer(), nullable=False, comment="Reads after a lost answer that failed"),
        sa.Column(
            "outcome",
            sa.String(length=16),
            nullable=True,
            comment="Last attempt's: applied, rejected, not_sent, unknown; NULL: none yet",
        ),
        sa.Column("reason_code", sa.String(length=64), nullable=True, comment="Why that outcome; NULL: nothing to add"),
        sa.Column(
            "zocdoc_request_id",
            sa.String(length=200),
            nullable=True,
            comment="Zocdoc's request_id, its support's only handle; NULL: none",
        ),
        sa.Column(
            "http_status", sa.Integer(), nullable=True, comment="HTTP status of the last answer; NULL: no answer"
        ),
        sa.Column(
            "batch_id",
            sa.String(length=36),
            nullable=True,
            comment="The batch it was submitted with; NULL: called or submitted alone",
        ),
        sa.Column(
            "batch_row",
            sa.Integer(),
            nullable=True,
            comment="Its row of the batch's input, from 1; NULL: not in a batch",
        ),
        sa.Column("created_at", _INSTANT, nullable=False, comment="When the intent, or the wish, was recorded"),
        sa.Column("updated_at", _INSTANT, nullable=False, comment="When the row last changed"),
        sa.Column(
            "ended_at",
            _INSTANT,
            nullable=True,
            comment="When it reached a state that is not active; NULL: still active",
        ),
        sa.CheckConstraint("(due_at IS NOT NULL) = (state = 'queued')", name=op.f("ck_lifecycle_commands_due")),
        sa.CheckConstraint(
            "(ended_at IS NULL) = (state IN ('queued', 'sending', 'uncertain'))",
            name=op.f("ck_lifecycle_commands_ended"),
        ),
        sa.CheckConstraint(
            "command IN ('confirm', 'cancel', 'reschedule', 'mark_arrived', 'mark_no_show')",
            name=op.f("ck_lifecycle_commands_command"),
        ),
        sa.CheckConstraint(
            "state IN ('queued', 'sending', 'uncertain', 'applied', 'rejected', 'not_sent', "
            "'refused', 'withdrawn', 'expired', 'needs_attention')",
            name=op.f("ck_lifecycle_commands_state"),
        ),
        sa.CheckConstraint("(batch_row IS NULL) = (batch_id IS NULL)", name=op.f("ck_lifecycle_commands_batch")),
        sa.CheckConstraint("attempt >= 0", name=op.f("ck_lifecycle_commands_attempt_not_negative")),
        sa.ForeignKeyConstraint(
            ["appointment_id"],
            ["lifecycle_appointments.appointment_id"],
            name=op.f("fk_lifecycle_commands_appointment_id"),
        ),
        sa.ForeignKeyConstraint(
            ["batch_id"], ["lifecycle_batches.batch_id"], name=op.f("fk_lifecycle_commands_batch_id")
        ),
        sa.PrimaryKeyConstraint("command_id", name=op.f("pk_lifecycle_commands")),
        comment="One row for each submitted or accepted command, written before anything is sent",
    )
    op.create_index(
        op.f("ix_lifecycle_commands_appointment_id_created_at"),
        "lifecycle_commands",
        ["appointment_id", "created_at"],
        unique=False,
    )
    op.create_index(
        "ix_lifecycle_commands_attention",
        "lifecycle_commands",
        ["ended_at"],
        unique=False,
        sqlite_where=sa.text("state IN ('needs_attention')"),
        postgresql_where=sa.text("state IN ('needs_attention')"),
    )
    op.create_index(
        "ix_lifecycle_commands_due",
        "lifecycle_commands",
        ["run_at"],
        unique=False,
        sqlite_where=sa.text("run_at IS NOT NULL"),
        postgresql_where=sa.text("run_at IS NOT NULL"),
    )
    op.create_index(
        "ix_lifecycle_commands_queued",
        "lifecycle_commands",
        ["priority", "due_at"],
        unique=False,
        sqlite_where=sa.text("due_at IS NOT NULL"),
        postgresql_where=sa.text("due_at IS NOT NULL"),
    )
    op.create_index(
        "uq_lifecycle_commands_active",
        "lifecycle_commands",
        ["appointment_id"],
        unique=True,
        sqlite_where=sa.text("state IN ('queued', 'sending', 'uncertain')"),
        postgresql_where=sa.text("state IN ('queued', 'sending', 'uncertain')"),
    )
    op.create_index(
        "uq_lifecycle_commands_batch",
        "lifecycle_commands",
        ["batch_id", "batch_row"],
        unique=True,
        sqlite_where=sa.text("batch_id IS NOT NULL"),
        postgresql_where=sa.text("batch_id IS NOT NULL"),
    )
    op.create_index(
        "uq_lifecycle_commands_request_key",
        "lifecycle_commands",
        ["request_key"],
        unique=True,
        sqlite_where=sa.text(
            "request_key IS NOT NULL AND state NOT IN ('not_sent', 'refused', 'withdrawn', 'expired')"
        ),
        postgresql_where=sa.text(
            "request_key IS NOT NULL AND state NOT IN ('not_sent', 'refused', 'withdrawn', 'expired')"
        ),
    )
    op.create_table(
        "lifecycle_audit_events",
        sa.Column(
            "seq",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            nullable=False,
            comment="Order of insertion in this database; may have gaps",
        ),
        sa.Column("appointment_id", sa.String(length=64), nullable=False, comment="Whose"),
        sa.Column(
            "appointment_seq", sa.Integer(), nullable=False, comment="1, 2, 3, ... within the appointment, without gaps"
        ),
        sa.Column("event", sa.String(length=32), nullable=False, comment="What happened, in the past tense"),
        sa.Column(
            "command",
            sa.String(length=32),
            nullable=True,
            comment="The command it belongs to; NULL: none, Zocdoc reported it",
        ),
        sa.Column(
            "from_status",
            sa.String(length=64),
            nullable=True,
            comment="Status before; NULL: the appointment was not tracked yet",
        ),
        sa.Column(
            "from_status_since",
            _INSTANT,
            nullable=True,
            comment="When from_status had been recorded: how long it stood; NULL: the appointment was not tracked yet",
        ),
        sa.Column(
            "to_status",
            sa.String(length=64),
            nullable=False,
            comment="Status after; equal to from_status: nothing moved",
        ),
        sa.Column(
            "conforming",
            sa.Boolean(),
            nullable=False,
            comment="False: the chart has no such move; recorded all the same",
        ),
        sa.Column(
            "outcome",
            sa.String(length=16),
            nullable=True,
            comment="applied, rejected, not_sent, unknown, refused; NULL: not an outcome",
        ),
        sa.Column("reason_code", sa.String(length=64), nullable=True, comment="Why; NULL: nothing to add"),
        sa.Column(
            "reason_type",
            sa.String(length=64),
            nullable=True,
            comment="Zocdoc's cancellation_reason_type of a cancel of ours; NULL: none given, or no cancel",
        ),
        sa.Column("actor", sa.String(length=200), nullable=False, comment="Who asked: user:17, job:nightly"),
        sa.Column(
            "source", sa.String(length=16), nullable=False, comment="api, cli, webhook, sync, recovery or operator"
        ),
        sa.Column(
            "provider_location_id",
            sa.String(length=255),
            nullable=True,
            comment="Where the visit was to be when this was recorded: Zocdoc's pr_...|lo_... id; NULL: not told",
        ),
        sa.Column("command_id", sa.String(length=36), nullable=True, comment="The command; NULL: none"),
        sa.Column(
            "delivery_id", sa.String(length=64), nullable=True, comment="The webhook delivery it came from; NULL: none"
        ),
        sa.Column(
            "zocdoc_request_id",
            sa.String(length=200),
            nullable=True,
            comment="Zocdoc's request_id; NULL: none was given",
        ),
        sa.Column("http_status", sa.Integer(), nullable=True, comment="HTTP status of the answer; NULL: no answer"),
        sa.Column(
            "duration_ms", sa.Integer(), nullable=True, comment="How long the call took, milliseconds; NULL: no call"
        ),
        sa.Column("chart_version", sa.String(length=16), nullable=False, comment="The chart that judged it"),
        sa.Column("occurred_at", _INSTANT, nullable=True, comment="When it happened at Zocdoc, if told; else NULL"),
        sa.Column("recorded_at", _INSTANT, nullable=False, comment="When it was recorded here, the database's clock"),
        sa.Column(
            "details", _JSON, nullable=False, comment="What else is known; codes, times and column names, never text"
        ),
        sa.Column(
            "hash_version", sa.SmallInteger(), nullable=False, comment="Which canonical encoding the hash covers"
        ),
        sa.Column(
            "prev_hash",
            sa.String(length=64),
            nullable=False,
            comment="hash of the previous event; 64 zeros for the first",
        ),
        sa.Column(
            "hash", sa.String(length=64), nullable=False, comment="SHA-256 over the canonical encoding of this row"
        ),
        sa.CheckConstraint(
            "(appointment_seq = 1) = (from_status IS NULL)", name=op.f("ck_lifecycle_audit_events_first_has_no_from")
        ),
        sa.CheckConstraint("appointment_seq >= 1", name=op.f("ck_lifecycle_audit_events_appointment_seq_positive")),
        sa.CheckConstraint("seq >= 1", name=op.f("ck_lifecycle_audit_events_seq_positive")),
        sa.ForeignKeyConstraint(
            ["appointment_id"],
            ["lifecycle_appointments.appointment_id"],
            name=op.f("fk_lifecycle_audit_events_appointment_id"),
        ),
        sa.ForeignKeyConstraint(
            ["command_id"], ["lifecycle_commands.command_id"], name=op.f("fk_lifecycle_audit_events_command_id")
        ),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_lifecycle_audit_events")),
        sa.UniqueConstraint(
            "appointment_id", "appointment_seq", name=op.f("uq_lifecycle_audit_events_appointment_id_appointment_seq")
        ),
        comment="The audit trail. Append-only by trigger, chained by hash within each appointment",
        sqlite_autoincrement=True,
    )
    op.create_index(
        op.f("ix_lifecycle_audit_events_actor_recorded_at"),
        "lifecycle_audit_events",
        ["actor", "recorded_at"],
        unique=False,
    )
    op.create_index(
        op.f("ix_lifecycle_audit_events_command_id"),
        "lifecycle_audit_events",
        ["command_id"],
        unique=False,
        sqlite_where=sa.text("command_id IS NOT NULL"),
        postgresql_where=sa.text("command_id IS NOT NULL"),
    )
    op.create_index(
        op.f("ix_lifecycle_audit_events_command_recorded_at"),
        "lifecycle_audit_events",
        ["command", "recorded_at"],
        unique=False,
        sqlite_where=sa.text("command IS NOT NULL"),
        postgresql_where=sa.text("command IS NOT NULL"),
    )
    op.create_index(
        op.f("ix_lifecycle_audit_events_event_recorded_at"),
        "lifecycle_audit_events",
        ["event", "recorded_at"],
        unique=False,
    )
    op.create_index(
        "ix_lifecycle_audit_events_not_conforming",
        "lifecycle_audit_events",
        ["seq"],
        unique=False,
        sqlite_where=sa.text("conforming = 0"),
        postgresql_where=sa.text("NOT conforming"),
    )
    op.create_index(
        op.f("ix_lifecycle_audit_events_outcome_recorded_at"),
        "lifecycle_audit_events",
        ["outcome", "recorded_at"],
        unique=False,
        sqlite_where=sa.text("outcome IS NOT NULL"),
        postgresql_where=sa.text("outcome IS NOT NULL"),
    )
    op.create_index(
        op.f("ix_lifecycle_audit_events_provider_location_id_recorded_at"),
        "lifecycle_audit_events",
        ["provider_location_id", "recorded_at"],
        unique=False,
        sqlite_where=sa.text("provider_location_id IS NOT NULL"),
        postgresql_where=sa.text("provider_location_id IS NOT NULL"),
    )
    op.create_index(
        op.f("ix_lifecycle_audit_events_recorded_at"), "lifecycle_audit_events", ["recorded_at"], unique=False
    )
    op.create_index(
        op.f("ix_lifecycle_audit_events_source_recorded_at"),
        "lifecycle_audit_events",
        ["source", "recorded_at"],
        unique=False,
    )
    op.create_index(
        op.f("ix_lifecycle_audit_events_to_status_recorded_at"),
        "lifecycle_audit_events",
        ["to_status", "recorded_at"],
        unique=False,
    )
    is_postgres = op.get_context().dialect.name == "postgresql"
    triggers = _POSTGRES_TRIGGERS + _POSTGRES_COUNTS if is_postgres else _SQLITE_TRIGGERS + _SQLITE_COUNTS
    for statement in triggers:
        op.execute(statement)


def downgrade() -> None:
    """Remove everything, the trail included."""
    op.drop_table("lifecycle_audit_events")
    op.drop_table("lifecycle_commands")
    op.drop_table("lifecycle_batch_counts")
    op.drop_table("lifecycle_batch_errors")
    op.drop_table("lifecycle_batches")
    op.drop_table("lifecycle_webhook_deliveries")
    op.drop_table("lifecycle_sync_cursors")
    op.drop_table("lifecycle_installation")
    op.drop_table("lifecycle_appointments")
    if op.get_context().dialect.name == "postgresql":
        op.execute("DROP FUNCTION lifecycle_audit_refuse()")
        op.execute("DROP FUNCTION lifecycle_audit_next()")
        op.execute("DROP FUNCTION lifecycle_batch_count()")
