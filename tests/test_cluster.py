"""A worker's share in Procrastinate: woken soon, errands once in all workers together, back after whatever fails."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING

import pytest

from lifecycle import database
from lifecycle.engines import tables
from lifecycle.engines.postgres import PostgresEngine
from lifecycle.working import cluster as working_cluster
from lifecycle.working import tasks
from lifecycle.working.cluster import Cluster
from lifecycle.working.errands import Errand
from tests import support

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

JOBS = "SELECT task_name, status::text FROM procrastinate_jobs WHERE status IN ('todo', 'doing') ORDER BY id"

LISTENING = (
    "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND state = 'idle' AND query LIKE 'LISTEN%'"
)
"""The connections on which a worker hears of jobs: of commands, and of errands."""


@pytest.fixture
def made(postgres_url: str) -> Iterator[database.Database]:
    """A migrated PostgreSQL database."""
    made = database.Database(postgres_url)
    yield made
    made.close()


@contextmanager
def taking_part(
    made: database.Database, drain: Callable[[], None] = lambda: None, errands: tuple[Errand, ...] = ()
) -> Iterator[Cluster]:
    """Take part for as long as the block lasts."""
    cluster = Cluster(made, PostgresEngine(made), drain=drain, errands=errands)
    cluster.start()
    try:
        support.until(lambda: cluster.is_up)
        yield cluster
    finally:
        cluster.stop()
        cluster.join(support.PATIENCE)


def announce(made: database.Database, times: int = 1) -> None:
    """Announce commands, each in a transaction of its own."""
    engine = PostgresEngine(made)
    for _ in range(times):
        with made.write() as connection:
            engine.announce(connection)


def wakes(made: database.Database, is_done: Callable[[], object]) -> bool:
    """Announce, and wait for a while; Procrastinate does not hear what it is told while it fetches."""
    announce(made)
    end = time.monotonic() + 1.0
    while not is_done():
        if time.monotonic() > end:
            return False
        time.sleep(0.005)
    return True


def test_a_wake_up_drains_at_once(made: database.Database, postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tables are made first; when the drain is over, nothing of the wake-up is left."""
    monkeypatch.setattr(working_cluster, "_POLL_SECONDS", 600.0)
    drained: list[int] = []
    with taking_part(made, lambda: drained.append(1)):
        support.until(lambda: len(support.query(postgres_url, LISTENING)) == 2)
        support.until(lambda: wakes(made, lambda: drained and not support.query(postgres_url, JOBS)))


def test_wake_ups_that_wait_are_taken_together(made: database.Database, postgres_url: str) -> None:
    """One drain sees all that was committed before it, so a thousand wake-ups do not cost a thousand drains."""
    tables.set_up(made)
    announce(made, times=50)
    drains: list[int] = []
    with taking_part(made, lambda: drains.append(1)):
        support.until(lambda: drains and not support.query(postgres_url, JOBS))
    assert len(drains) == 1


def test_the_next_wake_up_goes_to_another_worker(made: database.Database) -> None:
    """Who is draining takes no second one."""
    busy, done = threading.Event(), threading.Event()
    helped: list[str] = []

    def drain(name: str) -> None:
        if busy.is_set():
            helped.append(name)
            return
        busy.set()
        helped.append(name)
        done.wait(support.PATIENCE)

    with taking_part(made, lambda: drain("one")), taking_part(made, lambda: drain("other")):
        try:
            announce(made)
            support.until(busy.is_set)
            announce(made)
            support.until(lambda: len(helped) == 2)
        finally:
            done.set()
    assert sorted(helped) == ["one", "other"]


def test_errands_are_done_once_in_all_workers(made: database.Database) -> None:
    """Two workers do together what one would; a failure is logged by its type and done again."""
    runs: list[int] = []

    def act() -> None:
        runs.append(int(time.time()))
        raise ValueError("Jane Canary")

    errands = (Errand("recovery", 1.0, act),)
    with taking_part(made, errands=errands), taking_part(made, errands=errands):
        support.until(lambda: len(runs) >= 4)
    assert len(runs) <= runs[-1] - runs[0] + 2


@pytest.mark.parametrize("is_alone", [True, False], ids=["in-all-workers", "in-one-worker"])
def test_an_errand_that_takes_long_is_not_begun_twice(made: database.Database, *, is_alone: bool) -> None:
    """Never in the same worker; and in no other either, if it is to be alone."""
    begun: list[int] = []
    ended = threading.Event()

    def act() -> None:
        begun.append(1)
        ended.wait(support.PATIENCE)

    errands = (Errand("sync", 1.0, act, is_alone=is_alone),)
    other = taking_part(made, errands=errands) if is_alone else nullcontext()
    with taking_part(made, errands=errands), other:
        support.until(lambda: begun)
        time.sleep(2.5)
        count = len(begun)
        ended.set()
    assert count == 1


def test_dropped_tables_are_made_again(made: database.Database, postgres_url: str) -> None:
    """In the middle of the work: the worker notices, sets them up, and takes wake-ups again."""
    drains: list[int] = []
    with taking_part(made, lambda: drains.append(1)) as cluster:
        support.drop_engine(postgres_url)
        support.until(lambda: not tables.missing(made))
        support.until(lambda: cluster.is_up)
        announce(made)
        support.until(lambda: drains)


def test_a_dead_workers_jobs_are_rescued(
    made: database.Database, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it was doing is removed when its heartbeat is too old; old failures are removed too, others' jobs never."""
    monkeypatch.setattr(tasks, "_RESCUE", "* * * * * *")
    tables.set_up(made)
    support.query(
        postgres_url,
        "WITH dead AS (INSERT INTO procrastinate_workers (last_heartbeat) VALUES (now() - interval '1 minute') "
        "RETURNING id) INSERT INTO procrastinate_jobs (queue_name, task_name, status, worker_id) "
        "SELECT queue, 'lifecycle.dispatch', 'doing', id FROM dead, unnest(ARRAY['lifecycle', 'mail']) AS queue",
    )
    support.query(
        postgres_url,
        "INSERT INTO procrastinate_jobs (queue_name, task_name, status) VALUES ('lifecycle', 'x', 'failed')",
    )
    with taking_part(made):
        support.until(lambda: [row["queue"] for row in support.query(postgres_url, _OTHERS)] == ["mail"])


_OTHERS = "SELECT queue_name AS queue FROM procrastinate_jobs WHERE task_name <> 'lifecycle.rescue' ORDER BY 1"
