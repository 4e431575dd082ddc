"""Batches: many wishes submitted together; what became of each row is in the database, whatever the engine."""

from __future__ import annotations

import itertools
import json
import threading
import time
import uuid
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from lifecycle import (
    BatchNotFound,
    EnvironmentMismatch,
    InvalidArgument,
    Lifecycle,
    ZocdocClient,
    audit,
    dispatching,
    enqueuing,
)
from lifecycle.claiming import take
from lifecycle.models import CommandState
from tests import support
from tests.support import ACTOR, LATER

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from lifecycle import Batch
    from lifecycle.sandbox import Sandbox, Server

SOON = support.PATIENCE
UNKNOWN = "00000000-0000-4000-8000-000000000000"


@pytest.fixture
def idle(database_url: str) -> Iterator[Lifecycle]:
    """A process that submits and cannot send: it has no credential, so what it queues stays queued."""
    with support.opened(database_url, None) as made:
        yield made


def many(lifecycle: Lifecycle, sandbox: Sandbox, count: int) -> list[str]:
    """Track so many appointments."""
    return [support.tracked(lifecycle, sandbox) for _ in range(count)]


def assert_counted(url: str, batch: Batch) -> None:
    """Check the batch's counts against a count of its commands by the test's own SQL."""
    found = support.query(
        url, "SELECT state, count(*) AS n FROM lifecycle_commands WHERE batch_id = :b GROUP BY 1", b=batch.id
    )
    counted = {row["state"]: row["n"] for row in found}
    progress = batch.progress()
    names = [str(state) for state in CommandState]
    assert {name: getattr(progress, name) for name in names if getattr(progress, name)} == counted
    assert sum(counted.values()) + progress.invalid == progress.total


def test_each_row_is_told(lifecycle: Lifecycle, sandbox: Sandbox, database_url: str) -> None:
    """Applied, rejected, refused when it was dispatched or before, and what could not become a command."""
    ids = many(lifecycle, sandbox, 6)
    sandbox.change(ids[1], status="cancelled", webhook=False)
    lifecycle.track(ids[1], actor=ACTOR)
    support.arm(sandbox, kind="answer", operation="cancel", appointment_id=ids[2], status=422)
    rows: list[Any] = [
        {"appointment_id": ids[0], "reason_type": "provider_not_available"},
        {"appointment_id": ids[1]},
        {"appointment_id": ids[2]},
        {"appointment_id": UNKNOWN},
        {"appointment_id": "no id at all, but a patient's name"},
        {"appointment_id": ids[3], "reason_type": "bad weather"},
        {"appointment_id": ids[3], "start_time": LATER},
        {"appointment_id": ids[3], "start": LATER},
        "a row that is none",
        {"appointment_id": ids[4], "expires_at": "2031-01-01"},
        {"appointment_id": ids[0]},
        {"appointment_id": ids[5], "reason": None},
    ]
    batch = lifecycle.submit_many(rows, actor=ACTOR, command="cancel", name="a storm")
    assert batch.wait(SOON)
    told = [(each.row, each.state, each.reason_code) for each in batch.rows()]
    assert told[10][1:] in {("refused", "command_in_progress"), ("refused", "status_not_allowed")}
    del told[10]
    assert told == [
        (1, "applied", None),
        (2, "refused", "status_not_allowed"),
        (3, "rejected", "unprocessable"),
        (4, "invalid", "not_tracked"),
        (5, "invalid", "invalid_appointment_id"),
        (6, "invalid", "invalid_reason_type"),
        (7, "invalid", "invalid_start_time"),
        (8, "invalid", "invalid_column"),
        (9, "invalid", "invalid_row"),
        (10, "invalid", "invalid_expires_at"),
        (12, "applied", None),
    ]
    assert [each.row for each in batch.failures()] == [2, 3, 4, 5, 6, 7, 8, 9, 10, 11]
    assert {each.row: each.appointment_id for each in batch.failures()}[4] == UNKNOWN
    assert {each.row: each.appointment_id for each in batch.failures()}[5] is None
    assert_counted(database_url, batch)
    assert batch.progress().is_finished
    assert batch.info.name == "a storm"
    assert lifecycle.verify().is_sound


def test_a_row_may_have_its_own_command(lifecycle: Lifecycle, sandbox: Sandbox) -> None:
    """Then the batch has none, and its rows go each their way."""
    first, second, third = many(lifecycle, sandbox, 3)
    rows = [
        {"appointment_id": first, "command": "confirm"},
        {"appointment_id": second, "command": "reschedule", "start_time": LATER},
        {"appointment_id": third},
    ]
    batch = lifecycle.submit_many(rows, actor=ACTOR)
    assert batch.wait(SOON)
    assert [(each.command, each.state, each.reason_code) for each in batch.rows()] == [
        ("confirm", "applied", None),
        ("reschedule", "applied", None),
        (None, "invalid", "invalid_command"),
    ]


def test_a_submission_that_was_cut_off_is_gone_on_with(idle: Lifecycle, lifecycle: Lifecycle, sandbox: Sandbox) -> None:
    """The same rows with the same id: what was taken is not taken again."""
    ids = many(lifecycle, sandbox, 30)

    def cut() -> Iterator[dict[str, str]]:
        for number in range(2500):
            if number == 2200:
                raise KeyboardInterrupt
            yield {"appointment_id": ids[number] if number < 30 else UNKNOWN}

    with pytest.raises(KeyboardInterrupt):
        idle.submit_many(cut(), actor=ACTOR, command="cancel", batch_id="b-1")
    cut_off = idle.batch("b-1")
    assert (cut_off.progress().total, cut_off.progress().queued, cut_off.progress().is_submitted) == (2000, 30, False)
    assert cut_off.info.submitted_at is None
    rows = [{"appointment_id": ids[number] if number < 30 else UNKNOWN} for number in range(2500)]
    again = idle.submit_many(rows, actor=ACTOR, command="cancel", batch_id="b-1")
    progress = again.progress()
    assert (progress.total, progress.queued, progress.invalid, progress.is_submitted) == (2500, 30, 2470, True)
    assert [each.row for each in again.rows()] == list(range(1, 2501))
    assert idle.submit_many(rows, actor=ACTOR, command="cancel", batch_id="b-1").progress() == progress


def test_two_that_submit_the_same_batch_take_each_row_once(
    idle: Lifecycle, lifecycle: Lifecycle, sandbox: Sandbox, database_url: str
) -> None:
    """A second process that was started by mistake changes nothing."""
    rows = [{"appointment_id": each} for each in many(lifecycle, sandbox, 40)] * 27

    def submit(_: int) -> int:
        return idle.submit_many(rows, actor=ACTOR, command="cancel", batch_id="b-2").progress().total

    assert support.together(3, submit) == [1080] * 3
    assert Counter(each.state for each in idle.batch("b-2").rows()) == {"queued": 40, "refused": 1040}
    assert_counted(database_url, idle.batch("b-2"))


def test_cancelling_withdraws_what_is_queued(
    idle: Lifecycle, lifecycle: Lifecycle, sandbox: Sandbox, database_url: str
) -> None:
    """With an event for each; the batch takes no more rows, and nothing of it is sent any more."""
    ids = many(lifecycle, sandbox, 5)
    batch = idle.submit_many([{"appointment_id": each} for each in ids], actor=ACTOR, command="cancel", batch_id="b-3")
    assert batch.cancel(actor="user:18") == 5
    assert batch.cancel(actor="user:18") == 0
    assert batch.progress().withdrawn == 5
    last = lifecycle.history(ids[0])[-1]
    assert (last.event, last.actor, last.reason_code) == ("command_withdrawn", "user:18", "batch_cancelled")
    assert_counted(database_url, batch)
    lifecycle.recover()
    more = idle.submit_many(
        [{"appointment_id": each} for each in [*ids, *ids]], actor=ACTOR, command="cancel", batch_id="b-3"
    )
    assert more.progress().total == 5
    assert all(support.posts(sandbox, each) == 0 for each in ids)
    assert lifecycle.verify().is_sound


def test_cancelling_counts_what_others_withdraw_meanwhile(
    postgres_url: str, client: ZocdocClient, sandbox: Sandbox
) -> None:
    """Whoever was about to send a row finds its batch cancelled and withdraws it: that is told too."""
    with support.opened(postgres_url, None) as idle, support.opened(postgres_url, client) as other:
        ids = sorted(many(other, sandbox, 3))
        batch = idle.submit_many([{"appointment_id": each} for each in ids], actor=ACTOR, command="cancel")
        with idle.database.write() as connection:
            audit.lock_all(idle.database, connection, ids[:1])
            with support.in_background(lambda: batch.cancel(actor=ACTOR)) as told:
                support.until(lambda: batch.info.cancelled_at is not None)
                take(other.resources, most=9, clients={client.identity: client})
                assert batch.progress().withdrawn == 2
                connection.rollback()
        assert told == [3]
    assert sum(support.posts(sandbox, each) for each in ids) == 0


def test_what_of_a_cancelled_batch_comes_back_is_not_sent_again(lifecycle: Lifecycle, sandbox: Sandbox) -> None:
    """A command that was on its way when its batch was cancelled, and proved lost, is withdrawn."""
    (appointment_id,) = many(lifecycle, sandbox, 1)
    support.lose_answer(sandbox, "cancel", when="before")
    batch = lifecycle.submit_many([{"appointment_id": appointment_id}], actor=ACTOR, command="cancel")
    support.until(lambda: batch.progress().uncertain == 1)
    assert batch.cancel(actor=ACTOR) == 0
    lifecycle.recover(wait=support.PATIENCE)
    assert batch.wait(SOON)
    assert batch.progress().withdrawn == 1
    assert support.posts(sandbox, appointment_id) == 1


def test_a_refused_credential_rejects_no_batch(lifecycle: Lifecycle, sandbox: Sandbox) -> None:
    """It pauses, and goes on when the credential is good again."""
    ids = many(lifecycle, sandbox, 12)
    support.arm(sandbox, kind="answer", operation="confirm", status=401, times=6)
    batch = lifecycle.submit_many([{"appointment_id": each} for each in ids], actor=ACTOR, command="confirm")
    assert batch.wait(SOON)
    assert batch.progress().applied == 12
    assert list(batch.failures()) == []


def test_batches_are_listed_newest_first(idle: Lifecycle) -> None:
    """With who asked for what."""
    made = [idle.submit_many([], actor=ACTOR, command=each).id for each in ("cancel", "confirm")]
    listed = list(idle.batches())
    assert [each.batch_id for each in listed] == made[::-1]
    assert (listed[0].command, listed[0].actor, listed[0].source, listed[0].total) == ("confirm", ACTOR, "api", 0)
    assert [each.batch_id for each in idle.batches(limit=1)] == made[1:]
    assert idle.batch(made[0]).progress().is_finished


def test_an_id_belongs_to_one_batch(idle: Lifecycle) -> None:
    """Another command under the same id is a mistake; so is an id that there is not."""
    idle.submit_many([], actor=ACTOR, command="cancel", batch_id="b-4")
    with pytest.raises(InvalidArgument, match="batch_id"):
        idle.submit_many([], actor=ACTOR, command="confirm", batch_id="b-4")
    with pytest.raises(BatchNotFound):
        idle.batch("none")
    wrongs: tuple[dict[str, Any], ...] = (
        {"actor": ""},
        {"actor": ACTOR, "command": "no"},
        {"actor": ACTOR, "name": "\n"},
    )
    for wrong in wrongs:
        with pytest.raises(InvalidArgument):
            idle.submit_many([], **wrong)


def test_a_taken_request_key_is_an_error_of_the_row(idle: Lifecycle, lifecycle: Lifecycle, sandbox: Sandbox) -> None:
    """The wish is somebody else's, or has been taken before: it is not sent a second time."""
    first, second = many(lifecycle, sandbox, 2)
    idle.submit("cancel", first, actor=ACTOR, request_key="k-1")
    rows = [
        {"appointment_id": first, "request_key": "k-1"},
        {"appointment_id": second, "request_key": "k-1"},
        {"appointment_id": second, "request_key": "k-2"},
    ]
    batch = idle.submit_many(rows, actor=ACTOR, command="cancel")
    assert [(each.state, each.reason_code) for each in batch.rows()] == [
        ("invalid", "request_key_taken"),
        ("invalid", "request_key_taken"),
        ("queued", None),
    ]


def test_counts_are_kept_while_many_work(
    database_url: str, client: ZocdocClient, sandbox: Sandbox, idle: Lifecycle
) -> None:
    """Four processes that dispatch, one that cancels: the counts are those of the commands."""
    with support.opened(database_url, client) as tracking:
        ids = many(tracking, sandbox, 60)
    batch = idle.submit_many([{"appointment_id": each} for each in ids], actor=ACTOR, command="confirm")
    with (
        support.opened(database_url, client) as first,
        support.opened(database_url, client) as second,
        support.opened(database_url, client) as third,
    ):
        for each in (first, second, third):
            each.recover()
        support.until(lambda: batch.progress().applied > 5)
        batch.cancel(actor=ACTOR)
        assert batch.wait(SOON)
    assert batch.progress().applied + batch.progress().withdrawn == 60
    assert_counted(database_url, batch)


def test_progress_is_one_small_query(idle: Lifecycle, database_url: str) -> None:
    """Its plan does not look at commands."""
    statement = "SELECT sum(queued) FROM lifecycle_batch_counts WHERE batch_id = 'b'"
    explain = "EXPLAIN " if idle.database.is_postgres else "EXPLAIN QUERY PLAN "
    assert "lifecycle_commands" not in str(support.query(database_url, explain + statement))


def test_a_file_is_submitted_by_its_name(lifecycle: Lifecycle, sandbox: Sandbox, tmp_path: Path) -> None:
    """Rows that the reader finds bad are errors of the batch, with the appointment they name if it is well-formed."""
    ids = [support.tracked(lifecycle, sandbox, status="confirmed") for _ in range(2)]
    path = tmp_path / "wishes.jsonl"
    wishes = [{"id": ids[0]}, {"id": ids[0]}, {"id": "x/y"}, {"id": ids[1], "request_key": 7}, {"id": ids[1]}]
    path.write_text("\n".join(map(json.dumps, wishes)), encoding="utf-8")
    batch = lifecycle.submit_many(path, actor=ACTOR, command="cancel")
    assert batch.wait(SOON)
    assert [(row.row, row.appointment_id, row.state, row.reason_code) for row in batch.rows()] == [
        (1, ids[0], "applied", None),
        (2, ids[0], "invalid", "duplicate_of_row"),
        (3, None, "invalid", "invalid_appointment_id"),
        (4, ids[1], "invalid", "not_text"),
        (5, ids[1], "applied", None),
    ]


def test_a_file_that_cannot_be_used_makes_no_batch(lifecycle: Lifecycle, tmp_path: Path) -> None:
    """It is refused as a whole, before anything is written."""
    path = tmp_path / "moves.csv"
    path.write_text("appointment_id,start_time\na,2031-03-01T09:00:00Z\n", encoding="utf-8")
    with pytest.raises(InvalidArgument, match="unknown columns: start_time"):
        lifecycle.submit_many(path, actor=ACTOR, command="cancel")
    assert list(lifecycle.batches()) == []


def test_a_client_of_another_environment_submits_nothing(
    lifecycle: Lifecycle, sandbox: Sandbox, database_url: str
) -> None:
    """Its dispatcher would never send it."""
    appointment_id = support.tracked(lifecycle, sandbox)
    with (
        ZocdocClient.for_environment("production", client_id="x", client_secret="y") as other,
        Lifecycle(database_url, zocdoc=other) as wrong,
    ):
        with pytest.raises(EnvironmentMismatch):
            wrong.submit_many([{"appointment_id": appointment_id}], actor=ACTOR, command="confirm")
        with pytest.raises(EnvironmentMismatch):
            wrong.submit("confirm", appointment_id, actor=ACTOR)
        with wrong.database.engine.connect() as own, pytest.raises(EnvironmentMismatch):
            wrong.submit("confirm", appointment_id, actor=ACTOR, session=own)
    assert list(lifecycle.batches()) == []
    assert support.commands(database_url) == []


def test_a_batch_that_was_cancelled_is_finished(idle: Lifecycle, lifecycle: Lifecycle, sandbox: Sandbox) -> None:
    """Also if its submission was cut off: it takes no more."""
    wishes = iter([{"appointment_id": support.tracked(lifecycle, sandbox)}])

    def cut_off() -> Iterator[dict[str, str]]:
        yield next(wishes)
        raise KeyboardInterrupt

    made = str(uuid.uuid4())
    with pytest.raises(KeyboardInterrupt):
        idle.submit_many(cut_off(), actor=ACTOR, command="confirm", batch_id=made)
    assert not idle.batch(made).progress().is_finished
    idle.batch(made).cancel(actor=ACTOR)
    assert idle.batch(made).progress().is_finished


def test_the_same_wish_has_the_same_batch_id(lifecycle: Lifecycle, sandbox: Sandbox) -> None:
    """In one database; which wish it is cannot be told from the id without the database's key."""
    support.tracked(lifecycle, sandbox)
    first = lifecycle.batch_id("cancel", "a", "b")
    assert first == lifecycle.batch_id("cancel", "a", "b") == str(uuid.UUID(first))
    assert len({first, lifecycle.batch_id("cancel", "ab"), lifecycle.batch_id("cancel", "b", "a")}) == 3


def test_a_forbidden_credential_does_not_cost_a_batch(
    lifecycle: Lifecycle, sandbox: Sandbox, server: Server, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After each pause one command tries it; the others stay queued, and go on once it is good again."""
    monkeypatch.setattr(dispatching, "_HOLD", (0.2,))
    ids = many(lifecycle, sandbox, 40)
    support.arm(sandbox, kind="answer", operation="cancel", status=403, times=1000)
    with support.client_of(server) as client, support.opened(database_url, client, concurrency=4) as made:
        batch = made.submit_many([{"appointment_id": each} for each in ids], command="cancel", actor=ACTOR)
        time.sleep(2.0)
        sandbox.faults.clear()
        assert batch.wait(SOON)
        assert batch.progress().rejected <= 20
        assert batch.progress().ended == 40


def waits_for_a_lock(url: str) -> bool:
    """Tell whether some connection to the database waits for another."""
    statement = (
        "SELECT count(*) AS n FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    return bool(support.query(url, statement)[0]["n"])


def test_a_doubled_row_and_a_worker_do_not_wait_in_a_circle(
    lifecycle: Lifecycle, sandbox: Sandbox, idle: Lifecycle, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker holds an appointment and goes on to the counts of its batch, so who adds rows goes that way too."""
    if not lifecycle.database.is_postgres:
        pytest.skip("SQLite has one writer at a time")
    first, second, third = many(lifecycle, sandbox, 3)
    numbers = itertools.count()
    monkeypatch.setattr(enqueuing, "_CHUNK", 2)
    monkeypatch.setattr(uuid, "uuid4", lambda: f"aa000000-0000-4000-8000-{next(numbers):012}")  # one slot
    goes_on = threading.Event()

    def rows() -> Iterator[dict[str, Any]]:
        yield from ({"appointment_id": first}, {"appointment_id": second})
        goes_on.wait(SOON)
        yield from ({"appointment_id": third}, {"appointment_id": first})

    with support.in_background(lambda: idle.submit_many(rows(), command="cancel", actor=ACTOR, batch_id="b")) as came:
        support.until(lambda: support.states(database_url) == ["queued", "queued"])
        with lifecycle.database.write() as worker:
            audit.lock(lifecycle.database, worker, first)
            goes_on.set()
            support.until(lambda: waits_for_a_lock(database_url))
            worker.exec_driver_sql(
                "UPDATE lifecycle_commands SET state = 'sending', due_at = NULL WHERE appointment_id = %s", (first,)
            )
    assert repr(came) == "[Batch('b')]"
    assert (idle.batch("b").progress().queued, idle.batch("b").progress().refused) == (2, 1)


def test_commands_that_end_and_commands_that_go_on_are_counted_in_one_order(
    lifecycle: Lifecycle, sandbox: Sandbox, idle: Lifecycle, client: ZocdocClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever takes from a batch while another does waits for its counts, and holds none of them meanwhile."""
    if not lifecycle.database.is_postgres:
        pytest.skip("SQLite has one writer at a time")
    ids = many(lifecycle, sandbox, 2)
    lifecycle.cancel(ids[0], actor=ACTOR)
    names = iter(("bb000000-0000-4000-8000-000000000000", "aa000000-0000-4000-8000-000000000000"))
    monkeypatch.setattr(uuid, "uuid4", lambda: next(names))
    batch = idle.submit_many([{"appointment_id": each} for each in ids], command="cancel", actor=ACTOR, batch_id="b")
    url = idle.database.engine.url.render_as_string(hide_password=False)
    slot = "SELECT 1 FROM lifecycle_batch_counts WHERE slot = %s FOR UPDATE"
    with lifecycle.database.write() as another:
        another.exec_driver_sql(slot, ("aa",))
        with support.in_background(lambda: take(lifecycle.resources, most=8, clients={"machine": client})) as came:
            support.until(lambda: waits_for_a_lock(url))
            another.exec_driver_sql(slot, ("bb",))
            another.commit()
    assert [(each.scanned, each.ended, len(each.orders)) for each in came] == [(2, 1, 1)]
    assert (batch.progress().refused, batch.progress().sending) == (1, 1)
