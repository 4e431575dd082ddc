"""Workers: processes of their own on real databases, stopped, killed and cut off in the middle of their work."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa
from sqlalchemy import orm

from lifecycle import Lifecycle, database
from lifecycle.engines import tables
from tests import support
from tests.conftest import FAST, machine_client
from tests.crashes.grounds import PostgresGround
from tests.support import ACTOR
from tests.test_cli import assert_error, invoke, settings_for
from tests.test_cluster import LISTENING
from tests.test_health import ask

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lifecycle import Batch, ZocdocClient
    from lifecycle.sandbox import Sandbox, Server

WORKER = """
import dataclasses, signal, threading
from lifecycle.working import worker
timing = dataclasses.replace(timing, resend_backoff=0.1, failed_reads=100)
client.close()
client = ZocdocClient(base_url=base, token_url=token_url, client_id="sandbox-client", client_secret="sandbox-secret",
                      audience=audience, deadline=1.0)
stop = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=stop.set).start())
with Lifecycle(url, zocdoc=client, timing=timing, dispatch=sys.argv[5]) as lifecycle:
    sys.exit(not worker.run(lifecycle, stop=stop, concurrency=4, recover_every=1.0, stop_timeout=15.0))
"""
"""A worker with short intervals: a killed one's commands are taken over after 5 seconds."""

SLEEPER = """
from lifecycle.working import draining
draining.Draining.__init__.__kwdefaults__["poll"] = 600.0
""" + WORKER.replace("recover_every=1.0", "recover_every=600.0")
"""A worker that looks for commands by itself so seldom that whatever it does it was woken for by the engine."""


@pytest.fixture(params=["sqlite-inline", "postgresql-procrastinate"])
def place(request: pytest.FixtureRequest) -> tuple[str, str]:
    """A database, and who dispatches."""
    kind, dispatch = request.param.split("-")
    return request.getfixturevalue("sqlite_url" if kind == "sqlite" else "postgres_url"), dispatch


@pytest.fixture
def distributed(postgres_url: str, client: ZocdocClient) -> Iterator[Lifecycle]:
    """The product on PostgreSQL, with Procrastinate's tables."""
    with Lifecycle(postgres_url, zocdoc=client, timing=FAST, dispatch="procrastinate") as made:
        tables.set_up(made.database)
        yield made


@contextmanager
def working(
    url: str, server: Server, dispatch: str = "procrastinate", code: str = WORKER
) -> Iterator[subprocess.Popen[str]]:
    """Run a worker; it is killed at the end if it still runs."""
    child = support.program(code, url, server, dispatch)
    try:
        yield child
    finally:
        child.kill()
        child.communicate()


@contextmanager
def command_line(environ: dict[str, str], *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Run `lifecycle worker`; it is killed at the end if it still runs."""
    base = {name: value for name, value in os.environ.items() if not name.startswith("LIFECYCLE_")}
    child = subprocess.Popen(  # noqa: S603 # our own program
        [sys.executable, "-W", "error", "-m", "lifecycle", "worker", *arguments],
        env=base | environ,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield child
    finally:
        child.kill()
        child.communicate()


def batch_of(lifecycle: Lifecycle, sandbox: Sandbox, count: int) -> Batch:
    """Track so many appointments, and submit the confirmation of each."""
    ids = [support.tracked(lifecycle, sandbox) for _ in range(count)]
    return lifecycle.submit_many([{"appointment_id": each} for each in ids], actor=ACTOR, command="confirm")


def states_of(batch: Batch) -> dict[str, int]:
    """Count the commands of a batch by state, without those that are none."""
    counts: dict[str, int] = {}
    for row in batch.rows():
        counts[row.state] = counts.get(row.state, 0) + 1
    return counts


def assert_each_applied_once(batch: Batch, sandbox: Sandbox, count: int) -> None:
    """Check that all were applied, and that the stand-in saw each just once."""
    assert states_of(batch) == {"applied": count}
    assert [support.effects(sandbox, row.appointment_id or "") for row in batch.rows()] == [1] * count


@pytest.mark.parametrize("commits", [True, False])
def test_a_command_and_its_job_share_the_callers_transaction(
    distributed: Lifecycle, sandbox: Sandbox, postgres_url: str, *, commits: bool
) -> None:
    """Committed, both are there; rolled back, neither is."""
    appointment_id = support.tracked(distributed, sandbox)
    engine = sa.create_engine(postgres_url)
    with orm.Session(engine) as session:
        session.execute(sa.text("SELECT 1"))
        distributed.submit("confirm", appointment_id, actor=ACTOR, session=session)
        session.commit() if commits else session.rollback()
    engine.dispose()
    jobs = support.query(postgres_url, "SELECT queue_name FROM procrastinate_jobs")
    assert (support.states(postgres_url), jobs) == (
        (["queued"], [{"queue_name": "lifecycle"}]) if commits else ([], [])
    )


def test_a_dead_engine_does_not_keep_anybody_from_submitting(
    distributed: Lifecycle, sandbox: Sandbox, postgres_url: str
) -> None:
    """The caller's transaction goes on and commits: the command is queued, and found by whoever looks."""
    appointment_id = support.tracked(distributed, sandbox)
    support.drop_engine(postgres_url)
    engine = sa.create_engine(postgres_url)
    with orm.Session(engine) as session:
        distributed.submit("confirm", appointment_id, actor=ACTOR, session=session)
        session.execute(sa.text("SELECT 1"))
        session.commit()
    engine.dispose()
    assert support.states(postgres_url) == ["queued"]


@pytest.mark.parametrize("place", ["sqlite-inline", "postgresql-inline", "postgresql-procrastinate"], indirect=True)
def test_workers_carry_out_what_others_submit(
    place: tuple[str, str], sandbox: Sandbox, server: Server, client: ZocdocClient
) -> None:
    """Whoever submits, in whatever process: a worker that runs carries it out, and ends cleanly."""
    url, dispatch = place
    with working(url, server, dispatch) as worker, Lifecycle(url, zocdoc=client, timing=FAST) as lifecycle:
        ids = [support.tracked(lifecycle, sandbox) for _ in range(3)]
        # Queued behind the engine's back: found by looking.
        lifecycle._engine = Deaf()
        batch = lifecycle.submit_many([{"appointment_id": each} for each in ids], actor=ACTOR, command="confirm")
        assert batch.wait(support.PATIENCE)
        assert_each_applied_once(batch, sandbox, 3)
        worker.terminate()
        assert (worker.wait(support.PATIENCE), worker.communicate()[1]) == (0, "")


class Deaf:
    """An engine that wakes nobody."""

    def announce(self, connection: sa.Connection) -> None:
        """Do nothing."""

    def committed(self, *_session: object) -> None:
        """Do nothing."""

    def ensure(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


def test_a_wake_up_reaches_a_worker_at_once(distributed: Lifecycle, sandbox: Sandbox, server: Server) -> None:
    """Long before it would have looked by itself."""
    url = distributed.database.engine.url.render_as_string(hide_password=False)
    appointment_id = support.tracked(distributed, sandbox)
    with working(url, server, code=SLEEPER):
        support.until(lambda: len(support.query(url, LISTENING)) == 2)
        for command in ("confirm", "reschedule", "cancel"):
            start_time = support.LATER if command == "reschedule" else None
            handle = distributed.submit(command, appointment_id, actor=ACTOR, start_time=start_time)
            assert handle.wait(support.PATIENCE)
            handle.result()


def test_a_signal_leaves_nothing_in_doubt(
    place: tuple[str, str], sandbox: Sandbox, server: Server, client: ZocdocClient
) -> None:
    """What is in the air is finished and recorded, what is queued stays queued, and the exit code is 0."""
    url, dispatch = place
    if dispatch == "procrastinate":
        _set_up(url)
    support.arm(sandbox, kind="delay", operation="confirm", seconds=0.7, times=100)
    with Lifecycle(url, zocdoc=client, timing=FAST) as lifecycle:
        lifecycle._engine = Deaf()
        batch = batch_of(lifecycle, sandbox, 40)
        environ = settings_for(server, url) | {"LIFECYCLE_DISPATCH": dispatch}
        with command_line(environ, "--concurrency", "4") as worker:
            support.until(lambda: batch.progress().applied)
            worker.send_signal(signal.SIGTERM)
            told = worker.communicate(timeout=support.PATIENCE)[1]
        counts = states_of(batch)
        assert worker.returncode == 0, told
        assert set(counts) == {"applied", "queued"}, counts
        applied = [row.appointment_id or "" for row in batch.rows() if row.state == "applied"]
        posted = [each for each in {row.appointment_id or "" for row in batch.rows()} if support.posts(sandbox, each)]
        assert sorted(applied) == sorted(posted)
        assert "Traceback" not in told


def test_a_second_signal_ends_it_at_once(sandbox: Sandbox, server: Server, sqlite_url: str) -> None:
    """What was in the air is in doubt then, and recovery settles it."""
    support.arm(sandbox, kind="delay", operation="confirm", seconds=20, times=100)
    with machine_client(server) as client, Lifecycle(sqlite_url, zocdoc=client, timing=FAST) as lifecycle:
        lifecycle._engine = Deaf()
        batch = batch_of(lifecycle, sandbox, 1)
        with command_line(settings_for(server, sqlite_url)) as worker:
            support.until(lambda: batch.progress().sending)
            worker.send_signal(signal.SIGINT)
            assert worker.stderr is not None
            while not worker.stderr.readline().startswith("stopping"):
                assert worker.poll() is None
            worker.send_signal(signal.SIGINT)
            assert worker.wait(support.PATIENCE) == 130
        assert states_of(batch) == {"sending": 1}


def test_the_other_worker_finishes_what_a_killed_one_began(
    distributed: Lifecycle, sandbox: Sandbox, server: Server, postgres_url: str
) -> None:
    """Nothing is lost and nothing is repeated blindly; its job is removed once its heartbeat is too old."""
    support.arm(sandbox, kind="delay", operation="confirm", seconds=0.2, times=1000)
    batch = batch_of(distributed, sandbox, 40)
    with working(postgres_url, server) as first, working(postgres_url, server):
        support.until(lambda: batch.progress().applied > 10)
        first.kill()
        assert batch.wait(support.PATIENCE)
        assert_each_applied_once(batch, sandbox, 40)
        # Else the test would last for the half minute after which a heartbeat is too old.
        support.query(
            postgres_url,
            "UPDATE procrastinate_workers SET last_heartbeat = now() - interval '1 minute' "
            "WHERE id <> ALL (SELECT id FROM procrastinate_workers ORDER BY last_heartbeat DESC LIMIT 2)",
        )


def test_the_engines_tables_may_vanish_in_the_middle(
    distributed: Lifecycle, sandbox: Sandbox, server: Server, postgres_url: str
) -> None:
    """The worker goes on, and the batch is finished."""
    support.arm(sandbox, kind="delay", operation="confirm", seconds=0.1, times=1000)
    batch = batch_of(distributed, sandbox, 40)
    with working(postgres_url, server):
        support.until(lambda: batch.progress().applied > 5)
        support.drop_engine(postgres_url)
        assert batch.wait(support.PATIENCE)
        assert_each_applied_once(batch, sandbox, 40)


def test_recovery_sets_the_engine_up_again(distributed: Lifecycle, sandbox: Sandbox, postgres_url: str) -> None:
    """With the tables every wake-up was lost: `recover` makes them, and wakes somebody for what is queued."""
    batch_of(distributed, sandbox, 2)
    support.drop_engine(postgres_url)
    distributed.recover()
    assert tables.missing(distributed.database) == []
    assert support.query(postgres_url, "SELECT queue_name FROM procrastinate_jobs") == [{"queue_name": "lifecycle"}]


def test_a_crash_of_the_database_in_the_middle(sandbox: Sandbox, server: Server) -> None:
    """The worker waits for it, says that it is not ready, goes on, and finishes the batch."""
    support.arm(sandbox, kind="delay", operation="confirm", seconds=0.1, times=1000)
    with PostgresGround() as ground, machine_client(server) as client:
        _set_up(ground.url)
        environ = settings_for(server, ground.url) | {"LIFECYCLE_DISPATCH": "procrastinate"}
        with Lifecycle(ground.url, zocdoc=client, timing=FAST, dispatch="procrastinate") as lifecycle:
            batch = batch_of(lifecycle, sandbox, 50)
            with command_line(environ, "--health-port", "0", "--recover-every", "1", "--concurrency", "4") as worker:
                assert worker.stderr is not None
                port = int(worker.stderr.readline().rpartition(":")[2].partition("/")[0])
                support.until(lambda: batch.progress().applied > 10)
                support.until(lambda: ask(port, "/healthz")[0] == 200)
                ground.stop("immediate")
                support.until(lambda: ask(port, "/healthz")[0] == 503)
                assert ask(port, "/livez")[0] == 200
                ground.start()
                support.until(lambda: not batch.progress().queued)
                support.until(lambda: ask(port, "/healthz")[0] == 200)
                support.until(lambda: ask(port, "/healthz")[1]["engine"] == "up")
            # What was claimed when the database went is settled when its lease is over, a minute later.
            found = [(row.state, support.effects(sandbox, row.appointment_id or "")) for row in batch.rows()]
            assert set(found) <= {("applied", 1), ("sending", 0), ("sending", 1)}
            assert found.count(("applied", 1)) > 30


def test_settings_that_do_not_fit_are_told(sqlite_url: str, server: Server) -> None:
    """SQLite has no Procrastinate, and there is no third way to dispatch."""
    environ = settings_for(server, sqlite_url)
    for arguments in (("worker",), ("db", "upgrade"), ("recover",)):
        told = invoke(*arguments, **environ, LIFECYCLE_DISPATCH="procrastinate")
        assert told.exit_code == 2
        assert "on SQLite use inline" in told.stderr
    assert_error(invoke("recover", **environ, LIFECYCLE_DISPATCH="celery"), 2, "LIFECYCLE_DISPATCH", "inline")


def test_a_database_of_another_environment_is_told(distributed: Lifecycle, sandbox: Sandbox, postgres_url: str) -> None:
    """It ends at once: a worker that can take nothing would look healthy for ever."""
    support.tracked(distributed, sandbox)
    secret = {"LIFECYCLE_ZOCDOC_CLIENT_ID": "id", "LIFECYCLE_ZOCDOC_CLIENT_SECRET": "secret"}
    found = invoke("worker", LIFECYCLE_DATABASE_URL=postgres_url, LIFECYCLE_ZOCDOC_ENVIRONMENT="production", **secret)
    assert_error(found, 1, "environment")


def test_upgrade_sets_both_up(postgres_url: str) -> None:
    """Ours always, Procrastinate's when it dispatches; the check names what is missing of it."""
    environ = {"LIFECYCLE_DATABASE_URL": postgres_url, "LIFECYCLE_DISPATCH": "procrastinate"}
    before = invoke("db", "check", **environ)
    assert (before.exit_code, "missing procrastinate_jobs\n" in before.stdout) == (1, True)
    assert "tables were made" in invoke("db", "upgrade", **environ).stderr
    assert "tables are there" in invoke("db", "upgrade", **environ).stderr
    assert invoke("db", "check", **environ).exit_code == 0


def _set_up(url: str) -> None:
    made = database.Database(url)
    tables.set_up(made)
    made.close()
