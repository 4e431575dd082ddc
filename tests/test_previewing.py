"""What would become of many wishes: the same checks as a command's, told row by row, and nothing is sent or written."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from lifecycle import ZocdocClient, errors, guards
from tests import support

if TYPE_CHECKING:
    from pathlib import Path

    from lifecycle import Lifecycle, Verdict
    from lifecycle.sandbox import Sandbox

UNKNOWN = "99999999-0000-4000-8000-000000000000"


def short(verdicts: list[Verdict]) -> list[tuple[int, str, tuple[str, ...]]]:
    """Shorten verdicts to row, verdict and codes."""
    return [(each.row, each.verdict, each.codes) for each in verdicts]


def test_each_row_is_judged_by_the_checks_of_a_command(lifecycle: Lifecycle, sandbox: Sandbox) -> None:
    """Passed, refused with every code and its rule, or invalid; the rows are in order, and Zocdoc is not called."""
    pending = support.tracked(lifecycle, sandbox)
    cancelled = support.tracked(lifecycle, sandbox, status="cancelled")
    before = len(sandbox.ledger.entries())
    wishes: list[dict[str, Any]] = [
        {"appointment_id": pending},
        {"appointment_id": cancelled},
        {"appointment_id": UNKNOWN},
        {"appointment_id": "../x"},
        {"appointment_id": pending, "expires_at": "soon"},
        {"appointment_id": pending, "start_time": support.LATER},
    ]
    found = list(lifecycle.preview(wishes, command="confirm"))
    assert short(found) == [
        (1, "pass", ()),
        (2, "refused", ("status_not_allowed",)),
        (3, "invalid", ("not_tracked",)),
        (4, "invalid", ("invalid_appointment_id",)),
        (5, "invalid", ("invalid_expires_at",)),
        (6, "invalid", ("invalid_start_time",)),
    ]
    assert [each.status for each in found] == ["pending_booking", "cancelled", None, None, *["pending_booking"] * 2]
    assert found[1].rules == ("Zocdoc reference: confirm from pending_booking.",)
    assert all(len(each.rules) == len(each.codes) and all(each.rules) for each in found)
    assert len(sandbox.ledger.entries()) == before
    assert lifecycle.get(pending).version == 1


def test_what_has_expired_would_not_be_sent(lifecycle: Lifecycle, sandbox: Sandbox) -> None:
    """The row's own instant goes before that of all rows."""
    pending = support.tracked(lifecycle, sandbox)
    past, ahead = datetime(2020, 1, 1, tzinfo=UTC), datetime(2099, 1, 1, tzinfo=UTC)
    rows: list[dict[str, Any]] = [{"appointment_id": pending, "expires_at": each} for each in (None, past, ahead)]
    refused = ("refused", ("expired",))
    for given, first in ((None, ("pass", ())), (past, refused), (ahead, ("pass", ()))):
        found = short(list(lifecycle.preview(rows, command="confirm", expires_at=given)))
        assert found == [(1, *first), (2, *refused), (3, "pass", ())]


def test_a_verdict_is_what_the_command_then_gets(lifecycle: Lifecycle, sandbox: Sandbox) -> None:
    """For each command and each status: passed if, and only if, the command is not refused, with the same codes."""
    made = {status: support.tracked(lifecycle, sandbox, status=status) for status in support.STATUSES}
    for command in support.COMMANDS:
        given = {"start_time": support.LATER} if command == "reschedule" else {}
        wishes = [{"appointment_id": each, "command": command, **given} for each in made.values()]
        for verdict in list(lifecycle.preview(wishes)):
            explained = lifecycle.explain(str(verdict.appointment_id), command, **given)
            codes = tuple(each.code for each in explained if each.required and each.code is not None)
            assert (verdict.codes, verdict.command) == (codes, command)
            assert (verdict.verdict == "pass") == (not codes)


def test_a_request_key_that_is_taken_is_told(lifecycle: Lifecycle, sandbox: Sandbox) -> None:
    """By another command, or by a row before it: the submission would not take the row either."""
    ids = [support.tracked(lifecycle, sandbox) for _ in range(3)]
    lifecycle.confirm(ids[0], actor=support.ACTOR, request_key="used")
    with pytest.raises(errors.TransitionRefused):
        lifecycle.confirm(ids[0], actor=support.ACTOR, request_key="free again")
    wishes = [
        {"appointment_id": ids[1], "request_key": "used"},
        {"appointment_id": ids[1], "request_key": "free again"},
        {"appointment_id": ids[2], "request_key": "free again"},
        {"appointment_id": ids[2]},
    ]
    found = list(lifecycle.preview(wishes, command="cancel"))
    taken = ("invalid", ("request_key_taken",))
    assert short(found) == [(1, *taken), (2, "pass", ()), (3, *taken), (4, "pass", ())]
    batch = lifecycle.submit_many(wishes, command="cancel", actor=support.ACTOR)
    assert batch.wait(support.PATIENCE)
    assert [row.reason_code for row in batch.rows() if row.state == "invalid"] == ["request_key_taken"] * 2


def test_an_active_command_is_in_the_way(lifecycle: Lifecycle, sandbox: Sandbox) -> None:
    """An answer that was lost blocks the appointment until it is settled."""
    appointment_id = support.tracked(lifecycle, sandbox)
    support.lose_answer(sandbox, "confirm")
    with pytest.raises(errors.OutcomeUnknown):
        lifecycle.confirm(appointment_id, actor=support.ACTOR)
    found = list(lifecycle.preview([{"appointment_id": appointment_id}], command="cancel"))
    assert short(found) == [(1, "refused", ("outcome_in_doubt",))]


def test_a_file_is_previewed_as_it_is_submitted(lifecycle: Lifecycle, sandbox: Sandbox, tmp_path: Path) -> None:
    """Doubled ids and ragged rows are invalid; more rows than are judged by one query keep their order."""
    ids = [support.tracked(lifecycle, sandbox) for _ in range(3)]
    strangers = [f"{number:08}-0000-4000-8000-000000000000" for number in range(1_000)]
    path = tmp_path / "ids.csv"
    path.write_text("\n".join(["id,request_key", *(f"{each}," for each in [*ids, *strangers, ids[0]]), "x", ""]))
    found = list(lifecycle.preview(path, command="confirm"))
    assert [each.row for each in found] == list(range(1, 1_006))
    assert short(found[:3]) == [(number, "pass", ()) for number in (1, 2, 3)]
    assert short(found[-2:]) == [
        (1_004, "invalid", ("duplicate_of_row",)),
        (1_005, "invalid", ("wrong_number_of_cells",)),
    ]
    assert {each.codes for each in found[3:1_003]} == {("not_tracked",)}
    assert found[-2].rules == ("row 1 names the same appointment; one wish for each",)


def test_the_credential_is_judged_if_there_is_one(database_url: str, sandbox: Sandbox, client: ZocdocClient) -> None:
    """Without a client nothing is said about it; a user's appointment is asked for once, however many rows it has."""
    asked: list[str] = []
    with support.opened(database_url, client) as lifecycle:
        mine = support.tracked(lifecycle, sandbox)
    support.query(database_url, "UPDATE lifecycle_appointments SET booked_with = 'user:7'")
    wishes = [{"appointment_id": mine}] * 3
    with support.opened(database_url, None) as lifecycle:
        assert {each.verdict for each in lifecycle.preview(wishes, command="confirm")} == {"pass"}
    with support.opened(database_url, client, user_client=asked.append) as lifecycle:
        found = list(lifecycle.preview(wishes, command="confirm"))
    support.query(database_url, "UPDATE lifecycle_appointments SET booked_with = 'machine'")
    assert short(found) == [(number, "refused", ("credential_not_allowed",)) for number in (1, 2, 3)]
    assert asked == ["7"]
    assert found[0].rules == (next(each.rule for each in guards.CHECKS if each.name == "credential"),)
