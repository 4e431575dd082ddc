"""Two at once on one appointment, in every order of their steps: nothing is lost, nothing is done twice."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from lifecycle import (
    CommandInProgress,
    CommandRejected,
    Done,
    LifecycleError,
    NotSent,
    OutcomeUnknown,
    TransitionRefused,
)
from tests.exhaustive import checks
from tests.exhaustive.schedules import Baton
from tests.exhaustive.soak import in_memory
from tests.exhaustive.stories import LEASE_OVER, Scene, begin, dispatch, recover
from tests.exhaustive.world import World
from tests.support import ACTOR, COMMANDS, OPERATIONS, arm, send

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lifecycle import Lifecycle
    from tests.exhaustive.schedules import Order

ENDS = {
    *("command_applied", "arrival_marked", "command_rejected", "command_not_sent", "attention_needed"),
    *("command_refused", "command_withdrawn", "command_expired", "command_requeued"),
}
"""Events after which nothing of a command is in the air."""

PAIRS = [(one, other) for index, one in enumerate(COMMANDS) for other in COMMANDS[index:]]
"""Unordered: every order of the steps of two workers includes those in which they change places."""

DIFFERENT = ("confirm", "reschedule", "mark_arrived")
"""A command that shows by its status, one that shows by its start, one that shows by nothing."""


class Table:
    """Runs two workers on one appointment in all orders, and checks each."""

    def __init__(self, world: World, baton: Baton) -> None:
        self.world = world
        self._baton = baton
        self._scenes = 0
        self._scene: Scene | None = None
        self._since = 0

    def play(
        self,
        set_scene: Callable[[], Scene],
        one: Callable[[Scene, Lifecycle], Any],
        other: Callable[[Scene, Lifecycle], Any],
        *,
        switches: int | None = None,
        reads: int | None = None,
        also: Callable[[Order], None] = lambda _: None,
    ) -> list[Order]:
        """Play all orders, each with so many reads of Zocdoc if told; gives them for what only this pair must hold.

        `also` looks at each of them at once, while its scene stands.
        """
        first, second = (worker.product for worker in self.world.workers[:2])

        def fresh() -> list[Callable[[], Any]]:
            scene = self._scene = set_scene()
            self._since = len(self.world.stage.ledger.entries())
            return [lambda: one(scene, first), lambda: other(scene, second)]

        orders = []
        for number, order in enumerate(self._baton.orders(fresh, switches)):
            made = sum(each.method == "GET" for each in self._entries())
            found = [] if reads in {None, made} else [f"{made} reads"]
            found += self._judge(order)
            assert found == [], f"order {number}, {order.steps}: {found}; {order.results}"
            also(order)
            orders.append(order)
        return orders

    def effects(self) -> int:
        """Count what changed the last scene's appointment at the stand-in."""
        assert self._scene is not None
        return len([each for each in self._entries() if each.effect])

    def whole_story(self) -> list[Any]:
        """Give all changing requests about the last scene's appointment, those of its making too."""
        assert self._scene is not None
        mine = [each for each in self.world.stage.ledger.entries() if each.appointment_id == self._scene.appointment_id]
        return [each for each in mine if each.method != "GET"]

    def _entries(self) -> list[Any]:
        found = self.world.stage.ledger.entries()[self._since :]
        return [each for each in found if self._scene and each.appointment_id == self._scene.appointment_id]

    def _judge(self, order: Order) -> list[str]:
        scene = self._scene
        assert scene is not None
        recover(scene, self.world.workers[2].product)
        seen = checks.Evidence(scene, is_sending=False, since=self._since)
        rows = self.world.rows("SELECT * FROM lifecycle_commands WHERE appointment_id = ?", scene.appointment_id)
        found = [f"raised {each!r}" for each in order.results if not checks.documented(each)]
        found += [f"command is {row['state']}" for row in rows if row["state"] not in checks.ENDED]
        found += one_at_a_time(self.world, scene.appointment_id) + truths(order, rows)
        found += self._counts(rows)
        if not any(row["state"] == "needs_attention" for row in rows) and not scene.provider_acted:
            found += checks._same(seen)
        self.world.workers[2].product.track(scene.appointment_id, actor=ACTOR)
        found += checks._trail(scene) + checks._same(seen) + checks._doubt(scene, rows)
        return found

    def _counts(self, rows: list[dict[str, Any]]) -> list[str]:
        """Compare effects and calls with commands, operation by operation."""
        found = []
        for operation in set(OPERATIONS.values()):
            own = [row for row in rows if OPERATIONS[row["command"]] == operation]
            mine = [each for each in self._entries() if each.operation == operation]
            applied = sum(row["state"] == "applied" for row in own)
            unclear = sum(row["state"] == "needs_attention" for row in own)
            effects = sum(each.effect for each in mine)
            if effects > applied + unclear or len(mine) > sum(row["attempt"] for row in own):
                found.append(f"{operation}: {effects} effects of {len(mine)} calls, {applied} applied")
        return found


def one_at_a_time(world: World, appointment_id: str) -> list[str]:
    """Read the trail for a command that was accepted while another one had not ended."""
    query = "SELECT event, command_id FROM lifecycle_audit_events WHERE appointment_id = ? ORDER BY seq"
    active, found = None, []
    for row in world.rows(query, appointment_id):
        if row["event"] in {"command_accepted", "command_resent", "command_retried"}:
            if active is not None:
                found.append(f"{row['command_id']} began while {active} was active")
            active = row["command_id"]
        elif row["event"] in ENDS and row["command_id"] == active:
            active = None
    return found


def truths(order: Order, rows: list[dict[str, Any]]) -> list[str]:
    """Compare what each worker heard of a command with the state that it ended in."""
    states = {row["command_id"]: row["state"] for row in rows}
    found = []
    for heard in order.results:
        if isinstance(heard, Done):
            fits = states[heard.command_id] == "applied"
        elif isinstance(heard, CommandRejected):
            fits = states[heard.command_id] == "rejected"
        elif isinstance(heard, NotSent):
            fits = states[heard.command_id] == "not_sent"
        else:
            fits = not isinstance(heard, BaseException) or isinstance(heard, LifecycleError)
        found += [] if fits else [f"heard {heard!r}"]
    return found


@pytest.fixture(scope="module")
def _world() -> Iterator[World]:
    with in_memory() as folder, World(Path(folder)) as world:
        yield world


@pytest.fixture
def table(_world: World) -> Iterator[Table]:
    """Give a table with a database of its own, every worker warmed up."""
    _world.renew()
    for worker in _world.workers:
        begin(_world, "confirm").send(worker.product)
        send(worker.product, "cancel", begin(_world, "confirm").appointment_id)
    with Baton(_world) as baton:
        yield Table(_world, baton)


def _sends(command: str) -> Callable[[Scene, Lifecycle], Any]:
    return lambda scene, product: send(product, command, scene.appointment_id)


def _scene(table: Table, command: str = "confirm") -> Callable[[], Scene]:
    return lambda: begin(table.world, command)


def _lost(table: Table, command: str, when: str) -> Callable[[], Scene]:
    def set_scene() -> Scene:
        scene = begin(table.world, command)
        arm(table.world.stage, kind="reset", operation=OPERATIONS[command], when=when)
        with pytest.raises(OutcomeUnknown):
            scene.send(table.world.workers[2].product)
        table.world.clock.skip(LEASE_OVER)
        return scene

    return set_scene


def _in_doubt(table: Table) -> Callable[[], Scene]:
    def set_scene() -> Scene:
        scene = _lost(table, "mark_arrived", "before")()
        recover(scene, table.world.workers[2].product)
        query = "SELECT command_id FROM lifecycle_commands WHERE appointment_id = ?"
        [row] = table.world.rows(query, scene.appointment_id)
        scene.command_id = row["command_id"]
        return scene

    return set_scene


def _resolves(resolution: str) -> Callable[[Scene, Lifecycle], Any]:
    return lambda scene, product: product.resolve(
        scene.command_id, resolution=resolution, reason_code="looked", actor="user:1"
    )


def _recovers(_: Scene, product: Lifecycle) -> None:
    product.recover()


@pytest.mark.parametrize(("one", "other"), PAIRS)
def test_two_commands_in_every_order(table: Table, one: str, other: str) -> None:
    """Whatever the order, each call that reached Zocdoc has a command of its own, one after the other."""
    orders = table.play(_scene(table), _sends(one), _sends(other))
    assert len({order.steps for order in orders}) == len(orders) >= 6
    for order in orders:
        assert all(isinstance(each, (Done, TransitionRefused, CommandRejected)) for each in order.results), order
        assert any(isinstance(each, Done) for each in order.results)


@pytest.mark.parametrize("command", COMMANDS)
def test_two_with_one_request_key_act_once(table: Table, command: str) -> None:
    """The same wish from two workers at once is sent once; the other one hears of it, or gets its outcome."""

    def act(scene: Scene, product: Lifecycle) -> Any:
        return scene.send(product)

    for order in table.play(_scene(table, command), act, act):
        done = [each for each in order.results if isinstance(each, Done)]
        assert len({each.command_id for each in done}) == 1, order
    assert table.effects() == 1


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(("lost", "other"), [*((lost, "cancel") for lost in DIFFERENT), ("reschedule", "reschedule")])
def test_a_command_while_another_is_recovered(table: Table, lost: str, when: str, other: str) -> None:
    """Recovery of a lost answer and a new wish: the new one waits its turn or sees what came of the first."""
    table.play(_lost(table, lost, when), _sends(other), _recovers)


@pytest.mark.parametrize("command", DIFFERENT)
def test_a_worker_that_outsleeps_its_lease(table: Table, command: str) -> None:
    """Recovery takes over, to its end, what was stopped at any step for longer than its lease: nothing is sent after.

    Here workers interrupt each other twice at most: recovery alone has some twenty steps.
    """
    orders = table.play(_scene(table, command), _sends(command), recover, switches=2)
    assert len(orders) >= 15


@pytest.mark.parametrize("command", DIFFERENT)
def test_a_command_while_somebody_follows_zocdoc(table: Table, command: str) -> None:
    """What is read while a command is under way is stored only if it is not older than the command's effect."""
    table.play(
        _scene(table, command), _sends(command), lambda scene, it: it.track(scene.appointment_id, actor="job:poll")
    )


@pytest.mark.parametrize("command", DIFFERENT)
def test_a_command_while_somebody_follows_a_change_of_the_provider(table: Table, command: str) -> None:
    """The same, when the provider has moved the visit just before."""

    def set_scene() -> Scene:
        scene = begin(table.world, command)
        scene.provider(start_time="2031-05-01T08:00:00+00:00")
        return scene

    table.play(set_scene, _sends(command), lambda scene, it: it.track(scene.appointment_id, actor="job:poll"))


@pytest.mark.parametrize("resolution", ["applied", "rejected"])
@pytest.mark.parametrize("command", DIFFERENT)
def test_a_command_while_an_operator_decides(table: Table, command: str, resolution: str) -> None:
    """An operator settles an older command while a new one reads first and is sent."""
    orders = table.play(_in_doubt(table), _sends(command), _resolves(resolution))
    assert all(order.results[1] is None for order in orders)


@pytest.mark.parametrize("command", DIFFERENT[:2])
def test_a_command_while_an_operator_retries(table: Table, command: str) -> None:
    """A retry meets the one-active-command rule like any command; here workers interrupt each other twice at most."""
    table.play(_in_doubt(table), _sends(command), _resolves("retry"), switches=2)


@pytest.mark.parametrize("one", ["applied", "rejected", "retry"])
@pytest.mark.parametrize("other", ["applied", "rejected"])
def test_two_operators(table: Table, one: str, other: str) -> None:
    """Of two operators one decides, the other is told that there is nothing left to decide."""
    for order in table.play(_in_doubt(table), _resolves(one), _resolves(other)):
        assert sum(isinstance(each, LifecycleError) for each in order.results) == 1, order


@pytest.mark.parametrize("when", ["before", "after"])
def test_two_recoveries(table: Table, when: str) -> None:
    """A due read is made by one of them; here workers interrupt each other twice at most."""
    orders = table.play(_lost(table, "confirm", when), _recovers, _recovers, switches=2, reads=1)
    assert len(orders) > 20


def _queued(table: Table, command: str) -> Callable[[], Scene]:
    def set_scene() -> Scene:
        scene = begin(table.world, command)
        scene.command_id = str(scene.submit(table.world.workers[2].product))
        return scene

    return set_scene


def _withdraws(scene: Scene, product: Lifecycle) -> bool:
    return product.submission(scene.command_id).withdraw(actor="user:2")


@pytest.mark.parametrize("command", DIFFERENT)
def test_two_workers_on_one_submitted_command(table: Table, command: str) -> None:
    """One of them takes it, and it is sent once."""
    orders = table.play(_queued(table, command), dispatch, dispatch)
    assert len(orders) >= 6
    assert table.effects() == 1


@pytest.mark.parametrize("command", DIFFERENT)
def test_a_withdrawal_while_a_worker_looks(table: Table, command: str) -> None:
    """Either it is withdrawn and nothing is sent, or whoever withdraws is told that it is too late."""

    def one_or_the_other(order: Order) -> None:
        assert order.results[1] is (table.effects() == 0), order

    orders = table.play(_queued(table, command), dispatch, _withdraws, also=one_or_the_other)
    assert {order.results[1] for order in orders} == {True, False}


@pytest.mark.parametrize("command", DIFFERENT)
def test_a_dispatcher_that_outsleeps_its_lease(table: Table, command: str) -> None:
    """Recovery, and who dispatches after it, take over what was stopped at any step: it acts once all the same.

    Here workers interrupt each other twice at most: recovery alone has some twenty steps.
    """
    orders = table.play(_queued(table, command), dispatch, recover, switches=2)
    assert len(orders) >= 15


@pytest.mark.parametrize("command", DIFFERENT)
def test_a_call_while_a_worker_dispatches(table: Table, command: str) -> None:
    """A call on an appointment for which something is queued is refused until that has ended."""
    for order in table.play(_queued(table, command), dispatch, _sends("cancel")):
        assert isinstance(order.results[1], (Done, TransitionRefused, CommandRejected)), order


@pytest.mark.parametrize("command", DIFFERENT)
def test_two_submit_for_one_appointment(table: Table, command: str) -> None:
    """One of the two is queued, the other one is told what is in its way; with one request key both get one handle."""

    def submits(scene: Scene, product: Lifecycle) -> object:
        return scene.submit(product)

    for order in table.play(_scene(table, command), submits, submits):
        assert len(set(order.results)) == 1, order
    assert table.effects() == 1
    for order in table.play(_scene(table, command), submits, _submits_without_key):
        assert sum(isinstance(each, str) for each in order.results) == 1, order
        assert sum(isinstance(each, CommandInProgress) for each in order.results) == 1, order


def _submits_without_key(scene: Scene, product: Lifecycle) -> object:
    return product.submit("cancel", scene.appointment_id, actor=ACTOR).id


@pytest.mark.parametrize("command", DIFFERENT)
def test_a_worker_while_somebody_follows_zocdoc(table: Table, command: str) -> None:
    """What is read while a command is queued is stored, while it is in the air only if it is not older."""
    table.play(_queued(table, command), dispatch, lambda scene, it: it.track(scene.appointment_id, actor="job:poll"))


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("command", DIFFERENT)
def test_a_worker_while_a_lost_answer_is_recovered(table: Table, command: str, when: str) -> None:
    """An attempt is sent again, once, by whoever looks, if reads have proved that it had no effect; else never."""

    def set_scene() -> Scene:
        scene = _queued(table, command)()
        arm(table.world.stage, kind="reset", operation=OPERATIONS[command], when=when)
        dispatch(scene, table.world.workers[2].product)
        for _ in range(2):
            table.world.clock.skip(LEASE_OVER)
            _recovers(scene, table.world.workers[2].product)
        table.world.clock.skip(LEASE_OVER)
        return scene

    def recovers_and_dispatches(scene: Scene, product: Lifecycle) -> None:
        _recovers(scene, product)
        table.world.clock.skip(LEASE_OVER)
        dispatch(scene, product)

    def once(order: Order) -> None:
        sent = table.whole_story()
        [row] = table.world.rows("SELECT * FROM lifecycle_commands WHERE appointment_id = ?", sent[0].appointment_id)
        assert sum(each.effect for each in sent) <= 1, order
        assert len(sent) == row["attempt"] == (2 if when == "before" and command != "mark_arrived" else 1), order

    table.play(set_scene, recovers_and_dispatches, dispatch, switches=2, also=once)
