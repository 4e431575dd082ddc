"""Commands on the command line: what they send, what they say, and how they end."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest

import lifecycle
from lifecycle.sandbox import Fault, Kind, Moment
from tests.test_cli import GUIDE, SECRET, assert_error, invoke, settings_for

if TYPE_CHECKING:
    from pathlib import Path

    from lifecycle.sandbox import Sandbox, Server

MOVED = "63f995c2-49c4-40c8-a93a-140fb32e913b"
CANCEL = ("cancel", GUIDE, "--reason-type", "patient_no_longer_needs_appointment", "--reason", "string")
RESCHEDULE = ("reschedule", MOVED, "--start-time", "2022-04-27T09:00:00-04:00")

GUIDE_BODIES = [
    """{
  "appointment_id": "d04b049a-41b1-4aba-9268-d8973cf72cdd"
}""",
    """{
  "appointment_id": "d04b049a-41b1-4aba-9268-d8973cf72cdd",
  "cancellation_reason": "string",
  "cancellation_reason_type": "patient_no_longer_needs_appointment"
}""",
    """{
  "appointment_id": "63f995c2-49c4-40c8-a93a-140fb32e913b",
  "start_time": "2022-04-27T09:00:00-04:00"
}""",
]


@pytest.fixture
def environ(server: Server, sqlite_url: str) -> dict[str, str]:
    """Give settings for the stand-in, with the guide's appointments tracked."""
    found = settings_for(server, sqlite_url)
    for appointment_id in (GUIDE, MOVED):
        assert invoke("track", appointment_id, **found).exit_code == 0
    return found


def test_the_guides_calls_go_out_word_for_word(sandbox: Sandbox, environ: dict[str, str]) -> None:
    """Confirm, cancel and reschedule with the guide's own arguments have its bodies on the wire, key by key."""
    for arguments in (("confirm", GUIDE), CANCEL, RESCHEDULE):
        assert invoke(*arguments, **environ).exit_code == 0
    sent = [entry for entry in sandbox.ledger.entries() if entry.operation in {"confirm", "cancel", "reschedule"}]
    assert [(entry.method, entry.path) for entry in sent] == [
        ("POST", "/v1/appointments/confirm"),
        ("POST", "/v1/appointments/cancel"),
        ("POST", "/v1/appointments/reschedule"),
    ]
    assert [json.dumps(entry.body, indent=2) for entry in sent] == GUIDE_BODIES


def test_a_command_says_one_sentence_and_its_advice(environ: dict[str, str]) -> None:
    """Words go to stderr; without --format nothing goes to stdout."""
    result = invoke(*RESCHEDULE, **environ)
    sentence, advice = result.stderr.splitlines()
    assert result.stdout == ""
    assert re.fullmatch(
        rf"reschedule of appointment {MOVED} was applied: pending_reschedule -> rescheduled; Zocdoc request id [\w-]+",
        sentence,
    )
    assert advice == "Note: the new start lies in the past; usually a visit is moved to a time ahead"


def test_a_command_gives_its_record_as_json(environ: dict[str, str]) -> None:
    """The outcome's fields are those of `Done`."""
    done = json.loads(invoke("confirm", GUIDE, "--format", "json", **environ).stdout)
    assert list(done) == list(lifecycle.Done.__dataclass_fields__)
    assert (done["from_status"], done["to_status"], done["advice"]) == ("pending_booking", "confirmed", [])


def test_arrived_and_no_show(sandbox: Sandbox, environ: dict[str, str]) -> None:
    """The two that Zocdoc takes through update-status."""
    sandbox.change(GUIDE, status="confirmed", start_time="2026-01-01T09:00:00-05:00")
    invoke("track", GUIDE, **environ)
    assert "mark_arrived" in invoke("arrived", GUIDE, **environ).stderr
    refused = invoke("no-show", GUIDE, **environ)
    assert_error(refused, 3, "no_show_too_late", lines=2)
    sent = [entry.body for entry in sandbox.ledger.entries(operation="update_status")]
    assert sent == [{"appointment_id": GUIDE, "appointment_status": "arrived"}]


def test_no_show_within_its_window(sandbox: Sandbox, environ: dict[str, str]) -> None:
    """A visit of yesterday that nobody came to."""
    from datetime import UTC, datetime, timedelta  # noqa: PLC0415 # only here

    made = sandbox.add(status="confirmed", start_time=(datetime.now(UTC) - timedelta(days=1)).isoformat())
    invoke("track", made, **environ)
    assert "confirmed -> no_show" in invoke("no-show", made, **environ).stderr


def test_the_actor_is_the_login_or_who_is_named(environ: dict[str, str]) -> None:
    """Both are in the trail; the source is the command line."""
    invoke("confirm", GUIDE, "--actor", "job:nightly", LOGNAME="anna", **environ)
    invoke(*CANCEL, LOGNAME="anna", **environ)
    events = json.loads(invoke("history", GUIDE, "--format", "json", **environ).stdout)
    assert [event["actor"] for event in events[1:]] == ["job:nightly", "job:nightly", "user:anna", "user:anna"]
    assert {event["source"] for event in events} == {"cli"}


def test_a_request_key_acts_once(sandbox: Sandbox, environ: dict[str, str]) -> None:
    """The same call again gives the first outcome; another wish under the key is refused."""
    key = ("--request-key", "k-1", "--format", "json")
    first, second = (invoke(*RESCHEDULE, *key, **environ) for _ in range(2))
    assert first.stdout == second.stdout
    assert sandbox.ledger.effects(MOVED, "reschedule") == 1
    assert_error(invoke("cancel", MOVED, *key, **environ), 3, "request key 'k-1' was already used")


def test_a_refusal_by_status_tells_the_rule(sandbox: Sandbox, environ: dict[str, str]) -> None:
    """Exit 3, the rule on a line of its own, and no call."""
    result = invoke("confirm", MOVED, **environ)
    assert_error(result, 3, "status_not_allowed", lines=2)
    assert result.stderr.splitlines()[1].startswith("  status_not_allowed: Zocdoc reference: confirm from ")
    assert sandbox.ledger.entries(operation="confirm") == []


def test_a_naive_start_is_refused_with_its_rule(environ: dict[str, str]) -> None:
    """Local times are ambiguous."""
    result = invoke("reschedule", MOVED, "--start-time", "2026-12-01T09:00:00", **environ)
    assert_error(result, 3, "start_time_without_offset", lines=2)
    assert "ISO 8601 with an offset" in result.stderr.splitlines()[1]


@pytest.mark.parametrize(
    ("arguments", "code", "needed"),
    [
        (("confirm", "83f5cf14-3eb1-4034-be1f-e7c3058aad21"), 4, "track it first"),
        (("track", "83f5cf14-3eb1-4034-be1f-e7c3058aad21"), 4, "Zocdoc does not know"),
        (("track", "dc69a428-8a73-461b-bd7b-df755910a3fb"), 5, "server_error, HTTP 500"),
        (("confirm", ".."), 2, "ID: "),
        (("track", "a/b"), 2, "ID: "),
        (("track", GUIDE, "--booked-with", "nobody"), 2, "use 'machine' or 'user:ID'"),
        (("cancel", GUIDE, "--reason-type", "bored"), 2, "use one of patient_no_longer_needs_appointment, "),
        (("reschedule", GUIDE, "--start-time", "tomorrow"), 2, "2026-12-01T09:00:00-05:00"),
        (("confirm", GUIDE, "--actor", " "), 2, "actor: "),
        (("track", MOVED, "--booked-with", "user:8"), 3, "set LIFECYCLE_ZOCDOC_IDENTITY"),
    ],
)
def test_bad_input_is_one_line(environ: dict[str, str], arguments: tuple[str, ...], code: int, needed: str) -> None:
    """Ids that are unknown or none, words that Zocdoc does not have, another user's appointment."""
    assert_error(invoke(*arguments, **environ), code, needed)


def test_a_foreign_users_appointment_is_refused(sandbox: Sandbox, environ: dict[str, str]) -> None:
    """The machine's credential may not act on what a user has booked; that user's may."""
    made = sandbox.add(booked_by="user:7")
    user = environ | {
        "LIFECYCLE_ZOCDOC_ACCESS_TOKEN": sandbox.user_token("7"),
        "LIFECYCLE_ZOCDOC_IDENTITY": "user:7",
        "LIFECYCLE_ZOCDOC_CLIENT_ID": "",
        "LIFECYCLE_ZOCDOC_CLIENT_SECRET": "",
    }
    assert_error(invoke("track", made, "--booked-with", "user:7", **environ), 3, "user:7")
    assert invoke("track", made, "--booked-with", "user:7", **user).exit_code == 0
    assert_error(invoke("confirm", made, **environ), 3, "credential_not_allowed", lines=2)
    assert invoke("confirm", made, **user).exit_code == 0


def test_wrong_credentials_and_their_file(environ: dict[str, str], tmp_path: Path) -> None:
    """Zocdoc's refusal of the credentials is a remote failure; the secret from a file works, and is shown nowhere."""
    wrong = environ | {"LIFECYCLE_ZOCDOC_CLIENT_SECRET": "wr0ng-secret"}
    read = invoke("track", GUIDE, **wrong)
    assert_error(read, 5, "check the client id, the secret and the audience")
    sent = invoke("confirm", GUIDE, **wrong)
    assert_error(sent, 5, "token_refused")
    assert "wr0ng-secret" not in read.output + sent.output
    (tmp_path / "secret").write_text(f"{SECRET}\n", encoding="utf-8")
    filed = environ | {
        "LIFECYCLE_ZOCDOC_CLIENT_SECRET": "",
        "LIFECYCLE_ZOCDOC_CLIENT_SECRET_FILE": str(tmp_path / "secret"),
    }
    assert invoke("confirm", GUIDE, **filed).exit_code == 0


def test_a_server_that_is_not_there(server: Server, environ: dict[str, str]) -> None:
    """Nothing was sent, and that is what the error says."""
    server.close()
    assert_error(invoke("track", GUIDE, **environ), 5, "token_unavailable", "check the connection and call again")
    assert_error(invoke("confirm", GUIDE, **environ), 5, "may be called again")


def test_zocdoc_says_no(sandbox: Sandbox, environ: dict[str, str]) -> None:
    """Its answer is a failure of the remote side, with the request id that its support wants."""
    sandbox.faults.add(Fault(kind=Kind.ANSWER, operation="confirm", status=403))
    assert_error(invoke("confirm", GUIDE, **environ), 5, "was rejected by Zocdoc (forbidden, HTTP 403")


def test_a_lost_answer_blocks_and_is_recovered(sandbox: Sandbox, environ: dict[str, str]) -> None:
    """Exit 5 and in doubt; the next command is told to recover; recover settles it and lists it."""
    sandbox.faults.add(Fault(kind=Kind.RESET, operation="reschedule", when=Moment.AFTER))
    assert_error(invoke(*RESCHEDULE, **environ), 5, "do not repeat it, run `recover`")
    assert_error(invoke("cancel", MOVED, **environ), 3, "run `recover`", lines=2)
    early = invoke("recover", "--format", "json", **environ)
    assert (early.stdout, early.exit_code) == ("[]\n", 0)
    assert "0 settled, 1 waiting; the next read is due at " in early.stderr
    late = invoke("recover", "--wait", "10", "--format", "json", **environ)
    assert [(it["appointment_id"], it["state"]) for it in json.loads(late.stdout)] == [(MOVED, "applied")]
    assert late.stderr == "1 settled, 0 waiting\n"
    assert sandbox.ledger.effects(MOVED, "reschedule") == 1


def test_ctrl_c_in_a_command_says_that_it_may_be_in_doubt(
    monkeypatch: pytest.MonkeyPatch, environ: dict[str, str]
) -> None:
    """The call may have left before the key was pressed: exit 130, and the trail knows."""
    monkeypatch.setattr(lifecycle.ZocdocClient, "confirm", _interrupted)
    result = invoke("confirm", GUIDE, **environ)
    assert (result.exit_code, result.stderr.splitlines()[0]) == (130, "Interrupted.")
    assert "may be in doubt" in result.stderr
    assert json.loads(invoke("show", GUIDE, "--format", "json", **environ).stdout)["in_doubt"] is True


def test_an_environment_has_its_own_database(sandbox: Sandbox, environ: dict[str, str]) -> None:
    """Sandbox and production do not mix: the command is refused before anything is sent."""
    other = environ | {
        "LIFECYCLE_ZOCDOC_ENVIRONMENT": "production",
        "LIFECYCLE_ZOCDOC_BASE_URL": "",
        "LIFECYCLE_ZOCDOC_TOKEN_URL": "",
    }
    assert_error(invoke("confirm", GUIDE, **other), 1, "one database for each environment")
    assert sandbox.ledger.entries(operation="confirm") == []


def _interrupted(*_arguments: object, **_options: object) -> None:
    raise KeyboardInterrupt
