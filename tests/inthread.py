"""The product's dispatcher without threads: what is taken from the queue is carried out before `look` returns."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from lifecycle import errors
from lifecycle.dispatching import Dispatcher

if TYPE_CHECKING:
    from collections.abc import Callable

    import sqlalchemy as sa

    from lifecycle.resources import Resources


class Idle:
    """An engine that wakes nobody up: what is submitted stays in the queue until somebody looks."""

    def announce(self, connection: sa.Connection) -> None:
        """Do nothing."""

    def committed(self, *_session: object) -> None:
        """Do nothing."""

    def ensure(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


class Sender(Dispatcher):
    """One worker, in the thread that calls it."""

    def __init__(self, resources: Resources) -> None:
        super().__init__(resources, concurrency=1)
        self._defect: Exception | None = None

    def look(self, most: int = 1) -> int:
        """Look at the queue once, and carry out what was taken; give how many commands were due."""
        return self._take(most)

    def _hand_out(self, number: int) -> None:
        for _ in range(number):
            self._waiting.appendleft(partial(self._judge, self._waiting.popleft()))
            self._carry_out_next()
            if self._defect is not None:
                raise self._defect

    def _judge(self, work: Callable[[], None]) -> None:
        """Keep what a thread of the product would only log, if it is no error of the database or of Zocdoc."""
        try:
            work()
        except Exception as error:
            if not isinstance(error, errors.LifecycleError) or isinstance(error, errors.ConstraintViolated):
                self._defect = error
            raise
