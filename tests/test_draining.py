"""A worker's own thread: it carries out what is queued, whoever wakes it, and outlives a database that is away."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from lifecycle import DatabaseUnavailable, Lifecycle, claiming
from lifecycle.dispatching import Dispatcher
from lifecycle.working import errands
from lifecycle.working.draining import Draining
from lifecycle.working.watching import Watch
from lifecycle.working.worker import Worker
from tests import support
from tests.support import ACTOR
from tests.test_cli_watching import NOWHERE
from tests.test_worker import Deaf

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lifecycle.sandbox import Sandbox


@pytest.fixture
def queue(lifecycle: Lifecycle) -> Lifecycle:
    """The product on both databases in turn; what is submitted stays queued."""
    lifecycle._engine = Deaf()
    return lifecycle


@pytest.fixture
def draining(queue: Lifecycle) -> Iterator[Draining]:
    """A thread that looks only when it is asked to."""
    dispatcher = Dispatcher(queue.resources, concurrency=2)
    made = Draining(dispatcher, poll=60.0)
    made.start()
    made.through()
    yield made
    made.stop()
    assert made.join(support.PATIENCE)
    dispatcher.close()


def test_who_wakes_it_waits_until_all_is_done(queue: Lifecycle, draining: Draining, sandbox: Sandbox) -> None:
    """What was queued before is carried out when the call returns; each look is a beat."""
    handles = [queue.submit("confirm", support.tracked(queue, sandbox), actor=ACTOR) for _ in range(5)]
    before = draining.beat
    draining.through()
    assert [each.state for each in handles] == ["applied"] * 5
    assert draining.beat > before


def test_nobody_waits_for_a_thread_that_has_ended(draining: Draining) -> None:
    """Other workers take what is left."""
    draining.stop()
    assert draining.join(support.PATIENCE)
    draining.through()


def test_a_command_is_carried_out_when_it_falls_due(
    queue: Lifecycle, draining: Draining, sandbox: Sandbox, database_url: str
) -> None:
    """One that is to be sent again in a second does not wait for the next look, or for somebody to wake the thread."""
    appointment_id = support.tracked(queue, sandbox)
    handle = queue.submit("confirm", appointment_id, actor=ACTOR)
    kind = "sqlite" if database_url.startswith("sqlite") else "postgresql"
    [row] = support.query(database_url, f"{_IN_A_SECOND[kind]} RETURNING due_at")
    due_at = row["due_at"] if isinstance(row["due_at"], datetime) else datetime.fromisoformat(row["due_at"])
    draining.through()
    assert handle.wait(30)  # half of the pause after which the thread looks anyway
    assert handle.state == "applied"
    _, accepted, _ = queue.history(appointment_id)
    assert accepted.recorded_at >= due_at


_IN_A_SECOND = {
    "sqlite": "UPDATE lifecycle_commands SET due_at = strftime('%Y-%m-%dT%H:%M:%f000Z', 'now', '+1 seconds')",
    "postgresql": "UPDATE lifecycle_commands SET due_at = now() + interval '1 second'",
}


def test_a_database_that_is_away_is_waited_for(caplog: pytest.LogCaptureFixture) -> None:
    """Each failure is a line with its type, and a beat: it does not hang."""
    with Lifecycle(NOWHERE) as lifecycle:
        draining = Draining(Dispatcher(lifecycle.resources, concurrency=1))
        draining.start()
        draining.through()
        before = draining.beat
        draining.through()
        draining.stop()
        assert draining.join(support.PATIENCE)
    assert draining.beat > before
    told = {(each.message, vars(each)["error"]) for each in caplog.records if each.name.startswith("lifecycle")}
    assert told == {("job_failed", "DatabaseUnavailable")}


def test_the_watch_tells_how_long_the_queue_has_waited(queue: Lifecycle, sandbox: Sandbox) -> None:
    """Nothing is known before it has looked; what is not due yet has not waited."""
    watch = Watch(lambda: claiming.next_due(queue.resources))
    assert (watch.is_reachable, watch.oldest_due_seconds) == (False, None)
    watch._look()
    assert (watch.is_reachable, watch.oldest_due_seconds) == (True, None)
    queue.submit("confirm", support.tracked(queue, sandbox), actor=ACTOR)
    time.sleep(0.2)
    watch._look()
    assert 0.1 <= (watch.oldest_due_seconds or 0) < support.PATIENCE
    later = Watch(lambda: datetime.now(UTC) + timedelta(seconds=60))
    later._look()
    assert (later.is_reachable, later.oldest_due_seconds) == (True, None)


def test_the_watch_notices_that_the_database_is_away() -> None:
    """At its next look, which comes as soon as any other."""
    answers = iter([None])

    def ask() -> None:
        if next(answers, "away") == "away":
            raise DatabaseUnavailable(problem="away")

    watch = Watch(ask)
    pauses = watch._look(), watch._look()
    assert (pauses[0] == pauses[1], watch.is_reachable) == (True, False)


def test_a_worker_that_got_nowhere_hangs(lifecycle: Lifecycle) -> None:
    """Longer than the lease of a call and all pauses: then somebody should restart it."""
    worker = Worker(lifecycle, (), concurrency=1)
    assert worker.health().is_alive
    long_ago = time.monotonic() - 300
    worker._draining._beat = worker._dispatcher._beat = long_ago
    assert (worker.health().is_alive, worker.health().is_ready) == (False, False)


def test_a_worker_that_cannot_claim_is_not_ready(lifecycle: Lifecycle, sandbox: Sandbox, database_url: str) -> None:
    """The database answers, but every look at the queue fails: somebody should hear of it. It recovers by itself."""
    worker = Worker(lifecycle, (), concurrency=1)
    lifecycle._engine = Deaf()
    handle = lifecycle.submit("confirm", support.tracked(lifecycle, sandbox), actor=ACTOR)
    support.query(database_url, "ALTER TABLE lifecycle_audit_events RENAME TO elsewhere")
    worker.start()
    try:
        support.until(lambda: worker._watch.is_reachable)
        for _ in range(2):
            worker._draining.through()
        assert worker.health().is_alive
        support.until(lambda: not worker.health().is_ready)
        support.query(database_url, "ALTER TABLE elsewhere RENAME TO lifecycle_audit_events")
        worker._draining.through()
        support.until(lambda: worker.health().is_ready)
        assert handle.wait(support.PATIENCE)
    finally:
        assert worker.stop(support.PATIENCE)
    assert handle.state == "applied"


def test_errands_are_what_was_chosen(lifecycle: Lifecycle) -> None:
    """Recovery always, the others when they are asked for; only the long one is kept from being done twice."""
    always = errands.chosen(lifecycle, recover_every=10)
    chosen = errands.chosen(lifecycle, recover_every=10, inbox_every=5, sync_every=300)
    assert [(each.name, each.every) for each in always] == [("recovery", 10)]
    assert [(each.name, each.every, each.is_alone) for each in chosen] == [
        ("recovery", 10, False),
        ("inbox", 5, False),
        ("sync", 300, True),
    ]
    for each in chosen:
        each.act()
