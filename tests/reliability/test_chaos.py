"""The proof of the workers in CI: one kill in the middle of a batch. `python -m tests.chaos` does more of the same."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.chaos import judging

pytestmark = pytest.mark.timeout(1800)

COMMANDS = 150


def test_a_worker_that_is_killed_loses_nothing_and_repeats_nothing_blindly() -> None:
    """Kill -9 of one of two workers: every row of the batch ends as applied, with one effect at the stand-in each."""
    others = [f"--{kind}=0" for kind in ("default-kills", "storms", "freezes", "stops", "drops", "crashes")]
    ran = subprocess.run(  # noqa: S603 # our own program
        [sys.executable, "-m", "tests.chaos", f"--commands={COMMANDS}", "--kills=1", *others],
        cwd=Path(__file__).parent.parent.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.stdout, ran.stderr
    kills = json.loads(ran.stdout)["kills"]
    assert kills["stories"] == []
    assert (kills["commands"], kills["lost"], kills["blind_duplicates"]) == (COMMANDS, 0, 0)
    assert kills["cut_off"] > [0]


POST: dict[str, Any] = {"method": "POST", "answered": "reset", "effect": False}
DONE = POST | {"answered": 200, "effect": True}
BUSY = POST | {"answered": 429}
READ = {"method": "GET", "answered": 200, "effect": False}
FAILED = READ | {"answered": 503}


@pytest.mark.parametrize(
    ("ledger", "blind"),
    [
        ([DONE], 0),
        ([READ, READ, READ, DONE], 0),
        ([POST, READ, READ, READ, DONE], 0),
        ([BUSY, BUSY, DONE], 0),
        ([POST, READ, READ, DONE], 1),
        ([POST, READ, FAILED, READ, DONE], 1),
        ([POST, READ, READ, READ, POST, DONE], 1),
        ([DONE, READ, READ, READ, POST], 1),
        ([DONE, BUSY, POST], 2),
    ],
)
def test_the_judge_sees_what_was_sent_again_blindly(ledger: list[dict[str, Any]], blind: int) -> None:
    """Three reads that could have shown an effect, or an answer from before any processing, excuse a second request."""
    assert judging.blind(ledger) == blind
