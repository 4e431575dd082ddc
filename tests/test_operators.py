"""What reading could not settle is listed with its evidence, and a human settles it, by a code and by name."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from lifecycle import (
    AppointmentNotFound,
    CommandInProgress,
    CommandRejected,
    CredentialNotAllowed,
    Done,
    InvalidArgument,
    Lifecycle,
    LifecycleError,
    NothingToResolve,
    NotSent,
    OutcomeUnknown,
    ReadFailed,
    Resolution,
    TransitionRefused,
)
from lifecycle.points import Point, armed
from tests import support
from tests.conftest import FAST
from tests.support import ACTOR, COMMANDS

if TYPE_CHECKING:
    from lifecycle import Attention, ZocdocClient
    from lifecycle.sandbox import Sandbox, Server

OPERATOR = "user:99"
CODE = "seen_in_portal"
WAIT = support.PATIENCE
REASON = "the patient's own words"
YESTERDAY = (datetime.now(UTC) - timedelta(days=1)).isoformat(timespec="seconds")
TARGETS = {"confirm": "confirmed", "cancel": "cancelled", "mark_no_show": "no_show"}


def unsettled(
    lifecycle: Lifecycle, sandbox: Sandbox, command: str = "confirm", *, when: str = "before", **given: Any
) -> tuple[str, str]:
    """Lose an answer and let the provider touch the appointment, so that no read explains it; give both ids."""
    details = {name: given.pop(name) for name in ("status", "booked_by") if name in given}
    appointment_id = support.tracked(lifecycle, sandbox, start_time=YESTERDAY, **details)
    support.lose_answer(sandbox, support.OPERATIONS[command], when=when)
    with pytest.raises(OutcomeUnknown) as caught:
        support.send(lifecycle, command, appointment_id, **given)
    if when == "before":
        sandbox.change(appointment_id)
    else:
        sandbox.change(appointment_id, status="rescheduled", start_time=support.LATER.replace("03-01", "03-09"))
    support.until(lambda: lifecycle.recover().settled)
    assert command_state(lifecycle, appointment_id) == "attention_needed"
    return appointment_id, caught.value.command_id


def command_state(lifecycle: Lifecycle, appointment_id: str) -> str:
    """Tell the newest event about a command; what was observed along with it does not count."""
    return next(each.event for each in reversed(lifecycle.history(appointment_id)) if each.command_id)


def resolve(lifecycle: Lifecycle, command_id: str, resolution: str, **given: Any) -> Done | None:
    """Resolve as the operator, with the usual code."""
    return lifecycle.resolve(command_id, **({"resolution": resolution, "reason_code": CODE, "actor": OPERATOR} | given))


def last(lifecycle: Lifecycle, appointment_id: str) -> tuple[Any, ...]:
    """Give what the newest event says about who did what."""
    event = lifecycle.history(appointment_id)[-1]
    return (
        event.event,
        event.actor,
        event.source,
        event.outcome,
        event.reason_code,
        event.from_status,
        event.to_status,
    )


def test_attention_is_empty_when_nothing_is_wrong(lifecycle: Lifecycle, sandbox: Sandbox) -> None:
    """Neither an applied command nor one that is merely in doubt needs a human."""
    assert lifecycle.attention() == []
    lifecycle.confirm(support.tracked(lifecycle, sandbox), actor=ACTOR)
    appointment_id = support.tracked(lifecycle, sandbox)
    support.lose_answer(sandbox, "confirm")
    with pytest.raises(OutcomeUnknown):
        lifecycle.confirm(appointment_id, actor=ACTOR)
    assert lifecycle.attention() == []


def test_attention_gives_the_evidence(lifecycle: Lifecycle, sandbox: Sandbox) -> None:
    """What it was like before, what would show the command, what was last read, who asked, and since when."""
    before = datetime.now(UTC) - timedelta(seconds=1)
    made = {command: unsettled(lifecycle, sandbox, command) for command in COMMANDS}
    for found in lifecycle.attention():
        assert_evidence(found, *made.pop(found.command), before=before)
    assert made == {}


def assert_evidence(found: Attention, appointment_id: str, command_id: str, *, before: datetime) -> None:
    """Check one entry of the list against what was arranged."""
    command = found.command
    assert (found.command_id, found.appointment_id, found.actor) == (command_id, appointment_id, ACTOR)
    start = datetime.fromisoformat(YESTERDAY)
    assert (found.baseline_status, found.baseline_start_time, found.status) == (
        "pending_booking",
        start,
        "pending_booking",
    )
    assert found.target_status == TARGETS.get(command)
    later = datetime.fromisoformat(support.LATER)
    assert found.target_start_time == (later if command == "reschedule" else None)
    assert found.remote_status == "pending_booking"
    assert datetime.fromisoformat(found.remote_start_time or "") == start
    assert found.reason_code in {"cannot_be_told_apart", "unexplained_change"}
    assert before < found.created_at <= found.since < datetime.now(UTC) + timedelta(seconds=1)


def test_attention_without_a_reading_says_so(lifecycle: Lifecycle, sandbox: Sandbox) -> None:
    """When no read came through there is no remote evidence, and the reason tells why."""
    appointment_id = support.tracked(lifecycle, sandbox)
    support.lose_answer(sandbox, "confirm")
    with pytest.raises(OutcomeUnknown):
        lifecycle.confirm(appointment_id, actor=ACTOR)
    support.arm(sandbox, kind="answer", operation="get", status=403, times=9)
    lifecycle.recover(wait=WAIT)
    [found] = lifecycle.attention()
    assert (found.reason_code, found.remote_status, found.remote_start_time) == ("forbidden", None, None)


def test_attention_lists_the_oldest_first(lifecycle: Lifecycle, sandbox: Sandbox) -> None:
    """Several commands, of several appointments, in the order in which they came to need a human."""
    made = [unsettled(lifecycle, sandbox, command) for command in ("cancel", "confirm", "mark_arrived")]
    found = lifecycle.attention()
    assert [(each.appointment_id, each.command_id) for each in found] == made
    assert [each.since for each in found] == sorted(each.since for each in found)


def test_attention_shows_the_newest_evidence(lifecycle: Lifecycle, sandbox: Sandbox) -> None:
    """A command that was retried and lost again is listed once, with what was read the second time."""
    appointment_id, command_id = unsettled(lifecycle, sandbox)
    support.lose_answer(sandbox, "confirm")
    with pytest.raises(OutcomeUnknown):
        resolve(lifecycle, command_id, "retry")
    sandbox.change(appointment_id, status="pending_reschedule")
    lifecycle.recover(wait=WAIT)
    [found] = lifecycle.attention()
    assert (found.command_id, found.remote_status, found.status) == (
        command_id,
        "pending_reschedule",
        "pending_reschedule",
    )


def test_resolved_as_applied_moves_an_untouched_appointment(
    lifecycle: Lifecycle, sandbox: Sandbox, database_url: str
) -> None:
    """The operator's word moves the status to the target, calls nobody, and ends the doubt."""
    for command, target in TARGETS.items():
        appointment_id, command_id = unsettled(lifecycle, sandbox, command)
        calls = len(support.calls(sandbox))
        assert resolve(lifecycle, command_id, "applied") is None
        seen = lifecycle.get(appointment_id)
        assert (seen.status, seen.in_doubt) == (target, False)
        assert last(lifecycle, appointment_id) == (
            "command_resolved",
            OPERATOR,
            "operator",
            "applied",
            CODE,
            "pending_booking",
            target,
        )
        assert lifecycle.history(appointment_id)[-1].conforming is True
        [row] = support.commands(database_url, appointment_id)
        assert (row["state"], row["outcome"], row["reason_code"]) == ("applied", "applied", CODE)
        assert lifecycle.attention() == []
        assert len(support.calls(sandbox)) == calls


def test_an_applied_reschedule_moves_the_start(lifecycle: Lifecycle, sandbox: Sandbox) -> None:
    """The new start is the one that was asked for, in the offset that it was written in."""
    appointment_id, command_id = unsettled(lifecycle, sandbox, "reschedule")
    resolve(lifecycle, command_id, "applied")
    seen = lifecycle.get(appointment_id)
    assert (seen.start_time.isoformat(), seen.status) == (support.LATER, "pending_booking")


def test_an_applied_arrival_is_marked(lifecycle: Lifecycle, sandbox: Sandbox) -> None:
    """No status moves, but the arrival is on the row."""
    appointment_id, command_id = unsettled(lifecycle, sandbox, "mark_arrived", status="confirmed")
    assert lifecycle.get(appointment_id).arrived_at is None
    resolve(lifecycle, command_id, "applied")
    seen = lifecycle.get(appointment_id)
    assert seen.arrived_at is not None
    assert seen.status == "confirmed"


def test_applied_does_not_overrule_what_was_seen_since(lifecycle: Lifecycle, sandbox: Sandbox) -> None:
    """When Zocdoc has shown another status since, that stays: the fact is newer than the operator's word."""
    appointment_id, command_id = unsettled(lifecycle, sandbox, "confirm", when="after")
    assert lifecycle.get(appointment_id).status == "rescheduled"
    resolve(lifecycle, command_id, "applied")
    seen = lifecycle.get(appointment_id)
    assert (seen.status, seen.in_doubt) == ("rescheduled", False)
    assert last(lifecycle, appointment_id)[-2:] == ("rescheduled", "rescheduled")


def test_applied_does_not_move_what_was_read_since(lifecycle: Lifecycle, sandbox: Sandbox) -> None:
    """The effect that the operator saw may have been undone: a later read that shows the state before it is newer."""
    appointment_id, command_id = unsettled(lifecycle, sandbox, "mark_no_show", status="confirmed")
    lifecycle.track(appointment_id, actor=ACTOR)
    resolve(lifecycle, command_id, "applied")
    seen = lifecycle.get(appointment_id)
    assert (seen.status, seen.in_doubt) == ("confirmed", False)
    assert last(lifecycle, appointment_id)[0] == "command_resolved"


def test_resolved_as_rejected_moves_nothing(lifecycle: Lifecycle, sandbox: Sandbox, database_url: str) -> None:
    """The command had no effect: the appointment stays as it is, and the doubt ends."""
    for command in COMMANDS:
        appointment_id, command_id = unsettled(lifecycle, sandbox, command)
        before = lifecycle.get(appointment_id)
        assert resolve(lifecycle, command_id, "rejected") is None
        seen = lifecycle.get(appointment_id)
        assert (seen.status, seen.start_time, seen.arrived_at, seen.in_doubt) == (
            before.status,
            before.start_time,
            None,
            False,
        )
        assert last(lifecycle, appointment_id)[:5] == ("command_resolved", OPERATOR, "operator", "rejected", CODE)
        assert support.states(database_url, appointment_id) == ["rejected"]


def test_a_retry_reads_checks_and_sends_once_more(lifecycle: Lifecycle, sandbox: Sandbox, database_url: str) -> None:
    """It is the same command, in its second attempt, baseline read anew; the trail names operator and asker."""
    for command in COMMANDS:
        appointment_id, command_id = unsettled(lifecycle, sandbox, command)
        gets = support.gets(sandbox, appointment_id)
        done = resolve(lifecycle, command_id, "retry")
        assert done is not None
        assert (done.command_id, done.command) == (command_id, command)
        assert (support.posts(sandbox, appointment_id), support.effects(sandbox, appointment_id)) == (2, 1)
        assert support.gets(sandbox, appointment_id) == gets + 1
        seen = lifecycle.get(appointment_id)
        assert (seen.status, seen.in_doubt) == (sandbox.status_of(appointment_id), False)
        *_, retried, applied = lifecycle.history(appointment_id)
        assert (retried.event, retried.actor, retried.source, retried.reason_code) == (
            "command_retried",
            OPERATOR,
            "operator",
            CODE,
        )
        assert retried.details == {"attempt": 2}
        assert (applied.event, applied.command_id) == (
            "arrival_marked" if command == "mark_arrived" else "command_applied",
            command_id,
        )
        [row] = support.commands(database_url, appointment_id)
        assert (row["state"], row["attempt"], row["run_at"], row["lease_until"]) == ("applied", 2, None, None)


def test_a_retried_cancel_goes_without_its_text(lifecycle: Lifecycle, sandbox: Sandbox, database_url: str) -> None:
    """The free text was removed when the command ended; the type is sent again."""
    appointment_id, command_id = unsettled(
        lifecycle, sandbox, "cancel", reason_type="other_patient_reason", reason=REASON
    )
    assert REASON not in str(support.commands(database_url))
    resolve(lifecycle, command_id, "retry")
    assert support.calls(sandbox, appointment_id)[-1].body == {
        "appointment_id": appointment_id,
        "cancellation_reason_type": "other_patient_reason",
    }


def test_a_retry_meets_the_checks(lifecycle: Lifecycle, sandbox: Sandbox, database_url: str) -> None:
    """If the appointment does not permit the command any more it is refused, nothing is sent, and it stays listed."""
    appointment_id, command_id = unsettled(lifecycle, sandbox)
    sandbox.change(appointment_id, status="cancelled")
    with pytest.raises(TransitionRefused) as caught:
        resolve(lifecycle, command_id, "retry")
    assert (caught.value.status, caught.value.reasons) == ("cancelled", ("status_not_allowed",))
    assert support.posts(sandbox, appointment_id) == 1
    assert support.states(database_url) == ["needs_attention"]
    assert [each.command_id for each in lifecycle.attention()] == [command_id]
    seen = lifecycle.get(appointment_id)
    assert (seen.status, seen.in_doubt) == ("cancelled", True)
    assert last(lifecycle, appointment_id)[:5] == (
        "command_refused",
        OPERATOR,
        "operator",
        "refused",
        "status_not_allowed",
    )


def test_a_retry_waits_for_the_active_command(lifecycle: Lifecycle, sandbox: Sandbox, database_url: str) -> None:
    """While another command on the appointment is active the retry is refused by name; after it, it goes on."""
    appointment_id, command_id = unsettled(lifecycle, sandbox)
    support.lose_answer(sandbox, "cancel")
    with pytest.raises(OutcomeUnknown) as other:
        lifecycle.cancel(appointment_id, actor=ACTOR)
    with pytest.raises(CommandInProgress) as caught:
        resolve(lifecycle, command_id, "retry")
    assert (caught.value.active_command_id, caught.value.active_state) == (other.value.command_id, "uncertain")
    assert support.states(database_url) == ["needs_attention", "uncertain"]
    lifecycle.recover(wait=WAIT)
    done = resolve(lifecycle, command_id, "retry")
    assert done is not None
    assert done.to_status == "confirmed"


RETRIES: tuple[tuple[dict[str, Any], type[CommandRejected | OutcomeUnknown], str], ...] = (
    ({"kind": "answer", "status": 400}, CommandRejected, "rejected"),
    ({"kind": "answer", "status": 401, "times": 2}, CommandRejected, "rejected"),
    ({"kind": "reset"}, OutcomeUnknown, "uncertain"),
    ({"kind": "answer", "status": 500}, OutcomeUnknown, "uncertain"),
)


def test_a_retry_raises_what_a_command_raises(lifecycle: Lifecycle, sandbox: Sandbox, database_url: str) -> None:
    """Its answer may be lost again: then it is uncertain again, and recovery reads again."""
    for fault, error, state in RETRIES:
        appointment_id, command_id = unsettled(lifecycle, sandbox)
        support.arm(sandbox, operation="confirm", **fault)
        with pytest.raises(error) as caught:
            resolve(lifecycle, command_id, "retry")
        assert caught.value.command_id == command_id
        assert support.states(database_url, appointment_id) == [state]
        assert lifecycle.get(appointment_id).in_doubt == (state == "uncertain")
        if state == "uncertain":
            [settled] = lifecycle.recover(wait=WAIT).settled
            assert (settled.command_id, settled.state) == (command_id, "not_sent")
            assert lifecycle.get(appointment_id).in_doubt is False


def test_a_retry_is_recorded_though_the_database_fails_first(
    lifecycle: Lifecycle, sandbox: Sandbox, database_url: str
) -> None:
    """What the attempt before came to, an unknown outcome as well, is not taken for that of the retry."""
    appointment_id, command_id = unsettled(lifecycle, sandbox, "mark_arrived")
    support.lose_answer(sandbox, support.OPERATIONS["mark_arrived"])
    failures = [sa.exc.OperationalError("simulated", None, OSError("disk I/O error"))]

    def fail_once(point: Point) -> None:
        if point is Point.OUTCOME_OPEN and failures:
            raise failures.pop()

    with armed(fail_once), pytest.raises(OutcomeUnknown) as caught:
        resolve(lifecycle, command_id, "retry")
    assert (caught.value.state, failures) == ("uncertain", [])
    assert support.states(database_url) == ["uncertain"]
    assert command_state(lifecycle, appointment_id) == "outcome_lost"


def test_a_retry_that_cannot_be_sent_had_no_effect(lifecycle: Lifecycle, sandbox: Sandbox, database_url: str) -> None:
    """A 429 to its end: the retry is over, safely, and the doubt with it."""
    appointment_id, command_id = unsettled(lifecycle, sandbox)
    support.arm(sandbox, kind="answer", operation="confirm", status=429, headers={"Retry-After": "600"})
    with pytest.raises(NotSent):
        resolve(lifecycle, command_id, "retry")
    assert support.states(database_url) == ["not_sent"]
    assert lifecycle.get(appointment_id).in_doubt is False


def test_a_retry_that_cannot_read_changes_nothing(lifecycle: Lifecycle, sandbox: Sandbox, database_url: str) -> None:
    """It reads first: when that fails nothing is sent and the command still needs a human."""
    appointment_id, command_id = unsettled(lifecycle, sandbox)
    events = len(lifecycle.history(appointment_id))
    support.arm(sandbox, kind="answer", operation="get", status=500)
    with pytest.raises(ReadFailed):
        resolve(lifecycle, command_id, "retry")
    support.arm(sandbox, kind="answer", operation="get", status=404)
    with pytest.raises(AppointmentNotFound):
        resolve(lifecycle, command_id, "retry")
    assert support.posts(sandbox, appointment_id) == 1
    assert support.states(database_url) == ["needs_attention"]
    assert len(lifecycle.history(appointment_id)) == events


def test_a_retry_needs_the_credential_that_booked(
    server: Server, sandbox: Sandbox, client: ZocdocClient, database_url: str
) -> None:
    """A user's appointment is retried with that user's client only."""
    with support.user_client(server, "17") as users:
        with support.opened(database_url, users, FAST) as theirs:
            _, command_id = unsettled(theirs, sandbox, booked_by="user:17")
        with support.opened(database_url, client, FAST) as ours:
            with pytest.raises(CredentialNotAllowed) as caught:
                resolve(ours, command_id, "retry")
            assert caught.value.booked_with == "user:17"
        with support.opened(database_url, client, FAST, user_client={"17": users}.get) as both:
            done = resolve(both, command_id, "retry")
    assert done is not None
    assert done.to_status == "confirmed"


@pytest.mark.parametrize("resolution", ["applied", "rejected"])
def test_deciding_needs_no_client(lifecycle: Lifecycle, sandbox: Sandbox, database_url: str, resolution: str) -> None:
    """Who looked it up in the portal needs the database alone."""
    _, command_id = unsettled(lifecycle, sandbox)
    with support.opened(database_url, None) as bare:
        assert [each.command_id for each in bare.attention()] == [command_id]
        assert resolve(bare, command_id, resolution) is None
        assert bare.attention() == []


def test_what_does_not_need_attention_cannot_be_resolved(lifecycle: Lifecycle, sandbox: Sandbox) -> None:
    """An unknown id, an ended command, one in doubt, and one that was resolved before: each is told apart by state."""
    _, resolved = unsettled(lifecycle, sandbox)
    resolve(lifecycle, resolved, "rejected")
    done = lifecycle.confirm(support.tracked(lifecycle, sandbox), actor=ACTOR)
    support.lose_answer(sandbox, "confirm")
    appointment_id = support.tracked(lifecycle, sandbox)
    with pytest.raises(OutcomeUnknown) as lost:
        lifecycle.confirm(appointment_id, actor=ACTOR)
    calls = len(support.calls(sandbox))
    for resolution in Resolution:
        for command_id, state in (
            ("0" * 36, None),
            ("' OR 1=1", None),
            (done.command_id, "applied"),
            (lost.value.command_id, "uncertain"),
            (resolved, "rejected"),
        ):
            with pytest.raises(NothingToResolve) as caught:
                resolve(lifecycle, command_id, resolution)
            assert (caught.value.command_id, caught.value.state) == (command_id, state)
    assert len(support.calls(sandbox)) == calls


WRONG: tuple[dict[str, Any], ...] = (
    {"reason_code": ""},
    {"reason_code": "Seen in the portal"},
    {"reason_code": "SEEN"},
    {"reason_code": "1seen"},
    {"reason_code": "seen\n"},
    {"reason_code": "s" * 65},
    {"reason_code": "gesehen_ä"},
    {"reason_code": None},
    {"actor": ""},
    {"actor": "user\n99"},
    {"actor": "x" * 201},
    {"resolution": "maybe"},
    {"resolution": "APPLIED"},
    {"resolution": "needs_attention"},
)


def test_a_wrong_argument_changes_nothing(lifecycle: Lifecycle, sandbox: Sandbox) -> None:
    """A decision needs a name, a known word and a code; free text, which might name a patient, is refused."""
    appointment_id, command_id = unsettled(lifecycle, sandbox)
    before = lifecycle.history(appointment_id)
    for given in WRONG:
        with pytest.raises(InvalidArgument) as caught:
            lifecycle.resolve(
                command_id, **({"resolution": "rejected", "reason_code": CODE, "actor": OPERATOR} | given)
            )
        assert [caught.value.argument] == list(given)
    assert lifecycle.history(appointment_id) == before
    assert len(lifecycle.attention()) == 1


def test_the_longest_code_fits_both_databases(lifecycle: Lifecycle, sandbox: Sandbox) -> None:
    """What passes the check can be stored."""
    appointment_id, command_id = unsettled(lifecycle, sandbox)
    resolve(lifecycle, command_id, "rejected", reason_code="s" * 64, actor="x" * 200)
    assert last(lifecycle, appointment_id)[1:5] == ("x" * 200, "operator", "rejected", "s" * 64)


def test_doubt_ends_with_the_last_command_that_needs_attention(lifecycle: Lifecycle, sandbox: Sandbox) -> None:
    """With two such commands on one appointment, deciding about one leaves it in doubt."""
    appointment_id, first = unsettled(lifecycle, sandbox, "mark_arrived", status="confirmed")
    support.lose_answer(sandbox, "update_status")
    with pytest.raises(OutcomeUnknown) as lost:
        lifecycle.mark_arrived(appointment_id, actor=ACTOR)
    lifecycle.recover(wait=WAIT)
    assert [each.command_id for each in lifecycle.attention()] == [first, lost.value.command_id]
    resolve(lifecycle, lost.value.command_id, "applied")
    assert lifecycle.get(appointment_id).in_doubt is True
    assert [each.command_id for each in lifecycle.attention()] == [first]
    resolve(lifecycle, first, "rejected")
    assert lifecycle.get(appointment_id).in_doubt is False


def test_doubt_stays_while_another_command_is_uncertain(lifecycle: Lifecycle, sandbox: Sandbox) -> None:
    """A decision about an older command must not hide that a newer one is in doubt."""
    appointment_id, first = unsettled(lifecycle, sandbox)
    support.lose_answer(sandbox, "cancel")
    with pytest.raises(OutcomeUnknown):
        lifecycle.cancel(appointment_id, actor=ACTOR)
    resolve(lifecycle, first, "rejected")
    assert lifecycle.get(appointment_id).in_doubt is True
    lifecycle.recover(wait=WAIT)
    assert lifecycle.get(appointment_id).in_doubt is False


@pytest.mark.parametrize("resolutions", [("applied", "rejected"), ("applied", "applied"), ("retry", "rejected")])
def test_of_two_operators_one_decides(
    lifecycle: Lifecycle, sandbox: Sandbox, client: ZocdocClient, database_url: str, resolutions: tuple[str, str]
) -> None:
    """Both look at the list and decide at once: one decision is in the trail, the other one hears that."""
    for _ in range(3):
        appointment_id, command_id = unsettled(lifecycle, sandbox)
        with support.opened(database_url, client, FAST) as other:
            products = (lifecycle, other)
            names = ("user:1", "user:2")
            results = support.together(
                2,
                lambda n: resolve(products[n], command_id, resolutions[n], actor=names[n]),  # noqa: B023 # ends within
            )
        lost = [each for each in results if isinstance(each, LifecycleError)]
        assert len(lost) == 1, results
        assert isinstance(lost[0], NothingToResolve), results
        events = lifecycle.history(appointment_id)
        decisions = [each for each in events if each.event in {"command_resolved", "command_retried"}]
        assert [each.actor for each in decisions] == [names[1 - results.index(lost[0])]]
        assert support.posts(sandbox, appointment_id) <= 2
        assert lifecycle.get(appointment_id).in_doubt is False


def test_of_two_retries_one_is_sent(
    lifecycle: Lifecycle, sandbox: Sandbox, client: ZocdocClient, database_url: str
) -> None:
    """Two operators who both want it sent again cause one call."""
    for _ in range(3):
        appointment_id, command_id = unsettled(lifecycle, sandbox, "reschedule")
        with support.opened(database_url, client, FAST) as other:
            products = (lifecycle, other)
            results = support.together(2, lambda n: resolve(products[n], command_id, "retry"))  # noqa: B023 # ends within
        assert sum(isinstance(each, Done) for each in results) == 1, results
        assert sum(isinstance(each, (CommandInProgress, NothingToResolve)) for each in results) == 1, results
        assert (support.posts(sandbox, appointment_id), support.effects(sandbox, appointment_id)) == (2, 1)


def test_an_attention_shows_no_patient(lifecycle: Lifecycle, sandbox: Sandbox) -> None:
    """The evidence is statuses, times and codes: no text, no patient id."""
    unsettled(lifecycle, sandbox, "cancel", reason_type="other_patient_reason", reason=REASON)
    [found] = lifecycle.attention()
    assert REASON not in repr(found)
    assert not any("patient" in name or name in {"payload", "reason"} for name in fields_of(found))


def fields_of(record: Attention) -> tuple[str, ...]:
    """Name the fields of a record."""
    return tuple(type(record).__dataclass_fields__)


def test_a_repeated_request_key_hears_the_decision(lifecycle: Lifecycle, sandbox: Sandbox) -> None:
    """Whoever asked hears, by the key, what the operator decided: applied, or rejected by that code."""
    for resolution in ("applied", "rejected"):
        appointment_id, command_id = unsettled(lifecycle, sandbox, request_key=f"key-{resolution}")
        with pytest.raises(OutcomeUnknown) as caught:
            lifecycle.confirm(appointment_id, actor=ACTOR, request_key=f"key-{resolution}")
        assert caught.value.state == "needs_attention"
        resolve(lifecycle, command_id, resolution)
        posts = support.posts(sandbox, appointment_id)
        if resolution == "applied":
            done = lifecycle.confirm(appointment_id, actor=ACTOR, request_key="key-applied")
            assert (done.command_id, done.to_status) == (command_id, "confirmed")
        else:
            with pytest.raises(CommandRejected) as rejected:
                lifecycle.confirm(appointment_id, actor=ACTOR, request_key="key-rejected")
            assert (rejected.value.command_id, rejected.value.reason_code) == (command_id, CODE)
        assert support.posts(sandbox, appointment_id) == posts
