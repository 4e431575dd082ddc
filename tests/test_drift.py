"""Drift: where Zocdoc's truth and ours parted, since when, until when, and who noticed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from lifecycle import InvalidArgument, Lifecycle, OutcomeUnknown
from tests.support import ACTOR, lose_answer, query, send, tracked

if TYPE_CHECKING:
    from lifecycle import Drift
    from lifecycle.sandbox import Sandbox


def of(lifecycle: Lifecycle, kind: str) -> list[Drift]:
    """Give the drift of a kind."""
    return [each for each in lifecycle.drift() if each.kind == kind]


def test_no_drift(lifecycle: Lifecycle, sandbox: Sandbox) -> None:
    """Commands that are applied, refused, and tracking are no drift."""
    found = tracked(lifecycle, sandbox)
    send(lifecycle, "confirm", found)
    lifecycle.sync()
    assert list(lifecycle.drift()) == []


def test_a_move_that_the_chart_does_not_have(lifecycle: Lifecycle, sandbox: Sandbox) -> None:
    """It lasts until the status moves on; other events of the appointment do not end it."""
    found = tracked(lifecycle, sandbox, status="cancelled")
    sandbox.change(found, status="pending_booking")
    lifecycle.track(found, actor=ACTOR)
    [lasting] = lifecycle.drift()
    event = lifecycle.history(found)[-1]
    assert (lasting.kind, lasting.appointment_id, lasting.reason) == ("not_conforming", found, "appointment_observed")
    assert (lasting.from_status, lasting.to_status) == ("cancelled", "pending_booking")
    assert (lasting.since, lasting.until, lasting.command_id) == (event.recorded_at, None, None)
    assert lasting.lasted_seconds >= 0
    sandbox.change(found, practice_id="pt_1")
    lifecycle.track(found, actor=ACTOR)
    assert lifecycle.history(found)[-1].details == {"changed": ["practice_id"]}
    assert [each.until for each in lifecycle.drift()] == [None]
    send(lifecycle, "confirm", found)
    [ended] = lifecycle.drift()
    applied = next(each for each in lifecycle.history(found) if each.event == "command_applied")
    assert ended.until == applied.recorded_at
    assert ended.lasted_seconds == pytest.approx((ended.until - ended.since).total_seconds(), abs=0.001)


def test_what_is_in_doubt(lifecycle: Lifecycle, sandbox: Sandbox) -> None:
    """Since the answer was lost, by the command that lost it, whatever `since` says; settled, it is gone."""
    found = tracked(lifecycle, sandbox)
    lose_answer(sandbox, "confirm")
    with pytest.raises(OutcomeUnknown) as lost:
        send(lifecycle, "confirm", found)
    [doubt] = lifecycle.drift(since=datetime.now(UTC) + timedelta(days=1))
    event = next(each for each in lifecycle.history(found) if each.event == "outcome_lost")
    assert (doubt.kind, doubt.appointment_id, doubt.command_id) == ("in_doubt", found, lost.value.command_id)
    assert (doubt.from_status, doubt.to_status) == ("pending_booking", "confirmed")
    assert (doubt.since, doubt.until, doubt.reason) == (event.recorded_at, None, lost.value.reason_code)
    lifecycle.recover(wait=5)
    assert list(lifecycle.drift()) == []


def test_what_only_sync_found(lifecycle: Lifecycle, sandbox: Sandbox, database_url: str) -> None:
    """How long Zocdoc's change was not known here, and whether a webhook call had told of it."""
    told, untold = sorted([tracked(lifecycle, sandbox), tracked(lifecycle, sandbox)])
    for each in (told, untold):
        sandbox.change(each, status="cancelled")
    at = (sandbox.appointment(told).modified + timedelta(microseconds=1)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    query(
        database_url,
        "INSERT INTO lifecycle_webhook_deliveries (delivery_id, state, copies, is_stale, appointment_id, signed_at,"
        " received_at, last_received_at, attempts, run_at)"
        " VALUES ('d', 'received', 1, false, :id, :now, :now, :now, 0, :now)",
        id=told,
        now=at,
    )
    lifecycle.sync()
    found = {each.appointment_id: each for each in of(lifecycle, "found_by_sync")}
    assert {each: found[each].reason for each in found} == {told: "webhook_told", untold: "no_webhook"}
    for each, drift in found.items():
        event = lifecycle.history(each)[-1]
        assert (drift.from_status, drift.to_status) == ("pending_booking", "cancelled")
        assert (drift.since, drift.until) == (sandbox.appointment(each).modified, event.recorded_at)
        assert drift.lasted_seconds == pytest.approx((event.recorded_at - drift.since).total_seconds(), abs=0.001)


def test_since(lifecycle: Lifecycle, sandbox: Sandbox) -> None:
    """Only what was recorded at or after the instant."""
    found = tracked(lifecycle, sandbox, status="cancelled")
    sandbox.change(found, status="confirmed")
    lifecycle.track(found, actor=ACTOR)
    [drift] = lifecycle.drift()
    assert [each.appointment_id for each in lifecycle.drift(since=drift.since)] == [found]
    assert list(lifecycle.drift(since=drift.since + timedelta(microseconds=1))) == []
    with pytest.raises(InvalidArgument, match="offset"):
        lifecycle.drift(since=datetime(2026, 1, 1))  # noqa: DTZ001 # the point


def test_more_than_a_page(lifecycle: Lifecycle, sandbox: Sandbox) -> None:
    """What does not fit into one page comes with the next."""
    sandbox.add_many(1_100, modified=datetime(2026, 1, 1, tzinfo=UTC), status="waitlisted")
    lifecycle.sync()
    found = [each.appointment_id for each in of(lifecycle, "not_conforming")]
    assert len(found) == len(set(found)) == 1_100
