"""Planted bugs: ways to get it wrong, each switched on by patching the product, each to be caught.

A checker that misses one of them is blind to it.
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from unittest import mock

from tests.simulation import checker, faults
from tests.simulation.world import World

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.simulation.evidence import Evidence
    from tests.simulation.site import Site

Patch = tuple[Any, str, Any]

SIZES = (10, 20, 40, 80)
"""Commands of the first worlds, then always the last: small ones first, so that the count of what it took is sharp."""

AT_MOST = 20_000


@dataclass(frozen=True, slots=True)
class Plant:
    """A deliberate defect: what it is, and how the product is patched for it."""

    name: str
    what: str
    patches: Callable[[], list[Patch]]
    tamper: str = ""
    rates: faults.Rates = field(default_factory=faults.Rates)


@dataclass(frozen=True, slots=True)
class Catch:
    """How a plant was caught: after so many accepted commands, in which world, by which violation (None: not)."""

    name: str
    commands: int
    world: int
    violation: str | None


def hunt(place: Site, plant: Plant, *, at_most: int = AT_MOST) -> Catch:
    """Run world after world with the plant until the checker finds something."""
    number = total = 0
    place.tamper = plant.tamper
    try:
        while total < at_most:
            number += 1
            with planted(plant):
                found = world(place, number, plant.rates)
            total += len(found.commands)
            verdict = checker.check(found)
            if verdict.violations:
                return Catch(plant.name, total, number, verdict.violations[0])
    finally:
        place.tamper = ""
    return Catch(plant.name, total, number, None)


def world(place: Site, number: int, rates: faults.Rates) -> Evidence:
    """Live through one world of the suite."""
    return World(place, seed=number, commands=SIZES[min(number, len(SIZES)) - 1], rates=rates).run()


@contextmanager
def planted(plant: Plant) -> Iterator[None]:
    """Switch a plant on until the block ends."""
    with ExitStack() as stack:
        for module, name, own in plant.patches():
            stack.enter_context(mock.patch.object(module, name, own))
        yield
