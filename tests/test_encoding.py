"""The fast encoding of stored values is the encoding that events are hashed with, whatever is in them."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lifecycle import audit, columns, encoding
from tests import trail

ODD = (
    *("", " ", '"', "\\", "/", "\x00", "\x1f", "\x7f", "\u2028", "é", "用户", "🩺", "\ufeff", "a\nb\tc\rd\be\f"),
    *("null", "true", "%s", "{}", "</script>", "x" * 5_000),
)
TEXTS = [name for name in encoding.COLUMNS if name not in {"conforming", "details", "hash_version"}]


def event(**changes: Any) -> dict[str, Any]:
    """Make an event's columns."""
    plain: dict[str, Any] = {
        **dict.fromkeys(encoding.COLUMNS),
        "appointment_id": "a-1",
        "appointment_seq": 1,
        "event": "appointment_tracked",
        "to_status": "confirmed",
        "conforming": True,
        "actor": "user:17",
        "source": "api",
        "chart_version": "1.177-1",
        "recorded_at": "2026-12-01T14:00:00.000000Z",
        "details": {},
        "hash_version": 1,
        "prev_hash": "0" * 64,
    }
    return plain | changes


def as_stored(values: dict[str, Any]) -> list[Any]:
    """Give an event as SQLite stores it."""
    stored = values | {"details": json.dumps(values["details"]), "conforming": int(values["conforming"])}
    return [stored[name] for name in encoding.COLUMNS]


def assert_same(values: dict[str, Any]) -> None:
    """Check that three independent ways give one hash."""
    assert encoding.digest(as_stored(values)) == audit.digest(values) == trail.hash_of(values)


@pytest.mark.parametrize("name", TEXTS)
def test_each_column_is_encoded_as_it_is_hashed(name: str) -> None:
    """Odd texts, NULL and numbers, in every column."""
    for value in (*ODD, None, 0, -1, 2**63 - 1, -(2**63)):
        assert_same(event(**{name: value}))


@pytest.mark.parametrize(
    "details",
    [
        {"b": 1, "a": None, "é": [True, False, {"z": [], "y": {}}]},
        {"a": {"b": {"c": [1, [2, [3]]]}}, "quote": '"', "back": "\\", "odd": "\x00\u2028🩺"},
        {"big": 2**70, "negative": -(2**70), "fraction": 0.1, "small": 5e-324, "large": 1.7e308, "zero": -0.0},
        {str(number): number for number in range(200)},
        {"": ""},
    ],
)
def test_details_are_encoded_as_they_are_hashed(details: dict[str, Any]) -> None:
    """Nested, sorted, of any size."""
    assert_same(event(details=details))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
VALUES = st.none() | st.text() | st.integers(-(2**63), 2**63 - 1)


@settings(max_examples=200, deadline=None)
@given(
    values=st.fixed_dictionaries(dict.fromkeys(TEXTS, VALUES)),
    details=st.dictionaries(st.text(), JSON, max_size=4),
    conforming=st.booleans(),
)
def test_whatever_is_hashed_is_encoded_alike(
    values: dict[str, Any], details: dict[str, Any], *, conforming: bool
) -> None:
    """Any text, any number, any details."""
    assert_same(event(**values, details=details, conforming=conforming))


@pytest.mark.parametrize(
    "when",
    [
        datetime(2026, 12, 1, 14, tzinfo=UTC),
        datetime(2026, 12, 1, 14, 0, 0, 1, tzinfo=UTC),
        datetime(2026, 12, 1, 14, 0, 0, 120_000, tzinfo=UTC),
        datetime(1, 1, 1, tzinfo=UTC),
        datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
    ],
)
def test_an_instant_of_postgresql_is_written_as_it_is_hashed(when: datetime) -> None:
    """PostgreSQL leaves zeros at the end of a fraction out."""
    fraction = f".{when.microsecond:06}".rstrip("0").rstrip(".")
    assert encoding.instant(f"{when.isoformat(' ', 'seconds')[:19]}{fraction}+00") == columns.utc_text(when)


@pytest.mark.parametrize(
    "text", [None, "infinity", "-infinity", "0044-03-15 00:00:00+00 BC", "2026-12-01 14:00:00+01", "yesterday"]
)
def test_an_instant_that_cannot_be_written_stays(text: str | None) -> None:
    """It then fits no hash, and the row is found."""
    assert encoding.instant(text) == text


@pytest.mark.parametrize(
    "details",
    [None, 5, b"{}", "", "nonsense", "{", '{"a": 1, "a": 1}', '{"a": NaN}', '{"a": -Infinity}', '{"a": 1e999}'],
)
def test_details_that_no_event_can_have_are_malformed(details: object) -> None:
    """They are named, and never taken for something else; a key that is there twice shows readers two values."""
    stored = as_stored(event())
    stored[encoding.COLUMNS.index("details")] = details
    with pytest.raises(encoding.Malformed):
        encoding.digest(stored)


def test_half_a_letter_is_malformed() -> None:
    """A text that cannot be written as UTF-8 was never hashed."""
    with pytest.raises(encoding.Malformed):
        encoding.digest(as_stored(event(actor="\udcff")))


@pytest.mark.parametrize("value", [2, -1, None, "true", b"\x01", 0.5])
def test_a_truth_that_is_neither_has_another_hash(value: object) -> None:
    """Only 0 and 1 stand for false and true."""
    stored = as_stored(event())
    stored[encoding.COLUMNS.index("conforming")] = value
    assert encoding.digest(stored) not in {audit.digest(event(conforming=each)) for each in (True, False)}


def test_numbers_and_texts_are_told_apart() -> None:
    """A number that was stored as text is not the number that was hashed."""
    as_text = as_stored(event(http_status="200"))
    as_fraction = as_stored(event(http_status=200.0))
    assert audit.digest(event(http_status=200)) not in {encoding.digest(as_text), encoding.digest(as_fraction)}
