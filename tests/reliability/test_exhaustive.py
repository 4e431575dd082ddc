"""Every single fault at every point for every command, all of them; and a drawn sample of fault pairs."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING
from unittest import mock

import pytest

from lifecycle import OutcomeUnknown
from tests.exhaustive import soak
from tests.exhaustive.faults import REMOTE, AtPoint, Remote
from tests.exhaustive.running import Cell, Runner, at_points, single_cells
from tests.exhaustive.stories import begin
from tests.exhaustive.world import World
from tests.support import COMMANDS

if TYPE_CHECKING:
    from pathlib import Path


PAIRS = 240
SEED = 1
LEGAL_AT_LEAST = 2000
"""Cells of single faults: a computed list that shrinks unnoticed would be no gate."""


@pytest.mark.timeout(1800)
def test_no_fault_and_no_pair_of_faults_loses_or_repeats_anything() -> None:
    """Every legal cell is hit, every labelled point is passed, and what must hold holds after each of them."""
    processes = min(2, os.cpu_count() or 1)
    figures = soak.run(singles=True, pairs=PAIRS, seed=SEED, processes=processes)
    assert figures.violations == []
    assert figures.missed == []
    assert figures.hit == figures.legal >= LEGAL_AT_LEAST
    assert figures.pairs_hit == figures.pairs == PAIRS
    assert soak.unreached(figures) == set()


def test_every_command_meets_every_fault_of_the_remote(tmp_path: Path) -> None:
    """The legal cells are computed from the ways that were walked: all commands, all remote faults, all points."""
    with World(tmp_path) as world:
        legal = [cell for _, cells in single_cells(Runner(world)) for cell in cells]
    assert len({str(cell) for cell in legal}) == len(legal)
    remote = {(cell.command, cell.fault.name) for cell in legal if isinstance(cell.fault, Remote)}
    assert remote == {(command, name) for command in COMMANDS for name in REMOTE}
    crashes = {(cell.story, cell.command, cell.fault.point) for cell in legal if isinstance(cell.fault, AtPoint)}
    for command in COMMANDS:
        for point in ("before_intent", "intent_uncommitted", "intent_committed", "request_sent", "answer_unread"):
            assert ("send", command, point) in crashes
        for point in ("recovery_scanned", "read_claimed", "read_returned", "settlement_open", "settlement_committed"):
            assert ("recover_applied", command, point) in crashes


def test_cuts_that_strike_the_same_statement_are_one_cell() -> None:
    """A cut shows at the next use of the database, so of several points before it the last one names the cell."""
    way = ["a#1", "b#1", "statement", "b#2", "commit", "c#1"]
    assert set(map(str, at_points(way))) == {
        "crash@a#1",
        "crash@b#1",
        "crash@b#2",
        "crash@c#1",
        "statement_fails@b#1",
        "database_down@b#1",
        "commit_fails@b#2",
        "commit_unheard@b#2",
    }


@pytest.mark.parametrize(
    "label",
    [
        "send/cancel: crash@request_sent#1",
        "send/confirm: zombie_reset then read:slow@read_claimed#2",
        "recover_abandoned/mark_no_show: commit_unheard@settlement_open#1",
        "send/reschedule: nothing",
    ],
)
def test_a_cell_can_be_run_again_by_its_name(label: str) -> None:
    """What a report names is parsed back to the same cell, and runs."""
    cell = soak.parse(label)
    assert str(cell) == label
    figures = soak.replay(label)
    assert (figures.violations, figures.missed) == ([], [])


def test_a_cell_whose_fault_never_strikes_is_missed(tmp_path: Path) -> None:
    """The gate is not blind: a fault at a point that is not passed counts as not hit."""
    with World(tmp_path) as world:
        runner = Runner(world)
        assert runner.run(Cell("send", "confirm", AtPoint("crash", "request_sent", 9))).was_hit is False
        assert runner.run(Cell("send", "confirm", AtPoint("commit_fails", "request_sent", 1))).was_hit is True


def test_a_database_that_fails_again_after_the_call_does_not_sound_as_if_nothing_was_sent(tmp_path: Path) -> None:
    """After a request has left, whatever the database does, the caller hears that the outcome is unknown."""
    with World(tmp_path) as world:
        Runner(world)
        scene, worker = begin(world, "reschedule"), world.workers[0]
        world.trap.set(("outcome_open", 1), lambda: setattr(worker.line, "failure", "commit_unheard"))

        def fail_again(event: str) -> None:
            if event == "statement" and worker.line.struck and world.stage.ledger.effects(scene.appointment_id):
                passed.append(event)
                if len(passed) > 1:
                    worker.line.failure = "database_down"

        passed: list[str] = []
        with mock.patch.object(world.trap, "note", fail_again), pytest.raises(OutcomeUnknown):
            scene.send(worker.product)
