"""A worker: one process of any number that carry the submitted commands of one database out."""

from __future__ import annotations

import logging
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final

from lifecycle import claiming
from lifecycle.dispatching import Dispatcher
from lifecycle.engines.inline import InlineEngine
from lifecycle.working import errands
from lifecycle.working.draining import Draining
from lifecycle.working.health import Health, probe
from lifecycle.working.watching import Watch

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Sequence

    from lifecycle.api import Lifecycle
    from lifecycle.job import Job
    from lifecycle.working.cluster import Cluster
    from lifecycle.working.errands import Errand

STOP_SECONDS: Final = 45.0
"""Longer than a call of the client's usual deadline and the pauses in which its outcome is recorded."""

_HANG_SECONDS: Final = 60.0
"""A worker that got nowhere for so long, and for the lease of a call besides, hangs: all its pauses are shorter."""

_CUT_SECONDS: Final = 5.0
"""For what may be cut off at any point, and for Procrastinate to note that this worker goes."""

_log = logging.getLogger(__name__)


def run(
    lifecycle: Lifecycle,
    *,
    stop: threading.Event,
    concurrency: int = 8,
    recover_every: float = 10.0,
    inbox_every: float | None = None,
    sync_every: float | None = None,
    track_unknown: bool = False,
    stop_timeout: float = STOP_SECONDS,
    health: tuple[str, int] | None = None,
    announce: Callable[[int], object] | None = None,
) -> bool:
    """Carry submitted commands out until `stop` is set, then finish what is in the air; False: not all of it ended.

    All intervals are seconds; None: not at all. `health` is the address of a probe, and `announce` is called with the
    port that it took. With `dispatch="procrastinate"` the errands are done once in all workers together, at even steps
    that divide a minute, an hour or a day. Nothing that happens meanwhile is raised: it is logged, and tried again.
    Raises `InvalidArgument`, and `OSError` for an address that cannot be taken.
    """
    chosen = errands.chosen(
        lifecycle,
        recover_every=recover_every,
        inbox_every=inbox_every,
        sync_every=sync_every,
        track_unknown=track_unknown,
    )
    worker = Worker(lifecycle, chosen, concurrency=concurrency)
    with ExitStack() as stack:
        if health is not None:
            port = stack.enter_context(probe(worker.health, host=health[0], port=health[1]))
            if announce is not None:
                announce(port)
        worker.start()
        try:
            stop.wait()
        finally:
            all_ended = worker.stop(stop_timeout)
    return all_ended


def check(lifecycle: Lifecycle) -> None:
    """Refuse a database on which a worker would only wait. One read.

    Raises `EnvironmentMismatch`, `SchemaMismatch`, `DatabaseUnavailable`.
    """
    with lifecycle.database.read() as connection:
        lifecycle.resources.check_own_environment(connection)


class Worker:
    """The parts of a worker, for a host that runs it beside other things; `run` is the whole story."""

    def __init__(self, lifecycle: Lifecycle, chosen: Sequence[Errand], *, concurrency: int) -> None:
        resources = lifecycle.resources
        client = resources.clients.default
        self._longest_silence = _HANG_SECONDS + resources.timing.lease(0.0 if client is None else client.deadline)
        self._dispatcher = Dispatcher(resources, concurrency=concurrency)
        self._watch = Watch(lambda: claiming.next_due(resources))
        self._jobs: list[Job] = [self._watch.job]
        self._cluster: Cluster | None = None
        engine = lifecycle.engine
        if isinstance(engine, InlineEngine):
            self._draining = Draining(self._dispatcher)
            self._jobs += [errand.job() for errand in chosen]
            return
        from lifecycle.engines.postgres import PostgresEngine  # noqa: PLC0415 # loads Procrastinate
        from lifecycle.working.cluster import Cluster  # noqa: PLC0415 # as above

        assert isinstance(engine, PostgresEngine)  # noqa: S101 # there are two
        self._draining = Draining(self._dispatcher, on_backlog=engine.pass_on)
        self._cluster = Cluster(lifecycle.database, engine, drain=self._draining.through, errands=chosen)

    def start(self) -> None:
        """Begin."""
        _log.info("worker_started", extra={"concurrency": self._dispatcher.concurrency})
        self._draining.start()
        for job in self._jobs:
            job.start()
        if self._cluster is not None:
            self._cluster.start()

    def stop(self, seconds: float) -> bool:
        """Begin nothing more, wait at most so long for what is in the air, and tell whether all of it has ended."""
        for job in self._jobs:
            job.stop()
        self._draining.stop()
        if all_ended := self._draining.join(seconds):
            self._dispatcher.close()
        until = time.monotonic() + _CUT_SECONDS
        if self._cluster is not None:
            self._cluster.stop()
            self._cluster.join(_CUT_SECONDS)
        for job in self._jobs:
            job.join(max(0.0, until - time.monotonic()))
        _log.info("worker_stopped", extra={"in_flight": self._dispatcher.in_flight})
        return all_ended

    def health(self) -> Health:
        """Tell how it is. Asks nobody."""
        beat = time.monotonic() - max(self._draining.beat, self._dispatcher.beat)
        is_alive = beat < self._longest_silence
        return Health(
            is_alive=is_alive,
            is_ready=is_alive and self._watch.is_reachable and not self._draining.is_failing,
            engine=self._engine,
            beat_seconds=round(beat, 1),
            in_flight=self._dispatcher.in_flight,
            oldest_due_seconds=self._watch.oldest_due_seconds,
        )

    @property
    def _engine(self) -> str:
        if self._cluster is None:
            return "inline"
        return "up" if self._cluster.is_up else "down"
