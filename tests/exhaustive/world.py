"""The world that a cell is run in: a stand-in that keeps its zombies, a clock that skips, workers on one database."""

from __future__ import annotations

import logging
import shutil
import socket
import sqlite3
import time
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, Self
from unittest import mock

import sqlalchemy as sa

from lifecycle import Lifecycle, Timing, ZocdocClient, database, points, schema
from lifecycle.sandbox import Ledger, Sandbox, serve
from lifecycle.zocdoc import timing
from tests import inthread

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from types import TracebackType

    from lifecycle.points import Point
    from lifecycle.sandbox import Fault

TIMING: Final = Timing(send_window=25.0, failed_reads=3, record_again=(0.0, 0.0), resends=4)
"""The product's own intervals, since time is skipped; fewer failed reads and resends, and no real pauses.

The send window, like a client's time-out, is wider: both also see how long the machine stands still.
"""

TIMEOUT: Final = 25.0
"""Seconds that a client waits for an answer, unless it is hasty: its whole deadline."""

PATIENCE: Final = 0.12
"""Seconds that the hasty client gives to an answer; faults of slowness take longer."""

AGES: Final = 10**8
"""Seconds that a token lives: cells skip minutes each, and a token that ends would change what a cell meets."""


class Crash(BaseException):
    """The process ends here. No handler of the product may catch it."""


class Clock:
    """Real time, and what was skipped. Stands in for the module `time` where the client looks at it."""

    def __init__(self) -> None:
        self._ahead = 0.0

    def now(self) -> datetime:
        """Tell the time of the database and of the stand-in."""
        return datetime.now(UTC) + timedelta(seconds=self._ahead)

    def skip(self, seconds: float) -> None:
        """Let so much time be over."""
        self._ahead += seconds

    def monotonic(self) -> float:
        """Tell what `time.monotonic` would."""
        return time.monotonic() + self._ahead

    def clock_gettime(self, which: int) -> float:
        """Tell what `time.clock_gettime` would."""
        return time.clock_gettime(which) + self._ahead

    def sleep(self, seconds: float) -> None:
        """Skip instead of sleeping."""
        self.skip(seconds)


class Stage(Sandbox):
    """The stand-in, but zombies wait until they are released: the moment is the test's choice, not a timer's."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(now=clock.now, token_lifetime=AGES)
        self._zombies: list[Any] = []

    def _apply_later(self, call: Any, fault: Fault) -> Any:
        self._zombies.append(call)
        return self._leave(call, fault.reply(call.request_id))

    @property
    def buried(self) -> int:
        """Count the requests that were answered and are still to be applied."""
        return len(self._zombies)

    def release(self) -> None:
        """Apply every request that waits."""
        zombies, self._zombies = self._zombies, []
        for call in zombies:
            self._process(call, late=True)


class Line:
    """The way to the database of one worker, which can be cut. It writes down what went over it."""

    def __init__(self, engine: sa.Engine, trap: Trap) -> None:
        self.failure: str | None = None
        self.struck = 0
        self._trap = trap
        self._commit = engine.dialect.do_commit
        sa.event.listen(engine, "do_execute", self._on_execute)
        setattr(engine.dialect, "do_commit", self._on_commit)  # noqa: B010 # SQLAlchemy has no event for it

    def _on_execute(self, cursor: sqlite3.Cursor, *_: Any) -> None:
        if not cursor.connection.in_transaction:
            self._trap.step()
        self._trap.note("statement")
        if self.failure == "statement_fails":
            self.failure = None
            self._strike()
        if self.failure == "database_down":
            self._strike()

    def _on_commit(self, connection: Any) -> None:
        self._trap.note("commit")
        failure = self.failure
        if failure in {"commit_fails", "commit_unheard"}:
            self.failure = None
        if failure in {"commit_fails", "database_down"}:
            connection.rollback()  # as SQLite does by itself when a COMMIT fails on the disk
            self._strike()
        self._commit(connection)
        if failure == "commit_unheard":
            self._strike()

    def _strike(self) -> None:
        self.struck += 1
        raise sqlite3.OperationalError("disk I/O error")


class Trap:
    """What waits at a point: the `nth` passing of it runs `action`. It writes down the way that was taken."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.sprung = False
        self.crashed = False
        self._where: tuple[str, int] | None = None
        self._action: Callable[[], None] | None = None
        self._passed: dict[str, int] = {}

    def set(self, where: tuple[str, int] | None, action: Callable[[], None] | None) -> None:
        """Begin anew, with another trap or none."""
        self.events, self._passed = [], {}
        self.sprung = self.crashed = False
        self._where, self._action = where, action

    def note(self, event: str) -> None:
        """Write something down that is no point."""
        self.events.append(event)

    def step(self) -> None:
        """Begin a transaction, or read outside of one: a place where others may come between."""

    def __call__(self, point: Point) -> None:
        """Pass a point. After a crash each one crashes again: a dead process runs no handlers."""
        if self.crashed:
            raise Crash
        nth = self._passed[point] = self._passed.get(point, 0) + 1
        self.events.append(f"{point}#{nth}")
        if self._action is not None and (str(point), nth) == self._where:
            self.sprung = True
            self._action()

    def crash(self) -> None:
        """End the process."""
        self.crashed = True
        raise Crash


class Worker:
    """A process of the product, as far as that can be had without a fork: its own engine and its own client."""

    def __init__(self, world: World, client: ZocdocClient) -> None:
        self.product = Lifecycle(world.url, zocdoc=client, timing=TIMING)
        self.product._engine = inthread.Idle()
        own = self.product._resources.database
        own._now = world.clock.now
        self.line = Line(own.engine, world.trap)

    def use(self, client: ZocdocClient) -> None:
        """Use another client from now on."""
        resources = self.product._resources
        self.product._resources = replace(resources, clients=replace(resources.clients, default=client))

    def close(self) -> None:
        """End it."""
        self.product.close()


class World:
    """Everything that cells share. Database and workers are renewed now and then, the stand-in stays."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._template = folder / "template.db"
        self._number = 0
        made = database.Database(f"sqlite:///{self._template}")
        schema.upgrade(made)
        made.close()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            logging.getLogger("lifecycle").addHandler(logging.NullHandler())
            self.clock, self.trap = Clock(), Trap()
            self.stage = Stage(self.clock)
            self.server = stack.enter_context(serve(self.stage))
            self._no_listener = stack.enter_context(socket.socket())
            self._no_listener.bind(("127.0.0.1", 0))
            self._patch(stack)
            self.main = stack.enter_context(self.client())
            self.hasty = stack.enter_context(self.client(deadline=2 * PATIENCE, timeout=PATIENCE))
            port = self._no_listener.getsockname()[1]
            self.refused = stack.enter_context(self.client(base_url=f"http://127.0.0.1:{port}"))
            self.workers: list[Worker] = []
            self.renew()
            stack.callback(self._end)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def client(self, **options: Any) -> ZocdocClient:
        """Make a client of the stand-in that has no token yet."""
        given: dict[str, Any] = {
            "base_url": self.server.base_url,
            "token_url": self.server.token_url,
            "client_id": "sandbox-client",
            "client_secret": "sandbox-secret",
            "audience": self.server.audience,
            "timeout": TIMEOUT,
        }
        return ZocdocClient(**(given | options))

    def renew(self) -> None:
        """Begin an empty database with three workers: one sends, one recovers, one is left when that one dies."""
        self._end()
        self._number += 1
        path = self._folder / f"{self._number}.db"
        shutil.copy(self._template, path)
        self.url = f"sqlite:///{path}"
        self.raw = sqlite3.connect(path, isolation_level=None)
        self.raw.row_factory = sqlite3.Row
        self.stage.ledger = Ledger()
        self.workers = [Worker(self, self.main) for _ in range(3)]

    def rows(self, query: str, *values: object) -> list[dict[str, Any]]:
        """Read with plain SQL."""
        return [dict(row) for row in self.raw.execute(query, values)]

    def _end(self) -> None:
        for worker in self.workers:
            worker.close()
        if self.workers:
            self.raw.close()
            for path in self._folder.glob(f"{self._number}.db*"):
                path.unlink()
        self.workers = []

    def _patch(self, stack: ExitStack) -> None:
        stack.enter_context(mock.patch.object(timing, "time", self.clock))
        stack.enter_context(points.armed(self.trap))


def passed(events: list[str]) -> Iterator[tuple[int, str, int]]:
    """Give the points of a way: where in it, which one, for the how-manieth time."""
    for index, event in enumerate(events):
        name, _, nth = event.partition("#")
        if nth:
            yield index, name, int(nth)
