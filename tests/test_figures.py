"""The figures, against plain Python over the raw rows that shares nothing with their SQL."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest

from lifecycle import database, errors
from lifecycle.reports import encoding, figures, quantiles
from lifecycle.reports.facts import Headline
from lifecycle.reports.filters import Filters
from tests import support
from tests import test_view_numbers as stories

if TYPE_CHECKING:
    from collections.abc import Iterable

    import sqlalchemy as sa

    from lifecycle import Lifecycle
    from lifecycle.reports.facts import CommandOutcomes, Figures, Refusal
    from lifecycle.sandbox import Sandbox

Row = dict[str, Any]
engine = stories.engine
raw = stories.raw

END = datetime(2028, 1, 1, tzinfo=UTC)
"""After everything that the stories tell."""

REFUSED_BY = {"command_refused": "guard", "command_rejected": "zocdoc"}
SETTLED = {"applied", "rejected", "not_sent"}


def computed(engine: sa.Engine, **given: Any) -> Figures:
    """Compute the figures; without an end, up to after everything."""
    own = database.Database(engine.url)
    found = figures.compute(own, Filters(**({"until": END} | given)))
    own.close()
    return found


def chosen(raw: dict[str, list[Row]], **given: Any) -> list[Row]:
    """Choose raw events as the filters would."""
    return [event for event in raw["audit_events"] if stories._is_meant(event, {"until": END} | given)]


def monday(instant: datetime) -> date:
    """Give the Monday of an instant's week, UTC."""
    day = instant.astimezone(UTC).date()
    return day - timedelta(days=day.weekday())


def enters(event: Row) -> bool:
    """Tell whether a tracked appointment came to another status."""
    return event["from_status"] not in (None, event["to_status"])


def test_figures_agree_with_plain_python(engine: sa.Engine, raw: dict[str, list[Row]]) -> None:
    """For the whole trail and every window and filter, where weeks, years and daylight saving turn."""
    counts = []
    for given in stories.WINDOWS:
        found, events = computed(engine, **given), chosen(raw, **given)
        _check_headline(found.headline, events, raw)
        assert found.entries == Counter(each["to_status"] for each in events if each["from_status"] is None)
        assert _weekly(found) == _weekly_expected(events)
        assert {_refused_key(each): each.tries for each in found.refusals} == _refused(events)
        assert _moves(found) == _moves_expected(events)
        assert {(each.week, each.reason_type, each.by): each.count for each in found.cancellations} == _cancelled(
            events
        )
        _check_confirmations(found, events, raw)
        _check_outcomes(found, events, raw)
        counts.append(found.confirmations.seconds.count)
    assert counts[0] > 10


def test_windows_have_weeks_a_window_before_and_what_stands_now(engine: sa.Engine, raw: dict[str, list[Row]]) -> None:
    """No gaps between weeks; a window before, as long and counted alike; what stands now, whatever the window."""
    _check_weeks(computed(engine, since=stories.EDGES[0], until=stories.EDGES[9]))
    for given in stories.WINDOWS:
        _check_before(engine, given)
    for given in ({}, {"until": stories.EDGES[0]}, {"actor": "nobody"}):
        _check_now(computed(engine, **given), raw)
    assert computed(engine, provider_location_id="pr_none|lo_none").now.in_doubt == 0
    _check_end(engine)
    _check_json(computed(engine, since=stories.EDGES[0]))


def test_what_a_human_settled_is_not_recovered(lifecycle: Lifecycle, sandbox: Sandbox) -> None:
    """Reading alone recovers; an answer that a human gave is told apart, and counts as applied."""
    appointment_id = support.tracked(lifecycle, sandbox, status="confirmed")
    support.lose_answer(sandbox, "update_status")
    with pytest.raises(errors.OutcomeUnknown):
        lifecycle.mark_arrived(appointment_id, actor="user:1")
    lifecycle.recover(wait=5)
    [found] = lifecycle.figures().outcomes
    assert (found.lost, found.attention, found.applied) == (1, 1, 0)
    [asked] = lifecycle.attention()
    lifecycle.resolve(asked.command_id, resolution="applied", reason_code="seen_in_portal", actor="user:2")
    [found] = lifecycle.figures().outcomes
    assert (found.lost, found.recovered, found.resolved, found.attention, found.applied) == (1, 0, 1, 0, 1)


def test_only_the_first_confirmation_of_a_booking_counts(lifecycle: Lifecycle, sandbox: Sandbox) -> None:
    """A booking that went back and was confirmed again had been waited for once."""
    appointment_id = support.tracked(lifecycle, sandbox, status="pending_booking")
    for status in ("confirmed", "pending_booking", "confirmed"):
        sandbox.change(appointment_id, status=status)
        lifecycle.track(appointment_id, actor="user:1")
    assert lifecycle.figures().confirmations.seconds.count == 1
    assert sum(move.count for move in lifecycle.figures().moves) == 3


def test_percentiles_are_interpolated() -> None:
    """As `percentile_cont` does; of nothing there is none."""
    assert quantiles.spread([4, 1, 2, 3]) == quantiles.Spread(4, 2.5, 3.7)
    assert quantiles.spread_of_counts({10: 1, 20: 3}) == quantiles.spread([20, 20, 10, 20])
    assert quantiles.spread([]) == quantiles.Spread(0, None, None)
    assert quantiles.spread([7]) == quantiles.Spread(1, 7, 7)


def test_a_number_on_an_edge_is_of_the_class_above() -> None:
    """Classes are below their edge, and the last holds everything else."""
    assert [each.count for each in quantiles.bins([0, 10, 9.9, 20, 25], [10, 20])] == [2, 1, 2]


def _check_confirmations(found: Figures, events: list[Row], raw: dict[str, list[Row]]) -> None:
    """From the booking, else the tracking, to the first `confirmed`; the classes and weeks add up to all."""
    waits = _waits(events, raw)
    seconds = [each for numbers in waits.values() for each in numbers]
    assert found.confirmations.seconds.count == len(seconds)
    if seconds:
        assert found.confirmations.seconds.median == pytest.approx(stories._percentile(seconds, 0.5))
        assert found.confirmations.seconds.p90 == pytest.approx(stories._percentile(seconds, 0.9))
    by_week = {each.week: each.seconds.count for each in found.confirmations.weeks if each.seconds.count}
    assert by_week == {week: len(numbers) for week, numbers in waits.items()}
    assert [each.count for each in found.confirmations.classes] == _classes(seconds, found)


def _check_outcomes(found: Figures, events: list[Row], raw: dict[str, list[Row]]) -> None:
    """By command: counts of events, fates of commands that lost an answer, and how long calls took."""
    assert {each.command for each in found.outcomes} == {each["command"] for each in events if each["command"]}
    for each in found.outcomes:
        own = [event for event in events if event["command"] == each.command]
        _check_headline(each, own, raw)
        durations = [event["duration_ms"] for event in own if event["duration_ms"] is not None]
        assert each.call_ms.count == len(durations)
        if durations:
            assert each.call_ms.p90 == pytest.approx(stories._percentile(durations, 0.9))
    slowest = sorted((each["duration_ms"] for each in events if each["duration_ms"] is not None), reverse=True)
    assert [each.duration_ms for each in found.slowest_calls] == slowest[:20]


def _check_weeks(found: Figures) -> None:
    weeks = [each.week for each in found.weeks]
    assert (weeks[0], weeks[-1]) == (date(2026, 10, 26), date(2027, 3, 8))
    assert {(after - before).days for before, after in pairwise(weeks)} == {7}
    assert [each.week for each in found.confirmations.weeks] == weeks


def _check_before(engine: sa.Engine, given: dict[str, Any]) -> None:
    found = computed(engine, **given)
    since, until = found.filters.since, found.filters.until
    if since is None or until is None:
        assert found.before is None
    else:
        assert found.before == computed(engine, **given | {"since": since - (until - since), "until": since}).headline


def _check_now(found: Figures, raw: dict[str, list[Row]]) -> None:
    """By the appointments' rows; of the filters only the appointment and the location count."""
    waiting = {row["appointment_id"] for row in raw["appointments"] if row["status"] == "pending_booking"}
    doubtful = {row["appointment_id"] for row in raw["appointments"] if row["in_doubt"]}
    assert doubtful
    now = found.now
    assert (now.in_doubt, now.attention, now.waiting) == (len(doubtful), len(doubtful), len(waiting))
    assert {each.appointment_id for each in now.doubts} == doubtful
    assert {each.appointment_id for each in now.longest_waiting} <= waiting


def _check_end(engine: sa.Engine) -> None:
    """Figures say which end was taken, so that whoever reads them knows."""
    own = database.Database(engine.url)
    found = figures.compute(own, Filters())
    own.close()
    assert found.filters.until == found.computed_at
    assert found.headline == computed(engine, until=found.computed_at).headline


def _check_json(found: Figures) -> None:
    """Instants are UTC text of one form, days are days, records are objects."""
    plain = json.loads(encoding.encoded(found))
    assert plain["filters"]["until"] == "2028-01-01T00:00:00.000000Z"
    assert plain["weeks"][0]["week"] == "2026-10-26"
    assert plain["headline"]["tracked"] > 0


def _check_headline(found: Headline | CommandOutcomes, events: list[Row], raw: dict[str, list[Row]]) -> None:
    """Compare counts by event, and what became of commands that lost an answer."""
    number = Counter(each["event"] for each in events)
    resolved = Counter(each["outcome"] for each in events if each["event"] == "command_resolved")
    applied = number["command_applied"] + number["arrival_marked"] + resolved["applied"]
    assert (found.accepted, found.applied) == (number["command_accepted"], applied)
    assert (found.refused, found.not_sent) == (number["command_refused"], number["command_not_sent"])
    assert found.rejected == number["command_rejected"] + resolved["rejected"]
    lost = {each["command_id"] for each in events if each["event"] == "outcome_lost"}
    asked = {each["command_id"] for each in raw["audit_events"] if each["event"] == "attention_needed"}
    settled = {each["command_id"] for each in raw["commands"] if each["state"] in SETTLED}
    assert (found.lost, found.recovered) == (len(lost), len((lost & settled) - asked))
    if isinstance(found, Headline):
        entered = Counter(each["to_status"] for each in events if enters(each))
        assert (found.tracked, found.arrivals) == (number["appointment_tracked"], number["arrival_marked"])
        assert (found.cancelled, found.no_shows) == (entered["cancelled"], entered["no_show"])
    else:
        assert found.lost == found.recovered + found.resolved + found.waiting + found.attention


def _weekly(found: Figures) -> dict[date, tuple[int, ...]]:
    counts = {
        each.week: (each.tracked, each.applied, each.refused, each.cancelled, each.no_shows) for each in found.weeks
    }
    return {week: numbers for week, numbers in counts.items() if any(numbers)}


def _weekly_expected(events: Iterable[Row]) -> dict[date, tuple[int, ...]]:
    found: defaultdict[date, list[int]] = defaultdict(lambda: [0] * 5)
    for event in events:
        week = found[monday(event["recorded_at"])]
        week[0] += event["event"] == "appointment_tracked"
        week[1] += event["event"] in {"command_applied", "arrival_marked"}
        week[2] += event["event"] == "command_refused"
        week[3] += enters(event) and event["to_status"] == "cancelled"
        week[4] += enters(event) and event["to_status"] == "no_show"
    return {week: tuple(numbers) for week, numbers in found.items() if any(numbers)}


def _refused_key(each: Refusal) -> tuple[Any, ...]:
    return each.command, each.status, each.refused_by, each.reason_code


def _refused(events: Iterable[Row]) -> Counter[tuple[Any, ...]]:
    return Counter(
        (each["command"], each["from_status"], REFUSED_BY[each["event"]], each["reason_code"])
        for each in events
        if each["event"] in REFUSED_BY
    )


def _moves(found: Figures) -> dict[tuple[Any, ...], tuple[Any, ...]]:
    return {
        (each.from_status, each.to_status, each.command, each.conforming): (
            each.count,
            pytest.approx(each.median_seconds, abs=1e-5),
            pytest.approx(each.p90_seconds, abs=1e-5),
        )
        for each in found.moves
    }


def _moves_expected(events: Iterable[Row]) -> dict[tuple[Any, ...], tuple[Any, ...]]:
    stood = defaultdict(list)
    for event in filter(stories._has_moved, events):
        key = (event["from_status"], event["to_status"], event["command"], event["conforming"])
        stood[key].append((event["recorded_at"] - event["from_status_since"]).total_seconds())
    return {
        key: (len(all_), stories._percentile(all_, 0.5), stories._percentile(all_, 0.9)) for key, all_ in stood.items()
    }


def _cancelled(events: Iterable[Row]) -> Counter[tuple[Any, ...]]:
    return Counter(
        (monday(each["recorded_at"]), each["reason_type"], "provider" if each["command"] is None else "ours")
        for each in events
        if enters(each) and each["to_status"] == "cancelled"
    )


def _waits(events: Iterable[Row], raw: dict[str, list[Row]]) -> dict[date, list[float]]:
    first: dict[str, Row] = {}
    for event in sorted(raw["audit_events"], key=lambda it: it["appointment_seq"]):
        if (event["from_status"], event["to_status"]) == ("pending_booking", "confirmed"):
            first.setdefault(event["appointment_id"], event)
    meant = {each["seq"] for each in events}
    rows = {row["appointment_id"]: row for row in raw["appointments"]}
    found = defaultdict(list)
    for appointment_id, event in first.items():
        if event["seq"] in meant:
            booked = rows[appointment_id]["booked_at"] or rows[appointment_id]["tracked_at"]
            found[monday(event["recorded_at"])].append(max((event["recorded_at"] - booked).total_seconds(), 0.0))
    return found


def _classes(seconds: list[float], found: Figures) -> list[int]:
    edges = [each.below for each in found.confirmations.classes if each.below is not None]
    places = [sum(edge <= number for edge in edges) for number in seconds]
    return [places.count(index) for index in range(len(edges) + 1)]
