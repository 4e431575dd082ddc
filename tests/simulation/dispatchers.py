"""Simulated processes that submit commands, take them back, and dispatch them: the product's own, without threads."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from lifecycle import claiming
from tests import inthread

if TYPE_CHECKING:
    from datetime import datetime

    from lifecycle import Lifecycle
    from lifecycle.decisions import Order
    from lifecycle.resources import Resources
    from tests.simulation.callers import Task
    from tests.simulation.world import World

TAKEN_AT_ONCE = (1, 1, 1, 2, 5)
"""Commands that a worker takes in one look; what comes last in a handful may wait for too long to be sent."""

LOOKS_AT_MOST = 3


class RolledBackError(Exception):
    """The caller of a submit has rolled its own transaction back."""

    def __init__(self, command_id: str) -> None:
        super().__init__(command_id)
        self.command_id = command_id


class Queue:
    """What is done in a world with what was submitted."""

    def __init__(self, world: World, resources: Resources, lifecycle: Lifecycle) -> None:
        self._world, self._resources, self._lifecycle = world, resources, lifecycle
        lifecycle._engine = inthread.Idle()

    def act(self, task: Task) -> object:
        """Carry out a task."""
        match task.kind:
            case "submit":
                return self._submit(task)
            case "submit_many":
                rows = [dict(row) for row in task.rows]
                return self._lifecycle.submit_many(rows, actor=task.actor, batch_id=task.batch_id)
            case "withdraw":
                return Answer(self._lifecycle.submission(task.command_id).withdraw(actor=task.actor))
            case "result":
                return self._lifecycle.submission(task.command_id).result()
            case "cancel_batch":
                return Answer(self._lifecycle.batch(task.batch_id).cancel(actor=task.actor))
            case _:
                self._dispatch()
                return None

    def drain(self) -> datetime | None:
        """Dispatch what is due, one command at a time, and tell when the next one is due."""
        while self._look(1):
            pass
        return claiming.next_due(self._resources)

    def _submit(self, task: Task) -> object:
        expires_at = None
        if task.expires_in is not None:
            expires_at = self._world.clock.now() + timedelta(seconds=task.expires_in)
        facts = {"actor": task.actor, "request_key": task.key, "expires_at": expires_at, **dict(task.arguments)}
        if not task.transaction:
            return self._lifecycle.submit(task.command, task.appointment_id, **facts)  # type: ignore[arg-type]
        with self._resources.database.write() as connection:
            made = self._lifecycle.submit(task.command, task.appointment_id, session=connection, **facts)  # type: ignore[arg-type]
            if task.transaction == "rolled back":
                raise RolledBackError(made.id)
        return made

    def _dispatch(self) -> None:
        rng = self._world.rng
        for _ in range(rng.randint(1, LOOKS_AT_MOST)):
            if not self._look(rng.choice(TAKEN_AT_ONCE)):
                return

    def _look(self, most: int) -> int:
        return _Sender(self._world, self._resources).look(most)


class Answer:
    """What a call told that gives a number or a truth."""

    def __init__(self, value: int) -> None:
        self.answer = value


class _Sender(inthread.Sender):
    """The product's dispatcher of one process; it tells the world what it is about to send."""

    def __init__(self, world: World, resources: Resources) -> None:
        super().__init__(resources)
        self._world = world

    def _send(self, order: Order) -> None:
        with self._world.sending(order.claim.command):
            super()._send(order)
