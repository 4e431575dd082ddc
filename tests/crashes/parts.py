"""What every part of the proof shares: its intervals, its figures, its findings."""

from __future__ import annotations

import os
import random
import tempfile
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lifecycle import Timing
from lifecycle import recovery as story
from tests.crashes import evidence, grounds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lifecycle import Lifecycle
    from tests.crashes.grounds import Ground
    from tests.crashes.standin import Standin

AT_ONCE = Timing(
    send_window=60.0, settle=0.0, spacing=(0.0, 0.0), read_backoff=0.0, failed_reads=3, record_again=(0.01, 0.05)
)
"""The product's intervals without their waiting, for where the test knows that the remote is quiet.

The send window is wide: a machine that stands still for some seconds must not keep a command from being sent.
"""

MEMORY = Path("/dev/shm")  # noqa: S108 # a folder of our own is made in it
"""Where databases lie whose processes are killed: that tests no durability (the system's cache survives), so no disk
is waited for. What is cut, stopped or filled lies on the disk."""

LONGEST_RECOVERY = 60.0
"""Seconds after which a recovery that does not come to its end is given up, and judged as it stands."""

LONGEST_TEXT = 400
"""Characters of a value in a finding."""

SHOWN = 20
"""Findings printed; their number is always told."""


@dataclass(frozen=True)
class Orders:
    """What a part is asked to do. `seconds` None: as often as the counts say."""

    folder: Path
    kills: int = 2000
    stops: int = 20
    rounds: int = 30
    cold: int = 10
    seconds: float | None = None
    workers: int = 2
    seed: int = 1


@dataclass
class Report:
    """Figures and findings of one part."""

    figures: dict[str, Any] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)

    def check(self, story: str, findings: list[str]) -> None:
        """Keep findings, each with what led to it."""
        self.violations += [f"{story}: {finding}" for finding in findings]

    def expect(self, story: str, *, found: object, expected: object) -> None:
        """Keep a difference."""
        if found != expected:
            self.violations.append(f"{story}: expected {_short(expected)}, found {_short(found)}")

    def document(self) -> dict[str, Any]:
        """Give what is printed."""
        return {
            **self.figures,
            **dict(sorted(self.counts.items())),
            "violations": len(self.violations),
            **({"stories": self.violations[:SHOWN]} if self.violations else {}),
        }


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= LONGEST_TEXT else f"{text[:LONGEST_TEXT]}..."


def recover_at_once(product: Lifecycle, ground: Ground) -> int:
    """Recover to the end with the waiting taken out: whatever waits is due at once. Gives how many were settled."""
    grounds.hasten(ground.raw())
    return len(
        story.recover(product._resources, wait=LONGEST_RECOVERY, sleep=lambda _: grounds.hasten(ground.raw())).settled
    )


def end(report: Report, name: str, product: Lifecycle, ground: Ground, standin: Standin) -> None:
    """Recover, then judge everything."""
    posts = standin.posts()
    report.counts["recovered"] += recover_at_once(product, ground)
    report.check(name, evidence.end_faults(ground.raw(), standin))
    report.expect(f"{name}: recovery sends nothing", found=standin.posts(), expected=posts)


def until(condition: Callable[[], object], *, seconds: float = 10.0, pause: float = 0.002) -> bool:
    """Wait until something has come about; False when it does not."""
    last = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > last:
            return False
        time.sleep(pause)
    return True


def dice(orders: Orders, *names: object) -> random.Random:
    """Make a generator that depends on the seed and on names only."""
    return dice_of(orders.seed, *names)


def dice_of(*names: object) -> random.Random:
    """Make a generator that depends on names only."""
    return random.Random("/".join(map(str, names)))  # noqa: S311 # no secret


@contextmanager
def in_memory(orders: Orders) -> Iterator[Path]:
    """Give a folder that no disk is behind, where the system has one."""
    if not (MEMORY.is_dir() and os.access(MEMORY, os.W_OK)):
        yield orders.folder
        return
    with tempfile.TemporaryDirectory(prefix="lifecycle-crash-", dir=MEMORY) as folder:
        yield Path(folder)
