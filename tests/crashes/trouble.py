"""A database that fails in the middle of a command: a COMMIT whose reply is lost, a disk that is full, a broken file.

Callers see named errors only, nothing is sent without a committed intent, and recovery settles what is left.
"""

from __future__ import annotations

import itertools
import os
import resource
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING, Final

import sqlalchemy as sa

from lifecycle import DatabaseUnavailable, Lifecycle, LifecycleError, OutcomeUnknown
from lifecycle.points import Point, armed
from tests.crashes import evidence, forks, grounds, parts
from tests.crashes.grounds import PostgresGround, SqliteGround
from tests.crashes.parts import AT_ONCE, Orders, Report
from tests.crashes.proxy import Cut, Proxy
from tests.crashes.standin import Standin
from tests.crashes.wishes import COMMANDS, OPERATIONS, YESTERDAY, send

if TYPE_CHECKING:
    from tests.crashes.grounds import Ground

PAGES: Final = 5
"""How many pages a database may still grow by, from none on, until it is full: every place of the two transactions."""

UNTIL_FULL: Final = 14
"""Commands that fill these pages for sure."""

HELD: Final = {"none": None, "lost": {"kind": "reset", "when": "after"}, "rejected": {"kind": "answer", "status": 400}}
"""What Zocdoc answers while the second COMMIT is lost: every kind of outcome must be recognised as recorded."""


def run(orders: Orders) -> Report:
    """Do all of it."""
    report = Report()
    with Standin() as standin, parts.in_memory(orders) as folder:
        _Trouble(report, SqliteGround(folder), standin, folder).sqlite()
        with PostgresGround() as postgres:
            _Trouble(report, postgres, standin, orders.folder).postgres(postgres)
    return report


class _Trouble:
    def __init__(self, report: Report, ground: Ground, standin: Standin, folder: Path) -> None:
        self.report, self.ground, self.standin, self.folder = report, ground, standin, folder
        self.client = standin.client()

    def postgres(self, ground: PostgresGround) -> None:
        """Cut the wire around both COMMITs of every command, with the database there again at once, or not."""
        with Proxy(ground.socket) as proxy:
            url = sa.make_url(ground.url).set(host="127.0.0.1", port=proxy.port, query={})
            with Lifecycle(url, zocdoc=self.client, timing=AT_ONCE) as product:
                self.standin.forget()
                for command in COMMANDS:
                    for cut, away in itertools.product(Cut, (False, True)):
                        self._lose_commit(proxy, product, (command, cut, 1, away), "none")
                        for held in HELD:
                            self._lose_commit(proxy, product, (command, cut, 2, away), held)
                    self.report.expect("every COMMIT was answered", found=proxy.unanswered, expected=0)
                    parts.end(self.report, f"after lost COMMITs of {command}", product, ground, self.standin)

    def _lose_commit(self, proxy: Proxy, product: Lifecycle, case: tuple[str, Cut, int, bool], held: str) -> None:
        command, cut, transaction, away = case
        story = f"{command}, COMMIT {transaction} cut {cut}, {'away' if away else 'back at once'}, answer {held}"
        appointment_id = self._tracked(product)
        fault = HELD[held]
        if fault:
            self.standin.arm({**fault, "operation": OPERATIONS[command], "appointment_id": appointment_id})
        cuts = proxy.cuts
        proxy.cut(cut, nth=transaction, away=away)
        ending = self._ending(product, command, appointment_id)
        self.standin.disarm()
        proxy.mend()
        self.report.expect(f"{story}: was cut", found=proxy.cuts - cuts, expected=1)
        self.report.counts[f"COMMIT {transaction} lost {cut}"] += 1
        requests = self.standin.posts()[appointment_id]
        if transaction == 1:
            # Committed and seen to be so: it goes on. Otherwise it was not sent, whatever the database holds.
            sent = cut is Cut.AFTER and not away
            allowed = {"Done"} if sent else {"DatabaseUnavailable"}
            if cut is Cut.DURING and not away:
                allowed, sent = {"Done", "DatabaseUnavailable"}, ending == "Done"
        else:
            sent = True
            allowed = (
                {"OutcomeUnknown"}
                if away
                else {"none": {"Done"}, "lost": {"OutcomeUnknown"}}.get(held, {"CommandRejected"})
            )
        self.report.expect(f"{story}: a caller saw {ending}", found=ending in allowed, expected=True)
        self.report.expect(f"{story}: requests", found=requests, expected=int(sent))
        self.report.counts[f"COMMIT lost: callers saw {ending}"] += 1

    def sqlite(self) -> None:
        """Fill the database at every place, break its file, and make it read-only, between the transactions."""
        for command, pages in itertools.product(COMMANDS, range(PAGES)):
            self._fill(command, pages)
        for command, transaction in itertools.product(COMMANDS, (1, 2)):
            self._hinder(command, transaction, "PRAGMA query_only = ON", "read-only")
            self._break(command, transaction)

    def _fill(self, command: str, pages: int) -> None:
        """Let the file grow by so many pages only, and carry out commands until one meets the end."""
        self._fresh()
        with Lifecycle(self.ground.url, zocdoc=self.client, timing=AT_ONCE) as product:
            ids = [self._tracked(product) for _ in range(UNTIL_FULL)]
            engine = product._resources.database.engine
            self._pragma(engine, f"PRAGMA max_page_count = {self._pages() + pages}")
            for appointment_id in ids:
                ending = self._ending(product, command, appointment_id)
                if ending != "Done":
                    break
                self.report.counts["commands before it was full"] += 1
            self._judge(f"{command} with {pages} pages left", appointment_id, ending, "full")
            self.report.expect(
                f"{command} with {pages} pages left: it was full", found=ending == "Done", expected=False
            )
            self._pragma(engine, "PRAGMA max_page_count = 1000000")
            parts.end(self.report, f"{command} with {pages} pages left", product, self.ground, self.standin)

    def _hinder(self, command: str, transaction: int, pragma: str, name: str) -> None:
        """Set a pragma in the connection that the transaction will use."""
        self._fresh()
        with Lifecycle(self.ground.url, zocdoc=self.client, timing=AT_ONCE) as product:
            appointment_id = self._tracked(product)
            engine = product._resources.database.engine
            when = {1: Point.BEFORE_INTENT, 2: Point.INTENT_COMMITTED}[transaction]

            def hook(point: Point) -> None:
                if point is when:
                    self._pragma(engine, pragma)

            with armed(hook):
                ending = self._ending(product, command, appointment_id)
            story = f"{command}, {name} at transaction {transaction}"
            self._judge(story, appointment_id, ending, name)
            self.report.expect(f"{story}: {ending}", found=ending == "OutcomeUnknown", expected=transaction == 2)
            self._pragma(engine, "PRAGMA query_only = OFF")
            parts.end(self.report, story, product, self.ground, self.standin)

    def _break(self, command: str, transaction: int) -> None:
        """Limit, in a child, how long any file may grow: writing into the log fails with an error of the system."""
        self._fresh()
        with Lifecycle(self.ground.url, zocdoc=self.client, timing=AT_ONCE) as product:
            appointment_id = self._tracked(product)
        when = {1: Point.BEFORE_INTENT, 2: Point.INTENT_COMMITTED}[transaction]

        def hook(point: Point) -> None:
            if point is when:
                log = Path(f"{self.ground.url.removeprefix('sqlite:///')}-wal")
                longest = log.stat().st_size if transaction == 2 else 0
                resource.setrlimit(resource.RLIMIT_FSIZE, (longest, longest))

        def work() -> None:
            with armed(hook), Lifecycle(self.ground.url, zocdoc=self.client, timing=AT_ONCE) as product:
                ending = self._ending(product, command, appointment_id)
            os._exit(ENDINGS.index(ending) if ending in ENDINGS else 99)

        ending = forks.run(work, self.folder / "child.log")
        story = f"{command}, files cannot grow at transaction {transaction}"
        name = ENDINGS[ending.code] if ending.code is not None and ending.code < len(ENDINGS) else str(ending)
        self._judge(story, appointment_id, name, "unwritable")
        self.report.expect(f"{story}: {name}", found=name, expected=ENDINGS[transaction])
        with Lifecycle(self.ground.url, zocdoc=self.client, timing=AT_ONCE) as product:
            parts.end(self.report, story, product, self.ground, self.standin)

    def _judge(self, story: str, appointment_id: str, ending: str, trouble: str) -> None:
        """Whoever met the trouble was told by name; an unsent command has no request, a sent one has its intent."""
        seen = evidence.gather(self.ground.raw(), self.standin)
        self.report.check(story, evidence.trail_faults(self.ground.raw()) + evidence.intent_faults(seen))
        self.report.expect(f"{story}: {ending}", found=ending in ENDINGS, expected=True)
        self.report.counts[f"{trouble}: callers saw {ending}"] += 1
        states = [row["state"] for row in seen.of(appointment_id)]
        expected = {"DatabaseUnavailable": [], "OutcomeUnknown": ["sending"], "Done": ["applied"]}.get(ending)
        self.report.expect(f"{story}: {ending} leaves", found=states, expected=expected)
        requests = self.standin.posts()[appointment_id]
        self.report.expect(
            f"{story}: {ending}: requests", found=requests, expected=int(ending != "DatabaseUnavailable")
        )

    def _fresh(self) -> None:
        self.ground.reset()
        self.standin.forget()

    def _tracked(self, product: Lifecycle) -> str:
        [appointment_id] = self.standin.add(1, start_time=YESTERDAY)
        product.track(appointment_id, actor="job:trouble")
        return appointment_id

    def _ending(self, product: Lifecycle, command: str, appointment_id: str) -> str:
        """Carry a command out and give the name of what the caller sees."""
        try:
            send(product, command, appointment_id, actor="job:trouble")
        except (LifecycleError, sqlite3.Error, sa.exc.SQLAlchemyError) as error:
            return type(error).__name__
        return "Done"

    def _pages(self) -> int:
        return int(grounds.rows(self.ground.raw(), "PRAGMA page_count")[0]["page_count"])

    def _pragma(self, engine: sa.Engine, pragma: str) -> None:
        """Set a pragma in the pool's one connection: the next transaction of this thread takes the same."""
        with engine.connect() as connection:
            connection.exec_driver_sql(pragma)


ENDINGS: Final = ("Done", DatabaseUnavailable.__name__, OutcomeUnknown.__name__)
