"""Many at once on one appointment: one wins, the others get a named error, and Zocdoc sees one effect."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import pytest

from lifecycle import CommandInProgress, Done, Lifecycle, TransitionRefused
from tests import support
from tests.support import ACTOR

if TYPE_CHECKING:
    from lifecycle import ZocdocClient
    from lifecycle.sandbox import Sandbox, Server

RACE = """
import sys
product = Lifecycle(url, zocdoc=client)
ids = sys.argv[5].split(",")
product.get(ids[0])
print("ready", flush=True)
sys.stdin.readline()
for appointment_id in ids:
    try:
        print(product.confirm(appointment_id, actor="job:racer").to_status)
    except LifecycleError as error:
        print(type(error).__name__)
"""


@pytest.mark.parametrize("commands", [["confirm"] * 8, ["cancel"] * 8, ["confirm", "cancel"] * 4])
def test_of_eight_threads_one_wins(
    lifecycle: Lifecycle, sandbox: Sandbox, database_url: str, commands: list[str]
) -> None:
    """At most one command is active, so the losers are refused by a name, and each refusal is in the trail."""
    appointment_id = support.tracked(lifecycle, sandbox)
    support.arm(sandbox, kind="delay", seconds=0.2)
    results = support.together(8, lambda index: support.send(lifecycle, commands[index], appointment_id))
    done = [each for each in results if isinstance(each, Done)]
    lost = [each for each in results if isinstance(each, TransitionRefused)]
    assert len(done) + len(lost) == 8, results
    assert len(done) == 1 or {each.command for each in done} == {"confirm", "cancel"}
    assert any(isinstance(each, CommandInProgress) for each in lost)
    assert support.posts(sandbox, appointment_id) == support.effects(sandbox, appointment_id) == len(done)
    assert support.states(database_url) == ["applied"] * len(done)
    events = Counter(each.event for each in lifecycle.history(appointment_id))
    assert events == {
        "appointment_tracked": 1,
        "command_accepted": len(done),
        "command_applied": len(done),
        "command_refused": len(lost),
    }


def test_eight_instances_are_as_safe_as_eight_threads(
    sandbox: Sandbox, client: ZocdocClient, database_url: str
) -> None:
    """Nothing that decides a race lives in memory: eight engines on one database make one call."""
    instances = [Lifecycle(database_url, zocdoc=client) for _ in range(8)]
    appointment_id = support.tracked(instances[0], sandbox)
    results = support.together(8, lambda index: instances[index].confirm(appointment_id, actor=f"user:{index}"))
    assert sum(isinstance(each, Done) for each in results) == 1, results
    assert sum(isinstance(each, TransitionRefused) for each in results) == 7, results
    assert support.effects(sandbox, appointment_id) == support.posts(sandbox, appointment_id) == 1
    actors = {each.actor for each in instances[0].history(appointment_id)}
    assert actors == {ACTOR, *(f"user:{index}" for index in range(8))}
    for each in instances:
        each.close()


def test_of_two_processes_one_wins_each_appointment(
    lifecycle: Lifecycle, sandbox: Sandbox, server: Server, database_url: str
) -> None:
    """Real processes that race over ten appointments: each is confirmed once, each loser hears why."""
    ids = [support.tracked(lifecycle, sandbox) for _ in range(10)]
    children = [support.program(RACE, database_url, server, ",".join(ids)) for _ in range(2)]
    for child in children:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
    for child in children:
        assert child.stdin is not None
        child.stdin.write("go\n")
        child.stdin.flush()
    outputs = [child.communicate(timeout=60) for child in children]
    words = Counter(word for out, _ in outputs for word in out.split())
    assert words["confirmed"] == 10, outputs
    assert words["CommandInProgress"] + words["TransitionRefused"] == 10, outputs
    for appointment_id in ids:
        assert support.posts(sandbox, appointment_id) == support.effects(sandbox, appointment_id) == 1
        assert Counter(each.event for each in lifecycle.history(appointment_id)) == {
            "appointment_tracked": 1,
            "command_accepted": 1,
            "command_applied": 1,
            "command_refused": 1,
        }


def test_threads_on_many_appointments_do_not_hinder_each_other(lifecycle: Lifecycle, sandbox: Sandbox) -> None:
    """Commands on different appointments at once all succeed, on both databases."""
    ids = [support.tracked(lifecycle, sandbox) for _ in range(8)]
    results = support.together(8, lambda index: lifecycle.confirm(ids[index], actor=ACTOR))
    assert all(isinstance(each, Done) for each in results), results
    assert [support.effects(sandbox, each) for each in ids] == [1] * 8


def test_a_read_during_a_command_stores_nothing(lifecycle: Lifecycle, sandbox: Sandbox) -> None:
    """While a command is active, what is read may be older than its effect; the command's own end tells."""
    appointment_id = support.tracked(lifecycle, sandbox)
    with support.while_held(sandbox, "confirm", lambda: lifecycle.confirm(appointment_id, actor=ACTOR)) as results:
        assert support.effects(sandbox, appointment_id) == 1
        seen = lifecycle.track(appointment_id, actor="job:poll")
        assert seen.status == "pending_booking"
    assert results[0].to_status == "confirmed"
    assert [each.event for each in lifecycle.history(appointment_id)] == [
        "appointment_tracked",
        "command_accepted",
        "command_applied",
    ]


def test_a_read_that_began_before_a_command_is_made_again(lifecycle: Lifecycle, sandbox: Sandbox) -> None:
    """If the row changes while Zocdoc is read, the reading may be old: it is not stored, and read again."""
    appointment_id = support.tracked(lifecycle, sandbox)
    with support.while_held(sandbox, "get", lambda: lifecycle.track(appointment_id, actor="job:poll")) as results:
        lifecycle.confirm(appointment_id, actor=ACTOR)
    assert results[0].status == "confirmed"
    assert lifecycle.get(appointment_id).status == "confirmed"
    assert [each.event for each in lifecycle.history(appointment_id)][-1] == "command_applied"
    assert support.gets(sandbox, appointment_id) == 3
