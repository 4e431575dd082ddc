"""Staying with a batch until it is carried out: what is in doubt is settled meanwhile, and how far it is is shown."""

from __future__ import annotations

import signal
import sys
import threading
import time
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

from lifecycle import errors
from lifecycle.cli import words

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import rich.progress

    from lifecycle import Batch, Lifecycle, Progress

_T = TypeVar("_T")

_LOOK: Final = 0.25
"""Seconds between looks at the batch: often enough for the eye, and one small query."""

_SETTLE: Final = 1.0
"""Seconds between looks at what is in doubt, and at a database that is away."""

_PATIENCE: Final = 5.0
"""Seconds for a read to end when all is over; cutting it off does no harm."""

_LINE: Final = 10.0
_FIRST_LINE: Final = 2.0
"""Seconds between lines in a log, and before the first: somebody wonders whether anything happens."""

_LOOKED_AT: Final = 1_000
"""Rows that are asked why they wait: a page."""


class Show(Protocol):
    """What shows how far a batch is."""

    def __call__(self, progress: Progress, /) -> None:
        """Show it."""


def attend(lifecycle: Lifecycle, batch: Batch, *, settle_for: float) -> Progress:
    """Stay until all of the batch has ended, or only what is in doubt has been left for so many seconds."""
    with _settling(lifecycle, batch), _shown() as show:
        left_since, why = None, _Why(batch)
        while True:
            progress = patiently(batch.progress)
            show(progress)
            why.tell(progress)
            if progress.is_finished:
                return progress
            is_moving = progress.queued or progress.sending
            left_since = None if is_moving else left_since or time.monotonic()
            if left_since is not None and time.monotonic() - left_since > settle_for:
                return progress
            time.sleep(_LOOK)


@contextmanager
def interruptible(batch_id: str, *, began_again: bool = False) -> Iterator[None]:
    """Let SIGTERM do what Ctrl-C does: what is being sent is finished; and say how to go on, or how not to.

    `began_again`: the command said --again, and would begin anew once more.
    """
    same = "the same command without --again" if began_again else "the same command again"
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    except (KeyboardInterrupt, errors.DatabaseUnavailable) as stop:
        stop.add_note(f"What is in batch {batch_id} is not withdrawn: {same}, or `lifecycle batch")
        stop.add_note(f"{batch_id} --watch`, goes on with it; `--cancel` instead withdraws what is queued.")
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


def told(progress: Progress) -> str:
    """Tell in words how far a batch is: what there is none of is left out."""
    return f"{progress.ended} of {progress.total} ended: {_listed(progress) or 'nothing yet'}"


def _listed(progress: Progress) -> str:
    return ", ".join(f"{number} {name}" for name, number in _counts(progress).items() if number)


def _counts(progress: Progress) -> dict[str, int]:
    return {
        "applied": progress.applied,
        "refused": progress.refused,
        "rejected": progress.rejected,
        "not sent": progress.not_sent,
        "invalid": progress.invalid,
        "withdrawn": progress.withdrawn,
        "expired": progress.expired,
        "in doubt": progress.uncertain + progress.needs_attention,
        "being sent": progress.sending,
        "queued": progress.queued,
    }


class _Why:
    """Says why nothing moves, if nothing does: a wrong secret would look like a slow day otherwise."""

    def __init__(self, batch: Batch) -> None:
        self._batch = batch
        self._clock = _Clock()
        self._ended = -1
        self._told = ""

    def tell(self, progress: Progress) -> None:
        """Look now and then why what is queued is not sent, if nothing has ended in between."""
        if not self._clock.strikes():
            return
        has_moved, self._ended = progress.ended != self._ended, progress.ended
        if has_moved or progress.sending or not progress.queued:
            return
        told = self._reason()
        if told != self._told:
            words.say(f"Waiting: {told}")
        self._told = told

    def _reason(self) -> str:
        try:
            first = islice(self._batch.rows(), _LOOKED_AT)
            codes = {row.reason_code for row in first if row.state == "queued" and row.reason_code}
        except errors.DatabaseUnavailable as error:
            return str(error)
        if codes:
            return f"what was tried had no effect ({', '.join(sorted(codes))}) and is tried again"
        return "nobody takes what is queued; is a worker running, with the credential of this environment?"


def patiently(act: Callable[[], _T]) -> _T:
    """Do what may be done again; a database that restarts is waited for: the batch is in it and loses nothing.

    What does not pass by itself, such as a missing privilege, is raised.
    """
    is_told = False
    while True:
        try:
            return act()
        except errors.DatabaseUnavailable as error:
            if not error.is_transient:
                raise
            if not is_told:
                words.say(f"Waiting: {error}")
            is_told = True
            time.sleep(_SETTLE)


@contextmanager
def _settling(lifecycle: Lifecycle, batch: Batch) -> Iterator[None]:
    """Settle beside it what is in doubt, and take over what a process that is gone was sending."""
    stop = threading.Event()
    thread = threading.Thread(target=_settle, args=(lifecycle, batch, stop), name="settling", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(_PATIENCE)


def _settle(lifecycle: Lifecycle, batch: Batch, stop: threading.Event) -> None:
    while True:
        try:
            progress = batch.progress()
            if progress.uncertain or progress.sending or progress.queued:
                lifecycle.recover(wait=_SETTLE)
        except errors.LifecycleError:
            pass  # what it could not do, it does next time; what cannot be reached shows in the batch
        if stop.wait(_SETTLE):
            return


@contextmanager
def counting(total: int, what: str) -> Iterator[Callable[[int], object]]:
    """Give what shows how many rows have been checked or submitted."""
    with _bar() as bar:
        if bar is None:
            clock = _Clock()
            yield lambda rows: words.say(f"{rows} of {total} {what}") if clock.strikes() else None
        else:
            task = bar.add_task("", total=total, said=what)
            yield lambda rows: bar.update(task, completed=rows)


@contextmanager
def _shown() -> Iterator[Show]:
    with _bar() as bar:
        if bar is None:
            clock = _Clock()
            yield lambda progress: words.say(told(progress)) if clock.strikes() else None
        else:
            task = bar.add_task("", total=None, said="")
            yield lambda progress: bar.update(
                task, completed=progress.ended, total=max(progress.total, 1), said=_listed(progress)
            )


@contextmanager
def _bar() -> Iterator[rich.progress.Progress | None]:
    """Give a bar on a terminal; in a log it would be noise."""
    if sys.stderr is None or not sys.stderr.isatty():
        yield None
        return
    from lifecycle.cli import bars  # noqa: PLC0415 # loads rich

    with bars.on_stderr() as bar:
        yield bar


class _Clock:
    """Strikes now and then; the first time soon, for who wonders whether anything happens."""

    def __init__(self) -> None:
        self._next = time.monotonic() + _FIRST_LINE

    def strikes(self) -> bool:
        """Tell whether it is time for a line."""
        if time.monotonic() < self._next:
            return False
        self._next = time.monotonic() + _LINE
        return True
