"""What Procrastinate calls in a worker: wake-ups, errands once in all workers together, and the rescue of lost jobs."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from typing import TYPE_CHECKING, Any, Final

from procrastinate.exceptions import ProcrastinateException
from procrastinate.jobs import Status

from lifecycle.engines import postgres, tables
from lifecycle.working import schedule

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from procrastinate import App, JobContext

    from lifecycle.engines.postgres import PostgresEngine
    from lifecycle.working.errands import Errand

STALLED_SECONDS: Final = 30.0
"""A worker without a heartbeat for so long is dead: three times the interval of heartbeats."""

_RESCUE: Final = "* * * * * */30"
"""Every 30 seconds, the seconds being cron's sixth field."""

_KEEP_HOURS: Final = 1
"""Failed and cut off jobs are kept for so long, for whoever looks into them."""

_log = logging.getLogger(__name__)


def add(app: App, *, drain: Callable[[], None], engine: PostgresEngine, errands: Iterable[Errand]) -> None:
    """Add all tasks; `drain` looks at what is queued and returns when nothing is due any more."""
    app.task(name=postgres.WAKE_UP, queue=tables.QUEUE)(_wake_up(app, drain))
    _add_periodic(app, "lifecycle.rescue", _RESCUE, _rescue(app, engine))
    for errand in errands:
        _add_periodic(app, f"lifecycle.{errand.name}", schedule.cron(errand.every), _errand(app, errand))


async def in_thread(act: Callable[[], object]) -> None:
    """Run it in a daemon thread: unlike those of an executor it does not keep the process from ending.

    Raises what it raises.
    """
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[None] = loop.create_future()

    def conclude(error: Exception | None) -> None:
        if ended.done():
            return  # nobody waits any more
        if error is None:
            ended.set_result(None)
        else:
            ended.set_exception(error)

    def run() -> None:
        failure: Exception | None = None
        try:
            act()
        except Exception as error:  # noqa: BLE001 # handed on
            failure = error
        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(conclude, failure)

    threading.Thread(target=run, name="lifecycle-errand", daemon=True).start()
    await ended


def _wake_up(app: App, drain: Callable[[], None]) -> Callable[[], Awaitable[None]]:
    async def wake_up() -> None:
        # What they announce is committed, so this drain sees it: the other wake-ups say nothing more than this one.
        with contextlib.suppress(ProcrastinateException):
            await app.connector.execute_query_async(_DROP_WAKE_UPS, queue=tables.QUEUE)
        await in_thread(drain)

    return wake_up


def _errand(app: App, errand: Errand) -> Callable[..., Awaitable[None]]:
    is_here = threading.Lock()

    def act() -> None:
        # One that takes longer than its pause must not take the threads of all the others.
        if is_here.acquire(blocking=False):
            try:
                errand.run()
            finally:
                is_here.release()

    async def run(context: JobContext, timestamp: int) -> None:
        del timestamp
        if not (errand.is_alone and await _is_elsewhere(app, context)):
            await in_thread(act)

    return run


async def _is_elsewhere(app: App, context: JobContext) -> bool:
    """Tell whether a live worker is at an earlier job of the same task.

    A lock of Procrastinate's would outlive a dead worker, and was slow with many of them.
    """
    found = await app.connector.execute_query_one_async(
        _IS_ELSEWHERE, id=context.job.id, name=context.job.task_name, seconds=STALLED_SECONDS
    )
    return bool(found["is_elsewhere"])


def _rescue(app: App, engine: PostgresEngine) -> Callable[..., Awaitable[None]]:
    """Remove the jobs of dead workers; what they were to do is found in the commands' own table, or is due again."""

    async def rescue(context: JobContext, timestamp: int) -> None:
        del context, timestamp
        jobs, rescued = app.job_manager, 0
        await jobs.prune_stalled_workers(STALLED_SECONDS)
        for queue in (tables.QUEUE, tables.ERRANDS):
            for job in await jobs.get_stalled_jobs(queue=queue, seconds_since_heartbeat=STALLED_SECONDS):
                with contextlib.suppress(ProcrastinateException):  # another worker was faster
                    await jobs.finish_job(job, Status.FAILED, delete_job=True)
                    rescued += 1
        await app.connector.execute_query_async(_DROP_OLD, queues=[tables.QUEUE, tables.ERRANDS], hours=_KEEP_HOURS)
        if rescued:
            _log.warning("jobs_rescued", extra={"jobs": rescued})
            await in_thread(engine.ensure)

    return rescue


def _add_periodic(app: App, name: str, cron: str, run: Callable[..., Awaitable[None]]) -> None:
    task: Any = app.task(name=name, queue=tables.ERRANDS, queueing_lock=name, pass_context=True)(run)
    app.periodic(cron=cron)(task)


_DROP_WAKE_UPS: Final = """
    DELETE FROM procrastinate_jobs WHERE id IN (
      SELECT id FROM procrastinate_jobs WHERE status = 'todo' AND queue_name = %(queue)s FOR UPDATE SKIP LOCKED
    )
"""
# Procrastinate's own statement for this reads the jobs of all queues.
_DROP_OLD: Final = """
    DELETE FROM procrastinate_jobs j
    WHERE queue_name = ANY(%(queues)s) AND status NOT IN ('todo', 'doing') AND NOT EXISTS (
      SELECT 1 FROM procrastinate_events e WHERE e.job_id = j.id AND e.at > now() - make_interval(hours => %(hours)s)
    )
"""
_IS_ELSEWHERE: Final = """
    SELECT EXISTS (
      SELECT 1 FROM procrastinate_jobs j JOIN procrastinate_workers w ON w.id = j.worker_id
      WHERE j.task_name = %(name)s AND j.status = 'doing' AND j.id < %(id)s
        AND w.last_heartbeat > now() - make_interval(secs => %(seconds)s)
    ) AS is_elsewhere
"""
