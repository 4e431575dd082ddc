"""Many worlds, in one or several processes: each from its own seed, checked, summed up; a failing one made small."""

from __future__ import annotations

import gc
import hashlib
import multiprocessing
import multiprocessing.util
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Any

from tests.simulation import checker, faults
from tests.simulation.site import Site
from tests.simulation.world import World

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tests.simulation.evidence import Evidence

WORLD = 500
"""Commands of one world: enough that stories overlap, few enough that a failing one can be read."""

Cell = tuple[str, str, str]


@dataclass(slots=True)
class Result:
    """What one world came to. `log` is empty unless asked for; `story` unless it failed."""

    seed: int
    commands: int
    asked: int
    digest: str
    counts: dict[str, Counter[str]]
    cells: Counter[Cell]
    violations: list[str]
    log: list[str] = field(default_factory=list)
    story: list[str] = field(default_factory=list)


def seeds(seed: int) -> Iterator[int]:
    """Derive the worlds' seeds from one."""
    rng = Random(seed)  # noqa: S311 # a simulation, no secret
    while True:
        yield rng.getrandbits(48)


def plan(commands: int, seed: int) -> list[tuple[int, int]]:
    """Split so many commands into worlds: (seed, commands) of each."""
    sizes = [WORLD] * (commands // WORLD) + ([commands % WORLD] if commands % WORLD else [])
    return list(zip(seeds(seed), sizes, strict=False))


def run(commands: int, seed: int, *, processes: int = 1, keep_log: bool = False) -> Iterator[Result]:
    """Live through all worlds, in the order of the plan whatever the number of processes."""
    worlds = plan(commands, seed)
    if processes == 1:
        with closing(Site()) as own:
            for world_seed, size in worlds:
                yield live(own, world_seed, size, keep_log=keep_log)
        return
    with pool(processes) as workers:
        yield from workers.map(partial(_live_here, keep_log=keep_log), worlds)


@contextmanager
def pool(processes: int) -> Iterator[ProcessPoolExecutor]:
    """Start processes, each with a place for worlds of its own; they are gone, and their places, after the block.

    A process that is killed from outside ends everything with `BrokenProcessPool`.
    """
    spawned = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=spawned, initializer=_begin) as workers:
        yield workers


def place() -> Site:
    """Give the place of this process, if it is one of a pool."""
    return _places[0]


def live(site: Site, seed: int, commands: int, *, keep_log: bool = False) -> Result:
    """Live through one world and judge it; if it fails, find a smaller one that fails too and tell its story."""
    result, _ = _judged(site, seed, commands, keep_log=keep_log)
    if result.violations:
        result.story = _story(site, seed, commands)
    return result


def summary(results: Iterable[Result], began: float) -> dict[str, Any]:
    """Sum up for a reader of JSON."""
    total: dict[str, Counter[str]] = {}
    cells: Counter[Cell] = Counter()
    digest, worlds, commands, asked = hashlib.sha256(), 0, 0, 0
    violations: list[dict[str, Any]] = []
    for result in results:
        worlds, commands, asked = worlds + 1, commands + result.commands, asked + result.asked
        digest.update(result.digest.encode())
        cells.update(result.cells)
        for name, counts in result.counts.items():
            total.setdefault(name, Counter()).update(counts)
        if result.violations:
            violations.append({"seed": result.seed, "violations": result.violations[:5], "story": result.story})
    missing = sorted(faults.legal_cells() - cells.keys())
    return {
        "commands": commands,
        "asked": asked,
        "worlds": worlds,
        **{name: dict(counts.most_common()) for name, counts in total.items()},
        "cells": {"legal": len(faults.legal_cells()), "missing": missing},
        "violations": violations,
        "log_hash": digest.hexdigest(),
        "seconds": round(time.monotonic() - began, 1),
    }


def _judged(site: Site, seed: int, commands: int, *, keep_log: bool = False) -> tuple[Result, Evidence]:
    found = World(site, seed=seed, commands=commands, rates=faults.Rates()).run()
    verdict = checker.check(found)
    log = [repr(entry) for entry in found.log] + [event["hash"] for event in found.events]
    digest = hashlib.sha256("\n".join(log).encode()).hexdigest()
    counts = {
        "faults": Counter[str](),
        "states": Counter(row["state"] for row in found.commands.values()),
        "told": Counter(call.result for call in found.calls if call.kind == "command"),
        "queue": _queue(found),
        "deliveries": Counter(row["state"] for row in found.deliveries.values()),
        "door": Counter(call.result for call in found.calls if call.kind == "deliver"),
        "apart": Counter(
            late_zombies_flagged=verdict.zombies_flagged,
            late_zombies_invisible=verdict.zombies_invisible,
            undone_unseen=verdict.undone,
        ),
        "calls": Counter(requests=len(found.remote.requests), reads=len(found.remote.reads)),
    }
    for (fault, _, _), hits in found.cells.items():
        counts["faults"][fault] += hits
    asked = sum(call.rows or call.kind in {"command", "submit"} for call in found.calls)
    result = Result(seed, len(found.commands), asked, digest, counts, found.cells, verdict.violations)
    result.log = log if keep_log else []
    return result, found


def _queue(found: Evidence) -> Counter[str]:
    """Count what happened to what was submitted: how it came, and what was sent again."""
    kinds = ("submit", "submit_many", "withdraw", "cancel_batch", "dispatch")
    counts = Counter(call.kind for call in found.calls if call.kind in kinds)
    counts["in_batches"] = sum(row["batch_id"] is not None for row in found.commands.values())
    counts["submitted"] = sum(row["queued_at"] is not None for row in found.commands.values())
    for kind in ("command_requeued", "command_resent"):
        counts[kind] = sum(event["event"] == kind for event in found.events)
    return counts


def _story(site: Site, seed: int, commands: int) -> list[str]:
    """Halve the world for as long as it fails, then tell what happened to the appointment concerned."""
    least, result, found = commands, *_judged(site, seed, commands)
    for size in (commands // part for part in (16, 8, 4, 2) if commands // part):
        smaller, evidence = _judged(site, seed, size)
        if smaller.violations:
            least, result, found = size, smaller, evidence
            break
    violation = result.violations[0]
    appointment_id = violation.partition(":")[0].partition("/")[0]
    lines = [f"seed {seed}, {least} commands: {violation}"]
    lines += [
        f"{at:10.3f} {who:<22} {what:<18} {facts}"
        for at, who, about, what, facts in found.log
        if about == appointment_id
    ]
    lines += [
        f"{event['at']:10.3f} event {event['appointment_seq']:<3} {event['event']:<22} {event['command']} "
        f"{event['from_status']}->{event['to_status']} {event['outcome']} {event['reason_code']} {event['actor']} "
        f"{event['command_id']}"
        for event in found.events
        if event["appointment_id"] == appointment_id
    ]
    return lines


_places: list[Site] = []


def _begin() -> None:
    """Make this process's place once, to be removed when the process ends."""
    _places.append(Site())
    # Worlds are large and live long: at its usual pace the collector walks them over and over, a tenth of the time.
    gc.freeze()
    gc.set_threshold(200_000, 10, 10)
    multiprocessing.util.Finalize(None, _places[0].close, exitpriority=10)


def _live_here(world: tuple[int, int], *, keep_log: bool) -> Result:
    return live(_places[0], *world, keep_log=keep_log)
