"""The checks before a command: their codes and edges, and that explaining and firing never disagree."""

from __future__ import annotations

import itertools
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pytest

from lifecycle import AppointmentNotFound, Command, InvalidArgument, TransitionRefused, chart, guards
from tests import support
from tests.support import ACTOR, ALLOWED, COMMANDS, STATUSES

if TYPE_CHECKING:
    from lifecycle import Lifecycle, ZocdocClient
    from lifecycle.sandbox import Sandbox, Server

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
TWO_DAYS = timedelta(days=2)
TICK = timedelta(microseconds=1)
FINE = guards.Situation(
    command=Command.CANCEL,
    status="confirmed",
    booked_with="machine",
    credential="machine",
    start_time=NOW - timedelta(hours=1),
    now=NOW,
    requested_start=NOW + timedelta(days=1),
    reason_type="other_patient_reason",
)


def reasons(**facts: Any) -> tuple[str, ...]:
    """Give the reasons against a command that is fine but for these facts."""
    return guards.decide(replace(FINE, **facts)).reasons


def advice(**facts: Any) -> tuple[str, ...]:
    """Give the advice on a command that is fine but for these facts."""
    return guards.decide(replace(FINE, **facts)).advice


@pytest.mark.parametrize("command", COMMANDS)
def test_the_status_rule_is_the_designs(command: str) -> None:
    """A command is allowed from exactly the documented statuses (ours, for arrivals and no-shows)."""
    allowed = {status for status in STATUSES if not reasons(command=Command(command), status=status)}
    assert allowed == ALLOWED[command]
    refused = {reasons(command=Command(command), status=status) for status in set(STATUSES) - allowed}
    assert refused == {("status_not_allowed",)}
    assert reasons(command=Command(command), status="waitlisted") == ("status_unknown",)


@pytest.mark.parametrize(
    ("age", "expected"),
    [
        (-timedelta(days=1), ("no_show_before_start",)),
        (-TICK, ("no_show_before_start",)),
        (timedelta(0), ("no_show_before_start",)),
        (TICK, ()),
        (timedelta(days=1), ()),
        (TWO_DAYS - TICK, ()),
        (TWO_DAYS, ()),
        (TWO_DAYS + TICK, ("no_show_too_late",)),
        (timedelta(days=400), ("no_show_too_late",)),
    ],
)
def test_the_no_show_window_has_these_edges(age: timedelta, expected: tuple[str, ...]) -> None:
    """The start must lie in the past (not now) and be at most two days old (exactly two days are fine)."""
    assert reasons(command=Command.MARK_NO_SHOW, start_time=NOW - age) == expected


@pytest.mark.parametrize("hours", [-12, -5, 0, 5.75, 14])
def test_the_no_show_window_compares_instants(hours: float) -> None:
    """Two days are 48 hours in every offset, whatever the wall clocks show."""
    offset = timezone(timedelta(hours=hours))
    edge = (NOW - TWO_DAYS).astimezone(offset)
    assert reasons(command=Command.MARK_NO_SHOW, start_time=edge) == ()
    assert reasons(command=Command.MARK_NO_SHOW, start_time=edge - TICK) == ("no_show_too_late",)


def test_the_no_show_window_is_not_fooled_by_daylight_saving() -> None:
    """Over a change of the clocks the local times are 47 hours apart; the instants are two days and an hour."""
    start = datetime.fromisoformat("2026-10-31T12:00:00-04:00")
    assert reasons(command=Command.MARK_NO_SHOW, start_time=start, now=datetime(2026, 11, 2, 16, tzinfo=UTC)) == ()
    local_noon = datetime.fromisoformat("2026-11-02T12:00:00-05:00")
    assert reasons(command=Command.MARK_NO_SHOW, start_time=start, now=local_noon) == ("no_show_too_late",)


@pytest.mark.parametrize(
    ("booked_with", "credential", "allowed"),
    [
        ("machine", "machine", True),
        ("user:7", "user:7", True),
        ("user:7", "user:8", False),
        ("user:7", "machine", False),
        ("machine", "user:7", False),
        ("machine", None, False),
        ("user:7", None, False),
    ],
)
@pytest.mark.parametrize("command", COMMANDS)
def test_only_the_identity_that_booked_may_act(
    command: str, booked_with: str, credential: str | None, *, allowed: bool
) -> None:
    """A user's booking is open to that user only, a machine's to any machine client."""
    status = "pending_booking"
    found = reasons(command=Command(command), status=status, booked_with=booked_with, credential=credential)
    assert found == (() if allowed else ("credential_not_allowed",))


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        (None, ()),
        ("queued", "command_in_progress"),
        ("sending", "command_in_progress"),
        ("uncertain", "outcome_in_doubt"),
    ],
)
def test_one_active_command_at_most(state: str | None, expected: str | tuple[str, ...]) -> None:
    """While one command is active no other may begin; an uncertain one has its own code, for another remedy."""
    assert reasons(active_command=state) == ((expected,) if isinstance(expected, str) else expected)


def test_a_new_start_needs_an_offset() -> None:
    """A local time is ambiguous: without an offset it is refused; with any offset it passes, past or not."""
    naive = datetime(2031, 3, 1, 9)  # noqa: DTZ001 # the point of the test
    assert reasons(command=Command.RESCHEDULE, requested_start=naive) == ("start_time_without_offset",)
    for start in (NOW, NOW - timedelta(days=900), NOW + timedelta(days=900)):
        assert reasons(command=Command.RESCHEDULE, requested_start=start) == ()


def test_all_reasons_are_named_at_once() -> None:
    """Whoever is refused hears every reason, in a fixed order, not one after the other."""
    found = reasons(
        command=Command.MARK_NO_SHOW,
        status="cancelled",
        credential="user:8",
        start_time=NOW + timedelta(days=1),
        active_command="sending",
    )
    assert found == (
        "status_not_allowed",
        "credential_not_allowed",
        "no_show_before_start",
        "command_in_progress",
    )


def test_advice_names_what_is_only_recommended() -> None:
    """A past start, a missing reason type and a text beside a plain type are advised on, never refused."""
    assert advice() == ()
    assert advice(reason_type=None) == ("reason_type_missing",)
    assert advice(reason_type=None, has_reason_text=True) == ("reason_type_missing", "reason_text_without_other_type")
    assert advice(reason_type="provider_not_available") == ()
    assert advice(reason_type="provider_not_available", has_reason_text=True) == ("reason_text_without_other_type",)
    for other in ("other_patient_reason", "other_provider_reason"):
        assert advice(reason_type=other, has_reason_text=True) == ()
    assert advice(command=Command.RESCHEDULE, requested_start=NOW - TICK) == ("start_time_in_past",)
    assert advice(command=Command.RESCHEDULE, requested_start=NOW) == ()
    assert advice(command=Command.CONFIRM, reason_type=None) == ()
    assert reasons(reason_type=None, has_reason_text=True) == ()


GRID = [
    replace(
        FINE,
        command=Command(command),
        status=status,
        credential=credential,
        start_time=NOW - age,
        active_command=active,
        requested_start=NOW - timedelta(days=1) if active else NOW + timedelta(days=1),
        reason_type=None if active else "other_patient_reason",
        has_reason_text=age == timedelta(0),
    )
    for command, status, credential, age, active in itertools.product(
        COMMANDS,
        (*STATUSES, "waitlisted"),
        ("machine", "user:7", None),
        (-timedelta(days=1), timedelta(0), timedelta(days=1), timedelta(days=3)),
        (None, "sending", "uncertain"),
    )
]


def test_explaining_and_deciding_never_disagree() -> None:
    """Over a grid of 1,620 situations the failed checks of `explain` are the reasons and advice of `decide`."""
    assert len(GRID) == 1620
    for situation in GRID:
        explained, decision = guards.explain(situation), guards.decide(situation)
        failed = [each for each in explained if each.passed is False]
        if situation.credential is None:
            # Explaining does not judge a credential that is not there; firing refuses.
            assert {each.check for each in explained if each.passed is None} == {"credential"}
            assert "credential_not_allowed" in decision.reasons
            decision = guards.decide(replace(situation, credential="machine"))
        assert tuple(each.code for each in failed if each.required) == decision.reasons
        assert tuple(each.code for each in failed if not each.required) == decision.advice
        assert all((each.code is None) == (each.passed is not False) for each in explained)
        assert all(each.rule.startswith(("Zocdoc ", "Ours: ")) for each in explained)


@pytest.mark.parametrize(
    ("command", "checks"),
    [
        ("confirm", ["status", "credential", "active_command"]),
        ("cancel", ["status", "credential", "active_command", "reason_type", "reason_text"]),
        ("reschedule", ["status", "credential", "start_time_offset", "active_command", "start_time_ahead"]),
        ("mark_arrived", ["status", "credential", "active_command"]),
        ("mark_no_show", ["status", "credential", "no_show_window", "active_command"]),
    ],
)
def test_each_command_is_explained_by_its_own_checks(command: str, checks: list[str]) -> None:
    """Only checks that concern the command are named; one whose argument is missing is neither passed nor failed."""
    explained = guards.explain(replace(FINE, command=Command(command), requested_start=None))
    assert [each.check for each in explained] == checks
    unjudged = [each.check for each in explained if each.passed is None]
    assert unjudged == [name for name in checks if name.startswith("start_time")]


@pytest.mark.parametrize(
    ("text", "utc"),
    [
        ("2026-12-01T09:00:00-05:00", "2026-12-01T14:00:00+00:00"),
        ("2026-12-01T09:00-05:00", "2026-12-01T14:00:00+00:00"),
        ("2026-12-01T14:00:00Z", "2026-12-01T14:00:00+00:00"),
        ("2026-12-01T14:00:00.5Z", "2026-12-01T14:00:00.500000+00:00"),
        ("2026-12-01T14:00:00.123456+00:00", "2026-12-01T14:00:00.123456+00:00"),
        ("2026-12-01T19:45:00+05:45", "2026-12-01T14:00:00+00:00"),
        ("2024-02-29T00:00:00Z", "2024-02-29T00:00:00+00:00"),
        ("2026-11-01T01:30:00-04:00", "2026-11-01T05:30:00+00:00"),
        ("2026-11-01T01:30:00-05:00", "2026-11-01T06:30:00+00:00"),
    ],
)
def test_these_starts_are_read(text: str, utc: str) -> None:
    """ISO 8601 with an offset is read as an instant; both hours of a clock change are told apart."""
    assert guards.parse_start(text).astimezone(UTC).isoformat() == utc


def test_a_start_without_an_offset_is_read_as_naive() -> None:
    """It is a date and time, so the check about the offset can name what is missing."""
    assert guards.parse_start("2026-12-01T09:00:00").utcoffset() is None


NO_STARTS = [
    "",
    "tomorrow",
    "2026-12-01",
    "2026-12-01 09:00:00-05:00",
    "2026-12-01t09:00:00-05:00",
    "20261201T090000-0500",
    "2026-W49-2T09:00:00-05:00",
    "2026-12-01T09:00:00-0500",
    "2026-12-01T09:00:00-05",
    "2026-12-01T09:00:00 -05:00",
    "2026-12-01T09-05:00",
    "2026-12-01T09:00:00,5-05:00",
    "2026-12-01T09:00:00.1234567-05:00",
    "2026-12-01T09:00:00-05:00:30",
    "2026-12-01T09:00:00z",
    "2026-12-01T24:00:00Z",
    "2026-12-01T09:60:00Z",
    "2026-12-01T09:00:60Z",
    "2026-02-29T09:00:00Z",
    "2026-13-01T09:00:00Z",
    "2026-12-01T09:00:00+24:00",
    "2026-12-01T09:00:00+05:60",
    "2026-12-01T09:00:00+05:99",
    "0001-01-01T00:00:00+14:00",
    "9999-12-31T23:59:59-14:00",
    "2026-12-01T09:00:00-05:00\n",
    " 2026-12-01T09:00:00-05:00",
    "２０２６-12-01T09:00:00-05:00",  # noqa: RUF001 # full-width digits
    "2026-12-01T09:00:00−05:00",  # noqa: RUF001 # a minus sign
    "2026-12-01T09:00:00-05:00\0",
]


@pytest.mark.parametrize("text", NO_STARTS)
def test_these_starts_are_refused(text: str) -> None:
    """Anything that another reader could take for another instant is refused."""
    with pytest.raises(ValueError, match="not an ISO 8601 date and time"):
        guards.parse_start(text)


def test_a_malformed_start_is_an_error_of_the_caller(lifecycle: Lifecycle, sandbox: Sandbox) -> None:
    """What is no date and time is an `InvalidArgument`: no row is written and nothing sent."""
    appointment_id = support.tracked(lifecycle, sandbox)
    starts: list[Any] = ["tomorrow", "", None, 5, 5.0, b"2026-12-01T09:00:00Z", ["x"]]
    for start in starts:
        with pytest.raises(InvalidArgument) as caught:
            lifecycle.reschedule(appointment_id, actor=ACTOR, start_time=start)
        assert caught.value.argument == "start_time"
    assert len(lifecycle.history(appointment_id)) == 1


def test_a_start_without_an_offset_is_refused_and_audited(lifecycle: Lifecycle, sandbox: Sandbox) -> None:
    """It is a wish like any other, refused by a named check; nothing is sent."""
    appointment_id = support.tracked(lifecycle, sandbox)
    for start in ("2031-03-01T09:00:00", datetime(2031, 3, 1, 9)):  # noqa: DTZ001 # the point of the test
        with pytest.raises(TransitionRefused) as caught:
            lifecycle.reschedule(appointment_id, actor=ACTOR, start_time=start)
        assert caught.value.reasons == ("start_time_without_offset",)
    assert support.posts(sandbox, appointment_id) == 0
    assert [each.reason_code for each in lifecycle.history(appointment_id)[1:]] == ["start_time_without_offset"] * 2


def test_an_aware_datetime_is_as_good_as_text(lifecycle: Lifecycle, sandbox: Sandbox) -> None:
    """A datetime is sent as ISO 8601 with its own offset."""
    appointment_id = support.tracked(lifecycle, sandbox)
    start = datetime(2031, 3, 1, 9, tzinfo=timezone(timedelta(hours=-5)))
    lifecycle.reschedule(appointment_id, actor=ACTOR, start_time=start)
    assert support.calls(sandbox, appointment_id)[-1].body == {
        "appointment_id": appointment_id,
        "start_time": "2031-03-01T09:00:00-05:00",
    }
    assert lifecycle.get(appointment_id).start_time == start


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("status", ["pending_booking", "cancelled", "waitlisted"])
def test_explain_says_beforehand_what_firing_says_afterwards(
    lifecycle: Lifecycle, sandbox: Sandbox, command: str, status: str
) -> None:
    """`explain` reads the database only, writes nothing, and names the very reasons of the refusal that follows."""
    start = (datetime.now(UTC) - timedelta(days=3)).isoformat()
    appointment_id = support.tracked(lifecycle, sandbox, status=status, start_time=start)
    before = len(sandbox.ledger.entries())
    given = {"start_time": support.LATER} if command == "reschedule" else {}
    explained = lifecycle.explain(appointment_id, command, **given)
    assert len(lifecycle.history(appointment_id)) == 1
    assert len(sandbox.ledger.entries()) == before
    expected = tuple(each.code for each in explained if each.required and each.passed is False)
    if not expected:
        assert support.send(lifecycle, command, appointment_id).command == command
        return
    with pytest.raises(TransitionRefused) as caught:
        support.send(lifecycle, command, appointment_id)
    assert caught.value.reasons == expected


def test_explain_knows_of_the_active_command(lifecycle: Lifecycle, sandbox: Sandbox) -> None:
    """While an outcome is in doubt `explain` says so."""
    appointment_id = support.tracked(lifecycle, sandbox)
    support.lose_answer(sandbox, "confirm")
    with pytest.raises(Exception, match="unknown outcome"):
        lifecycle.confirm(appointment_id, actor=ACTOR)
    codes = {each.check: each.code for each in lifecycle.explain(appointment_id, "cancel")}
    assert codes["active_command"] == "outcome_in_doubt"


def test_explain_without_a_client_says_that_none_may_act(
    database_url: str, lifecycle: Lifecycle, sandbox: Sandbox
) -> None:
    """A process that only reads gets an explanation all the same: the credential cannot be judged there."""
    appointment_id = support.tracked(lifecycle, sandbox)
    with support.opened(database_url, None) as reader:
        passed = {each.check: each.passed for each in reader.explain(appointment_id, "confirm")}
    assert passed == {"status": True, "credential": None, "active_command": True}


def test_explain_of_what_is_not_there_is_an_error(lifecycle: Lifecycle) -> None:
    """An unknown command or an untracked appointment has no explanation."""
    with pytest.raises(InvalidArgument):
        lifecycle.explain("a", "explode")
    with pytest.raises(AppointmentNotFound):
        lifecycle.explain("a", "confirm")
    with pytest.raises(InvalidArgument):
        lifecycle.explain("../a", "confirm")


def test_the_no_show_window_is_checked_before_anything_is_sent(
    lifecycle: Lifecycle, sandbox: Sandbox, server: Server, client: ZocdocClient
) -> None:
    """Before the start and after two days the no-show is refused locally, on the stored start."""
    del server, client
    now = datetime.now(UTC)
    for age, code in ((timedelta(hours=-1), "no_show_before_start"), (timedelta(hours=49), "no_show_too_late")):
        appointment_id = support.tracked(lifecycle, sandbox, status="confirmed", start_time=(now - age).isoformat())
        with pytest.raises(TransitionRefused) as caught:
            lifecycle.mark_no_show(appointment_id, actor=ACTOR)
        assert caught.value.reasons == (code,)
        assert support.posts(sandbox, appointment_id) == 0
    assert chart.Status.NO_SHOW not in {each.status for each in lifecycle.appointments()}
