"""Submitted commands: queued in a transaction of ours or of the caller's, guarded and sent when they are dispatched."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa
from sqlalchemy import orm

from lifecycle import (
    CommandExpired,
    CommandInProgress,
    CommandNotFound,
    CommandWithdrawn,
    InvalidArgument,
    Lifecycle,
    NotSent,
    RequestKeyReused,
    Timing,
    TransitionRefused,
    ZocdocClient,
    database,
    dispatching,
)
from lifecycle.claiming import take, waiting_identities
from lifecycle.errors import AppointmentNotFound
from tests import support
from tests.conftest import FAST
from tests.support import ACTOR, LATER, LATER_UTC

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lifecycle.sandbox import Sandbox, Server
    from lifecycle.zocdoc.timing import Budget

SOON = support.PATIENCE

ENDS_AT_ONCE = """
import time
lifecycle = Lifecycle(url, zocdoc=client, timing=timing, concurrency=4)
ids = sys.argv[5:]
for each in ids:
    lifecycle.track(each, actor="user:17")
batch = lifecycle.submit_many([{"appointment_id": each} for each in ids], command="cancel", actor="user:17")
while not batch.progress().applied:
    time.sleep(0.005)
print("submitted")
"""


@pytest.fixture
def idle(database_url: str) -> Iterator[Lifecycle]:
    """A process that submits and cannot send: it has no credential, so what it queues stays queued."""
    with support.opened(database_url, None) as made:
        yield made


def test_it_is_sent_and_told_like_a_call(lifecycle: Lifecycle, sandbox: Sandbox, database_url: str) -> None:
    """The handle gives what the synchronous call gives, and the trail tells when it was queued."""
    appointment_id = support.tracked(lifecycle, sandbox)
    submitted = lifecycle.submit("reschedule", appointment_id, actor=ACTOR, start_time=LATER)
    assert submitted.wait(SOON)
    done = submitted.result()
    assert (submitted.state, done.command_id, done.to_status) == ("applied", submitted.id, "rescheduled")
    assert support.posts(sandbox, appointment_id) == 1
    _, accepted, applied = lifecycle.history(appointment_id)
    assert (accepted.event, accepted.command_id, accepted.source) == ("command_accepted", submitted.id, "api")
    assert accepted.details.keys() == {"queued_at"}
    assert applied.details == {"start_time": LATER_UTC}
    (row,) = support.commands(database_url)
    assert (row["attempt"], row["due_at"], row["lease_until"]) == (1, None, None)
    assert lifecycle.verify().is_sound


def test_the_checks_run_when_it_is_dispatched(lifecycle: Lifecycle, sandbox: Sandbox, idle: Lifecycle) -> None:
    """A wish that was fine when it was submitted is refused if the appointment has changed since."""
    appointment_id = support.tracked(lifecycle, sandbox)
    submitted = idle.submit("confirm", appointment_id, actor=ACTOR)
    sandbox.change(appointment_id, status="cancelled")
    assert lifecycle.track(appointment_id, actor="job:sync").status == "cancelled", "observed although one is queued"
    lifecycle.recover()
    assert lifecycle.submission(submitted.id).wait(SOON)
    with pytest.raises(TransitionRefused) as refusal:
        submitted.result()
    assert (refusal.value.status, refusal.value.reasons) == ("cancelled", ("status_not_allowed",))
    last = lifecycle.history(appointment_id)[-1]
    assert (last.event, last.command_id, last.outcome) == ("command_refused", submitted.id, "refused")
    assert support.posts(sandbox, appointment_id) == 0


@pytest.mark.parametrize("kind", ["session", "connection"])
def test_it_belongs_to_the_callers_transaction(
    lifecycle: Lifecycle, sandbox: Sandbox, database_url: str, kind: str
) -> None:
    """Rolled back it never was; committed it is sent."""
    appointment_id = support.tracked(lifecycle, sandbox)
    engine = sa.create_engine(database_url)
    for ends in ("rollback", "commit"):
        with orm.Session(engine) if kind == "session" else engine.connect() as own:
            submitted = lifecycle.submit("cancel", appointment_id, actor=ACTOR, session=own)
            getattr(own, ends)()
        if ends == "rollback":
            with pytest.raises(CommandNotFound):
                _ = submitted.state
    assert submitted.wait(SOON)
    assert submitted.result().to_status == "cancelled"
    assert support.states(database_url) == ["applied"]
    engine.dispose()


def test_what_cannot_be_queued_leaves_the_callers_transaction_usable(
    lifecycle: Lifecycle, sandbox: Sandbox, idle: Lifecycle, database_url: str
) -> None:
    """A conflict is an error for the caller, not for the database: the transaction goes on, and commits."""
    taken, free = support.tracked(lifecycle, sandbox), support.tracked(lifecycle, sandbox)
    idle.submit("cancel", taken, actor=ACTOR)
    engine = sa.create_engine(database_url)
    with engine.begin() as connection:
        with pytest.raises(CommandInProgress) as refusal:
            idle.submit("confirm", taken, actor=ACTOR, session=connection)
        with pytest.raises(AppointmentNotFound):
            idle.submit("confirm", "00000000-0000-4000-8000-000000000000", actor=ACTOR, session=connection)
        idle.submit("confirm", free, actor=ACTOR, session=connection)
    assert refusal.value.active_state == "queued"
    assert support.states(database_url) == ["queued", "queued"]
    assert [event.event for event in lifecycle.history(taken)] == ["appointment_tracked"]
    engine.dispose()


def test_a_session_of_another_kind_of_database_is_refused(idle: Lifecycle, postgres_url: str, sqlite_url: str) -> None:
    """Better than a command that nobody ever sees."""
    engine = sa.create_engine(sqlite_url if idle.database.is_postgres else postgres_url)
    with engine.connect() as connection, pytest.raises(InvalidArgument, match="session"):
        idle.submit("cancel", "00000000-0000-4000-8000-000000000000", actor=ACTOR, session=connection)
    engine.dispose()


def test_what_is_no_session_is_refused(idle: Lifecycle) -> None:
    """With a word that says what is one."""
    other: Any
    for other in ("session", idle.database.engine):
        with pytest.raises(InvalidArgument, match="session"):
            idle.submit("cancel", "00000000-0000-4000-8000-000000000000", actor=ACTOR, session=other)


def test_a_connection_in_autocommit_mode_tells_of_its_wish(
    lifecycle: Lifecycle, sandbox: Sandbox, client: ZocdocClient, database_url: str
) -> None:
    """It commits at once, and never says so: the command is dispatched when it is given back."""
    appointment_id = support.tracked(lifecycle, sandbox)
    engine = sa.create_engine(database_url, isolation_level="AUTOCOMMIT")
    with support.opened(database_url, client) as made:
        with engine.connect() as own:
            submitted = made.submit("cancel", appointment_id, actor=ACTOR, session=own)
        assert submitted.wait(SOON)
    engine.dispose()


def test_a_commit_after_the_close_sends_nothing(
    lifecycle: Lifecycle, sandbox: Sandbox, client: ZocdocClient, database_url: str
) -> None:
    """What is queued then stays queued, for another process, or until it is used again."""
    appointment_id = support.tracked(lifecycle, sandbox)
    engine = sa.create_engine(database_url)
    with orm.Session(engine) as session:
        with support.opened(database_url, client) as made:
            submitted = made.submit("cancel", appointment_id, actor=ACTOR, session=session)
        session.commit()
    assert not submitted.wait(0.5)
    assert support.posts(sandbox, appointment_id) == 0
    made.recover()
    assert submitted.wait(SOON)
    made.close()
    assert made.submit("cancel", support.tracked(lifecycle, sandbox), actor=ACTOR).wait(SOON)
    made.close()
    engine.dispose()


def test_one_active_command_per_appointment(lifecycle: Lifecycle, sandbox: Sandbox, idle: Lifecycle) -> None:
    """A queued one is in the way of others, called or submitted; the refusal is in the trail."""
    appointment_id = support.tracked(lifecycle, sandbox)
    idle.submit("cancel", appointment_id, actor=ACTOR)
    with pytest.raises(CommandInProgress, match="withdraw it"):
        idle.submit("confirm", appointment_id, actor="user:18")
    with pytest.raises(CommandInProgress):
        lifecycle.confirm(appointment_id, actor="user:19")
    refusals = lifecycle.history(appointment_id)[1:]
    assert [(each.event, each.actor, each.reason_code) for each in refusals] == [
        ("command_refused", "user:18", "command_in_progress"),
        ("command_refused", "user:19", "command_in_progress"),
    ]


def test_a_stale_wish_expires(lifecycle: Lifecycle, sandbox: Sandbox, idle: Lifecycle) -> None:
    """After `expires_at` it is not sent any more."""
    appointment_id = support.tracked(lifecycle, sandbox)
    soon = datetime.now(UTC) + timedelta(seconds=0.2)
    submitted = idle.submit("cancel", appointment_id, actor=ACTOR, expires_at=soon)
    support.until(lambda: datetime.now(UTC) > soon + timedelta(seconds=0.1))
    lifecycle.recover()
    assert submitted.wait(SOON)
    with pytest.raises(CommandExpired):
        submitted.result()
    assert lifecycle.history(appointment_id)[-1].event == "command_expired"
    assert support.posts(sandbox, appointment_id) == 0


def test_what_waits_to_be_sent_again_expires_in_time(database_url: str, client: ZocdocClient, sandbox: Sandbox) -> None:
    """Not when it would have been sent: until then it would be in the way of others."""
    timing = Timing(resend_backoff=600.0)
    with support.opened(database_url, client, timing) as lifecycle:
        appointment_id = support.tracked(lifecycle, sandbox)
        support.arm(sandbox, kind="answer", operation="cancel", status=401, times=2)
        soon = datetime.now(UTC) + timedelta(seconds=1)
        submitted = lifecycle.submit("cancel", appointment_id, actor=ACTOR, expires_at=soon)
        assert submitted.wait(SOON)
        assert submitted.state == "expired"
        assert lifecycle.confirm(appointment_id, actor=ACTOR).to_status == "confirmed"


class Slow:
    """A rate that has its next turn in a while."""

    def wait(self, budget: Budget) -> bool:
        """Sleep until it comes, if it does not come too late."""
        return budget.sleep(1.0)

    def hold(self, seconds: float) -> None:
        """Do nothing."""


def test_what_waits_for_its_turn_expires_too(database_url: str, server: Server, sandbox: Sandbox) -> None:
    """A command that was taken in time, but whose turn under the rate comes after `expires_at`, is not sent."""
    with support.client_of(server) as quick, support.opened(database_url, quick) as tracking:
        appointment_id = support.tracked(tracking, sandbox)
    with support.client_of(server, pace=Slow()) as slow, support.opened(database_url, slow) as lifecycle:
        soon = datetime.now(UTC) + timedelta(seconds=0.5)
        submitted = lifecycle.submit("cancel", appointment_id, actor=ACTOR, expires_at=soon)
        assert submitted.wait(SOON)
        assert submitted.state == "expired"
    assert support.posts(sandbox, appointment_id) == 0


def test_expiring_needs_no_credential(lifecycle: Lifecycle, sandbox: Sandbox, idle: Lifecycle) -> None:
    """A process that may send nothing ends what is stale all the same."""
    appointment_id = support.tracked(lifecycle, sandbox)
    submitted = idle.submit("cancel", appointment_id, actor=ACTOR, expires_at=datetime.now(UTC))
    assert submitted.wait(SOON)
    assert submitted.state == "expired"


def test_what_others_are_to_send_is_looked_at_seldom(lifecycle: Lifecycle, sandbox: Sandbox, idle: Lifecycle) -> None:
    """A process that may not send what is due looks again once a second, not all the time."""
    appointment_id = support.tracked(lifecycle, sandbox)
    scans: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if "LIMIT" in statement and "expires_at <=" in statement:
            scans.append(statement)

    sa.event.listen(idle.database.engine, "before_cursor_execute", note)
    begun = time.monotonic()
    idle.submit("cancel", appointment_id, actor=ACTOR)
    support.until(lambda: scans)
    time.sleep(1.5)
    assert len(scans) <= 3 + time.monotonic() - begun


def test_a_queued_command_can_be_withdrawn_once(lifecycle: Lifecycle, sandbox: Sandbox, idle: Lifecycle) -> None:
    """By whoever; the trail says by whom. What has ended cannot be withdrawn."""
    appointment_id = support.tracked(lifecycle, sandbox)
    submitted = idle.submit(
        "cancel", appointment_id, actor=ACTOR, reason="free text", reason_type="other_patient_reason"
    )
    assert submitted.withdraw(actor="user:18")
    assert not submitted.withdraw(actor="user:18")
    last = lifecycle.history(appointment_id)[-1]
    assert (last.event, last.actor, last.reason_code, last.reason_type) == (
        "command_withdrawn",
        "user:18",
        "withdrawn",
        "other_patient_reason",
    )
    with pytest.raises(CommandWithdrawn):
        submitted.result()
    row = support.commands(str(lifecycle.database.engine.url.render_as_string(hide_password=False)))[0]
    assert "free text" not in str(row["payload"])
    assert lifecycle.cancel(appointment_id, actor=ACTOR).to_status == "cancelled"


def test_a_request_key_gives_the_same_handle(lifecycle: Lifecycle, sandbox: Sandbox, idle: Lifecycle) -> None:
    """Until the command ends without effect: then the key acts again. Another wish with it is refused."""
    appointment_id = support.tracked(lifecycle, sandbox)
    first = idle.submit("cancel", appointment_id, actor=ACTOR, request_key="k-1")
    assert idle.submit("cancel", appointment_id, actor="user:18", request_key="k-1").id == first.id
    with pytest.raises(RequestKeyReused):
        idle.submit("confirm", appointment_id, actor=ACTOR, request_key="k-1")
    assert first.withdraw(actor=ACTOR)
    second = lifecycle.submit("cancel", appointment_id, actor=ACTOR, request_key="k-1")
    assert second.id != first.id
    assert second.wait(SOON)
    assert lifecycle.cancel(appointment_id, actor=ACTOR, request_key="k-1").command_id == second.id


def test_a_lost_request_is_sent_again_only_after_reading(
    lifecycle: Lifecycle, sandbox: Sandbox, database_url: str
) -> None:
    """What three reads prove to have had no effect goes back into the queue."""
    appointment_id = support.tracked(lifecycle, sandbox)
    support.lose_answer(sandbox, "cancel", when="before")
    submitted = lifecycle.submit(
        "cancel", appointment_id, actor=ACTOR, reason="why", reason_type="other_patient_reason"
    )
    support.until(lambda: submitted.state == "uncertain")
    settled = lifecycle.recover(wait=support.PATIENCE).settled
    assert [(each.state, each.reason_code) for each in settled] == [("queued", "proved_not_applied")]
    assert submitted.wait(SOON)
    assert [event.event for event in lifecycle.history(appointment_id)[1:]] == [
        "command_accepted",
        "outcome_lost",
        "outcome_checked",
        "outcome_checked",
        "command_requeued",
        "command_resent",
        "command_applied",
    ]
    sent = [entry.method for entry in support.calls(sandbox, appointment_id)][1:]
    assert sent == ["POST", "GET", "GET", "GET", "POST"]
    (row,) = support.commands(database_url)
    assert (row["state"], row["attempt"]) == ("applied", 2)
    assert "why" not in str(row["payload"])


def test_a_lost_answer_is_not_sent_again(lifecycle: Lifecycle, sandbox: Sandbox) -> None:
    """One read shows that it was applied."""
    appointment_id = support.tracked(lifecycle, sandbox)
    support.lose_answer(sandbox, "cancel", when="after")
    submitted = lifecycle.submit("cancel", appointment_id, actor=ACTOR)
    support.until(lambda: submitted.state == "uncertain")
    lifecycle.recover(wait=support.PATIENCE)
    assert submitted.result().reason_code == "recovered"
    assert (support.posts(sandbox, appointment_id), support.effects(sandbox, appointment_id)) == (1, 1)


def test_what_never_leaves_is_tried_again_and_ends(database_url: str, client: ZocdocClient, sandbox: Sandbox) -> None:
    """Without a connection it waits longer each time, and ends as not sent when it has waited often enough."""
    with support.opened(database_url, client) as tracking:
        appointment_id = support.tracked(tracking, sandbox)
    nowhere = ZocdocClient(base_url="http://127.0.0.1:9", access_token="t" * 20)
    timing = Timing(resend_backoff=0.05, resends=2)
    with nowhere, support.opened(database_url, nowhere, timing) as lifecycle:
        submitted = lifecycle.submit("cancel", appointment_id, actor=ACTOR)
        assert submitted.wait(SOON)
        with pytest.raises(NotSent) as not_sent:
            submitted.result()
        assert not_sent.value.reason_code == "connection_failed"
        assert [event.event for event in lifecycle.history(appointment_id)[1:]] == [
            "command_accepted",
            "command_requeued",
            "command_resent",
            "command_requeued",
            "command_resent",
            "command_not_sent",
        ]


def test_a_refused_credential_rejects_nothing(lifecycle: Lifecycle, sandbox: Sandbox) -> None:
    """A 401 to the end is answered before anything is processed: the command waits until the credential is good."""
    appointment_id = support.tracked(lifecycle, sandbox)
    support.arm(sandbox, kind="answer", operation="cancel", status=401, times=2)
    submitted = lifecycle.submit("cancel", appointment_id, actor=ACTOR)
    assert submitted.wait(SOON)
    _, _, requeued, *_ = lifecycle.history(appointment_id)
    assert (requeued.event, requeued.outcome) == ("command_requeued", "not_sent")
    assert (requeued.reason_code, requeued.http_status) == ("unauthorized", 401)
    assert submitted.state == "applied"


def test_an_appointment_in_doubt_is_read_first(lifecycle: Lifecycle, sandbox: Sandbox) -> None:
    """After a command that needs attention the picture may be wrong: a read comes before the next one is sent."""
    appointment_id = support.tracked(lifecycle, sandbox)
    support.lose_answer(sandbox, "update_status", when="after")
    with pytest.raises(Exception, match="unknown outcome"):
        lifecycle.mark_arrived(appointment_id, actor=ACTOR)
    lifecycle.recover(wait=support.PATIENCE)
    assert lifecycle.get(appointment_id).in_doubt
    before = support.gets(sandbox, appointment_id)
    submitted = lifecycle.submit("cancel", appointment_id, actor=ACTOR)
    assert submitted.wait(SOON)
    assert submitted.state == "applied"
    assert support.gets(sandbox, appointment_id) == before + 1


def test_an_appointment_in_doubt_that_cannot_be_read_waits(
    lifecycle: Lifecycle, sandbox: Sandbox, database_url: str
) -> None:
    """Nothing is sent on a picture that may be wrong."""
    appointment_id = support.tracked(lifecycle, sandbox)
    support.query(database_url, "UPDATE lifecycle_appointments SET in_doubt = :yes", yes=True)
    support.arm(sandbox, kind="answer", operation="get", status=500, times=99)
    submitted = lifecycle.submit("cancel", appointment_id, actor=ACTOR)
    support.until(lambda: support.commands(database_url)[0]["failed_reads"] == 1)
    assert submitted.state == "queued"
    support.query(database_url, "UPDATE lifecycle_commands SET failed_reads = 3, due_at = queued_at")
    assert submitted.wait(SOON)
    with pytest.raises(TransitionRefused) as refusal:
        submitted.result()
    assert refusal.value.reasons == ("appointment_unreadable",)
    assert support.posts(sandbox, appointment_id) == 0


def test_a_users_command_needs_the_users_credential(
    database_url: str, client: ZocdocClient, server: Server, sandbox: Sandbox
) -> None:
    """A process without the users' credentials leaves it alone; one that has none for this user refuses it."""
    with support.user_client(server, "u1") as user, support.opened(database_url, user) as tracking:
        ids = [support.tracked(tracking, sandbox, booked_by="user:u1") for _ in range(2)]
    with support.opened(database_url, client) as machine:
        submitted = [machine.submit("cancel", each, actor=ACTOR) for each in ids]
        assert not submitted[0].wait(0.5)

    def unable(_: str) -> ZocdocClient | None:
        raise RuntimeError("the token store is down")

    with support.opened(database_url, client, user_client=unable) as broken:
        broken.recover()
        assert not broken.submission(submitted[0].id).wait(0.5)
    with support.opened(database_url, client, user_client=lambda _: None) as unknowing:
        assert unknowing.submission(submitted[0].id).state == "queued"
    with (
        support.user_client(server, "u1") as user,
        support.opened(database_url, client, user_client={"u1": user}.get) as able,
    ):
        able.recover()
        again = [able.submission(each.id) for each in submitted]
        assert all(each.wait(SOON) for each in again)
        assert [each.state for each in again] == ["applied", "applied"]


def test_a_refused_credential_holds_up_nobody_else(
    database_url: str, client: ZocdocClient, server: Server, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While one user's token is refused, the commands of others are sent."""
    monkeypatch.setattr(dispatching, "_HOLD", (600.0,))
    with support.user_client(server, "u1") as user, support.opened(database_url, user) as tracking:
        appointment_id = support.tracked(tracking, sandbox, booked_by="user:u1")
    stale = ZocdocClient(base_url=server.base_url, access_token="stale", identity="user:u1")
    with stale, support.opened(database_url, client, user_client={"u1": stale}.get) as lifecycle:
        waiting = lifecycle.submit("cancel", appointment_id, actor=ACTOR)
        support.until(lambda: support.calls(sandbox, appointment_id)[1:])
        others = [lifecycle.submit("cancel", support.tracked(lifecycle, sandbox), actor=ACTOR) for _ in range(2)]
        assert all(each.wait(SOON) for each in others)
        support.until(lambda: waiting.state == "queued")


def test_every_users_turn_comes(database_url: str, server: Server, sandbox: Sandbox) -> None:
    """However many users there are whose clients are not to be had: not the same are asked for each time."""
    users = [f"user:u{number}" for number in range(3)]
    for each in users:
        with (
            support.user_client(server, each.removeprefix("user:")) as user,
            support.opened(database_url, user) as tracking,
        ):
            appointment_id = support.tracked(tracking, sandbox, booked_by=each)
        with support.opened(database_url, None) as idle:
            idle.submit("cancel", appointment_id, actor=ACTOR)
    with support.opened(database_url, None) as idle:
        found = {each for _ in range(60) for each in waiting_identities(idle.resources, but=["user:u0"], most=1)}
    assert found == {"user:u1", "user:u2"}


def test_a_user_without_a_credential_is_refused(
    database_url: str, client: ZocdocClient, server: Server, sandbox: Sandbox
) -> None:
    """As a synchronous call is."""
    with support.user_client(server, "u1") as user, support.opened(database_url, user) as tracking:
        appointment_id = support.tracked(tracking, sandbox, booked_by="user:u1")
    with support.opened(database_url, client, user_client=lambda _: None) as lifecycle:
        submitted = lifecycle.submit("cancel", appointment_id, actor=ACTOR)
        assert submitted.wait(SOON)
        with pytest.raises(TransitionRefused) as refusal:
            submitted.result()
    assert refusal.value.reasons == ("credential_not_allowed",)


def test_closing_finishes_what_was_taken_and_leaves_the_rest(
    database_url: str, client: ZocdocClient, sandbox: Sandbox, idle: Lifecycle
) -> None:
    """Nothing is left in doubt, nothing is lost: another process goes on."""
    with support.opened(database_url, client) as tracking:
        ids = [support.tracked(tracking, sandbox) for _ in range(12)]
    support.arm(sandbox, kind="delay", operation="cancel", seconds=0.3, when="after", times=99)
    for each in ids:
        idle.submit("cancel", each, actor=ACTOR)
    with support.opened(database_url, client, concurrency=2) as lifecycle:
        lifecycle.recover()
        support.until(lambda: "sending" in support.states(database_url))
    found = support.states(database_url)
    assert set(found) == {"applied", "queued"}
    sandbox.faults.clear()
    with support.opened(database_url, client) as other:
        other.recover()
        support.until(lambda: set(support.states(database_url)) == {"applied"})
    assert all(support.posts(sandbox, each) == 1 for each in ids)


def test_the_end_of_the_process_cuts_nothing_off(database_url: str, server: Server, sandbox: Sandbox) -> None:
    """A program that ends without `close`: what it took is carried out, the rest stays queued."""
    ids = [sandbox.add(status="pending_booking") for _ in range(40)]
    support.arm(sandbox, kind="delay", operation="cancel", seconds=0.2, times=len(ids))
    child = support.program(ENDS_AT_ONCE, database_url, server, *ids)
    said, _ = child.communicate(timeout=60)
    assert (said, child.returncode) == ("submitted\n", 0)
    states = support.states(database_url)
    assert set(states) == {"applied", "queued"}
    assert states.count("applied") == sum(support.posts(sandbox, each) for each in ids)


def test_several_processes_take_each_command_once(
    database_url: str, client: ZocdocClient, sandbox: Sandbox, idle: Lifecycle
) -> None:
    """Four dispatchers on one queue send nothing twice."""
    with support.opened(database_url, client) as tracking:
        ids = [support.tracked(tracking, sandbox) for _ in range(40)]
    for each in ids:
        idle.submit("confirm", each, actor=ACTOR)
    opened = [Lifecycle(database_url, zocdoc=client, timing=FAST) for _ in range(4)]
    support.together(4, lambda index: opened[index].recover())
    support.until(lambda: set(support.states(database_url)) == {"applied"})
    for dispatcher in opened:
        dispatcher.close()
    assert [support.posts(sandbox, each) for each in ids] == [1] * 40


def test_what_is_submitted_alone_goes_before_batches(
    lifecycle: Lifecycle, client: ZocdocClient, sandbox: Sandbox, idle: Lifecycle
) -> None:
    """A person at the desk does not wait behind ten thousand rows."""
    ids = [support.tracked(lifecycle, sandbox) for _ in range(5)]
    idle.submit_many([{"appointment_id": each} for each in ids[:4]], actor=ACTOR, command="cancel")
    alone = idle.submit("confirm", ids[4], actor=ACTOR)
    taken = take(lifecycle._resources, most=9, clients={"machine": client})
    assert taken.orders[0].claim.command.command_id == alone.id
    assert [order.is_background for order in taken.orders] == [False, True, True, True, True]


def test_a_wish_must_be_well_formed(lifecycle: Lifecycle, sandbox: Sandbox) -> None:
    """What a command does not take is refused, not ignored."""
    appointment_id = support.tracked(lifecycle, sandbox)
    for argument, given in (
        ("command", {"command": "destroy"}),
        ("start_time", {"command": "reschedule"}),
        ("start_time", {"command": "cancel", "start_time": LATER}),
        ("reason_type", {"command": "confirm", "reason_type": "other_patient_reason"}),
        ("reason", {"command": "confirm", "reason": "why"}),
        ("expires_at", {"command": "cancel", "expires_at": datetime(2031, 1, 1)}),  # noqa: DTZ001 # on purpose
    ):
        arguments: dict[str, Any] = dict(given)
        with pytest.raises(InvalidArgument) as refusal:
            lifecycle.submit(arguments.pop("command"), appointment_id, actor=ACTOR, **arguments)
        assert refusal.value.argument == argument
    with pytest.raises(CommandNotFound):
        lifecycle.submission("none").result()


def test_waiting_ends_in_time(lifecycle: Lifecycle, sandbox: Sandbox, idle: Lifecycle) -> None:
    """False after the timeout; the handle raises that it goes on."""
    appointment_id = support.tracked(lifecycle, sandbox)
    submitted = idle.submit("cancel", appointment_id, actor=ACTOR)
    assert not submitted.wait(0.05)
    with pytest.raises(InvalidArgument, match="timeout"):
        submitted.wait(float("nan"))
    with pytest.raises(CommandInProgress):
        submitted.result()


def test_submitting_waits_for_nobody_who_holds_the_appointment(
    lifecycle: Lifecycle, sandbox: Sandbox, idle: Lifecycle
) -> None:
    """A transaction that holds the appointment's lock, or a caller's long one with a wish in it, holds nobody up."""
    if not lifecycle.database.is_postgres:
        pytest.skip("SQLite has one writer at a time")
    first, second = support.tracked(lifecycle, sandbox), support.tracked(lifecycle, sandbox)
    with lifecycle.database.write() as connection:
        connection.exec_driver_sql("SELECT 1 FROM lifecycle_appointments FOR NO KEY UPDATE")
        thread = threading.Thread(target=lambda: idle.submit("cancel", first, actor=ACTOR))
        thread.start()
        thread.join(SOON)
        assert not thread.is_alive()
    with lifecycle.database.engine.connect() as own:
        idle.submit("cancel", second, actor=ACTOR, session=own)
        assert lifecycle.track(second, actor="job:sync").appointment_id == second
        own.commit()


def test_the_queue_is_read_by_its_index(idle: Lifecycle) -> None:
    """However many commands there are, what is due is found without looking at the others."""
    made = database.Database(idle.database.engine)
    explain = "EXPLAIN " if made.is_postgres else "EXPLAIN QUERY PLAN "
    query = (
        "SELECT c.command_id FROM lifecycle_commands c WHERE c.due_at IS NOT NULL AND c.due_at <= '2031-01-01' "
        "ORDER BY c.priority, c.due_at LIMIT 10"
    )
    with made.read() as connection:
        if made.is_postgres:
            connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
        plan = str(connection.exec_driver_sql(explain + query).all())
    assert "ix_lifecycle_commands_queued" in plan
