"""kill -9 at every labelled point of every command, then at every point of the recovery that follows.

A worker has everything imported and forks a child for each case. A batch is one command on some twenty appointments,
each carried out by a child that kills itself at its own point. What the dead have left is judged against the points
that they had passed; then recoveries are killed in the same way, until one is let through.
"""

from __future__ import annotations

import contextlib
import gc
import itertools
import multiprocessing
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from lifecycle import Lifecycle, LifecycleError
from lifecycle.points import Point, armed
from tests.crashes import evidence, forks, grounds, parts
from tests.crashes.cells import COMMAND_POINTS, DEEP_IN_A_DRIP, RECOVERY_POINTS, WEATHER, Cell, Weather
from tests.crashes.grounds import PostgresGround, SqliteGround
from tests.crashes.parts import AT_ONCE, Orders, Report
from tests.crashes.standin import Standin
from tests.crashes.wishes import ALLOWED, COMMANDS, OPERATIONS, YESTERDAY, send

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from lifecycle import ZocdocClient
    from tests.crashes.grounds import Ground

COMPLETE: Final = 1900
"""From so many kills on, every point of every command must have been hit; below, a run is a sample."""

BATCH: Final = 24
RECOVERIES: Final = 12
"""Recoveries killed for each batch: half as many as commands."""


def run(orders: Orders) -> Report:
    """Kill on SQLite: share the kills out to workers, each with a stand-in and a database of its own."""
    with parts.in_memory(orders) as folder:
        return _share(replace(orders, folder=folder), SqliteGround)


def run_on_postgres(orders: Orders) -> Report:
    """Kill clients of PostgreSQL: a tenth as many, in one worker, since there only the database's part differs."""
    with PostgresGround() as ground:
        return _share(replace(orders, kills=orders.kills // 10, workers=1), lambda _: ground)


def _share(orders: Orders, ground_of: Callable[[Path], Ground]) -> Report:
    forked = multiprocessing.get_context("fork")
    pipes = []
    for number in range(orders.workers):
        ours, theirs = forked.Pipe(duplex=False)
        process = forked.Process(target=_work, args=(orders, number, ground_of, theirs))
        process.start()
        theirs.close()
        pipes.append((ours, process))
    total = Report()
    for ours, process in pipes:
        report: Report = ours.recv()
        process.join()
        total.counts += report.counts
        total.violations += report.violations
    kills = total.counts["kills_of_commands"] + total.counts["kills_of_recoveries"]
    total.figures = {"kills": kills, "kills_per_second": round(kills / (time.monotonic() - total.started), 1)}
    if kills >= COMPLETE:
        total.check("coverage", _uncovered(total))
    return total


def _uncovered(report: Report) -> list[str]:
    wanted = itertools.product(COMMANDS, (("", COMMAND_POINTS), ("recovery of ", RECOVERY_POINTS)))
    cells = [f"{what}{command} at {point}" for command, (what, points) in wanted for point in points]
    return [f"{cell} was never hit" for cell in cells if not report.counts[cell]]


def _work(orders: Orders, number: int, ground_of: Callable[[Path], Ground], pipe: Any) -> None:
    forks.die_with_parent()
    report = Report()
    folder = orders.folder / f"worker-{number}"
    folder.mkdir()
    try:
        with Standin() as standin, standin.client() as client:
            _Worker(report, orders, number, (ground_of(folder), standin, client)).run()
    except BaseException as error:  # noqa: BLE001 # told by the parent
        report.violations.append(f"worker {number} fell: {error!r}")
    pipe.send(report)


class _Worker:
    """One fork server. Between forks it keeps no connection open, neither to the database nor to the stand-in."""

    def __init__(
        self,
        report: Report,
        orders: Orders,
        number: int,
        place: tuple[Ground, Standin, ZocdocClient],
    ) -> None:
        self.report, self.orders, self.number = report, orders, number
        self.ground, self.standin, client = place
        self.log = orders.folder / f"child-{number}.log"
        self.passed = forks.Passed()
        self.product = Lifecycle(self.ground.url, zocdoc=client, timing=AT_ONCE)
        self.sequences: dict[tuple[str, str], list[Point]] = {}
        self.turns = {command: itertools.cycle(RECOVERY_POINTS) for command in COMMANDS}
        self.dice = parts.dice(orders, "kills", number)

    def run(self) -> None:
        """Go through all cells again and again, until there were enough kills or the time is over."""
        self._rehearse()
        share = self.orders.kills / self.orders.workers
        ends = None if self.orders.seconds is None else time.monotonic() + self.orders.seconds
        for turn in itertools.count():
            for batch in self._batches(turn):
                self._batch(batch)
                kills = self.report.counts["kills_of_commands"] + self.report.counts["kills_of_recoveries"]
                if (kills >= share) if ends is None else (time.monotonic() > ends):
                    return

    def _rehearse(self) -> None:
        """Run every command in every weather here, to learn which points it passes.

        What a process learns in its first call, the children that are forked from it need not learn again.
        """
        for command in COMMANDS:
            cells = [Cell(command, "pending_booking", weather, Point.BEFORE_INTENT, 0) for weather in WEATHER]
            for cell, appointment_id in zip(cells, self._prepare(cells), strict=True):
                points: list[Point] = []
                with armed(points.append):
                    self._act(cell, appointment_id)
                self.sequences[command, cell.weather.name] = points
                requests = points.count(Point.REQUEST_SENT)
                self.report.expect(f"rehearsal of {cell}", found=requests, expected=len(cell.weather.sends))
            parts.recover_at_once(self.product, self.ground)
            self.product.close()
        gc.collect()
        gc.freeze()

    def _batches(self, turn: int) -> Iterator[list[Cell]]:
        """Deal this worker's cells: every status in calm weather, one status a turn in any other."""
        batches = []
        for command in COMMANDS:
            statuses = ALLOWED[command]
            cells = [
                cell
                for index, weather in enumerate(WEATHER)
                for status in (statuses if not index else [statuses[(turn + index) % len(statuses)]])
                if weather.tells or command != "mark_arrived"
                for cell in self._cells(command, status, weather)
            ]
            mine = cells[self.number :: self.orders.workers]
            self.dice.shuffle(mine)
            batches += [mine[start : start + BATCH] for start in range(0, len(mine), BATCH)]
        self.dice.shuffle(batches)
        yield from batches

    def _cells(self, command: str, status: str, weather: Weather) -> Iterator[Cell]:
        """Make a cell of each point that the command passes, in order, with the number of the passing."""
        counts: dict[Point, int] = {}
        for point in self.sequences[command, weather.name]:
            nth = counts[point] = counts.get(point, 0) + 1
            if point is not Point.ANSWER_ARRIVING or nth == 1 or nth in DEEP_IN_A_DRIP:
                yield Cell(command, status, weather, point, nth)

    def _prepare(self, batch: list[Cell]) -> list[str]:
        """Track an appointment for each cell in a new database, and arm its weather."""
        self.ground.reset()
        self.standin.forget()
        ids = [self.standin.add(1, status=cell.status, start_time=YESTERDAY)[0] for cell in batch]
        faults = [
            {**cell.weather.fault, "appointment_id": appointment_id, "operation": OPERATIONS[cell.command]}
            for cell, appointment_id in zip(batch, ids, strict=True)
            if cell.weather.fault
        ]
        self.standin.arm(*faults)
        for appointment_id in ids:
            self.product.track(appointment_id, actor="job:crash")
        self.product.close()
        return ids

    def _act(self, cell: Cell, appointment_id: str) -> None:
        """Carry the command out as an integrator's process would; runs in a child."""
        with contextlib.ExitStack() as stack:
            product = self.product
            if cell.weather.cold:
                client = stack.enter_context(self.standin.client())
                product = stack.enter_context(Lifecycle(self.ground.url, zocdoc=client, timing=AT_ONCE))
            try:
                send(product, cell.command, appointment_id, actor="job:crash")
            except LifecycleError:
                if cell.weather.fault is None:
                    raise

    def _batch(self, batch: list[Cell]) -> None:
        cases = list(zip(batch, self._prepare(batch), strict=True))
        expected: dict[str, tuple[Cell, list[Point]]] = {}
        for cell, appointment_id in cases:
            ending = forks.killed_at(
                lambda: self._act(cell, appointment_id),  # noqa: B023 # the child runs at once
                self.passed,
                cell.point,
                cell.nth,
                self.log,
            )
            if ending.killed:
                self.report.counts["kills_of_commands"] += 1
                self.report.counts[f"{cell.command} at {cell.point}"] += 1
            elif cell.point is not Point.ANSWER_ARRIVING:  # how many reads an answer takes is up to the network
                self.report.violations.append(f"{cell}: was not killed: {ending}")
            expected[appointment_id] = (cell, self.passed.points())
        # What a dead process had handed to the system arrives all the same.
        self.standin.quiet()
        self.standin.disarm()
        self._judge_the_dead(expected)
        self._kill_recoveries(batch[0].command)
        self._end(cases)

    def _judge_the_dead(self, expected: dict[str, tuple[Cell, list[Point]]]) -> None:
        """Compare rows and requests, before any recovery, with the points that each child had passed."""
        posts = {each: cell.posts(passed) for each, (cell, passed) in expected.items()}
        seen = evidence.gather(self.ground.raw(), self.standin)
        arrived = self.standin.posts()
        for appointment_id, (cell, passed) in expected.items():
            commits = passed.count(Point.AFTER_COMMIT)
            states = [row["state"] for row in seen.of(appointment_id)]
            self.report.expect(f"{cell}: requests", found=arrived[appointment_id], expected=posts[appointment_id])
            self.report.expect(f"{cell}: intents", found=len(states), expected=min(commits, 1))
            self.report.expect(f"{cell}: {states} is open", found="sending" in states, expected=commits == 1)
        batch = f"after kills of {next(iter(expected.values()))[0].command}"
        self.report.check(batch, evidence.trail_faults(self.ground.raw()) + evidence.intent_faults(seen))
        self.report.check(batch, evidence.doubt_faults(seen))

    def _kill_recoveries(self, command: str) -> None:
        """Kill recovery after recovery; each leaves the trail sound and has sent nothing."""
        posts, events = self.standin.posts(), 0
        for _ in range(RECOVERIES):
            point, nth = next(self.turns[command]), self.dice.choice((1, 1, 2, 3, 5, 8))
            ending = forks.killed_at(self._recover, self.passed, point, nth, self.log)
            story = f"recovery of {command} killed at {point}#{nth}"
            if ending.killed:
                self.report.counts["kills_of_recoveries"] += 1
                self.report.counts[f"recovery of {command} at {point}"] += 1
            self.report.check(story, evidence.trail_faults(self.ground.raw()))
            self.report.expect(f"{story}: sends nothing", found=self.standin.posts(), expected=posts)
            seen = evidence.gather(self.ground.raw(), self.standin)
            self.report.check(story, evidence.doubt_faults(seen))
            if seen.events < events:
                self.report.violations.append(f"{story}: {events} events became {seen.events}")
            events = seen.events
            if not ending.killed:
                self.report.expect(story, found=str(ending), expected="exit code 0")
                if not any(row["state"] in evidence.ACTIVE for row in seen.commands):
                    return

    def _recover(self) -> None:
        parts.recover_at_once(self.product, self.ground)

    def _end(self, cases: list[tuple[Cell, str]]) -> None:
        """Let one recovery through, judge, and see that the appointments live: what was not sent can be sent."""
        command = cases[0][0].command
        parts.end(self.report, f"after recovery of {command}", self.product, self.ground, self.standin)
        reads = sum(entry.method == "GET" for entry in self.standin.calls())
        self.report.expect("no storm of reads", found=reads <= (RECOVERIES + 6) * len(cases), expected=True)
        query = "SELECT appointment_id FROM lifecycle_commands WHERE state = 'not_sent'"
        for row in grounds.rows(self.ground.raw(), query)[:1]:
            done = send(self.product, command, row["appointment_id"], actor="job:again")
            self.report.expect("called again", found=done.command, expected=command)
            self.report.check("called again", evidence.end_faults(self.ground.raw(), self.standin))
        for row in grounds.rows(
            self.ground.raw(), "SELECT state, count(*) AS n FROM lifecycle_commands GROUP BY state"
        ):
            self.report.counts[f"ended {row['state']}"] += row["n"]
        self.product.close()
