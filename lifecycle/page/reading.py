"""The database side of the page: reads that cannot write, that end at a deadline, in few threads of their own.

So the page takes nothing from the webhook door but two threads and their connections, however large a window is asked
for.
"""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final, TypeVar

import sqlalchemy as sa

from lifecycle import errors
from lifecycle.database import Database

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime

_T = TypeVar("_T")

SECONDS: Final = 20.0
"""How long one read may take; nobody waits longer for a picture."""

_THREADS: Final = 2
_WAITING: Final = 16
"""Requests that may wait for a thread; a crowd is told at once."""

_STEPS: Final = 20_000
"""Instructions of SQLite's machine between two looks at the clock: well under a millisecond."""


class TooSlow(Exception):
    """The deadline came before the answer."""


class TooBusy(Exception):
    """No thread became free in time."""


class Bounded(Database):
    """A database whose reads cannot write, see one snapshot, and end at a deadline, with `TooSlow`.

    It shares the other one's engine.
    """

    def __init__(self, database: Database, *, seconds: float) -> None:
        super().__init__(database.engine)
        self._clock = database.now
        self._seconds = seconds
        self._closing = threading.Event()
        self._reading: set[Any] = set()

    def now(self, connection: sa.Connection) -> datetime:
        """Tell the time by the clock of the database."""
        return self._clock(connection)

    def interrupt(self) -> None:
        """End every read, those to come as well: the server is about to stop."""
        self._closing.set()
        for driver in tuple(self._reading):
            with suppress(Exception):  # it has just ended, or its server has gone
                driver.cancel() if self.is_postgres else driver.interrupt()

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """Open a transaction that only reads, until the deadline. Raises as `Database.read` does, and `TooSlow`."""
        until = time.monotonic() + self._seconds
        try:
            with super().read() as connection, self._limited(connection, until):
                yield connection
        except errors.DatabaseUnavailable:
            if self._is_over(until):
                raise TooSlow from None
            raise

    def _is_over(self, until: float) -> bool:
        return self._closing.is_set() or time.monotonic() >= until

    @contextmanager
    def _limited(self, connection: sa.Connection, until: float) -> Iterator[None]:
        def look(*_: Any) -> None:  # noqa: ANN401 # SQLAlchemy's arguments
            if self._is_over(until):
                raise TooSlow

        connection.rollback()  # what was looked up so far began a transaction of another kind
        sa.event.listen(connection, "before_cursor_execute", look)
        driver: Any = connection.connection.driver_connection
        self._reading.add(driver)
        try:
            with self._snapshot(connection) if self.is_postgres else self._sqlite_snapshot(driver, until):
                yield
        finally:
            self._reading.discard(driver)

    @contextmanager
    def _snapshot(self, connection: sa.Connection) -> Iterator[None]:
        connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        connection.execute(_TIMEOUT, {"milliseconds": f"{int(self._seconds * 1000)}ms"})
        yield

    @contextmanager
    def _sqlite_snapshot(self, driver: Any, until: float) -> Iterator[None]:  # noqa: ANN401 # sqlite3's
        driver.execute("PRAGMA query_only = ON")
        driver.set_progress_handler(lambda: self._is_over(until), _STEPS)
        try:
            driver.execute("BEGIN")
            yield
        finally:
            # The connection goes back to a pool that writers share.
            driver.set_progress_handler(None, 0)
            driver.rollback()
            driver.execute("PRAGMA query_only = OFF")


class Readers:
    """Threads that read for the page; a request waits for one of them, at most as long as a read may take."""

    def __init__(self, database: Database, *, seconds: float = SECONDS) -> None:
        self._database = Bounded(database, seconds=seconds)
        self._seconds = seconds
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="lifecycle-page")
        self._free = asyncio.Semaphore(_THREADS)
        self._waiting = 0

    def close(self) -> None:
        """End what is being read, and take nothing on any more."""
        self._database.interrupt()
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def read(self, work: Callable[[Database], _T]) -> _T:
        """Run `work` with the database in a thread. Raises what it raises, `TooSlow`, and `TooBusy`."""
        await self._take()
        try:
            reading = asyncio.get_running_loop().run_in_executor(self._threads, work, self._database)
        except RuntimeError:  # the server has stopped
            self._free.release()
            raise TooBusy from None
        # By the thread's end, not the request's: a caller who has gone does not stop a thread.
        reading.add_done_callback(self._give_back)
        return await asyncio.shield(reading)

    async def _take(self) -> None:
        if not self._free.locked():
            await self._free.acquire()
            return
        if self._waiting >= _WAITING:
            raise TooBusy
        self._waiting += 1
        try:
            await asyncio.wait_for(self._free.acquire(), self._seconds)
        except TimeoutError:
            raise TooBusy from None
        finally:
            self._waiting -= 1

    def _give_back(self, reading: asyncio.Future[Any]) -> None:
        self._free.release()
        if not reading.cancelled():
            reading.exception()  # nobody may be waiting for it any more


_TIMEOUT: Final = sa.text("SELECT set_config('statement_timeout', :milliseconds, true)")
