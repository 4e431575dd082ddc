"""What a verifier finds: records that name a kind and a row, and a collector of them that stays small."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

LIMIT: Final = 100
"""Findings that are kept, those with the lowest `seq`; all are counted. More would tell a reader nothing new."""

_LONGEST: Final = 80
"""Letters of a value that is quoted in a finding."""


class FindingKind(StrEnum):
    """What is wrong. The first group is about rows of the trail, the last about a checkpoint."""

    EDITED = "edited"  # the hash does not fit the columns
    MALFORMED = "malformed"  # a value that no event can have
    UNKNOWN_HASH_VERSION = "unknown_hash_version"  # an encoding that this version cannot recompute
    GAP = "gap"  # appointment_seq is not the next number
    UNLINKED = "unlinked"  # prev_hash is not the hash of the event before
    STATUS_BREAK = "status_break"  # from_status is not to_status of the event before
    OUT_OF_ORDER = "out_of_order"  # seq is not above that of the event before
    COMMAND_MISSING = "command_missing"  # the appointment has no command with that command_id
    COMMAND_UNRECORDED = "command_unrecorded"  # a command that no event of its appointment knows
    EVENTS_MISSING = "events_missing"  # an appointment without events
    APPOINTMENT_MISSING = "appointment_missing"  # events without an appointment
    STATUS_DIFFERS = "status_differs"  # the appointment's status is not that of its last event
    STATUS_KNOWN_DIFFERS = "status_known_differs"  # status_known is not what the chart says
    GUARD_CHANGED = "guard_changed"  # a trigger that keeps the trail append-only is missing, off or another one
    TAIL_CUT = "tail_cut"  # a chain ends before the event that the checkpoint knows
    CHAIN_DELETED = "chain_deleted"  # nothing is left of a chain that the checkpoint knows
    REWRITTEN = "rewritten"  # the event is there with another hash: history was rebuilt
    BACKDATED = "backdated"  # an event that the checkpoint lacks claims to be older than it


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is wrong: its kind, the row it shows at, and what it is in words.

    `seq` None: there is no row of the trail to point at. The words quote identifiers, statuses and hashes only.
    """

    kind: FindingKind
    appointment_id: str | None = None
    appointment_seq: int | None = None
    seq: int | None = None
    what: str


class Findings:
    """Collects findings: counts all of them by kind, keeps `LIMIT`."""

    def __init__(self) -> None:
        self.counts: Counter[FindingKind] = Counter()
        self._kept: list[Finding] = []

    def add(
        self,
        kind: FindingKind,
        what: str,
        *,
        appointment_id: object,
        appointment_seq: object = None,
        seq: object = None,
    ) -> None:
        """Add one; identifiers may be whatever a damaged row holds."""
        self.extend(
            [
                Finding(
                    kind=kind,
                    appointment_id=None if appointment_id is None else text(appointment_id),
                    appointment_seq=_number(appointment_seq),
                    seq=_number(seq),
                    what=what,
                )
            ]
        )

    def extend(self, found: Iterable[Finding], counts: Counter[FindingKind] | None = None) -> None:
        """Add findings; `counts` are those of a collector that had kept no more than these."""
        found = list(found)
        self.counts.update(Counter(each.kind for each in found) if counts is None else counts)
        self._kept += found
        if len(self._kept) > 2 * LIMIT:
            self._kept = self.first()

    def first(self) -> list[Finding]:
        """Give those with the lowest `seq`, in its order; those without a row come last."""
        return sorted(self._kept, key=_place)[:LIMIT]


def text(value: object) -> str:
    """Write a value of a damaged row as printable text that is not too long."""
    written = value if isinstance(value, str) and value.isprintable() else ascii(value)
    return written if len(written) <= _LONGEST else f"{written[:_LONGEST]}..."


def _place(finding: Finding) -> tuple[bool, int, str, int]:
    order = list(FindingKind).index(finding.kind)
    return finding.seq is None, finding.seq or 0, finding.appointment_id or "", order


def _number(value: object) -> int | None:
    return value if isinstance(value, int) else None
