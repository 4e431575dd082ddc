"""Files of wishes: what makes a file unusable, what is wrong with a row, and that memory stays flat."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lifecycle import errors, wishlists
from tests import support

if TYPE_CHECKING:
    from pathlib import Path

A, B, C = (f"{letter * 8}-0000-4000-8000-000000000000" for letter in "abc")
SECRET = "Jane Doe, born 1970"
NAIVE = "2026-12-01T09:00:00"


def rows(path: Path, content: str | bytes, **options: Any) -> list[wishlists.Row]:
    """Write a file and read it."""
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return list(wishlists.read(path, **options))


def problems(found: list[wishlists.Row]) -> list[tuple[int, str | None, str | None]]:
    """Shorten rows to their number, problem and column."""
    return [(row.number, row.problem, row.column) for row in found]


def refused(path: Path, content: str | bytes, **options: Any) -> str:
    """Read a file that cannot be used, and give what is said."""
    with pytest.raises(errors.InvalidArgument) as caught:
        rows(path, content, **options)
    assert caught.value.argument == str(path)
    assert SECRET not in str(caught.value)
    return caught.value.problem


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A CSV file that is to be written."""
    return tmp_path / "wishes.csv"


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    """A file of JSON lines that is to be written."""
    return tmp_path / "wishes.jsonl"


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("ending", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_the_dialects_that_spreadsheets_write_are_read(path: Path, delimiter: str, ending: str, mark: str) -> None:
    """Commas, semicolons and tabs, both line ends, a byte order mark; the head in any order and case."""
    head = delimiter.join(["Reason ", "ID", "reason_type"])
    body = [delimiter.join(["", A, ""]), "", delimiter * 2, delimiter.join([" two words ", f" {B} ", "other"]), ""]
    found = rows(path, mark + ending.join([head, *body]), command="cancel")
    assert [row.values for row in found] == [
        {"appointment_id": A},
        {"appointment_id": B, "reason": " two words ", "reason_type": "other"},
    ]
    assert [(row.number, row.line) for row in found] == [(1, 2), (2, 5)]


def test_a_quoted_cell_may_have_line_breaks(path: Path) -> None:
    """Then the line that is told is the one on which the row ends."""
    found = rows(path, f'appointment_id,reason\n{A},"one\n{B},\r\ntwo"\n{C},x\n', command="cancel")
    assert [(row.line, row.values) for row in found] == [
        (4, {"appointment_id": A, "reason": f"one\n{B},\r\ntwo"}),
        (5, {"appointment_id": C, "reason": "x"}),
    ]


def test_json_lines_have_the_same_columns(lines: Path) -> None:
    """Empty lines and nulls do not count."""
    wanted = [{"id": A, "start_time": NAIVE}, {"appointment_id": B, "request_key": None, "command": "confirm"}]
    found = rows(lines, "\n\n".join(map(json.dumps, wanted)))
    assert [row.values for row in found] == [
        {"appointment_id": A, "start_time": NAIVE},
        {"appointment_id": B, "command": "confirm"},
    ]


def test_the_format_is_told_by_the_name_or_by_the_caller(tmp_path: Path, path: Path) -> None:
    """A name that does not tell is refused."""
    assert problems(rows(tmp_path / "X.CSV", f"id\n{A}")) == [(1, None, None)]
    assert problems(rows(tmp_path / "odd", f"id\n{A}", form="csv")) == [(1, None, None)]
    assert problems(rows(path, json.dumps({"id": A}), form="jsonl")) == [(1, None, None)]
    assert "say which format" in refused(tmp_path / "odd", f"id\n{A}")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("", "line 0: the first line must name the columns, of appointment_id, "),
        ("appointment_id\n\n", "there is no row in it"),
        (f"{SECRET}\n{A}\n", "line 1: the first line must name the columns"),
        (f"{A},{SECRET}\n", "line 1: the first line must name the columns"),
        (
            f"id,reason,colour,{SECRET},\n{A}\n",
            "line 1: unknown columns: colour, number 4, number 5, number 6; the columns here",
        ),
        (f"id,start_time\n{A},{NAIVE}\n", "unknown columns: start_time; the columns here are appointment_id, reason"),
        (f"id,command\n{A},confirm\n", "unknown columns: command"),
        (f"id,appointment_id\n{A},{A}\n", "a column is there twice"),
        (f"reason\n{SECRET}\n", "the column appointment_id is missing"),
        (f'id,reason\n{A},"{SECRET}\n{B},x\n', "line 3: the row around here cannot be read"),
        (f'id,reason\n{A},"x" {SECRET}\n', "line 2: the row around here cannot be read"),
        (f'id,reason\n{A},"{SECRET * 10_000}"\n', "line 2: the row around here cannot be read"),
        (f"id,reason\n{A},{SECRET * 100_000}\n", "line 2: it is longer than 1,048,576 bytes"),
        (f"id\n{A}\n".encode("utf-16"), "line 1: it is UTF-16; save the file as UTF-8"),
        (f"id\r{A}\r{B}\r", "line 1: the row around here cannot be read"),
    ],
)
def test_a_file_that_cannot_be_told_apart_is_refused_as_a_whole(path: Path, content: str | bytes, told: str) -> None:
    """Before the first row is given, with its line, the columns that there are, and nothing that stood in a cell."""
    assert told in refused(path, content, command="cancel")


def test_an_unknown_key_of_a_later_line_refuses_all_json_lines(lines: Path) -> None:
    """As an unknown column does."""
    content = f'{{"id": "{A}"}}\n{{"id": "{B}", "{SECRET}": 1, "colour": "x"}}\n'
    assert refused(lines, content).startswith("line 2: unknown columns: number 2, colour; the columns here are ")
    assert "longer than" in refused(lines, '{"id": "' + "a" * 2_000_000 + '"}')


def test_a_bad_row_is_told_in_that_row(path: Path) -> None:
    """And the rest goes on."""
    content = b"id,reason\n%b,x\n,x\n../x,x\n%b,x,y\n%b\n%b,\xff\n%b,x\n%b,\0\n" % tuple(
        each.encode() for each in (A, B, B, B, A, C)
    )
    found = rows(path, content, command="cancel")
    assert problems(found) == [
        (1, None, None),
        (2, "missing_appointment_id", "appointment_id"),
        (3, "invalid_appointment_id", "appointment_id"),
        (4, "wrong_number_of_cells", None),
        (5, "wrong_number_of_cells", None),
        (6, "not_utf8", "reason"),
        (7, "duplicate_of_row", "appointment_id"),
        (8, None, None),
    ]
    assert [(row.appointment_id, row.first_row) for row in found[2:7]] == [
        (None, None),
        (B, None),
        (B, None),
        (B, None),
        (A, 1),
    ]
    assert wishlists.meaning(found[6]) == "row 1 names the same appointment; one wish for each"
    assert all(wishlists.meaning(row) for row in found if row.problem)


def test_a_bad_line_of_json_is_told_in_that_row(lines: Path) -> None:
    """Lines that are none, nested without end, with doubled keys, or with values that are no texts."""
    bad = [
        "{",
        "[" * 100_000,
        "[]",
        f'{{"id": "{A}", "ID": "{B}"}}',
        '{"id": 1}',
        f'{{"id": "{C}", "reason": []}}',
        "{}",
    ]
    found = rows(lines, "\n".join([*bad, json.dumps({"id": A})]))
    assert [(row.problem, row.column) for row in found] == [
        ("not_json", None),
        ("not_json", None),
        ("not_an_object", None),
        ("doubled_key", None),
        ("not_text", "appointment_id"),
        ("not_text", "reason"),
        ("missing_appointment_id", "appointment_id"),
        (None, None),
    ]
    assert all(wishlists.meaning(row) for row in found if row.problem)


def test_defaults_are_for_rows_that_have_no_value_of_their_own(path: Path) -> None:
    """An empty cell is no value."""
    found = rows(path, f"id,reason_type\n{A},\n{B},mine\n", command="cancel", defaults={"reason_type": "theirs"})
    assert [row.values and row.values["reason_type"] for row in found] == ["theirs", "mine"]


def test_of_a_file_that_was_changed_since_not_one_row_is_given(path: Path) -> None:
    """Somebody agreed to what was checked; a file of many pages would otherwise be queued in part."""
    path.write_text(f"id\n{A}\n", encoding="utf-8")
    found = wishlists.read(path)
    assert (found.rows, len(found.digest)) == (1, 64)
    path.write_text(f"id\n{B}\n", encoding="utf-8")
    with pytest.raises(errors.InvalidArgument, match="it was changed since it was checked"):
        next(iter(found))


def test_a_file_that_changes_meanwhile_is_noticed(path: Path) -> None:
    """Also while it is read, at its end at the latest."""
    path.write_text(f"id\n{A}\n{B}\n", encoding="utf-8")
    remaining = iter(wishlists.read(path))
    next(remaining)
    with path.open("a", encoding="utf-8") as file:
        file.write("another\n")
    with pytest.raises(errors.InvalidArgument, match="it was changed while it was read"):
        list(remaining)


def test_a_row_shows_no_values() -> None:
    """A row in a log must not quote a patient."""
    row = wishlists.Row(number=1, line=2, values={"reason": SECRET})
    assert SECRET not in repr(row)


def test_mappings_are_numbered_and_judged_like_rows() -> None:
    """Without a file there are no lines, and values may be what Python has for them."""
    at = datetime(2026, 12, 1, tzinfo=UTC)
    wanted: list[Any] = [{"appointment_id": A, "expires_at": at, "reason": None}, {"appointment_id": 1}, {}, 7]
    found = list(wishlists.rows(wanted))
    assert problems(found) == [(1, None, None), (2, None, None), (3, None, None), (4, "invalid_row", None)]
    assert found[0].values == {"appointment_id": A, "expires_at": at}
    assert [row.appointment_id for row in found] == [A, None, None, None]
    assert wishlists.meaning(found[3])


@pytest.mark.parametrize(
    ("values", "argument"),
    [
        ({"command": "explode"}, "command"),
        ({}, "command"),
        ({"command": "confirm", "start_time": NAIVE}, "start_time"),
        ({"command": "confirm", SECRET: ""}, "column"),
        ({"command": "cancel", "reason_type": "bored"}, "reason_type"),
        ({"command": "cancel", "reason": "\0"}, "reason"),
        ({"command": "reschedule"}, "start_time"),
        ({"command": "reschedule", "start_time": "tomorrow"}, "start_time"),
        ({"command": "confirm", "expires_at": NAIVE}, "expires_at"),
        ({"command": "confirm", "expires_at": "soon"}, "expires_at"),
        ({"command": "confirm", "expires_at": 7}, "expires_at"),
        ({"command": "confirm", "request_key": " "}, "request_key"),
        ({"command": "confirm", "appointment_id": None}, "appointment_id"),
    ],
)
def test_values_that_no_command_can_have_are_named_by_their_column(values: dict[str, Any], argument: str) -> None:
    """What is wrong is told, what stood there is not."""
    with pytest.raises(errors.InvalidArgument) as caught:
        wishlists.wish({"appointment_id": A} | values, actor="user:17", source="cli")
    assert caught.value.argument == argument
    assert SECRET not in str(caught.value)


def test_a_wish_has_the_row_s_values() -> None:
    """A start without an offset is the guard's to refuse, as for a single call."""
    made = wishlists.wish(
        {"appointment_id": A, "start_time": NAIVE, "request_key": "k", "expires_at": f"{NAIVE}-05:00"},
        command="reschedule",
        actor="user:17",
        source="cli",
    )
    assert (made.command, made.payload, made.request_key) == ("reschedule", {"start_time": NAIVE}, "k")


_CELLS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([A, B, C, "x/y", ""]), _CELLS), min_size=1, max_size=8))
def test_what_python_writes_is_read_again(
    tmp_path_factory: pytest.TempPathFactory, cells: list[tuple[str, str]]
) -> None:
    """Whatever is in the cells: each row comes once, in order, with its text word for word."""
    text = io.StringIO()
    csv.writer(text, quoting=csv.QUOTE_ALL).writerows([("appointment_id", "reason"), *cells])
    found = (
        rows(tmp_path_factory.mktemp("fuzz") / "x.csv", text.getvalue(), command="cancel")
        if any(any(cell) for cell in cells)
        else []
    )
    seen: dict[str, int] = {}
    expected = []
    for number, (appointment_id, reason) in enumerate((cell for cell in cells if any(cell)), start=1):
        if appointment_id in {A, B, C} and seen.setdefault(appointment_id, number) == number:
            expected.append(reason if reason.strip() else None)
        else:
            expected.append("problem")
    assert [row.values.get("reason") if row.values else "problem" for row in found] == expected


@settings(max_examples=300, deadline=None)
@given(content=st.binary(max_size=200), form=st.sampled_from(["csv", "jsonl"]), has_head=st.booleans())
def test_no_bytes_crash_the_reader(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, form: str, *, has_head: bool
) -> None:
    """They are rows, bad rows, or an error of ours."""
    path = tmp_path_factory.mktemp("fuzz") / "x"
    path.write_bytes((b"id,reason\n" if has_head else b"") + content)
    try:
        found = list(wishlists.read(path, form=form))
    except errors.InvalidArgument:
        return
    assert [row.number for row in found] == list(range(1, len(found) + 1))
    assert all((row.values is None) != (row.problem is None) for row in found)


_MANY = """
import sys
from pathlib import Path
from lifecycle import wishlists
found = wishlists.read(sys.argv[1])
sound = sum(row.problem is None for row in found)
peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
print(found.rows, sound, int(peak.split()[1]) // 1024)
"""


def test_memory_stays_flat(path: Path) -> None:
    """200,000 rows, half of them doubled, take little more memory than the interpreter itself."""
    with path.open("w", encoding="utf-8") as file:
        file.write("id\n")
        file.writelines(f"{number % 100_000:08}-0000-4000-8000-000000000000\n" for number in range(200_000))
    command = [sys.executable, "-c", _MANY, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=support.environment())  # noqa: S603 # ours
    total, sound, megabytes = map(int, done.stdout.split())
    assert (total, sound) == (200_000, 100_000)
    assert megabytes < 70
