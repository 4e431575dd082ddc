"""A simulated world: a database, Zocdoc, and several processes that work on the same appointments while things fail."""

from __future__ import annotations

import contextlib
import logging
import shutil
import sqlite3
from collections import Counter
from dataclasses import dataclass
from datetime import timedelta
from random import Random
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from lifecycle import Lifecycle, errors, points, recovery, schema
from lifecycle.database import Database
from lifecycle.resources import Clients, Resources, Timing
from tests.simulation import client, clock, evidence, faults, patches, remote
from tests.simulation.scheduler import Interrupted, Killed, Scheduler, Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from lifecycle.points import Point

WORKERS = 4
OPEN_AT_MOST = 28
CANARY = "patient tells of a canary"
"""Free text that must be gone from the database when its command has ended."""

PAUSES = frozenset(
    {
        "before_intent",
        "intent_committed",
        "token_fetched",
        "request_sent",
        "answer_unread",
        "answer_classified",
        "after_commit",
        "outcome_committed",
        "recovery_scanned",
        "read_claimed",
        "read_returned",
        "settlement_committed",
    }
)
"""Points outside transactions: here the baton may go to another worker."""

_NEXT_STAGE = {
    "before_intent": "intent",
    "intent_committed": "send",
    "answer_classified": "outcome",
    "recovery_scanned": "claim",
    "read_claimed": "read",
    "read_returned": "settle",
}
_NEW_STATUSES = {
    "pending_booking": 40,
    "confirmed": 30,
    "rescheduled": 10,
    "pending_reschedule": 8,
    "reschedule_failed": 6,
    "booking_failed": 3,
    "cancelled": 1,
    "no_show": 1,
}
_WISHES = {"confirm": 24, "reschedule": 32, "mark_arrived": 18, "cancel": 14, "mark_no_show": 12}
_REPEATED = {
    "NotSent": 0.6,
    "OutcomeUnknown": 0.5,
    "DatabaseUnavailable": 0.8,
    "Killed": 0.8,
    "Interrupted": 0.7,
    "CommandInProgress": 0.3,
    "CommandRejected": 0.15,
    "Done": 0.1,
}
"""What a caller was told -> how often it calls again with the same key."""

_DOUBTFUL = frozenset({"OutcomeUnknown", "Killed", "Interrupted", "CommandInProgress"})
"""What makes most callers turn to another appointment for a while."""

_ROUNDS = 60
_BOUND = 400.0
"""Simulated seconds within which everything must be settled once the faults are over."""


class Storage(Database):
    """The product's database, with reads that can fail as its writes can."""

    world: World | None = None

    @contextlib.contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """Open a reading transaction, or find the database gone."""
        if self.world is not None:
            self.world.before_reading()
        with super().read() as connection:
            yield connection


class Site:
    """One process's place for worlds: a migrated template, and one database file that each world gets afresh."""

    def __init__(self, folder: Path) -> None:
        self.folder: object = folder
        self.path = folder / "world.db"
        self._template = folder / "template.db"
        made = Database(f"sqlite:///{self._template}")
        schema.upgrade(made)
        made.close()
        self.tamper = ""
        self._clock = clock.Clock()
        self.storage = Storage(f"sqlite:///{self.path}", now=lambda: self._clock.now())
        # Records that nobody keeps would cost a fifth of the time.
        logging.getLogger("sqlalchemy.engine.Engine.lifecycle").setLevel(logging.WARNING)

    def renew(self, world: World) -> None:
        """Hand the place to a world: an empty database and its clock."""
        self.storage.close()
        for suffix in ("", "-wal", "-shm"):
            self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)
        shutil.copyfile(self._template, self.path)
        if self.tamper:
            with contextlib.closing(sqlite3.connect(self.path)) as connection:
                connection.executescript(self.tamper)
        self._clock, self.storage.world = world.clock, world


@dataclass(slots=True, kw_only=True)
class Task:
    """What a worker does next. `arguments` are the command's; `command_id` is what an operator resolves."""

    kind: str
    actor: str
    appointment_id: str = ""
    command: str = ""
    key: str | None = None
    arguments: tuple[tuple[str, str], ...] = ()
    command_id: str = ""
    resolution: str = ""


class World:
    """Runs so many commands under faults, lets everything settle, and gives the evidence."""

    def __init__(self, site: Site, *, seed: int, commands: int, rates: faults.Rates) -> None:
        self.rng = Random(seed)  # noqa: S311 # a simulation, no secret
        self.clock = clock.Clock()
        self.remote = remote.Remote(self.rng, self.clock, self.note)
        self.found = evidence.Evidence(seed, self.remote)
        self.commands: dict[str, str] = {}
        self._site, self._size, self._rates = site, commands, rates
        self._scheduler = Scheduler(self.rng, self.clock, self._tick)
        self._is_calm = False
        self._open_at_most = min(OPEN_AT_MOST, 5 + commands // 4)
        self._numbers = Counter[str]()
        self._accepted = 0
        self._untracked: list[str] = []
        self._open: list[str] = []
        self._repeats: list[Task] = []
        self._doubtful: dict[str, float] = {}
        self._lifecycle = Lifecycle.__new__(Lifecycle)
        resources = Resources(site.storage, Clients(client.Client(self, "machine"), self._user_client), Timing())
        self._lifecycle._resources, self._lifecycle._source = resources, "api"
        self._resources = resources
        self._peephole: sqlite3.Connection | None = None

    def run(self) -> evidence.Evidence:
        """Live through it."""
        self._site.renew(self)
        self._peephole = sqlite3.connect(self._site.path, isolation_level=None, check_same_thread=False, timeout=0)
        with patches.applied(self), points.armed(self.reach):
            self._scheduler.run(WORKERS, self._work)
            self._is_calm = True
            try:
                self._settle()
            except Exception as error:  # noqa: BLE001 # whatever it is, it is a finding
                self.found.surprises.append(f"-: recovery raised {type(error).__name__}: {error}")
            finally:
                self._peephole.close()
        self._site.storage.close()
        evidence.collect(self.found, self._site.path)
        return self.found

    def note(self, appointment_id: str, what: str, facts: object = None) -> None:
        """Write a line of the log."""
        worker = self._scheduler.current
        who = "zocdoc" if worker is None else f"w{worker.number} {worker.actor}"
        self.found.log.append((self.clock.elapsed, who, appointment_id, what, facts))

    def new_id(self, kind: str) -> str:
        """Number things through."""
        self._numbers[kind] += 1
        return f"{kind}:{self._numbers[kind]}"

    # Faults and interleaving: what the product calls while it runs.

    def reach(self, point: Point) -> None:
        """Be passed by the product at a labelled point: kill, fail, stall, or hand the baton on."""
        worker = self._scheduler.current
        if worker is None:
            return
        if worker.is_dead:
            raise Killed
        name = str(point)
        worker.stage = _NEXT_STAGE.get(name, worker.stage)
        if name == "intent_committed":
            self._accepted += 1
        drawn, rates = self.rng.random(), self._rates
        if drawn < rates.kill:
            self._kill(worker, name)
        if name in faults.DATABASE_POINTS:
            self._maybe_fail(worker, name, drawn - rates.kill)
        if name in PAUSES:
            if 0 < 1 - drawn < rates.stall:
                self.count("stall", f"{worker.stage}.{name}", worker.command)
                self.pause(self.rng.choice((5.0, 17.0, 40.0, 90.0, 160.0)) * (0.5 + self.rng.random()))
            else:
                self._scheduler.pause(worker)
        if name == "settlement_committed":
            worker.stage, worker.command = "claim", "-"
        elif name == "outcome_committed":
            worker.stage = "after"

    def pause(self, seconds: float) -> None:
        """Let so many seconds pass for the caller; others run meanwhile."""
        worker = self._scheduler.current
        if worker is None:
            self.clock.advance(seconds)
            return
        if worker.is_dead:
            raise Killed
        self._scheduler.pause(worker, seconds)

    def hold(self) -> None:
        """For a planted bug that holds the write lock: nobody else may run now, or all would wait for the lock."""
        self._scheduler.is_held = True

    def release(self) -> None:
        """Let others run again."""
        self._scheduler.is_held = False

    def before_reading(self) -> None:
        """Be told that the product opens a reading transaction."""
        worker = self._scheduler.current
        if worker is not None and self._is_down(worker, self.rng.random() < self._rates.database / 3):
            raise errors.DatabaseUnavailable(problem="simulated")

    def draw(
        self,
        weights: Mapping[str, int],
        place: str,
        command: str,
        *,
        legal: Callable[[str, str], bool] = lambda _fault, _command: True,
    ) -> str:
        """Draw what goes wrong with a call; nothing in a calm world."""
        if self._is_calm:
            return "none"
        fault = self.rng.choices(list(weights), list(weights.values()))[0]
        if not legal(fault, command):
            return "none"
        self.count(fault, place, command)
        return fault

    def count(self, fault: str, place: str, command: str) -> None:
        """Note that a cell was hit."""
        self.found.cells[fault, place, command] += 1

    def _kill(self, worker: Worker, name: str) -> None:
        worker.is_dead = True
        self.found.kills += 1
        self.count("kill", f"{worker.stage}.{name}", worker.command)
        self.note("", "killed", f"{worker.stage}.{name}")
        raise Killed

    def _maybe_fail(self, worker: Worker, name: str, drawn: float) -> None:
        if drawn < self._rates.outage:
            worker.database_down_until = self.clock.elapsed + self.rng.random() * 8
        if self._is_down(worker, drawn < self._rates.database):
            self.count("database", f"{worker.stage}.{name}", worker.command)
            self.note("", "database failed", f"{worker.stage}.{name}")
            raise sa.exc.OperationalError("simulated", None, sqlite3.OperationalError("disk I/O error"))

    def _is_down(self, worker: Worker, now: bool) -> bool:  # noqa: FBT001 # the draw
        return now or self.clock.elapsed < worker.database_down_until

    def _tick(self) -> None:
        """Let the provider act now and then."""
        if self._open and self.rng.random() < self._rates.provider:
            appointment_id = self.rng.choice(self._open)
            now = self.remote.bookings[appointment_id].now
            start = now.start + timedelta(hours=1) if self.rng.random() < 0.3 else None
            self.remote.provide(appointment_id, status=self.rng.choice(remote.STATUSES), start=start)

    # What the client needs to know, and what it saw on its way.

    def read_site(self, appointment_id: str) -> str:
        """Name the story that a read belongs to."""
        worker = self._scheduler.current
        if worker is None:
            return "calm"
        if worker.stage == "read":
            worker.command = self.commands.get(appointment_id, "-")
            return "settle"
        return "conflict" if worker.stage == "send" else "follow"

    def read_failed(self) -> None:
        """Be told that recovery's read failed: what follows is its settlement."""
        worker = self._scheduler.current
        if worker is not None and worker.stage == "read":
            worker.stage = "settle"

    def receive(
        self, operation: str, appointment_id: str, fault: str, start_time: str | None, identity: str
    ) -> remote.Request:
        """Take down a request as it arrives, and what the database shows at this moment."""
        request = remote.Request(
            number=len(self.remote.requests),
            at=self.clock.elapsed,
            caller=self._caller(),
            identity=identity,
            operation=operation,
            appointment_id=appointment_id,
            start_time=start_time,
            fault=fault,
            witness=self._witness(appointment_id),
        )
        self.note(appointment_id, operation, (request.number, fault, start_time))
        return request

    def receive_read(self, appointment_id: str, fault: str, site: str) -> remote.Read:
        """Take down a read as it arrives."""
        self.remote.advance()
        number = len(self.remote.reads)
        read = remote.Read(number, self.clock.elapsed, self._caller(), appointment_id, fault, self._is_locked(), site)
        self.remote.reads.append(read)
        return read

    def _caller(self) -> str:
        worker = self._scheduler.current
        return "calm" if worker is None else worker.actor

    def _witness(self, appointment_id: str) -> remote.Witness:
        assert self._peephole is not None
        active = self._peephole.execute(
            "SELECT command_id, state, attempt, actor FROM lifecycle_commands"
            " WHERE appointment_id = ? AND state IN ('queued', 'sending', 'uncertain')",
            (appointment_id,),
        ).fetchall()
        head = self._peephole.execute(
            "SELECT appointment_seq, hash FROM lifecycle_audit_events WHERE appointment_id = ?"
            " ORDER BY appointment_seq DESC LIMIT 1",
            (appointment_id,),
        ).fetchone()
        rows = self._peephole.execute("SELECT max(seq) FROM lifecycle_audit_events").fetchone()[0]
        return remote.Witness(self._is_locked(), tuple(active), head, rows or 0)

    def _is_locked(self) -> bool:
        """Tell whether somebody holds the write lock, which nobody may while HTTP is in the air."""
        assert self._peephole is not None
        try:
            self._peephole.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            return True
        self._peephole.execute("ROLLBACK")
        return False

    def _user_client(self, user_id: str) -> Any:
        if not self._is_calm and self.rng.random() < 0.05:
            return None
        return client.Client(self, f"user:{user_id}")

    # What the workers do.

    def _work(self, worker: Worker) -> None:
        while (task := self._next()) is not None:
            worker.actor, worker.is_dead, worker.command = task.actor, False, task.command or "-"
            worker.stage = "scan" if task.kind == "recover" else task.kind
            worker.database_down_until = 0.0
            self.clock.advance(self.rng.expovariate(0.8))
            self._perform(task)
            self._scheduler.pause(worker)

    def _perform(self, task: Task) -> None:
        call = evidence.Call(
            task.actor,
            task.kind,
            task.appointment_id,
            task.command,
            task.key,
            task.command_id or None,
            self.clock.elapsed,
        )
        self.note(task.appointment_id, task.kind, (task.command, task.key, task.arguments, task.resolution))
        try:
            told = _facts(self._act(task))
            call.result = "Done"
        except (Killed, Interrupted) as end:
            told, call.result = {}, type(end).__name__
        except errors.LifecycleError as error:
            told, call.result = dict(vars(error)), type(error).__name__
        except BaseException as error:  # noqa: BLE001 # whatever it is, it is a finding
            told, call.result = {}, f"unexpected {type(error).__name__}"
            self.found.surprises.append(f"{task.appointment_id}: {task.actor} got {type(error).__name__}: {error}")
        self.release()
        call.told, call.ended_at = told, self.clock.elapsed
        call.command_id = told.get("command_id", call.command_id)
        self.found.calls.append(call)
        self.note(task.appointment_id, call.result, told.get("reason_code") or told.get("reasons"))
        self._follow_up(task, call.result)

    def _act(self, task: Task) -> object:
        lifecycle, appointment_id, actor = self._lifecycle, task.appointment_id, task.actor
        match task.kind:
            case "command":
                arguments: dict[str, Any] = dict(task.arguments)
                method = getattr(lifecycle, task.command)
                return method(appointment_id, actor=actor, request_key=task.key, **arguments)
            case "track":
                booked_with = self.remote.bookings[appointment_id].booked_with
                return lifecycle.track(appointment_id, actor=actor, booked_with=booked_with)
            case "recover":
                wait = 0.0 if self.rng.random() < 0.7 else self.rng.random() * 40
                return recovery.recover(self._resources, wait=wait, sleep=self.pause)
            case _:
                return lifecycle.resolve(
                    task.command_id, resolution=task.resolution, reason_code="seen_in_portal", actor=actor
                )

    def _follow_up(self, task: Task, result: str) -> None:
        """Behave as callers do: repeat what failed, and find out what is not tracked."""
        if task.kind == "track" and task.appointment_id in self._untracked and result == "Done":
            self._untracked.remove(task.appointment_id)
            self._open.append(task.appointment_id)
        if result in _DOUBTFUL:
            self._doubtful[task.appointment_id] = self.clock.elapsed + 60.0
        if task.kind != "command" or self.rng.random() > _REPEATED.get(result, 0.0):
            return
        if task.key is None and result != "NotSent":
            return
        again = Task(
            kind="command",
            actor=self.new_id("caller"),
            appointment_id=task.appointment_id,
            command=task.command,
            key=task.key,
            arguments=task.arguments,
        )
        if task.key is not None and self.rng.random() < 0.04:
            again.command = "cancel" if task.command != "cancel" else "mark_no_show"
            again.arguments = ()
        self._repeats.append(again)

    def _next(self) -> Task | None:
        """Draw the next task; None when enough commands were accepted."""
        if self._accepted >= self._size or self._numbers["caller"] > 8 * self._size + 100:
            return None
        if self._repeats and self.rng.random() < 0.4:
            return self._repeats.pop(self.rng.randrange(len(self._repeats)))
        drawn = self.rng.random()
        if drawn < 0.06:
            return Task(kind="recover", actor=self.new_id("recover"))
        if drawn < 0.09:
            return self._resolve() or self._wish()
        if drawn < 0.12 and self._open:
            return self._follow(self.rng.choice(self._open))
        return self._wish()

    def _wish(self) -> Task:
        if len(self._open) < self._open_at_most:
            if not self._untracked:
                self._book()
            return self._follow(self.rng.choice(self._untracked))
        appointment_id = self._some_open()
        command = self.rng.choices(list(_WISHES), list(_WISHES.values()))[0]
        if self.rng.random() < 0.95:
            command = self._legal(appointment_id, command)
        self.commands[appointment_id] = command
        return Task(
            kind="command",
            actor=self.new_id("caller"),
            appointment_id=appointment_id,
            command=command,
            key=self.new_id("key") if self.rng.random() < 0.5 else None,
            arguments=self._arguments(appointment_id, command),
        )

    def _follow(self, appointment_id: str) -> Task:
        return Task(kind="track", actor=self.new_id("sync"), appointment_id=appointment_id)

    def _some_open(self) -> str:
        """Draw an appointment; mostly one that is neither over nor known to be busy."""
        for _ in range(4):
            appointment_id = self.rng.choice(self._open)
            if self.rng.random() < 0.15:
                break
            if self.remote.bookings[appointment_id].now.status not in remote.OPEN and len(self._open) > 1:
                self._open.remove(appointment_id)
            elif self._doubtful.get(appointment_id, 0.0) <= self.clock.elapsed:
                break
        return appointment_id

    def _legal(self, appointment_id: str, command: str) -> str:
        """Prefer a command that Zocdoc would allow."""
        now = self.remote.bookings[appointment_id].now
        if now.status == "pending_booking" and self.rng.random() < 0.5:
            return "confirm"
        if command == "confirm" or (command == "reschedule" and now.status not in remote.MOVABLE):
            return "reschedule" if now.status in remote.MOVABLE else "cancel"
        if command == "mark_no_show" and not now.start < self.clock.now() <= now.start + remote.NO_SHOW_WINDOW:
            return "mark_arrived"
        return command

    def _arguments(self, appointment_id: str, command: str) -> tuple[tuple[str, str], ...]:
        if command == "cancel" and self.rng.random() < 0.5:
            return (("reason_type", "other_patient_reason"), ("reason", CANARY))
        if command != "reschedule":
            return ()
        start = self.remote.bookings[appointment_id].now.start
        if self.rng.random() < 0.93:
            start = self._start()
        return (("start_time", client.start_text(remote.local(start, self.rng.choice(remote.ZONES)))),)

    def _start(self) -> Any:
        hours = self.rng.randint(-40, 40)
        return remote.local(clock.BEGINNING + timedelta(hours=hours), self.rng.choice(remote.ZONES))

    def _book(self) -> None:
        appointment_id = f"appointment-{len(self.remote.bookings) + 1}"
        booked_with = "user:7" if self.rng.random() < 0.1 else "machine"
        status = self.rng.choices(list(_NEW_STATUSES), list(_NEW_STATUSES.values()))[0]
        self.remote.book(appointment_id, status=status, start=self._start(), booked_with=booked_with)
        self._untracked.append(appointment_id)

    def _resolve(self) -> Task | None:
        """Let an operator look a command up at Zocdoc and say what is true, or have it sent again."""
        assert self._peephole is not None
        rows = self._peephole.execute(
            "SELECT command_id, appointment_id, command FROM lifecycle_commands WHERE state = 'needs_attention'"
        ).fetchall()
        rows = [row for row in rows if not self.remote.is_under_way(row[1])]
        if not rows:
            return None
        command_id, appointment_id, command = self.rng.choice(rows)
        resolution = "applied" if self.has_effect(command_id) else self.rng.choice(("rejected", "retry"))
        return Task(
            kind="resolve",
            actor=self.new_id("operator"),
            appointment_id=appointment_id,
            command=command,
            command_id=command_id,
            resolution=resolution,
        )

    def has_effect(self, command_id: str) -> bool:
        """Tell whether a request of a command changed the appointment."""
        return any(
            request.has_effect and any(row[0] == command_id for row in request.witness.active)
            for request in self.remote.requests
        )

    # The end: faults over, everything must come to rest.

    def _settle(self) -> None:
        began = self.clock.elapsed
        for _ in range(_ROUNDS):
            outlook = recovery.recover(self._resources, sleep=self.pause)
            if not outlook.waiting:
                self.found.is_settled = True
                break
            if outlook.next_at is not None:
                self.clock.reach(max((outlook.next_at - clock.BEGINNING).total_seconds(), self.clock.elapsed + 0.1))
        self.found.settled_in = self.clock.elapsed - began
        self.clock.reach(self.remote.last_due())
        self.clock.advance(1.0)
        self.remote.advance()
        assert self._peephole is not None
        self.found.before_sync = evidence.appointments(self._peephole)
        self._peephole.row_factory = None
        self.found.ended_at = self.clock.elapsed
        for appointment_id, row in self.found.before_sync.items():
            task = Task(kind="track", actor="calm", appointment_id=appointment_id)
            self.note(appointment_id, "row", (row["status"], row["start_time"], row["in_doubt"]))
            self._perform(task)


def _facts(result: object) -> dict[str, Any]:
    names = ("command_id", "to_status", "from_status", "conforming", "reason_code")
    return {name: getattr(result, name) for name in names if hasattr(result, name)}
