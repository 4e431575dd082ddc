"""What was known at an instant: the fold of the trail is what `get` said then."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from lifecycle import AppointmentNotFound, InvalidArgument, OutcomeUnknown, TransitionRefused
from tests import support
from tests.test_operators import resolve, unsettled

if TYPE_CHECKING:
    from collections.abc import Callable

    from lifecycle import AsOf, Lifecycle
    from lifecycle.sandbox import Sandbox

TICK = timedelta(microseconds=1)


def now(lifecycle: Lifecycle, appointment_id: str) -> dict[str, Any]:
    """Tell what `get` and the end of the history say now."""
    row, last = lifecycle.get(appointment_id), lifecycle.history(appointment_id)[-1]
    return {
        "status": row.status,
        "status_since": row.status_since,
        "start_time": row.start_time,
        "provider_location_id": row.provider_location_id,
        "in_doubt": row.in_doubt,
        "appointment_seq": last.appointment_seq,
        "event": last.event,
        "actor": last.actor,
        "recorded_at": last.recorded_at,
    }


def facts(found: AsOf | None) -> dict[str, Any]:
    """Give what `now` gives, of a moment that has passed."""
    assert found is not None
    return {name: getattr(found, name) for name in found.__slots__ if name not in {"appointment_id", "at"}}


def test_it_is_what_get_said_then(lifecycle: Lifecycle, sandbox: Sandbox) -> None:
    """After each step of a story, at the very instant of its last event, up to 1 microsecond before the next one."""
    found = support.tracked(lifecycle, sandbox, status="pending_booking", provider_location_id="pr_1|lo_1")
    told = [now(lifecycle, found)]
    for step in story(lifecycle, sandbox, found):
        step()
        told.append(now(lifecycle, found))
    assert {each["in_doubt"] for each in told} == {True, False}
    assert len({each["start_time"] for each in told}) > 1
    assert len({each["provider_location_id"] for each in told}) > 1
    instants = {each.appointment_seq: each.recorded_at for each in lifecycle.history(found)}
    for then in told:
        assert facts(lifecycle.as_of(found, then["recorded_at"])) == then
        following = instants.get(then["appointment_seq"] + 1)
        if following is not None:
            assert facts(lifecycle.as_of(found, following - TICK)) == then
    assert facts(lifecycle.as_of(found, datetime(2100, 1, 1, tzinfo=UTC))) == told[-1]


def story(lifecycle: Lifecycle, sandbox: Sandbox, found: str) -> list[Callable[[], object]]:
    """Give steps: refused, applied, moved, lost, recovered, moved elsewhere by Zocdoc, cancelled there."""

    def refused() -> None:
        with pytest.raises(TransitionRefused):
            lifecycle.confirm(found, actor="user:2")

    def lost() -> None:
        support.lose_answer(sandbox, "reschedule", when="after")
        with pytest.raises(OutcomeUnknown):
            support.send(lifecycle, "reschedule", found, start_time="2031-05-01T09:00:00-05:00")

    def observed(**changes: Any) -> None:
        sandbox.change(found, **changes)
        lifecycle.track(found, actor="job:nightly")

    return [
        lambda: lifecycle.confirm(found, actor="user:1"),
        refused,
        lambda: support.send(lifecycle, "reschedule", found),
        lost,
        lambda: support.until(lambda: lifecycle.recover().settled),
        lambda: observed(provider_location_id="pr_1|lo_2"),
        lambda: observed(status="cancelled"),
    ]


@pytest.mark.parametrize("resolution", ["applied", "rejected", "retry"])
def test_doubt_lasts_until_an_operator_settles_it(lifecycle: Lifecycle, sandbox: Sandbox, resolution: str) -> None:
    """From the lost answer, through what reading could not settle, to the decision."""
    found, command_id = unsettled(lifecycle, sandbox)
    given_up = now(lifecycle, found)
    resolve(lifecycle, command_id, resolution)
    assert given_up["in_doubt"]
    assert facts(lifecycle.as_of(found, given_up["recorded_at"])) == given_up
    assert facts(lifecycle.as_of(found, datetime.now(UTC) + timedelta(days=1))) == now(lifecycle, found)
    by_event = {each.event: each for each in lifecycle.history(found)}
    for event, expected in (("command_accepted", False), ("outcome_lost", True), ("attention_needed", True)):
        if event != "command_accepted" or resolution != "retry":
            then = lifecycle.as_of(found, by_event[event].recorded_at)
            assert then is not None
            assert then.in_doubt is expected


def test_before_it_was_tracked_nothing_was_known(lifecycle: Lifecycle, sandbox: Sandbox) -> None:
    """None; and an appointment that never was is not found."""
    found = support.tracked(lifecycle, sandbox)
    [first] = lifecycle.history(found)
    assert lifecycle.as_of(found, first.recorded_at - TICK) is None
    assert lifecycle.history(found, as_of=first.recorded_at - TICK) == []
    assert lifecycle.as_of(found, first.recorded_at) is not None
    with pytest.raises(AppointmentNotFound):
        lifecycle.as_of("nobody", first.recorded_at)


def test_the_instant_may_be_of_any_zone(lifecycle: Lifecycle, sandbox: Sandbox) -> None:
    """It is the same instant; one without an offset is none."""
    found = support.tracked(lifecycle, sandbox)
    [first] = lifecycle.history(found)
    at = first.recorded_at.astimezone()
    then = lifecycle.as_of(found, at)
    assert then is not None
    assert (then.at, then.at.tzinfo) == (first.recorded_at, UTC)
    for odd in (datetime(2026, 1, 1), "2026-01-01T00:00:00Z", None):  # noqa: DTZ001 # the point
        with pytest.raises(InvalidArgument, match="aware"):
            lifecycle.as_of(found, odd)  # type: ignore[arg-type] # wrong on purpose


def test_history_as_of_is_its_beginning(lifecycle: Lifecycle, sandbox: Sandbox) -> None:
    """The events until then, that instant included."""
    found = support.tracked(lifecycle, sandbox, status="pending_booking")
    lifecycle.confirm(found, actor="user:1")
    events = lifecycle.history(found)
    for number, event in enumerate(events, 1):
        assert lifecycle.history(found, as_of=event.recorded_at) == events[:number]
        assert lifecycle.history(found, as_of=event.recorded_at - TICK) == events[: number - 1]
