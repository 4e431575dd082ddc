"""A worker: carries submitted commands out, and does what is to be done every so many seconds."""

from __future__ import annotations

import os
import queue
import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import click

from lifecycle.cli import logs, opening, options, words

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

_INTERRUPTED: Final = 130
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)
_EVEN: Final = (
    "with procrastinate once in all workers together, at the next shorter step that divides a minute, an hour or a day"
)


@click.command()
@options.concurrency
@click.option(
    "--recover-every",
    type=click.FloatRange(min=1),
    default=10,
    show_default=True,
    show_envvar=True,
    metavar="SECONDS",
    help=f"Settle commands in doubt every so many seconds; {_EVEN}, like the two below.",
)
@click.option(
    "--inbox-every",
    type=click.FloatRange(min=1),
    show_default="never",
    show_envvar=True,
    metavar="SECONDS",
    help="Work off stored webhook calls every so many seconds; lifecycle serve does so by itself.",
)
@click.option(
    "--sync-every",
    type=click.FloatRange(min=1),
    show_default="never",
    show_envvar=True,
    metavar="SECONDS",
    help="Read Zocdoc's list of changes every so many seconds.",
)
@click.option(
    "--track-unknown", is_flag=True, show_envvar=True, help="Track appointments of webhook calls that are not tracked."
)
@click.option(
    "--stop-timeout",
    type=click.FloatRange(min=0),
    default=45,
    show_default=True,
    show_envvar=True,
    metavar="SECONDS",
    help="Wait at most so long for calls in the air after SIGTERM; one call ends within 25 seconds.",
)
@click.option(
    "--health-host", default="127.0.0.1", show_default=True, show_envvar=True, help="The address of the probe."
)
@click.option(
    "--health-port",
    type=click.IntRange(0, 65535),
    show_default="none",
    show_envvar=True,
    help="Answer GET /livez and GET /healthz on this port; 0 takes a free one.",
)
@options.dispatch
@options.database_url
def worker(
    *,
    concurrency: int,
    recover_every: float,
    inbox_every: float | None,
    sync_every: float | None,
    track_unknown: bool,
    stop_timeout: float,
    health_host: str,
    health_port: int | None,
    dispatch: str,
    database_url: str,
) -> None:
    """Carry submitted commands out until SIGTERM or Ctrl-C, as one of any number of workers of a database.

    At the first signal nothing more is begun and what is in the air is finished; at the second it ends at once, and
    recovery settles what that cut off.

    /livez is 503 for a worker that hangs: restart it then. /healthz is 503 also while the database does not answer.
    """
    from lifecycle.working import worker as working  # noqa: PLC0415 # loads SQLAlchemy

    with opening.opened(database_url, dispatch=dispatch) as lifecycle:
        working.check(lifecycle)  # a wrong database is told now
        logs.to_stderr(quiet=("procrastinate", "psycopg", "asyncio"))
        with _signalled() as stop:
            all_ended = working.run(
                lifecycle,
                stop=stop,
                concurrency=concurrency,
                recover_every=recover_every,
                inbox_every=inbox_every,
                sync_every=sync_every,
                track_unknown=track_unknown,
                stop_timeout=stop_timeout,
                health=None if health_port is None else (health_host, health_port),
                announce=lambda port: words.say(f"the probe is at http://{health_host}:{port}/healthz"),
            )
    if not all_ended:
        words.say("Error: not all calls ended in time; recovery settles what came of them")
        os._exit(1)  # threads that hang must not keep the process


@contextmanager
def _signalled() -> Iterator[threading.Event]:
    """Give an event that is set at the first signal; the second one ends the process."""
    stop = threading.Event()
    # Not set by the signal's handler itself: it may strike inside of the event's own lock.
    signals: queue.SimpleQueue[int] = queue.SimpleQueue()

    def listen() -> None:
        signals.get()
        words.say("stopping: what is in the air is finished; another signal ends it at once")
        stop.set()
        signals.get()
        os._exit(_INTERRUPTED)

    def handle(number: int, _frame: FrameType | None) -> None:
        signals.put(number)

    threading.Thread(target=listen, name="lifecycle-signals", daemon=True).start()
    before = {each: signal.signal(each, handle) for each in _SIGNALS}
    try:
        yield stop
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
