"""The feed gives every committed event once, in order, whatever order PostgreSQL commits them in."""

from __future__ import annotations

import csv
import itertools
import json
import signal
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, contextmanager
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import pytest
import sqlalchemy as sa

from lifecycle import (
    AuditEvent,
    ConfigurationError,
    DatabaseUnavailable,
    FeedEvent,
    InvalidArgument,
    Lifecycle,
    TransitionRefused,
    audit,
    database,
    points,
    writers,
)
from lifecycle.points import Point
from tests import support
from tests.conftest import _execute
from tests.crashes.grounds import PostgresGround
from tests.support import ACTOR
from tests.test_cli import assert_error, invoke

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lifecycle.sandbox import Sandbox

    Reader = Callable[[sa.Connection, int], list[int]]

ENTRY = audit.Entry(event=audit.Event.COMMAND_REFUSED, actor=ACTOR, source="api", outcome="refused")
MANY = 1_100
"""More than two pages."""


class Writer:
    """A transaction that appends events when the test says so. Leaving the block without `commit` rolls back."""

    def __init__(self, url: str, appointment_id: str) -> None:
        self._stack = ExitStack()
        self._database = self._stack.enter_context(_closing(database.Database(url)))
        self.connection = self._stack.enter_context(self._database.engine.connect())
        if not self._database.is_postgres:
            self.connection.exec_driver_sql("BEGIN IMMEDIATE")
        self._locked = audit.hold(self._database, self.connection, appointment_id)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def append(self, count: int = 1) -> None:
        """Insert events, which takes their `seq`."""
        for _ in range(count):
            self._locked = audit.record(self.connection, self._locked, ENTRY)

    def commit(self) -> None:
        """Make them visible."""
        self.connection.commit()


@contextmanager
def _closing(made: database.Database) -> Iterator[database.Database]:
    yield made
    made.close()


def add(url: str, appointment_id: str, count: int) -> None:
    """Append so many events in one transaction."""
    with Writer(url, appointment_id) as writer:
        writer.append(count)
        writer.commit()


def stored(url: str) -> list[int]:
    """Give every `seq` that is committed, in order."""
    return [row["seq"] for row in support.query(url, "SELECT seq FROM lifecycle_audit_events ORDER BY seq")]


def seqs(found: Iterator[FeedEvent]) -> list[int]:
    """Give the `seq` of each event."""
    return [event.seq for event in found]


def naive(connection: sa.Connection, after: int) -> list[int]:
    """Read as one would at first: everything that is visible after the last one."""
    query = sa.text("SELECT seq FROM lifecycle_audit_events WHERE seq > :after ORDER BY seq")
    return list(connection.execute(query, {"after": after}).scalars())


def by_snapshot(connection: sa.Connection, after: int) -> list[int]:
    """Read as one would at the second try: only when every transaction before the snapshot's end has ended."""
    last = connection.exec_driver_sql("SELECT last_value FROM lifecycle_audit_events_seq_seq").scalar_one()
    end = connection.exec_driver_sql("SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint").scalar_one()
    oldest = connection.exec_driver_sql("SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint").scalar_one()
    return [seq for seq in naive(connection, after) if seq <= last] if oldest >= end else []


def test_events_are_the_trail_with_cursors(lifecycle: Lifecycle, sandbox: Sandbox) -> None:
    """Every event of every appointment, in the order of their recording, with all that the history has."""
    first, second = (support.tracked(lifecycle, sandbox) for _ in range(2))
    lifecycle.confirm(first, actor=ACTOR)
    lifecycle.cancel(second, actor=ACTOR)
    found = list(lifecycle.events())
    expected = sorted(lifecycle.history(first) + lifecycle.history(second), key=lambda event: event.seq)
    names = [field.name for field in fields(AuditEvent)]
    assert [[getattr(event, name) for name in names] for event in found] == [
        [getattr(event, name) for name in names] for event in expected
    ]
    assert len({event.cursor for event in found}) == len(found) == 6


def test_resume_after_any_event(lifecycle: Lifecycle, sandbox: Sandbox, database_url: str) -> None:
    """A cursor gives exactly what follows its event, also in another process and after more was recorded."""
    appointment_id = support.tracked(lifecycle, sandbox)
    add(database_url, appointment_id, 8)
    found = list(lifecycle.events())
    add(database_url, appointment_id, 2)
    everything = stored(database_url)
    with support.opened(database_url, None) as another:
        for place, event in enumerate(found, 1):
            assert seqs(another.events(after=event.cursor)) == everything[place:]


def test_pages_and_limits(lifecycle: Lifecycle, sandbox: Sandbox, database_url: str) -> None:
    """Pages do not show; a limit ends the iteration at that event, wherever pages end."""
    add(database_url, support.tracked(lifecycle, sandbox), MANY - 1)
    everything = stored(database_url)
    assert len(everything) == MANY
    assert seqs(lifecycle.events()) == everything
    for limit in (1, 499, 500, 501, 1000, MANY, MANY + 1):
        assert seqs(lifecycle.events(limit=limit)) == everything[:limit]


def test_no_transaction_is_open_while_the_caller_works(
    lifecycle: Lifecycle, sandbox: Sandbox, database_url: str
) -> None:
    """Between two events, whatever page they are of, no connection is held and writers come through."""
    appointment_id = support.tracked(lifecycle, sandbox)
    add(database_url, appointment_id, MANY - 1)
    pool: Any = lifecycle._resources.database.engine.pool
    for place, _ in enumerate(lifecycle.events()):
        assert pool.checkedout() == 0
        if place in {0, 499, 500}:
            add(database_url, appointment_id, 1)


def test_an_empty_feed(lifecycle: Lifecycle) -> None:
    """Without events there is nothing, and the cursor to go on from is that of the beginning."""
    assert list(lifecycle.events()) == []
    assert lifecycle.feed_cursor() is None


def test_from_now_on(lifecycle: Lifecycle, sandbox: Sandbox, database_url: str) -> None:
    """The feed's cursor leaves out what is recorded already, and nothing else."""
    appointment_id = support.tracked(lifecycle, sandbox)
    cursor = lifecycle.feed_cursor()
    assert cursor == list(lifecycle.events())[-1].cursor
    assert list(lifecycle.events(after=cursor)) == []
    add(database_url, appointment_id, 3)
    assert seqs(lifecycle.events(after=cursor)) == stored(database_url)[1:]


@pytest.mark.parametrize(
    "cursor",
    [
        5,
        b"v1-1-0123456789abcdef",
        "",
        "now",
        "1",
        "v1-1",
        "v2-1-0123456789abcdef",
        "v1-0-0123456789abcdef",
        "v1-1-0123456789ABCDEF",
        "v1-\u0661-0123456789abcdef",
        f"v1-{'9' * 19}-0123456789abcdef",
        "v1-1-0123456789abcdef\n",
    ],
)
def test_what_is_no_cursor_is_refused(lifecycle: Lifecycle, cursor: Any) -> None:
    """At the call, not at the first event, and with what to do instead."""
    with pytest.raises(InvalidArgument, match="after: this is no cursor of the feed; pass one as an event gave it"):
        lifecycle.events(after=cursor)


@pytest.mark.parametrize("limit", [0, -1, 1.5, "3"])
def test_what_is_no_limit_is_refused(lifecycle: Lifecycle, limit: Any) -> None:
    """A limit counts events."""
    with pytest.raises(InvalidArgument, match="limit: a whole number from 1 is needed"):
        lifecycle.events(limit=limit)


def test_a_cursor_of_another_database_is_refused(lifecycle: Lifecycle, sandbox: Sandbox, database_url: str) -> None:
    """One beyond the end, the largest included, and one whose event is another here."""
    add(database_url, support.tracked(lifecycle, sandbox), 1)
    first, last = lifecycle.events()
    beyond, largest = (last.cursor.replace("v1-2-", f"v1-{seq}-") for seq in (3, 10**18 - 1))
    other = first.cursor.replace("v1-1-", "v1-2-")
    for cursor in (beyond, largest, other):
        with pytest.raises(InvalidArgument, match="not in this database"):
            lifecycle.events(after=cursor)


@pytest.mark.parametrize("reader", [naive, by_snapshot])
def test_a_lower_seq_that_commits_later_is_not_lost(
    postgres_url: str, lifecycle_on_postgres: Lifecycle, sandbox: Sandbox, reader: Reader
) -> None:
    """The race, step by step. Readers that trust what is visible, or the end of a snapshot, skip an event for ever.

    `higher` gets its transaction id first and its `seq` last. When it has committed, the id of `lower` is the end of
    a snapshot, so nothing before that end is running.
    """
    lifecycle = lifecycle_on_postgres
    first, second = (support.tracked(lifecycle, sandbox) for _ in range(2))
    cursor = lifecycle.feed_cursor()
    engine = sa.create_engine(postgres_url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection, Writer(postgres_url, first) as higher, Writer(postgres_url, second) as lower:
        lower.append()
        higher.append()
        higher.commit()
        skipping = reader(connection, 2)
        held = list(lifecycle.events(after=cursor))
        lower.commit()
        skipping += reader(connection, skipping[-1])
    engine.dispose()
    assert skipping == [4]
    assert held == []
    assert seqs(lifecycle.events(after=cursor)) == [3, 4]


def test_events_before_the_gap_are_delivered(
    postgres_url: str, lifecycle_on_postgres: Lifecycle, sandbox: Sandbox
) -> None:
    """A stuck writer holds up what comes after its event, for a second a call, and nothing else; then it is told."""
    lifecycle = lifecycle_on_postgres
    first, second = (support.tracked(lifecycle, sandbox) for _ in range(2))
    with Writer(postgres_url, first) as stuck:
        stuck.append()
        add(postgres_url, second, 1)
        took: list[float] = []
        while not took or (took[-1] > 3 and len(took) < 3):  # a machine that stalls makes a call longer, not shorter
            begun = time.monotonic()
            found = list(lifecycle.events())
            took.append(time.monotonic() - begun)
        assert 0.9 < took[-1] < 3
        with pytest.raises(DatabaseUnavailable, match="a transaction that appends audit events has been open"):
            lifecycle.feed_cursor()
        stuck.commit()
    assert [event.seq for event in found] == [1, 2]
    assert seqs(lifecycle.events(after=found[-1].cursor)) == [3, 4]


def test_a_gap_that_nobody_can_fill_is_passed(
    postgres_url: str, lifecycle_on_postgres: Lifecycle, sandbox: Sandbox
) -> None:
    """What was rolled back leaves a gap; transactions that write something else do not hold the feed up at it."""
    lifecycle = lifecycle_on_postgres
    first, _ = (support.tracked(lifecycle, sandbox) for _ in range(2))
    engine = sa.create_engine(postgres_url)
    with Writer(postgres_url, first) as writer:
        writer.append(3)
    add(postgres_url, first, 1)
    with engine.begin() as unrelated:
        unrelated.exec_driver_sql("UPDATE lifecycle_installation SET zocdoc_environment = zocdoc_environment")
        took: list[float] = []
        for _ in range(3):
            begun = time.monotonic()
            assert seqs(lifecycle.events()) == [1, 2, 6]
            took.append(time.monotonic() - begun)
        assert min(took) < 0.9  # else it is waited for, each time
    engine.dispose()


def test_a_writer_that_ends_while_it_is_waited_for(
    postgres_url: str, lifecycle_on_postgres: Lifecycle, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same call delivers what it committed, in its place, and what others appended meanwhile does not delay it."""
    lifecycle = lifecycle_on_postgres
    first, second, third = (support.tracked(lifecycle, sandbox) for _ in range(3))
    monkeypatch.setattr(writers, "_PATIENCE", 60.0)  # this one ends; a test that stalls does not make it stuck
    with Writer(postgres_url, first) as slow, Writer(postgres_url, third) as later:
        slow.append()
        add(postgres_url, second, 1)
        with support.in_background(lambda: seqs(lifecycle.events())) as results:
            time.sleep(0.2)
            later.append()
            slow.commit()
    assert results == [[1, 2, 3, 4, 5]]


class GivenUp(Exception):
    """A writer rolls back."""


def pausing() -> Callable[[Point], None]:
    """Make a hook that stops each writer for 0 to 30 ms between its event and its commit; one of eight gives up."""
    numbers = itertools.count()

    def pause(point: Point) -> None:
        if point is Point.AUDIT_INSERTED:
            number = next(numbers)
            time.sleep(number * 7 % 31 / 1000)
            if number % 8 == 5:
                raise GivenUp

    return pause


def following(read: Callable[[int], list[int]], is_over: threading.Event) -> list[int]:
    """Read what comes after the last one again and again, and once more when it is over."""
    found = [0]
    while not is_over.wait(0.003):
        found += read(found[-1])
    return found[1:] + read(found[-1])


def test_no_event_is_skipped_while_many_write(
    postgres_url: str, lifecycle_on_postgres: Lifecycle, sandbox: Sandbox
) -> None:
    """Writers pause between their event and its commit, some give up: the feed has every event in order, live.

    A reader that trusts what is visible loses events at the same time, so the schedule is one that can be failed.
    """
    lifecycle = lifecycle_on_postgres
    mine = [support.tracked(lifecycle, sandbox, status="confirmed") for _ in range(4)]
    engine = sa.create_engine(postgres_url, isolation_level="AUTOCOMMIT")
    cursors: dict[int, str | None] = {0: None}
    is_over = threading.Event()

    def feed(after: int) -> list[int]:
        found = list(lifecycle.events(after=cursors[after]))
        cursors.update((event.seq, event.cursor) for event in found)
        return [event.seq for event in found]

    def write(index: int) -> None:
        for number in range(50):
            if number == 40:  # the feed is live while there is still something to write
                support.until(lambda: len(cursors) > 100, seconds=60)
            with pytest.raises((TransitionRefused, GivenUp)):
                lifecycle.confirm(mine[index], actor=ACTOR)

    with (
        engine.connect() as connection,
        support.in_background(lambda: following(feed, is_over)) as fed,
        support.in_background(lambda: following(lambda after: naive(connection, after), is_over)) as trusted,
    ):
        try:
            with points.armed(pausing()):
                assert support.together(4, write) == [None] * 4
            live = len(cursors)
        finally:
            is_over.set()
    engine.dispose()
    everything = stored(postgres_url)
    assert len(everything) == 4 + 200 - 25
    assert fed == [everything]
    assert live > 100
    assert set(trusted[0]) < set(everything)


def test_a_sequence_with_a_cache_is_refused(postgres_url: str, lifecycle_on_postgres: Lifecycle) -> None:
    """Then sessions hold numbers in reserve, and a low one may be used at any time."""
    support.query(postgres_url, "ALTER SEQUENCE lifecycle_audit_events_seq_seq CACHE 20")
    for call in (lifecycle_on_postgres.events, lifecycle_on_postgres.feed_cursor):
        with pytest.raises(ConfigurationError, match="alter it to CACHE 1"):
            call()


def test_prepared_transactions_and_replicas(client: Any, sandbox: Sandbox) -> None:
    """A writer that is prepared while it is waited for is still one to wait for; a read replica is refused."""
    with PostgresGround() as ground:
        _execute(sa.make_url(ground.url), "ALTER SYSTEM SET max_prepared_transactions = 2")
        ground.stop("fast")
        ground.start()
        with support.opened(ground.url, client) as lifecycle:
            first, second = (support.tracked(lifecycle, sandbox) for _ in range(2))
            with Writer(ground.url, first) as writer:
                writer.append()
                add(ground.url, second, 1)
                with support.in_background(lambda: seqs(lifecycle.events())) as results:
                    time.sleep(0.2)
                    writer.connection.exec_driver_sql("PREPARE TRANSACTION 'left'")
            assert results == [seqs(lifecycle.events())] == [[1, 2]]
            _execute(sa.make_url(ground.url), "COMMIT PREPARED 'left'")
            assert seqs(lifecycle.events()) == [1, 2, 3, 4]
        ground.stop("fast")
        Path(ground._folder, "standby.signal").touch()
        ground.start()
        with support.opened(ground.url, None) as lifecycle:
            assert lifecycle.get(first).appointment_id == first
            with pytest.raises(ConfigurationError, match="read the feed from the primary"):
                lifecycle.events()


def test_sqlite_commits_in_the_order_of_seq(sqlite_url: str, client: Any, sandbox: Sandbox) -> None:
    """What a rollback gave back is used again, so there is no gap to wait at."""
    with support.opened(sqlite_url, client) as lifecycle:
        appointment_id = support.tracked(lifecycle, sandbox)
        with Writer(sqlite_url, appointment_id) as writer:
            writer.append(3)
            assert seqs(lifecycle.events()) == [1]
        add(sqlite_url, appointment_id, 2)
        assert seqs(lifecycle.events()) == [1, 2, 3]


@pytest.fixture
def lifecycle_on_postgres(postgres_url: str, client: Any) -> Iterator[Lifecycle]:
    """The product on PostgreSQL."""
    with support.opened(postgres_url, client) as made:
        yield made


@pytest.fixture
def shell(lifecycle: Lifecycle, sandbox: Sandbox, database_url: str) -> dict[str, str | None]:
    """Three events, and the variables of a command line that reads them."""
    add(database_url, support.tracked(lifecycle, sandbox, appointment_id="b-1"), 2)
    return {"LIFECYCLE_DATABASE_URL": database_url}


def test_the_command_prints_each_form(shell: dict[str, str | None]) -> None:
    """The same events in the same order, each with its cursor; a cursor resumes, a limit ends."""
    forms = {form: invoke("events", "--format", form, **shell).stdout for form in ("json", "jsonl", "csv", "table")}
    rows = json.loads(forms["json"])
    assert [row["seq"] for row in rows] == [1, 2, 3]
    assert list(rows[0]) == [field.name for field in fields(FeedEvent)]
    assert [json.loads(line) for line in forms["jsonl"].splitlines()] == rows
    cursors = [row["cursor"] for row in rows]
    assert [row["cursor"] for row in csv.DictReader(forms["csv"].splitlines())] == cursors
    assert [line.split()[0] for line in invoke("events", **shell).stdout.splitlines()[1:]] == cursors
    rest = invoke("events", "--after", cursors[0], "--limit", "1", "--format", "jsonl", **shell)
    assert json.loads(rest.stdout)["cursor"] == cursors[1]
    assert invoke("events", "--after", "now", "--format", "json", **shell).stdout == "[]\n"


def test_the_command_refuses_what_it_cannot_do(shell: dict[str, str | None]) -> None:
    """A cursor that is none, and a form that needs an end where there is none."""
    assert_error(invoke("events", "--after", "yesterday", **shell), 2, "after: this is no cursor of the feed")
    endless = invoke("events", "--follow", "--format", "json", **shell)
    assert endless.exit_code == 2
    assert "use jsonl or csv" in endless.stderr


@pytest.mark.parametrize("form", ["jsonl", "csv"])
def test_following_ends_at_its_limit(shell: dict[str, str | None], form: str) -> None:
    """With both, the command ends after so many events."""
    done = invoke("events", "--follow", "--limit", "2", "--format", form, **shell)
    assert (done.exit_code, len(done.stdout.splitlines())) == (0, 2 + (form == "csv"))


def test_following_prints_at_once_and_ends_with_ctrl_c(
    shell: dict[str, str | None], lifecycle: Lifecycle, database_url: str
) -> None:
    """Each event is a line in the pipe as soon as it is read; Ctrl-C ends without a traceback."""
    with _following(shell) as process:
        printed = _lines(process, 3)
        add(database_url, "b-1", 1)
        printed += _lines(process, 1)
        process.send_signal(signal.SIGINT)
        rest, said = process.communicate(timeout=20)
    assert [json.loads(line)["cursor"] for line in printed] == [event.cursor for event in lifecycle.events()]
    assert (process.returncode, rest, said) == (130, "", "Interrupted.\n")


def test_following_waits_for_a_database_that_is_away(
    postgres_url: str, lifecycle_on_postgres: Lifecycle, sandbox: Sandbox
) -> None:
    """It says so, tries again, and goes on after the last event that it printed."""
    support.tracked(lifecycle_on_postgres, sandbox, appointment_id="b-1")
    url = sa.make_url(postgres_url)
    elsewhere = url.set(database="postgres").render_as_string(hide_password=False)
    with _following({"LIFECYCLE_DATABASE_URL": postgres_url}) as process:
        (first,) = _lines(process, 1)
        _set_away(elsewhere, url.database, is_away=True)
        assert process.stderr is not None
        assert "trying again in 0.05 s" in process.stderr.readline()
        _set_away(elsewhere, url.database, is_away=False)
        add(postgres_url, "b-1", 1)
        (second,) = _lines(process, 1)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=20)
    assert [json.loads(line)["seq"] for line in (first, second)] == [1, 2]


def _set_away(url: str, name: str | None, *, is_away: bool) -> None:
    support.query(url, f"ALTER DATABASE {name} WITH ALLOW_CONNECTIONS {str(not is_away).lower()}")
    if is_away:
        support.query(url, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = :name", name=name)


@contextmanager
def _following(environ: dict[str, str | None]) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "lifecycle", "events", "--follow", "--interval", "0.05"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=support.environment(**{name: value for name, value in environ.items() if value}),
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def _lines(process: subprocess.Popen[str], count: int) -> list[str]:
    assert process.stdout is not None
    return [process.stdout.readline() for _ in range(count)]
