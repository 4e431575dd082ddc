"""A place for worlds: the product's database in one file, made anew for each world."""

from __future__ import annotations

import logging
import shutil
import sqlite3
import tempfile
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from lifecycle import schema
from lifecycle.database import Database
from tests.simulation.clock import Clock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime

    import sqlalchemy as sa

_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 # a folder in memory, used with a random name


class Storage(Database):
    """The product's database, with reads that can fail as its writes can."""

    before_reading: Callable[[], None] | None = None

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """Open a reading transaction, or find the database gone."""
        if self.before_reading is not None:
            self.before_reading()
        with super().read() as connection:
            yield connection


class Site:
    """One process's place: a migrated template, and one database file that each world gets afresh.

    `tamper` is SQL that each new file is prepared with, for planted bugs that need an index or a trigger gone.
    """

    def __init__(self) -> None:
        memory = str(_SHARED_MEMORY) if _SHARED_MEMORY.is_dir() else None
        self._folder = tempfile.TemporaryDirectory(prefix="simulation-", dir=memory)
        folder = Path(self._folder.name)
        self.path, self._template = folder / "world.db", folder / "template.db"
        made = Database(f"sqlite:///{self._template}")
        schema.upgrade(made)
        made.close()
        self.tamper = ""
        self._clock = Clock()
        self.storage = Storage(f"sqlite:///{self.path}", now=self._now)
        # Records that nobody keeps would cost a fifth of the time.
        logging.getLogger("sqlalchemy.engine.Engine.lifecycle").setLevel(logging.WARNING)
        logging.getLogger("lifecycle").addHandler(logging.NullHandler())

    def renew(self, clock: Clock, before_reading: Callable[[], None]) -> None:
        """Hand the place to a world: an empty database, its clock, and its say before each read."""
        self.storage.close()
        for suffix in ("", "-wal", "-shm"):
            self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)
        shutil.copyfile(self._template, self.path)
        if self.tamper:
            with closing(sqlite3.connect(self.path)) as connection:
                connection.executescript(self.tamper)
        self._clock, self.storage.before_reading = clock, before_reading

    def close(self) -> None:
        """Remove everything."""
        self.storage.close()
        self._folder.cleanup()

    def _now(self) -> datetime:
        return self._clock.now()
