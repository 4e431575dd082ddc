"""The views for analysts: what a row of each is, and the SQL behind it; the same names and columns on both databases.

Most views are made of audit events. Their SQL names the table of these `{events}`, so that a part of them can be put
there, as `reports.selection` does: a filter must choose events before they are counted. What a row is compared with
(the end of a stay, the calls of a command) is looked up in the whole trail all the same. The views of appointments as
they stand and of batches are made of other tables: their `comparisons` say which filters they know.

Weeks begin on Monday, UTC. A *move* is an event after which the status or the start of the visit is another one.
Where a row's command or appointment is to lead to its events, `coalesce` keeps SQLite, which knows nothing about the
values, from reading all events of a kind instead. `SECONDS`, `WEEK`, `HAS_NEW_START`, `QUEUED_AT` and `POSITIVE` in
the SQL are written out for each database by `select`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa

from lifecycle.columns import Json, UtcDateTime

if TYPE_CHECKING:
    from collections.abc import Mapping

EVENTS: Final = "lifecycle_audit_events"

metadata: Final = sa.MetaData()
"""The views' own: migrations make and compare the tables of `models` only."""


@dataclass(frozen=True, slots=True)
class View:
    """A view: its columns with types and comments, its SQL, and the columns that sort its rows and tell them apart.

    `comparisons`: the filters that a view knows which is not made of audit events, the column that each compares, and
    how; None: it is made of them, and all filters choose among them.
    """

    table: sa.Table
    sql: str
    order: tuple[str, ...]
    comparisons: Mapping[str, tuple[str, str]] | None = field(default=None, hash=False)

    @property
    def name(self) -> str:
        """The name in the database."""
        return str(self.table.name)

    def select(self, dialect: str, *, events: str = EVENTS) -> str:
        """Write the SELECT for `sqlite` or `postgresql`, over the audit events or a subquery of them."""
        text = self.sql.format(events=events)
        for pattern, replacement in _WRITTEN_OUT[dialect]:
            text = pattern.sub(replacement, text)
        return text


_WRITTEN_OUT: Final[Mapping[str, tuple[tuple[re.Pattern[str], str], ...]]] = {
    "sqlite": (
        (
            # Whole seconds and microseconds apart: SQLite's own functions round to milliseconds.
            re.compile(r"SECONDS\((\S+), (\S+)\)"),
            (
                r"(strftime('%s', substr(\2, 1, 19)) - strftime('%s', substr(\1, 1, 19))"
                r" + (substr(\2, 21, 6) - substr(\1, 21, 6)) / 1000000.0)"
            ),
        ),
        (re.compile(r"WEEK\((\S+)\)"), r"date(substr(\1, 1, 10), 'weekday 0', '-6 days')"),
        (re.compile(r"HAS_NEW_START\((\w+)\)"), r"json_extract(\1.details, '$.start_time') IS NOT NULL"),
        (re.compile(r"QUEUED_AT\((\w+)\)"), r"json_extract(\1.details, '$.queued_at')"),
        (re.compile(r"POSITIVE\("), "max(0.0, "),
    ),
    "postgresql": (
        (re.compile(r"SECONDS\((\S+), (\S+)\)"), r"CAST(EXTRACT(EPOCH FROM \2 - \1) AS double precision)"),
        (re.compile(r"WEEK\((\S+)\)"), r"CAST(date_trunc('week', \1 AT TIME ZONE 'UTC') AS date)"),
        (re.compile(r"HAS_NEW_START\((\w+)\)"), r"\1.details ->> 'start_time' IS NOT NULL"),
        (re.compile(r"QUEUED_AT\((\w+)\)"), r"CAST(\1.details ->> 'queued_at' AS timestamptz)"),
        (re.compile(r"POSITIVE\("), "greatest(0.0, "),
    ),
}

_MOVED: Final = "e.appointment_seq > 1 AND (e.from_status <> e.to_status OR HAS_NEW_START(e))"
_STATES: Final = (
    *("queued", "sending", "uncertain", "applied", "rejected"),
    *("not_sent", "refused", "withdrawn", "expired", "needs_attention"),
)
_TEXT: Final = sa.String()
_COUNT: Final = sa.BigInteger()
_SECONDS: Final = sa.Float()
_FLAG: Final = sa.Boolean()

_APPOINTMENT: Final = ("appointment_id", _TEXT, "Zocdoc's appointment id")
_LOCATION: Final = (
    "provider_location_id",
    _TEXT,
    "Where the visit was to be at that time: Zocdoc's pr_...|lo_... id; NULL: not told",
)
_PRACTICE: Final = ("practice_id", _TEXT, "Zocdoc's practice id; NULL: not told")
_VISIT_REASON: Final = ("visit_reason_id", _TEXT, "Zocdoc's visit reason id; NULL: not told")
_COMMAND: Final = ("command", _TEXT, "The command that did it; NULL: none, Zocdoc or the provider did")
_BATCH: Final = ("batch_id", _TEXT, "The batch")
_REASON_TYPE: Final = ("reason_type", _TEXT, "Zocdoc's cancellation_reason_type; NULL: none given, or not ours")
_ACTOR: Final = ("actor", _TEXT, "Who asked: user:17, job:nightly")
_SOURCE: Final = ("source", _TEXT, "How it came in: api, cli, webhook, sync, recovery or operator")
_SEQ: Final = ("seq", _COUNT, "seq of the audit event")
_WEEK: Final = ("week", sa.Date(), "The Monday that the week begins with, UTC")


def _table(name: str, comment: str, *columns: tuple[str, Any, str]) -> sa.Table:
    made = (sa.Column(column, kind, comment=text) for column, kind, text in columns)
    return sa.Table(f"lifecycle_{name}", metadata, *made, comment=comment)


event_log: Final = View(
    _table(
        "event_log",
        "One row for each audit event, with what is known of its appointment",
        _SEQ,
        _APPOINTMENT,
        ("appointment_seq", sa.Integer(), "1, 2, 3, ... within the appointment"),
        ("recorded_at", UtcDateTime(), "When it was recorded here, UTC"),
        ("occurred_at", UtcDateTime(), "When it happened at Zocdoc, UTC, if told; else NULL"),
        ("event", _TEXT, "What happened, in the past tense"),
        ("command", _TEXT, "The command it belongs to; NULL: none, Zocdoc reported it"),
        ("from_status", _TEXT, "Status before; NULL: the first event"),
        ("to_status", _TEXT, "Status after"),
        ("moved", _FLAG, "True: the status or the start of the visit is another one after it"),
        ("conforming", _FLAG, "False: the chart has no such move"),
        ("outcome", _TEXT, "applied, rejected, not_sent, unknown, refused; NULL: not an outcome"),
        ("reason_code", _TEXT, "Why; NULL: nothing to add"),
        _REASON_TYPE,
        _ACTOR,
        _SOURCE,
        _LOCATION,
        _PRACTICE,
        _VISIT_REASON,
        ("booked_with", _TEXT, "Identity of the credential that booked: machine, or user:ID"),
        ("command_id", _TEXT, "The command; NULL: none"),
        ("delivery_id", _TEXT, "The webhook delivery it came from; NULL: none"),
        ("zocdoc_request_id", _TEXT, "Zocdoc's request_id; NULL: none"),
        ("http_status", sa.Integer(), "HTTP status of the answer; NULL: no answer"),
        ("duration_ms", sa.Integer(), "How long the call took, milliseconds; NULL: no call"),
        ("details", Json, "What else is known, JSON: codes, times and column names"),
    ),
    f"""
SELECT e.seq, e.appointment_id, e.appointment_seq, e.recorded_at, e.occurred_at, e.event, e.command, e.from_status,
  e.to_status, ({_MOVED}) AS moved, e.conforming, e.outcome, e.reason_code, e.reason_type, e.actor, e.source,
  e.provider_location_id, a.practice_id, a.visit_reason_id, a.booked_with, e.command_id, e.delivery_id,
  e.zocdoc_request_id, e.http_status, e.duration_ms, e.details
FROM {{events}} e JOIN lifecycle_appointments a ON a.appointment_id = e.appointment_id
""",  # noqa: S608 # constants
    ("seq",),
)

current_status: Final = View(
    _table(
        "current_status",
        "One row for each appointment as it stands now",
        _APPOINTMENT,
        ("status", _TEXT, "The status"),
        ("status_known", _FLAG, "False: a status that this version does not know"),
        ("status_since", UtcDateTime(), "When that status was recorded here, UTC"),
        ("in_doubt", _FLAG, "True: a command on it is uncertain or needs attention"),
        ("start_time", UtcDateTime(), "Start of the visit, UTC"),
        ("provider_location_id", _TEXT, "Where the visit is to be: Zocdoc's pr_...|lo_... id; NULL: not told"),
        _PRACTICE,
        _VISIT_REASON,
        ("booked_with", _TEXT, "Identity of the credential that booked: machine, or user:ID"),
        ("confirmation_type", _TEXT, "auto, manual or pending_evaluation; NULL: not told"),
        ("booked_at", UtcDateTime(), "When it was booked at Zocdoc, UTC; NULL: not told"),
        ("tracked_at", UtcDateTime(), "Since when it is followed here, UTC"),
        ("arrived_at", UtcDateTime(), "When an arrival was marked here, UTC; NULL: not marked"),
        ("events", sa.Integer(), "How many audit events it has"),
        ("last_event", _TEXT, "The newest audit event"),
        ("last_event_at", UtcDateTime(), "When that was recorded, UTC"),
        ("last_actor", _TEXT, "Who asked for it"),
    ),
    """
SELECT a.appointment_id, a.status, a.status_known, a.status_since, a.in_doubt, a.start_time, a.provider_location_id,
  a.practice_id, a.visit_reason_id, a.booked_with, a.confirmation_type, a.booked_at, a.tracked_at, a.arrived_at,
  h.appointment_seq AS events, h.event AS last_event, h.recorded_at AS last_event_at, h.actor AS last_actor
FROM lifecycle_appointments a JOIN lifecycle_audit_events h ON h.appointment_id = a.appointment_id
  AND h.appointment_seq = (
    SELECT max(m.appointment_seq) FROM lifecycle_audit_events m WHERE m.appointment_id = a.appointment_id
  )
""",
    ("appointment_id",),
    {name: (name, "=") for name in ("appointment_id", "status", "provider_location_id")},
)

time_in_status: Final = View(
    _table(
        "time_in_status",
        "One row for each stay of an appointment in a status",
        ("seq", _COUNT, "seq of the audit event that entered the status"),
        _APPOINTMENT,
        ("status", _TEXT, "The status"),
        ("entered_at", UtcDateTime(), "When it was recorded that it began, UTC"),
        ("left_at", UtcDateTime(), "When the next status was recorded, UTC; NULL: it lasts"),
        ("seconds", _SECONDS, "How long it stood; NULL: it lasts"),
        ("entered_by", _TEXT, "The command that moved it there; NULL: Zocdoc or the provider did, or the first event"),
        ("left_to", _TEXT, "The next status; NULL: it lasts"),
        ("left_by", _TEXT, "The command that ended it; NULL: Zocdoc or the provider did, or it lasts"),
        _LOCATION,
    ),
    """
SELECT e.seq, e.appointment_id, e.to_status AS status, e.recorded_at AS entered_at, n.recorded_at AS left_at,
  SECONDS(e.recorded_at, n.recorded_at) AS seconds, e.command AS entered_by, n.to_status AS left_to,
  n.command AS left_by, e.provider_location_id
FROM {events} e LEFT JOIN lifecycle_audit_events n ON n.appointment_id = e.appointment_id
  AND n.appointment_seq = (
    SELECT min(m.appointment_seq) FROM lifecycle_audit_events m
    WHERE m.appointment_id = e.appointment_id AND m.appointment_seq > e.appointment_seq
      AND m.from_status <> m.to_status
  )
WHERE e.from_status IS NULL OR e.from_status <> e.to_status
""",
    ("seq",),
)

transitions: Final = View(
    _table(
        "transitions",
        "One row for each kind of move: how often, and how long the status before had stood",
        ("from_status", _TEXT, "Status before"),
        ("to_status", _TEXT, "Status after; the same: the visit was moved to another time"),
        _COMMAND,
        ("conforming", _FLAG, "False: the chart has no such move"),
        ("transitions", _COUNT, "How often"),
        ("median_seconds", _SECONDS, "Median of how long from_status had stood, seconds, interpolated"),
        ("p90_seconds", _SECONDS, "90th percentile of the same"),
    ),
    f"""
SELECT from_status, to_status, command, conforming, count(*) AS transitions,
  sum(seconds * POSITIVE(1 - abs(place - 0.5 * last))) AS median_seconds,
  sum(seconds * POSITIVE(1 - abs(place - 0.9 * last))) AS p90_seconds
FROM (
  SELECT from_status, to_status, command, conforming, seconds,
    row_number() OVER (PARTITION BY from_status, to_status, command, conforming ORDER BY seconds) - 1 AS place,
    count(*) OVER (PARTITION BY from_status, to_status, command, conforming) - 1 AS last
  FROM (
    SELECT e.from_status, e.to_status, e.command, e.conforming,
      SECONDS(e.from_status_since, e.recorded_at) AS seconds
    FROM {{events}} e WHERE {_MOVED}
  ) moves
) placed
GROUP BY from_status, to_status, command, conforming
""",  # noqa: S608 # constants
    ("from_status", "to_status", "command", "conforming"),
)

funnel: Final = View(
    _table(
        "funnel",
        "For the appointments tracked in each week: how many came how far, until now",
        ("week", sa.Date(), "The Monday that the week of their first event begins with, UTC"),
        ("position", sa.Integer(), "Order of the steps"),
        ("step", _TEXT, "tracked, confirmed, rescheduled, arrived, no_show, cancelled or booking_failed, ever"),
        ("appointments", _COUNT, "How many came to it"),
        ("share", _SECONDS, "The same as a part of those tracked, 0 to 1"),
    ),
    """
SELECT week, position, step, appointments, CAST(appointments AS double precision) / tracked AS share
FROM (
  SELECT week, tracked, position, step, CASE position WHEN 1 THEN tracked WHEN 2 THEN confirmed WHEN 3 THEN rescheduled
    WHEN 4 THEN arrived WHEN 5 THEN no_show WHEN 6 THEN cancelled ELSE booking_failed END AS appointments
  FROM (
    SELECT week, count(*) AS tracked, sum(confirmed) AS confirmed, sum(rescheduled) AS rescheduled,
      sum(arrived) AS arrived, sum(no_show) AS no_show, sum(cancelled) AS cancelled,
      sum(booking_failed) AS booking_failed
    FROM (
      SELECT WEEK(e.recorded_at) AS week, x.appointment_id,
        max(CASE WHEN x.to_status = 'confirmed' THEN 1 ELSE 0 END) AS confirmed,
        max(CASE WHEN x.appointment_seq > 1 AND HAS_NEW_START(x) THEN 1 ELSE 0 END) AS rescheduled,
        max(CASE WHEN x.event = 'arrival_marked' THEN 1 ELSE 0 END) AS arrived,
        max(CASE WHEN x.to_status = 'no_show' THEN 1 ELSE 0 END) AS no_show,
        max(CASE WHEN x.to_status = 'cancelled' THEN 1 ELSE 0 END) AS cancelled,
        max(CASE WHEN x.to_status = 'booking_failed' THEN 1 ELSE 0 END) AS booking_failed
      FROM {events} e JOIN lifecycle_audit_events x ON x.appointment_id = e.appointment_id
      WHERE e.appointment_seq = 1
      GROUP BY WEEK(e.recorded_at), x.appointment_id
    ) each_appointment
    GROUP BY week
  ) each_week
  CROSS JOIN (
    SELECT 1 AS position, 'tracked' AS step UNION ALL SELECT 2, 'confirmed' UNION ALL SELECT 3, 'rescheduled'
    UNION ALL SELECT 4, 'arrived' UNION ALL SELECT 5, 'no_show' UNION ALL SELECT 6, 'cancelled'
    UNION ALL SELECT 7, 'booking_failed'
  ) steps
) each_step
""",
    ("week", "position"),
)

cancellations: Final = View(
    _table(
        "cancellations",
        "How many appointments were cancelled in each week, why, and by whom",
        _WEEK,
        _REASON_TYPE,
        _ACTOR,
        _SOURCE,
        _COMMAND,
        ("cancellations", _COUNT, "How many"),
    ),
    """
SELECT WEEK(e.recorded_at) AS week, e.reason_type, e.actor, e.source, e.command, count(*) AS cancellations
FROM {events} e WHERE e.to_status = 'cancelled' AND e.from_status <> 'cancelled'
GROUP BY WEEK(e.recorded_at), e.reason_type, e.actor, e.source, e.command
""",
    ("week", "reason_type", "actor", "source", "command"),
)

refusals: Final = View(
    _table(
        "refusals",
        "What was tried and not done: refused here before anything was sent, or rejected by Zocdoc",
        ("command", _TEXT, "What was tried"),
        ("status", _TEXT, "The status that the appointment had"),
        ("refused_by", _TEXT, "guard: refused here, nothing was sent; zocdoc: it said no"),
        ("reason_code", _TEXT, "Why"),
        ("http_status", sa.Integer(), "HTTP status of Zocdoc's no; NULL: refused here"),
        ("tries", _COUNT, "How often"),
        ("appointments", _COUNT, "On how many appointments"),
        ("actors", _COUNT, "By how many actors"),
        ("first_at", UtcDateTime(), "When first, UTC"),
        ("last_at", UtcDateTime(), "When last, UTC"),
    ),
    """
SELECT e.command, e.from_status AS status, CASE e.event WHEN 'command_refused' THEN 'guard' ELSE 'zocdoc' END
    AS refused_by, e.reason_code, e.http_status, count(*) AS tries, count(DISTINCT e.appointment_id) AS appointments,
  count(DISTINCT e.actor) AS actors, min(e.recorded_at) AS first_at, max(e.recorded_at) AS last_at
FROM {events} e WHERE e.event IN ('command_refused', 'command_rejected')
GROUP BY e.command, e.from_status, e.event, e.reason_code, e.http_status
""",
    ("command", "status", "refused_by", "reason_code", "http_status"),
)

command_outcomes: Final = View(
    _table(
        "command_outcomes",
        "One row for each accepted command: how it ended, after how long and how many attempts. What was submitted and "
        "never accepted is in lifecycle_event_log, and in lifecycle_batch_rows if it belonged to a batch",
        ("command_id", _TEXT, "The command"),
        _APPOINTMENT,
        ("command", _TEXT, "confirm, cancel, reschedule, mark_arrived, mark_no_show"),
        _ACTOR,
        _SOURCE,
        ("batch_id", _TEXT, "The batch it was submitted with; NULL: called or submitted alone"),
        ("batch_row", sa.Integer(), "Its row of the batch's input, from 1; NULL: not in a batch"),
        _LOCATION,
        _REASON_TYPE,
        ("state", _TEXT, "Where it stands: applied, rejected, not_sent, uncertain, needs_attention, ..."),
        ("outcome", _TEXT, "The last attempt's: applied, rejected, not_sent, unknown; NULL: none yet"),
        ("reason_code", _TEXT, "Why; NULL: nothing to add"),
        ("http_status", sa.Integer(), "HTTP status of the last answer; NULL: no answer"),
        ("attempts", sa.Integer(), "How many attempts were made"),
        ("call_ms", _COUNT, "How long its calls took together, milliseconds; NULL: none was answered"),
        ("queued_at", UtcDateTime(), "When it was submitted, UTC; NULL: it was called synchronously"),
        ("queue_seconds", _SECONDS, "From submitted to accepted; NULL: it was called synchronously"),
        ("accepted_at", UtcDateTime(), "When it was accepted, UTC: the checks had passed, and it was about to be sent"),
        ("ended_at", UtcDateTime(), "When it ended, UTC; NULL: not yet"),
        ("seconds", _SECONDS, "From accepted to ended; NULL: not yet"),
        ("was_unknown", _FLAG, "True: an answer was lost"),
        ("was_recovered", _FLAG, "True: an answer was lost, and reading alone settled the command"),
        ("needed_attention", _FLAG, "True: reading could not settle it, a human was asked"),
    ),
    """
SELECT c.command_id, c.appointment_id, c.command, c.actor, c.source, c.batch_id, c.batch_row, e.provider_location_id,
  e.reason_type, c.state, c.outcome, c.reason_code, c.http_status, c.attempt AS attempts,
  (SELECT sum(x.duration_ms) FROM lifecycle_audit_events x WHERE x.command_id = c.command_id) AS call_ms,
  QUEUED_AT(e) AS queued_at, SECONDS(QUEUED_AT(e), e.recorded_at) AS queue_seconds,
  e.recorded_at AS accepted_at, c.ended_at, SECONDS(e.recorded_at, c.ended_at) AS seconds,
  EXISTS (
    SELECT 1 FROM lifecycle_audit_events x
    WHERE x.command_id = c.command_id AND coalesce(x.event, '') = 'outcome_lost'
  ) AS was_unknown,
  c.state IN ('applied', 'rejected', 'not_sent') AND EXISTS (
    SELECT 1 FROM lifecycle_audit_events x
    WHERE x.command_id = c.command_id AND coalesce(x.event, '') = 'outcome_lost'
  ) AND NOT EXISTS (
    SELECT 1 FROM lifecycle_audit_events x
    WHERE x.command_id = c.command_id AND coalesce(x.event, '') = 'attention_needed'
  ) AS was_recovered,
  EXISTS (
    SELECT 1 FROM lifecycle_audit_events x
    WHERE x.command_id = c.command_id AND coalesce(x.event, '') = 'attention_needed'
  ) AS needed_attention
FROM lifecycle_commands c JOIN {events} e ON e.command_id = c.command_id
WHERE coalesce(e.event, '') = 'command_accepted'
""",
    ("accepted_at", "command_id"),
)

batch_outcomes: Final = View(
    _table(
        "batch_outcomes",
        "One row for each batch of submitted commands: how many of its rows are in each state by now",
        _BATCH,
        ("name", _TEXT, "What its submitter calls it; NULL: nothing"),
        ("command", _TEXT, "The command of all its rows; NULL: each row has its own"),
        _ACTOR,
        _SOURCE,
        ("total", sa.Integer(), "Rows of the input that were taken so far"),
        ("invalid", sa.Integer(), "Those of them that could not become commands"),
        *((state, _COUNT, f"Commands that are {state}") for state in _STATES),
        ("created_at", UtcDateTime(), "When its submission began, UTC"),
        ("submitted_at", UtcDateTime(), "When all its rows were taken, UTC; NULL: not yet, or it was cut off"),
        ("cancelled_at", UtcDateTime(), "When what was still queued was withdrawn, UTC; NULL: never"),
        ("is_finished", _FLAG, "True: no more rows will come, and none is queued, sending or uncertain"),
    ),
    f"""
SELECT b.batch_id, b.name, b.command, b.actor, b.source, b.total, b.invalid,
  {", ".join(f"coalesce(n.{state}, 0) AS {state}" for state in _STATES)},
  b.created_at, b.submitted_at, b.cancelled_at, coalesce(b.submitted_at, b.cancelled_at) IS NOT NULL
    AND coalesce(n.queued, 0) + coalesce(n.sending, 0) + coalesce(n.uncertain, 0) = 0 AS is_finished
FROM lifecycle_batches b LEFT JOIN (
  SELECT m.batch_id, {", ".join(f"sum(m.{state}) AS {state}" for state in _STATES)}
  FROM lifecycle_batch_counts m GROUP BY m.batch_id
) n ON n.batch_id = b.batch_id
""",  # noqa: S608 # constants
    ("created_at", "batch_id"),
    {
        **{name: (name, "=") for name in ("command", "actor", "source")},
        "since": ("created_at", ">="),
        "until": ("created_at", "<"),
    },
)

batch_rows: Final = View(
    _table(
        "batch_rows",
        "One row for each row of each batch's input, and what has become of it by now",
        _BATCH,
        ("batch_row", sa.Integer(), "The row of the batch's input, from 1"),
        ("appointment_id", _TEXT, "Zocdoc's appointment id; NULL: the row names none that is well-formed"),
        ("command", _TEXT, "The command; NULL: the row names none that there is"),
        ("command_id", _TEXT, "The command; NULL: the row could not become one"),
        ("state", _TEXT, "Where it stands: queued, applied, refused, withdrawn, ...; invalid: no command"),
        ("reason_code", _TEXT, "Why; NULL: nothing to add"),
        ("http_status", sa.Integer(), "HTTP status of the last answer; NULL: no answer"),
        ("zocdoc_request_id", _TEXT, "Zocdoc's request_id; NULL: none"),
        ("attempts", sa.Integer(), "How many attempts were made"),
        ("queued_at", UtcDateTime(), "When it was submitted, UTC; NULL: invalid, or sent once more by an operator"),
        ("ended_at", UtcDateTime(), "When it ended, UTC; NULL: not yet, or invalid"),
    ),
    """
SELECT c.batch_id, c.batch_row, c.appointment_id, c.command, c.command_id, c.state, c.reason_code, c.http_status,
  c.zocdoc_request_id, c.attempt AS attempts, c.queued_at, c.ended_at
FROM lifecycle_commands c WHERE c.batch_id IS NOT NULL
UNION ALL
SELECT x.batch_id, x.batch_row, x.appointment_id, x.command, NULL, 'invalid', x.reason_code, NULL, NULL, 0, NULL, NULL
FROM lifecycle_batch_errors x
""",
    ("batch_id", "batch_row"),
    {name: (name, "=") for name in ("appointment_id", "command")},
)

process_log: Final = View(
    _table(
        "process_log",
        "The audit events under the names that process-mining tools expect (XES)",
        _SEQ,
        ("case:concept:name", _TEXT, "The case: Zocdoc's appointment id"),
        ("concept:name", _TEXT, "The activity: cancel: applied, zocdoc: confirmed, tracked: pending_booking, ..."),
        ("time:timestamp", UtcDateTime(), "When it was recorded here, UTC"),
        ("org:resource", _TEXT, "The actor"),
        ("source", _TEXT, "How it came in: api, cli, webhook, sync, recovery or operator"),
        ("status", _TEXT, "The status after it"),
        _LOCATION,
    ),
    """
SELECT e.seq, e.appointment_id AS "case:concept:name",
  CASE
    WHEN e.command IS NOT NULL THEN e.command || ': ' || replace(e.event, 'command_', '')
    WHEN e.from_status IS NULL THEN 'tracked: ' || e.to_status
    WHEN e.from_status <> e.to_status THEN 'zocdoc: ' || e.to_status
    WHEN HAS_NEW_START(e) THEN 'zocdoc: visit moved'
    ELSE 'zocdoc: details changed'
  END AS "concept:name",
  e.recorded_at AS "time:timestamp", e.actor AS "org:resource", e.source, e.to_status AS status,
  e.provider_location_id
FROM {events} e
""",
    ("seq",),
)

ALL: Final = (
    event_log,
    current_status,
    time_in_status,
    transitions,
    funnel,
    cancellations,
    refusals,
    command_outcomes,
    batch_outcomes,
    batch_rows,
    process_log,
)
BY_NAME: Final[Mapping[str, View]] = {view.name: view for view in ALL}
