"""What was left half-way is settled by reading, never by sending again; what reading cannot tell goes to a human."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from lifecycle import (
    CommandRejected,
    EnvironmentMismatch,
    Lifecycle,
    LifecycleError,
    NotSent,
    OutcomeUnknown,
    ReadFailed,
    Timing,
    TransitionRefused,
    ZocdocClient,
)
from tests import support
from tests.conftest import FAST
from tests.support import ACTOR

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lifecycle import Recovery
    from lifecycle.sandbox import Sandbox, Server

WAIT = support.PATIENCE
LEASE_OVER = "UPDATE lifecycle_commands SET run_at = created_at, lease_until = created_at"
YESTERDAY = (datetime.now(UTC) - timedelta(days=1)).isoformat(timespec="seconds")
TARGETS = {"confirm": "confirmed", "cancel": "cancelled", "reschedule": "rescheduled", "mark_no_show": "no_show"}


def doubtful(lifecycle: Lifecycle, sandbox: Sandbox, command: str, appointment_id: str, **given: Any) -> str:
    """Lose the answer of a command, before it is applied unless `when` says otherwise; give the command's id."""
    when = given.pop("when", "before")
    support.lose_answer(sandbox, support.OPERATIONS[command], when=when)
    with pytest.raises(OutcomeUnknown) as caught:
        support.send(lifecycle, command, appointment_id, **given)
    return caught.value.command_id


def ends(recovery: Recovery) -> list[tuple[str, str]]:
    """Shorten what was settled."""
    return [(each.state, each.reason_code) for each in recovery.settled]


@pytest.mark.parametrize("command", list(TARGETS))
def test_a_target_in_sight_is_applied(lifecycle: Lifecycle, sandbox: Sandbox, database_url: str, command: str) -> None:
    """One read that shows the target settles a lost answer as applied, and nothing is sent again."""
    appointment_id = support.tracked(lifecycle, sandbox, start_time=YESTERDAY)
    command_id = doubtful(lifecycle, sandbox, command, appointment_id, when="after")
    recovery = lifecycle.recover(wait=WAIT)
    assert (ends(recovery), recovery.waiting, recovery.next_at) == ([("applied", "recovered")], 0, None)
    assert [(each.command_id, each.appointment_id, each.command) for each in recovery.settled] == [
        (command_id, appointment_id, command)
    ]
    assert (support.posts(sandbox, appointment_id), support.effects(sandbox, appointment_id)) == (1, 1)
    target = TARGETS[command]
    support.assert_history(
        lifecycle,
        appointment_id,
        [
            ("command_accepted", command, "pending_booking", "pending_booking", None, None),
            ("outcome_lost", command, "pending_booking", "pending_booking", "unknown", "connection_lost"),
            ("command_applied", command, "pending_booking", target, "applied", "recovered"),
        ],
    )
    last = lifecycle.history(appointment_id)[-1]
    assert (last.actor, last.source) == (ACTOR, "recovery")
    seen = lifecycle.get(appointment_id)
    assert (seen.status, seen.in_doubt) == (target, False)
    assert seen.start_time == sandbox.appointment(appointment_id).start
    [stored] = support.commands(database_url)
    assert (stored["state"], stored["reason_code"], stored["run_at"], stored["lease_until"]) == (
        "applied",
        "recovered",
        None,
        None,
    )


@pytest.mark.parametrize("command", list(TARGETS))
def test_an_unchanged_appointment_is_proved_by_three_spaced_reads(
    lifecycle: Lifecycle, sandbox: Sandbox, database_url: str, command: str
) -> None:
    """Two reads settle nothing; the third one, after the spacing, proves that the call had no effect."""
    appointment_id = support.tracked(lifecycle, sandbox, start_time=YESTERDAY)
    doubtful(lifecycle, sandbox, command, appointment_id)
    before = support.gets(sandbox, appointment_id)
    for reads in (1, 2):
        support.until(lambda: support_due(database_url))
        recovery = lifecycle.recover()
        assert (ends(recovery), recovery.waiting) == ([], 1)
        assert recovery.next_at is not None
        assert support.gets(sandbox, appointment_id) - before == reads
        assert support.states(database_url) == ["uncertain"]
        assert lifecycle.get(appointment_id).in_doubt is True
    recovery = lifecycle.recover(wait=WAIT)
    assert (ends(recovery), recovery.waiting) == ([("not_sent", "proved_not_applied")], 0)
    assert support.gets(sandbox, appointment_id) - before == 3
    assert (support.posts(sandbox, appointment_id), support.effects(sandbox, appointment_id)) == (1, 0)
    status = ("pending_booking", "pending_booking")
    support.assert_history(
        lifecycle,
        appointment_id,
        [
            ("command_accepted", command, *status, None, None),
            ("outcome_lost", command, *status, "unknown", "connection_lost"),
            ("outcome_checked", command, *status, None, None),
            ("outcome_checked", command, *status, None, None),
            ("command_not_sent", command, *status, "not_sent", "proved_not_applied"),
        ],
    )
    assert lifecycle.get(appointment_id).in_doubt is False
    # A synchronous command never fires later by itself: the caller decides, and may.
    assert support.send(lifecycle, command, appointment_id).to_status == TARGETS[command]


def support_due(database_url: str) -> bool:
    """Tell whether the one command that waits is due."""
    [row] = support.commands(database_url)
    due = row["run_at"] if isinstance(row["run_at"], datetime) else datetime.fromisoformat(row["run_at"])
    return bool(due <= datetime.now(UTC))


def test_nothing_is_read_before_the_settle_time(
    lifecycle: Lifecycle, client: ZocdocClient, sandbox: Sandbox, database_url: str
) -> None:
    """Right after a lost answer the request may still be on its way, so recovery waits before it reads."""
    appointment_id = support.tracked(lifecycle, sandbox)
    with support.opened(database_url, client, Timing(settle=60.0)) as patient:
        doubtful(patient, sandbox, "confirm", appointment_id)
        before = support.gets(sandbox, appointment_id)
        started = time.monotonic()
        recovery = patient.recover(wait=0.2)
    assert (ends(recovery), recovery.waiting) == ([], 1)
    assert recovery.next_at is not None
    assert 50 < (recovery.next_at - datetime.now(UTC)).total_seconds() <= 60
    assert support.gets(sandbox, appointment_id) == before
    assert time.monotonic() - started < 9


def test_a_late_commit_is_seen_by_a_later_read(
    lifecycle: Lifecycle, client: ZocdocClient, sandbox: Sandbox, database_url: str
) -> None:
    """A request that is applied after the first read is found as applied, not taken for unsent."""
    appointment_id = support.tracked(lifecycle, sandbox)
    support.arm(sandbox, kind="answer", operation="confirm", status=502)
    with pytest.raises(OutcomeUnknown):
        lifecycle.confirm(appointment_id, actor=ACTOR)
    support.until(lambda: support_due(database_url))
    assert ends(lifecycle.recover()) == []
    client.confirm(appointment_id)  # what a proxy had kept, as it were
    assert support.effects(sandbox, appointment_id) == 1
    assert ends(lifecycle.recover(wait=WAIT)) == [("applied", "recovered")]
    assert lifecycle.get(appointment_id).status == "confirmed"


@pytest.mark.parametrize(
    ("change", "command"),
    [
        ({"status": "cancelled"}, "confirm"),
        ({"status": "no_show"}, "cancel"),
        ({"start_time": "2030-01-01T09:00:00Z"}, "confirm"),
        ({"provider_location_id": "pr_other|lo_other"}, "confirm"),
        ({"status": "waitlisted"}, "confirm"),
        ({"start_time": "2030-01-01T09:00:00Z"}, "reschedule"),
    ],
)
def test_an_unexplained_change_needs_attention(
    lifecycle: Lifecycle, sandbox: Sandbox, database_url: str, change: dict[str, Any], command: str
) -> None:
    """A change that the command does not explain is recorded, and a human must say what became of the command."""
    appointment_id = support.tracked(lifecycle, sandbox)
    doubtful(lifecycle, sandbox, command, appointment_id)
    sandbox.change(appointment_id, **change)
    recovery = lifecycle.recover(wait=WAIT)
    assert [state for state, _ in ends(recovery)] == ["needs_attention"]
    assert recovery.settled[0].reason_code in {"unexplained_change", "cannot_be_told_apart"}
    seen, remote = lifecycle.get(appointment_id), sandbox.appointment(appointment_id)
    assert (seen.status, seen.start_time, seen.in_doubt) == (remote.status, remote.start, True)
    assert seen.provider_location_id == remote.provider_location_id
    events = [(each.event, each.from_status, each.to_status) for each in lifecycle.history(appointment_id)[-2:]]
    assert events == [
        ("attention_needed", "pending_booking", "pending_booking"),
        ("appointment_observed", "pending_booking", remote.status),
    ]
    [stored] = support.commands(database_url)
    assert stored["state"] == "needs_attention"
    assert stored["ended_at"] is not None
    assert support.posts(sandbox, appointment_id) == 1


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_reschedule_to_the_start_it_already_has_cannot_be_told_apart(
    lifecycle: Lifecycle, sandbox: Sandbox, when: str
) -> None:
    """No read can show whether a move to the same start was made (instants are compared): a human must look."""
    appointment_id = support.tracked(lifecycle, sandbox, status="rescheduled", start_time="2031-03-01T09:00:00-05:00")
    doubtful(lifecycle, sandbox, "reschedule", appointment_id, when=when, start_time="2031-03-01T14:00:00Z")
    recovery = lifecycle.recover(wait=WAIT)
    assert ends(recovery) == [("needs_attention", "cannot_be_told_apart")]
    assert lifecycle.get(appointment_id).in_doubt is True


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_lost_arrival_cannot_be_told_apart(lifecycle: Lifecycle, sandbox: Sandbox, when: str) -> None:
    """No status shows an arrival, so its lost answer goes to a human; `arrived_at` stays empty."""
    appointment_id = support.tracked(lifecycle, sandbox, status="confirmed")
    doubtful(lifecycle, sandbox, "mark_arrived", appointment_id, when=when)
    assert ends(lifecycle.recover(wait=WAIT)) == [("needs_attention", "cannot_be_told_apart")]
    seen = lifecycle.get(appointment_id)
    assert (seen.status, seen.arrived_at, seen.in_doubt) == ("confirmed", None, True)


@pytest.mark.parametrize("on_reschedule", ["rescheduled", "pending_reschedule", "unchanged"])
def test_a_reschedule_shows_by_its_start_whatever_the_offset(
    lifecycle: Lifecycle, sandbox: Sandbox, on_reschedule: str
) -> None:
    """The new start in sight is the target reached, in every status that a reschedule may answer."""
    appointment_id = support.tracked(lifecycle, sandbox, status="confirmed", on_reschedule=on_reschedule)
    doubtful(lifecycle, sandbox, "reschedule", appointment_id, when="after")
    sandbox.change(appointment_id, start_time="2031-03-01T14:00:00Z")
    assert ends(lifecycle.recover(wait=WAIT)) == [("applied", "recovered")]
    assert lifecycle.get(appointment_id).status == sandbox.status_of(appointment_id)


def test_a_failed_reschedule_is_not_taken_for_unsent(lifecycle: Lifecycle, sandbox: Sandbox) -> None:
    """`reschedule_failed` after a lost answer is a change: it is not proof that nothing was sent."""
    appointment_id = support.tracked(lifecycle, sandbox, status="confirmed", on_reschedule="reschedule_failed")
    doubtful(lifecycle, sandbox, "reschedule", appointment_id, when="after")
    [settled] = lifecycle.recover(wait=WAIT).settled
    assert settled.state == "needs_attention"
    assert lifecycle.get(appointment_id).status == "reschedule_failed"


def test_a_read_that_fails_is_made_again(lifecycle: Lifecycle, sandbox: Sandbox) -> None:
    """A failed read settles nothing; the next one does."""
    appointment_id = support.tracked(lifecycle, sandbox)
    doubtful(lifecycle, sandbox, "confirm", appointment_id, when="after")
    support.arm(sandbox, kind="answer", operation="get", status=500, times=2)
    assert ends(lifecycle.recover(wait=WAIT)) == [("applied", "recovered")]
    checked = [each for each in lifecycle.history(appointment_id) if each.event == "outcome_checked"]
    assert [(each.reason_code, each.details) for each in checked] == [
        ("server_error", {"failed_reads": 1}),
        ("server_error", {"failed_reads": 2}),
    ]


def test_a_read_that_always_fails_goes_to_a_human(lifecycle: Lifecycle, sandbox: Sandbox) -> None:
    """After so many failed reads the command needs attention: the queue of doubts must empty."""
    appointment_id = support.tracked(lifecycle, sandbox)
    doubtful(lifecycle, sandbox, "confirm", appointment_id)
    support.arm(sandbox, kind="answer", operation="get", status=500, times=99)
    recovery = lifecycle.recover(wait=WAIT)
    assert (ends(recovery), recovery.waiting) == ([("needs_attention", "server_error")], 0)
    assert support.posts(sandbox, appointment_id) == 1


def test_an_appointment_that_is_gone_goes_to_a_human(lifecycle: Lifecycle, sandbox: Sandbox) -> None:
    """A 404 on the read neither proves nor disproves the command."""
    appointment_id = support.tracked(lifecycle, sandbox)
    doubtful(lifecycle, sandbox, "confirm", appointment_id)
    support.arm(sandbox, kind="answer", operation="get", status=404)
    assert ends(lifecycle.recover(wait=WAIT)) == [("needs_attention", "not_found")]
    assert lifecycle.get(appointment_id).in_doubt is True


def test_a_users_appointment_without_the_users_token_goes_to_a_human(
    lifecycle: Lifecycle, sandbox: Sandbox, server: Server, client: ZocdocClient, database_url: str
) -> None:
    """Recovery may not read a user's appointment with another credential, and does not try."""
    with (
        support.user_client(server, "7") as user,
        support.opened(database_url, client, user_client={"7": user}.get) as product,
    ):
        appointment_id = support.tracked(product, sandbox, booked_by="user:7")
        doubtful(product, sandbox, "confirm", appointment_id)
    before = len(sandbox.ledger.entries())
    assert ends(lifecycle.recover(wait=WAIT)) == [("needs_attention", "no_credential")]
    assert len(sandbox.ledger.entries()) == before


def test_a_users_appointment_is_recovered_with_the_users_token(
    sandbox: Sandbox, server: Server, client: ZocdocClient, database_url: str
) -> None:
    """With the user's client at hand recovery reads with it, and settles."""
    with (
        support.user_client(server, "7") as user,
        support.opened(database_url, client, user_client={"7": user}.get) as product,
    ):
        appointment_id = support.tracked(product, sandbox, booked_by="user:7")
        doubtful(product, sandbox, "confirm", appointment_id, when="after")
        assert ends(product.recover(wait=WAIT)) == [("applied", "recovered")]
    assert {entry.subject for entry in support.calls(sandbox, appointment_id)} == {"user:7"}


def test_recovery_without_any_client_gives_nothing_up(
    lifecycle: Lifecycle, sandbox: Sandbox, database_url: str
) -> None:
    """A machine's command is not handed to a human because this process has no client: it waits for one that has."""
    appointment_id = support.tracked(lifecycle, sandbox)
    doubtful(lifecycle, sandbox, "confirm", appointment_id, when="after")
    support.until(lambda: support_due(database_url))
    with support.opened(database_url, None) as blind:
        recovery = blind.recover(wait=0.3)
    assert (ends(recovery), recovery.waiting) == ([], 1)
    assert support.states(database_url) == ["uncertain"]
    assert ends(lifecycle.recover(wait=WAIT)) == [("applied", "recovered")]


def test_recovery_refuses_a_client_of_another_environment(
    lifecycle: Lifecycle, sandbox: Sandbox, database_url: str
) -> None:
    """One database belongs to one environment: reading elsewhere would settle commands by somebody else's data."""
    appointment_id = support.tracked(lifecycle, sandbox)
    doubtful(lifecycle, sandbox, "confirm", appointment_id, when="after")
    support.query(database_url, "UPDATE lifecycle_installation SET zocdoc_environment = 'production'")
    support.until(lambda: support_due(database_url))
    with (
        support.opened(database_url, lifecycle._resources.clients.default) as other,
        pytest.raises(EnvironmentMismatch),
    ):
        other.recover()
    assert support.states(database_url) == ["uncertain"]


@pytest.mark.parametrize("state", ["not_sent", "applied"])
def test_a_killed_process_loses_nothing(
    lifecycle: Lifecycle, sandbox: Sandbox, server: Server, database_url: str, state: str
) -> None:
    """After kill -9 in the middle of the call the intent is there; once its lease is over, reading settles it."""
    appointment_id = support.tracked(lifecycle, sandbox)
    moment = "after" if state == "applied" else "before"
    support.arm(sandbox, kind="close", operation="confirm", when=moment)
    child = support.program(
        'Lifecycle(url, zocdoc=client).confirm(sys.argv[5], actor="job:doomed")', database_url, server, appointment_id
    )
    with child, support.held(sandbox, "confirm") as (came, _):
        assert came.wait(support.PATIENCE)
        child.kill()
        child.communicate()
    assert child.returncode == -signal.SIGKILL
    assert support.states(database_url) == ["sending"]
    early = lifecycle.recover()
    assert (ends(early), early.waiting) == ([], 1)
    assert support.states(database_url) == ["sending"]
    support.query(database_url, LEASE_OVER)
    assert [each.state for each in lifecycle.recover(wait=WAIT).settled] == [state]
    events = [each.event for each in lifecycle.history(appointment_id)]
    assert events[:3] == ["appointment_tracked", "command_accepted", "outcome_lost"]
    lost = lifecycle.history(appointment_id)[2]
    assert (lost.reason_code, lost.source, lost.actor) == ("lease_expired", "recovery", "job:doomed")
    assert support.effects(sandbox, appointment_id) == (1 if state == "applied" else 0)


def test_a_process_that_dies_before_it_sends_leaves_a_trace(
    lifecycle: Lifecycle, sandbox: Sandbox, server: Server, client: ZocdocClient, database_url: str
) -> None:
    """Between the committed intent and the request os._exit loses nothing: the command is proved not sent."""
    appointment_id = support.tracked(lifecycle, sandbox)
    child = support.program(
        """
import os
def give():
    os._exit(7)
client = ZocdocClient(base_url=base, access_token=give)
Lifecycle(url, zocdoc=client).confirm(sys.argv[5], actor="job:doomed")
""",
        database_url,
        server,
        appointment_id,
    )
    with child:
        child.communicate()
    assert child.returncode == 7
    assert support.states(database_url) == ["sending"]
    support.query(database_url, LEASE_OVER)
    with support.opened(database_url, client) as other:
        assert ends(other.recover(wait=WAIT)) == [("not_sent", "proved_not_applied")]
    assert support.posts(sandbox, appointment_id) == 0
    assert lifecycle.confirm(appointment_id, actor=ACTOR).to_status == "confirmed"


def test_the_lease_covers_every_call_of_an_attempt(
    lifecycle: Lifecycle, sandbox: Sandbox, server: Server, client: ZocdocClient, database_url: str
) -> None:
    """Send window, the whole HTTP time (the read after a 409 included) and margin are below the lease."""
    appointment_id = support.tracked(lifecycle, sandbox)
    sandbox.change(appointment_id, status="confirmed")
    timing = Timing(send_window=30.0, lease_margin=0.5, settle=0.05, spacing=(0.05, 0.05))
    with (
        support.client_of(server, deadline=20.0) as slow,
        support.opened(database_url, slow, timing) as sender,
        support.opened(database_url, client, timing) as other,
        support.while_held(sandbox, "get", lambda: sender.confirm(appointment_id, actor=ACTOR)) as results,
    ):
        assert ends(other.recover()) == []
        assert support.states(database_url) == ["sending"]
        [row] = support.query(database_url, "SELECT lease_until, run_at FROM lifecycle_commands")
        lease, look = (each if isinstance(each, datetime) else datetime.fromisoformat(each) for each in row.values())
        claimed_at = lifecycle.history(appointment_id)[-1].recorded_at
        assert lease == look == claimed_at + timedelta(seconds=30 + 2 * 20 + 0.5)
    assert results[0].reason_code == "already_so"


@pytest.fixture
def crowd(database_url: str, client: ZocdocClient) -> Iterator[list[Lifecycle]]:
    """Several instances on one database, as several processes would have."""
    made = [Lifecycle(database_url, zocdoc=client, timing=FAST) for _ in range(4)]
    yield made
    for each in made:
        each.close()


def test_an_appointment_that_somebody_holds_is_passed_over(
    postgres_url: str, client: ZocdocClient, sandbox: Sandbox
) -> None:
    """A process that was stopped with a lock in its hands does not keep recovery from the other appointments."""
    hold = sa.text("SELECT FROM lifecycle_appointments WHERE appointment_id = :id FOR NO KEY UPDATE")
    expire = (
        "UPDATE lifecycle_commands SET state = 'sending', run_at = now(), lease_until = now() WHERE ended_at IS NULL"
    )
    engine = sa.create_engine(postgres_url)
    with support.opened(postgres_url, client) as product:
        held, *free = (support.tracked(product, sandbox) for _ in range(3))
        for each, state in zip(free, ("uncertain", "sending"), strict=True):
            for doubted in (held, each) if state == "uncertain" else (each,):
                doubtful(product, sandbox, "confirm", doubted, when="after")
            if state == "sending":
                support.query(postgres_url, expire)
            with engine.begin() as holder:
                holder.execute(hold, {"id": held})
                before = support.gets(sandbox, held)
                support.until(lambda: product.recover().settled)
                assert support.gets(sandbox, held) == before
            assert support.states(postgres_url, held) == [state]
            assert support.states(postgres_url, each) == ["applied"]
        assert ends(product.recover(wait=WAIT)) == [("applied", "recovered")]
    engine.dispose()


def test_many_may_recover_at_once(
    lifecycle: Lifecycle, crowd: list[Lifecycle], sandbox: Sandbox, database_url: str
) -> None:
    """Each due read is made by one of them, so reads stay spaced, and each command is settled once."""
    ids = [support.tracked(lifecycle, sandbox) for _ in range(5)]
    for index, appointment_id in enumerate(ids):
        doubtful(lifecycle, sandbox, "confirm", appointment_id, when="after" if index % 2 else "before")
    before = {appointment_id: support.gets(sandbox, appointment_id) for appointment_id in ids}
    # Less than the 30 s for which a read is somebody's: who finds all reads taken does not wait for them.
    found = support.together(4, lambda index: crowd[index].recover(wait=20.0))
    settled = [each.appointment_id for recovery in found for each in recovery.settled]
    assert sorted(settled) == sorted(ids)
    for index, appointment_id in enumerate(ids):
        assert support.states(database_url, appointment_id) == ["applied" if index % 2 else "not_sent"]
        assert support.gets(sandbox, appointment_id) - before[appointment_id] == (1 if index % 2 else 3)
        assert len(lifecycle.history(appointment_id)) == (4 if index % 2 else 6)


def test_two_processes_may_recover_at_once(
    lifecycle: Lifecycle, sandbox: Sandbox, server: Server, database_url: str
) -> None:
    """Real processes share the work through the database: one settlement, one event."""
    appointment_id = support.tracked(lifecycle, sandbox)
    doubtful(lifecycle, sandbox, "confirm", appointment_id)
    body = """
product = Lifecycle(url, zocdoc=client, timing=timing)
print("ready", flush=True)
sys.stdin.readline()
print(",".join(each.state for each in product.recover(wait=8.0).settled))
"""
    children = [support.program(body, database_url, server) for _ in range(2)]
    for child in children:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
    for child in children:
        assert child.stdin is not None
        child.stdin.write("go\n")
        child.stdin.flush()
    outputs = [child.communicate(timeout=support.PATIENCE) for child in children]
    assert sorted(out.strip() for out, _ in outputs) == ["", "not_sent"], outputs
    events = [each.event for each in lifecycle.history(appointment_id)]
    assert events.count("command_not_sent") == 1
    assert events.count("outcome_checked") == 2


def late(
    lifecycle: Lifecycle, sandbox: Sandbox, server: Server, url: str, *, when: str, meanwhile: Any, **more: Any
) -> tuple[str, Any]:
    """Confirm with an answer that comes after the lease is over; do something meanwhile; give what the caller got."""
    appointment_id = support.tracked(lifecycle, sandbox)
    # The lease is over 0.3 s after the claim, as if this process had been stopped with the answer in its hands.
    timing = Timing(send_window=15.0, lease_margin=-54.7, settle=0.05, spacing=(0.05, 0.05))
    with (
        support.client_of(server, deadline=20.0) as slow,
        support.opened(url, slow, timing) as sender,
        support.while_held(
            sandbox, "confirm", lambda: sender.confirm(appointment_id, actor=ACTOR, **more), when=when
        ) as results,
    ):
        support.until(lambda: support_due(url))
        meanwhile(appointment_id)
    return appointment_id, results[0]


def test_a_late_answer_after_recovery_found_the_effect_is_only_noted(
    lifecycle: Lifecycle, sandbox: Sandbox, server: Server, database_url: str
) -> None:
    """Recovery was faster: the answer is one more row of the trail, and the caller gets the recorded outcome."""
    appointment_id, got = late(
        lifecycle, sandbox, server, database_url, when="after", meanwhile=lambda _: lifecycle.recover(wait=WAIT)
    )
    assert (got.to_status, got.reason_code) == ("confirmed", "recovered")
    support.assert_history(
        lifecycle,
        appointment_id,
        [
            ("command_accepted", "confirm", "pending_booking", "pending_booking", None, None),
            ("outcome_lost", "confirm", "pending_booking", "pending_booking", "unknown", "lease_expired"),
            ("command_applied", "confirm", "pending_booking", "confirmed", "applied", "recovered"),
            ("late_answer_received", "confirm", "confirmed", "confirmed", "applied", None),
        ],
    )
    last = lifecycle.history(appointment_id)[-1]
    assert last.details == {"settled_as": "applied", "answered": "confirmed"}
    assert support.states(database_url) == ["applied"]
    assert (support.posts(sandbox, appointment_id), support.effects(sandbox, appointment_id)) == (1, 1)
    assert lifecycle.get(appointment_id).in_doubt is False


def test_a_late_answer_settles_what_nobody_has_settled(
    lifecycle: Lifecycle, sandbox: Sandbox, server: Server, database_url: str
) -> None:
    """If recovery has only marked the command as uncertain, the answer that comes after all settles it."""

    def expire(_: str) -> None:
        support.arm(sandbox, kind="answer", operation="get", status=500, times=1)
        lifecycle.recover()
        assert support.states(database_url) == ["uncertain"]

    appointment_id, got = late(lifecycle, sandbox, server, database_url, when="before", meanwhile=expire)
    assert (got.to_status, got.reason_code) == ("confirmed", None)
    assert support.states(database_url) == ["applied"]
    seen = lifecycle.get(appointment_id)
    assert (seen.status, seen.in_doubt) == ("confirmed", False)
    assert [each.event for each in lifecycle.history(appointment_id)] == [
        "appointment_tracked",
        "command_accepted",
        "outcome_lost",
        "outcome_checked",
        "command_applied",
    ]


def test_a_late_effect_after_it_was_proved_absent_is_never_silent(
    lifecycle: Lifecycle, sandbox: Sandbox, server: Server, database_url: str
) -> None:
    """A zombie is noted and its effect followed; its caller, who has Zocdoc's yes, is not told to call again."""
    appointment_id, got = late(
        lifecycle, sandbox, server, database_url, when="before", meanwhile=lambda _: lifecycle.recover(wait=WAIT)
    )
    assert support.states(database_url) == ["applied"]
    assert support.effects(sandbox, appointment_id) == 1
    events = [each.event for each in lifecycle.history(appointment_id)]
    assert events[-2:] == ["late_answer_received", "appointment_observed"]
    assert lifecycle.get(appointment_id).status == "confirmed"
    # NotSent promises "no effect, safe to call again"; here there was one.
    assert (got.to_status, got.reason_code) == ("confirmed", "answered_late")


def test_a_late_answer_does_not_disturb_the_next_command(
    lifecycle: Lifecycle, sandbox: Sandbox, server: Server, database_url: str
) -> None:
    """If another command has gone its way meanwhile, the late answer is noted and its picture stays."""

    def cancel(appointment_id: str) -> None:
        lifecycle.recover(wait=WAIT)
        lifecycle.cancel(appointment_id, actor="user:18")

    appointment_id, got = late(lifecycle, sandbox, server, database_url, when="after", meanwhile=cancel)
    assert got.reason_code == "recovered"
    assert lifecycle.get(appointment_id).status == sandbox.status_of(appointment_id) == "cancelled"
    assert sorted(support.states(database_url)) == ["applied", "applied"]
    events = [each.event for each in lifecycle.history(appointment_id)]
    assert events[-1] == "late_answer_received"


def test_a_stopped_process_whose_lease_is_over_does_not_send(
    lifecycle: Lifecycle, sandbox: Sandbox, server: Server, client: ZocdocClient, database_url: str
) -> None:
    """SIGSTOP between claim and send: who wakes after the send window sends nothing, and learns what happened."""
    appointment_id = support.tracked(lifecycle, sandbox)
    child = support.program(
        """
import os, signal
timing = Timing(send_window=3.0)
stops = [signal.SIGSTOP]
def give():
    while stops:
        os.kill(os.getpid(), stops.pop())
    return "refused"
client = ZocdocClient(base_url=base, access_token=give)
with client, Lifecycle(url, zocdoc=client, timing=timing) as product:
    try:
        product.confirm(sys.argv[5], actor="job:stopped")
    except LifecycleError as error:
        print(type(error).__name__, error.reason_code)
""",
        database_url,
        server,
        appointment_id,
    )
    os.waitid(os.P_PID, child.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
    claimed_at = lifecycle.history(appointment_id)[-1].recorded_at
    support.query(database_url, LEASE_OVER)
    with support.opened(database_url, client) as other:
        assert ends(other.recover(wait=WAIT)) == [("not_sent", "proved_not_applied")]
    support.until(lambda: datetime.now(UTC) > claimed_at + timedelta(seconds=3.1))
    os.kill(child.pid, signal.SIGCONT)
    out, err = child.communicate(timeout=support.PATIENCE)
    assert (out.split()[0], err) == ("NotSent", "")
    assert support.posts(sandbox, appointment_id) == 0
    assert [each.event for each in lifecycle.history(appointment_id)][-1] == "late_answer_received"
    assert support.states(database_url) == ["not_sent"]


def test_what_needs_attention_does_not_block_but_is_read_first(
    lifecycle: Lifecycle, sandbox: Sandbox, database_url: str
) -> None:
    """The next command reads from Zocdoc before it decides, and goes through; the appointment stays in doubt."""
    appointment_id = support.tracked(lifecycle, sandbox)
    doubtful(lifecycle, sandbox, "mark_arrived", appointment_id)
    lifecycle.recover(wait=WAIT)
    sandbox.change(appointment_id, status="confirmed")
    before = len(support.calls(sandbox, appointment_id))
    done = lifecycle.cancel(appointment_id, actor=ACTOR)
    assert (done.from_status, done.to_status) == ("confirmed", "cancelled")
    assert [entry.operation for entry in support.calls(sandbox, appointment_id)[before:]] == ["get", "cancel"]
    assert support.states(database_url) == ["needs_attention", "applied"]
    assert lifecycle.get(appointment_id).in_doubt is True
    events = [each.event for each in lifecycle.history(appointment_id)]
    assert events[-3:] == ["appointment_observed", "command_accepted", "command_applied"]


def test_what_needs_attention_is_refused_by_what_was_read(lifecycle: Lifecycle, sandbox: Sandbox) -> None:
    """The read may show that the command is not allowed any more; then it is refused, by the new status."""
    appointment_id = support.tracked(lifecycle, sandbox)
    doubtful(lifecycle, sandbox, "mark_arrived", appointment_id)
    lifecycle.recover(wait=WAIT)
    sandbox.change(appointment_id, status="cancelled")
    with pytest.raises(TransitionRefused) as caught:
        lifecycle.confirm(appointment_id, actor=ACTOR)
    assert (caught.value.status, caught.value.reasons) == ("cancelled", ("status_not_allowed",))
    assert support.posts(sandbox, appointment_id) == 1


def test_what_needs_attention_and_cannot_be_read_is_not_sent(lifecycle: Lifecycle, sandbox: Sandbox) -> None:
    """Without the read nothing is decided: `ReadFailed`, no POST, no command row."""
    appointment_id = support.tracked(lifecycle, sandbox)
    doubtful(lifecycle, sandbox, "mark_arrived", appointment_id)
    lifecycle.recover(wait=WAIT)
    support.arm(sandbox, kind="answer", operation="get", status=500)
    with pytest.raises(ReadFailed) as caught:
        lifecycle.confirm(appointment_id, actor=ACTOR)
    assert (caught.value.reason_code, caught.value.http_status) == ("server_error", 500)
    assert support.posts(sandbox, appointment_id) == 1


def test_without_the_users_token_what_needs_attention_is_refused_without_a_call(
    lifecycle: Lifecycle, sandbox: Sandbox, server: Server, client: ZocdocClient, database_url: str
) -> None:
    """No foreign credential may read the appointment either: the command is refused by the credential rule."""
    with (
        support.user_client(server, "7") as user,
        support.opened(database_url, client, user_client={"7": user}.get) as product,
    ):
        appointment_id = support.tracked(product, sandbox, booked_by="user:7")
        doubtful(product, sandbox, "confirm", appointment_id)
    lifecycle.recover(wait=WAIT)
    before = len(sandbox.ledger.entries())
    with pytest.raises(TransitionRefused) as caught:
        lifecycle.confirm(appointment_id, actor=ACTOR)
    assert caught.value.reasons == ("credential_not_allowed",)
    assert len(sandbox.ledger.entries()) == before
    assert lifecycle.history(appointment_id)[-1].event == "command_refused"


TEXT = "CANARY the patient has moved to Oslo"


def payloads(url: str) -> list[str]:
    """Give the payload columns as text."""
    return [str(row["payload"]) for row in support.commands(url)]


@pytest.mark.parametrize(
    ("operation", "status", "error"),
    [("get", 500, None), ("cancel", 400, CommandRejected), ("token", 401, NotSent)],
)
def test_the_free_text_of_a_cancel_is_blanked_when_it_ends(
    lifecycle: Lifecycle, sandbox: Sandbox, operation: str, status: int, error: type[LifecycleError] | None
) -> None:
    """However a cancel ends, its free text is sent and then removed; the type stays."""
    appointment_id = support.tracked(lifecycle, sandbox)
    sandbox.revoke_tokens()
    support.arm(sandbox, kind="answer", operation=operation, status=status, times=3 if operation == "token" else 1)
    with pytest.raises(error) if error else contextlib.nullcontext():
        lifecycle.cancel(appointment_id, actor=ACTOR, reason=TEXT, reason_type="other_patient_reason")
    assert sandbox.appointment(appointment_id).cancellation_reason == (None if error else TEXT)
    [payload] = payloads(str(lifecycle._resources.database.engine.url.render_as_string(hide_password=False)))
    assert "CANARY" not in payload
    assert "other_patient_reason" in payload


@pytest.mark.parametrize("end", ["applied", "not_sent", "needs_attention"])
def test_the_free_text_of_a_lost_cancel_is_blanked_when_recovery_ends_it(
    lifecycle: Lifecycle, sandbox: Sandbox, database_url: str, end: str
) -> None:
    """While the outcome is unknown the text is kept; every end that recovery finds removes it."""
    appointment_id = support.tracked(lifecycle, sandbox)
    doubtful(lifecycle, sandbox, "cancel", appointment_id, reason=TEXT, when="after" if end == "applied" else "before")
    assert "CANARY" in payloads(database_url)[0]
    if end == "needs_attention":
        sandbox.change(appointment_id, status="no_show")
    [settled] = lifecycle.recover(wait=WAIT).settled
    assert settled.state == end
    assert "CANARY" not in payloads(database_url)[0]


def test_ctrl_c_during_the_call_leaves_it_uncertain(lifecycle: Lifecycle, sandbox: Sandbox, database_url: str) -> None:
    """An interrupted call may have had its effect: the appointment is in doubt until it is read."""
    appointment_id = support.tracked(lifecycle, sandbox)
    with support.held(sandbox, "confirm", when="before") as (came, _):

        def interrupt() -> None:
            came.wait(support.PATIENCE)
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

        thread = threading.Thread(target=interrupt)
        thread.start()
        with pytest.raises(KeyboardInterrupt):
            lifecycle.confirm(appointment_id, actor=ACTOR)
        thread.join()
    assert support.states(database_url) == ["uncertain"]
    assert lifecycle.get(appointment_id).in_doubt is True
    last = lifecycle.history(appointment_id)[-1]
    assert (last.event, last.reason_code) == ("outcome_lost", "interrupted")
    support.until(lambda: support.effects(sandbox, appointment_id) == 1)
    assert ends(lifecycle.recover(wait=WAIT)) == [("applied", "recovered")]


def impatient(url: str) -> sa.Engine:
    """Make an engine that does not wait long for a lock."""
    if url.startswith("sqlite"):
        engine = sa.create_engine(url, connect_args={"timeout": 0.1})
        sa.event.listen(engine, "connect", lambda connection, _: connection.execute("PRAGMA synchronous=FULL"))
        return engine
    return sa.create_engine(url, connect_args={"options": "-c lock_timeout=100ms"})


def test_an_answer_that_cannot_be_recorded_is_an_unknown_outcome(
    lifecycle: Lifecycle, sandbox: Sandbox, server: Server, database_url: str
) -> None:
    """If the database fails after the call, the caller hears that the outcome is not recorded; recovery finds it."""
    appointment_id = support.tracked(lifecycle, sandbox)
    timing = Timing(settle=0.05, spacing=(0.05, 0.05), record_again=(0.05,))
    engine, blocker = impatient(database_url), sa.create_engine(database_url)
    with (
        support.client_of(server) as client,
        Lifecycle(engine, zocdoc=client, timing=timing) as product,
        blocker.connect() as connection,
    ):
        with support.while_held(sandbox, "confirm", lambda: product.confirm(appointment_id, actor=ACTOR)) as results:
            connection.exec_driver_sql("UPDATE lifecycle_appointments SET version = version")
        connection.rollback()
    engine.dispose()
    blocker.dispose()
    [got] = results
    assert isinstance(got, OutcomeUnknown)
    assert (got.reason_code, got.state, got.http_status) == ("not_recorded", "sending", 200)
    support.query(database_url, LEASE_OVER)
    assert ends(lifecycle.recover(wait=WAIT)) == [("applied", "recovered")]
    assert support.posts(sandbox, appointment_id) == 1
