"""The demo, end to end in a process of its own: a stranger's first impression."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests import trail

GUIDE = [
    {"appointment_id": "d04b049a-41b1-4aba-9268-d8973cf72cdd"},
    {
        "appointment_id": "d04b049a-41b1-4aba-9268-d8973cf72cdd",
        "cancellation_reason": "string",
        "cancellation_reason_type": "patient_no_longer_needs_appointment",
    },
    {"appointment_id": "63f995c2-49c4-40c8-a93a-140fb32e913b", "start_time": "2022-04-27T09:00:00-04:00"},
]


def lifecycle(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the command line as a stranger does: in some folder, with nothing set."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("LIFECYCLE_")}
    command = [sys.executable, "-m", "lifecycle", *arguments]
    return subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, timeout=60, check=False)  # noqa: S603 # fixed words


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Run the demo; give its folder and what it printed."""
    folder = tmp_path_factory.mktemp("demo")
    done = lifecycle("demo", folder=folder)
    assert (done.returncode, done.stderr) == (0, "")
    return folder, done.stdout


def test_the_guides_calls_are_shown_word_for_word(told: tuple[Path, str]) -> None:
    """The JSON of the three calls, as it was on the wire, is that of Zocdoc's guide, in its order."""
    shown = re.findall(r"^  \{\n.*?^  \}$", told[1], re.DOTALL | re.MULTILINE)
    assert [json.loads(body) for body in shown] == GUIDE
    assert [list(json.loads(body)) for body in shown] == [list(body) for body in GUIDE]


def test_the_story_is_told_to_its_end(told: tuple[Path, str]) -> None:
    """Refused without a call, lost, blocked, recovered, and one effect."""
    for words in (
        "refused in status cancelled: status_not_allowed; HTTP calls made: 0",
        "connection_lost, outcome unknown",
        "is refused meanwhile: outcome_in_doubt",
        "reschedule was applied (recovered)",
        "effects of that reschedule at Zocdoc: 1, not 2",
    ):
        assert words in told[1]
    assert max(map(len, told[1].splitlines()[:-6])) <= 120


def test_the_database_is_there_and_its_trail_is_sound(told: tuple[Path, str]) -> None:
    """One new file, no leftovers of WAL, and 13 events by an independent reader."""
    import sqlalchemy as sa  # noqa: PLC0415 # only here

    (path,) = told[0].iterdir()
    engine = sa.create_engine(f"sqlite:///{path}")
    assert trail.faults(engine) == []
    assert len(trail.rows_of(engine)) == 13
    engine.dispose()


def test_the_commands_that_it_recommends_work(told: tuple[Path, str]) -> None:
    """The last lines, pasted into a shell in that folder, run."""
    folder, printed = told
    lines = printed.partition("Look around")[2].splitlines()[1:]
    assert len(lines) == 5
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    script = "set -e\n" + "\n".join(lines)
    environ = os.environ | {"PATH": path}
    shell = ["/bin/sh", "-c", script]
    done = subprocess.run(shell, cwd=folder, env=environ, capture_output=True, text=True, check=False)  # noqa: S603 # our own output
    assert done.returncode == 0, done.stderr
    assert "recovered" in done.stdout
    assert done.stdout.count("63f995c2-49c4-40c8-a93a-140fb32e913b") > 8


def test_a_folder_that_takes_no_file_is_one_line(tmp_path: Path) -> None:
    """What cannot be written is said with the way out."""
    done = lifecycle("demo", "--directory", "nowhere", folder=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(
        r"Error: cannot make nowhere/\S+: No such file or directory; name .* --directory\n", done.stderr
    )
