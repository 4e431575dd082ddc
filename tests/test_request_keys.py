"""A request key makes a command safe to call again: the first outcome is given, and nothing is sent twice."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from lifecycle import (
    AppointmentNotFound,
    CommandInProgress,
    CommandRejected,
    Done,
    InvalidArgument,
    NotSent,
    OutcomeUnknown,
    RequestKeyReused,
    TransitionRefused,
)
from tests import support
from tests.conftest import FAST
from tests.support import ACTOR

if TYPE_CHECKING:
    from collections.abc import Callable

    from lifecycle import Lifecycle, ZocdocClient
    from lifecycle.sandbox import Sandbox, Server

KEY = "order-4711"
FREE = "SELECT count(*) AS n FROM lifecycle_installation"


def test_the_same_key_again_gives_the_first_success(
    lifecycle: Lifecycle, sandbox: Sandbox, client: ZocdocClient, database_url: str
) -> None:
    """An applied command is answered as the first time, by every process, whoever asks; one POST, no new row."""
    appointment_id = support.tracked(lifecycle, sandbox)
    given: dict[str, Any] = {"reason": "text", "request_key": KEY}
    first = lifecycle.cancel(appointment_id, actor=ACTOR, **given)
    events = lifecycle.history(appointment_id)
    with support.opened(database_url, client) as other:
        again = other.cancel(appointment_id, actor="job:retry", **given)
    assert again == first
    assert isinstance(again, Done)
    assert again.advice == ("reason_type_missing", "reason_text_without_other_type")
    assert lifecycle.history(appointment_id) == events
    assert support.posts(sandbox, appointment_id) == 1


def test_an_arrival_is_repeated_like_any_other(lifecycle: Lifecycle, sandbox: Sandbox) -> None:
    """`mark_arrived` has no status to show for it, yet its key gives the first outcome."""
    appointment_id = support.tracked(lifecycle, sandbox, status="confirmed")
    first = lifecycle.mark_arrived(appointment_id, actor=ACTOR, request_key=KEY)
    assert lifecycle.mark_arrived(appointment_id, actor=ACTOR, request_key=KEY) == first
    assert support.effects(sandbox, appointment_id) == 1


def test_the_same_key_again_gives_the_first_rejection(lifecycle: Lifecycle, sandbox: Sandbox) -> None:
    """A rejected command is raised again with the same facts, fields and request id included."""
    appointment_id = support.tracked(lifecycle, sandbox)
    body = '{"request_id": "rq-9", "errors": [{"message": "m", "field": "appointment_id"}]}'
    support.arm(sandbox, kind="answer", operation="confirm", status=400, body=body)
    caught = []
    for _ in range(2):
        with pytest.raises(CommandRejected) as error:
            lifecycle.confirm(appointment_id, actor=ACTOR, request_key=KEY)
        caught.append(vars(error.value))
    assert caught[0] == caught[1]
    assert caught[1]["fields"] == ("appointment_id",)
    assert support.posts(sandbox, appointment_id) == 1


def test_the_same_key_again_gives_the_unknown_outcome(
    lifecycle: Lifecycle, sandbox: Sandbox, database_url: str
) -> None:
    """While the outcome is unknown the key says so; once recovery has found it, the key gives what was found."""
    appointment_id = support.tracked(lifecycle, sandbox)
    support.lose_answer(sandbox, "confirm", when="after")
    caught = []
    for _ in range(2):
        with pytest.raises(OutcomeUnknown) as error:
            lifecycle.confirm(appointment_id, actor=ACTOR, request_key=KEY)
        caught.append(vars(error.value))
    assert caught[0] == caught[1]
    lifecycle.recover(wait=support.PATIENCE)
    done = lifecycle.confirm(appointment_id, actor=ACTOR, request_key=KEY)
    assert (done.to_status, done.reason_code, done.command_id) == ("confirmed", "recovered", caught[0]["command_id"])
    assert support.states(database_url) == ["applied"]
    assert support.posts(sandbox, appointment_id) == 1


def test_the_same_key_again_says_what_needs_attention(lifecycle: Lifecycle, sandbox: Sandbox) -> None:
    """What a human must settle stays unknown under its key, and is never sent again."""
    appointment_id = support.tracked(lifecycle, sandbox)
    support.lose_answer(sandbox, "update_status")
    with pytest.raises(OutcomeUnknown):
        lifecycle.mark_arrived(appointment_id, actor=ACTOR, request_key=KEY)
    lifecycle.recover(wait=support.PATIENCE)
    before = len(sandbox.ledger.entries())
    with pytest.raises(OutcomeUnknown) as caught:
        lifecycle.mark_arrived(appointment_id, actor=ACTOR, request_key=KEY)
    assert (caught.value.state, caught.value.reason_code) == ("needs_attention", "cannot_be_told_apart")
    assert len(sandbox.ledger.entries()) == before


def test_the_same_key_while_it_goes_on_says_so(lifecycle: Lifecycle, sandbox: Sandbox) -> None:
    """The second caller hears that the command is being sent, by its own id, and the trail gets no refusal."""
    appointment_id = support.tracked(lifecycle, sandbox)
    call = {"actor": ACTOR, "request_key": KEY}
    with (
        support.while_held(sandbox, "confirm", lambda: lifecycle.confirm(appointment_id, **call)) as results,
        pytest.raises(CommandInProgress) as caught,
    ):
        lifecycle.confirm(appointment_id, **call)
    assert (caught.value.active_state, caught.value.active_command_id) == ("sending", results[0].command_id)
    assert support.posts(sandbox, appointment_id) == 1
    assert len(lifecycle.history(appointment_id)) == 3


def test_after_not_sent_the_key_acts_again(lifecycle: Lifecycle, sandbox: Sandbox, database_url: str) -> None:
    """What had no effect does not hold its key: the next call is a new command, and its outcome counts from then on."""
    appointment_id = support.tracked(lifecycle, sandbox)
    sandbox.revoke_tokens()
    support.arm(sandbox, kind="answer", operation="token", status=401)
    with pytest.raises(NotSent):
        lifecycle.confirm(appointment_id, actor=ACTOR, request_key=KEY)
    done = lifecycle.confirm(appointment_id, actor=ACTOR, request_key=KEY)
    assert lifecycle.confirm(appointment_id, actor=ACTOR, request_key=KEY) == done
    assert support.states(database_url) == ["not_sent", "applied"]
    assert support.effects(sandbox, appointment_id) == 1


def test_after_it_was_proved_not_applied_the_key_acts_again(
    lifecycle: Lifecycle, sandbox: Sandbox, database_url: str
) -> None:
    """The only second POST after an unknown outcome is the one that reads have shown to be safe."""
    appointment_id = support.tracked(lifecycle, sandbox)
    support.lose_answer(sandbox, "confirm")
    with pytest.raises(OutcomeUnknown):
        lifecycle.confirm(appointment_id, actor=ACTOR, request_key=KEY)
    lifecycle.recover(wait=support.PATIENCE)
    assert lifecycle.confirm(appointment_id, actor=ACTOR, request_key=KEY).to_status == "confirmed"
    assert support.states(database_url) == ["not_sent", "applied"]
    kinds = [entry.operation for entry in support.calls(sandbox, appointment_id)]
    assert kinds == ["get", "confirm", "get", "get", "get", "confirm"]


def test_a_refusal_does_not_hold_a_key(lifecycle: Lifecycle, sandbox: Sandbox) -> None:
    """A refused wish never became a command: with the same key it is judged again."""
    appointment_id = support.tracked(lifecycle, sandbox, status="cancelled")
    with pytest.raises(TransitionRefused):
        lifecycle.confirm(appointment_id, actor=ACTOR, request_key=KEY)
    sandbox.change(appointment_id, status="pending_booking")
    lifecycle.track(appointment_id, actor=ACTOR)
    assert lifecycle.confirm(appointment_id, actor=ACTOR, request_key=KEY).to_status == "confirmed"


@pytest.mark.parametrize("change", ["command", "arguments", "text", "appointment"])
def test_a_key_with_another_wish_is_an_error(
    lifecycle: Lifecycle, sandbox: Sandbox, database_url: str, change: str
) -> None:
    """A key belongs to one appointment, command and set of arguments; anything else is refused before it is sent."""
    appointment_id = support.tracked(lifecycle, sandbox)
    another = support.tracked(lifecycle, sandbox)
    first = lifecycle.cancel(
        appointment_id, actor=ACTOR, reason="a", reason_type="other_patient_reason", request_key=KEY
    )
    before = len(sandbox.ledger.entries())
    reason, kind = ("b", "other_patient_reason") if change == "text" else ("a", "provider_not_available")
    calls: dict[str, Callable[[], Done]] = {
        "command": lambda: lifecycle.confirm(appointment_id, actor=ACTOR, request_key=KEY),
        "appointment": lambda: lifecycle.cancel(
            another, actor=ACTOR, reason="a", reason_type="other_patient_reason", request_key=KEY
        ),
    }
    other = calls.get(
        change,
        lambda: lifecycle.cancel(appointment_id, actor=ACTOR, reason=reason, reason_type=kind, request_key=KEY),
    )
    with pytest.raises(RequestKeyReused) as caught:
        other()
    assert (caught.value.request_key, caught.value.command_id) == (KEY, first.command_id)
    assert len(sandbox.ledger.entries()) == before
    assert len(support.commands(database_url)) == 1


def test_the_digest_outlives_the_process(
    lifecycle: Lifecycle, sandbox: Sandbox, client: ZocdocClient, database_url: str
) -> None:
    """The key of the digests lies in the database, even if the first thing ever asked of it failed."""
    with support.opened(database_url, client) as first:
        with pytest.raises(AppointmentNotFound):
            first.confirm("nobody-tracked-this", actor=ACTOR, request_key="other")
        appointment_id = sandbox.add()
        first.track(appointment_id, actor=ACTOR)
        done = first.confirm(appointment_id, actor=ACTOR, request_key=KEY)
    assert support.query(database_url, FREE) == [{"n": 1}]
    assert lifecycle.confirm(appointment_id, actor=ACTOR, request_key=KEY) == done


def test_the_digest_does_not_give_the_text_away(lifecycle: Lifecycle, sandbox: Sandbox, database_url: str) -> None:
    """The digest is keyed with a secret of the database: without a key there is none, with one it is no plain hash."""
    one, two = (support.tracked(lifecycle, sandbox) for _ in range(2))
    lifecycle.cancel(one, actor=ACTOR, reason="sick", request_key=KEY)
    lifecycle.cancel(two, actor=ACTOR, reason="sick")
    digests = {row["appointment_id"]: row["payload_digest"] for row in support.commands(database_url)}
    assert digests[two] is None
    assert len(digests[one]) == 64


def test_a_key_is_printable_text(lifecycle: Lifecycle, sandbox: Sandbox) -> None:
    """A key that cannot be stored or read is an error of the caller; nothing is written."""
    appointment_id = support.tracked(lifecycle, sandbox)
    keys: list[Any] = ["", "  ", "x" * 201, "a\0b", "a\nb", 7]
    for key in keys:
        with pytest.raises(InvalidArgument) as caught:
            lifecycle.confirm(appointment_id, actor=ACTOR, request_key=key)
        assert caught.value.argument == "request_key"
    assert len(lifecycle.history(appointment_id)) == 1


def test_threads_with_the_same_key_make_one_call(lifecycle: Lifecycle, sandbox: Sandbox, database_url: str) -> None:
    """Of eight threads one sends; the others get its outcome, or hear that it goes on."""
    appointment_id = support.tracked(lifecycle, sandbox)
    results = support.together(8, lambda _: lifecycle.confirm(appointment_id, actor=ACTOR, request_key=KEY))
    done = [each for each in results if isinstance(each, Done)]
    waiting = [each for each in results if isinstance(each, CommandInProgress)]
    assert done
    assert len(done) + len(waiting) == 8, results
    assert len(set(done)) == 1
    assert {each.active_command_id for each in waiting} <= {done[0].command_id}
    assert support.states(database_url) == ["applied"]
    assert (support.posts(sandbox, appointment_id), support.effects(sandbox, appointment_id)) == (1, 1)


def test_processes_with_the_same_key_make_one_call(
    lifecycle: Lifecycle, sandbox: Sandbox, server: Server, database_url: str
) -> None:
    """Two processes that retry the same wish at the same moment have one effect."""
    appointment_id = support.tracked(lifecycle, sandbox)
    body = """
product = Lifecycle(url, zocdoc=client)
product.get(sys.argv[5])
print("ready", flush=True)
sys.stdin.readline()
try:
    print(product.confirm(sys.argv[5], actor="job:retry", request_key="k").to_status)
except LifecycleError as error:
    print(type(error).__name__)
"""
    children = [support.program(body, database_url, server, appointment_id) for _ in range(2)]
    for child in children:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
    for child in children:
        assert child.stdin is not None
        child.stdin.write("go\n")
        child.stdin.flush()
    outputs = [child.communicate(timeout=support.PATIENCE) for child in children]
    words = {out.strip() for out, _ in outputs}
    assert "confirmed" in words, outputs
    assert words <= {"confirmed", "CommandInProgress"}, outputs
    assert (support.posts(sandbox, appointment_id), support.effects(sandbox, appointment_id)) == (1, 1)


def test_one_key_on_two_appointments_at_once_is_a_named_error(
    sandbox: Sandbox, postgres_url: str, client: ZocdocClient
) -> None:
    """If another transaction takes the key between look and insert, the loser hears `RequestKeyReused`."""
    with support.opened(postgres_url, client, FAST) as product:
        one, two = (support.tracked(product, sandbox) for _ in range(2))
        product.confirm(one, actor=ACTOR, request_key="first")
        engine = sa.create_engine(postgres_url)
        with engine.connect() as connection:
            # As another process's transaction 1 would: the key is inserted and not yet committed.
            connection.execute(sa.text("UPDATE lifecycle_commands SET request_key = :key"), {"key": KEY})
            with support.in_background(lambda: product.confirm(two, actor=ACTOR, request_key=KEY)) as results:
                support.until(lambda: blocked(postgres_url))
                connection.commit()
        engine.dispose()
        assert support.posts(sandbox, two) == 0
        assert isinstance(results[0], RequestKeyReused), results


def blocked(url: str) -> bool:
    """Tell whether a transaction waits for another one."""
    return bool(support.query(url, "SELECT 1 FROM pg_locks WHERE NOT granted"))
