"""An independent reader of the audit trail: raw rows in, findings out. Shares no code with the product."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

COLUMNS = [
    "actor",
    "appointment_id",
    "appointment_seq",
    "chart_version",
    "command",
    "command_id",
    "conforming",
    "delivery_id",
    "details",
    "duration_ms",
    "event",
    "from_status",
    "from_status_since",
    "hash_version",
    "http_status",
    "occurred_at",
    "outcome",
    "prev_hash",
    "provider_location_id",
    "reason_code",
    "reason_type",
    "recorded_at",
    "source",
    "to_status",
    "zocdoc_request_id",
]


def rows_of(engine: sa.Engine) -> list[dict[str, Any]]:
    """Read every audit row as the database stores it, in order of insertion."""
    with engine.connect() as connection:
        query = sa.text("SELECT * FROM lifecycle_audit_events ORDER BY seq")
        return [dict(row) for row in connection.execute(query).mappings()]


def faults(engine: sa.Engine) -> list[str]:
    """Name everything that is wrong with the trail: gaps, broken chains, statuses that do not fold."""
    with engine.connect() as connection:
        query = sa.text("SELECT appointment_id, status, status_since FROM lifecycle_appointments")
        rows = {row.appointment_id: (row.status, row.status_since) for row in connection.execute(query)}
    found = []
    folded: dict[str, tuple[int, str, str]] = {}
    since: dict[str, Any] = {}
    for row in rows_of(engine):
        seq, status, head = folded.get(row["appointment_id"], (0, None, "0" * 64))
        where = f"{row['appointment_id']}/{row['appointment_seq']}"
        if row["appointment_seq"] != seq + 1:
            found.append(f"{where}: gap after {seq}")
        if row["from_status_since"] != since.get(row["appointment_id"]):
            found.append(f"{where}: {status} did not stand since {row['from_status_since']}")
        if row["from_status"] != row["to_status"]:
            since[row["appointment_id"]] = row["recorded_at"]
        if row["from_status"] != status:
            found.append(f"{where}: begins at {row['from_status']}, the trail is at {status}")
        if row["prev_hash"] != head or row["hash"] != hash_of(row):
            found.append(f"{where}: the chain is broken")
        folded[row["appointment_id"]] = (row["appointment_seq"], row["to_status"], row["hash"])
    for appointment_id, (current, entered) in rows.items():
        if folded.get(appointment_id, (0, None, ""))[1] != current or since.get(appointment_id) != entered:
            found.append(f"{appointment_id}: the row says {current}, the trail does not")
    return found


def hash_of(row: dict[str, Any]) -> str:
    """Compute a row's hash from the published description of the encoding."""
    content = {name: _plain(name, row[name]) for name in COLUMNS}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(f"lifecycle-audit-1\n{text}".encode()).hexdigest()


def _plain(name: str, value: Any) -> Any:
    if isinstance(value, datetime):
        return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    if name == "conforming":
        return bool(value)
    if name == "details" and isinstance(value, str):
        return json.loads(value)
    return value
