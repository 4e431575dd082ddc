"""The result file of a batch: a line a row, whole or not at all, and nothing that a spreadsheet runs."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING

import pytest

from lifecycle import BatchRow, errors, results

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ROW = BatchRow(
    row=1,
    appointment_id="visit-1",
    command="cancel",
    command_id="c-1",
    state="applied",
    reason_code=None,
    http_status=200,
    zocdoc_request_id="r-1",
    attempt=1,
    ended_at=datetime(2026, 12, 1, 9, tzinfo=timezone(timedelta(hours=-5))),
)


def test_a_row_is_a_line_of_cells(tmp_path: Path) -> None:
    """Instants are UTC; what there is not is an empty cell; the number of rows is given."""
    empty = replace(ROW, row=2, appointment_id=None, http_status=None, zocdoc_request_id=None, ended_at=None)
    assert results.write(iter([ROW, empty]), tmp_path / "r.csv") == 2
    assert (tmp_path / "r.csv").read_bytes().decode().splitlines() == [
        "row,appointment_id,command,state,reason_code,http_status,zocdoc_request_id,command_id,attempts,ended_at",
        "1,visit-1,cancel,applied,,200,r-1,c-1,1,2026-12-01T14:00:00.000000Z",
        "2,,cancel,applied,,,,c-1,1,",
    ]


def test_no_cell_is_a_formula(tmp_path: Path) -> None:
    """An id may begin with a hyphen, and a request id is what somebody else has sent."""
    results.write([replace(ROW, appointment_id="-1", zocdoc_request_id="=1+1")], tmp_path / "r.csv")
    assert "1,'-1,cancel,applied,,200,'=1+1," in (tmp_path / "r.csv").read_text(encoding="utf-8")


def test_no_rows_are_a_head(tmp_path: Path) -> None:
    """And zero."""
    assert results.write([], tmp_path / "r.csv") == 0
    assert (tmp_path / "r.csv").read_text(encoding="utf-8") == f"{','.join(results.HEAD)}\n"


def test_what_is_not_written_to_its_end_leaves_the_old_file(tmp_path: Path) -> None:
    """And nothing beside it."""
    path = tmp_path / "r.csv"
    path.write_text("old", encoding="utf-8")

    def failing() -> Iterator[BatchRow]:
        yield ROW
        raise errors.DatabaseUnavailable(problem="gone")

    with pytest.raises(errors.DatabaseUnavailable):
        results.write(failing(), path)
    assert [each.read_text(encoding="utf-8") for each in tmp_path.iterdir()] == ["old"]


def test_only_its_owner_may_read_it(tmp_path: Path) -> None:
    """Whose visits were cancelled is nobody else's business; a folder is no place for it."""
    results.write([ROW], tmp_path / "r.csv")
    assert (tmp_path / "r.csv").stat().st_mode & 0o777 == 0o600
    with pytest.raises(errors.InvalidArgument, match="is not a file"):
        results.write([ROW], tmp_path)
