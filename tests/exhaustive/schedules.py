"""Two workers on one appointment, by turns: every order in which their steps can follow one another.

A step is what others can see: a transaction, a read of the database outside of one, a call to Zocdoc. Workers are
threads that hand a baton over before each step, so one order is one number, and runs the same again. Labelled points
between which nothing shared happens lie in one step: changing workers there changes nothing.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Self
from unittest import mock

from lifecycle import LifecycleError, points
from lifecycle.points import Point

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from types import TracebackType

    from tests.exhaustive.world import World

STUCK: Final = 60.0
"""Seconds after which a step counts as hung."""


@dataclass(slots=True)
class _Actor:
    go: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    stopped: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    is_done: bool = False
    result: Any = None


class Baton:
    """Lets two threads run by turns, in one order after another."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._local = threading.local()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            # A thread for each actor, kept: what the product builds once for each thread is built once.
            self._threads = [stack.enter_context(ThreadPoolExecutor(1)) for _ in range(2)]
            stack.enter_context(points.armed(self._pass))
            stack.enter_context(mock.patch.object(self._world.trap, "step", self._yield))
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def orders(
        self, set_scene: Callable[[], Sequence[Callable[[], Any]]], switches: int | None = None
    ) -> Iterator[Order]:
        """Run the two functions that a scene gives, in a scene of its own for each order, until all orders were run.

        With `switches`, only orders in which a worker is interrupted so many times at most.
        """
        prefix: list[int] | None = []
        while prefix is not None:
            order = self._run(set_scene(), prefix, switches)
            yield order
            prefix = _next(order)

    def _run(self, works: Sequence[Callable[[], Any]], prefix: list[int], switches: int | None) -> Order:
        actors = [_Actor() for _ in works]
        futures = [
            thread.submit(self._act, actor, work)
            for thread, actor, work in zip(self._threads, actors, works, strict=True)
        ]
        taken: list[str] = []
        choices: list[tuple[int, int]] = []
        last = spent = 0
        while running := [index for index, actor in enumerate(actors) if not actor.is_done]:
            is_free = last not in running or not choices
            if not is_free and switches is not None and spent >= switches:
                running = [last]
            running.sort(key=lambda index: index != last)  # going on comes first
            choice = prefix[len(choices)] if len(choices) < len(prefix) else 0
            spent += running[choice] != last and not is_free
            choices.append((choice, len(running)))
            last = running[choice]
            taken.append("AB"[last])
            actors[last].go.release()
            assert actors[last].stopped.acquire(timeout=STUCK), f"hung in {''.join(taken)}"
        for future in futures:
            future.result()
        return Order("".join(taken), tuple(actor.result for actor in actors), tuple(choices))

    def _act(self, actor: _Actor, work: Callable[[], Any]) -> None:
        self._local.actor = actor
        self._local.is_fresh = True
        actor.go.acquire()
        try:
            actor.result = work()
        except LifecycleError as error:
            actor.result = error
        except Exception as error:  # noqa: BLE001 # what nobody documented is a finding
            actor.result = error
        finally:
            self._local.actor = None
            actor.is_done = True
            actor.stopped.release()

    def _pass(self, point: Point) -> None:
        if point is Point.TOKEN_FETCHED:
            self._yield()

    def _yield(self) -> None:
        """Hand the baton over and wait for it, unless nothing was done yet."""
        actor: _Actor | None = getattr(self._local, "actor", None)
        if actor is None:
            return
        if self._local.is_fresh:
            self._local.is_fresh = False
            return
        actor.stopped.release()
        actor.go.acquire()


@dataclass(frozen=True, slots=True)
class Order:
    """One order that was run: whose step came when, what each worker got, and which choices there were."""

    steps: str
    results: tuple[Any, ...]
    choices: tuple[tuple[int, int], ...]


def _next(order: Order) -> list[int] | None:
    """Give the choices that lead to the next order, None after the last one."""
    choices = list(order.choices)
    while choices:
        taken, options = choices.pop()
        if taken + 1 < options:
            return [each for each, _ in choices] + [taken + 1]
    return None
