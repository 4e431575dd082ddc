"""What is done to the workers in the middle of a batch. Each round gives its figures and what was wrong."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from tests.chaos import judging
from tests.chaos.scene import WORKERS, Scene
from tests.crashes import grounds

if TYPE_CHECKING:
    from tests.chaos.judging import Verdict
    from tests.crashes.grounds import PostgresGround

PATIENCE: Final = 300.0
"""Seconds after which a batch that has not ended is judged as it stands."""

LONGEST_OUTAGE: Final = 8.0
"""Seconds; beyond about four an answer that came meanwhile is given up, and what it said is found by reading."""

TOO_LATE: Final = "the batch had ended before its middle was reached"
ENGINE: Final = "procrastinate_jobs, procrastinate_events, procrastinate_workers, procrastinate_periodic_defers"
_UNSETTLED: Final = (
    "SELECT state, count(*) AS n FROM lifecycle_commands WHERE state IN ('sending', 'uncertain') GROUP BY 1"
)
_TABLES: Final = "SELECT count(*) AS n FROM pg_tables WHERE tablename LIKE 'procrastinate\\_%'"


@dataclass
class Round:
    """What one round came to; `seconds` is what it measures."""

    verdict: Verdict
    seconds: float
    faults: list[str] = field(default_factory=list)
    load: float = field(default_factory=lambda: os.getloadavg()[0])

    @property
    def violations(self) -> list[str]:
        """All that was wrong."""
        return self.verdict.faults + self.faults


def kill(ground: PostgresGround, *, commands: int, seed: str, is_quick: bool) -> Round:
    """Kill -9 one of the workers and start another in its place; seconds from the kill to the end of the last row."""
    with Scene(ground, commands=commands, seed=seed, is_quick=is_quick, is_lucky=False) as scene:
        workers = [scene.start() for _ in range(WORKERS)]
        scene.reach_the_middle()
        victim = scene.dice.choice(workers)
        killed_at = datetime.now(UTC)
        victim.kill()
        victim.wait()
        left = commands - scene.ended()
        scene.start()
        found = _over(scene, killed_at)
        found.faults += [TOO_LATE] * (left == 0)
        return found


def stop(ground: PostgresGround, *, commands: int, seed: str) -> Round:
    """Send SIGTERM to both, and start both again once they have ended; seconds from the signal to the last end."""
    with Scene(ground, commands=commands, seed=seed, is_quick=False, is_lucky=True) as scene:
        workers = [scene.start() for _ in range(WORKERS)]
        scene.reach_the_middle()
        begun = time.monotonic()
        for worker in workers:
            worker.terminate()
        codes = [worker.wait(60) for worker in workers]
        seconds = time.monotonic() - begun
        faults = [f"exit codes {codes}"] * any(codes)
        faults += [f"{row['n']} {row['state']} after the stop" for row in grounds.rows(ground.raw(), _UNSETTLED)]
        sent = sum(
            entry["method"] != "GET"
            for calls in judging.calls(scene).values()
            for entry in calls
            if entry["appointment_id"]
        )
        if sent != scene.ended():
            faults.append(f"{sent} were sent, {scene.ended()} have ended")
        left = commands - scene.ended()
        for _ in range(WORKERS):
            scene.start()
        scene.finish(PATIENCE)
        faults += [TOO_LATE] * (left == 0)
        return Round(judging.judge(scene), seconds, faults)


def drop(ground: PostgresGround, *, commands: int, seed: str) -> Round:
    """Drop the engine's tables, then recover by the command line; seconds from the drop to the end of the last row."""
    with Scene(ground, commands=commands, seed=seed, is_quick=False, is_lucky=True) as scene:
        for _ in range(WORKERS):
            scene.start()
        scene.reach_the_middle()
        dropped_at = datetime.now(UTC)
        grounds.rows(ground.raw(), f"DROP TABLE {ENGINE} CASCADE")
        left = commands - scene.ended()
        words = [sys.executable, "-m", "lifecycle", "recover"]
        recovered = subprocess.run(  # noqa: S603 # our own
            words, env=scene.environment(), capture_output=True, text=True, check=False
        )
        found = _over(scene, dropped_at)
        found.faults += [f"recover: {recovered.stderr}"] * bool(recovered.returncode)
        made = grounds.rows(ground.raw(), _TABLES)[0]["n"]
        found.faults += [f"{made} tables of the engine"] * (made != ENGINE.count(",") + 1)
        found.faults += [TOO_LATE] * (left == 0)
        return found


def crash(ground: PostgresGround, *, commands: int, seed: str) -> Round:
    """Stop PostgreSQL as a crash would, start it again; seconds from its being back to the end of the last row."""
    with Scene(ground, commands=commands, seed=seed, is_quick=True, is_lucky=False) as scene:
        for _ in range(WORKERS):
            scene.start()
        scene.reach_the_middle()
        ground.stop("immediate")
        time.sleep(scene.dice.uniform(0.0, LONGEST_OUTAGE))
        ground.start()
        left = commands - scene.ended()
        found = _over(scene, datetime.now(UTC))
        found.faults += [TOO_LATE] * (left == 0)
        return found


def _over(scene: Scene, since: datetime) -> Round:
    scene.finish(PATIENCE)
    verdict = judging.judge(scene)
    ended = verdict.last_end or since
    return Round(verdict, (ended - since).total_seconds())


def document(rounds: list[Round], measured: str) -> dict[str, Any]:
    """Give what is printed of the rounds of one kind."""
    verdicts = [each.verdict for each in rounds]
    seconds = sorted(each.seconds for each in rounds)
    return {
        "rounds": len(rounds),
        "commands": sum(each.commands for each in verdicts),
        "cut_off": [each.cut_off for each in verdicts],
        "in_the_air": [each.in_the_air for each in verdicts],
        "sent_again": sum(each.sent_again for each in verdicts),
        "lost": sum(each.lost for each in verdicts),
        "blind_duplicates": sum(each.blind_duplicates for each in verdicts),
        "most_effects_of_a_command": max(each.most_effects for each in verdicts),
        f"{measured}_p50": round(seconds[len(seconds) // 2], 1),
        f"{measured}_max": round(seconds[-1], 1),
        "load": [round(each.load, 1) for each in rounds],
        "violations": sum(len(each.violations) for each in rounds),
        "stories": [what for each in rounds for what in each.violations][:20],
    }
