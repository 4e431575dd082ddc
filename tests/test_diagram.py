"""The chart as text agrees with the chart, and the README with the text."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lifecycle import chart, diagram

README = Path(__file__).parent.parent / "README.md"


def test_the_picture_has_every_move_of_a_command_and_no_other() -> None:
    """Read back from the text, the edges are the chart's topology."""
    edges = re.findall(r"^    (\w+) --> (\w+): (.+)$", diagram.picture(), re.MULTILINE)
    drawn = {(source, target, command) for source, target, label in edges for command in label.split(", ")}
    expected = {
        (source, target, command)
        for command in chart.Command
        for source, targets in chart.TOPOLOGY[command].items()
        for target in targets
    }
    assert drawn == expected
    assert len(edges) == len({edge[:2] for edge in edges})


def test_the_picture_has_one_entry_and_the_final_statuses() -> None:
    """A booking begins as pending_booking; cancelled and no_show are the end."""
    picture = diagram.picture()
    assert picture.startswith("stateDiagram-v2\n    [*] --> pending_booking\n")
    assert re.findall(r"(\w+) --> \[\*\]", picture) == ["cancelled", "no_show"]


def test_the_table_tells_sources_answers_and_guards() -> None:
    """The row of a command is complete."""
    rows = {row.split("`")[1]: row for row in diagram.table().splitlines()[2:]}
    assert list(rows) == list(chart.Command)
    assert rows["confirm"] == "| `confirm` | `pending_booking` | `confirmed` | `credential`, `active_command` |"
    assert "`pending_reschedule`, `rescheduled`, `reschedule_failed`, or the status as it was" in rows["reschedule"]
    assert "| the status as it was |" in rows["mark_arrived"]
    assert "`no_show_window` (Zocdoc reference: " in rows["mark_no_show"]


def test_the_moves_are_those_observed() -> None:
    """Each status has a row, also those that nothing leaves."""
    rows = [re.findall(r"`(\w+)`", row) for row in diagram.moves().splitlines()[2:]]
    observed = chart.TOPOLOGY[chart.OBSERVED]
    assert {row[0]: frozenset(row[1:]) for row in rows} == {str(s): observed.get(s, frozenset()) for s in chart.Status}


@pytest.mark.parametrize("kind", diagram.KINDS)
def test_the_readme_shows_the_chart_as_it_is(kind: str) -> None:
    """Between its markers the README holds the output of `lifecycle diagram`; paste it again when this fails."""
    readme = README.read_text(encoding="utf-8")
    blocks = re.findall(rf"<!-- diagram: {kind} -->\n(.*?)<!-- /diagram -->", readme, re.DOTALL)
    assert [_unfenced(block) for block in blocks] == [diagram.KINDS[kind]()]


def _unfenced(block: str) -> str:
    lines = [line for line in block.strip().splitlines() if not line.startswith("```")]
    return "".join(f"{line}\n" for line in lines)
