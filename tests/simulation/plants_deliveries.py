"""Planted bugs of following Zocdoc: what the inbox accepts, what becomes of it, what is read for it; what sync does."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from typing import Any

from lifecycle import audit, errors, inbox, observations, reconciliation, zocdoc
from lifecycle.zocdoc import webhook
from tests.simulation import faults
from tests.simulation.planting import Patch, Plant


def _unverified() -> list[Patch]:
    original = webhook.verify

    def verify(*, body: bytes, headers: Any, keys: Any, now: float) -> webhook.Call:
        try:
            return original(body=body, headers=headers, keys=keys, now=now)
        except webhook.NotAuthentic:
            return webhook.Call(hashlib.sha256(body).hexdigest(), datetime.fromtimestamp(now, UTC), 0)

    return [(webhook, "verify", verify)]


def _answered_without_storing() -> list[Patch]:
    original = inbox.receive

    def receive(resources: Any, headers: Any, body: bytes, keys: Any) -> inbox.Receipt:
        try:
            return original(resources, headers, body, keys)
        except errors.DatabaseUnavailable:
            digest = hashlib.sha256(body).hexdigest()
            return inbox.Receipt(delivery_id=digest, appointment_id=None, is_stale=False, copies=1)

    return [(inbox, "receive", receive)]


def _ended_before_the_read() -> list[Patch]:
    original = inbox._follow

    def follow(resources: Any, client: Any, claim: Any) -> inbox.Step:
        step = inbox._end(resources, claim, inbox.State.FOLLOWED)
        original(resources, client, claim)
        return step

    return [(inbox, "_follow", follow)]


def _given_up_as_followed() -> list[Patch]:
    def fail(resources: Any, claim: Any, _reason: str) -> inbox.Step:
        return inbox._end(resources, claim, inbox.State.FOLLOWED)

    return [(inbox, "_fail", fail)]


def _left_though_tracked() -> list[Patch]:
    return [(observations, "wake_deliveries", lambda *_a, **_k: None)]


def _forgotten() -> list[Patch]:
    def fail(resources: Any, claim: Any, reason_code: str) -> inbox.Step:
        return inbox._postpone(resources, claim, reason_code, timedelta(days=300).total_seconds())

    return [(inbox, "_fail", fail)]


def _blind_sync() -> list[Patch]:
    return [(reconciliation, "_differs", lambda *_a: False)]


def _sync_that_tracks_nothing() -> list[Patch]:
    return [(audit, "begin_all", lambda *_a, **_k: set())]


def _sync_over_commands() -> list[Patch]:
    """Take what the list says as it is, whatever is under way here."""
    original = reconciliation._follow

    def follow(run: Any, before: Any, since: Any) -> bool:
        with run.resources.database.write() as connection:
            locked = audit.hold(run.resources.database, connection, before["appointment_id"])
            reading = zocdoc.Reading(_LISTED[before["appointment_id"]], None)
            observations.apply(connection, locked, reading, actor=run.actor, source="sync")
        return original(run, before, since)

    return [(reconciliation, "_follow", follow), (reconciliation, "_differs", _noting(reconciliation._differs))]


def _noting(original: Any) -> Any:
    def differs(run: Any, before: Any, remote: Any) -> bool:
        _LISTED[before["appointment_id"]] = remote
        return bool(original(run, before, remote))

    return differs


_LISTED: dict[str, Any] = {}
_BUSY_PROVIDER = faults.Rates(provider=0.2)

PLANTS = (
    Plant("forged_call_stored", "a webhook call is stored whatever its signature", _unverified, rates=_BUSY_PROVIDER),
    Plant(
        "answered_unstored",
        "a webhook call that could not be stored is answered",
        _answered_without_storing,
        rates=_BUSY_PROVIDER,
    ),
    Plant(
        "ended_unread", "a delivery ends before its appointment is read", _ended_before_the_read, rates=_BUSY_PROVIDER
    ),
    Plant("given_up_as_followed", "a read that failed ends the delivery", _given_up_as_followed, rates=_BUSY_PROVIDER),
    Plant("left_though_tracked", "tracking leaves older deliveries", _left_though_tracked, rates=_BUSY_PROVIDER),
    Plant("sync_is_blind", "sync does not see that Zocdoc differs", _blind_sync, rates=_BUSY_PROVIDER),
    Plant("sync_tracks_nothing", "sync leaves unknown appointments", _sync_that_tracks_nothing, rates=_BUSY_PROVIDER),
    Plant("sync_over_commands", "sync stores what is listed as it is", _sync_over_commands, rates=_BUSY_PROVIDER),
    Plant("failed_and_forgotten", "a delivery whose read failed is forgotten", _forgotten, rates=_BUSY_PROVIDER),
)
