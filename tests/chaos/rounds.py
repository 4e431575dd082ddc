"""What is done to the workers in the middle of a batch. Each round gives its figures and what was wrong."""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from tests import support
from tests.chaos import judging
from tests.chaos.scene import Scene
from tests.crashes import grounds

if TYPE_CHECKING:
    from tests.chaos.judging import Verdict
    from tests.crashes.grounds import PostgresGround

PATIENCE: Final = 300.0
"""Seconds after which a batch that has not ended is judged as it stands."""

STORM: Final = 8
"""Kills, if the batch lasts so long."""

BETWEEN_KILLS: Final = (1.0, 5.0)
"""Seconds; a worker takes one or two to begin, and recovers what others left after seven."""

FROZEN: Final = (15.0, 18.0)
"""Seconds; the lease is 6.5, and the reads that prove no effect take some more."""

WAKING: Final = 3.0
"""Seconds in which a worker that goes on could send what it had claimed before."""

LONGEST_OUTAGE: Final = 8.0
"""Seconds; beyond about four an answer that came meanwhile is given up, and what it said is found by reading."""

_UNSETTLED: Final = (
    "SELECT state, count(*) AS n FROM lifecycle_commands WHERE state IN ('sending', 'uncertain') GROUP BY 1"
)
_TABLES: Final = "SELECT count(*) AS n FROM pg_tables WHERE tablename LIKE 'procrastinate\\_%'"


@dataclass
class Round:
    """What one round came to; `seconds` is what it measures.

    One that `came_too_late` shows nothing: the batch had ended, or whoever was killed had nothing in hand, because the
    machine stood still at the wrong moment.
    """

    verdict: Verdict
    seconds: float
    faults: list[str]
    came_too_late: bool = False
    load: float = field(default_factory=lambda: os.getloadavg()[0])

    @property
    def violations(self) -> list[str]:
        """All that was wrong."""
        return self.verdict.faults + self.faults


def kill(ground: PostgresGround, *, commands: int, seed: str, is_quick: bool) -> Round:
    """Kill -9 one of the workers and start another in its place; seconds from the kill to the end of the last row."""
    with Scene(ground, commands=commands, seed=seed, is_quick=is_quick, is_lucky=False) as scene:
        victim = scene.dice.choice(scene.begin())
        killed_at = datetime.now(UTC)
        victim.kill()
        victim.wait()
        came_too_late = scene.is_over()
        scene.start()
        found = _over(scene, killed_at, [], came_too_late=came_too_late)
        return replace(found, came_too_late=came_too_late or not found.verdict.cut_off)


def storm(ground: PostgresGround, *, commands: int, seed: str) -> Round:
    """Kill -9 one worker after the other, each with another in its place; seconds from the last kill to the last end.

    So those are killed that recover what the ones before them have left.
    """
    with Scene(ground, commands=commands, seed=seed, is_quick=True, is_lucky=False) as scene:
        workers, came_too_late, killed_at = scene.begin(), scene.is_over(), datetime.now(UTC)
        for _ in range(STORM):
            if scene.is_over():
                break
            victim = workers.pop(scene.dice.randrange(len(workers)))
            killed_at = datetime.now(UTC)
            victim.kill()
            victim.wait()
            workers.append(scene.start())
            time.sleep(scene.dice.uniform(*BETWEEN_KILLS))
        return _over(scene, killed_at, [], came_too_late=came_too_late)


def freeze(ground: PostgresGround, *, commands: int, seed: str) -> Round:
    """Stop a worker for longer than its lease (SIGSTOP), then let it go on; seconds from the stop to the last end."""
    with Scene(ground, commands=commands, seed=seed, is_quick=True, is_lucky=False) as scene:
        victim = scene.dice.choice(scene.begin())
        stopped_at = datetime.now(UTC)
        victim.send_signal(signal.SIGSTOP)
        came_too_late = scene.is_over()
        time.sleep(scene.dice.uniform(*FROZEN))
        victim.send_signal(signal.SIGCONT)
        time.sleep(WAKING)
        faults = ["the worker that was stopped has ended"] * (victim.poll() is not None)
        return _over(scene, stopped_at, faults, came_too_late=came_too_late)


def stop(ground: PostgresGround, *, commands: int, seed: str) -> Round:
    """Send SIGTERM to both, and start both again once they have ended; seconds from the signal to both ends."""
    with Scene(ground, commands=commands, seed=seed, is_quick=False, is_lucky=True) as scene:
        workers = scene.begin()
        in_the_air = sum(row["n"] for row in grounds.rows(ground.raw(), _UNSETTLED))
        begun = time.monotonic()
        for worker in workers:
            worker.terminate()
        codes = [worker.wait(60) for worker in workers]
        seconds = time.monotonic() - begun
        came_too_late = scene.is_over()
        faults = [*_unsettled(scene), *[f"exit codes {codes}"] * any(codes)]
        for _ in workers:
            scene.start()
        scene.finish(PATIENCE)
        return Round(replace(judging.judge(scene), in_the_air=in_the_air), seconds, faults, came_too_late)


def drop(ground: PostgresGround, *, commands: int, seed: str) -> Round:
    """Drop the engine's tables, then recover by the command line; seconds from the drop to the end of the last row."""
    with Scene(ground, commands=commands, seed=seed, is_quick=False, is_lucky=True) as scene:
        scene.begin()
        dropped_at = datetime.now(UTC)
        support.drop_engine(ground.url)
        came_too_late = scene.is_over()
        words = [sys.executable, "-m", "lifecycle", "recover"]
        recovered = subprocess.run(  # noqa: S603 # our own
            words, env=scene.environment(), capture_output=True, text=True, check=False
        )
        faults = [f"recover: {recovered.stderr}"] * bool(recovered.returncode)
        made = grounds.rows(ground.raw(), _TABLES)[0]["n"]
        faults += [f"recover made {made} tables of the engine"] * (made != len(support.ENGINE_TABLES))
        return _over(scene, dropped_at, faults, came_too_late=came_too_late)


def crash(ground: PostgresGround, *, commands: int, seed: str) -> Round:
    """Stop PostgreSQL as a crash would, start it again; seconds from its being back to the end of the last row."""
    with Scene(ground, commands=commands, seed=seed, is_quick=True, is_lucky=False) as scene:
        scene.begin()
        ground.stop("immediate")
        time.sleep(scene.dice.uniform(0.0, LONGEST_OUTAGE))
        ground.start()
        return _over(scene, datetime.now(UTC), [], came_too_late=scene.is_over())


def _unsettled(scene: Scene) -> list[str]:
    """After a stop nothing is on its way or in doubt, and what was sent has ended."""
    found = [f"{row['n']} {row['state']} after the stop" for row in grounds.rows(scene.ground.raw(), _UNSETTLED)]
    ledger = judging.calls(scene)
    sent = sum(any(entry["method"] != "GET" for entry in ledger[each]) for each in scene.ids)
    return found + [f"{sent} were sent, {scene.ended()} have ended"] * (sent != scene.ended())


def _over(scene: Scene, since: datetime, faults: list[str], *, came_too_late: bool) -> Round:
    scene.finish(PATIENCE)
    verdict = judging.judge(scene)
    ended = verdict.last_end or since
    return Round(verdict, (ended - since).total_seconds(), faults, came_too_late)


def document(rounds: list[Round], measured: str) -> dict[str, Any]:
    """Give what is printed of the rounds of one kind."""
    verdicts = [each.verdict for each in rounds]
    seconds = [each.seconds for each in rounds]
    return {
        "rounds": len(rounds),
        "commands": sum(each.commands for each in verdicts),
        "cut_off": [each.cut_off for each in verdicts],
        "in_the_air": [each.in_the_air for each in verdicts],
        "resent": sum(each.resent for each in verdicts),
        "requests_beyond_the_first": sum(each.requests_beyond_the_first for each in verdicts),
        "lost": sum(each.lost for each in verdicts),
        "blind_duplicates": sum(each.blind_duplicates for each in verdicts),
        "most_effects_of_a_command": max(each.most_effects for each in verdicts),
        f"{measured}_p50": round(statistics.median(seconds), 1),
        f"{measured}_max": round(max(seconds), 1),
        "load": [round(each.load, 1) for each in rounds],
        "violations": sum(len(each.violations) for each in rounds),
        "stories": [what for each in rounds for what in each.violations][:20],
    }
