"""Many cells, in one process or several: all single faults, and as many pairs as are wanted."""

from __future__ import annotations

import multiprocessing
import random
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from lifecycle.points import Point
from tests.exhaustive.faults import AtPoint, Remote
from tests.exhaustive.running import Cell, Runner, seconds, single_cells
from tests.exhaustive.world import World, passed

if TYPE_CHECKING:
    from collections.abc import Iterable

MEMORY: Final = Path("/dev/shm")  # noqa: S108 # files in memory, where the system has them: no test here needs a disk
SECONDS_FOR_EACH_FIRST: Final = 6
"""Second faults drawn for each first one when only a sample is wanted."""

FOUND_AT_MOST: Final = 20
"""Violations told in full; the first ones say what the rest would."""


@dataclass(slots=True)
class Figures:
    """What was done and found. `missed` are legal cells whose fault never struck: then nothing was shown by them."""

    legal: int = 0
    hit: int = 0
    pairs_legal: int = 0
    pairs: int = 0
    pairs_hit: int = 0
    seconds: float = 0.0
    points: list[str] = field(default_factory=list)
    missed: list[str] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)

    @property
    def is_clean(self) -> bool:
        """Tell whether every cell struck and nothing was violated."""
        return not self.missed and not self.violations

    def add(self, other: Figures) -> None:
        """Take another process's figures in; they ran side by side."""
        for name, value in asdict(other).items():
            mine = getattr(self, name)
            setattr(self, name, max(mine, value) if name == "seconds" else mine + value)
        self.points = sorted(set(self.points))


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One process's share. `pairs`: how many to draw, None for all of them; `singles`: whether to run those."""

    share: int
    shares: int
    seed: int
    singles: bool
    pairs: int | None


def run(*, singles: bool, pairs: int | None, seed: int, processes: int) -> Figures:
    """Run cells in so many processes and add their figures up."""
    tasks = [
        Task(share=share, shares=processes, seed=seed, singles=singles, pairs=None if pairs is None else each)
        for share, each in enumerate(_split(pairs or 0, processes))
    ]
    total = Figures()
    if processes == 1:
        total.add(carry_out(tasks[0]))
        return total
    with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as pool:
        for figures in pool.map(carry_out, tasks):
            total.add(figures)
    return total


def carry_out(task: Task) -> Figures:
    """Run one process's share."""
    begun, figures = time.monotonic(), Figures()
    with in_memory() as folder, World(Path(folder)) as world:
        runner = Runner(world)
        legal = [cell for _, cells in single_cells(runner) for cell in cells]
        if task.singles:
            _run_singles(runner, legal[task.share :: task.shares], figures)
        if task.pairs != 0:
            _run_pairs(runner, legal, task, figures)
    figures.seconds = time.monotonic() - begun
    return figures


def replay(label: str) -> Figures:
    """Run the one cell that a report names."""
    figures = Figures()
    with in_memory() as folder, World(Path(folder)) as world:
        _note(Runner(world), parse(label), figures)
    return figures


def in_memory() -> tempfile.TemporaryDirectory[str]:
    """Make a folder for databases, in memory if that can be had."""
    return tempfile.TemporaryDirectory(prefix="lifecycle-cells-", dir=MEMORY if MEMORY.is_dir() else None)


def parse(label: str) -> Cell:
    """Read a cell back from its text."""
    where, _, rest = label.partition(": ")
    story, _, command = where.partition("/")
    first, _, second = rest.partition(" then ")
    return Cell(story, command, _fault(first), _at_point(second) if second else None)


def _fault(text: str) -> AtPoint | Remote | None:
    if text == "nothing":
        return None
    return _at_point(text) if "@" in text else Remote(text)


def _at_point(text: str) -> AtPoint:
    action, _, where = text.partition("@")
    point, _, nth = where.partition("#")
    return AtPoint(action, point, int(nth))


def _run_singles(runner: Runner, cells: list[Cell], figures: Figures) -> None:
    seen: set[str] = set()
    for cell in cells:
        figures.legal += 1
        figures.hit += _note(runner, cell, figures, seen)
    figures.points = sorted(seen)


def _run_pairs(runner: Runner, legal: list[Cell], task: Task, figures: Figures) -> None:
    # Recovery does not care which story left the command behind, so the first fault is one of the plain stories.
    firsts = [cell for cell in legal if cell.story in {"send", "dispatch"}][task.share :: task.shares]
    draw = random.Random(f"{task.seed}/{task.share}")  # noqa: S311 # repeatable is the point
    if task.pairs is None:
        _run_all(runner, (pair for first in firsts for pair in _pairs_of(runner, first, figures)), figures)
    elif task.pairs <= len(firsts) * SECONDS_FOR_EACH_FIRST:
        draw.shuffle(firsts)
        _run_drawn(runner, firsts, task.pairs, draw, figures)
    else:
        every = [pair for first in firsts for pair in _pairs_of(runner, first, figures)]
        _run_all(runner, draw.sample(every, min(task.pairs, len(every))), figures)


def _run_drawn(runner: Runner, firsts: list[Cell], count: int, draw: random.Random, figures: Figures) -> None:
    for first in firsts:
        if figures.pairs == count:
            return
        pairs = _pairs_of(runner, first, figures)
        left = min(len(pairs), SECONDS_FOR_EACH_FIRST, count - figures.pairs)
        _run_all(runner, draw.sample(pairs, left), figures)


def _run_all(runner: Runner, pairs: Iterable[Cell], figures: Figures) -> None:
    for pair in pairs:
        figures.pairs += 1
        figures.pairs_hit += _note(runner, pair, figures)


def _pairs_of(runner: Runner, first: Cell, figures: Figures) -> list[Cell]:
    """Run the first fault alone and see what recovery passes after it: those points are where the second may strike."""
    result = runner.run(first)
    leaves_work = any(point == "read_claimed" for _, point, _ in passed(result.mending))
    pairs = [Cell(first.story, first.command, first.fault, each) for each in seconds(result)] if leaves_work else []
    figures.pairs_legal += len(pairs)
    return pairs


def _note(runner: Runner, cell: Cell, figures: Figures, seen: set[str] | None = None) -> bool:
    result = runner.run(cell)
    if seen is not None:
        seen |= {point for _, point, _ in passed(result.way + result.mending)}
    if not result.was_hit:
        figures.missed.append(str(cell))
    if result.problems and len(figures.violations) < FOUND_AT_MOST:
        figures.violations.append(f"{cell}: {'; '.join(result.problems)}")
    return result.was_hit


def unreached(figures: Figures) -> set[str]:
    """Name the labelled points of commands and their recovery that no single cell passed."""
    return {str(point) for point in Point if not point.startswith("delivery_")} - set(figures.points)


def _split(count: int, shares: int) -> list[int]:
    return [count // shares + (share < count % shares) for share in range(shares)]
