"""The story of a cell: set the scene, let the fault strike, recover, perhaps with a second fault, and check."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from lifecycle import LifecycleError
from lifecycle.points import Point
from tests.exhaustive import checks
from tests.exhaustive.faults import DATABASE_FAULTS, NEEDS, PROVIDER, READS, REMOTE, AtPoint, Fault, Recipe, Remote
from tests.exhaustive.stories import STORIES, Scene, begin, recover
from tests.exhaustive.world import Crash, passed
from tests.support import ACTOR, OPERATIONS, arm

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lifecycle import ZocdocClient
    from lifecycle.sandbox import Entry
    from tests.exhaustive.world import Worker, World

DIFFERENT: Final = ("confirm", "reschedule", "mark_arrived")
"""A command that shows by its status, one that shows by its start, one that shows by nothing."""

TRIES: Final = 3
"""For a cell with a hasty client, which gives up before its request has left if the machine stands still just then."""

ARRIVES_WITHIN: Final = 60.0
"""Seconds after which a request that has left is taken to be lost."""

RENEW_AFTER: Final = 60
"""Cells for each database: a new one is dear, a long one makes the trail's checks slow."""


@dataclass(frozen=True, slots=True)
class Cell:
    """A command in a story, a fault, and perhaps another one while recovery mends the first."""

    story: str
    command: str
    fault: Fault | None = None
    second: AtPoint | None = None

    def __str__(self) -> str:
        then = f" then {self.second}" if self.second else ""
        return f"{self.story}/{self.command}: {self.fault or 'nothing'}{then}"


@dataclass(slots=True)
class Result:
    """How a cell went. `way` is what was passed in the act, `mending` what recovery passed after it."""

    cell: Cell
    was_hit: bool
    problems: list[str]
    way: list[str] = field(default_factory=list)
    mending: list[str] = field(default_factory=list)
    zombies: int = 0


class Runner:
    """Runs cells in one world."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._runs = 0
        self._warm_up()

    def run(self, cell: Cell) -> Result:
        """Run a cell in a scene of its own and check what came of it."""
        for _ in range(TRIES):
            result = self._run(cell)
            if result.was_hit or result.problems or not _is_hasty(cell.fault):
                break
        return result

    def _run(self, cell: Cell) -> Result:
        self._runs += 1
        if self._runs % RENEW_AFTER == 0:
            self._world.renew()
            self._warm_up()
        self._at_ease()
        story = STORIES[cell.story]
        scene = begin(self._world, cell.command, is_tracked=not cell.story.startswith("track_first"))
        story.prepare(scene)
        seen = checks.Evidence(scene, is_sending=cell.story.startswith("send"), is_queued=story.is_queued)
        seen.since = len(self._world.stage.ledger.entries())
        hit, way = self._act(cell, seen)
        second, mending = self._mend(cell, seen)
        late = self._world.stage.buried
        return Result(cell, hit and second, self._judge(seen), way, mending, late)

    def _act(self, cell: Cell, seen: checks.Evidence) -> tuple[bool, list[str]]:
        world, worker, scene = self._world, self._world.workers[0], seen.scene
        story, fault = STORIES[cell.story], cell.fault
        recipe = REMOTE[fault.name] if isinstance(fault, Remote) else Recipe(client=story.client)
        seen.has_lied = isinstance(fault, Remote) and fault.name == "unknown_status"
        worker.use(self._client(recipe.client))
        before = world.stage.faults.pending
        self._serve(recipe, OPERATIONS[cell.command])
        world.trap.set(*self._trap(fault, worker, scene, seen))
        seen.heard = _heard(lambda: story.act(scene, worker.product))
        way, sprung = world.trap.events, world.trap.sprung
        self._let_arrive(seen.since)
        hit = sprung if isinstance(fault, AtPoint) else self._was_served(recipe, before)
        seen.until = len(world.stage.ledger.entries())
        if isinstance(fault, AtPoint) and fault.action in DATABASE_FAULTS:
            hit = worker.line.struck > 0
        self._at_ease()
        return hit, way

    def _mend(self, cell: Cell, seen: checks.Evidence) -> tuple[bool, list[str]]:
        world, scene, worker = self._world, seen.scene, self._world.workers[1]
        second = cell.second
        recipe = (
            READS[second.action.removeprefix("read:")] if second and second.action.startswith("read:") else Recipe()
        )
        worker.use(self._client(recipe.client if recipe.client == "hasty" else "main"))
        world.trap.set(*self._trap(second, worker, scene, seen))
        before = len(world.stage.ledger.entries())
        heard = _heard(lambda: recover(scene, worker.product))
        self._let_arrive(before)
        mending, sprung, struck = world.trap.events, world.trap.sprung, worker.line.struck
        self._at_ease()
        if not checks.documented(heard):
            seen.problems.append(f"recovery: {heard!r}")
        last = _heard(lambda: recover(scene, world.workers[2].product))
        if last is not None:
            seen.problems.append(f"the last recovery: {last!r}")
        if second is not None and second.action in DATABASE_FAULTS:
            return struck > 0, mending
        return second is None or sprung, mending

    def _judge(self, seen: checks.Evidence) -> list[str]:
        world, scene = self._world, seen.scene
        product = world.workers[2].product
        found = seen.problems
        if not checks.documented(seen.heard):
            found.append(f"raised {seen.heard!r}")
        found += checks.after_recovery(seen)
        world.stage.release()
        if scene.provider_acted:
            world.stage.change(scene.appointment_id, booked_by="machine")
        if seen.is_sending and not any(each.late for each in seen.entries()):
            rows = world.rows("SELECT * FROM lifecycle_commands WHERE appointment_id = ?", scene.appointment_id)
            posts = len(seen.posts())
            seen.repeated = _heard(lambda: scene.send(product))
            found += checks.on_repeating(seen, rows, posts)
        last = _heard(lambda: product.track(scene.appointment_id, actor=ACTOR))
        if isinstance(last, BaseException):
            found.append(f"the last read: {last!r}")
        return found + checks.at_rest(seen)

    def _trap(
        self, fault: Fault | None, worker: Worker, scene: Scene, seen: checks.Evidence
    ) -> tuple[tuple[str, int] | None, Callable[[], None] | None]:
        if not isinstance(fault, AtPoint):
            return None, None
        kind, _, name = fault.action.partition(":")

        def cut() -> None:
            worker.line.failure = kind

        def provider() -> None:
            scene.provider(**PROVIDER[name])

        def read() -> None:
            recipe = READS[name]
            seen.has_lied = seen.has_lied or name == "unknown_status"
            if recipe.client in {"refused", "cold"}:
                worker.use(self._client(recipe.client))
            self._serve(recipe, "get")

        actions = {
            "crash": self._world.trap.crash,
            "zombie": self._world.stage.release,
            "provider": provider,
            "read": read,
            **dict.fromkeys(DATABASE_FAULTS, cut),
        }
        return (fault.point, fault.nth), actions[kind]

    def _serve(self, recipe: Recipe, operation: str) -> None:
        for each in recipe.arm:
            arm(self._world.stage, operation=recipe.operation or operation, **each)

    def _was_served(self, recipe: Recipe, before: int) -> bool:
        """Tell whether the stand-in has used the faults up, at least once."""
        armed: int = sum(each.get("times", 1) for each in recipe.arm)
        return armed == 0 or self._world.stage.faults.pending < before + armed

    def _let_arrive(self, since: int) -> None:
        """Wait until the stand-in has read and carried out all that has left, also for callers that have gone."""
        world = self._world
        left = sum(point == Point.REQUEST_SENT for _, point, _ in passed(world.trap.events))
        end = time.monotonic() + ARRIVES_WITHIN
        while len(self._arrived(since)) < left and time.monotonic() < end:
            time.sleep(0.005)

    def _arrived(self, since: int) -> list[Entry]:
        return [each for each in self._world.stage.ledger.entries()[since:] if not each.late]

    def _client(self, name: str) -> ZocdocClient:
        if name == "cold":
            return self._world.client()
        client: ZocdocClient = getattr(self._world, name)
        return client

    def _at_ease(self) -> None:
        """Take back every trap, cut and fault, and the pause that a 429 imposes."""
        self._world.trap.set(None, None)
        self._world.stage.faults.clear()
        for worker in self._world.workers:
            worker.line.failure, worker.line.struck = None, 0
            worker.use(self._world.main)
        self._world.clock.skip(10.0)

    def _warm_up(self) -> None:
        """Let every worker pass what only its first call passes, and every client get its token."""
        for name in ("main", "hasty", "refused"):
            for worker in self._world.workers:
                worker.use(self._client(name))
                _heard(lambda it=worker: it.product.track(self._world.stage.add(), actor=ACTOR))  # type: ignore[misc]
        for worker in self._world.workers:
            worker.use(self._world.main)
            begin(self._world, "confirm").send(worker.product)


def single_cells(runner: Runner) -> Iterator[tuple[Cell, list[Cell]]]:
    """Walk each story once without a fault, and give with it the cells that its way makes legal."""
    for name, story in STORIES.items():
        for command in story.commands:
            calm = Cell(name, command)
            result = runner.run(calm)
            if result.problems:
                raise AssertionError(f"{calm}: {result.problems}")
            cells = [Cell(name, command, fault) for fault in at_points(result.way)]
            if name == "send" or (name == "dispatch" and command in DIFFERENT):
                cells += [Cell(name, command, Remote(each)) for each in REMOTE]
            yield calm, cells


def at_points(way: list[str]) -> list[AtPoint]:
    """Give what may be done at the points of a way: a crash at each, a cut where the database is used after it.

    Cuts at several points that strike the same statement, or the same COMMIT, are one cell, named for the last point.
    """
    points = list(passed(way))
    found = [AtPoint("crash", point, nth) for _, point, nth in points]
    struck: dict[tuple[str, int], AtPoint] = {}
    for index, point, nth in points:
        for kind in DATABASE_FAULTS:
            if NEEDS[kind] in way[index:]:
                struck[kind, way.index(NEEDS[kind], index)] = AtPoint(kind, point, nth)
    return found + list(struck.values())


def seconds(result: Result) -> list[AtPoint]:
    """Give what may go wrong while this result's leftovers are mended, by the way that recovery took."""
    found = at_points(result.mending)
    for _, point, nth in passed(result.mending):
        if point == "read_claimed":
            found += [AtPoint(f"read:{name}", point, nth) for name in READS]
        if point in {"read_claimed", "read_returned"}:
            found += [AtPoint(f"provider:{name}", point, nth) for name in PROVIDER]
        if point in {"read_claimed", "read_returned", "settlement_committed"} and result.zombies:
            found.append(AtPoint("zombie", point, nth))
    return found


def _is_hasty(fault: Fault | None) -> bool:
    return isinstance(fault, Remote) and REMOTE[fault.name].client == "hasty"


def _heard(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except (LifecycleError, Crash) as heard:
        return heard
    except Exception as heard:  # noqa: BLE001 # what nobody documented is a finding, not the end of the run
        return heard
