"""Bars that show how far something is, on a terminal."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Iterator


class Rate(ProgressColumn):
    """How many a second, once that is known."""

    def render(self, task: Task) -> Text:
        """Give it as text."""
        return Text("" if task.speed is None else f"{task.speed:.0f}/s")


@contextmanager
def on_stderr() -> Iterator[Progress]:
    """Show a bar while the block runs: how many of how many, the field `said`, the rate and the time left."""
    looks = (MofNCompleteColumn(), BarColumn(), TextColumn("{task.fields[said]}"), Rate(), TimeRemainingColumn())
    with Progress(*looks, console=Console(stderr=True), transient=True) as bar:
        yield bar
