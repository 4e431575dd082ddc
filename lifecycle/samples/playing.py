"""The real way: plans are carried out by the engine itself, against the stand-in over loopback, in simulated time.

Every row is written by the product as in use: commands, lost answers, webhooks, nightly syncs, recovery, operators. The
clock stands still while the engine works, moves by the plan's milliseconds during a call, and jumps between actions, so
that months pass in a minute. SQLite only: the clock of PostgreSQL is the server's. One thread does everything.
"""

from __future__ import annotations

import base64
import heapq
import secrets
import socket
import time
from contextlib import ExitStack, closing, suppress
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa

from lifecycle import (
    chart,
    claiming,
    commands,
    enqueuing,
    errors,
    inbox,
    models,
    observations,
    operators,
    reconciliation,
    records,
    recovery,
    sending,
    wishlists,
)
from lifecycle import database as databases
from lifecycle.resources import Clients, Resources
from lifecycle.samples import drawing, ground, making, plans, practice, scribe, standin
from lifecycle.samples.bulk import Summary
from lifecycle.samples.chances import generator
from lifecycle.sandbox import MACHINE, callbacks, serve
from lifecycle.sandbox.documents import utc_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from lifecycle.zocdoc import ZocdocClient


_PATIENCE: Final = 0.2
"""Seconds of real time that a client waits whose answer is to be lost by silence."""


def play(
    target: str | sa.URL,
    *,
    appointments: int,
    seed: int,
    until: datetime,
    days: int = 90,
    on_progress: Callable[[int, int], object] | None = None,
) -> Summary:
    """Fill an empty SQLite database with a practice group's last `days` before `until` (UTC), with so many bookings.

    The same arguments tell the same stories; ids of commands and requests differ from run to run. Starts a stand-in on
    loopback. `on_progress` is called with the bookings so far and all. Raises as `bulk.generate` does.
    """
    order = making.Order(appointments=appointments, seed=seed, days=days, until=until)
    drawn = drawing.plans(generator(seed), appointments=appointments, days=days, until=until)

    def counted() -> Iterator[plans.Plan]:
        for number, plan in enumerate(drawn, 1):
            yield plan
            if on_progress is not None:
                on_progress(number, appointments)

    return carry_out(target, counted(), begin=order.begin, until=until)


def carry_out(target: str | sa.URL, drawn: Iterable[plans.Plan], *, begin: datetime, until: datetime) -> Summary:
    """Carry plans out, in the order of their bookings, in an empty SQLite database, in simulated time (UTC)."""
    started = time.monotonic()
    clock = standin.Clock(begin)
    with closing(databases.Database(target, now=clock.now)) as database, ExitStack() as stack:
        if database.is_postgres:
            raise errors.ConfigurationError(problem="the clock of PostgreSQL is the server's; use the bulk generator")
        ground.claim(database)
        _Stage(stack, database, clock).play(drawn, until)
        return _counted(database, started)


class _Stage:
    """The engine, the stand-in, and what is due when."""

    def __init__(self, stack: ExitStack, database: databases.Database, clock: standin.Clock) -> None:
        self.clock = clock
        self.zocdoc = standin.Zocdoc(clock)
        self.base_url = stack.enter_context(serve(self.zocdoc)).base_url
        self.token = self.zocdoc.tokens.issue(MACHINE).text
        self.sender: ZocdocClient = stack.enter_context(self.client(self.base_url))
        self.resources = Resources(database, Clients(self.sender), monotonic=clock.monotonic)
        self.nobody = stack.enter_context(socket.socket())
        self.nobody.bind(("127.0.0.1", 0))  # and never listens: connections to it are refused
        self.key = secrets.token_bytes(32)
        self.agenda: list[tuple[datetime, int, Callable[[Any], None], Any]] = []
        self.order = 0
        self.batches: dict[str, list[dict[str, Any]]] = {}
        self.submitted: dict[str, plans.Asked] = {}
        self.put_back: set[tuple[str, datetime]] = set()
        self.acts: dict[type, Callable[[str, Any], None]] = {
            plans.Told: self.tell,
            plans.Looked: self.look,
            plans.Changed: self.change,
            plans.Asked: self.ask,
            plans.Resolved: self.resolve,
        }

    def play(self, drawn: Iterable[plans.Plan], until: datetime) -> None:
        """Carry out all plans, each action at its time."""
        self.expect(practice.next_sync(self.clock.now()), self.sync)
        for plan in drawn:
            self.work_off(plan.booked_at)
            self.book(plan)
        self.work_off(until)

    def work_off(self, until: datetime) -> None:
        """Do what is due up to an instant."""
        while self.agenda and self.agenda[0][0] <= until:
            at, _, act, operand = heapq.heappop(self.agenda)
            self.clock.advance(at)
            act(operand)
        self.clock.advance(until)

    def expect(self, at: datetime, act: Callable[[Any], None], operand: object = None) -> None:
        """Put something on the agenda."""
        self.order += 1
        heapq.heappush(self.agenda, (at, self.order, act, operand))

    def book(self, plan: plans.Plan) -> None:
        """Book at Zocdoc, and expect what follows."""
        self.zocdoc.add(
            plan.appointment_id,
            status=plan.status,
            start_time=plan.start.isoformat(),
            provider_location_id=plan.location.provider_location_id,
            practice_id=plan.location.practice_id,
            visit_reason_id=plan.visit_reason_id,
            confirmation_type=plan.confirmation_type,
        )
        for action in plan.actions:
            if isinstance(action, plans.Asked) and action.batch is not None:
                self.gather(plan.appointment_id, action, action.batch)
            self.expect(action.at, self.do, (plan.appointment_id, action))

    def do(self, due: tuple[str, plans.Action]) -> None:
        """Carry out an action of a plan."""
        appointment_id, action = due
        self.acts[type(action)](appointment_id, action)

    def change(self, appointment_id: str, action: plans.Changed) -> None:
        """Let the provider change the appointment; who tells is another action."""
        moved = {} if action.start is None else {"start_time": action.start.isoformat()}
        self.zocdoc.change(appointment_id, webhook=False, status=action.status, **moved)

    def tell(self, appointment_id: str, action: plans.Told) -> None:
        """Call our webhook, as Zocdoc signs its calls."""
        now = self.clock.now()
        modified = utc_text(self.zocdoc.appointment(appointment_id).modified)
        event = callbacks.event(appointment_id, action.update_type, at=modified, sent=utc_text(now))
        body = callbacks.encode(event)
        headers = callbacks.sign(self.key, body, int(now.timestamp()))
        keys = [base64.b64encode(self.key).decode()]
        inbox.receive(self.resources, headers, body, keys, judged_at=now.timestamp())
        self.expect(now + timedelta(seconds=plans.PROCESSING_SECONDS), self.process)

    def process(self, _: None) -> None:
        """Process the inbox, as the door does beside it."""
        done = inbox.process(self.resources, track_unknown=True)
        if done.next_at is not None and done.next_at > self.clock.now() + timedelta(seconds=plans.PROCESSING_SECONDS):
            self.expect(done.next_at, self.process)

    def look(self, appointment_id: str, action: plans.Looked) -> None:
        """Track, or read again."""
        who = {"actor": action.actor, "source": action.source}
        observations.track(self.resources, appointment_id, booked_with=MACHINE, **who)

    def sync(self, _: None) -> None:
        """Run the nightly sync."""
        reconciliation.sync(self.resources, full=False, actor=scribe.SYNC_ACTOR)
        self.expect(practice.next_sync(self.clock.now()), self.sync)

    def ask(self, appointment_id: str, asked: plans.Asked) -> None:
        """Ask for a command, with the client that is in the right trouble."""
        self.zocdoc.expect(asked)
        with ExitStack() as stack:
            resources = self.resources
            if asked.trouble in _OWN_CLIENT:
                client = stack.enter_context(self.client_in_trouble(asked.trouble))
                resources = replace(resources, clients=Clients(client))
            stack.enter_context(suppress(*_EXPECTED))
            if asked.batch is None:
                commands.run(resources, asked.wish(appointment_id))
            else:
                self.take(resources, appointment_id, asked)
        is_lost = records.get(self.resources.database, appointment_id).in_doubt
        self.zocdoc.end(has_arrived=is_lost)
        if asked.trouble is not None:
            self.recover(None)

    def gather(self, appointment_id: str, asked: plans.Asked, batch: plans.Batch) -> None:
        """Put a command into its batch, which is submitted when all that belongs to it is booked."""
        if batch.batch_id not in self.batches:
            self.expect(batch.at, self.submit, batch)
        row = {"appointment_id": appointment_id, "reason_type": asked.reason_type}
        self.batches.setdefault(batch.batch_id, []).append(row)

    def submit(self, batch: plans.Batch) -> None:
        """Submit a batch. Nobody is woken up: each command's turn comes by the plan."""
        order = enqueuing.Order(
            actor=batch.actor,
            source=batch.source,
            command=chart.Command(batch.command),
            batch_id=batch.batch_id,
            name=batch.name,
        )
        rows = wishlists.rows(self.batches[batch.batch_id])
        enqueuing.submit(self.resources, order, rows, announce=lambda _: None)

    def take(self, resources: Resources, appointment_id: str, asked: plans.Asked) -> None:
        """Carry a queued command out, as a dispatcher does."""
        self.submitted[appointment_id] = replace(asked, trouble=None)
        with self.resources.database.read() as connection:
            command_id = connection.execute(_QUEUED, {"id": appointment_id}).scalar()
        if command_id is None:
            return
        if records.get(self.resources.database, appointment_id).in_doubt:
            who = {"actor": asked.actor, "source": asked.source}
            observations.follow(self.resources, self.sender, appointment_id, **who)
        clients = {self.sender.identity: resources.clients.default}
        taken = claiming.take(resources, most=1, clients=clients, command_id=command_id)
        for order in taken.orders:
            sending.perform(resources, order.claim, source=order.source)
        self.expect_again()

    def expect_again(self) -> None:
        """Expect the next turn of what was put back into the queue."""
        with self.resources.database.read() as connection:
            found = connection.execute(_PUT_BACK).all()
        for appointment_id, due_at in found:
            if (appointment_id, due_at) not in self.put_back:
                self.put_back.add((appointment_id, due_at))
                self.expect(due_at, self.do, (appointment_id, self.submitted[appointment_id]))

    def recover(self, _: None) -> None:
        """Let recovery look at what is due, and again when more is."""
        next_at = recovery.recover(self.resources).next_at
        self.expect_again()
        if next_at is not None:
            self.expect(next_at, self.recover)

    def resolve(self, appointment_id: str, action: plans.Resolved) -> None:
        """Let an operator decide on what needs attention."""
        waiting = (each for each in operators.attention(self.resources.database))
        found = next((each for each in waiting if each.appointment_id == appointment_id), None)
        if found is not None:
            operators.resolve(
                self.resources,
                found.command_id,
                resolution=action.resolution,
                reason_code=action.reason_code,
                actor=action.actor,
            )

    def client_in_trouble(self, trouble: plans.Trouble) -> ZocdocClient:
        """Make a client that waits only so long, that reaches nobody, or whose 429 concerns nobody else."""
        if trouble is plans.Trouble.UNREACHABLE:
            return self.client(f"http://127.0.0.1:{self.nobody.getsockname()[1]}")
        return self.client(self.base_url, **({"timeout": _PATIENCE} if trouble in plans.SILENCES else {}))

    def client(self, base_url: str, **limits: float) -> ZocdocClient:
        """Make a client."""
        return standin.Client(base_url=base_url, access_token=self.token, **limits)  # type: ignore[arg-type] # numbers only


def _counted(database: databases.Database, started: float) -> Summary:
    with database.read() as connection:
        counts = [
            connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one() for table in making.TABLES
        ]
    names = ("appointments", "batches", "commands", "deliveries", "events")
    return Summary(**dict(zip(names, counts, strict=True)), seconds=round(time.monotonic() - started, 3))


_QUEUED: Final = sa.select(models.commands.c.command_id).where(
    models.commands.c.appointment_id == sa.bindparam("id"), models.state_in(models.CommandState.QUEUED)
)
_PUT_BACK: Final = sa.select(models.commands.c.appointment_id, models.commands.c.due_at).where(
    models.state_in(models.CommandState.QUEUED), models.commands.c.attempt > 0
)
_EXPECTED: Final = (
    errors.TransitionRefused,
    errors.CommandRejected,
    errors.NotSent,
    errors.OutcomeUnknown,
    errors.ReadFailed,
)
_OWN_CLIENT: Final = plans.SILENCES | {plans.Trouble.UNREACHABLE, plans.Trouble.BUSY}
