"""`lifecycle export`: files and stdout, filters, words on stderr, and nothing left behind when it is interrupted."""

from __future__ import annotations

import csv
import io
import json
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest
from pyarrow import parquet

from lifecycle.cli import exporting as declared
from lifecycle.reports import exporting
from tests import support
from tests.test_cli import GUIDE, assert_error, invoke, settings_for

if TYPE_CHECKING:
    from pathlib import Path

    from lifecycle.sandbox import Sandbox, Server


@pytest.fixture
def environ(sandbox: Sandbox, server: Server, sqlite_url: str) -> dict[str, str]:
    """Two appointments, one tracked by an actor who is a formula. No settings of Zocdoc remain."""
    found = settings_for(server, sqlite_url)
    sandbox.add("b-1", status="confirmed")
    for appointment_id, actor in ((GUIDE, "user:1"), ("b-1", "=1+1")):
        assert invoke("track", appointment_id, "--actor", actor, **found).exit_code == 0
    return {"LIFECYCLE_DATABASE_URL": sqlite_url}


def test_a_view_goes_to_stdout_as_csv(environ: dict[str, str]) -> None:
    """Data on stdout, words on stderr; formulas guarded unless --raw."""
    done = invoke("export", "event_log", **environ)
    assert [row["actor"] for row in csv.DictReader(io.StringIO(done.stdout))] == ["user:1", "'=1+1"]
    assert done.stderr == "2 rows of lifecycle_event_log as csv to stdout\n"
    raw = invoke("export", "lifecycle_event_log", "--raw", "--actor", "=1+1", **environ)
    assert [row["actor"] for row in csv.DictReader(io.StringIO(raw.stdout))] == ["=1+1"]


@pytest.mark.parametrize("form", declared.FORMATS)
def test_each_format_goes_into_a_file(environ: dict[str, str], tmp_path: Path, form: str) -> None:
    """The file is there, whole, and stdout is empty."""
    path = tmp_path / "export"
    done = invoke("export", "audit_events", "--format", form, "-o", str(path), "--appointment", GUIDE, **environ)
    assert (done.exit_code, done.stdout) == (0, "")
    assert done.stderr == f"1 rows of lifecycle_audit_events as {form} to {path}\n"
    match form:
        case "csv":
            ids = [row["appointment_id"] for row in csv.DictReader(io.StringIO(path.read_text()))]
        case "jsonl":
            ids = [json.loads(path.read_text())["appointment_id"]]
        case "parquet":
            ids = parquet.read_table(path).to_pydict()["appointment_id"]
        case _:
            ids = [json.loads(path.read_text())["subject"]]
    assert ids == [GUIDE]


def test_the_formats_are_those_of_the_library() -> None:
    """The words are written twice, so that `--help` loads nothing; they are the same."""
    assert tuple(exporting.Format) == declared.FORMATS


def test_what_cannot_be_done_is_usage(environ: dict[str, str], tmp_path: Path) -> None:
    """A view that is none, a format that does not fit, a folder that is not there."""
    assert_error(invoke("export", "commands", **environ), 2, "lifecycle_audit_events")
    assert_error(invoke("export", "funnel", "--format", "cloudevents", **environ), 2, "no events")
    assert_error(invoke("export", "current_status", "--actor", "user:1", **environ), 2, "can be filtered by")
    missing = tmp_path / "none" / "x.csv"
    assert_error(invoke("export", "funnel", "-o", str(missing), **environ), 1, "No such file")


def test_parquet_without_pyarrow_tells_how_to_get_it(
    environ: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The extra is named with the command that installs it, and no file is made."""
    assert pa
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    path = tmp_path / "x.parquet"
    done = invoke("export", "funnel", "--format", "parquet", "-o", str(path), **environ)
    assert_error(done, 2, "pip install 'zocdoc-lifecycle[parquet]'")
    assert not path.exists()


SLOW = """
import sys, time
from lifecycle import files
from lifecycle.reports import streams
from lifecycle.cli import main
streams.BLOCK = 1
told = streams.blocks
def slowly(*given):
    for block in told(*given):
        print("reading", file=sys.stderr, flush=True)
        yield block
        time.sleep(30)
streams.blocks = slowly
main.run()
"""


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_export_leaves_nothing_behind(environ: dict[str, str], tmp_path: Path, how: int) -> None:
    """Ctrl-C, or being told to end: the part is removed and the old file is as it was."""
    folder = tmp_path / "out"
    folder.mkdir()
    path = folder / "log.csv"
    path.write_text("old")
    running = subprocess.Popen(  # noqa: S603 # our own program
        [sys.executable, "-c", SLOW, "export", "event_log", "-o", str(path)],
        stderr=subprocess.PIPE,
        env=support.environment(**environ),
    )
    assert running.stderr is not None
    assert running.stderr.readline() == b"reading\n"
    assert len(list(folder.iterdir())) == 2
    running.send_signal(how)
    words = running.stderr.read()
    assert running.wait(timeout=20) == {signal.SIGINT: 130, signal.SIGTERM: 143}[signal.Signals(how)], words
    running.stderr.close()
    assert [each.name for each in folder.iterdir()] == ["log.csv"]
    assert path.read_text() == "old"
