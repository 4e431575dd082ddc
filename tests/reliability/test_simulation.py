"""The simulator's share in CI: many commands under every fault, nothing violated; and the simulator's own rules."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.simulation import faults, planted, planting, running
from tests.simulation.site import Site

EVERY_FAULT = {"kill", "database", "stall", *faults.POST_FAULTS, *faults.GET_FAULTS, *faults.LIST_FAULTS}

COMMANDS = 52_000
"""Accepted ones. Twice as many are wished for, half of them submitted; checks and commands under way refuse the rest,
or they expire or are withdrawn in the queue."""

SEED = int(os.environ.get("LIFECYCLE_SIMULATION_SEED", "1"))


@pytest.mark.timeout(1800)
def test_a_hundred_thousand_commands_under_faults_break_no_invariant() -> None:
    """Whatever fails, wherever, and however processes interleave, every invariant holds and every cell is hit."""
    results = running.run(COMMANDS + running.WORLD, SEED, processes=2)
    summed = running.summary(results, time.monotonic())
    stories = "\n\n".join("\n".join(found["story"]) for found in summed["violations"])
    assert not summed["violations"], f"seed {SEED}\n{stories}"
    assert summed["commands"] >= COMMANDS
    assert summed["asked"] >= 100_000
    assert summed["queue"]["submitted"] >= COMMANDS / 2
    assert summed["queue"]["command_resent"] >= COMMANDS / 50
    assert summed["cells"]["missing"] == [], f"seed {SEED}"


def test_the_same_seed_gives_the_same_log() -> None:
    """Two runs are equal to the last hash, in another process with another order of sets, and a third seed differs."""
    first, second = _program("--commands", "300", hash_seed="1"), _program("--commands", "300", hash_seed="2")
    other = _program("--commands", "300", "--seed", "2", hash_seed="1")
    assert first["log_hash"] == second["log_hash"] != other["log_hash"]


def test_the_number_of_processes_does_not_change_the_log(tmp_path: Path) -> None:
    """Worlds are independent of each other, and their logs come in the order of the plan."""
    one, two = tmp_path / "one.log", tmp_path / "two.log"
    first = _program("--commands", "300", "--log", str(one))
    second = _program("--commands", "300", "--processes", "2", "--log", str(two))
    assert first["log_hash"] == second["log_hash"]
    assert one.read_bytes() == two.read_bytes() != b""


def test_a_failure_names_its_seed_and_tells_the_story_of_one_appointment() -> None:
    """What fails is made smaller and told from the first read to the last row."""
    plant = next(plant for plant in planted.PLANTS if plant.name == "unknown_is_rejected")
    with closing(Site()) as site, planting.planted(plant):
        result = running.live(site, 1, 200)
    assert result.violations
    assert result.story[0].startswith("seed 1, ")
    assert "I2" in "".join(result.violations)
    assert any("processed" in line for line in result.story)
    assert any("event 1" in line for line in result.story)


def test_the_cells_are_every_fault_at_every_place_for_every_command() -> None:
    """The list that the coverage gate asks for is not empty anywhere."""
    cells = faults.legal_cells()
    assert {command for _, _, command in cells} == {*faults.COMMANDS, "-"}
    assert {fault for fault, _, _ in cells} == EVERY_FAULT
    assert ("conflict", "post", "reschedule") not in cells


def _program(*arguments: str, hash_seed: str = "0") -> dict[str, Any]:
    """Run the simulator as a program and give its summary."""
    ran = subprocess.run(  # noqa: S603 # our own program
        [sys.executable, "-m", "tests.simulation", *arguments],
        cwd=Path(__file__).parent.parent.parent,
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    summed: dict[str, Any] = json.loads(ran.stdout)
    return summed
