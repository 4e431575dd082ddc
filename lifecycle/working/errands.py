"""What workers do every so many seconds beside the commands: recover, work off the inbox, read Zocdoc's list."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lifecycle.engines.inline import InlineEngine
from lifecycle.job import Job

if TYPE_CHECKING:
    from collections.abc import Callable

    from lifecycle.api import Lifecycle

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Errand:
    """Something to be done every `every` seconds; it may be cut off at any point, and two at once do no harm.

    `is_alone`: it is not begun while another worker is at it, because that would only cost twice as much.
    """

    name: str
    every: float
    act: Callable[[], object]
    is_alone: bool = False

    def run(self) -> None:
        """Do it once. What goes wrong is logged by its type, because its text may quote anything."""
        begun = time.monotonic()
        try:
            self.act()
        except Exception as error:  # noqa: BLE001 # whatever it is, the worker goes on
            _log.warning("job_failed", extra={"job": self.name, "error": type(error).__name__})
            return
        _log.debug("job_done", extra={"job": self.name, "seconds": round(time.monotonic() - begun, 3)})

    def job(self) -> Job:
        """Do it in a thread of this process, at once and then with pauses of `every` seconds."""

        def work() -> float:
            self.act()
            return self.every

        return Job(self.name, work)


def chosen(
    lifecycle: Lifecycle,
    *,
    recover_every: float,
    inbox_every: float | None = None,
    sync_every: float | None = None,
    track_unknown: bool = False,
) -> tuple[Errand, ...]:
    """List what is to be done how often, in seconds; None: not at all."""
    is_inline = isinstance(lifecycle.engine, InlineEngine)  # then the worker itself is all that could be woken
    found = [Errand("recovery", recover_every, lambda: lifecycle.recover(resume=not is_inline))]
    if inbox_every is not None:
        found.append(Errand("inbox", inbox_every, lambda: lifecycle.process_inbox(track_unknown=track_unknown)))
    if sync_every is not None:
        found.append(Errand("sync", sync_every, lifecycle.sync, is_alone=True))
    return tuple(found)
