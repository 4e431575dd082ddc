"""The world's own time and ids at the places where the product asks the system for them."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any
from unittest import mock
from uuid import UUID

from lifecycle import (
    attempts,
    chart,
    commands,
    dispatching,
    enqueuing,
    inbox,
    recovery,
    resources,
    sending,
    submissions,
    zocdoc,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.simulation.world import World


class Time:
    """Stands in for the module `time`."""

    def __init__(self, world: World) -> None:
        self.monotonic = world.clock.monotonic
        self.time = lambda: world.clock.now().timestamp()
        self.sleep = world.pause


class Ids:
    """Stands in for `uuid` and `secrets`."""

    def __init__(self, world: World) -> None:
        self._rng = world.rng

    def uuid4(self) -> UUID:
        """Draw an id."""
        return UUID(int=self._rng.getrandbits(128), version=4)

    def token_hex(self, size: int) -> str:
        """Draw a key."""
        return self._rng.randbytes(size).hex()


@contextmanager
def applied(world: World) -> Iterator[None]:
    """Let the product live in the world until the block ends."""
    time, ids = Time(world), Ids(world)
    places: list[tuple[Any, str, Any]] = [
        (attempts, "time", time),
        (dispatching, "time", time),
        (inbox, "time", time),
        (recovery, "time", time),
        (sending, "time", time),
        (commands, "uuid", ids),
        (submissions, "uuid", ids),
        # Small, so that batches end between chunks, and in the middle of one.
        (enqueuing, "_CHUNK", 3),
        (resources, "secrets", ids),
        (zocdoc, "clock", world.clock.monotonic),
        # A pure function of three words; remembering its answers makes a world a tenth faster.
        (chart, "move", cache(chart.move)),
    ]
    with ExitStack() as stack:
        for module, name, own in places:
            stack.enter_context(mock.patch.object(module, name, own))
        yield
