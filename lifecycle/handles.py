"""What `submit` and `submit_many` give: handles that look into the database whenever they are asked."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Final

import sqlalchemy as sa

from lifecycle import batches, errors, models, outcomes, withdrawals
from lifecycle.resources import check_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lifecycle.batches import BatchInfo, BatchRow, Progress
    from lifecycle.outcomes import Done
    from lifecycle.resources import Resources

_FIRST_PAUSE: Final = 0.01
_LONGEST_PAUSE: Final = 0.5


class Submission:
    """A submitted command, by its id. Cheap to make; every question is one query. Thread-safe."""

    def __init__(self, resources: Resources, command_id: str) -> None:
        self._resources = resources
        self._id: Final = command_id

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._id!r})"

    @property
    def id(self) -> str:
        """The command's id."""
        return self._id

    @property
    def state(self) -> str:
        """Where the command stands: `queued`, `sending`, `uncertain`, `applied`, ... Raises `CommandNotFound`."""
        with self._resources.database.read() as connection:
            state: str | None = connection.execute(_STATE, {"id": self._id}).scalar()
        if state is None:
            raise errors.CommandNotFound(command_id=self._id)
        return state

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the command has ended, for at most so many seconds; tell whether it has.

        `needs_attention` counts as an end. Looks into the database, more and more rarely, twice a second at last.
        """
        return _wait(lambda: self.state not in models.ACTIVE_STATES, timeout)

    def result(self) -> Done:
        """Give what came of the command, as the synchronous call does, or raise what it raises.

        Raises `CommandInProgress` before it has ended, `TransitionRefused`, `CommandRejected`, `NotSent` (and
        `CommandWithdrawn`, `CommandExpired`), `OutcomeUnknown`, `CommandNotFound`.
        """
        with self._resources.database.read() as connection:
            if connection.execute(_STATE, {"id": self._id}).scalar() is None:
                raise errors.CommandNotFound(command_id=self._id)
            return outcomes.of_command(connection, self._id)

    def withdraw(self, *, actor: str) -> bool:
        """Take the command back; False if it is not queued any more. The withdrawal is in the trail."""
        check_name("actor", actor)
        return withdrawals.withdraw(self._resources, self._id, actor=actor)


class Batch:
    """A batch of submitted commands, by its id. Cheap to make; every question is one query. Thread-safe."""

    def __init__(self, resources: Resources, batch_id: str) -> None:
        self._resources = resources
        self._id: Final = batch_id

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._id!r})"

    @property
    def id(self) -> str:
        """The batch's id."""
        return self._id

    @property
    def info(self) -> BatchInfo:
        """What the batch is, and who asked for it. Raises `BatchNotFound`."""
        return batches.info(self._resources.database, self._id)

    def progress(self) -> Progress:
        """Count the rows by state: one small query, however large the batch is. Raises `BatchNotFound`."""
        return batches.progress(self._resources.database, self._id)

    def rows(self) -> Iterator[BatchRow]:
        """Iterate over the rows of the input, in their order, with what became of each. Memory stays flat."""
        return batches.rows(self._resources.database, self._id)

    def failures(self) -> Iterator[BatchRow]:
        """Iterate over the rows that ended otherwise than applied, and those that could not become commands."""
        return batches.rows(self._resources.database, self._id, failures_only=True)

    def cancel(self, *, actor: str) -> int:
        """Withdraw what is still queued, and tell how many commands that were; what is being sent is not sent again."""
        return batches.cancel(self._resources, self._id, actor=actor)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until all rows have ended, for at most so many seconds; tell whether they have."""
        return _wait(lambda: self.progress().is_finished, timeout)


def _wait(has_ended: Callable[[], bool], timeout: float | None) -> bool:
    if timeout is not None and math.isnan(timeout):
        raise errors.InvalidArgument(argument="timeout", problem="a number of seconds is needed, or None")
    until = None if timeout is None else time.monotonic() + timeout
    pause = _FIRST_PAUSE
    while not has_ended():
        if until is not None:
            pause = min(pause, until - time.monotonic())
            if pause <= 0:
                return False
        time.sleep(pause)
        pause = min(pause * 2, _LONGEST_PAUSE)
    return True


_STATE: Final = sa.select(models.commands.c.state).where(models.commands.c.command_id == sa.bindparam("id"))
