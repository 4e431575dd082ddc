"""Real databases and a real server for every test: SQLite files, PostgreSQL from a wheel, the stand-in on loopback."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import uuid
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa

from lifecycle import Lifecycle, Timing, ZocdocClient, database, schema
from lifecycle.sandbox import Sandbox, serve
from tests import servers, trail
from tests.tampering import Scene

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from lifecycle.sandbox import Server

FAST = Timing(settle=0.05, spacing=(0.05, 0.05), read_backoff=0.02, failed_reads=3, resend_backoff=0.05)
"""The product's intervals, shortened: what they are does not change what must happen after them."""


def pytest_configure() -> None:
    """Let Ctrl-C mean what it means at a terminal: a shell starts what runs in its background with SIGINT ignored."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[sa.URL]:
    """One PostgreSQL server for the session: LIFECYCLE_TEST_POSTGRES_URL, or one started from the wheel."""
    given = os.environ.get("LIFECYCLE_TEST_POSTGRES_URL")
    if given:
        yield sa.make_url(given).set(drivername="postgresql+psycopg")
        return
    # Not under pytest's tmp_path: as root the server runs as another user, who must reach the folder.
    folder = tempfile.mkdtemp(prefix="lifecycle-pg-")
    server = servers.started(folder)
    url = sa.make_url(server.get_uri()).set(drivername="postgresql+psycopg")
    for setting in ("fsync", "synchronous_commit", "full_page_writes"):  # nobody cuts the power of this one
        _execute(url, f"ALTER SYSTEM SET {setting} = off")
    _execute(url, "SELECT pg_reload_conf()")
    yield url
    server.cleanup()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite file, to be copied."""
    path = tmp_path_factory.mktemp("template") / "template.db"
    made = database.Database(f"sqlite:///{path}")
    schema.upgrade(made)
    made.close()
    return path


@pytest.fixture(scope="session")
def postgres_template(postgres_server: sa.URL) -> str:
    """The name of a migrated PostgreSQL database, to be copied."""
    name = f"lifecycle_template_{uuid.uuid4().hex[:8]}"
    _execute(postgres_server, f"CREATE DATABASE {name}")
    made = database.Database(postgres_server.set(database=name))
    schema.upgrade(made)
    made.close()
    return name


@pytest.fixture
def sqlite_url(sqlite_template: Path, tmp_path: Path) -> Iterator[str]:
    """A migrated SQLite database of the test's own; its trail must be sound when the test is over."""
    path = tmp_path / "appointments.db"
    shutil.copy(sqlite_template, path)
    yield f"sqlite:///{path}"
    _assert_sound(f"sqlite:///{path}")


@pytest.fixture
def postgres_url(postgres_server: sa.URL, postgres_template: str) -> Iterator[str]:
    """A migrated PostgreSQL database of the test's own; its trail must be sound when the test is over."""
    name = f"lifecycle_test_{uuid.uuid4().hex[:12]}"
    _execute(postgres_server, f"CREATE DATABASE {name} TEMPLATE {postgres_template}")
    url = postgres_server.set(database=name).render_as_string(hide_password=False)
    yield url
    _assert_sound(url)
    _execute(postgres_server, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str:
    """Both databases in turn."""
    url: str = request.getfixturevalue("sqlite_url" if request.param == "sqlite" else "postgres_url")
    return url


@pytest.fixture
def sandbox() -> Sandbox:
    """The stand-in's state: fixtures, faults, ledger."""
    return Sandbox()


@pytest.fixture
def server(sandbox: Sandbox) -> Iterator[Server]:
    """The stand-in over loopback."""
    with serve(sandbox) as running:
        yield running


@pytest.fixture
def client(server: Server) -> Iterator[ZocdocClient]:
    """A machine-to-machine client of the stand-in."""
    with machine_client(server) as made:
        yield made


@pytest.fixture
def lifecycle(database_url: str, client: ZocdocClient) -> Iterator[Lifecycle]:
    """The product, with short intervals, on both databases in turn."""
    with Lifecycle(database_url, zocdoc=client, timing=FAST) as made:
        yield made


@pytest.fixture(scope="session")
def sqlite_scene(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Scene:
    """An SQLite file to be copied."""
    path = tmp_path_factory.mktemp("scene") / "scene.db"
    shutil.copy(sqlite_template, path)
    url = f"sqlite:///{path}"
    return Scene(url, *_told(url))


@pytest.fixture(scope="session")
def postgres_scene(postgres_server: sa.URL, postgres_template: str) -> Scene:
    """A PostgreSQL database to be copied."""
    name = f"lifecycle_scene_{uuid.uuid4().hex[:8]}"
    _execute(postgres_server, f"CREATE DATABASE {name} TEMPLATE {postgres_template}")
    url = postgres_server.set(database=name).render_as_string(hide_password=False)
    return Scene(url, *_told(url))


@pytest.fixture
def sqlite_only(sqlite_scene: Scene, tmp_path: Path) -> Scene:
    """A copy of the SQLite file."""
    path = tmp_path / "tampered.db"
    shutil.copy(sqlite_scene.url.removeprefix("sqlite:///"), path)
    return Scene(f"sqlite:///{path}", sqlite_scene.a, sqlite_scene.b, sqlite_scene.c)


@pytest.fixture
def postgres_only(postgres_scene: Scene, postgres_server: sa.URL) -> Iterator[Scene]:
    """A copy of the PostgreSQL database."""
    name = f"lifecycle_tampered_{uuid.uuid4().hex[:8]}"
    _execute(postgres_server, f"CREATE DATABASE {name} TEMPLATE {sa.make_url(postgres_scene.url).database}")
    url = postgres_server.set(database=name).render_as_string(hide_password=False)
    yield Scene(url, postgres_scene.a, postgres_scene.b, postgres_scene.c)
    _execute(postgres_server, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(params=["sqlite_only", "postgres_only"])
def scene(request: pytest.FixtureRequest) -> Scene:
    """A copy to be tampered with, of both databases in turn; nobody asserts afterwards that it is sound."""
    found: Scene = request.getfixturevalue(request.param)
    return found


def machine_client(server: Server, **options: float) -> ZocdocClient:
    """Make a client with the stand-in's default credentials."""
    return ZocdocClient(
        base_url=server.base_url,
        token_url=server.token_url,
        client_id="sandbox-client",
        client_secret="sandbox-secret",
        audience=server.audience,
        **options,  # type: ignore[arg-type] # numbers only
    )


def _assert_sound(url: str) -> None:
    engine = sa.create_engine(url)
    try:
        assert trail.faults(engine) == []
    finally:
        engine.dispose()


def _execute(server: sa.URL, statement: str) -> None:
    engine = sa.create_engine(server, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(statement)
    engine.dispose()


def _told(url: str) -> tuple[str, str, str]:
    """Let the product tell two stories of five events and one of a single event; give the ids."""
    sandbox = Sandbox()
    with serve(sandbox) as server, machine_client(server) as client, Lifecycle(url, zocdoc=client) as lifecycle:
        ids = [sandbox.add() for _ in range(3)]
        for appointment_id in ids:
            lifecycle.track(appointment_id, actor="user:17")
        for appointment_id in ids[:2]:
            lifecycle.confirm(appointment_id, actor="user:17")
        for appointment_id in ids[:2]:
            lifecycle.cancel(appointment_id, actor="user:17")
    return ids[0], ids[1], ids[2]
