"""Waking workers up by jobs of Procrastinate, in the same PostgreSQL transaction that queues a command.

A job carries nothing: whoever takes it claims what is due. So a job that is lost, doubled or late costs time only, and
one job per command, which is what would bound the throughput, is not needed. Needs the extra `postgres`.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any, Final

import psycopg
import sqlalchemy as sa
from procrastinate.exceptions import ProcrastinateException
from procrastinate.jobs import Job
from procrastinate.manager import JobManager
from procrastinate.sync_psycopg_connector import SyncPsycopgConnector

from lifecycle import errors, models
from lifecycle.columns import UtcDateTime
from lifecycle.engines import tables

if TYPE_CHECKING:
    from collections.abc import Callable

    from lifecycle.database import Database

_log = logging.getLogger(__name__)

WAKE_UP: Final = "lifecycle.dispatch"
"""The name of the task."""

_PASS_ON_SECONDS: Final = 0.5
"""Shortest time between two wake-ups that one busy worker sends to the others."""


class PostgresEngine:
    """Implements `engines.port.Engine`: an announced command wakes one worker, which wakes the next if it must.

    Thread-safe. Raises `ConfigurationError` for a database or driver that Procrastinate cannot use.
    """

    def __init__(self, database: Database, *, clock: Callable[[], float] = time.monotonic) -> None:
        tables.check(database)
        self._database = database
        # Never opened: every job goes over a connection that is handed to it.
        self._jobs = JobManager(SyncPsycopgConnector())
        self._clock = clock
        self._passed_on = -_PASS_ON_SECONDS

    def announce(self, connection: sa.Connection) -> None:
        """Defer a wake-up in this open transaction. What fails here is logged by its type and undone, nothing else.

        Raises `DatabaseUnavailable` only if the connection is lost, and the transaction with it.
        """
        driver: Any = connection.connection.driver_connection
        if not isinstance(driver, psycopg.Connection):
            _unavailable(TypeError())
            return
        try:
            # A failed statement would abort the caller's transaction; back to the savepoint, it does not.
            with connection.begin_nested():
                self._jobs.defer_job(_JOB, connection=driver)
        except (ProcrastinateException, sa.exc.SQLAlchemyError, psycopg.Error) as error:
            if driver.closed:
                raise errors.DatabaseUnavailable(problem=_LOST, is_transient=True) from None
            _unavailable(error)

    def committed(self, *_session: object) -> None:
        """Do nothing: PostgreSQL itself tells the workers when a transaction is committed."""

    def ensure(self) -> None:
        """Make Procrastinate's tables if they are gone, and wake a worker if commands are due. Raises nothing."""
        try:
            tables.set_up(self._database)
            with self._database.write() as connection:
                if connection.execute(_IS_DUE, {"now": self._database.now(connection)}).scalar_one():
                    self._wake_one(connection)
        except errors.LifecycleError as error:
            _unavailable(error)

    def pass_on(self) -> None:
        """Wake another worker, because there is more than this one can take; unless one is being woken already.

        Opens a transaction of its own. Raises nothing.
        """
        now = self._clock()
        if now - self._passed_on < _PASS_ON_SECONDS:
            return
        self._passed_on = now
        try:
            with self._database.write() as connection:
                self._wake_one(connection)
        except errors.LifecycleError as error:
            _unavailable(error)

    def close(self) -> None:
        """Do nothing: no connection is held."""

    def _wake_one(self, connection: sa.Connection) -> None:
        """Defer a wake-up unless one waits: it would say the same. For transactions of ours only.

        In a caller's the waiting one may be taken before the caller commits.
        """
        if not connection.execute(_IS_WOKEN).scalar_one():
            self.announce(connection)


def _unavailable(error: Exception) -> None:
    """Say that nobody was woken: by the cause's type, because its text may quote anything."""
    _log.warning("engine_unavailable", extra={"error": type(error.__cause__ or error).__name__})


_JOB: Final = Job(queue=tables.QUEUE, task_name=WAKE_UP, lock=None, queueing_lock=None)
_commands = models.commands
_IS_DUE: Final = sa.select(
    sa.exists().where(
        models.state_in(models.CommandState.QUEUED), _commands.c.due_at <= sa.bindparam("now", type_=UtcDateTime())
    )
)
_IS_WOKEN: Final = sa.text(
    f"SELECT EXISTS (SELECT 1 FROM procrastinate_jobs WHERE status = 'todo' AND queue_name = '{tables.QUEUE}')"  # noqa: S608 # a constant
)
_LOST: Final = "the connection to PostgreSQL was lost"
