"""The chart: which moves exist, by the design's table and nobody else's."""

from __future__ import annotations

import hashlib
import json
import threading

import pytest
from statemachine.exceptions import TransitionNotAllowed

from lifecycle import CancellationReason, Command, Status, chart
from tests import support
from tests.support import ALLOWED, STATUSES

UNKNOWN = "waitlisted"
TOPOLOGIES = {"1.177-1": "95f6a6fe1a2ad4fac5ade8647ddb0f7a273833172c4bd45b139b00e9340fdaf1"}
"""Digest of the topology by version: a chart that changes needs a new version, so that old audit rows can be judged."""

EXPECTED = {
    "confirm": {("pending_booking", "confirmed")},
    "cancel": {(status, "cancelled") for status in ALLOWED["cancel"]},
    "reschedule": {
        *((s, t) for s in ALLOWED["reschedule"] for t in ("rescheduled", "pending_reschedule", "reschedule_failed")),
        *((s, s) for s in ALLOWED["reschedule"]),
    },
    "mark_arrived": {(status, status) for status in ALLOWED["mark_arrived"]},
    "mark_no_show": {(status, "no_show") for status in ALLOWED["mark_no_show"]},
    "observed": {
        *(
            ("pending_booking", t)
            for t in ("confirmed", "booking_failed", "cancelled", "pending_reschedule", "rescheduled")
        ),
        *(("confirmed", t) for t in ("cancelled", "no_show", "pending_reschedule", "rescheduled")),
        *(("pending_reschedule", t) for t in ("rescheduled", "reschedule_failed", "confirmed", "cancelled")),
        *(("rescheduled", t) for t in ("cancelled", "no_show", "pending_reschedule", "rescheduled")),
        *(("reschedule_failed", t) for t in ("confirmed", "rescheduled", "pending_reschedule", "cancelled", "no_show")),
        ("booking_failed", "cancelled"),
    },
}
"""Event -> (status, answer), written from the design's table by hand."""


@pytest.mark.parametrize("event", list(EXPECTED))
@pytest.mark.parametrize("status", STATUSES)
def test_a_move_conforms_if_and_only_if_the_design_has_it(event: str, status: str) -> None:
    """For every status, event and answer the verdict is the design's, and the target is always the answer."""
    for answer in STATUSES:
        move = chart.move(status=status, event=event, answer=answer)
        assert (move.from_status, move.to_status) == (status, answer)
        assert move.conforming == ((status, answer) in EXPECTED[event]), answer


def test_the_topology_is_what_moves_allow() -> None:
    """What is read back from the chart names the same moves as asking for each of them."""
    read = {
        event: {(source, target) for source, targets in moves.items() for target in targets}
        for event, moves in chart.TOPOLOGY.items()
    }
    assert read == EXPECTED


@pytest.mark.parametrize("event", list(EXPECTED))
def test_an_unknown_status_never_conforms_and_is_never_lost(event: str) -> None:
    """A value of the future is kept on either side of the move."""
    for status in (*STATUSES, UNKNOWN):
        assert chart.move(status=status, event=event, answer=UNKNOWN) == chart.Move(status, UNKNOWN, conforming=False)
        assert chart.move(status=UNKNOWN, event=event, answer=status) == chart.Move(UNKNOWN, status, conforming=False)


def test_the_version_is_pinned_to_the_topology() -> None:
    """Whoever changes a move must give the chart a new version, and write its digest here."""
    plain = {event: {s: sorted(t) for s, t in moves.items()} for event, moves in chart.TOPOLOGY.items()}
    digest = hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()
    assert TOPOLOGIES[chart.VERSION] == digest


def test_a_machine_is_used_again_after_a_final_state() -> None:
    """A move into `cancelled` or `no_show` leaves nothing behind that could spoil the thread's next move."""
    for final in ("cancelled", "no_show"):
        event = "cancel" if final == "cancelled" else "mark_no_show"
        for _ in range(3):
            assert chart.move(status="confirmed", event=event, answer=final).conforming
            assert chart.move(status="pending_booking", event="confirm", answer="confirmed").conforming
            assert not chart.move(status=final, event="confirm", answer="confirmed").conforming
            assert chart.move(status="confirmed", event="reschedule", answer="rescheduled").conforming


def test_a_refused_move_leaves_the_machine_usable() -> None:
    """After an event that the library refused, the thread's next move is judged by its own status."""
    assert not chart.move(status="cancelled", event="confirm", answer="confirmed").conforming
    assert not chart.move(status="confirmed", event="confirm", answer="cancelled").conforming
    assert chart.move(status="pending_booking", event="confirm", answer="confirmed").conforming


def test_threads_do_not_share_a_machine() -> None:
    """Eight threads that move different appointments at once never see each other's status."""
    cases = [(event, s, a) for event in EXPECTED for s in STATUSES for a in STATUSES]

    def work(index: int) -> list[tuple[str, str, str]]:
        turned = cases[index * 40 :] + cases[: index * 40]
        return [
            (e, s, a)
            for e, s, a in turned
            if chart.move(status=s, event=e, answer=a).conforming != ((s, a) in EXPECTED[e])
        ]

    assert support.together(8, work) == [[]] * 8
    assert threading.active_count() < 20


def test_the_library_is_pinned_to_raise() -> None:
    """With python-statemachine's other settings an illegal event would be ignored: here it raises."""
    flags = chart.AppointmentChart
    assert flags.allow_event_without_transition is False
    assert flags.catch_errors_as_events is False
    assert flags.atomic_configuration_update is True
    holder = chart._Holder("cancelled")
    machine = chart.AppointmentChart(model=holder)
    with pytest.raises(TransitionNotAllowed):
        machine.send("confirm", answer="confirmed")
    assert holder.state == "cancelled"
    with pytest.raises(TransitionNotAllowed):
        chart.AppointmentChart(model=chart._Holder("pending_booking")).send("confirm", answer="no_show")
    with pytest.raises(TransitionNotAllowed):
        machine.send("no_such_event", answer="confirmed")


def test_the_vocabularies_are_zocdocs() -> None:
    """Eight statuses, five commands, nine cancellation reasons, spelled as the contract spells them."""
    assert tuple(Status) == STATUSES
    assert frozenset(STATUSES) == chart.STATUSES
    assert tuple(Command) == support.COMMANDS
    assert set(CancellationReason) == {
        "patient_no_longer_needs_appointment",
        "patient_no_longer_available",
        "other_patient_reason",
        "missing_needed_patient_information",
        "payment_or_insurance_issue",
        "patient_or_visit_type_not_accepted",
        "provider_not_available",
        "rescheduling_patient",
        "other_provider_reason",
    }
