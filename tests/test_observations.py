"""What Zocdoc reports is recorded, whether the chart expects it or not; what is older never wins."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from lifecycle import (
    AppointmentNotFound,
    CredentialNotAllowed,
    EnvironmentMismatch,
    InvalidArgument,
    Lifecycle,
    OutcomeUnknown,
    ReadFailed,
)
from tests import support
from tests.support import ACTOR
from tests.test_chart import EXPECTED

if TYPE_CHECKING:
    from lifecycle import ZocdocClient
    from lifecycle.sandbox import Sandbox, Server

START = "2031-03-01T09:00:00-05:00"
WHOLE: dict[str, Any] = {
    "appointment_status": "confirmed",
    "confirmation_type": "auto",
    "start_time": START,
    "created_time_utc": "2026-05-01T10:00:00Z",
    "last_modified_time_utc": "2026-05-02T10:00:00.000001Z",
    "provider_location_id": "pr_a|lo_b",
    "visit_reason_id": "pc_a",
    "practice_id": "pt_a",
    "developer_patient_id": "patient-1",
}


def report(sandbox: Sandbox, appointment_id: str, *without: str, **facts: Any) -> None:
    """Have the next read answered with these facts, and without some fields."""
    data = {"appointment_id": appointment_id, **WHOLE, **facts}
    body = json.dumps({"request_id": "rq-read", "data": {k: v for k, v in data.items() if k not in without}})
    support.arm(sandbox, kind="answer", operation="get", status=200, body=body)


def followed(lifecycle: Lifecycle, sandbox: Sandbox, *without: str, **facts: Any) -> str:
    """Track an appointment that Zocdoc reports like this."""
    appointment_id = sandbox.add()
    report(sandbox, appointment_id, *without, **facts)
    lifecycle.track(appointment_id, actor=ACTOR)
    return appointment_id


def again(lifecycle: Lifecycle, sandbox: Sandbox, appointment_id: str, *without: str, **facts: Any) -> Any:
    """Track it once more, with another report."""
    report(sandbox, appointment_id, *without, **facts)
    return lifecycle.track(appointment_id, actor="job:poll")


def test_tracking_persists_the_whole_row(lifecycle: Lifecycle, sandbox: Sandbox) -> None:
    """The first read becomes the row and the first event, and nothing is invented."""
    appointment_id = followed(lifecycle, sandbox, notes="CANARY", cancellation_reason="CANARY")
    seen = lifecycle.get(appointment_id)
    assert seen.start_time.isoformat() == START
    assert seen.observed_at == seen.tracked_at == seen.updated_at
    facts = {name: getattr(seen, name) for name in type(seen).__slots__}
    assert facts["status_since"] == facts["tracked_at"]
    for name in ("observed_at", "tracked_at", "status_since", "updated_at", "start_time"):
        del facts[name]
    assert facts == {
        "appointment_id": appointment_id,
        "status": "confirmed",
        "status_known": True,
        "version": 1,
        "provider_location_id": "pr_a|lo_b",
        "practice_id": "pt_a",
        "visit_reason_id": "pc_a",
        "booked_with": "machine",
        "confirmation_type": "auto",
        "booked_at": datetime(2026, 5, 1, 10, tzinfo=UTC),
        "arrived_at": None,
        "in_doubt": False,
        "remote_last_modified": datetime(2026, 5, 2, 10, 0, 0, 1, tzinfo=UTC),
    }
    [event] = lifecycle.history(appointment_id)
    assert (event.event, event.from_status, event.to_status, event.conforming) == (
        "appointment_tracked",
        None,
        "confirmed",
        True,
    )
    assert (event.actor, event.source, event.http_status, event.zocdoc_request_id) == (ACTOR, "api", 200, "rq-read")
    assert event.occurred_at == seen.remote_last_modified
    assert event.details == {"start_time": "2031-03-01T14:00:00.000000Z", "booked_with": "machine"}
    assert (event.command, event.command_id, event.outcome, event.reason_code) == (None, None, None, None)


def test_tracking_again_without_news_is_no_event(lifecycle: Lifecycle, sandbox: Sandbox) -> None:
    """Nothing happened, so the trail and the version stay; only the time of the last look moves."""
    appointment_id = support.tracked(lifecycle, sandbox)
    first = lifecycle.get(appointment_id)
    second = lifecycle.track(appointment_id, actor="job:poll")
    assert second.observed_at > first.observed_at
    assert (second.version, second.updated_at) == (first.version, first.updated_at)
    assert len(lifecycle.history(appointment_id)) == 1


@pytest.mark.parametrize("status", support.STATUSES)
def test_whatever_zocdoc_reports_is_recorded(lifecycle: Lifecycle, sandbox: Sandbox, status: str) -> None:
    """From each status to each other one: the move is kept, and `conforming` says whether the design has it."""
    for answer in (*support.STATUSES, "waitlisted"):
        appointment_id = support.tracked(lifecycle, sandbox, status=status)
        sandbox.change(appointment_id, status=answer)
        seen = lifecycle.track(appointment_id, actor="job:poll")
        assert (seen.status, seen.status_known) == (answer, answer != "waitlisted")
        events = lifecycle.history(appointment_id)[1:]
        if answer == status:
            assert events == []
            continue
        [event] = events
        assert (event.event, event.from_status, event.to_status) == ("appointment_observed", status, answer)
        assert event.conforming == ((status, answer) in EXPECTED["observed"])
        assert (event.actor, event.command, event.command_id, event.http_status) == ("job:poll", None, None, 200)
        assert event.occurred_at == sandbox.appointment(appointment_id).modified


def test_an_older_report_never_wins(lifecycle: Lifecycle, sandbox: Sandbox) -> None:
    """A report with an older modification time changes nothing, one microsecond is enough."""
    appointment_id = followed(lifecycle, sandbox)
    before = lifecycle.get(appointment_id)
    seen = again(
        lifecycle,
        sandbox,
        appointment_id,
        appointment_status="cancelled",
        last_modified_time_utc="2026-05-02T10:00:00.000000Z",
    )
    assert (seen.status, seen.version) == ("confirmed", before.version)
    assert seen.remote_last_modified == before.remote_last_modified
    assert len(lifecycle.history(appointment_id)) == 1


def test_modification_times_are_compared_as_instants(lifecycle: Lifecycle, sandbox: Sandbox) -> None:
    """The same instant in another offset is equal, not older, though its text is smaller."""
    appointment_id = followed(lifecycle, sandbox)
    seen = again(
        lifecycle,
        sandbox,
        appointment_id,
        appointment_status="cancelled",
        last_modified_time_utc="2026-05-02T05:00:00.000001-05:00",
    )
    assert seen.status == "cancelled"


def test_an_equal_time_with_other_content_is_recorded(lifecycle: Lifecycle, sandbox: Sandbox) -> None:
    """Equal modification times are compared by content: a difference is news, sameness is none."""
    appointment_id = followed(lifecycle, sandbox)
    assert again(lifecycle, sandbox, appointment_id).version == 1
    seen = again(lifecycle, sandbox, appointment_id, provider_location_id="pr_c|lo_d")
    assert (seen.provider_location_id, seen.version) == ("pr_c|lo_d", 2)
    event = lifecycle.history(appointment_id)[-1]
    assert (event.event, event.from_status, event.to_status, event.conforming) == (
        "appointment_observed",
        "confirmed",
        "confirmed",
        True,
    )
    assert event.details == {"changed": ["provider_location_id"]}


def test_the_same_start_in_another_offset_moves_no_visit(lifecycle: Lifecycle, sandbox: Sandbox) -> None:
    """Instants are compared, not strings: the same moment written otherwise is not a moved visit."""
    appointment_id = followed(lifecycle, sandbox)
    seen = again(lifecycle, sandbox, appointment_id, start_time="2031-03-01T14:00:00Z")
    assert seen.start_time == datetime.fromisoformat(START)
    assert all("start_time" not in each.details for each in lifecycle.history(appointment_id)[1:])
    assert all(each.conforming for each in lifecycle.history(appointment_id))


def test_a_moved_start_is_a_move_even_without_a_new_status(lifecycle: Lifecycle, sandbox: Sandbox) -> None:
    """A rescheduled visit may be moved again; a confirmed one that moves without a status does not conform."""
    for status, conforming in (("rescheduled", True), ("confirmed", False)):
        appointment_id = followed(lifecycle, sandbox, appointment_status=status)
        again(lifecycle, sandbox, appointment_id, appointment_status=status, start_time="2031-04-01T09:00:00-04:00")
        event = lifecycle.history(appointment_id)[-1]
        assert (event.event, event.conforming) == ("appointment_observed", conforming)
        assert event.details["start_time"] == "2031-04-01T13:00:00.000000Z"
        assert lifecycle.get(appointment_id).start_time.isoformat() == "2031-04-01T09:00:00-04:00"


@pytest.mark.parametrize("how", ["left out", "null", "malformed"])
def test_what_zocdoc_leaves_out_does_not_wipe_what_is_known(lifecycle: Lifecycle, sandbox: Sandbox, how: str) -> None:
    """An optional field that is absent, null or broken says nothing, so what is known stays."""
    optional = ("provider_location_id", "visit_reason_id", "practice_id", "developer_patient_id", "confirmation_type")
    appointment_id = followed(lifecycle, sandbox)
    before = lifecycle.get(appointment_id)
    if how == "left out":
        seen = again(lifecycle, sandbox, appointment_id, *optional, "created_time_utc")
    else:
        value = None if how == "null" else {"a": 1}
        seen = again(lifecycle, sandbox, appointment_id, **dict.fromkeys((*optional, "created_time_utc"), value))
    for name in ("provider_location_id", "visit_reason_id", "practice_id", "confirmation_type", "booked_at"):
        assert getattr(seen, name) == getattr(before, name) is not None
    assert len(lifecycle.history(appointment_id)) == 1


def test_a_report_without_a_time_does_not_open_the_door_for_older_ones(lifecycle: Lifecycle, sandbox: Sandbox) -> None:
    """Older never wins, even if a report without a modification time came in between."""
    appointment_id = followed(lifecycle, sandbox)
    again(lifecycle, sandbox, appointment_id, "last_modified_time_utc")
    seen = again(
        lifecycle,
        sandbox,
        appointment_id,
        appointment_status="cancelled",
        last_modified_time_utc="2026-05-01T10:00:00Z",
    )
    assert seen.status == "confirmed"


def test_our_own_command_does_not_open_the_door_for_older_reports(lifecycle: Lifecycle, sandbox: Sandbox) -> None:
    """After a command of ours, a report that is older than what was known before it is still older."""
    appointment_id = support.tracked(lifecycle, sandbox)
    modified = sandbox.appointment(appointment_id).modified
    lifecycle.confirm(appointment_id, actor=ACTOR)
    seen = again(
        lifecycle,
        sandbox,
        appointment_id,
        appointment_status="booking_failed",
        last_modified_time_utc=(modified - timedelta(days=1)).isoformat(),
    )
    assert seen.status == "confirmed"


def test_an_older_report_does_not_follow_a_conflict(lifecycle: Lifecycle, sandbox: Sandbox) -> None:
    """The read after a 409 is a report like any other: if it is old, it changes nothing."""
    appointment_id = support.tracked(lifecycle, sandbox)
    support.arm(sandbox, kind="answer", operation="confirm", status=409)
    report(sandbox, appointment_id, appointment_status="no_show", last_modified_time_utc="2020-01-01T00:00:00Z")
    with pytest.raises(Exception, match="conflict"):
        lifecycle.confirm(appointment_id, actor=ACTOR)
    assert lifecycle.get(appointment_id).status == "pending_booking"


def test_an_unknown_appointment_is_not_tracked(lifecycle: Lifecycle, sandbox: Sandbox) -> None:
    """A 404 is `AppointmentNotFound`, with Zocdoc's request id, and leaves no row."""
    with pytest.raises(AppointmentNotFound) as caught:
        lifecycle.track("83f5cf14-3eb1-4034-be1f-e7c3058aad21", actor=ACTOR)
    assert caught.value.at_zocdoc is True
    assert caught.value.zocdoc_request_id == support.calls(sandbox)[-1].request_id
    assert list(lifecycle.appointments()) == []


@pytest.mark.parametrize("status", [401, 403, 500, 302])
def test_a_failed_read_is_named_and_writes_nothing(lifecycle: Lifecycle, sandbox: Sandbox, status: int) -> None:
    """Whatever goes wrong with the read is `ReadFailed` with its facts; the row stays as it was."""
    appointment_id = support.tracked(lifecycle, sandbox)
    before = lifecycle.get(appointment_id)
    support.arm(sandbox, kind="answer", operation="get", status=status, times=2)
    with pytest.raises(ReadFailed) as caught:
        lifecycle.track(appointment_id, actor=ACTOR)
    assert (caught.value.appointment_id, caught.value.http_status) == (appointment_id, status)
    assert lifecycle.get(appointment_id) == before


def test_a_malformed_id_reaches_no_url(lifecycle: Lifecycle, sandbox: Sandbox) -> None:
    """An id that could change the path of a URL is refused before anything is opened or sent."""
    malformed: list[Any] = ["", "..", "a/b", "a b", "a\n", "ä", "x" * 65, "%2e%2e", None, 7, "a\0"]
    for appointment_id in malformed:
        for call in (lifecycle.track, lifecycle.confirm):
            with pytest.raises(InvalidArgument) as caught:
                call(appointment_id, actor=ACTOR)
            assert caught.value.argument == "appointment_id"
    assert sandbox.ledger.entries() == []


def test_ids_that_are_no_uuids_are_fine(lifecycle: Lifecycle, sandbox: Sandbox) -> None:
    """The published webhook example's id is not a UUID, and works."""
    for appointment_id in ("62g4ar44-1yv9-0931-dl3t-e9c2174kks09", "A_-0", "x" * 64):
        sandbox.add(appointment_id)
        assert lifecycle.track(appointment_id, actor=ACTOR).appointment_id == appointment_id


def test_an_actor_is_a_printable_name(lifecycle: Lifecycle, sandbox: Sandbox) -> None:
    """Who asked must be readable in every row."""
    appointment_id = support.tracked(lifecycle, sandbox)
    actors: list[Any] = ["", "   ", "x" * 201, "a\0b", "a\nb", None, 7]
    for actor in actors:
        for call in (lifecycle.track, lifecycle.confirm):
            with pytest.raises(InvalidArgument) as caught:
                call(appointment_id, actor=actor)
            assert caught.value.argument == "actor"
    assert len(lifecycle.history(appointment_id)) == 1


def test_many_may_track_at_once(lifecycle: Lifecycle, sandbox: Sandbox) -> None:
    """Eight threads that track the same new appointment make one row and one event."""
    appointment_id = sandbox.add()
    results = support.together(8, lambda index: lifecycle.track(appointment_id, actor=f"user:{index}"))
    assert {type(each).__name__ for each in results} == {"Appointment"}, results
    assert len(lifecycle.history(appointment_id)) == 1


def test_many_may_follow_at_once(lifecycle: Lifecycle, sandbox: Sandbox) -> None:
    """Eight threads that read the same news record it once."""
    appointment_id = support.tracked(lifecycle, sandbox)
    sandbox.change(appointment_id, status="confirmed")
    results = support.together(8, lambda _: lifecycle.track(appointment_id, actor="job:poll"))
    assert {getattr(each, "status", each) for each in results} == {"confirmed"}
    assert len(lifecycle.history(appointment_id)) == 2


def test_who_booked_cannot_be_told_twice_differently(
    lifecycle: Lifecycle, sandbox: Sandbox, server: Server, client: ZocdocClient, database_url: str
) -> None:
    """A second `booked_with` that contradicts the first is an error of the caller; nothing changes."""
    appointment_id = support.tracked(lifecycle, sandbox)
    with (
        support.user_client(server, "7") as user,
        support.opened(database_url, client, user_client={"7": user}.get) as product,
        pytest.raises(InvalidArgument) as caught,
    ):
        product.track(appointment_id, actor=ACTOR, booked_with="user:7")
    assert caught.value.argument == "booked_with"
    assert lifecycle.get(appointment_id).booked_with == "machine"


def test_booked_with_has_two_forms(lifecycle: Lifecycle, sandbox: Sandbox) -> None:
    """`machine` or `user:ID`, printable and bounded; anything else is refused before a call."""
    for booked_with in ("", "user:", "user", "Machine", "robot:1", "user:\n", "user:" + "x" * 124):
        with pytest.raises(InvalidArgument) as caught:
            lifecycle.track(sandbox.add(), actor=ACTOR, booked_with=booked_with)
        assert caught.value.argument == "booked_with"
    assert sandbox.ledger.entries() == []


def test_without_any_client_nothing_can_be_tracked(database_url: str) -> None:
    """No credential at hand is `CredentialNotAllowed`, naming who booked."""
    with support.opened(database_url, None) as product, pytest.raises(CredentialNotAllowed) as caught:
        product.track("a", actor=ACTOR)
    assert (caught.value.appointment_id, caught.value.booked_with) == ("a", "machine")


STAMP = "SELECT zocdoc_environment FROM lifecycle_installation"


def test_the_first_use_stamps_the_database(lifecycle: Lifecycle, sandbox: Sandbox, database_url: str) -> None:
    """One database belongs to one Zocdoc environment, written at first use."""
    assert support.query(database_url, STAMP) == []
    support.tracked(lifecycle, sandbox)
    assert support.query(database_url, STAMP) == [{"zocdoc_environment": "local"}]


def test_a_first_use_that_fails_does_not_prevent_the_stamp(
    lifecycle: Lifecycle, sandbox: Sandbox, database_url: str
) -> None:
    """If the first call of all was an error, the next one still stamps the database."""
    with pytest.raises(AppointmentNotFound):
        lifecycle.confirm("untracked", actor=ACTOR)
    support.tracked(lifecycle, sandbox)
    assert support.query(database_url, STAMP) == [{"zocdoc_environment": "local"}]


def test_a_client_of_another_environment_is_refused(
    lifecycle: Lifecycle, sandbox: Sandbox, client: ZocdocClient, database_url: str
) -> None:
    """Commands and reads through another environment's client are refused, without a row and without a POST."""
    appointment_id = support.tracked(lifecycle, sandbox)
    sandbox.change(appointment_id, status="cancelled")
    support.query(database_url, "UPDATE lifecycle_installation SET zocdoc_environment = 'production'")
    with support.opened(database_url, client) as product:
        for call in (
            lambda: product.confirm(appointment_id, actor=ACTOR),
            lambda: product.track(appointment_id, actor=ACTOR),
            lambda: product.track(sandbox.add(), actor=ACTOR),
        ):
            with pytest.raises(EnvironmentMismatch) as caught:
                call()
            assert (caught.value.database, caught.value.client) == ("production", "local")
    assert support.posts(sandbox, appointment_id) == 0
    assert len(lifecycle.history(appointment_id)) == 1
    assert len(list(lifecycle.appointments())) == 1


def test_a_command_on_what_is_not_tracked_is_an_error_and_no_event(lifecycle: Lifecycle, sandbox: Sandbox) -> None:
    """An untracked appointment has no trail; nothing is sent."""
    appointment_id = sandbox.add()
    for command in support.COMMANDS:
        with pytest.raises(AppointmentNotFound) as caught:
            support.send(lifecycle, command, appointment_id)
        assert caught.value.at_zocdoc is False
    for read in (lifecycle.get, lifecycle.history):
        with pytest.raises(AppointmentNotFound):
            read(appointment_id)
    assert sandbox.ledger.entries() == []


def test_an_event_outside_is_seen_while_in_doubt_only_by_recovery(lifecycle: Lifecycle, sandbox: Sandbox) -> None:
    """While a command is uncertain a read stores nothing: its settlement compares with the state before it."""
    appointment_id = support.tracked(lifecycle, sandbox)
    support.lose_answer(sandbox, "confirm", when="after")
    with pytest.raises(OutcomeUnknown):
        lifecycle.confirm(appointment_id, actor=ACTOR)
    assert lifecycle.track(appointment_id, actor="job:poll").status == "pending_booking"
    assert [each.state for each in lifecycle.recover(wait=5.0).settled] == ["applied"]
