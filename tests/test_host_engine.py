"""Inside a host application: its engine, its database, its own tables, and its own way of beginning transactions."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from lifecycle import ConfigurationError, DatabaseUnavailable, Lifecycle, OutcomeUnknown, database, schema
from tests import support, trail
from tests.conftest import FAST
from tests.support import ACTOR

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lifecycle import ZocdocClient
    from lifecycle.sandbox import Sandbox


def plain(url: str) -> sa.Engine:
    """Make an engine as a host would: the driver's default transaction mode, and durable."""
    engine = sa.create_engine(url)
    if engine.dialect.name == "sqlite":
        sa.event.listen(engine, "connect", _durable)
    return engine


def begun_by_event(url: str) -> sa.Engine:
    """Make an engine by the recipe of SQLAlchemy's documentation: no implicit BEGIN, an explicit one on the event."""
    engine = sa.create_engine(url)
    if engine.dialect.name == "sqlite":
        sa.event.listen(engine, "connect", _durable_and_silent)
        sa.event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN"))
    return engine


def begun_immediately(url: str) -> sa.Engine:
    """Make an engine of the same recipe with BEGIN IMMEDIATE, as hosts do that know about lost updates."""
    engine = sa.create_engine(url)
    if engine.dialect.name == "sqlite":
        sa.event.listen(engine, "connect", _durable_and_silent)
        sa.event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
    return engine


def unpooled(url: str) -> sa.Engine:
    """Make an engine that opens a connection for each transaction."""
    engine = sa.create_engine(url, poolclass=sa.pool.NullPool)
    if engine.dialect.name == "sqlite":
        sa.event.listen(engine, "connect", _durable)
    return engine


def _durable(connection: Any, _: Any) -> None:
    connection.execute("PRAGMA synchronous=FULL")


def _durable_and_silent(connection: Any, _: Any) -> None:
    connection.isolation_level = None
    connection.execute("PRAGMA synchronous=FULL")


ENGINES: list[Callable[[str], sa.Engine]] = [plain, begun_by_event, begun_immediately, unpooled]


@pytest.fixture(params=ENGINES, ids=lambda made: made.__name__)
def engine(request: pytest.FixtureRequest, database_url: str) -> Iterator[sa.Engine]:
    """Give a host's engine on a database with a table of the host's, which is called `appointments`."""
    made: sa.Engine = request.param(database_url)
    with made.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE appointments (id INTEGER PRIMARY KEY, status VARCHAR(50))")
        connection.exec_driver_sql("INSERT INTO appointments VALUES (1, 'host')")
    yield made
    made.dispose()


def host_rows(engine: sa.Engine) -> list[Any]:
    """Read the host's own table through the host's engine."""
    with engine.connect() as connection:
        return [tuple(row) for row in connection.exec_driver_sql("SELECT id, status FROM appointments")]


def test_everything_works_on_a_hosts_engine(engine: sa.Engine, sandbox: Sandbox, client: ZocdocClient) -> None:
    """Commands, refusals, recovery and reads work, the host's table of nearly the same name stays as it was."""
    with Lifecycle(engine, zocdoc=client, timing=FAST) as product:
        appointment_id = support.tracked(product, sandbox)
        done = product.confirm(appointment_id, actor=ACTOR, request_key="k")
        assert product.confirm(appointment_id, actor=ACTOR, request_key="k") == done
        with pytest.raises(Exception, match="status_not_allowed"):
            product.confirm(appointment_id, actor=ACTOR)
        support.lose_answer(sandbox, "cancel", when="after")
        with pytest.raises(OutcomeUnknown):
            product.cancel(appointment_id, actor=ACTOR)
        assert [each.state for each in product.recover(wait=support.PATIENCE).settled] == ["applied"]
        events = [each.event for each in product.history(appointment_id)]
        assert product.get(appointment_id).status == "cancelled"
        assert list(product.appointments())
    assert events == [
        "appointment_tracked",
        "command_accepted",
        "command_applied",
        "command_refused",
        "command_accepted",
        "outcome_lost",
        "command_applied",
    ]
    assert host_rows(engine) == [(1, "host")]
    assert trail.faults(engine) == []


def test_closing_leaves_the_hosts_engine_usable(engine: sa.Engine, sandbox: Sandbox, client: ZocdocClient) -> None:
    """The engine is the host's: neither its pool nor its settings are touched, and it works on."""
    pool = engine.pool
    product = Lifecycle(engine, zocdoc=client)
    support.tracked(product, sandbox)
    product.close()
    assert engine.pool is pool
    with engine.begin() as connection:
        connection.exec_driver_sql("INSERT INTO appointments VALUES (2, 'more')")
    assert host_rows(engine) == [(1, "host"), (2, "more")]
    assert product.appointments() is not None


def test_no_connection_is_kept(engine: sa.Engine, sandbox: Sandbox, client: ZocdocClient) -> None:
    """After each call every connection is back in the host's pool, errors included."""
    product = Lifecycle(engine, zocdoc=client)
    appointment_id = support.tracked(product, sandbox)
    for _ in range(3):
        product.get(appointment_id)
        with pytest.raises(Exception, match="not tracked"):
            product.get("nobody")
        with pytest.raises(Exception, match="refused"):
            product.mark_no_show(appointment_id, actor=ACTOR)
    if isinstance(engine.pool, sa.QueuePool):
        assert engine.pool.checkedout() == 0


def test_threads_race_safely_on_a_hosts_engine(engine: sa.Engine, sandbox: Sandbox, client: ZocdocClient) -> None:
    """Whatever the host's way of beginning: one winner, named losers, one effect."""
    product = Lifecycle(engine, zocdoc=client, timing=FAST)
    appointment_id = support.tracked(product, sandbox)
    results = support.together(4, lambda _: product.confirm(appointment_id, actor=ACTOR))
    names = sorted(type(each).__name__ for each in results)
    assert names.count("Done") == 1, results
    assert set(names) <= {"Done", "CommandInProgress", "TransitionRefused"}, results
    assert support.effects(sandbox, appointment_id) == support.posts(sandbox, appointment_id) == 1


def test_a_hosts_database_can_be_migrated_through_its_engine(engine: sa.Engine) -> None:
    """Down to nothing and up through the host's engine, beside its own tables."""
    made = database.Database(engine)
    schema.downgrade(made, to="base")
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE lifecycle_alembic_version")
    schema.upgrade(made)
    assert schema.check(made) == []
    assert host_rows(engine) == [(1, "host")]


@pytest.mark.parametrize("level", ["OFF", "NORMAL"])
def test_an_engine_that_may_lose_commits_is_refused(
    sqlite_url: str, sandbox: Sandbox, client: ZocdocClient, level: str
) -> None:
    """An intent must be on the disk before anything is sent: weaker synchronisation is refused before a call."""
    engine = sa.create_engine(sqlite_url)
    sa.event.listen(engine, "connect", lambda connection, _: connection.execute(f"PRAGMA synchronous={level}"))
    appointment_id = sandbox.add()
    product = Lifecycle(engine, zocdoc=client)
    with pytest.raises(ConfigurationError, match="synchronous=FULL"):
        product.confirm(appointment_id, actor=ACTOR)
    with pytest.raises(ConfigurationError, match="synchronous=FULL"):
        product.track(appointment_id, actor=ACTOR)
    assert support.posts(sandbox, appointment_id) == 0
    engine.dispose()


def test_a_commit_that_finds_the_database_busy_leaves_nothing_open(
    sqlite_url: str, client: ZocdocClient, sandbox: Sandbox
) -> None:
    """SQLite's own journal mode, and a reader that holds the file while we commit: no intent, so no call."""
    hosts = sa.create_engine(sqlite_url, connect_args={"timeout": 0.2})
    with closing(sqlite3.connect(hosts.url.database or "", isolation_level=None)) as reader:
        reader.execute("PRAGMA journal_mode=DELETE")
        with Lifecycle(hosts, zocdoc=client) as product:
            appointment_id = support.tracked(product, sandbox)
            reader.execute("BEGIN")
            reader.execute("SELECT * FROM lifecycle_appointments").fetchone()
            with pytest.raises(DatabaseUnavailable):
                product.confirm(appointment_id, actor=ACTOR)
            reader.execute("COMMIT")
            assert support.posts(sandbox, appointment_id) == 0
            assert support.commands(sqlite_url) == []
            assert product.confirm(appointment_id, actor=ACTOR).to_status == "confirmed"
    hosts.dispose()
