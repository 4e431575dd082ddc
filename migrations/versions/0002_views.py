"""The views for analysts, as `lifecycle/views.py` defines them at this revision.

The SQL is a copy: what a database at this revision has must not change when the code does. A test holds both equal.

Revision ID: 0002
Revises: 0001
"""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_SQLITE: Final = {
    "lifecycle_event_log": """
SELECT e.seq, e.appointment_id, e.appointment_seq, e.recorded_at, e.occurred_at, e.event, e.command, e.from_status,
  e.to_status, (e.appointment_seq > 1 AND (e.from_status <> e.to_status OR json_extract(e.details, '$.start_time')
    IS NOT NULL)) AS moved, e.conforming, e.outcome, e.reason_code, e.reason_type, e.actor, e.source,
  e.provider_location_id, a.practice_id, a.visit_reason_id, a.booked_with, e.command_id, e.delivery_id,
  e.zocdoc_request_id, e.http_status, e.duration_ms, e.details
FROM lifecycle_audit_events e JOIN lifecycle_appointments a ON a.appointment_id = e.appointment_id
""",
    "lifecycle_current_status": """
SELECT a.appointment_id, a.status, a.status_known, a.status_since, a.in_doubt, a.start_time, a.provider_location_id,
  a.practice_id, a.visit_reason_id, a.booked_with, a.confirmation_type, a.booked_at, a.tracked_at, a.arrived_at,
  h.appointment_seq AS events, h.event AS last_event, h.recorded_at AS last_event_at, h.actor AS last_actor
FROM lifecycle_appointments a JOIN lifecycle_audit_events h ON h.appointment_id = a.appointment_id
  AND h.appointment_seq = (
    SELECT max(m.appointment_seq) FROM lifecycle_audit_events m WHERE m.appointment_id = a.appointment_id
  )
""",
    "lifecycle_time_in_status": """
SELECT e.seq, e.appointment_id, e.to_status AS status, e.recorded_at AS entered_at, n.recorded_at AS left_at,
  (strftime('%s', substr(n.recorded_at, 1, 19)) - strftime('%s', substr(e.recorded_at, 1, 19)) +
    (substr(n.recorded_at, 21, 6) - substr(e.recorded_at, 21, 6)) / 1000000.0) AS seconds, e.command AS entered_by,
    n.to_status AS left_to,
  n.command AS left_by, e.provider_location_id
FROM lifecycle_audit_events e LEFT JOIN lifecycle_audit_events n ON n.appointment_id = e.appointment_id
  AND n.appointment_seq = (
    SELECT min(m.appointment_seq) FROM lifecycle_audit_events m
    WHERE m.appointment_id = e.appointment_id AND m.appointment_seq > e.appointment_seq
      AND m.from_status <> m.to_status
  )
WHERE e.from_status IS NULL OR e.from_status <> e.to_status
""",
    "lifecycle_transitions": """
SELECT from_status, to_status, command, conforming, count(*) AS transitions,
  sum(seconds * max(0.0, 1 - abs(place - 0.5 * last))) AS median_seconds,
  sum(seconds * max(0.0, 1 - abs(place - 0.9 * last))) AS p90_seconds
FROM (
  SELECT from_status, to_status, command, conforming, seconds,
    row_number() OVER (PARTITION BY from_status, to_status, command, conforming ORDER BY seconds) - 1 AS place,
    count(*) OVER (PARTITION BY from_status, to_status, command, conforming) - 1 AS last
  FROM (
    SELECT e.from_status, e.to_status, e.command, e.conforming,
      (strftime('%s', substr(e.recorded_at, 1, 19)) - strftime('%s', substr(e.from_status_since, 1, 19)) +
    (substr(e.recorded_at, 21, 6) - substr(e.from_status_since, 21, 6)) / 1000000.0) AS seconds
    FROM lifecycle_audit_events e WHERE e.appointment_seq > 1 AND (e.from_status <> e.to_status OR
    json_extract(e.details, '$.start_time') IS NOT NULL)
  ) moves
) placed
GROUP BY from_status, to_status, command, conforming
""",
    "lifecycle_funnel": """
SELECT week, position, step, appointments, CAST(appointments AS double precision) / tracked AS share
FROM (
  SELECT week, tracked, position, step, CASE position WHEN 1 THEN tracked WHEN 2 THEN confirmed WHEN 3 THEN
    rescheduled
    WHEN 4 THEN arrived WHEN 5 THEN no_show WHEN 6 THEN cancelled ELSE booking_failed END AS appointments
  FROM (
    SELECT week, count(*) AS tracked, sum(confirmed) AS confirmed, sum(rescheduled) AS rescheduled,
      sum(arrived) AS arrived, sum(no_show) AS no_show, sum(cancelled) AS cancelled,
      sum(booking_failed) AS booking_failed
    FROM (
      SELECT date(substr(e.recorded_at, 1, 10), 'weekday 0', '-6 days') AS week, x.appointment_id,
        max(CASE WHEN x.to_status = 'confirmed' THEN 1 ELSE 0 END) AS confirmed,
        max(CASE WHEN x.appointment_seq > 1 AND json_extract(x.details, '$.start_time') IS NOT NULL THEN 1 ELSE 0
    END) AS rescheduled,
        max(CASE WHEN x.event = 'arrival_marked' THEN 1 ELSE 0 END) AS arrived,
        max(CASE WHEN x.to_status = 'no_show' THEN 1 ELSE 0 END) AS no_show,
        max(CASE WHEN x.to_status = 'cancelled' THEN 1 ELSE 0 END) AS cancelled,
        max(CASE WHEN x.to_status = 'booking_failed' THEN 1 ELSE 0 END) AS booking_failed
      FROM lifecycle_audit_events e JOIN lifecycle_audit_events x ON x.appointment_id = e.appointment_id
      WHERE e.appointment_seq = 1
      GROUP BY date(substr(e.recorded_at, 1, 10), 'weekday 0', '-6 days'), x.appointment_id
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
    "lifecycle_cancellations": """
SELECT date(substr(e.recorded_at, 1, 10), 'weekday 0', '-6 days') AS week, e.reason_type, e.actor, e.source,
    e.command, count(*) AS cancellations
FROM lifecycle_audit_events e WHERE e.to_status = 'cancelled' AND e.from_status <> 'cancelled'
GROUP BY date(substr(e.recorded_at, 1, 10), 'weekday 0', '-6 days'), e.reason_type, e.actor, e.source, e.command
""",
    "lifecycle_refusals": """
SELECT e.command, e.from_status AS status, CASE e.event WHEN 'command_refused' THEN 'guard' ELSE 'zocdoc' END
    AS refused_by, e.reason_code, e.http_status, count(*) AS tries, count(DISTINCT e.appointment_id) AS appointments,
  count(DISTINCT e.actor) AS actors, min(e.recorded_at) AS first_at, max(e.recorded_at) AS last_at
FROM lifecycle_audit_events e WHERE e.event IN ('command_refused', 'command_rejected')
GROUP BY e.command, e.from_status, e.event, e.reason_code, e.http_status
""",
    "lifecycle_command_outcomes": """
SELECT c.command_id, c.appointment_id, c.command, c.actor, c.source, c.batch_id, c.batch_row, e.provider_location_id,
  e.reason_type, c.state, c.outcome, c.reason_code, c.http_status, c.attempt AS attempts,
  (SELECT sum(x.duration_ms) FROM lifecycle_audit_events x WHERE x.command_id = c.command_id) AS call_ms,
  json_extract(e.details, '$.queued_at') AS queued_at, (strftime('%s', substr(e.recorded_at, 1, 19)) -
    strftime('%s', substr(json_extract(e.details, '$.queued_at'), 1, 19)) + (substr(e.recorded_at, 21, 6) -
    substr(json_extract(e.details, '$.queued_at'), 21, 6)) / 1000000.0) AS queue_seconds,
  e.recorded_at AS accepted_at, c.ended_at, (strftime('%s', substr(c.ended_at, 1, 19)) - strftime('%s',
    substr(e.recorded_at, 1, 19)) + (substr(c.ended_at, 21, 6) - substr(e.recorded_at, 21, 6)) / 1000000.0) AS
    seconds,
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
FROM lifecycle_commands c JOIN lifecycle_audit_events e ON e.command_id = c.command_id
WHERE coalesce(e.event, '') = 'command_accepted'
""",
    "lifecycle_batch_outcomes": """
SELECT b.batch_id, b.name, b.command, b.actor, b.source, b.total, b.invalid,
  coalesce(n.queued, 0) AS queued, coalesce(n.sending, 0) AS sending, coalesce(n.uncertain, 0) AS uncertain,
    coalesce(n.applied, 0) AS applied, coalesce(n.rejected, 0) AS rejected, coalesce(n.not_sent, 0) AS not_sent,
    coalesce(n.refused, 0) AS refused, coalesce(n.withdrawn, 0) AS withdrawn, coalesce(n.expired, 0) AS expired,
    coalesce(n.needs_attention, 0) AS needs_attention,
  b.created_at, b.submitted_at, b.cancelled_at, coalesce(b.submitted_at, b.cancelled_at) IS NOT NULL
    AND coalesce(n.queued, 0) + coalesce(n.sending, 0) + coalesce(n.uncertain, 0) = 0 AS is_finished
FROM lifecycle_batches b LEFT JOIN (
  SELECT m.batch_id, sum(m.queued) AS queued, sum(m.sending) AS sending, sum(m.uncertain) AS uncertain,
    sum(m.applied) AS applied, sum(m.rejected) AS rejected, sum(m.not_sent) AS not_sent, sum(m.refused) AS refused,
    sum(m.withdrawn) AS withdrawn, sum(m.expired) AS expired, sum(m.needs_attention) AS needs_attention
  FROM lifecycle_batch_counts m GROUP BY m.batch_id
) n ON n.batch_id = b.batch_id
""",
    "lifecycle_batch_rows": """
SELECT c.batch_id, c.batch_row, c.appointment_id, c.command, c.command_id, c.state, c.reason_code, c.http_status,
  c.zocdoc_request_id, c.attempt AS attempts, c.queued_at, c.ended_at
FROM lifecycle_commands c WHERE c.batch_id IS NOT NULL
UNION ALL
SELECT x.batch_id, x.batch_row, x.appointment_id, x.command, NULL, 'invalid', x.reason_code, NULL, NULL, 0, NULL, NULL
FROM lifecycle_batch_errors x
""",
    "lifecycle_process_log": """
SELECT e.seq, e.appointment_id AS "case:concept:name",
  CASE
    WHEN e.command IS NOT NULL THEN e.command || ': ' || replace(e.event, 'command_', '')
    WHEN e.from_status IS NULL THEN 'tracked: ' || e.to_status
    WHEN e.from_status <> e.to_status THEN 'zocdoc: ' || e.to_status
    WHEN json_extract(e.details, '$.start_time') IS NOT NULL THEN 'zocdoc: visit moved'
    ELSE 'zocdoc: details changed'
  END AS "concept:name",
  e.recorded_at AS "time:timestamp", e.actor AS "org:resource", e.source, e.to_status AS status,
  e.provider_location_id
FROM lifecycle_audit_events e
""",
}

_POSTGRES: Final = {
    "lifecycle_event_log": """
SELECT e.seq, e.appointment_id, e.appointment_seq, e.recorded_at, e.occurred_at, e.event, e.command, e.from_status,
  e.to_status, (e.appointment_seq > 1 AND (e.from_status <> e.to_status OR e.details ->> 'start_time' IS NOT NULL))
    AS moved, e.conforming, e.outcome, e.reason_code, e.reason_type, e.actor, e.source,
  e.provider_location_id, a.practice_id, a.visit_reason_id, a.booked_with, e.command_id, e.delivery_id,
  e.zocdoc_request_id, e.http_status, e.duration_ms, e.details
FROM lifecycle_audit_events e JOIN lifecycle_appointments a ON a.appointment_id = e.appointment_id
""",
    "lifecycle_current_status": """
SELECT a.appointment_id, a.status, a.status_known, a.status_since, a.in_doubt, a.start_time, a.provider_location_id,
  a.practice_id, a.visit_reason_id, a.booked_with, a.confirmation_type, a.booked_at, a.tracked_at, a.arrived_at,
  h.appointment_seq AS events, h.event AS last_event, h.recorded_at AS last_event_at, h.actor AS last_actor
FROM lifecycle_appointments a JOIN lifecycle_audit_events h ON h.appointment_id = a.appointment_id
  AND h.appointment_seq = (
    SELECT max(m.appointment_seq) FROM lifecycle_audit_events m WHERE m.appointment_id = a.appointment_id
  )
""",
    "lifecycle_time_in_status": """
SELECT e.seq, e.appointment_id, e.to_status AS status, e.recorded_at AS entered_at, n.recorded_at AS left_at,
  CAST(EXTRACT(EPOCH FROM n.recorded_at - e.recorded_at) AS double precision) AS seconds, e.command AS entered_by,
    n.to_status AS left_to,
  n.command AS left_by, e.provider_location_id
FROM lifecycle_audit_events e LEFT JOIN lifecycle_audit_events n ON n.appointment_id = e.appointment_id
  AND n.appointment_seq = (
    SELECT min(m.appointment_seq) FROM lifecycle_audit_events m
    WHERE m.appointment_id = e.appointment_id AND m.appointment_seq > e.appointment_seq
      AND m.from_status <> m.to_status
  )
WHERE e.from_status IS NULL OR e.from_status <> e.to_status
""",
    "lifecycle_transitions": """
SELECT from_status, to_status, command, conforming, count(*) AS transitions,
  sum(seconds * greatest(0.0, 1 - abs(place - 0.5 * last))) AS median_seconds,
  sum(seconds * greatest(0.0, 1 - abs(place - 0.9 * last))) AS p90_seconds
FROM (
  SELECT from_status, to_status, command, conforming, seconds,
    row_number() OVER (PARTITION BY from_status, to_status, command, conforming ORDER BY seconds) - 1 AS place,
    count(*) OVER (PARTITION BY from_status, to_status, command, conforming) - 1 AS last
  FROM (
    SELECT e.from_status, e.to_status, e.command, e.conforming,
      CAST(EXTRACT(EPOCH FROM e.recorded_at - e.from_status_since) AS double precision) AS seconds
    FROM lifecycle_audit_events e WHERE e.appointment_seq > 1 AND (e.from_status <> e.to_status OR e.details ->>
    'start_time' IS NOT NULL)
  ) moves
) placed
GROUP BY from_status, to_status, command, conforming
""",
    "lifecycle_funnel": """
SELECT week, position, step, appointments, CAST(appointments AS double precision) / tracked AS share
FROM (
  SELECT week, tracked, position, step, CASE position WHEN 1 THEN tracked WHEN 2 THEN confirmed WHEN 3 THEN
    rescheduled
    WHEN 4 THEN arrived WHEN 5 THEN no_show WHEN 6 THEN cancelled ELSE booking_failed END AS appointments
  FROM (
    SELECT week, count(*) AS tracked, sum(confirmed) AS confirmed, sum(rescheduled) AS rescheduled,
      sum(arrived) AS arrived, sum(no_show) AS no_show, sum(cancelled) AS cancelled,
      sum(booking_failed) AS booking_failed
    FROM (
      SELECT CAST(date_trunc('week', e.recorded_at AT TIME ZONE 'UTC') AS date) AS week, x.appointment_id,
        max(CASE WHEN x.to_status = 'confirmed' THEN 1 ELSE 0 END) AS confirmed,
        max(CASE WHEN x.appointment_seq > 1 AND x.details ->> 'start_time' IS NOT NULL THEN 1 ELSE 0 END) AS
    rescheduled,
        max(CASE WHEN x.event = 'arrival_marked' THEN 1 ELSE 0 END) AS arrived,
        max(CASE WHEN x.to_status = 'no_show' THEN 1 ELSE 0 END) AS no_show,
        max(CASE WHEN x.to_status = 'cancelled' THEN 1 ELSE 0 END) AS cancelled,
        max(CASE WHEN x.to_status = 'booking_failed' THEN 1 ELSE 0 END) AS booking_failed
      FROM lifecycle_audit_events e JOIN lifecycle_audit_events x ON x.appointment_id = e.appointment_id
      WHERE e.appointment_seq = 1
      GROUP BY CAST(date_trunc('week', e.recorded_at AT TIME ZONE 'UTC') AS date), x.appointment_id
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
    "lifecycle_cancellations": """
SELECT CAST(date_trunc('week', e.recorded_at AT TIME ZONE 'UTC') AS date) AS week, e.reason_type, e.actor, e.source,
    e.command, count(*) AS cancellations
FROM lifecycle_audit_events e WHERE e.to_status = 'cancelled' AND e.from_status <> 'cancelled'
GROUP BY CAST(date_trunc('week', e.recorded_at AT TIME ZONE 'UTC') AS date), e.reason_type, e.actor, e.source,
    e.command
""",
    "lifecycle_refusals": """
SELECT e.command, e.from_status AS status, CASE e.event WHEN 'command_refused' THEN 'guard' ELSE 'zocdoc' END
    AS refused_by, e.reason_code, e.http_status, count(*) AS tries, count(DISTINCT e.appointment_id) AS appointments,
  count(DISTINCT e.actor) AS actors, min(e.recorded_at) AS first_at, max(e.recorded_at) AS last_at
FROM lifecycle_audit_events e WHERE e.event IN ('command_refused', 'command_rejected')
GROUP BY e.command, e.from_status, e.event, e.reason_code, e.http_status
""",
    "lifecycle_command_outcomes": """
SELECT c.command_id, c.appointment_id, c.command, c.actor, c.source, c.batch_id, c.batch_row, e.provider_location_id,
  e.reason_type, c.state, c.outcome, c.reason_code, c.http_status, c.attempt AS attempts,
  (SELECT sum(x.duration_ms) FROM lifecycle_audit_events x WHERE x.command_id = c.command_id) AS call_ms,
  CAST(e.details ->> 'queued_at' AS timestamptz) AS queued_at, CAST(EXTRACT(EPOCH FROM e.recorded_at -
    CAST(e.details ->> 'queued_at' AS timestamptz)) AS double precision) AS queue_seconds,
  e.recorded_at AS accepted_at, c.ended_at, CAST(EXTRACT(EPOCH FROM c.ended_at - e.recorded_at) AS double precision)
    AS seconds,
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
FROM lifecycle_commands c JOIN lifecycle_audit_events e ON e.command_id = c.command_id
WHERE coalesce(e.event, '') = 'command_accepted'
""",
    "lifecycle_batch_outcomes": """
SELECT b.batch_id, b.name, b.command, b.actor, b.source, b.total, b.invalid,
  coalesce(n.queued, 0) AS queued, coalesce(n.sending, 0) AS sending, coalesce(n.uncertain, 0) AS uncertain,
    coalesce(n.applied, 0) AS applied, coalesce(n.rejected, 0) AS rejected, coalesce(n.not_sent, 0) AS not_sent,
    coalesce(n.refused, 0) AS refused, coalesce(n.withdrawn, 0) AS withdrawn, coalesce(n.expired, 0) AS expired,
    coalesce(n.needs_attention, 0) AS needs_attention,
  b.created_at, b.submitted_at, b.cancelled_at, coalesce(b.submitted_at, b.cancelled_at) IS NOT NULL
    AND coalesce(n.queued, 0) + coalesce(n.sending, 0) + coalesce(n.uncertain, 0) = 0 AS is_finished
FROM lifecycle_batches b LEFT JOIN (
  SELECT m.batch_id, sum(m.queued) AS queued, sum(m.sending) AS sending, sum(m.uncertain) AS uncertain,
    sum(m.applied) AS applied, sum(m.rejected) AS rejected, sum(m.not_sent) AS not_sent, sum(m.refused) AS refused,
    sum(m.withdrawn) AS withdrawn, sum(m.expired) AS expired, sum(m.needs_attention) AS needs_attention
  FROM lifecycle_batch_counts m GROUP BY m.batch_id
) n ON n.batch_id = b.batch_id
""",
    "lifecycle_batch_rows": """
SELECT c.batch_id, c.batch_row, c.appointment_id, c.command, c.command_id, c.state, c.reason_code, c.http_status,
  c.zocdoc_request_id, c.attempt AS attempts, c.queued_at, c.ended_at
FROM lifecycle_commands c WHERE c.batch_id IS NOT NULL
UNION ALL
SELECT x.batch_id, x.batch_row, x.appointment_id, x.command, NULL, 'invalid', x.reason_code, NULL, NULL, 0, NULL, NULL
FROM lifecycle_batch_errors x
""",
    "lifecycle_process_log": """
SELECT e.seq, e.appointment_id AS "case:concept:name",
  CASE
    WHEN e.command IS NOT NULL THEN e.command || ': ' || replace(e.event, 'command_', '')
    WHEN e.from_status IS NULL THEN 'tracked: ' || e.to_status
    WHEN e.from_status <> e.to_status THEN 'zocdoc: ' || e.to_status
    WHEN e.details ->> 'start_time' IS NOT NULL THEN 'zocdoc: visit moved'
    ELSE 'zocdoc: details changed'
  END AS "concept:name",
  e.recorded_at AS "time:timestamp", e.actor AS "org:resource", e.source, e.to_status AS status,
  e.provider_location_id
FROM lifecycle_audit_events e
""",
}

_COMMENTS: Final = {
    "lifecycle_event_log": (
        "One row for each audit event, with what is known of its appointment",
        {
            "seq": "seq of the audit event",
            "appointment_id": "Zocdoc's appointment id",
            "appointment_seq": "1, 2, 3, ... within the appointment",
            "recorded_at": "When it was recorded here, UTC",
            "occurred_at": "When it happened at Zocdoc, UTC, if told; else NULL",
            "event": "What happened, in the past tense",
            "command": "The command it belongs to; NULL: none, Zocdoc reported it",
            "from_status": "Status before; NULL: the first event",
            "to_status": "Status after",
            "moved": "True: the status or the start of the visit is another one after it",
            "conforming": "False: the chart has no such move",
            "outcome": "applied, rejected, not_sent, unknown, refused; NULL: not an outcome",
            "reason_code": "Why; NULL: nothing to add",
            "reason_type": "Zocdoc's cancellation_reason_type; NULL: none given, or not ours",
            "actor": "Who asked: user:17, job:nightly",
            "source": "How it came in: api, cli, webhook, sync, recovery or operator",
            "provider_location_id": "Where the visit was to be at that time: Zocdoc's pr_...|lo_... id; NULL: not told",
            "practice_id": "Zocdoc's practice id; NULL: not told",
            "visit_reason_id": "Zocdoc's visit reason id; NULL: not told",
            "booked_with": "Identity of the credential that booked: machine, or user:ID",
            "command_id": "The command; NULL: none",
            "delivery_id": "The webhook delivery it came from; NULL: none",
            "zocdoc_request_id": "Zocdoc's request_id; NULL: none",
            "http_status": "HTTP status of the answer; NULL: no answer",
            "duration_ms": "How long the call took, milliseconds; NULL: no call",
            "details": "What else is known, JSON: codes, times and column names",
        },
    ),
    "lifecycle_current_status": (
        "One row for each appointment as it stands now",
        {
            "appointment_id": "Zocdoc's appointment id",
            "status": "The status",
            "status_known": "False: a status that this version does not know",
            "status_since": "When that status was recorded here, UTC",
            "in_doubt": "True: a command on it is uncertain or needs attention",
            "start_time": "Start of the visit, UTC",
            "provider_location_id": "Where the visit is to be: Zocdoc's pr_...|lo_... id; NULL: not told",
            "practice_id": "Zocdoc's practice id; NULL: not told",
            "visit_reason_id": "Zocdoc's visit reason id; NULL: not told",
            "booked_with": "Identity of the credential that booked: machine, or user:ID",
            "confirmation_type": "auto, manual or pending_evaluation; NULL: not told",
            "booked_at": "When it was booked at Zocdoc, UTC; NULL: not told",
            "tracked_at": "Since when it is followed here, UTC",
            "arrived_at": "When an arrival was marked here, UTC; NULL: not marked",
            "events": "How many audit events it has",
            "last_event": "The newest audit event",
            "last_event_at": "When that was recorded, UTC",
            "last_actor": "Who asked for it",
        },
    ),
    "lifecycle_time_in_status": (
        "One row for each stay of an appointment in a status",
        {
            "seq": "seq of the audit event that entered the status",
            "appointment_id": "Zocdoc's appointment id",
            "status": "The status",
            "entered_at": "When it was recorded that it began, UTC",
            "left_at": "When the next status was recorded, UTC; NULL: it lasts",
            "seconds": "How long it stood; NULL: it lasts",
            "entered_by": "The command that moved it there; NULL: Zocdoc or the provider did, or the first event",
            "left_to": "The next status; NULL: it lasts",
            "left_by": "The command that ended it; NULL: Zocdoc or the provider did, or it lasts",
            "provider_location_id": "Where the visit was to be at that time: Zocdoc's pr_...|lo_... id; NULL: not told",
        },
    ),
    "lifecycle_transitions": (
        "One row for each kind of move: how often, and how long the status before had stood",
        {
            "from_status": "Status before",
            "to_status": "Status after; the same: the visit was moved to another time",
            "command": "The command that did it; NULL: none, Zocdoc or the provider did",
            "conforming": "False: the chart has no such move",
            "transitions": "How often",
            "median_seconds": "Median of how long from_status had stood, seconds, interpolated",
            "p90_seconds": "90th percentile of the same",
        },
    ),
    "lifecycle_funnel": (
        "For the appointments tracked in each week: how many came how far, until now",
        {
            "week": "The Monday that the week of their first event begins with, UTC",
            "position": "Order of the steps",
            "step": "tracked, confirmed, rescheduled, arrived, no_show, cancelled or booking_failed, ever",
            "appointments": "How many came to it",
            "share": "The same as a part of those tracked, 0 to 1",
        },
    ),
    "lifecycle_cancellations": (
        "How many appointments were cancelled in each week, why, and by whom",
        {
            "week": "The Monday that the week begins with, UTC",
            "reason_type": "Zocdoc's cancellation_reason_type; NULL: none given, or not ours",
            "actor": "Who asked: user:17, job:nightly",
            "source": "How it came in: api, cli, webhook, sync, recovery or operator",
            "command": "The command that did it; NULL: none, Zocdoc or the provider did",
            "cancellations": "How many",
        },
    ),
    "lifecycle_refusals": (
        "What was tried and not done: refused here before anything was sent, or rejected by Zocdoc",
        {
            "command": "What was tried",
            "status": "The status that the appointment had",
            "refused_by": "guard: refused here, nothing was sent; zocdoc: it said no",
            "reason_code": "Why",
            "http_status": "HTTP status of Zocdoc's no; NULL: refused here",
            "tries": "How often",
            "appointments": "On how many appointments",
            "actors": "By how many actors",
            "first_at": "When first, UTC",
            "last_at": "When last, UTC",
        },
    ),
    "lifecycle_command_outcomes": (
        (
            "One row for each accepted command: how it ended, after how long and how many attempts. What was "
            "submitted and never accepted is in lifecycle_event_log, and in lifecycle_batch_rows if it belonged "
            "to a batch"
        ),
        {
            "command_id": "The command",
            "appointment_id": "Zocdoc's appointment id",
            "command": "confirm, cancel, reschedule, mark_arrived, mark_no_show",
            "actor": "Who asked: user:17, job:nightly",
            "source": "How it came in: api, cli, webhook, sync, recovery or operator",
            "batch_id": "The batch it was submitted with; NULL: called or submitted alone",
            "batch_row": "Its row of the batch's input, from 1; NULL: not in a batch",
            "provider_location_id": "Where the visit was to be at that time: Zocdoc's pr_...|lo_... id; NULL: not told",
            "reason_type": "Zocdoc's cancellation_reason_type; NULL: none given, or not ours",
            "state": "Where it stands: applied, rejected, not_sent, uncertain, needs_attention, ...",
            "outcome": "The last attempt's: applied, rejected, not_sent, unknown; NULL: none yet",
            "reason_code": "Why; NULL: nothing to add",
            "http_status": "HTTP status of the last answer; NULL: no answer",
            "attempts": "How many attempts were made",
            "call_ms": "How long its calls took together, milliseconds; NULL: none was answered",
            "queued_at": "When it was submitted, UTC; NULL: it was called synchronously",
            "queue_seconds": "From submitted to accepted; NULL: it was called synchronously",
            "accepted_at": "When it was accepted, UTC: the checks had passed, and it was about to be sent",
            "ended_at": "When it ended, UTC; NULL: not yet",
            "seconds": "From accepted to ended; NULL: not yet",
            "was_unknown": "True: an answer was lost",
            "was_recovered": "True: an answer was lost, and reading alone settled the command",
            "needed_attention": "True: reading could not settle it, a human was asked",
        },
    ),
    "lifecycle_batch_outcomes": (
        "One row for each batch of submitted commands: how many of its rows are in each state by now",
        {
            "batch_id": "The batch",
            "name": "What its submitter calls it; NULL: nothing",
            "command": "The command of all its rows; NULL: each row has its own",
            "actor": "Who asked: user:17, job:nightly",
            "source": "How it came in: api, cli, webhook, sync, recovery or operator",
            "total": "Rows of the input that were taken so far",
            "invalid": "Those of them that could not become commands",
            "queued": "Commands that are queued",
            "sending": "Commands that are sending",
            "uncertain": "Commands that are uncertain",
            "applied": "Commands that are applied",
            "rejected": "Commands that are rejected",
            "not_sent": "Commands that are not_sent",
            "refused": "Commands that are refused",
            "withdrawn": "Commands that are withdrawn",
            "expired": "Commands that are expired",
            "needs_attention": "Commands that are needs_attention",
            "created_at": "When its submission began, UTC",
            "submitted_at": "When all its rows were taken, UTC; NULL: not yet, or it was cut off",
            "cancelled_at": "When what was still queued was withdrawn, UTC; NULL: never",
            "is_finished": "True: no more rows will come, and none is queued, sending or uncertain",
        },
    ),
    "lifecycle_batch_rows": (
        "One row for each row of each batch's input, and what has become of it by now",
        {
            "batch_id": "The batch",
            "batch_row": "The row of the batch's input, from 1",
            "appointment_id": "Zocdoc's appointment id; NULL: the row names none that is well-formed",
            "command": "The command; NULL: the row names none that there is",
            "command_id": "The command; NULL: the row could not become one",
            "state": "Where it stands: queued, applied, refused, withdrawn, ...; invalid: no command",
            "reason_code": "Why; NULL: nothing to add",
            "http_status": "HTTP status of the last answer; NULL: no answer",
            "zocdoc_request_id": "Zocdoc's request_id; NULL: none",
            "attempts": "How many attempts were made",
            "queued_at": "When it was submitted, UTC; NULL: invalid, or sent once more by an operator",
            "ended_at": "When it ended, UTC; NULL: not yet, or invalid",
        },
    ),
    "lifecycle_process_log": (
        "The audit events under the names that process-mining tools expect (XES)",
        {
            "seq": "seq of the audit event",
            "case:concept:name": "The case: Zocdoc's appointment id",
            "concept:name": "The activity: cancel: applied, zocdoc: confirmed, tracked: pending_booking, ...",
            "time:timestamp": "When it was recorded here, UTC",
            "org:resource": "The actor",
            "source": "How it came in: api, cli, webhook, sync, recovery or operator",
            "status": "The status after it",
            "provider_location_id": "Where the visit was to be at that time: Zocdoc's pr_...|lo_... id; NULL: not told",
        },
    ),
}


def upgrade() -> None:
    """Create the views; on PostgreSQL with a comment on each and on each column."""
    is_postgres = op.get_context().dialect.name == "postgresql"
    for name, select in (_POSTGRES if is_postgres else _SQLITE).items():
        op.execute(f"CREATE VIEW {name} AS {select}")
    if is_postgres:
        for statement in _comments():
            op.execute(statement)


def downgrade() -> None:
    """Remove the views."""
    for name in reversed(_SQLITE):
        op.execute(f"DROP VIEW {name}")


def _comments() -> list[sa.DDL]:
    found = []
    for view, (comment, columns) in _COMMENTS.items():
        found.append(f"COMMENT ON VIEW {view} IS {_quoted(comment)}")
        found += [f'COMMENT ON COLUMN {view}."{name}" IS {_quoted(text)}' for name, text in columns.items()]
    return [sa.DDL(statement.replace("%", "%%")) for statement in found]


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
