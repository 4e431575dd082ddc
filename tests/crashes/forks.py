"""Children of a process that has imported everything: forked in milliseconds, killed at a point, told apart."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import signal
import traceback
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lifecycle import points
from lifecycle.points import Point

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PATIENCE = 150
"""Seconds after which a child that neither ends nor dies is ended by its own alarm, and counted as hung."""

_POINTS = tuple(Point)
_LENGTH = 4
_PARENT_DEATH_SIGNAL = 1
_PAGE = 1 << 16


class Passed:
    """The points that a child has passed, in memory that survives it."""

    def __init__(self) -> None:
        self._page = mmap.mmap(-1, _PAGE)

    def clear(self) -> None:
        """Forget the last child."""
        self._page[:_LENGTH] = bytes(_LENGTH)

    def note(self, point: Point) -> None:
        """Write down one point; called in the child."""
        count = self._count()
        self._page[_LENGTH + count] = _POINTS.index(point)
        self._page[:_LENGTH] = (count + 1).to_bytes(_LENGTH, "little")

    def points(self) -> list[Point]:
        """Read them back; called in the parent."""
        return [_POINTS[index] for index in self._page[_LENGTH : _LENGTH + self._count()]]

    def _count(self) -> int:
        return int.from_bytes(self._page[:_LENGTH], "little")


class NotStopped(Exception):
    """A child ended before it reached the point at which it was to stop."""


@dataclass(frozen=True, slots=True)
class Ending:
    """How a child ended: by a signal, or with an exit code; `words` is what it wrote before it failed."""

    signal: int | None
    code: int | None
    words: str = ""

    @property
    def killed(self) -> bool:
        """True when SIGKILL ended it."""
        return self.signal == signal.SIGKILL

    def __str__(self) -> str:
        how = f"exit code {self.code}" if self.signal is None else f"signal {self.signal}"
        return f"{how} {self.words}".strip()


def start(work: Callable[[], object], log: Path) -> int:
    """Fork a child that does the work and ends without any clean-up; give its pid."""
    log.unlink(missing_ok=True)
    pid = os.fork()
    if pid:
        return pid
    code = 70
    try:
        die_with_parent()
        signal.alarm(PATIENCE)
        work()
        code = 0
    except BaseException:  # noqa: BLE001 # nothing may climb out of the child into its parent's frames
        log.write_text(traceback.format_exc(), encoding="utf-8")
    finally:
        os._exit(code)


def wait(pid: int, log: Path) -> Ending:
    """Wait until a child has ended."""
    return _ending(os.waitpid(pid, 0)[1], log)


def run(work: Callable[[], object], log: Path) -> Ending:
    """Fork a child and wait for it."""
    return wait(start(work, log), log)


def die_with_parent() -> None:
    """Ask the system to kill this process when the one that forked it is gone, stopped or looping as it may be."""
    with contextlib.suppress(OSError, AttributeError):  # Linux only; elsewhere an aborted run leaves orphans
        ctypes.CDLL(None).prctl(_PARENT_DEATH_SIGNAL, signal.SIGKILL)


def die() -> None:
    """End this process as a crash would."""
    os.kill(os.getpid(), signal.SIGKILL)


def killed_at(work: Callable[[], object], passed: Passed, point: Point | None, nth: int, log: Path) -> Ending:
    """Run the work in a child that kills itself at the n-th passing of a point (None: never)."""
    passed.clear()
    return run(lambda: _armed(work, passed, point, nth, signal.SIGKILL), log)


def stopped_at(work: Callable[[], object], passed: Passed, point: Point, log: Path) -> int:
    """Start a child that stops itself at the first passing of a point; give its pid once it stands still.

    Raises `NotStopped` if it ended without, because it was too slow to get there.
    """
    passed.clear()
    pid = start(lambda: _armed(work, passed, point, 1, signal.SIGSTOP), log)
    _, status = os.waitpid(pid, os.WUNTRACED)
    if not os.WIFSTOPPED(status):
        raise NotStopped(_ending(status, log))
    return pid


def _armed(work: Callable[[], object], passed: Passed, point: Point | None, nth: int, blow: signal.Signals) -> None:
    left = nth

    def hook(reached: Point) -> None:
        nonlocal left
        passed.note(reached)
        if reached == point:
            left -= 1
            if left == 0:
                os.kill(os.getpid(), blow)

    with points.armed(hook):
        work()


def _ending(status: int, log: Path) -> Ending:
    words = log.read_text(encoding="utf-8") if log.exists() else ""
    if os.WIFSIGNALED(status):
        return Ending(os.WTERMSIG(status), None, words)
    return Ending(None, os.waitstatus_to_exitcode(status), words)
