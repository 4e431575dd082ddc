"""When the next request may leave: what a client asks before every send, and how background work steps back."""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lifecycle.zocdoc.timing import Budget

_in_background: ContextVar[bool] = ContextVar("zocdoc_in_background", default=False)


class Pace(Protocol):
    """Holds senders back. One object may serve many clients and threads; neither method raises."""

    def wait(self, budget: Budget) -> bool:
        """Sleep until a request may leave, and return True; False when that would be too late for the budget.

        Called once before every send to the appointment endpoint: repeats and reads too, tokens not.
        """

    def hold(self, seconds: float) -> None:
        """Ask all senders to wait so long (at most a few seconds), because Zocdoc has answered 429."""


@contextmanager
def background(*, when: bool = True) -> Iterator[None]:
    """Mark the calls of this thread (or task) as work that nobody waits for, until the block ends; or not, by `when`.

    A shared rate then gives them what others leave: they wait their turn, and never stand in line before a call that
    somebody waits for. Without a shared rate this changes nothing. Threads started within the block are not marked.
    """
    token = _in_background.set(when)
    try:
        yield
    finally:
        _in_background.reset(token)


def is_background() -> bool:
    """Tell whether the current call is background work."""
    return _in_background.get()
