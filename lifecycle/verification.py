"""Whether the trail can be trusted: chains recomputed, appointments and commands compared with them, guards looked at.

What this shows is that nothing was changed by anybody who did not also rebuild what follows. Whoever owns the
database can rebuild a whole chain; a checkpoint that is kept elsewhere shows that.
"""

from __future__ import annotations

import itertools
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from lifecycle import chains, errors, triggers, verifiers
from lifecycle.findings import FindingKind, Findings

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from lifecycle.database import Database
    from lifecycle.findings import Finding

_SMALL: Final = 4
"""Parts of a trail for which no process is worth its start."""

_USUAL: Final = 2
"""Processes: enough for a hundred thousand events a second, and the machine is left to others."""

_MOST: Final = 64
"""Processes; more than any database would be glad about."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """What a verification came to. `counts` has every finding, by kind; `findings` the first 100, by `seq`."""

    events: int
    chains: int
    seconds: float
    counts: Mapping[FindingKind, int]
    findings: tuple[Finding, ...]

    @property
    def is_sound(self) -> bool:
        """Tell whether nothing was found."""
        return not self.counts

    @property
    def first(self) -> Finding | None:
        """The finding at the first bad row, that with the lowest `seq`; None if the trail is sound."""
        return self.findings[0] if self.findings else None


def verify(
    database: Database, *, processes: int | None = None, findings: Findings | None = None, started: float | None = None
) -> Verification:
    """Recompute every chain and look at the guards; `findings` made since `started` are part of the result.

    Each part of the trail is read in a snapshot of its own, so concurrent writers do no harm. Opens connections that
    only read. A large trail is judged in two processes, or in as many as are told; that of a host's engine in this one.
    Raises `InvalidArgument`, `DatabaseUnavailable`.
    """
    processes = min(_USUAL, os.cpu_count() or 1) if processes is None else processes
    if not isinstance(processes, int) or not 1 <= processes <= _MOST:
        raise errors.InvalidArgument(argument="processes", problem=f"a whole number from 1 to {_MOST} is needed")
    started = time.monotonic() if started is None else started
    total = chains.Tally(findings=findings or Findings())
    _look_at_guards(database, total.findings)
    for tally in _tallies(database, processes):
        total.events += tally.events
        total.chains += tally.chains
        total.findings.extend(tally.findings.first(), tally.findings.counts)
    return Verification(
        events=total.events,
        chains=total.chains,
        seconds=time.monotonic() - started,
        counts=dict(total.findings.counts),
        findings=tuple(total.findings.first()),
    )


def _look_at_guards(database: Database, found: Findings) -> None:
    with database.read() as connection:
        for change in triggers.changes(connection):
            found.add(FindingKind.GUARD_CHANGED, change, appointment_id=None)


def _tallies(database: Database, processes: int) -> Iterator[chains.Tally]:
    parts = chains.parts(database)
    begun = list(itertools.islice(parts, _SMALL)) if processes > 1 else []
    parts = itertools.chain(begun, parts)
    if len(begun) < _SMALL or database.url is None:
        return (chains.judge(database, part) for part in parts)
    return verifiers.judge(database.url, parts, processes=processes)
