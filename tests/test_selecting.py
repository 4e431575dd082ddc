"""Conditions that choose appointments: a small language, values only as bound parameters."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import pytest

from lifecycle import errors, selecting
from tests import support

if TYPE_CHECKING:
    from lifecycle import Lifecycle
    from lifecycle.sandbox import Sandbox

NEW_YORK = ZoneInfo("America/New_York")


def parsed(*texts: str) -> list[selecting.Condition]:
    """Read conditions."""
    return [selecting.parse(text, zone=NEW_YORK) for text in texts]


def test_conditions_are_read_word_by_word() -> None:
    """Blanks around the parts do not count; an instant without an offset is of the zone."""
    assert parsed("status=confirmed", " practice_id != pc 1 ", "provider_location_id=pr_a|lo_b") == [
        selecting.Condition("status", "=", "confirmed"),
        selecting.Condition("practice_id", "!=", "pc 1"),
        selecting.Condition("provider_location_id", "=", "pr_a|lo_b"),
    ]
    assert parsed("start_time>=2026-12-01", "start_time < 2026-12-01T09:00:00Z") == [
        selecting.Condition("start_time", ">=", datetime(2026, 12, 1, 5, tzinfo=UTC)),
        selecting.Condition("start_time", "<", datetime(2026, 12, 1, 9, tzinfo=UTC)),
    ]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "it is no condition"),
        ("status", "it is no condition"),
        ("status=", "it is no condition"),
        ("status==confirmed", None),
        ("status>confirmed", "status cannot be compared by >"),
        ("start_time=2026-12-01", "start_time cannot be compared by ="),
        ("patient=Doe", "there is no field patient; status, provider_location_id, practice_id, visit_reason_id"),
        ("1=1", "it is no condition"),
        ("start_time>=soon", "use ISO 8601"),
        (f"status={'x' * 300}", "at most 255"),
        ("status=a\nb", "it is no condition"),
    ],
)
def test_what_is_no_condition_is_refused_with_what_there_is(text: str, told: str | None) -> None:
    """Fields and comparisons are words of a list; a second equals sign belongs to the value."""
    if told is None:
        assert parsed(text) == [selecting.Condition("status", "=", "=confirmed")]
        return
    with pytest.raises(errors.InvalidArgument) as caught:
        parsed(text)
    assert caught.value.argument == "where"
    assert told in (caught.value.problem or "") or "printable text" in caught.value.problem


def test_appointments_are_chosen_by_all_conditions(lifecycle: Lifecycle, sandbox: Sandbox) -> None:
    """Of several = on one field one must hold; what is unequal may be unknown; a start is compared as an instant."""
    early, late = "2026-12-01T08:00:00-05:00", "2026-12-01T15:00:00+01:00"
    a = support.tracked(lifecycle, sandbox, status="confirmed", start_time=early)
    b = support.tracked(lifecycle, sandbox, status="rescheduled", start_time=late)
    c = support.tracked(lifecycle, sandbox, status="cancelled", start_time=late)

    def chosen(*texts: str) -> list[str]:
        return list(lifecycle.chosen(parsed(*texts)))

    assert chosen() == sorted([a, b, c])
    assert chosen("status=confirmed") == [a]
    assert chosen("status=confirmed", "status=rescheduled") == sorted([a, b])
    assert chosen("status!=confirmed", "status!=cancelled") == [b]
    assert chosen("start_time>2026-12-01T13:00:00Z") == sorted([b, c])
    assert chosen("start_time>=2026-12-01T13:00:00Z", "start_time<2026-12-01T14:00:00Z") == [a]
    assert chosen("start_time<=2026-12-01T14:00:00Z", "status=cancelled", "booked_with=machine") == [c]
    assert chosen("practice_id!=nowhere") == sorted([a, b, c])
    assert chosen("status=confirmed' OR '1'='1") == []


def test_what_is_not_told_is_unequal_to_everything(lifecycle: Lifecycle, sandbox: Sandbox, database_url: str) -> None:
    """SQL's NULL would hide such an appointment from != otherwise."""
    a = support.tracked(lifecycle, sandbox)
    support.query(database_url, "UPDATE lifecycle_appointments SET practice_id = NULL")
    assert list(lifecycle.chosen(parsed("practice_id!=pc_1"))) == [a]


def test_more_appointments_than_are_read_at_a_time(
    lifecycle: Lifecycle, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pages meet without a gap, also where the last one is full."""
    monkeypatch.setattr(selecting, "_PAGE", 2)
    ids = sorted(support.tracked(lifecycle, sandbox) for _ in range(4))
    assert list(lifecycle.chosen(parsed())) == ids
