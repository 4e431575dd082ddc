"""Doing something once, or again and again until Ctrl-C."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

import click

from lifecycle import errors
from lifecycle.cli import words

if TYPE_CHECKING:
    from collections.abc import Callable

option: Final = click.option(
    "--watch",
    type=click.FloatRange(min=0.1),
    show_envvar=True,
    metavar="SECONDS",
    help="Do it again every so many seconds, until Ctrl-C.",
)


def run(act: Callable[[], None], *, every: float | None) -> None:
    """Act once; with `every`, for ever, with pauses of so many seconds, and failures are told instead of raised."""
    if every is None:
        act()
        return
    while True:
        try:
            act()
        except (errors.DatabaseUnavailable, errors.SyncFailed) as error:
            words.say(f"Error: {error}; trying again in {every:g} s")
        time.sleep(every)
