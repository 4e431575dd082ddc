"""SQLite's write-ahead log cut at every frame, and in the middle of frames: what a power failure may leave.

A child carries out commands and dies with its log unmerged. Each copy of file and shortened log must open as a sound
database that holds a prefix of the trail. Cuts within the last transaction are what a failure at its COMMIT leaves, so
there everything must hold that holds after a kill; an earlier cut takes back commits that were reported as durable,
so there the remote may be ahead, and recovery must tell.
"""

from __future__ import annotations

import itertools
import shutil
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from lifecycle import Lifecycle
from lifecycle.points import Point
from tests import trail
from tests.crashes import evidence, forks, grounds, parts
from tests.crashes.grounds import SqliteGround
from tests.crashes.parts import AT_ONCE, Orders, Report
from tests.crashes.standin import Standin
from tests.crashes.wishes import COMMANDS, YESTERDAY, send, start_number

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterator

HEADER: Final = 32
FRAME_HEADER: Final = 24

LONG: Final = 5
"""Commands in the long log: about a hundred frames, far from the 1,000 pages at which SQLite merges by itself."""


@dataclass(frozen=True)
class Log:
    """A database file with its log, as a dead process left them. `ends[n]`: whether frame n ends a transaction."""

    folder: Path
    frame: int
    ends: tuple[bool, ...]

    @classmethod
    def take(cls, ground: SqliteGround, folder: Path) -> Log:
        """Copy both files; nobody has them open any more."""
        folder.mkdir()
        for suffix in ("", "-wal"):
            shutil.copy(f"{ground.file}{suffix}", folder / f"taken{suffix}")
        content = (folder / "taken-wal").read_bytes()
        frame = FRAME_HEADER + int(struct.unpack(">I", content[8:12])[0])
        count = (len(content) - HEADER) // frame
        sizes = [struct.unpack(">I", content[HEADER + n * frame + 4 :][:4])[0] for n in range(count)]
        return cls(folder, frame, tuple(size > 0 for size in sizes))

    @property
    def last(self) -> int:
        """The number of frames before the last transaction."""
        return max((n + 1 for n, end in enumerate(self.ends[:-1]) if end), default=0)

    def cut(self, ground: SqliteGround, frames: int, more: int = 0) -> None:
        """Put the file in place with so many frames of its log, and so many bytes of the next."""
        ground.reset()
        shutil.copy(self.folder / "taken", ground.file)
        content = (self.folder / "taken-wal").read_bytes()
        Path(f"{ground.file}-wal").write_bytes(content[: HEADER + frames * self.frame + more])


def run(orders: Orders) -> Report:
    """Cut a long log everywhere, and the last transactions of many short ones."""
    report, dice = Report(), parts.dice(orders, "wal")
    with parts.in_memory(orders) as folder, Standin() as standin, standin.client() as client:
        ground = SqliteGround(folder)
        with Lifecycle(ground.url, zocdoc=client, timing=AT_ONCE) as product:
            knife = _Knife(report, (ground, standin), product, dice)
            knife.cut_a_long_log()
            for nth, command in itertools.product((1, 2), COMMANDS):
                knife.cut_the_last_commit(command, nth)
    return report


class _Knife:
    """Makes logs and cuts them."""

    def __init__(
        self, report: Report, place: tuple[SqliteGround, Standin], product: Lifecycle, dice: random.Random
    ) -> None:
        self.report, self.product, self.dice = report, product, dice
        self.ground, self.standin = place

    def cut_a_long_log(self) -> None:
        """Cut everywhere: a prefix of the trail, which recovery and the next look at Zocdoc bring up to date."""
        appointment_id = self._prepare()

        def work() -> None:
            for number in range(LONG):
                send(self.product, "reschedule", appointment_id, actor="job:wal", start=start_number(number))

        log = self._die(work, Point.BEFORE_INTENT, 0)
        log.cut(self.ground, len(log.ends))
        whole = trail.rows_of(self.ground.raw())
        self.report.figures["frames"] = len(log.ends)
        self.report.expect("the whole log", found=len(whole), expected=1 + 2 * LONG)
        lengths = []
        for frames, more in _cuts(range(len(log.ends) + 1), log, self.dice):
            story = f"long log cut after frame {frames} and {more} bytes"
            log.cut(self.ground, frames, more)
            self.report.check(story, evidence.trail_faults(self.ground.raw()))
            rows = trail.rows_of(self.ground.raw())
            self.report.expect(f"{story}: a prefix", found=rows, expected=whole[: len(rows)])
            lengths.append(len(rows))
            self._bring_up_to_date(story, appointment_id)
        self.report.expect("prefixes only grow", found=lengths, expected=sorted(lengths))
        self.report.expect("every prefix was seen", found=set(lengths), expected=set(range(1, len(whole) + 1)))

    def cut_the_last_commit(self, command: str, nth: int) -> None:
        """Lose the last COMMIT, wholly or in part, of a process that did nothing after it."""
        story = f"{command} with its transaction {nth} cut"
        appointment_id = self._prepare()
        log = self._die(lambda: send(self.product, command, appointment_id, actor="job:wal"), Point.AFTER_COMMIT, nth)
        posts = self.standin.posts()[appointment_id]
        self.report.expect(f"{story}: requests", found=posts, expected=nth - 1)
        for frames, more in _cuts(range(log.last, len(log.ends) + 1), log, self.dice):
            log.cut(self.ground, frames, more)
            seen = evidence.gather(self.ground.raw(), self.standin)
            self.report.check(story, evidence.trail_faults(self.ground.raw()) + evidence.intent_faults(seen))
            kept = nth if frames == len(log.ends) else nth - 1
            states = [row["state"] for row in seen.commands]
            self.report.expect(f"{story}: left", found=states, expected=[[], ["sending"], ["applied"]][kept])
            parts.end(self.report, story, self.product, self.ground, self.standin)
            self.product.close()
            self.report.counts["cuts"] += 1

    def _bring_up_to_date(self, story: str, appointment_id: str) -> None:
        parts.recover_at_once(self.product, self.ground)
        self.report.check(f"{story}, recovered", evidence.trail_faults(self.ground.raw()))
        states = {row["state"] for row in grounds.rows(self.ground.raw(), "SELECT state FROM lifecycle_commands")}
        self.report.expect(f"{story}: ended", found=states <= evidence.ENDED, expected=True)
        self.product.track(appointment_id, actor="job:wal")
        [row] = grounds.rows(self.ground.raw(), "SELECT * FROM lifecycle_appointments")
        here = (row["status"], evidence.instant(row["start_time"]))
        there = self.standin.remote([appointment_id])[appointment_id]
        self.report.expect(f"{story}: followed", found=here, expected=there)
        self.product.close()
        self.report.counts["cuts"] += 1

    def _prepare(self) -> str:
        """Track an appointment, with nothing left in the log."""
        self.ground.reset()
        self.standin.forget()
        [appointment_id] = self.standin.add(1, start_time=YESTERDAY)
        self.product.track(appointment_id, actor="job:wal")
        self.product.close()
        return appointment_id

    def _die(self, work: Callable[[], object], point: Point, nth: int) -> Log:
        """Do the work in a child that dies at the point, or at its end before it can merge its log."""
        folder = self.ground.file.parent

        def and_die() -> None:
            work()
            forks.die()

        ending = forks.killed_at(and_die, forks.Passed(), point, nth, folder / "child.log")
        self.report.expect(f"died at {point}#{nth}: {ending}", found=ending.killed, expected=True)
        taken = folder / "taken"
        shutil.rmtree(taken, ignore_errors=True)
        return Log.take(self.ground, taken)


def _cuts(frames: range, log: Log, dice: random.Random) -> Iterator[tuple[int, int]]:
    """Go through the boundaries, and one place inside of each frame that follows one."""
    for frame in frames:
        yield frame, 0
        if frame < len(log.ends):
            yield frame, dice.choice((1, FRAME_HEADER, FRAME_HEADER + 1, dice.randrange(1, log.frame), log.frame - 1))
