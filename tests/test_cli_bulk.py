"""Bulk commands: what they show, what they send, how they are gone on with, and what their result file says."""

from __future__ import annotations

import csv
import errno
import functools
import json
import os
import pty
import re
import signal
import subprocess
import sys
import threading
import uuid
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

import lifecycle
from lifecycle import Lifecycle, guards, results
from lifecycle.cli import attending, words
from tests import bulk, support
from tests.conftest import FAST
from tests.test_cli import assert_error, invoke, settings_for
from tests.test_worker import working

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from click.testing import Result

    from lifecycle import ZocdocClient
    from lifecycle.sandbox import Sandbox, Server
    from lifecycle.sandbox.messages import Reply, Request

UNKNOWN = "99999999-0000-4000-8000-000000000000"
REASON = ("--reason-type", "provider_not_available")


both = pytest.mark.parametrize("database_url", ["sqlite", "postgresql"], indirect=True)
"""For what the two databases may answer differently; the other tests look at the command line."""


@pytest.fixture
def database_url(request: pytest.FixtureRequest) -> str:
    """SQLite, unless the test asks for both."""
    name = getattr(request, "param", "sqlite")
    url: str = request.getfixturevalue("sqlite_url" if name == "sqlite" else "postgres_url")
    return url


class Ground:
    """A folder, settings for the stand-in, and short words for what the tests do."""

    def __init__(self, folder: Path, environ: dict[str, str], sandbox: Sandbox) -> None:
        self.folder = folder
        self.environ = environ
        self.sandbox = sandbox
        self.result = folder / "results.csv"

    def file(self, *rows: str, head: str = "appointment_id", name: str = "ids.csv") -> str:
        """Write a file of wishes and give its name."""
        path = self.folder / name
        path.write_text("\n".join([head, *rows, ""]), encoding="utf-8")
        return str(path)

    def bulk(self, *arguments: str, **environ: str) -> Result:
        """Run a bulk command without being asked."""
        return invoke("bulk", *arguments, "--yes", "--result", str(self.result), **(self.environ | environ))

    def rows(self, *names: str) -> list[tuple[str, ...]]:
        """Read these columns of the result file."""
        with self.result.open(encoding="utf-8", newline="") as file:
            return [tuple(row[name] for name in names) for row in csv.DictReader(file)]

    def batches(self) -> list[dict[str, Any]]:
        """Read the batches, newest first."""
        found: list[dict[str, Any]] = json.loads(invoke("batches", "--format", "json", **self.environ).stdout)
        return found

    def posts(self) -> int:
        """Count what could change an appointment."""
        return sum(entry.method != "GET" for entry in support.calls(self.sandbox))


@pytest.fixture
def ground(
    tmp_path: Path, database_url: str, server: Server, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> Ground:
    """Short intervals, and a folder of the test's own as the current one."""
    monkeypatch.setattr(lifecycle, "Lifecycle", functools.partial(Lifecycle, timing=replace(FAST, resend_backoff=0.05)))
    monkeypatch.chdir(tmp_path)
    return Ground(tmp_path, settings_for(server, database_url), sandbox)


@pytest.fixture
def ids(database_url: str, client: ZocdocClient, sandbox: Sandbox) -> list[str]:
    """Four confirmed appointments and a cancelled one, tracked, in the order of their ids."""
    made = sandbox.add_many(4, prefix="visit-", status="confirmed")
    made += sandbox.add_many(1, prefix="visitx-", status="cancelled")
    with support.opened(database_url, client) as opened:
        for appointment_id in made:
            opened.track(appointment_id, actor=support.ACTOR)
    return made


@both
def test_every_row_of_the_input_is_a_row_of_the_result(ground: Ground, ids: list[str]) -> None:
    """Applied, refused, rejected or invalid, in the order of the input; the exit code tells of the others."""
    support.arm(ground.sandbox, kind="answer", status=400, operation="cancel", appointment_id=ids[1])
    path = ground.file(ids[0], ids[4], UNKNOWN, ids[1], "../x", ids[0], f"{ids[2]},extra", ids[3])
    done = ground.bulk("cancel", "--file", path, *REASON, "--name", "illness of pr_1", "--actor", "user:17")
    assert done.exit_code == 9, done.output
    assert ground.rows("row", "appointment_id", "command", "state", "reason_code", "http_status", "attempts") == [
        ("1", ids[0], "cancel", "applied", "", "200", "1"),
        ("2", ids[4], "cancel", "refused", "status_not_allowed", "", "0"),
        ("3", UNKNOWN, "cancel", "invalid", "not_tracked", "", "0"),
        ("4", ids[1], "cancel", "rejected", "bad_request", "400", "1"),
        ("5", "", "cancel", "invalid", "invalid_appointment_id", "", "0"),
        ("6", ids[0], "cancel", "invalid", "duplicate_of_row", "", "0"),
        ("7", ids[2], "cancel", "invalid", "wrong_number_of_cells", "", "0"),
        ("8", ids[3], "cancel", "applied", "", "200", "1"),
    ]
    told = done.stderr.splitlines()
    assert told[:4] == [
        "row 3: not_tracked: an appointment is tracked before it is changed; `track` or `sync` reads it from Zocdoc",
        "row 5: invalid_appointment_id: an appointment id is 1 to 64 letters, digits, hyphens and underscores",
        "row 6: duplicate_of_row: row 1 names the same appointment; one wish for each",
        "row 7: wrong_number_of_cells: the row has more or fewer cells than the head",
    ]
    assert told[4] == "appointments by status: 5 confirmed, 2 not known here, 1 cancelled"
    assert told[5].startswith("cancel of them: 3 would pass, 1 refused (status_not_allowed), 1 invalid (")
    assert told[-1] == f"8 of 8 ended: 2 applied, 1 refused, 1 rejected, 4 invalid; 8 rows in {ground.result}"
    assert done.stdout == f"{ground.batches()[0]['batch_id']}\n"
    sent = [entry.body for entry in ground.sandbox.ledger.entries(operation="cancel")]
    assert {json.dumps(body, sort_keys=True) for body in sent} == {
        json.dumps({"appointment_id": each, "cancellation_reason_type": "provider_not_available"})
        for each in (ids[0], ids[1], ids[3])
    }


def test_the_rows_name_commands_and_requests_that_there_are(ground: Ground, ids: list[str], database_url: str) -> None:
    """Ids by which the trail and Zocdoc's support find them; the file is its owner's, and instants are UTC."""
    assert ground.bulk("cancel", "--file", ground.file(*ids[:4])).exit_code == 0
    stored = {row["command_id"]: row for row in support.commands(database_url)}
    requests = {entry.request_id for entry in ground.sandbox.ledger.entries(operation="cancel")}
    for command_id, request_id, ended_at in ground.rows("command_id", "zocdoc_request_id", "ended_at"):
        assert stored[command_id]["zocdoc_request_id"] == request_id
        assert request_id in requests
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", ended_at)
    assert ground.result.read_text(encoding="utf-8").splitlines()[0] == ",".join(results.HEAD)
    assert ground.result.stat().st_mode & 0o777 == 0o600


def test_moves_are_carried_out_with_their_own_starts(ground: Ground, ids: list[str]) -> None:
    """Word for word; one without an offset is refused, one that is none is invalid, what Zocdoc has not is rejected."""
    support.arm(ground.sandbox, kind="answer", status=400, operation="reschedule", appointment_id=ids[3])
    starts = [support.LATER, "2031-03-01T09:00:00", "tomorrow", "2031-03-01T09:07:00-05:00"]
    path = ground.file(
        *(json.dumps({"id": each, "start_time": start}) for each, start in zip(ids, starts, strict=False)),
        head="",
        name="moves.jsonl",
    )
    assert ground.bulk("reschedule", "--file", path).exit_code == 9
    assert ground.rows("state", "reason_code") == [
        ("applied", ""),
        ("refused", "start_time_without_offset"),
        ("invalid", "invalid_start_time"),
        ("rejected", "bad_request"),
    ]
    sent = [entry.body for entry in ground.sandbox.ledger.entries(operation="reschedule")]
    assert {"appointment_id": ids[0], "start_time": support.LATER} in sent


@pytest.mark.parametrize(("name", "status"), [("confirm", "pending_booking"), ("arrived", "confirmed")])
def test_the_other_commands(ground: Ground, ids: list[str], name: str, status: str) -> None:
    """Confirm and arrived; no-show shares their way."""
    for each in ids[:2]:
        ground.sandbox.change(each, status=status)
        invoke("track", each, **ground.environ)
    assert ground.bulk(name, "--file", ground.file(*ids[:2])).exit_code == 0
    assert ground.rows("state") == [("applied",), ("applied",)]


def test_no_show_is_judged_by_its_window(ground: Ground, ids: list[str]) -> None:
    """A visit that lies ahead cannot have been missed."""
    assert ground.bulk("no-show", "--file", ground.file(ids[0])).exit_code == 9
    assert ground.rows("command", "state", "reason_code") == [("mark_no_show", "refused", "no_show_before_start")]


def test_a_dry_run_explains_and_calls_nobody(ground: Ground, ids: list[str]) -> None:
    """Every row as data, each refusal with its rule; people are shown only what needs explaining. Nothing is queued."""
    before = len(ground.sandbox.ledger.entries())
    path = ground.file(*ids, UNKNOWN)
    dry = ("bulk", "cancel", "--file", path, "--dry-run")
    found = invoke(*dry, "--format", "json", **ground.environ)
    assert found.exit_code == 9
    verdicts = json.loads(found.stdout)
    assert [each["verdict"] for each in verdicts] == ["pass"] * 4 + ["refused", "invalid"]
    rule = next(rule for check in guards.CHECKS if "Zocdoc reference: cancel from" in (rule := check.rule))
    assert verdicts[4] == {
        "row": 5,
        "appointment_id": ids[4],
        "command": "cancel",
        "status": "cancelled",
        "verdict": "refused",
        "codes": ["status_not_allowed"],
        "rules": [rule],
    }
    assert found.stderr == (
        "cancel of 6 appointments: 4 would pass, 1 refused (status_not_allowed), 1 invalid (not_tracked)\n"
    )
    table = invoke(*dry, **ground.environ).stdout.splitlines()
    assert [line.split()[0] for line in table] == ["row", "5", "6"]
    assert len(invoke(*dry, "--format", "csv", **ground.environ).stdout.splitlines()) == 7
    good = invoke("bulk", "cancel", "--file", ground.file(*ids[:4]), "--dry-run", **ground.environ)
    assert good.exit_code == 0
    assert len(ground.sandbox.ledger.entries()) == before
    assert ground.batches() == []


@both
def test_conditions_choose_appointments(ground: Ground, ids: list[str]) -> None:
    """All that meet them, and only those; again, it is another wish: what is left is nothing, and that is told."""
    where = ("cancel", "--where", "status=confirmed", "--where", "start_time>=2000-01-01")
    dry = invoke("bulk", *where, "--dry-run", "--format", "jsonl", **ground.environ)
    assert [json.loads(line)["appointment_id"] for line in dry.stdout.splitlines()] == ids[:4]
    assert ground.bulk(*where).exit_code == 0
    assert ground.rows("appointment_id", "state") == [(each, "applied") for each in ids[:4]]
    assert_error(ground.bulk(*where), 2, "--where: no tracked appointment meets the conditions")
    assert list(ground.folder.glob("*.chosen.csv")) == []


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), "name the appointments: --file, or one --where or more"),
        (("--file", "{path}", "--where", "status=confirmed"), "name the appointments"),
        (("--where", "patient=Doe"), "there is no field patient; status, provider_location_id"),
        (("--file", "{path}", "--expires-in", "5", "--expires-at", "2031-01-01"), "use one"),
        (("--file", "{path}", "--expires-at", "soon"), "--expires-at: use ISO 8601"),
        (("--file", "{path}", "--expires-in", "nan"), "--expires-in is no time that there is"),
        (("--file", "{path}", "--expires-in", "1e300"), "--expires-in is no time that there is"),
        (("--file", "{path}", "--result", "{path}"), "--result would replace --file"),
        (("--file", "{path}", "--result", "/nowhere/x.csv"), "name another place with --result"),
        (("--file", "{path}", "--result", "{database}"), "is a database; name another file"),
        (("--file", "{path}", "--result", "/dev/full"), "is not a file"),
        (("--file", "{path}", "--actor", " "), "actor: "),
        (("--file", "/nowhere.csv"), "does not exist"),
        (("--file", "{moves}"), "unknown columns: start_time; the columns here are"),
        (("--file", "{odd}"), "say which format it has"),
    ],
)
def test_bad_input_queues_nothing(ground: Ground, ids: list[str], arguments: Sequence[str], told: str) -> None:
    """Exit 2, a line that says what to do, and nothing of the file is in the database."""
    places = {
        "path": ground.file(*ids),
        "moves": ground.file(f"{ids[0]},{support.LATER}", head="id,start_time", name="moves.csv"),
        "odd": ground.file(*ids, name="odd.txt"),
        "database": ground.environ["LIFECYCLE_DATABASE_URL"].removeprefix("sqlite:///"),
    }
    filled = [each.format(**places) for each in arguments]
    done = invoke("bulk", "cancel", "--yes", *filled, **ground.environ)
    assert (done.exit_code, done.stdout) == (2, "")
    assert told in done.stderr
    assert "Traceback" not in done.stderr
    assert ground.batches() == []
    assert ground.posts() == 0


def test_nobody_to_ask_is_told(ground: Ground, ids: list[str]) -> None:
    """Without a terminal and without --yes nothing happens."""
    done = invoke("bulk", "cancel", "--file", ground.file(*ids), **ground.environ)
    assert (done.exit_code, done.stdout) == (2, "")
    assert "say --yes, or --dry-run" in done.stderr
    assert ground.batches() == []


@both
def test_the_same_command_again_sends_nothing(ground: Ground, ids: list[str]) -> None:
    """It writes the results again; --again is a new batch, which the checks refuse now."""
    path = ground.file(*ids[:4])
    first = ground.bulk("cancel", "--file", path)
    ground.result.unlink()
    posts = ground.posts()
    second = ground.bulk("cancel", "--file", path)
    assert (second.exit_code, second.stdout) == (0, first.stdout)
    assert "was begun before: 4 of 4 ended: 4 applied" in second.stderr
    assert len(ground.rows("state")) == 4
    again = ground.bulk("cancel", "--file", path, "--again")
    assert (again.exit_code, again.stdout == first.stdout) == (9, False)
    assert ground.rows("state", "reason_code") == [("refused", "status_not_allowed")] * 4
    assert ground.posts() == posts


def test_what_again_began_is_gone_on_with_without_it(ground: Ground, ids: list[str], server: Server) -> None:
    """With it, moves that were made would be made a third time; an interrupted run says so."""
    path = ground.file(*(f"{each},{support.LATER}" for each in ids[:4]), head="id,start_time")
    assert ground.bulk("reschedule", "--file", path).exit_code == 0
    told = _interrupted(ground, server, signal.SIGINT, "reschedule", "--file", path, "--again")
    assert "is not withdrawn: the same command without --again, or" in told
    done = ground.bulk("reschedule", "--file", path)
    assert done.exit_code == 0, done.stderr
    assert done.stdout.strip() == ground.batches()[0]["batch_id"]
    assert len(ground.batches()) == 2
    assert [support.effects(ground.sandbox, each) for each in ids[:4]] == [2, 2, 2, 2]


def test_another_reason_is_another_batch(ground: Ground, ids: list[str], database_url: str) -> None:
    """The words are part of what is wanted; the batch's id does not give them away without the database's key."""
    path = ground.file(ids[0])
    given = [ground.bulk("cancel", "--file", path, "--reason", reason) for reason in ("one", "two", "one")]
    assert given[0].stdout == given[2].stdout != given[1].stdout
    assert uuid.UUID(given[0].stdout.strip())
    assert "one" not in json.dumps(support.query(database_url, "SELECT * FROM lifecycle_batches"), default=str)


def test_standard_input_is_read(ground: Ground, ids: list[str]) -> None:
    """With its format said."""
    from click.testing import CliRunner  # noqa: PLC0415 # with an input

    from lifecycle.cli.main import root  # noqa: PLC0415 # as above

    arguments = ["bulk", "cancel", "--file", "-", "--input-format", "csv", "--yes", "--result", str(ground.result)]
    done = CliRunner().invoke(root, arguments, input=f"id\n{ids[0]}\n", env=dict(ground.environ))
    assert done.exit_code == 0, done.output
    assert ground.rows("appointment_id") == [(ids[0],)]


def test_a_pipe_is_read_once(ground: Ground, ids: list[str]) -> None:
    """Such as of `--file <(...)`; what is wrong in it is told by the name that was given."""
    path = ground.folder / "pipe.csv"
    os.mkfifo(path)
    for head, code in (("id", 0), ("patient", 2)):
        with support.in_background(lambda head=head: path.write_text(f"{head}\n{ids[0]}\n", encoding="utf-8")):  # type: ignore[misc]
            done = ground.bulk("cancel", "--file", str(path))
        assert done.exit_code == code, done.output
    assert ground.rows("appointment_id") == [(ids[0],)]
    assert f"Error: --file {path}: line 1: " in done.stderr


@both
def test_what_is_in_doubt_is_settled_meanwhile(ground: Ground, ids: list[str]) -> None:
    """A lost answer is settled by reading, whether the cancel had arrived or not; nothing is repeated blindly."""
    support.lose_answer(ground.sandbox, "cancel", when="after", appointment_id=ids[0])
    support.lose_answer(ground.sandbox, "cancel", when="before", appointment_id=ids[1])
    assert ground.bulk("cancel", "--file", ground.file(*ids[:4])).exit_code == 0
    assert ground.rows("state", "reason_code", "attempts") == [
        ("applied", "recovered", "1"),
        ("applied", "", "2"),
        ("applied", "", "1"),
        ("applied", "", "1"),
    ]
    assert [support.effects(ground.sandbox, each) for each in ids[:4]] == [1, 1, 1, 1]


def test_what_stays_in_doubt_is_told(ground: Ground, ids: list[str]) -> None:
    """Exit 5: an arrival whose answer was lost cannot be told apart by reading, so a human must look."""
    support.lose_answer(ground.sandbox, "update_status", appointment_id=ids[0])
    done = ground.bulk("arrived", "--file", ground.file(*ids[:2]))
    assert done.exit_code == 5
    assert ground.rows("state", "reason_code")[0] == ("needs_attention", "cannot_be_told_apart")
    assert "`lifecycle attention`" in done.stderr


def test_a_wish_that_expires_is_not_sent(ground: Ground, ids: list[str]) -> None:
    """Rows have expiries of their own; the option is for those that have none."""
    path = ground.file(f"{ids[0]},2020-01-01T00:00:00Z", f"{ids[1]},", head="id,expires_at")
    assert ground.bulk("cancel", "--file", path, "--expires-in", "60").exit_code == 9
    assert ground.rows("state") == [("expired",), ("applied",)]
    assert ground.posts() == 1


def test_while_zocdoc_is_away_nothing_is_lost(ground: Ground, ids: list[str], server: Server) -> None:
    """What could not be sent before it expired says so."""
    server.close()
    soon = (datetime.now(UTC) + timedelta(seconds=1)).isoformat()
    assert ground.bulk("cancel", "--file", ground.file(*ids[:2]), "--expires-at", soon).exit_code == 9
    assert ground.rows("state") == [("expired",), ("expired",)]


@both
def test_batches_are_listed_shown_and_written_again(ground: Ground, ids: list[str]) -> None:
    """Progress, rows, failures and the result file of a batch, by its id."""
    path = ground.file(*ids[:4], ids[4])
    batch_id = ground.bulk("cancel", "--file", path, "--name", "illness").stdout.strip()
    (listed,) = ground.batches()
    assert (listed["batch_id"], listed["name"], listed["command"], listed["total"]) == (
        batch_id,
        "illness",
        "cancel",
        5,
    )
    progress = json.loads(invoke("batch", batch_id, "--format", "json", **ground.environ).stdout)
    assert (progress["total"], progress["applied"], progress["refused"], progress["queued"]) == (5, 4, 1, 0)
    shown = json.loads(invoke("batch", batch_id, "--rows", "--format", "json", **ground.environ).stdout)
    assert [(row["row"], row["state"]) for row in shown] == [*((n, "applied") for n in range(1, 5)), (5, "refused")]
    told = invoke("batch", batch_id, **ground.environ).stderr
    assert told.startswith(f"batch {batch_id} (illness): cancel, asked for by user:")
    failed = invoke("batch", batch_id, "--failures", **ground.environ).stdout.splitlines()
    assert [line.split()[0] for line in failed] == ["row", "5"]
    other = ground.folder / "other.csv"
    invoke("batch", batch_id, "--result", str(other), **ground.environ)
    assert other.read_bytes() == ground.result.read_bytes()
    assert invoke("batch", batch_id, "--watch", **ground.environ).exit_code == 9
    assert_error(invoke("batch", str(uuid.uuid4()), **ground.environ), 4, "there is no batch")
    assert batch_id in invoke("batches", **ground.environ).stdout


@both
def test_a_batch_is_cancelled(ground: Ground, ids: list[str]) -> None:
    """What is queued is withdrawn, what was sent stays; the actor is told, the exit code of a run is 9 then."""
    made = _queued(ground, ids[:4])
    done = invoke("batch", made, "--cancel", "--rows", "--format", "json", "--actor", "user:9", **ground.environ)
    assert done.stderr == "4 commands were withdrawn\n"
    assert {row["state"] for row in json.loads(done.stdout)} == {"withdrawn"}
    assert ground.posts() == 0


def test_a_batch_that_was_left_is_gone_on_with(ground: Ground, ids: list[str]) -> None:
    """`batch ID --watch` carries on what another process has queued."""
    made = _queued(ground, ids[:4])
    done = invoke("batch", made, "--watch", "--result", str(ground.result), **ground.environ)
    assert done.exit_code == 0, done.output
    assert ground.rows("state") == [("applied",)] * 4


def test_a_selection_is_gone_on_with_as_it_was(ground: Ground, ids: list[str], client: ZocdocClient) -> None:
    """What conditions chose is kept until it is carried out: chosen again, it would be others."""
    where = ("cancel", "--where", "status=confirmed")
    (batch_id, chosen), rest = _begun(ground, where, ids), ids[2:4]
    with support.opened(ground.environ["LIFECYCLE_DATABASE_URL"], client) as opened:
        opened.cancel(ids[3], actor=support.ACTOR)
    done = ground.bulk(*where)
    assert (done.exit_code, done.stdout) == (9, f"{batch_id}\n"), done.stderr
    assert ground.rows("appointment_id", "state") == [
        *((each, "applied") for each in [*ids[:2], rest[0]]),
        (rest[1], "refused"),
    ]
    assert not chosen.exists()


@pytest.mark.usefixtures("ids")
def test_conditions_in_another_zone_are_another_wish(ground: Ground) -> None:
    """A date begins elsewhere at another instant; the same instant in other words is the same wish."""
    places = [("2000-01-01", "America/New_York"), ("2000-01-01T05:00Z", "UTC"), ("2000-01-01", "UTC")]
    never_sent = {"LIFECYCLE_ZOCDOC_CLIENT_SECRET": "wr0ng"}
    made = [
        ground.bulk("cancel", "--where", f"start_time>={day}", "--time-zone", zone, "--no-wait", **never_sent).stdout
        for day, zone in places
    ]
    assert made[0] == made[1] != made[2]


def test_a_selection_that_is_gone_is_told(ground: Ground, ids: list[str]) -> None:
    """In another folder the rest is not known; --again begins anew."""
    where = ("cancel", "--where", "status=confirmed")
    _, chosen = _begun(ground, where, ids)
    chosen.unlink()
    assert_error(ground.bulk(*where), 1, "is not there; run this in its folder, or begin anew with --again")
    assert ground.bulk(*where, "--again").exit_code == 9


def test_what_is_left_to_others_is_only_submitted(ground: Ground, ids: list[str]) -> None:
    """--no-wait ends at once with the batch's id; whoever is there carries it out."""
    done = ground.bulk("cancel", "--file", ground.file(*ids[:4]), "--no-wait")
    assert done.exit_code == 0
    assert not ground.result.exists()
    batch_id = done.stdout.strip()
    assert f"`lifecycle batch {batch_id} --watch` stays with it" in done.stderr
    assert invoke("batch", batch_id, "--watch", **ground.environ).exit_code == 0


def test_results_that_cannot_be_written_are_not_lost(
    ground: Ground, ids: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was carried out is told, and how to write it elsewhere."""

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(results, "write", full)
    done = ground.bulk("cancel", "--file", ground.file(*ids[:4]))
    assert done.exit_code == 1
    assert "Error: No space left on device\n4 of 4 ended: 4 applied; `lifecycle batch " in done.stderr
    assert "--result FILE` writes the results" in done.stderr


@pytest.mark.usefixtures("ids")
def test_a_selection_is_not_left_behind(ground: Ground, server: Server) -> None:
    """Neither when the batch has all of it, nor when nobody agreed to it."""
    where = ("cancel", "--where", "status=confirmed")
    code, _ = _at_a_terminal(ground, server, "n\n", "bulk", *where)
    assert (code, list(ground.folder.glob("*.chosen.csv"))) == (1, [])
    assert ground.bulk(*where, "--no-wait").exit_code == 0
    assert list(ground.folder.glob("*.chosen.csv")) == []


def test_a_large_file_is_told_in_short(ground: Ground, ids: list[str]) -> None:
    """The first 20 bad rows before the question, 1,000 in the table of a dry run; programs get all."""
    path = ground.file(*ids[:4], *(f"stranger-{number}" for number in range(1_200)))
    dry = ("bulk", "cancel", "--file", path, "--dry-run")
    table = invoke(*dry, **ground.environ)
    assert len(table.stdout.splitlines()) == 1_001
    assert "the first 1000 of 1200 rows that would not pass" in table.stderr
    assert len(invoke(*dry, "--format", "jsonl", **ground.environ).stdout.splitlines()) == 1_204
    told = ground.bulk("cancel", "--file", path).stderr
    assert told.count("not_tracked: ") == 20
    assert "... and 1180 more rows that are invalid; --dry-run lists them" in told
    assert len(ground.rows("row")) == 1_204


def test_no_patient_s_word_stays(ground: Ground, ids: list[str]) -> None:
    """Free text is sent, and is then in no table, no result, no word and no file of ours."""
    secret = "Jane Doe has moved to Ohio"
    path = ground.file(f"{ids[0]},{secret}", f"{ids[4]},{secret}", f"x/y,{secret}", head="id,reason")
    done = ground.bulk("cancel", "--file", path, "--reason", f"{secret} too")
    assert done.exit_code == 9
    assert ground.sandbox.ledger.entries(operation="cancel")[0].body == {
        "appointment_id": ids[0],
        "cancellation_reason": secret,
    }
    assert secret not in done.output
    assert secret not in ground.result.read_text(encoding="utf-8")
    files = [each for each in ground.folder.iterdir() if each.name != "ids.csv"]
    assert [each.name for each in files if secret.encode() in each.read_bytes()] == []


def test_another_environment_queues_nothing(ground: Ground, ids: list[str]) -> None:
    """What would never be sent is refused before anything is queued."""
    other = {
        "LIFECYCLE_ZOCDOC_ENVIRONMENT": "production",
        "LIFECYCLE_ZOCDOC_BASE_URL": "",
        "LIFECYCLE_ZOCDOC_TOKEN_URL": "",
    }
    done = ground.bulk("cancel", "--file", ground.file(*ids[:4]), **other)
    assert (done.exit_code, done.stdout) == (1, "")
    assert "one database for each environment" in done.stderr
    assert ground.batches() == []


def test_why_nothing_moves_is_told(ground: Ground, ids: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong secret would look like a slow day otherwise."""
    path = ground.file(*ids[:2])
    with _given_up_when_told(ground, monkeypatch, "Waiting: "):
        done = ground.bulk("cancel", "--file", path, LIFECYCLE_ZOCDOC_CLIENT_SECRET="wr0ng")
    assert done.exit_code == 9
    assert "Waiting: what was tried had no effect (token_refused) and is tried again" in done.stderr
    assert "wr0ng" not in done.output


def test_a_submission_that_was_cut_off_is_no_finished_batch(ground: Ground, ids: list[str]) -> None:
    """What was taken is carried out; the rest only the command that began it knows."""
    batch_id, _ = _begun(ground, ("cancel", "--where", "status=confirmed"), ids)
    done = invoke("batch", batch_id, "--watch", "--settle-for", "0", **ground.environ)
    assert done.exit_code == 5
    assert "the command that began it, without --again, goes on with it" in done.stderr
    cancelled = invoke("batch", batch_id, "--cancel", "--watch", "--settle-for", "0", **ground.environ)
    assert (cancelled.exit_code, "cut off" in cancelled.stderr) == (0, False)


def test_a_queue_that_nobody_takes_from_is_told(
    ground: Ground, ids: list[str], sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A user's credential cannot take what the machine's is needed for."""
    user = {
        "LIFECYCLE_ZOCDOC_ACCESS_TOKEN": sandbox.user_token("7"),
        "LIFECYCLE_ZOCDOC_IDENTITY": "user:7",
        "LIFECYCLE_ZOCDOC_CLIENT_ID": "",
        "LIFECYCLE_ZOCDOC_CLIENT_SECRET": "",
    }
    path = ground.file(*ids[:2])
    with _given_up_when_told(ground, monkeypatch, "Waiting: "):
        done = ground.bulk("cancel", "--file", path, **user)
    assert "Waiting: nobody takes what is queued; is a worker running" in done.stderr
    assert done.exit_code == 9
    assert ground.rows("state") == [("withdrawn",), ("withdrawn",)]


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_workers_carry_it_out(ground: Ground, ids: list[str], server: Server) -> None:
    """This process submits, settles and watches; while the engine has no tables and no worker runs, all of it waits."""
    procrastinate = {"LIFECYCLE_DISPATCH": "procrastinate"}
    path = ground.file(*ids[:4])
    assert ground.bulk("cancel", "--file", path, "--no-wait", **procrastinate).exit_code == 0
    assert set(support.states(ground.environ["LIFECYCLE_DATABASE_URL"])) == {"queued"}
    assert ground.posts() == 0
    with working(ground.environ["LIFECYCLE_DATABASE_URL"], server):
        done = ground.bulk("cancel", "--file", path, **procrastinate)
    assert done.exit_code == 0, done.stderr
    assert "was begun before: 0 of 4 ended: 4 queued" in done.stderr
    assert ground.rows("state") == [("applied",)] * 4
    assert ground.posts() == 4


@both
def test_the_result_agrees_with_the_ledger(database_url: str, tmp_path: Path) -> None:
    """300 appointments, a tenth of them struck by thirteen kinds of faults: row by row what reached the stand-in."""
    figures = bulk.prove(database_url, tmp_path, appointments=300, faults=0.1, is_quick=True)
    assert figures.findings == []
    assert figures.exit_codes == [9]
    assert figures.states.keys() == {"applied", "rejected", "refused", "invalid"}
    assert figures.states["applied"] > 270


@both
def test_a_run_that_is_killed_is_gone_on_with(database_url: str, tmp_path: Path) -> None:
    """`kill -9` in the middle, then the same command again: the result agrees with the ledger all the same."""
    figures = bulk.prove(database_url, tmp_path, appointments=120, faults=0.1, kills=1, is_quick=True)
    assert figures.findings == []
    assert figures.exit_codes == [-9, 9]


def test_the_witness_is_not_blind(ground: Ground, ids: list[str], client: ZocdocClient) -> None:
    """Each lie in a result file is found: a state, a request, an effect, a row, a repeat after a lost answer."""
    support.arm(ground.sandbox, kind="answer", status=400, operation="cancel", appointment_id=ids[1])
    wanted = [ids[0], ids[1], ids[4]]
    assert ground.bulk("cancel", "--file", ground.file(*wanted)).exit_code == 9
    sound = bulk.read(ground.result)
    assert bulk.compare(ground.sandbox, sound, wanted) == []
    lies: list[tuple[int, dict[str, str]]] = [
        (0, {"state": "rejected", "http_status": "400"}),
        (0, {"state": "refused"}),
        (0, {"state": "queued"}),
        (0, {"state": "needs_attention"}),
        (0, {"zocdoc_request_id": "of-nobody"}),
        (0, {"appointment_id": ids[2]}),
        (1, {"state": "applied"}),
        (1, {"http_status": "404"}),
        (2, {"state": "applied"}),
        (2, {"row": "4"}),
    ]
    for place, lie in lies:
        told = [row | lie if place == number else row for number, row in enumerate(sound)]
        assert bulk.compare(ground.sandbox, told, wanted) != [], lie
    assert bulk.compare(ground.sandbox, sound[:2], wanted) != []
    support.lose_answer(ground.sandbox, "cancel", appointment_id=ids[2])
    for _ in range(2):
        client.cancel(ids[2])
    row = sound[0] | {"appointment_id": ids[2], "zocdoc_request_id": ""}
    assert bulk.compare(ground.sandbox, [row], [ids[2]]) == [f"row 1 (applied, ) of {ids[2]}: sent again after 0 reads"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_says_how_to_go_on(
    ground: Ground, ids: list[str], server: Server, number: signal.Signals
) -> None:
    """What is being sent is finished, nothing is in doubt, and what is queued waits for whoever goes on."""
    path = ground.file(*ids[:4])
    told = _interrupted(ground, server, number, "cancel", "--file", path)
    assert "Interrupted." in told
    assert "goes on with it; `--cancel` instead withdraws what is queued." in told
    assert set(support.states(ground.environ["LIFECYCLE_DATABASE_URL"])) <= {"queued", "applied"}
    assert ground.bulk("cancel", "--file", path).exit_code == 0
    assert [support.effects(ground.sandbox, each) for each in ids[:4]] == [1, 1, 1, 1]


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_run_that_nobody_listens_to_goes_on(ground: Ground, ids: list[str], server: Server, stream: str) -> None:
    """As of `lifecycle bulk ... | true`: all of it is carried out, the results are written, the exit code is true."""
    path = ground.file(*ids)
    unread, ours = os.pipe()
    os.close(unread)
    process = subprocess.Popen(  # noqa: S603 # our own program
        [
            *(sys.executable, "-c", bulk.QUICK + bulk.RUN, "bulk", "cancel"),
            *("--file", path, "--yes", "--result", str(ground.result)),
        ],
        stdin=subprocess.DEVNULL,
        env=support.environment(**ground.environ, LIFECYCLE_ZOCDOC_AUDIENCE=server.audience),
        stdout=ours if stream == "stdout" else subprocess.DEVNULL,
        stderr=ours if stream == "stderr" else subprocess.DEVNULL,
    )
    os.close(ours)
    assert process.wait(timeout=60) == 9
    assert ground.rows("state") == [*[("applied",)] * 4, ("refused",)]


def test_a_terminal_is_asked_and_shown_a_bar(ground: Ground, ids: list[str], server: Server) -> None:
    """No: nothing happens. Yes: it is carried out, and how far it is can be seen."""
    path = ground.file(*ids[:4])
    code, told = _at_a_terminal(ground, server, "n\n", "bulk", "cancel", "--file", path)
    assert code == 1
    assert "cancel 4 appointments at Zocdoc? [y/N]: " in told
    assert ground.batches() == []
    with _held(ground.sandbox) as (_, release):

        def look(told: str) -> None:
            if re.search(r"[0-4]/4 .*(queued|being sent)", re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", told)):
                release.set()

        code, told = _at_a_terminal(ground, server, "y\n", "bulk", "cancel", "--file", path, look=look)
        assert release.is_set(), ascii(told)
    assert code == 0, told
    assert "4 of 4 ended: 4 applied; 4 rows in " in told


def test_a_database_that_restarts_is_waited_for(
    postgres_url: str, client: ZocdocClient, server: Server, sandbox: Sandbox, tmp_path: Path
) -> None:
    """Every connection is cut several times in the middle: nothing is lost, and nothing is sent twice."""
    ids = sandbox.add_many(60, prefix="visit-", status="confirmed")
    with support.opened(postgres_url, client) as opened:
        opened.sync()
    path = tmp_path / "ids.csv"
    path.write_text("\n".join(["id", *ids]), encoding="utf-8")
    result = tmp_path / "results.csv"
    arguments = ("bulk", "cancel", "--file", str(path), "--yes", "--result", str(result))
    process = bulk.command_line(server, postgres_url, *arguments)
    for wanted in (5, 15, 30):
        support.until(lambda wanted=wanted: len(sandbox.ledger.entries(operation="cancel")) > wanted, seconds=30)  # type: ignore[misc]
        support.query(
            postgres_url,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()",
        )
    _, told = process.communicate(timeout=60)
    assert process.returncode == 0, told
    assert {support.effects(sandbox, each) for each in ids} == {1}
    with result.open(encoding="utf-8", newline="") as file:
        assert [row["state"] for row in csv.DictReader(file)] == ["applied"] * 60


def test_what_does_not_pass_by_itself_is_not_waited_for(
    postgres_url: str, client: ZocdocClient, server: Server, sandbox: Sandbox, tmp_path: Path
) -> None:
    """A database that takes no writes ends the run with its reason, and nothing is sent."""
    [appointment_id] = sandbox.add_many(1, prefix="visit-", status="confirmed")
    with support.opened(postgres_url, client) as opened:
        opened.sync()
    path = tmp_path / "ids.csv"
    path.write_text(f"id\n{appointment_id}\n", encoding="utf-8")
    read_only = sa.make_url(postgres_url).update_query_dict({"options": "-cdefault_transaction_read_only=on"})
    url = read_only.render_as_string(hide_password=False)
    result = str(tmp_path / "results.csv")
    done = invoke("bulk", "cancel", "--file", str(path), "--yes", "--result", result, **settings_for(server, url))
    assert (done.exit_code, "25006" in done.stderr, "is not withdrawn" in done.stderr) == (1, True, True)
    assert support.posts(sandbox, appointment_id) == 0


def test_a_database_that_restarts_during_the_submission_is_waited_for(
    postgres_url: str, client: ZocdocClient, server: Server, sandbox: Sandbox, tmp_path: Path
) -> None:
    """The submission is gone on with when the database is back, and each row is taken once."""
    ids = sandbox.add_many(5, prefix="visit-", status="confirmed")
    with support.opened(postgres_url, client) as opened:
        opened.sync()
    path = tmp_path / "ids.csv"
    path.write_text("\n".join(["id", *ids]), encoding="utf-8")
    arguments = ("bulk", "cancel", "--file", str(path), "--yes", "--result", str(tmp_path / "results.csv"))
    waiting = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    engine = sa.create_engine(postgres_url)
    with engine.begin() as holder:
        holder.exec_driver_sql("LOCK TABLE lifecycle_batches IN EXCLUSIVE MODE")
        process = bulk.command_line(server, postgres_url, *arguments)
        for _ in range(2):
            support.until(lambda: support.query(postgres_url, waiting), seconds=30)
            support.query(postgres_url, f"SELECT pg_terminate_backend(pid) FROM ({waiting}) AS w")  # noqa: S608
            support.until(lambda: not support.query(postgres_url, waiting), seconds=30)
    engine.dispose()
    _, told = process.communicate(timeout=60)
    assert process.returncode == 0, told
    assert told.count("Waiting: ") == 1
    assert [support.effects(sandbox, each) for each in ids] == [1] * 5


def _begun(ground: Ground, where: tuple[str, ...], ids: Sequence[str]) -> tuple[str, Path]:
    """Leave what a process that was killed in the middle of its submission leaves: two rows of four, and the file."""
    with Lifecycle(ground.environ["LIFECYCLE_DATABASE_URL"]) as opened:
        batch_id = opened.batch_id("cancel", "where", *where[2::2], "1")
        opened.submit_many(
            [{"appointment_id": each} for each in ids[:2]], actor=support.ACTOR, command="cancel", batch_id=batch_id
        )
    support.query(ground.environ["LIFECYCLE_DATABASE_URL"], "UPDATE lifecycle_batches SET submitted_at = NULL")
    chosen = ground.folder / f"{batch_id}.chosen.csv"
    chosen.write_text("\n".join(["appointment_id", *ids[:4]]), encoding="utf-8")
    return batch_id, chosen


@contextmanager
def _held(sandbox: Sandbox) -> Iterator[tuple[threading.Event, threading.Event]]:
    """Let commands wait at the stand-in; gives what tells that one has come, and what lets them go on."""
    has_come, release = threading.Event(), threading.Event()
    answer = sandbox.answer

    def wait(request: Request) -> Reply:
        if request.method != "GET" and request.path.startswith("/v1/"):
            has_come.set()
            release.wait(60)
        return answer(request)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(sandbox, "answer", wait)
        try:
            yield has_come, release
        finally:
            release.set()


def _interrupted(ground: Ground, server: Server, number: signal.Signals, command: str, *arguments: str) -> str:
    """Run a bulk command, signal it while it sends, and give what it said; nothing is answered before the signal."""
    given = ("bulk", command, *arguments, "--yes", "--result", str(ground.result))
    with _held(ground.sandbox) as (has_come, release):
        # In its own time: a quick one does not wait for an answer as long as this machine may stall.
        process = bulk.command_line(server, ground.environ["LIFECYCLE_DATABASE_URL"], *given, is_quick=False)
        support.until(lambda: has_come.is_set() or process.poll() is not None, seconds=60)
        process.send_signal(number)
        release.set()
        _, told = process.communicate(timeout=60)
    assert process.returncode == 130, told
    return told


@contextmanager
def _given_up_when_told(ground: Ground, monkeypatch: pytest.MonkeyPatch, wanted: str) -> Iterator[None]:
    """Say soon why nothing moves, and cancel every batch once that was said."""
    for name in ("_LINE", "_FIRST_LINE"):
        monkeypatch.setattr(attending, name, 0.2)
    is_told, say = threading.Event(), words.say

    def listen(*lines: str) -> None:
        say(*lines)
        if any(line.startswith(wanted) for line in lines):
            is_told.set()

    def give_up() -> None:
        assert is_told.wait(60)
        with Lifecycle(ground.environ["LIFECYCLE_DATABASE_URL"]) as opened:
            for it in opened.batches():
                opened.batch(it.batch_id).cancel(actor=support.ACTOR)

    monkeypatch.setattr(words, "say", listen)
    with support.in_background(give_up):
        yield


def _at_a_terminal(
    ground: Ground, server: Server, answer: str, *arguments: str, look: Callable[[str], None] = lambda _: None
) -> tuple[int, str]:
    """Run the command line at a terminal of its own, answer its question, and give its exit code and what it said.

    `look` is shown what it has said so far.
    """
    ours, theirs = pty.openpty()
    settings = {**ground.environ, "LIFECYCLE_ZOCDOC_AUDIENCE": server.audience, "TERM": "xterm", "COLUMNS": "100"}
    process = subprocess.Popen(  # noqa: S603 # our own program
        [sys.executable, "-c", bulk.QUICK + bulk.RUN, *arguments],
        stdin=theirs,
        stdout=subprocess.DEVNULL,
        stderr=theirs,
        env=support.environment(**settings),
        cwd=ground.folder,
    )
    os.close(theirs)
    os.write(ours, answer.encode())
    told = b""
    while True:
        try:
            told += os.read(ours, 65_536)
        except OSError:  # the other end is closed
            break
        look(told.decode(errors="replace"))
    os.close(ours)
    return process.wait(timeout=30), told.decode()


def _queued(ground: Ground, ids: Sequence[str]) -> str:
    """Queue a batch that nobody carries out: without a client there is nobody who could."""
    with Lifecycle(ground.environ["LIFECYCLE_DATABASE_URL"]) as opened:
        return opened.submit_many([{"appointment_id": each} for each in ids], actor=support.ACTOR, command="cancel").id
