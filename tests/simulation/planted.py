"""All planted bugs. A name says what is wrong; `what` says it in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.simulation import checker, planting, plants_deliveries, plants_queue, plants_records, plants_stories, running

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.simulation import faults

PLANTS = plants_stories.PLANTS + plants_records.PLANTS + plants_deliveries.PLANTS + plants_queue.PLANTS


def hunt_all(*, processes: int) -> list[planting.Catch]:
    """Hunt for every planted bug, several at the same time."""
    with running.pool(processes) as pool:
        return list(pool.map(_hunt, [plant.name for plant in PLANTS]))


def violations_without(catches: Iterable[planting.Catch], *, processes: int) -> list[str]:
    """Live through the worlds of the catches with the product as it is, and give what the checker finds."""
    rates = {plant.name: plant.rates for plant in PLANTS}
    worlds = {(catch.world, rates[catch.name]) for catch in catches}
    with running.pool(processes) as pool:
        found = list(pool.map(_unpatched, sorted(worlds, key=repr)))
    return [violation for violations in found for violation in violations]


def table(catches: Iterable[planting.Catch]) -> str:
    """Write what was caught, after how many commands, and by what."""
    what = {plant.name: plant.what for plant in PLANTS}
    lines = [f"{catch.commands:>7}  {catch.name:<26} {what[catch.name]}: {catch.violation}" for catch in catches]
    return "\n".join(sorted(lines))


def _hunt(name: str) -> planting.Catch:
    return planting.hunt(running.place(), next(plant for plant in PLANTS if plant.name == name))


def _unpatched(world: tuple[int, faults.Rates]) -> list[str]:
    number, rates = world
    found = checker.check(planting.world(running.place(), number, rates)).violations
    return [f"world {number}, {rates}: {violation}" for violation in found]
