"""A simulated world: a database, Zocdoc, and several processes that work on the same appointments while things fail."""

from __future__ import annotations

import sqlite3
from contextlib import contextmanager
from datetime import timedelta
from random import Random
from typing import TYPE_CHECKING, Any, cast

import sqlalchemy as sa

from lifecycle import Batch, Lifecycle, Submission, errors, inbox, points, recovery
from lifecycle.resources import Clients, Resources, Timing
from tests.simulation import clock, dispatchers, evidence, faults, patches, postbox, remote
from tests.simulation.callers import Callers, Task
from tests.simulation.client import Client
from tests.simulation.scheduler import Interrupted, Killed, Scheduler, Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from lifecycle.pending import Pending
    from lifecycle.points import Point
    from lifecycle.zocdoc import ZocdocClient
    from tests.simulation.site import Site

WORKERS = 4

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
        "queue_claimed",
        "recovery_scanned",
        "read_claimed",
        "read_returned",
        "settlement_committed",
        "delivery_verified",
        "delivery_stored",
        "delivery_claimed",
        "delivery_ended",
    }
)
"""Points outside transactions: here the baton may go to another worker."""

_STAGES = {
    "before_intent": "intent",
    "intent_committed": "send",
    "answer_classified": "outcome",
    "recovery_scanned": "claim",
    "read_claimed": "read",
    "read_returned": "settle",
}
"""Point -> the stage of the story that it begins."""

_SELDOM = {
    **dict.fromkeys(("send", "outcome", "queued send", "queued outcome"), 1.5),
    **dict.fromkeys(("settle", "withdraw", "confirm", "mark_no_show"), 2.0),
    "sync": 4.0,
}
"""Stages, and commands, in which faults are so many times as probable: few come so far."""

_SENDING = frozenset({"send", "outcome"})
"""Stages that are named apart when a worker sends what was submitted."""

_LAST_OF_STAGE = {"outcome_committed": "after", "settlement_committed": "claim"}
"""Point -> the stage that begins behind it."""

_STALLS = (5.0, 17.0, 40.0, 90.0, 160.0)
"""Seconds, more or less, for which a process is stopped: some of them outlast a lease."""

_CUT_OFF = "SELECT count(*) FROM lifecycle_sync_cursors WHERE cursor_id = 'full' AND finished_at IS NULL"
"""Full runs that did not come to their end: one, or none."""

_ROUNDS = 120

_ASKED = 0.1
"""How many commands' handles are asked at the end."""

_PATIENCE = 2 * 3600.0
"""Seconds after which a delivery that still waits counts as forgotten: pauses double up to an hour."""


class World:
    """Runs so many commands under faults, lets everything settle, and gives the evidence."""

    def __init__(self, site: Site, *, seed: int, commands: int, rates: faults.Rates) -> None:
        self.rng = Random(seed)  # noqa: S311 # a simulation, no secret
        self.clock = clock.Clock()
        self.remote = remote.Remote(self.rng, self.clock, self.note, postbox.Postbox(self.rng, self.clock))
        self.found = evidence.Evidence(seed, self.remote)
        self._site, self._rates = site, rates
        self._callers = Callers(self.rng, self.clock, self.remote, rates, commands)
        self._scheduler = Scheduler(self.rng, self.clock, self._tick)
        self._is_calm = False
        self._accepted = 0
        clients = Clients(cast("ZocdocClient", Client(self, "machine")), self._user_client)
        self._resources = Resources(site.storage, clients, Timing())
        self._lifecycle = Lifecycle.__new__(Lifecycle)
        self._lifecycle._resources, self._lifecycle._source = self._resources, "api"
        self._lifecycle._webhook_keys = (postbox.KEY,)
        self._queue = dispatchers.Queue(self, self._resources, self._lifecycle)
        self._sends: tuple[str, int] | None = None
        self._calm_actor = "calm worker"

    def run(self) -> evidence.Evidence:
        """Live through it."""
        self._site.renew(self.clock, self._before_reading)
        # What another process sees of the database, whenever it looks.
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

    def reach(self, point: Point) -> None:
        """Be passed by the product at a labelled point: kill, fail, stall, or hand the baton on."""
        worker = self._scheduler.current
        if worker is None:
            return
        if worker.is_dead:
            raise Killed
        name = str(point)
        worker.stage = self._stage(worker, name)
        self._accepted += name == "intent_committed"
        drawn, kill = self.rng.random(), self._rates.kill
        nearer = drawn / (_SELDOM.get(worker.stage, 1.0) * _SELDOM.get(worker.command, 1.0))
        if nearer < kill:
            self._kill(worker, name)
        if name in faults.DATABASE_POINTS:
            self._maybe_fail(worker, name, nearer - kill)
        if name in PAUSES:
            self._maybe_stall(worker, name, 1.0 - drawn)
        worker.stage = _LAST_OF_STAGE.get(name, worker.stage)
        if name == "settlement_committed":
            worker.command = "-"

    @contextmanager
    def sending(self, command: Pending) -> Iterator[None]:
        """Be told by a worker what it sends until the block ends."""
        worker, sends = self._scheduler.current, (command.command_id, command.attempt)
        if worker is None:
            self._sends = sends
            yield
            return
        worker.sends, worker.command = sends, str(command.command)
        try:
            yield
        finally:
            worker.sends, worker.command, worker.stage = None, "-", "dispatch"

    def post_site(self) -> str:
        """Name the story that a call belongs to: an immediate one, or one that was submitted."""
        worker = self._scheduler.current
        return "post" if worker is None or worker.sends is None else "queued post"

    def pause(self, seconds: float) -> None:
        """Let so many seconds pass for the caller; others run meanwhile."""
        worker = self._scheduler.current
        if worker is None:
            self.clock.advance(seconds)
        elif worker.is_dead:
            raise Killed
        else:
            self._scheduler.pause(worker, seconds)

    def hold(self) -> None:
        """For a planted bug that holds the write lock: nobody else may run now, or all would wait for the lock."""
        self._scheduler.is_held = True

    def release(self) -> None:
        """Let others run again."""
        self._scheduler.is_held = False

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
        self.found.cells[fault, place, command] += 1
        return fault

    def read_site(self, appointment_id: str) -> str:
        """Name the story that a read belongs to."""
        worker = self._scheduler.current
        if worker is None:
            return "calm"
        if worker.stage == "read":
            worker.command = self.wished(appointment_id)
            return "settle"
        return "conflict" if worker.stage in {"send", "queued send"} else "follow"

    def wished(self, appointment_id: str) -> str:
        """Name the command that was last wished for an appointment."""
        return self._callers.wished.get(appointment_id, "-")

    def read_failed(self) -> None:
        """Be told that a read failed: in recovery, what follows is its settlement."""
        worker = self._scheduler.current
        if worker is not None and worker.stage == "read":
            worker.stage = "settle"

    def receive(
        self, operation: str, appointment_id: str, fault: str, start_time: str | None, identity: str
    ) -> remote.Request:
        """Take down a request as it arrives, and what the database shows at this moment."""
        worker = self._scheduler.current
        request = remote.Request(
            number=len(self.remote.requests),
            at=self.clock.elapsed,
            caller=self._caller(),
            identity=identity,
            operation=operation,
            appointment_id=appointment_id,
            start_time=start_time,
            fault=fault,
            witness=evidence.witness(self._peephole, appointment_id),
            sends=self._sends if worker is None else worker.sends,
        )
        self.note(appointment_id, operation, (request.number, fault, start_time))
        return request

    def receive_read(self, appointment_id: str, fault: str, site: str, identity: str) -> remote.Read:
        """Take down a read as it arrives."""
        self.remote.advance()
        is_locked = evidence.is_locked(self._peephole)
        number = len(self.remote.reads)
        read = remote.Read(number, self.clock.elapsed, self._caller(), appointment_id, fault, is_locked, site, identity)
        self.remote.reads.append(read)
        return read

    def _caller(self) -> str:
        worker = self._scheduler.current
        return self._calm_actor if worker is None else worker.actor

    def _user_client(self, user_id: str) -> ZocdocClient | None:
        if not self._is_calm and self.rng.random() < 0.05:
            return None
        return cast("ZocdocClient", Client(self, f"user:{user_id}"))

    def _stage(self, worker: Worker, name: str) -> str:
        stage = _STAGES.get(name)
        if stage is None:
            return worker.stage
        return f"queued {stage}" if stage in _SENDING and worker.sends is not None else stage

    def _kill(self, worker: Worker, name: str) -> None:
        worker.is_dead = True
        self.found.kills += 1
        self._count("kill", worker, name)
        raise Killed

    def _maybe_fail(self, worker: Worker, name: str, drawn: float) -> None:
        if drawn < self._rates.outage:
            worker.database_down_until = self.clock.elapsed + self.rng.random() * 8
        if drawn < self._rates.database or self.clock.elapsed < worker.database_down_until:
            self._count("database", worker, name)
            raise sa.exc.OperationalError("simulated", None, sqlite3.OperationalError("disk I/O error"))

    def _maybe_stall(self, worker: Worker, name: str, drawn: float) -> None:
        if drawn >= self._rates.stall:
            self._scheduler.pause(worker)
            return
        self._count("stall", worker, name)
        self.pause(self.rng.choice(_STALLS) * (0.5 + self.rng.random()))

    def _before_reading(self) -> None:
        """Be told that the product opens a reading transaction."""
        worker = self._scheduler.current
        if worker is None:
            return
        is_down = self.clock.elapsed < worker.database_down_until
        if self.rng.random() < self._rates.database / 3 or is_down:
            raise errors.DatabaseUnavailable(problem="simulated")

    def _count(self, fault: str, worker: Worker, name: str) -> None:
        place = f"{worker.stage}.{name}"
        self.found.cells[fault, place, worker.command] += 1
        self.note("", fault, place)

    def _tick(self) -> None:
        """Let the provider act now and then."""
        if self._callers.open and self.rng.random() < self._rates.provider:
            appointment_id = self.rng.choice(self._callers.booked)
            now = self.remote.bookings[appointment_id].now
            start = now.start + timedelta(hours=1) if self.rng.random() < 0.3 else None
            self.remote.provide(appointment_id, status=self._callers.provided(), start=start)

    def _work(self, worker: Worker) -> None:
        while (task := self._callers.draw(self._accepted, self._peephole)) is not None:
            worker.actor, worker.is_dead, worker.command = task.actor, False, task.command or "-"
            worker.stage = "scan" if task.kind == "recover" else task.kind
            worker.database_down_until = 0.0
            self.clock.advance(self.rng.expovariate(0.8))
            self._perform(task)
            self._scheduler.pause(worker)

    def _perform(self, task: Task) -> None:
        call = evidence.Call(task.actor, task.kind, task.appointment_id, task.command, task.key, task.command_id)
        call.batch_id, call.transaction, call.rows = task.batch_id, task.transaction, len(task.rows)
        self.note(task.appointment_id, task.kind, (task.command, task.key, task.arguments, task.resolution))
        try:
            call.told, call.result = _facts(self._act(task)), "Done"
        except (Killed, Interrupted) as end:
            call.result = type(end).__name__
        except (errors.LifecycleError, dispatchers.RolledBackError) as error:
            call.told, call.result = dict(vars(error)), type(error).__name__
        except BaseException as error:  # noqa: BLE001 # whatever it is, it is a finding
            call.result = f"unexpected {type(error).__name__}"
            self.found.surprises.append(f"{task.appointment_id}: {task.actor} got {type(error).__name__}: {error}")
        self.release()
        call.command_id = call.told.get("command_id", call.command_id)
        self.found.calls.append(call)
        self.note(task.appointment_id, call.result, call.told.get("reason_code") or call.told.get("reasons"))
        self._callers.told(task, call.result)

    def _act(self, task: Task) -> object:
        lifecycle, appointment_id, actor = self._lifecycle, task.appointment_id, task.actor
        match task.kind:
            case "command":
                method = getattr(lifecycle, task.command)
                return method(appointment_id, actor=actor, request_key=task.key, **dict(task.arguments))
            case "track":
                booked_with = self.remote.bookings[appointment_id].booked_with
                return lifecycle.track(appointment_id, actor=actor, booked_with=booked_with)
            case "resolve":
                resolution = task.resolution
                return lifecycle.resolve(task.command_id, resolution=resolution, reason_code="seen", actor=actor)
            case "recover":
                wait = 0.0 if self.rng.random() < 0.7 else self.rng.random() * 40
                return recovery.recover(self._resources, wait=wait, sleep=self.pause)
            case "deliver" | "sync" | "process":
                return self._follow_zocdoc(task)
            case _:
                return self._queue.act(task)

    def _follow_zocdoc(self, task: Task) -> object:
        if task.letter is not None:
            return self._lifecycle.receive_webhook(self.remote.webhooks.headers(task.letter), task.letter.body)
        if task.kind == "sync":
            return self._lifecycle.sync(full=self._is_calm or self.rng.random() < 0.2, actor=task.actor)
        return self._lifecycle.process_inbox(track_unknown=self.rng.random() < 0.5)

    def _settle(self) -> None:
        """Faults over: recover until everything is at rest, let late requests arrive, and read what may be behind."""
        began = self.clock.elapsed
        for _ in range(_ROUNDS):
            outlook = recovery.recover(self._resources, sleep=self.pause)
            due = [moment for moment in (outlook.next_at, self._queue.drain()) if moment is not None]
            if not due:
                self.found.is_settled = True
                break
            self.clock.reach(max(clock.since(min(due)), self.clock.elapsed + 0.1))
        self._calm_actor = "calm"
        self.found.settled_in = self.clock.elapsed - began
        self._empty_inbox()
        self.clock.reach(self.remote.last_due())
        self.clock.advance(1.0)
        self.remote.advance()
        self.found.before_sync = evidence.appointments(self._peephole)
        self._read_everything()
        self.found.after_sync = evidence.appointments(self._peephole)
        self._empty_inbox()
        self._ask()
        for appointment_id, row in self.found.before_sync.items():
            self.note(appointment_id, "row", (row["status"], row["start_time"], row["in_doubt"]))
            there = self.remote.bookings[appointment_id].now
            # Where nothing is to be learned a read costs more than it shows; a few are made all the same.
            is_behind = (row["status"], row["start_time"]) != (there.status, clock.text(there.start))
            if is_behind or self.rng.random() < 0.1:
                self._perform(Task(kind="track", actor="calm", appointment_id=appointment_id))

    def _read_everything(self) -> None:
        """Sync in full; one more time if a run was cut off, which is only gone on with, past what it could not read."""
        [left] = self._peephole.execute(_CUT_OFF).fetchone()
        for _ in range(1 + left):
            self._perform(Task(kind="sync", actor="calm sync"))

    def _ask(self) -> None:
        """Ask the handles of some commands what came of them."""
        query = "SELECT command_id, appointment_id, command FROM lifecycle_commands ORDER BY command_id"
        for command_id, appointment_id, command in self._peephole.execute(query).fetchall():
            if self.rng.random() < _ASKED:
                asked = Task(kind="result", actor=f"asker:{command_id}", appointment_id=appointment_id)
                asked.command, asked.command_id = command, command_id
                self._perform(asked)

    def _empty_inbox(self) -> None:
        """Let every webhook call arrive, and have all of them processed."""
        while (due := self.remote.webhooks.next_due()) is not None:
            self.clock.reach(due)
            letter = self.remote.webhooks.take()
            if letter is not None:
                self._perform(self._callers.delivery(letter))
        for _ in range(_ROUNDS):
            left = inbox.process(self._resources)
            if left.next_at is None or clock.since(left.next_at) > self.clock.elapsed + _PATIENCE:
                return
            self.clock.reach(max(clock.since(left.next_at), self.clock.elapsed + 0.1))


def _facts(result: object) -> dict[str, Any]:
    if isinstance(result, (Submission, Batch)):
        return {"command_id" if isinstance(result, Submission) else "batch_id": result.id}
    names = ("command_id", "to_status", "from_status", "conforming", "reason_code", "delivery_id", "answer")
    return {name: getattr(result, name) for name in names if hasattr(result, name)}
