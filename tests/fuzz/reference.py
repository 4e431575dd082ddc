"""What a success is, written from the contract alone and from nothing of the client: short enough to be read."""

from __future__ import annotations

import json
from typing import Any

MOST = 1024 * 1024


def is_success(status: int, body: bytes, appointment_id: str, *, may_list_errors: bool = False) -> bool:
    """Tell whether an answer says without doubt that a command to this appointment was carried out."""
    if status != 200 or len(body) > MOST:
        return False
    try:
        envelope = json.loads(body.decode(), object_pairs_hook=_unique, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return False
    if not isinstance(envelope, dict) or not isinstance(envelope.get("data"), dict):
        return False
    if envelope.get("errors") and not may_list_errors:
        return False
    found, state = envelope["data"].get("appointment_id"), envelope["data"].get("appointment_status")
    return found == appointment_id and isinstance(state, str) and 0 < len(state) <= 64 and state.isprintable()


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    if len(set(names)) != len(names):
        raise ValueError("a name twice")
    return dict(pairs)


def _refuse(constant: str) -> Any:
    raise ValueError(constant)
