"""The figures of a window of the audit trail: what was done, how long it took, what was refused, what is in doubt.

Numbers agree with the views': weeks begin on Monday, UTC; a *move* is an event after which the status or the start of
the visit is another one; percentiles are interpolated. The filters choose events; what stands now (in doubt, waiting
for a confirmation) is told as of now, and knows of the filters only the appointment and the location.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from lifecycle.reports import folding, lookups, tallies
from lifecycle.reports.facts import Figures, Headline

if TYPE_CHECKING:
    import sqlalchemy as sa

    from lifecycle.database import Database
    from lifecycle.reports.filters import Filters


def compute(database: Database, filters: Filters) -> Figures:
    """Compute all figures of the events that the filters choose, up to now if they name no end. Only reads.

    Raises `DatabaseUnavailable`, `SchemaMismatch`.
    """
    with database.read() as connection:
        now = database.now(connection)
        chosen = filters if filters.until else replace(filters, until=max(now, filters.since or now))
        steps = tallies.steps(connection, chosen)
        lost = lookups.lost(connection, chosen)
        weeks = folding.weeks(chosen, steps)
        return Figures(
            filters=chosen,
            computed_at=now,
            environment=lookups.environment(connection),
            headline=folding.headline(folding.kinds(steps), folding.entered(steps), lost.fates),
            before=_before(connection, chosen),
            weeks=folding.by_week(steps, weeks),
            moves=folding.transitions(tallies.moves(connection, chosen)),
            entries=folding.entries(steps),
            confirmations=folding.confirmations(lookups.confirmations(connection, chosen), weeks),
            cancellations=folding.cancellations(steps),
            refusals=folding.refusals(steps),
            outcomes=folding.outcomes(steps, tallies.calls(connection, chosen), lost.by_command),
            slowest_calls=tallies.slowest_calls(connection, chosen),
            longest_lost=lost.longest,
            now=lookups.now(connection, chosen, at=now),
        )


def _before(connection: sa.Connection, chosen: Filters) -> Headline | None:
    """Count the window before, without looking at each of its events."""
    if chosen.since is None or chosen.until is None:
        return None
    earlier = chosen.before(chosen.until - chosen.since)
    kinds = folding.kinds_of(lookups.events(connection, earlier))
    entered = lookups.entered(connection, earlier, folding.COUNTED_STATUSES)
    return folding.headline(kinds, entered, lookups.lost(connection, earlier).fates)
