"""Migrations: up, down, up; equal to the models; refused when they do not fit; shipped in the wheel."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa

from lifecycle import Lifecycle, SchemaMismatch, database, models, schema
from tests import support
from tests.conftest import _execute

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lifecycle.sandbox import Sandbox

ROOT = Path(__file__).parent.parent
TABLES = {
    "lifecycle_alembic_version",
    "lifecycle_appointments",
    "lifecycle_audit_events",
    "lifecycle_commands",
    "lifecycle_installation",
    "lifecycle_sync_cursors",
    "lifecycle_webhook_deliveries",
}


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Give an empty database of each kind."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'empty.db'}"
        return
    server: sa.URL = request.getfixturevalue("postgres_server")
    name = f"lifecycle_empty_{os.getpid()}"
    _execute(server, f"CREATE DATABASE {name}")
    yield server.set(database=name).render_as_string(hide_password=False)
    _execute(server, f"DROP DATABASE {name} WITH (FORCE)")


def tables(url: str) -> set[str]:
    """Name the tables of a database."""
    engine = sa.create_engine(url)
    try:
        return set(sa.inspect(engine).get_table_names()) - {"sqlite_sequence"}
    finally:
        engine.dispose()


def alembic(url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the real alembic program in the source tree."""
    program = Path(sys.executable).parent / "alembic"
    return subprocess.run(  # noqa: S603 # our own program
        [program, *arguments],
        cwd=ROOT,
        env=support.environment(LIFECYCLE_DATABASE_URL=url, PYTHONWARNINGS="error"),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_up_down_and_up_again(empty_url: str) -> None:
    """A database is brought up, taken back to nothing, functions included, and brought up once more."""
    made = database.Database(empty_url)
    assert schema.upgrade(made) == models.REVISION == schema.current(made)
    assert set(models.metadata.tables) <= tables(empty_url)
    assert tables(empty_url) >= TABLES
    assert all(name.startswith("lifecycle_") for name in tables(empty_url))
    assert schema.check(made) == []
    schema.downgrade(made, to="base")
    assert tables(empty_url) <= {models.VERSION_TABLE}
    assert schema.current(made) is None
    if made.is_postgres:
        functions = "SELECT proname FROM pg_proc WHERE proname LIKE 'lifecycle%'"
        assert support.query(empty_url, functions) == []
    with pytest.raises(SchemaMismatch):
        schema.check(made)
    assert schema.upgrade(made) == models.REVISION
    assert schema.upgrade(made) == models.REVISION
    assert schema.check(made) == []
    made.close()


def test_the_migrations_are_equal_to_the_models(empty_url: str) -> None:
    """The real `alembic check` finds nothing to add; `current` and `downgrade` work in the source tree too."""
    assert alembic(empty_url, "upgrade", "head").returncode == 0
    checked = alembic(empty_url, "check")
    assert (checked.returncode, "No new upgrade operations detected" in checked.stdout) == (0, True), checked.stderr
    assert models.REVISION in alembic(empty_url, "current").stdout
    assert models.REVISION in alembic(empty_url, "heads").stdout
    assert alembic(empty_url, "downgrade", "base").returncode == 0
    assert alembic(empty_url, "check").returncode != 0


def test_the_migrations_print_their_sql(empty_url: str) -> None:
    """A database administrator can read the SQL beforehand."""
    printed = alembic(empty_url, "upgrade", "head", "--sql")
    assert printed.returncode == 0, printed.stderr
    assert "CREATE TABLE lifecycle_audit_events" in printed.stdout
    assert tables(empty_url) == set()


def test_the_hosts_own_tables_are_left_alone(empty_url: str) -> None:
    """In a shared database only tables with our prefix are compared and removed; the host's stay as they are."""
    support.query(empty_url, "CREATE TABLE appointments (id INTEGER PRIMARY KEY, doctor VARCHAR(50))")
    support.query(empty_url, "CREATE TABLE alembic_version (version_num VARCHAR(32) PRIMARY KEY)")
    support.query(empty_url, "CREATE INDEX ix_doctor ON appointments (doctor)")
    support.query(empty_url, "INSERT INTO appointments VALUES (1, 'x')")
    support.query(empty_url, "INSERT INTO alembic_version VALUES ('hosts-own')")
    made = database.Database(empty_url)
    assert schema.upgrade(made) == models.REVISION
    assert schema.check(made) == []
    assert alembic(empty_url, "check").returncode == 0
    schema.downgrade(made, to="base")
    made.close()
    assert tables(empty_url) - {models.VERSION_TABLE} == {"appointments", "alembic_version"}
    assert support.query(empty_url, "SELECT * FROM appointments") == [{"id": 1, "doctor": "x"}]
    assert support.query(empty_url, "SELECT * FROM alembic_version") == [{"version_num": "hosts-own"}]


@pytest.mark.parametrize("disable", [False, True])
def test_a_missing_trigger_is_named(database_url: str, *, disable: bool) -> None:
    """Without its triggers the trail could be rewritten, so the check names each that is gone or off."""
    made = database.Database(database_url)
    names = [
        "lifecycle_audit_no_change" if made.is_postgres else "lifecycle_audit_no_update",
        "lifecycle_audit_gapless",
    ]
    for name in names:
        assert schema.check(made) == []
        if not made.is_postgres:
            [kept] = support.query(database_url, "SELECT sql FROM sqlite_master WHERE name = :name", name=name)
            support.query(database_url, f"DROP TRIGGER {name}")
            assert schema.check(made) == [f"missing trigger {name}"]
            support.query(database_url, kept["sql"])
            continue
        table = "ALTER TABLE lifecycle_audit_events"
        # Enabled in the usual way is not enough: session_replication_role would switch it off.
        support.query(database_url, f"{table} {'DISABLE' if disable else 'ENABLE'} TRIGGER {name}")
        assert schema.check(made) == [f"missing trigger {name}"]
        support.query(database_url, f"{table} ENABLE ALWAYS TRIGGER {name}")
    made.close()


def test_a_changed_table_is_named(database_url: str) -> None:
    """A column that is not ours, or one that is gone, is a difference."""
    made = database.Database(database_url)
    support.query(database_url, "ALTER TABLE lifecycle_commands ADD COLUMN extra INTEGER")
    support.query(database_url, "ALTER TABLE lifecycle_commands DROP COLUMN payload_digest")
    support.query(database_url, "DROP INDEX uq_lifecycle_commands_active")
    found = schema.check(made)
    made.close()
    for name in ("extra", "payload_digest", "uq_lifecycle_commands_active"):
        assert any(name in each for each in found), found


def test_a_database_without_tables_is_refused(empty_url: str, sandbox: Sandbox) -> None:
    """Nothing is created behind the caller's back: the error names the command that does it."""
    with Lifecycle(empty_url) as product:
        for call in (lambda: product.get("a"), lambda: list(product.appointments()), product.recover):
            with pytest.raises(SchemaMismatch) as caught:
                call()
            assert (caught.value.found, caught.value.expected) == (None, models.REVISION)
            assert "lifecycle db upgrade" in str(caught.value)
    assert tables(empty_url) == set()
    assert sandbox.ledger.entries() == []


def test_a_newer_database_is_refused(lifecycle: Lifecycle, sandbox: Sandbox, database_url: str) -> None:
    """A schema of the future is not written to, not even by an upgrade of this version."""
    appointment_id = support.tracked(lifecycle, sandbox)
    support.query(database_url, "UPDATE lifecycle_alembic_version SET version_num = '9999'")
    with Lifecycle(database_url) as product, pytest.raises(SchemaMismatch) as caught:
        product.get(appointment_id)
    assert (caught.value.found, caught.value.expected) == ("9999", models.REVISION)
    made = database.Database(database_url)
    with pytest.raises(SchemaMismatch):
        schema.upgrade(made)
    made.close()


UPGRADE = """
import sys
from lifecycle import database, schema
made = database.Database(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
print(schema.upgrade(made))
made.close()
"""


def test_processes_may_upgrade_at_once(empty_url: str) -> None:
    """Three processes that bring up one empty database wait for each other, and all succeed."""
    children = [
        subprocess.Popen(  # noqa: S603 # our own program
            [sys.executable, "-W", "error", "-c", UPGRADE, empty_url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=support.environment(),
        )
        for _ in range(3)
    ]
    for child in children:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
    for child in children:
        assert child.stdin is not None
        child.stdin.write("go\n")
        child.stdin.flush()
    outputs = [child.communicate(timeout=60) for child in children]
    assert [out.strip() for out, _ in outputs] == [models.REVISION] * 3, outputs
    made = database.Database(empty_url)
    assert schema.check(made) == []
    made.close()


def test_a_migration_that_fails_midway_leaves_nothing(empty_url: str) -> None:
    """One transaction: a table of the same name in the way leaves the database as it was."""
    support.query(empty_url, "CREATE TABLE lifecycle_commands (id INTEGER)")
    made = database.Database(empty_url)
    with pytest.raises(Exception, match=r"lifecycle_commands|database"):
        schema.upgrade(made)
    made.close()
    assert tables(empty_url) == {"lifecycle_commands"}


def test_every_table_and_column_is_described(postgres_url: str) -> None:
    """Analysts find a comment on each table and each column in the database itself."""
    statement = """
        SELECT c.relname, a.attname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum >= 0
        WHERE c.relname LIKE 'lifecycle_%' AND c.relkind = 'r' AND c.relname <> 'lifecycle_alembic_version'
          AND NOT a.attisdropped AND col_description(c.oid, a.attnum) IS NULL
    """
    assert support.query(postgres_url, statement) == []
    statement = """
        SELECT relname FROM pg_class WHERE relname LIKE 'lifecycle_%' AND relkind = 'r'
          AND relname <> 'lifecycle_alembic_version' AND obj_description(oid) IS NULL
    """
    assert support.query(postgres_url, statement) == []


@pytest.mark.timeout(300)
def test_the_wheel_brings_its_migrations_along(tmp_path: Path) -> None:
    """Installed from the wheel, outside the source tree, `lifecycle db upgrade` finds everything it needs."""
    folder = tmp_path / "wheel"
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index", "-q"]
    quiet = {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_ROOT_USER_ACTION": "ignore"}
    subprocess.run(  # noqa: S603 # pip, on our own tree
        [*build, "-w", folder, ROOT], check=True, timeout=200, env=support.environment(**quiet), cwd=tmp_path
    )
    [wheel] = folder.glob("*.whl")
    venv.create(tmp_path / "venv", with_pip=False, symlinks=True)
    python = tmp_path / "venv" / "bin" / "python"
    site = next((tmp_path / "venv" / "lib").glob("python*/site-packages"))
    install: list[str | Path] = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        python,
        "install",
        "--no-deps",
        "--no-index",
        "-q",
        wheel,
    ]
    subprocess.run(install, check=True, timeout=100, env=support.environment(**quiet), cwd=tmp_path)  # noqa: S603
    # Dependencies are lent by the running interpreter, without its editable installs; nothing is downloaded.
    (site / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    env = support.environment(LIFECYCLE_DATABASE_URL=f"sqlite:///{tmp_path / 'wheel.db'}")
    where = "import lifecycle.schema as s; print(s.__file__); print(s.folder())"
    shown = subprocess.run(  # noqa: S603 # our own program
        [python, "-c", where], check=True, capture_output=True, text=True, cwd=tmp_path, env=env, timeout=60
    )
    assert all(line.startswith(str(site)) for line in shown.stdout.split()), shown.stdout
    done = subprocess.run(  # noqa: S603 # our own program
        [python.parent / "lifecycle", "db", "upgrade"],
        check=False,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=env,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert tables(f"sqlite:///{tmp_path / 'wheel.db'}") >= TABLES
