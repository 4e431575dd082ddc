"""The crash proof in CI: real kills, real stops, real cuts. `python -m tests.crashes` runs the same for longer.

It runs once, in a process of its own, because its children are forked from a process without threads; each test here
judges one part of its report.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.timeout(1800)

KILLS = 2000
STOPS = 20
COLD = 10
ROUNDS = 15


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    """Run the whole proof in the size of CI."""
    counts = {"--kills": KILLS, "--stops": STOPS, "--cold": COLD, "--rounds": ROUNDS}
    words = [str(word) for pair in counts.items() for word in pair]
    ran = subprocess.run(  # noqa: S603 # our own program
        [sys.executable, "-m", "tests.crashes", *words],
        cwd=Path(__file__).parent.parent.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.stdout, ran.stderr
    found: dict[str, Any] = json.loads(ran.stdout)
    return found


def test_a_kill_at_any_point_of_any_command_or_recovery_loses_nothing(report: dict[str, Any]) -> None:
    """Kill -9 at every labelled point: every request has its intent, one effect at most, and recovery ends it all."""
    kills = report["kills"]
    assert kills.get("stories", []) == []
    assert kills["kills"] >= KILLS
    assert kills["kills_of_recoveries"] >= KILLS / 5
    assert min(count for name, count in kills.items() if " at " in name) >= 1


def test_a_killed_client_of_postgresql_loses_nothing(report: dict[str, Any]) -> None:
    """The same with sessions that the server must clean up after."""
    kills = report["kills_postgresql"]
    assert kills.get("stories", []) == []
    assert kills["kills"] >= KILLS / 10


def test_a_killed_worker_loses_nothing_and_sends_nothing_twice(report: dict[str, Any]) -> None:
    """Kill -9 of whoever submits or dispatches, at every point, on both databases; and of some of eight workers."""
    queued = report["queued"]
    assert queued.get("stories", []) == []
    assert queued["kills"] >= KILLS / 16
    assert queued["crowds on sqlite"] == queued["crowds on postgresql"] == ROUNDS // 5


def test_a_killed_command_line_loses_nothing(report: dict[str, Any]) -> None:
    """`python -m lifecycle confirm ID` and its kin, killed at random, after the intent, and after the request."""
    assert report["cold"].get("stories", []) == []
    assert report["cold"]["cold_kills"] + report["cold"].get("ended before the kill", 0) == COLD


def test_a_cut_log_of_sqlite_opens_as_a_sound_prefix(report: dict[str, Any]) -> None:
    """The write-ahead log cut at and inside of every frame: a whole database, a prefix of the trail, a recovery."""
    assert report["wal"].get("stories", []) == []
    assert report["wal"]["cuts"] > 2 * report["wal"]["frames"]


def test_an_immediate_stop_of_postgresql_loses_no_intent(report: dict[str, Any]) -> None:
    """The server crashes under load again and again; callers see named errors, and all ends once it stays up."""
    stops = report["stops"]
    assert stops.get("stories", []) == []
    assert stops["stops"] == STOPS
    assert stops["callers saw Done"] > 0


def test_of_eight_processes_on_one_appointment_one_acts_at_a_time(report: dict[str, Any]) -> None:
    """As many effects as applied commands, never two active ones, and every loser is told; some are killed besides."""
    crowd = report["crowd"]
    assert crowd.get("stories", []) == []
    assert crowd["rounds on sqlite"] == crowd["rounds on postgresql"] == ROUNDS
    assert crowd["kills"] > 0


def test_who_sleeps_past_the_lease_neither_sends_nor_overwrites(report: dict[str, Any]) -> None:
    """SIGSTOP, the lease runs out, SIGCONT: nothing leaves, and a late answer is a note in the trail."""
    assert report["stopped"].get("stories", []) == []
    assert report["stopped"]["processes stopped"] == 80
    assert report["stopped"]["recoveries stopped"] == 4


def test_a_database_that_fails_inside_of_a_command_is_told_by_name(report: dict[str, Any]) -> None:
    """Lost replies to both COMMITs, a full disk, a read-only file: a named error, and recovery settles the rest."""
    trouble = report["trouble"]
    assert trouble.get("stories", []) == []
    assert trouble["COMMIT 1 lost after"] == 10
    assert trouble["COMMIT 2 lost after"] == 30
