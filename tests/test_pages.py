"""Pages of audit events: complete, in order, in both directions, by any condition, and each by the right index."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from lifecycle import InvalidArgument, Lifecycle, OutcomeUnknown, TransitionRefused
from lifecycle.database import Database
from lifecycle.reports import pages
from lifecycle.reports.filters import Filters
from tests import support

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lifecycle import AuditEvent, EventPage
    from lifecycle.sandbox import Sandbox

HOSTILE = (
    "x' OR '1'='1",
    '"; DROP TABLE lifecycle_audit_events; --',
    "'; DROP TABLE lifecycle_audit_events; --",
    "%",
    "_" * 9,
    "user:%",
    "\\",
    ":actor",
    "%(actor)s",
    "é\u2019",
)
UNPRINTABLE = ("", " ", "a\x00b", "a\nb", "\x1b[31m", "x" * 256, "\u202e")
TEXTS = ("status", "event", "command", "actor", "source", "outcome", "provider_location_id")
COLUMNS = {"status": "to_status"}


@pytest.fixture
def stories(lifecycle: Lifecycle, sandbox: Sandbox) -> list[AuditEvent]:
    """Some appointments of three places with stories of several actors; gives all events, newest first."""
    for number in range(6):
        actor = f"user:{number % 3}"
        place = (None, "pr_1|lo_1", "pr_2|lo_2")[number % 3]
        found = support.tracked(lifecycle, sandbox, status="pending_booking", provider_location_id=place)
        lifecycle.confirm(found, actor=actor)
        with pytest.raises(TransitionRefused):
            lifecycle.confirm(found, actor=actor)
        if number % 2:
            lifecycle.cancel(found, actor=actor, reason_type="provider_not_available")
        else:
            sandbox.change(found, status="cancelled")
    support.lose_answer(sandbox, "cancel")
    with pytest.raises(OutcomeUnknown):
        lifecycle.cancel(support.tracked(lifecycle, sandbox), actor="user:1")
    lifecycle.sync()
    return newest_first(lifecycle)


def newest_first(lifecycle: Lifecycle) -> list[AuditEvent]:
    """Read all events by the feed, and order them as pages are."""
    return sorted(lifecycle.events(), key=lambda each: (each.recorded_at, each.seq), reverse=True)


def seqs(events: Any) -> list[int]:
    """Shorten events."""
    return [each.seq for each in events]


def walk(lifecycle: Lifecycle, *, limit: int, **filters: Any) -> list[EventPage]:
    """Turn pages to the end."""
    found = [lifecycle.audit_page(limit=limit, **filters)]
    while found[-1].next is not None:
        found.append(lifecycle.audit_page(cursor=found[-1].next, limit=limit, **filters))
    return found


@pytest.mark.parametrize("limit", [1, 7, 1000])
def test_pages_hold_every_event_once_newest_first(lifecycle: Lifecycle, stories: list[AuditEvent], limit: int) -> None:
    """Whatever their size; only the last one may be short."""
    found = walk(lifecycle, limit=limit)
    assert seqs(itertools.chain.from_iterable(page.events for page in found)) == seqs(stories)
    assert {len(page.events) for page in found[:-1]} <= {limit}


def test_going_back_gives_the_same_pages(lifecycle: Lifecycle, stories: list[AuditEvent]) -> None:
    """`previous` undoes `next`; the newest page has none before it."""
    forth = walk(lifecycle, limit=10, source="api")
    back = [forth[-1]]
    while back[-1].previous is not None:
        back.append(lifecycle.audit_page(cursor=back[-1].previous, limit=10, source="api"))
    assert [page.events for page in back] == [page.events for page in reversed(forth)]
    assert forth[0].previous is None
    assert back[-1].next == forth[0].next
    assert stories


def test_events_recorded_meanwhile_move_no_page(
    lifecycle: Lifecycle, sandbox: Sandbox, stories: list[AuditEvent]
) -> None:
    """A cursor is a place in the order; what is new comes before it."""
    first = lifecycle.audit_page(limit=5)
    support.tracked(lifecycle, sandbox)
    second = lifecycle.audit_page(limit=5, cursor=first.next)
    assert seqs(second.events) == seqs(stories[5:10])
    newer = lifecycle.audit_page(limit=5, cursor=lifecycle.audit_page(limit=5, cursor=first.next).previous)
    assert seqs(newer.events) == seqs(stories[:5])
    assert newer.previous is not None
    assert len(lifecycle.audit_page(cursor=newer.previous).events) == 1


def test_conditions_choose_what_plain_python_chooses(lifecycle: Lifecycle, stories: list[AuditEvent]) -> None:
    """Each one, each pair, and each three of them, values that are there and values that are not."""
    values = {
        name: sorted({getattr(each, COLUMNS.get(name, name)) or "" for each in stories} - {""})[:3]
        for name in ("appointment_id", *TEXTS)
    }
    values["actor"].append("nobody")
    for count in (1, 2, 3):
        for names in itertools.combinations(values, count):
            for chosen in itertools.islice(itertools.product(*(values[name] for name in names)), 0, None, 5):
                given: dict[str, Any] = dict(zip(names, chosen, strict=True))
                expected = [
                    each
                    for each in stories
                    if all(getattr(each, COLUMNS.get(name, name)) == value for name, value in given.items())
                ]
                assert seqs(lifecycle.audit(**given)) == seqs(expected), given


def test_windows_are_exact_to_the_microsecond(lifecycle: Lifecycle, stories: list[AuditEvent]) -> None:
    """`since` and `as_of` include their instant, `until` does not; all three at once are the narrowest of them."""
    at, tick = stories[7].recorded_at, timedelta(microseconds=1)
    same = [each for each in stories if each.recorded_at == at]
    earlier = [each for each in stories if each.recorded_at < at]
    later = [each for each in stories if each.recorded_at > at]
    assert seqs(lifecycle.audit(since=at)) == seqs(later + same)
    assert seqs(lifecycle.audit(since=at + tick)) == seqs(later)
    assert seqs(lifecycle.audit(until=at)) == seqs(earlier)
    assert seqs(lifecycle.audit(as_of=at)) == seqs(same + earlier)
    assert seqs(lifecycle.audit(since=at, until=at + tick)) == seqs(same)
    assert seqs(lifecycle.audit(since=at, until=at)) == []
    assert seqs(lifecycle.audit(since=at, until=at + tick, as_of=at - tick)) == []
    assert seqs(lifecycle.audit(actor="user:1", as_of=at, until=at)) == [
        each.seq for each in earlier if each.actor == "user:1"
    ]
    ends: dict[str, Any] = {"since": datetime.min.replace(tzinfo=UTC), "until": datetime.max.replace(tzinfo=UTC)}
    assert seqs(lifecycle.audit(**ends)) == seqs(stories)


def test_iterating_needs_no_memory_of_pages(
    lifecycle: Lifecycle, stories: list[AuditEvent], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The iterator reads on where it was, up to its limit, also beyond what one read gives."""
    monkeypatch.setattr(pages, "_WHILE_ITERATING", 4)
    assert seqs(lifecycle.audit()) == seqs(stories)
    for limit in (1, 4, 5, 11):
        assert seqs(lifecycle.audit(limit=limit)) == seqs(stories[:limit])


def test_a_page_looks_at_a_limited_number_of_events(
    lifecycle: Lifecycle, stories: list[AuditEvent], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where conditions rarely meet, pages are short, or empty, and none is the last before all was looked at."""
    expected = [each for each in stories if (each.source, each.to_status) == ("api", "cancelled")]
    for looked_at in (1, 2, 5):
        monkeypatch.setattr(pages, "LOOKED_AT", looked_at)
        found = walk(lifecycle, limit=3, source="api", status="cancelled")
        assert seqs(itertools.chain.from_iterable(page.events for page in found)) == seqs(expected)
        assert any(len(page.events) < 3 for page in found[:-1])
        assert seqs(lifecycle.audit(source="api", status="cancelled")) == seqs(expected)
        back = [found[-1]]
        while back[-1].previous is not None:
            back.append(lifecycle.audit_page(cursor=back[-1].previous, limit=3, source="api", status="cancelled"))
        assert seqs(itertools.chain.from_iterable(page.events for page in reversed(back))) == seqs(expected)


def test_hostile_values_match_nothing(lifecycle: Lifecycle, stories: list[AuditEvent]) -> None:
    """Quotes, wildcards, parameter marks and SQL are text like any other, alone and beside another condition."""
    for name, value in itertools.product(TEXTS, HOSTILE):
        for more in ({}, {"actor" if name != "actor" else "source": "user:1"}):
            given: dict[str, Any] = {name: value, **more}
            assert list(lifecycle.audit(**given)) == []
    assert seqs(lifecycle.audit()) == seqs(stories)


def test_control_characters_are_refused(sqlite_url: str) -> None:
    """No event has them, and no database is asked."""
    with Lifecycle(sqlite_url) as it:
        for name, value in itertools.product((*TEXTS, "appointment_id"), UNPRINTABLE):
            given: dict[str, Any] = {name: value}
            with pytest.raises(InvalidArgument) as refused:
                it.audit(**given)
            assert refused.value.argument == name


@pytest.mark.parametrize(
    "cursor",
    [
        "",
        "x",
        "v1-earlier-20261301T000000000000Z-1",
        "v1-earlier-20261201T000000000000Z-",
        "v1-sideways-20261201T000000000000Z-1",
        "v1-earlier-20261201T000000000000Z-1; DROP TABLE lifecycle_audit_events",
        "v1-earlier-20261201T000000000000Z-1234567890123456789",
        "v1-earlier-２0261201T000000000000Z-1",  # noqa: RUF001 # the point
        "v1-17-0123456789abcdef",
        7,
    ],
)
def test_other_cursors_are_refused(sqlite_url: str, cursor: Any) -> None:
    """One of the feed's, a month too many, another sort."""
    with Lifecycle(sqlite_url) as it, pytest.raises(InvalidArgument, match="no cursor of a page"):
        it.audit_page(cursor=cursor)


@pytest.mark.parametrize("limit", [0, 1001, 1.5, "9"])
def test_a_page_has_1_to_1000_events(sqlite_url: str, limit: Any) -> None:
    """Others are refused, whether they are a page's or an iterator's."""
    with Lifecycle(sqlite_url) as it:
        with pytest.raises(InvalidArgument, match="1 to 1000"):
            it.audit_page(limit=limit)
        if limit != 1001:
            with pytest.raises(InvalidArgument, match="whole number"):
                it.audit(limit=limit)


@pytest.fixture
def database(lifecycle: Lifecycle, database_url: str) -> Iterator[Database]:
    """The test's database, as pages are handed it."""
    del lifecycle
    made = Database(database_url)
    yield made
    made.close()


def plans(database: Database, filters: Filters, **given: Any) -> list[str]:
    """Read a page, and explain each statement that it sent, with the very same values."""
    sent: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, statement: str, values: Any, *_more: Any) -> None:
        sent.append((statement, values))

    sa.event.listen(database.engine, "before_cursor_execute", note)
    pages.page(database, filters, **given)
    sa.event.remove(database.engine, "before_cursor_execute", note)
    with database.engine.connect() as connection:
        if database.is_postgres:  # a table of some hundred rows is read as a whole otherwise
            connection.exec_driver_sql("SET enable_seqscan = off")
            connection.exec_driver_sql("SET enable_bitmapscan = off")
        explain = "EXPLAIN" if database.is_postgres else "EXPLAIN QUERY PLAN"
        return [
            "\n".join(str(row[-1]) for row in connection.exec_driver_sql(f"{explain} {statement}", values))
            for statement, values in sent
            if "lifecycle_audit_events" in statement
        ]


def assert_by(plan: str, index: str, database: Database) -> None:
    """Check that a statement reads by this index and nothing else, in its order."""
    name = f"ix_lifecycle_audit_events_{index}"
    assert f"using {name.lower()}" in plan.lower().replace("index ", "").replace("covering ", ""), plan
    assert plan.count("ix_lifecycle_audit_events") == 1, plan
    assert "TEMP B-TREE" not in plan
    if database.is_postgres:
        assert "Sort " not in plan.replace("Incremental Sort ", "").replace("Sort Key", "").replace("Presorted", "")


def test_one_condition_is_read_by_its_index(database: Database, stories: list[AuditEvent]) -> None:
    """In the order of the page: no sort, no other index, on the first page and on a later one, with a window."""
    window: dict[str, Any] = {"since": datetime(2026, 1, 1, tzinfo=UTC), "as_of": datetime(2100, 1, 1, tzinfo=UTC)}
    for name, cursor in itertools.product(TEXTS, (None, "v1-earlier-20991201T000000000000Z-9")):
        value = next(found for each in stories if (found := getattr(each, COLUMNS.get(name, name))))
        [plan] = plans(database, Filters(**{name: value}, **window), cursor=cursor)
        assert_by(plan, f"{COLUMNS.get(name, name)}_recorded_at", database)


@pytest.mark.usefixtures("stories")
def test_no_condition_is_read_by_time(database: Database) -> None:
    """The index of `recorded_at`, forwards and backwards."""
    for cursor in (None, "v1-earlier-20991201T000000000000Z-9", "v1-later-20001201T000000000000Z-9"):
        [plan] = plans(database, Filters(), cursor=cursor)
        assert_by(plan, "recorded_at", database)


def test_an_appointment_is_read_by_its_own_index(database: Database, stories: list[AuditEvent]) -> None:
    """Whatever else is asked: it has few events, which are sorted."""
    given: dict[str, Any] = {"actor": "user:1", "event": "command_applied", "since": datetime(2026, 1, 1, tzinfo=UTC)}
    [plan] = plans(database, Filters(appointment_id=stories[0].appointment_id, **given))
    assert "appointment_id" in plan
    assert "ix_lifecycle_audit_events" not in plan


def test_the_rarest_condition_leads(
    database: Database, stories: list[AuditEvent], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is asked by its own index how far its first events reach; then the one that reaches furthest is read."""
    monkeypatch.setattr(pages, "LOOKED_AT", 4)
    leads = set()
    for given in (
        {"outcome": "unknown", "command": "cancel", "source": "api"},
        {"status": "confirmed", "actor": "user:2"},
        {"source": "sync", "event": "appointment_observed"},
        {"source": "api", "status": "confirmed", "event": "command_refused"},
    ):
        probe, plan = plans(database, Filters(**given))  # type: ignore[arg-type] # text
        column = COLUMNS.get(lead := expected_lead(stories, given), lead)
        leads.add(lead)
        assert_by(plan, f"{column}_recorded_at", database)
        for name in given:
            assert f"ix_lifecycle_audit_events_{COLUMNS.get(name, name)}_recorded_at" in probe
        assert "TEMP B-TREE" not in probe
    assert len(leads) > 2


def expected_lead(stories: list[AuditEvent], given: dict[str, str]) -> str:
    """Choose by counting: what has fewer than four events, else whose fourth newest event is the oldest."""
    reach = {}
    for name, value in given.items():
        of_it = [each.recorded_at for each in stories if getattr(each, COLUMNS.get(name, name)) == value]
        if len(of_it) < 4:
            return name
        reach[name] = of_it[3]
    return min(reach, key=reach.__getitem__)
