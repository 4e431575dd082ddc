"""Every status meets every command, on both databases, over real HTTP."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from lifecycle import TransitionRefused
from tests import support
from tests.support import ACTOR, ALLOWED, COMMANDS, STATUSES

if TYPE_CHECKING:
    from lifecycle import Lifecycle
    from lifecycle.sandbox import Sandbox

TARGETS = {"confirm": "confirmed", "cancel": "cancelled", "reschedule": "rescheduled", "mark_no_show": "no_show"}
ALLOWED_CELLS = [(status, command) for command in COMMANDS for status in STATUSES if status in ALLOWED[command]]
REFUSED_CELLS = [(status, command) for command in COMMANDS for status in STATUSES if status not in ALLOWED[command]]
YESTERDAY = (datetime.now(UTC) - timedelta(days=1)).isoformat(timespec="seconds")


def test_the_grid_is_complete() -> None:
    """Eight statuses times five commands are forty cells, and each is tested once."""
    assert len(ALLOWED_CELLS) + len(REFUSED_CELLS) == len({*ALLOWED_CELLS, *REFUSED_CELLS}) == 40


@pytest.mark.parametrize(("status", "command"), ALLOWED_CELLS)
def test_an_allowed_command_is_carried_out_once(
    lifecycle: Lifecycle, sandbox: Sandbox, database_url: str, status: str, command: str
) -> None:
    """From a documented status a command has one effect at Zocdoc, and the status is what the answer says."""
    appointment_id = support.tracked(lifecycle, sandbox, status=status, start_time=YESTERDAY)
    done = support.send(lifecycle, command, appointment_id)
    target = TARGETS.get(command, status)
    assert (done.from_status, done.to_status, done.conforming, done.reason_code) == (status, target, True, None)
    assert sandbox.status_of(appointment_id) == lifecycle.get(appointment_id).status == target
    assert (support.effects(sandbox, appointment_id), support.posts(sandbox, appointment_id)) == (1, 1)
    event = "arrival_marked" if command == "mark_arrived" else "command_applied"
    support.assert_history(
        lifecycle,
        appointment_id,
        [
            ("command_accepted", command, status, status, None, None),
            (event, command, status, target, "applied", None),
        ],
    )
    last = lifecycle.history(appointment_id)[-1]
    assert (last.actor, last.source, last.http_status) == (ACTOR, "api", 200)
    assert (last.zocdoc_request_id, last.command_id) == (done.zocdoc_request_id, done.command_id)
    assert support.states(database_url) == ["applied"]
    assert (lifecycle.get(appointment_id).arrived_at is not None) == (command == "mark_arrived")


@pytest.mark.parametrize(("status", "command"), REFUSED_CELLS)
def test_a_refused_command_costs_no_call_and_leaves_a_row(
    lifecycle: Lifecycle, sandbox: Sandbox, database_url: str, status: str, command: str
) -> None:
    """From any other status the command is refused locally, with its reason, and the refusal is in the trail."""
    appointment_id = support.tracked(lifecycle, sandbox, status=status, start_time=YESTERDAY)
    before = len(sandbox.ledger.entries())
    with pytest.raises(TransitionRefused) as caught:
        support.send(lifecycle, command, appointment_id)
    refused = caught.value
    assert (refused.appointment_id, refused.command, refused.status) == (appointment_id, command, status)
    assert refused.reasons == ("status_not_allowed",)
    assert len(sandbox.ledger.entries()) == before
    assert support.commands(database_url) == []
    support.assert_history(
        lifecycle,
        appointment_id,
        [("command_refused", command, status, status, "refused", "status_not_allowed")],
    )
    last = lifecycle.history(appointment_id)[-1]
    assert (last.actor, last.details["reasons"]) == (ACTOR, ["status_not_allowed"])
    assert lifecycle.get(appointment_id).version == 1


@pytest.mark.parametrize("command", COMMANDS)
def test_nothing_is_allowed_from_an_unknown_status(lifecycle: Lifecycle, sandbox: Sandbox, command: str) -> None:
    """A status of the future is kept as it came, flagged, and no command is allowed from it."""
    appointment_id = support.tracked(lifecycle, sandbox, status="waitlisted", start_time=YESTERDAY)
    seen = lifecycle.get(appointment_id)
    assert (seen.status, seen.status_known) == ("waitlisted", False)
    assert lifecycle.history(appointment_id)[0].conforming is False
    before = len(sandbox.ledger.entries())
    with pytest.raises(TransitionRefused) as caught:
        support.send(lifecycle, command, appointment_id)
    assert caught.value.reasons == ("status_unknown",)
    assert len(sandbox.ledger.entries()) == before
    support.assert_history(
        lifecycle,
        appointment_id,
        [("command_refused", command, "waitlisted", "waitlisted", "refused", "status_unknown")],
    )


def test_an_unknown_status_that_becomes_known_again_is_unflagged(lifecycle: Lifecycle, sandbox: Sandbox) -> None:
    """The flag follows the status: a later known status ends it, as a move that the chart does not have."""
    appointment_id = support.tracked(lifecycle, sandbox, status="waitlisted")
    sandbox.change(appointment_id, status="confirmed")
    seen = lifecycle.track(appointment_id, actor=ACTOR)
    assert (seen.status, seen.status_known) == ("confirmed", True)
    assert lifecycle.history(appointment_id)[-1].conforming is False


@pytest.mark.parametrize(
    ("on_reschedule", "conforming"),
    [
        ("rescheduled", True),
        ("pending_reschedule", True),
        ("reschedule_failed", True),
        ("unchanged", True),
        ("cancelled", False),
        ("waitlisted", False),
    ],
)
def test_the_status_in_a_reschedules_answer_is_the_truth(
    lifecycle: Lifecycle,
    sandbox: Sandbox,
    on_reschedule: str,
    conforming: bool,  # noqa: FBT001
) -> None:
    """Whatever a reschedule is answered with becomes the status; an unexpected one does not conform."""
    appointment_id = support.tracked(lifecycle, sandbox, status="confirmed", on_reschedule=on_reschedule)
    start = lifecycle.get(appointment_id).start_time
    done = support.send(lifecycle, "reschedule", appointment_id)
    expected = "confirmed" if on_reschedule == "unchanged" else on_reschedule
    assert (done.to_status, done.conforming) == (expected, conforming)
    seen = lifecycle.get(appointment_id)
    assert seen.status == expected == sandbox.status_of(appointment_id)
    if conforming:
        assert seen.start_time == sandbox.appointment(appointment_id).start
        assert (seen.start_time == start) == (on_reschedule == "reschedule_failed")


def test_a_new_start_is_kept_with_the_offset_it_was_written_in(lifecycle: Lifecycle, sandbox: Sandbox) -> None:
    """The instant is stored in UTC and shown again in the offset of the caller."""
    appointment_id = support.tracked(lifecycle, sandbox, status="confirmed")
    support.send(lifecycle, "reschedule", appointment_id)
    assert lifecycle.get(appointment_id).start_time.isoformat() == support.LATER
    assert lifecycle.history(appointment_id)[-1].details == {"start_time": support.LATER_UTC}
    sent = support.calls(sandbox, appointment_id)[-1].body
    assert sent == {"appointment_id": appointment_id, "start_time": support.LATER}


def test_a_visit_can_be_moved_again_and_again(lifecycle: Lifecycle, sandbox: Sandbox) -> None:
    """A rescheduled visit that is rescheduled is another event and another version, though no status changes."""
    appointment_id = support.tracked(lifecycle, sandbox, status="rescheduled")
    support.send(lifecycle, "reschedule", appointment_id)
    first = lifecycle.get(appointment_id)
    support.send(lifecycle, "reschedule", appointment_id, start_time="2031-03-02T09:00:00-05:00")
    second = lifecycle.get(appointment_id)
    assert (first.status, second.status) == ("rescheduled", "rescheduled")
    assert second.version == first.version + 1
    assert second.start_time - first.start_time == timedelta(days=1)


def test_an_answer_of_booking_failed_is_not_a_success_of_the_chart(lifecycle: Lifecycle, sandbox: Sandbox) -> None:
    """A 200 with a status that the command does not expect is applied, kept, and does not conform."""
    appointment_id = support.tracked(lifecycle, sandbox)
    support.arm(sandbox, kind="unknown_status", operation="confirm", value="booking_failed")
    done = lifecycle.confirm(appointment_id, actor=ACTOR)
    assert (done.to_status, done.conforming) == ("booking_failed", False)
    assert lifecycle.get(appointment_id).status == "booking_failed"


def test_the_guides_own_calls_pass_word_for_word(lifecycle: Lifecycle, sandbox: Sandbox) -> None:
    """A reason text beside a plain type and a start in the past are sent as they are; they only cause advice."""
    appointment_id = support.tracked(lifecycle, sandbox, status="confirmed")
    done = lifecycle.reschedule(appointment_id, actor=ACTOR, start_time="2022-04-27T09:00:00-04:00")
    assert done.advice == ("start_time_in_past",)
    reason_type, reason = "patient_no_longer_needs_appointment", "Feeling better"
    done = lifecycle.cancel(appointment_id, actor=ACTOR, reason_type=reason_type, reason=reason)
    assert done.advice == ("reason_text_without_other_type",)
    assert support.calls(sandbox, appointment_id)[-1].body == {
        "appointment_id": appointment_id,
        "cancellation_reason": reason,
        "cancellation_reason_type": reason_type,
    }
    assert [each.details.get("advice") for each in lifecycle.history(appointment_id)] == [
        None,
        ["start_time_in_past"],
        None,
        ["reason_text_without_other_type"],
        None,
    ]
