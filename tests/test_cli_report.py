"""`lifecycle report` and `lifecycle stats`."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import pytest

from tests import support
from tests.test_cli import assert_error, invoke

if TYPE_CHECKING:
    from pathlib import Path

    from lifecycle import Lifecycle
    from lifecycle.sandbox import Sandbox


@pytest.fixture
def environ(lifecycle: Lifecycle, sandbox: Sandbox, database_url: str) -> dict[str, str]:
    """The variables of a database in which one appointment was confirmed."""
    appointment_id = support.tracked(lifecycle, sandbox, status="pending_booking")
    lifecycle.confirm(appointment_id, actor="user:1")
    return {"LIFECYCLE_DATABASE_URL": database_url}


def test_the_report_is_written_and_told(environ: dict[str, str], tmp_path: Path) -> None:
    """The last 90 days unless told otherwise; title, zone and filters as given; data on no stream."""
    place = tmp_path / "report.html"
    asked = ("--title", "Our <practice>", "--time-zone", "America/New_York", "--actor", "user:1")
    months = [_month_of_90_days_ago()]
    done = invoke("report", "-o", str(place), *asked, **environ)
    months.append(_month_of_90_days_ago())
    assert (done.exit_code, done.stdout) == (0, "")
    assert "only actor user:1" in done.stderr
    document = place.read_text(encoding="utf-8")
    assert "<title>Our &lt;practice&gt;</title>" in document
    assert any(f"From {month}" in document for month in months)


def _month_of_90_days_ago() -> str:
    return f"{(datetime.now(UTC) - timedelta(days=90)).astimezone(ZoneInfo('America/New_York')):%Y-%m}"


def test_stats_are_the_same_figures_as_tables_and_as_json(environ: dict[str, str]) -> None:
    """The JSON object has all of them, the tables the most important."""
    tables = invoke("stats", **environ)
    assert tables.exit_code == 0, tables.output
    assert "pending_booking  confirmed  confirm" in tables.stdout
    plain = json.loads(invoke("stats", "--format", "json", **environ).stdout)
    assert (plain["headline"]["tracked"], plain["headline"]["applied"]) == (1, 1)
    assert plain["moves"][0]["count"] == 1
    assert plain["confirmations"]["seconds"]["count"] == 1


def test_a_window_is_90_days_before_its_end(environ: dict[str, str]) -> None:
    """And an instant without an offset is in the zone that was named."""
    asked = ("--until", "2026-11-02", "--time-zone", "America/New_York", "--format", "json")
    found = json.loads(invoke("stats", *asked, **environ).stdout)
    assert found["filters"]["until"] == "2026-11-02T05:00:00.000000Z"
    assert found["filters"]["since"] == "2026-08-04T05:00:00.000000Z"


def test_what_cannot_be_is_one_line(environ: dict[str, str], tmp_path: Path) -> None:
    """A folder that is not there, a zone that is none, a window that ends before it begins."""
    assert_error(invoke("report", "-o", str(tmp_path / "none" / "r.html"), **environ), 1, "No such file")
    assert_error(invoke("stats", "--time-zone", "Mars/Olympus", **environ), 2, "--time-zone")
    assert_error(invoke("stats", "--since", "2026-02-02", "--until", "2026-02-01", **environ), 2, "before it begins")
    assert list(tmp_path.glob("*.html")) == []
