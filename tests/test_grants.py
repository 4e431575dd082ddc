"""The printed grants are enough for the whole product, and let nobody change the trail."""

# ruff: noqa: S608 # SQL of constants is what this module is about

from __future__ import annotations

import uuid
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from lifecycle import InvalidArgument, OutcomeUnknown, TransitionRefused, database, grants, models, rates, schema, views
from lifecycle.engines import tables
from lifecycle.engines.postgres import PostgresEngine
from lifecycle.working.cluster import Cluster
from lifecycle.working.errands import Errand
from lifecycle.zocdoc import timing
from tests import support
from tests.conftest import _execute
from tests.support import ACTOR
from tests.test_cli import assert_error, invoke
from tests.test_inbox import KEY, body, signed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from lifecycle import ZocdocClient
    from lifecycle.sandbox import Sandbox

VIEWS = [view.name for view in views.ALL]
TABLES = [
    "lifecycle_alembic_version",
    "lifecycle_appointments",
    "lifecycle_audit_events",
    "lifecycle_commands",
    "lifecycle_installation",
    "lifecycle_sync_cursors",
    "lifecycle_webhook_deliveries",
]
EVENTS = "lifecycle_audit_events"


@pytest.fixture
def urls(postgres_url: str) -> Iterator[dict[str, str]]:
    """Make logins of the three roles, run what the command prints, and give the database's URL for each."""
    unique = uuid.uuid4().hex[:6]
    roles = {role: f"lifecycle {role} {unique}" for role in ("owner", "application", "analyst")}
    options = [f"--{role}={name}" for role, name in roles.items()]
    printed = invoke("db", "grants", *options, LIFECYCLE_DATABASE_URL=postgres_url)
    assert (printed.exit_code, printed.stderr) == (0, "")
    for _ in range(2):  # it may be run again
        _execute(sa.make_url(postgres_url), printed.stdout)
    url = sa.make_url(postgres_url)
    for name in roles.values():
        _execute(url, f'CREATE ROLE "login of {name}" LOGIN IN ROLE "{name}"')
    yield {
        role: url.set(username=f"login of {name}").render_as_string(hide_password=False) for role, name in roles.items()
    }
    admin = url.username or "postgres"
    for name in roles.values():
        _execute(url, f'REASSIGN OWNED BY "{name}" TO "{admin}"')
        _execute(url, f'DROP OWNED BY "{name}"')
        for role in (f"login of {name}", name):
            _execute(url, f'DROP ROLE "{role}"')


def refused(url: str, statement: str) -> bool:
    """Tell whether the server refuses a statement for want of rights, and for nothing else."""
    engine = sa.create_engine(url)
    try:
        with engine.connect() as connection:
            connection.exec_driver_sql(statement)
    except sa.exc.ProgrammingError as error:
        return getattr(error.orig, "sqlstate", None) == "42501"
    finally:
        engine.dispose()
    return False


def test_the_whole_product_runs_as_the_application(
    urls: dict[str, str], sandbox: Sandbox, client: ZocdocClient, tmp_path: Path
) -> None:
    """Tracking, commands, recovery, webhooks, sync, drift, the feed, verification and checkpoints need no more."""
    with support.opened(urls["application"], client, webhook_keys=[KEY]) as product:
        first, second = support.tracked(product, sandbox), support.tracked(product, sandbox)
        product.confirm(first, actor=ACTOR, request_key="k")
        product.reschedule(first, actor=ACTOR, start_time=support.LATER)
        product.cancel(first, actor=ACTOR)
        with pytest.raises(TransitionRefused):
            product.confirm(first, actor=ACTOR)
        support.lose_answer(sandbox, "confirm", when="after")
        with pytest.raises(OutcomeUnknown):
            product.confirm(second, actor=ACTOR)
        assert len(product.recover(wait=support.PATIENCE).settled) == 1
        content = body(second)
        for _ in range(2):
            product.receive_webhook(signed(content), content)
        product.process_inbox(track_unknown=True)
        sandbox.change(second, status="cancelled")
        sandbox.add()
        tracked = product.sync(full=True).tracked
        assert product.sync().rows >= 0
        told = len(product.history(first)) + len(product.history(second)) + tracked
        assert (tracked > 0, len(list(product.events()))) == (True, told)
        assert product.feed_cursor() is not None
        assert {each.kind for each in product.drift()} == {"found_by_sync"}
        assert product.attention() == []
        assert len(list(product.deliveries())) == 1
        assert len(list(product.appointments(in_doubt=False))) == tracked + 2
        product.explain(second, "confirm")
        product.checkpoint(tmp_path / "checkpoint", key=bytes(32))
        found = product.verify_checkpoint(tmp_path / "checkpoint", key=bytes(32))
        assert (found.is_sound, found.events) == (True, told)


def test_the_application_wakes_and_works(
    postgres_url: str, urls: dict[str, str], sandbox: Sandbox, client: ZocdocClient
) -> None:
    """Submitting and a worker's share in Procrastinate need what is printed with it, and not to create tables."""
    admin = database.Database(postgres_url)
    tables.set_up(admin)
    roles = {each: (sa.make_url(url).username or "").removeprefix("login of ") for each, url in urls.items()}
    given = [f"--{role}={name}" for role, name in roles.items()]
    environ = {"LIFECYCLE_DATABASE_URL": postgres_url, "LIFECYCLE_DISPATCH": "procrastinate"}
    _execute(sa.make_url(postgres_url), invoke("db", "grants", *given, **environ).stdout)
    drains: list[int] = []
    runs: list[int] = []
    with support.opened(urls["application"], client, dispatch="procrastinate") as product:
        engine = PostgresEngine(product.database)
        errands = (Errand("sync", 1.0, lambda: runs.append(1), is_alone=True),)
        cluster = Cluster(product.database, engine, drain=lambda: drains.append(1), errands=errands)
        cluster.start()
        product.submit("confirm", support.tracked(product, sandbox), actor=ACTOR)
        support.until(lambda: drains and len(runs) > 1)
        cluster.stop()
        cluster.join(support.PATIENCE)
        product.recover()
    failed = "SELECT task_name FROM procrastinate_jobs WHERE status NOT IN ('todo', 'doing')"
    assert support.query(postgres_url, failed) == []
    assert refused(urls["analyst"], "SELECT * FROM procrastinate_jobs")
    admin.close()


@pytest.mark.parametrize(
    "statement",
    [
        f"UPDATE {EVENTS} SET actor = 'forger'",
        f"DELETE FROM {EVENTS}",
        f"TRUNCATE {EVENTS}",
        f"DROP TRIGGER lifecycle_audit_no_change ON {EVENTS}",
        f"ALTER TABLE {EVENTS} DISABLE TRIGGER ALL",
        f"ALTER TABLE {EVENTS} DROP COLUMN actor",
        f"DROP TABLE {EVENTS} CASCADE",
        f"CREATE RULE swallow AS ON INSERT TO {EVENTS} DO INSTEAD NOTHING",
        f"CREATE TRIGGER swallow BEFORE INSERT ON {EVENTS} EXECUTE FUNCTION lifecycle_audit_refuse()",
        f"SELECT setval('{EVENTS}_seq_seq', 1)",
        "SET session_replication_role = replica",
        "CREATE OR REPLACE FUNCTION lifecycle_audit_refuse() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN END$$",
        "CREATE TABLE other (id integer)",
        "DELETE FROM lifecycle_appointments",
        "DELETE FROM lifecycle_commands",
        "DELETE FROM lifecycle_webhook_deliveries",
        "DELETE FROM lifecycle_sync_cursors",
        "UPDATE lifecycle_installation SET zocdoc_environment = 'x'",
        "UPDATE lifecycle_alembic_version SET version_num = 'x'",
        "CREATE OR REPLACE VIEW lifecycle_funnel AS SELECT 1",
    ],
)
def test_the_application_cannot_change_the_trail(urls: dict[str, str], statement: str) -> None:
    """The server itself refuses, triggers or no triggers."""
    assert refused(urls["application"], statement)
    assert refused(urls["analyst"], statement)


def test_analysts_read_the_views_and_nothing_else(urls: dict[str, str]) -> None:
    """What is behind the views has request payloads and the key of digests."""
    for name in VIEWS:
        support.query(urls["analyst"], f'SELECT * FROM "{name}" LIMIT 1')
        support.query(urls["application"], f'SELECT * FROM "{name}" LIMIT 1')
    for name in TABLES:
        assert refused(urls["analyst"], f"SELECT * FROM {name}")
    assert refused(urls["analyst"], f"INSERT INTO {EVENTS} (seq) VALUES (1)")


def test_the_owner_migrates(urls: dict[str, str]) -> None:
    """Down to nothing and up again, in the owner's name; then the grants are run once more."""
    role = sa.make_url(urls["owner"])
    name = (role.username or "").removeprefix("login of ")
    owner = role.update_query_dict({"options": f"-c role={name.replace(' ', chr(92) + ' ')}"})
    made = database.Database(owner)
    schema.downgrade(made, to="base")
    schema.upgrade(made)
    assert schema.check(made) == []
    made.close()
    assert refused(urls["application"], f"SELECT * FROM {EVENTS}")


def test_no_table_is_forgotten() -> None:
    """Every table and view of the schema is in the printed statements; tables without a grant would be open to none."""
    printed = grants.sql(owner="o", application="a", analyst="r", schema="public", views=VIEWS)
    for name in (*models.metadata.tables, models.VERSION_TABLE, *VIEWS):
        assert f'"public"."{name}"' in printed


ODD = ["a b", 'quote"d', "app's", "back\\slash", "Ärztin", "x; DROP TABLE lifecycle_audit_events; --", "user", "public"]


@pytest.mark.parametrize("name", ODD)
def test_names_are_quoted(postgres_url: str, name: str) -> None:
    """Any name that PostgreSQL can have stays a name; what is printed runs, and makes that very role."""
    names: dict[str, Any] = {"owner": f"{name} {(unique := uuid.uuid4().hex[:6])}", "application": f"{unique} {name}"}
    url = sa.make_url(postgres_url)
    printed = grants.sql(**names, analyst=f"{name}{unique}", schema="public", views=VIEWS)
    _execute(url, printed)
    made = "SELECT rolname FROM pg_roles WHERE strpos(rolname, :unique) > 0"
    roles = [row["rolname"] for row in support.query(postgres_url, made, unique=unique)]
    assert sorted(roles) == sorted([*names.values(), f"{name}{unique}"])
    for role in roles:
        quoted = '"' + role.replace('"', '""') + '"'
        for statement in ("REASSIGN OWNED BY {} TO CURRENT_USER", "DROP OWNED BY {}", "DROP ROLE {}"):
            _execute(url, statement.format(quoted))


@pytest.mark.parametrize("name", ["", "x" * 64, "é" * 32, "line\nbreak", "$lifecycle$", "zero\x00"])
def test_a_name_that_is_none_is_refused(name: str) -> None:
    """PostgreSQL would cut long names off; the rest could not be told apart in what is printed."""
    with pytest.raises(InvalidArgument):
        grants.sql(owner="o", application=name, analyst="r", schema="public", views=VIEWS)


def test_the_roles_are_three() -> None:
    """An application that is its owner could change the trail."""
    with pytest.raises(InvalidArgument, match="three different roles"):
        grants.sql(owner="o", application="o", analyst="r", schema="public", views=VIEWS)
    assert_error(
        invoke("db", "grants", "--owner=x", "--analyst=x", LIFECYCLE_DATABASE_URL="postgresql://h/n"), 2, "three"
    )


def test_sqlite_has_no_roles(sqlite_url: str) -> None:
    """There the file's permissions are all there is."""
    said = invoke("db", "grants", LIFECYCLE_DATABASE_URL=sqlite_url)
    assert (said.exit_code, said.stdout) == (0, "")
    assert "SQLite has no roles" in said.stderr


def test_the_application_shares_a_rate(postgres_url: str) -> None:
    """After `lifecycle db upgrade` with a rate, the printed grants are enough to keep to it together."""
    unique = uuid.uuid4().hex[:6]
    roles = {role: f"lifecycle {role} {unique}" for role in ("owner", "application", "analyst")}
    environ = {"LIFECYCLE_DATABASE_URL": postgres_url, "LIFECYCLE_ZOCDOC_RATE": "20/s"}
    for _ in range(2):
        assert invoke("db", "upgrade", **environ).exit_code == 0
    owner, application, analyst = roles.values()
    printed = grants.sql(owner=owner, application=application, analyst=analyst, schema="public", views=VIEWS)
    url = sa.make_url(postgres_url)
    try:
        for _ in range(2):
            _execute(url, printed)
        _execute(url, f'CREATE ROLE "login {unique}" LOGIN IN ROLE "{roles["application"]}"')
        login = url.set(username=f"login {unique}").render_as_string(hide_password=False)
        with closing(rates.shared(login, "20/s")) as pace:
            pace.hold(0.1)
            assert pace.wait(timing.Budget.of(5.0))
            assert pace._retry == 0.0
        assert refused(login, "DROP TABLE ratelimit___lifecycle_zocdoc")
    finally:
        for name in (*roles.values(), f"login {unique}"):
            _execute(url, f'REASSIGN OWNED BY "{name}" TO "{url.username or "postgres"}"')
            _execute(url, f'DROP OWNED BY "{name}"')
        for name in (f"login {unique}", *roles.values()):
            _execute(url, f'DROP ROLE "{name}"')
