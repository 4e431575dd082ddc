"""A worker's share in Procrastinate, in an asyncio loop in a thread of its own.

It is started again, with growing pauses, whatever it ends with: its tables dropped, PostgreSQL gone. Nothing of the
product depends on it but how soon something is done.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from typing import TYPE_CHECKING, Any, Final

import procrastinate
from procrastinate.worker import Worker

from lifecycle.engines import tables
from lifecycle.working import tasks

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lifecycle.database import Database
    from lifecycle.engines.postgres import PostgresEngine
    from lifecycle.working.errands import Errand

_HEARTBEAT_SECONDS: Final = 10.0
_POLL_SECONDS: Final = 2.0
"""Procrastinate can miss a notification: while it starts to listen, and while it fetches."""

_GRACE_SECONDS: Final = 2.0
"""For jobs to be noted as done; the threads that they wait for go on without them."""

_LONGEST_PAUSE: Final = 30.0
_STEADY_SECONDS: Final = 60.0
"""Having run for so long, the next failure counts as the first."""

_CONNECTION: Final = {
    "connect_timeout": 10,
    "keepalives_idle": 20,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
    "application_name": "lifecycle worker",
}
"""A half-open connection is noticed within about half a minute."""

_log = logging.getLogger(__name__)


class Cluster:
    """Takes wake-ups, for which it calls `drain`, and does its share of the errands, until it is stopped."""

    def __init__(
        self, database: Database, engine: PostgresEngine, *, drain: Callable[[], None], errands: Sequence[Errand]
    ) -> None:
        self._database = database
        self._engine = engine
        self._drain = drain
        self._errands = errands
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping = asyncio.Event()
        self._is_stopped = threading.Event()
        self._is_up = False
        self._thread = threading.Thread(target=self._run, name="lifecycle-cluster", daemon=True)

    @property
    def is_up(self) -> bool:
        """Tell whether Procrastinate runs; without it everything happens, but later."""
        return self._is_up

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Take nothing more; errands under way are cut off."""
        self._is_stopped.set()
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # it has ended meanwhile
                self._loop.call_soon_threadsafe(self._stopping.set)

    def join(self, seconds: float) -> None:
        """Wait for the end, at most so long."""
        self._thread.join(seconds)

    def _run(self) -> None:
        asyncio.run(self._supervise())

    async def _supervise(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._loop.set_exception_handler(_note)
        failures = 0
        while not self._is_stopped.is_set():
            begun = time.monotonic()
            try:
                await self._take_part()
            except Exception as error:  # noqa: BLE001 # whatever it is, the worker goes on
                _unavailable(error)
            failures = 1 if time.monotonic() - begun > _STEADY_SECONDS else failures + 1
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), min(2.0 ** min(failures, 10) / 4, _LONGEST_PAUSE))

    async def _take_part(self) -> None:
        """Run Procrastinate until it fails or is to stop."""
        await tasks.in_thread(lambda: tables.set_up(self._database))
        connector = procrastinate.PsycopgConnector(
            kwargs=_CONNECTION | _arguments(self._database), min_size=1, max_size=6, timeout=10
        )
        app = procrastinate.App(connector=connector)
        tasks.add(app, drain=self._drain, engine=self._engine, errands=self._errands)
        try:
            await app.open_async()
            await self._work(app)
        finally:
            await app.close_async()

    async def _work(self, app: procrastinate.App) -> None:
        """Take one wake-up at a time, so that the next one goes to another worker; errands beside it."""
        workers: list[Any] = [_worker(app, tables.QUEUE, 1), _worker(app, tables.ERRANDS, len(self._errands) + 1)]
        running = [asyncio.create_task(worker.run()) for worker in workers]
        stopped = asyncio.create_task(self._stopping.wait())
        self._is_up = True
        await asyncio.wait([*running, stopped], return_when=asyncio.FIRST_COMPLETED)
        self._is_up = False
        if not stopped.done():
            _log.warning("engine_stopped")  # it tells why in its own log
        stopped.cancel()
        for worker in workers:
            worker.stop()
        for ended in await asyncio.gather(*running, return_exceptions=True):
            if isinstance(ended, Exception):
                _unavailable(ended)


def _worker(app: procrastinate.App, queue: str, concurrency: int) -> Worker:
    return Worker(
        app,
        queues=[queue],
        name=queue,
        concurrency=concurrency,
        fetch_job_polling_interval=_POLL_SECONDS,
        shutdown_graceful_timeout=_GRACE_SECONDS,
        delete_jobs="successful",
        install_signal_handlers=False,
        update_heartbeat_interval=_HEARTBEAT_SECONDS,
        stalled_worker_timeout=tasks.STALLED_SECONDS,
    )


def _arguments(database: Database) -> dict[str, Any]:
    """Give what the driver connects with, as the URL says; a host's engine may need more, and is then only polled."""
    engine = database.engine
    _, named = engine.dialect.create_connect_args(engine.url)
    return dict(named)


def _note(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log what nobody waited for by its type: a job, for instance, whose end could not be noted."""
    error = context.get("exception")
    if isinstance(error, Exception):
        _unavailable(error)


def _unavailable(error: Exception) -> None:
    _log.warning("engine_unavailable", extra={"error": type(error.__cause__ or error).__name__})
