"""The sections of the report, each as a fragment of HTML: a sentence in words, the picture, and the same as a table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from lifecycle.reports import markup, style
from lifecycle.reports.sections import (
    cancellations,
    confirmations,
    headline,
    moves,
    outcomes,
    refusals,
    standing,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import tzinfo

    from lifecycle.reports.facts import Figures

CSS: Final = style.CSS
"""What the fragments need; every class begins with `lc-`."""


@dataclass(frozen=True, slots=True)
class Section:
    """A section: its id in the document, its title, and what writes its content, with instants in a time zone."""

    anchor: str
    title: str
    content: Callable[[Figures, tzinfo], str]

    def write(self, figures: Figures, zone: tzinfo) -> str:
        """Write the whole section."""
        heading = f'<h2 id="{self.anchor}-title">{markup.escape(self.title)}</h2>'
        head = f'<section class="lc-section" id="{self.anchor}" aria-labelledby="{self.anchor}-title">'
        return f"{head}{heading}{self.content(figures, zone)}</section>\n"


ALL: Final = (
    Section("lc-headline", "At a glance", headline.content),
    Section("lc-moves", "How appointments moved", moves.content),
    Section("lc-confirmations", "Time to confirm", confirmations.content),
    Section("lc-cancellations", "Cancellations", cancellations.content),
    Section("lc-refusals", "Tried and not done", refusals.content),
    Section("lc-outcomes", "Commands and their outcomes", outcomes.content),
    Section("lc-standing", "Slowest, and in doubt", standing.content),
)
"""The sections in their order."""
