"""The public interface against a model that is a handful of dicts, in random stories that hypothesis makes up.

The model is written from the design, not from the code: who may do what, what an answer means, what reading can tell.
Where the design leaves two ends open (somebody touched the appointment, so that reading may or may not explain it), the
model allows both and takes over the one that came about. The remote's own truth is read from the stand-in.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import pytest
from hypothesis import HealthCheck, configuration, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from lifecycle import (
    CommandInProgress,
    CommandRejected,
    Done,
    LifecycleError,
    NothingToResolve,
    NotSent,
    OutcomeUnknown,
    RequestKeyReused,
    TransitionRefused,
)
from tests.exhaustive.soak import in_memory
from tests.exhaustive.stories import LEASE_OVER
from tests.exhaustive.world import World
from tests.support import ACTOR, ALLOWED, COMMANDS, NOT_ARRIVABLE, OPERATIONS, STATUSES, arm, send

if TYPE_CHECKING:
    from lifecycle import Lifecycle

EXAMPLES = 60
STEPS = 40
STARTS = ("2031-03-01T09:00:00-05:00", "2031-03-02T10:30:00+00:00")
TARGETS = {"confirm": "confirmed", "cancel": "cancelled", "mark_no_show": "no_show"}
WEATHER: dict[str, dict[str, Any] | None] = {
    "fair": None,
    "reset_before": {"kind": "reset"},
    "reset_after": {"kind": "reset", "when": "after"},
    "500_before": {"kind": "answer", "status": 500},
    "502_after": {"kind": "answer", "status": 502, "when": "after"},
    "truncated": {"kind": "truncate"},
    "foreign": {"kind": "foreign_id"},
    "400": {"kind": "answer", "status": 400},
    "403": {"kind": "answer", "status": 403},
    "422": {"kind": "answer", "status": 422},
    "429": {"kind": "answer", "status": 429, "times": 10**6},
}
REFUSALS = {"400", "403", "422"}
"""Weather in which Zocdoc says no; only a 400 to a reschedule makes us read."""

OPEN = ("pending_booking", "confirmed", "pending_reschedule", "rescheduled")
"""Statuses from which there is much to do; hypothesis is given them more often than the others."""

PROVIDER: tuple[dict[str, Any], ...] = (
    *({"status": status} for status in (*STATUSES, *OPEN, *OPEN)),
    *({"start_time": start} for start in STARTS),
    {},
    {"status": "waitlisted"},
)
LOST = ("reset_after", "reset_before", "truncated", "502_after")
indexes = st.integers(min_value=0, max_value=2)
numbers = st.integers(min_value=0, max_value=9)
Facts = tuple[str, datetime]


@dataclass(slots=True)
class Command:
    """A command as the model knows it; `baseline` is what was known here before it.

    `left_after` counts the reads of its appointment up to the one that left it to a human.
    """

    command_id: str
    command: str
    key: str | None
    start: str | None
    state: str
    baseline: Facts
    left_after: int = 0

    @property
    def target_start(self) -> datetime | None:
        """The start that a reschedule asks for."""
        return None if self.start is None else datetime.fromisoformat(self.start)


@dataclass(slots=True)
class Appointment:
    """An appointment as the model knows it: what is known here, and the commands in order."""

    appointment_id: str
    known: Facts
    read: datetime | None = None
    reads: int = 0
    arrived: bool = False
    commands: list[Command] = field(default_factory=list)
    sent: int = 0

    def of(self, *states: str) -> list[Command]:
        """Give the commands in these states."""
        return [each for each in self.commands if each.state in states]


class Model(RuleBasedStateMachine):
    """Three appointments, every command, all kinds of weather, a provider, an operator, and recovery."""

    world: ClassVar[World]

    @initialize(
        statuses=st.tuples(*[st.sampled_from((*OPEN, *OPEN, *STATUSES))] * 3), past=st.tuples(*[st.booleans()] * 3)
    )
    def begin(self, statuses: tuple[str, ...], past: tuple[bool, ...]) -> None:
        """Track three appointments."""
        self.product: Lifecycle = self.world.workers[0].product
        self.keys = 0
        self.rows: list[Appointment] = []
        yesterday = (self.world.clock.now() - timedelta(days=1)).isoformat(timespec="seconds")
        for status, is_past in zip(statuses, past, strict=True):
            appointment_id = self.world.stage.add(status=status, start_time=yesterday if is_past else STARTS[0])
            self.product.track(appointment_id, actor=ACTOR)
            row = Appointment(appointment_id, self._there(appointment_id))
            self._read(row)
            self.rows.append(row)

    @rule(index=indexes, change=st.sampled_from(PROVIDER))
    def provider_changes(self, index: int, change: dict[str, Any]) -> None:
        """The provider changes the appointment; nobody tells us."""
        self.world.stage.change(self.rows[index].appointment_id, **change)

    @rule(index=indexes)
    def track(self, index: int) -> None:
        """Follow Zocdoc: what it says is known here, unless a command is active."""
        row = self.rows[index]
        self.product.track(row.appointment_id, actor=ACTOR)
        self._follow(row)

    @rule(index=indexes, number=numbers, start=st.sampled_from(STARTS), has_key=st.booleans())
    def send(self, index: int, number: int, start: str, *, has_key: bool) -> None:
        """Give a command that is allowed, if one is, in fair weather."""
        self._command(index, self._allowed(index, number), "fair", start, has_key=has_key)

    @rule(index=indexes, number=numbers, weather=st.sampled_from(LOST), start=st.sampled_from(STARTS))
    def lose(self, index: int, number: int, weather: str, start: str) -> None:
        """Give a command that is allowed, if one is, and lose its answer."""
        self._command(index, self._allowed(index, number), weather, start, has_key=True)

    @rule(index=indexes, number=numbers, weather=st.sampled_from(LOST), start=st.sampled_from(STARTS))
    def lose_and_recover(self, index: int, number: int, weather: str, start: str) -> None:
        """Lose an answer, and find it again at once."""
        self.lose(index, number, weather, start)
        if self._has("uncertain"):
            self._recover(reads_fail=False)

    @rule(
        index=indexes,
        command=st.sampled_from(COMMANDS),
        weather=st.sampled_from(sorted(WEATHER)),
        start=st.sampled_from(STARTS),
        has_key=st.booleans(),
    )
    def send_in_any_weather(self, index: int, command: str, weather: str, start: str, *, has_key: bool) -> None:
        """Give a command, whatever becomes of it."""
        self._command(index, command, weather, start, has_key=has_key)

    def _allowed(self, index: int, number: int) -> str:
        """Choose among the commands that are allowed now, among all if none is."""
        row = self.rows[index]
        found = [command for command in COMMANDS if self._refusal(row, command) is None] or list(COMMANDS)
        return found[number % len(found)]

    def _command(self, index: int, command: str, weather: str, start: str, *, has_key: bool) -> None:
        row = self.rows[index]
        self.keys += has_key
        key = f"{row.appointment_id}/{self.keys}" if has_key else None
        if row.of("needs_attention") and not row.of("uncertain"):
            self._follow(row)
        expected = self._refusal(row, command)
        heard = self._send(row, command, start, key, weather)
        if expected is not None:
            assert type(heard) is expected, heard
            return
        assert not isinstance(heard, TransitionRefused), heard
        self._learn(row, self._made(row, command, key, start), heard, weather)

    @precondition(lambda self: any(each.key for row in getattr(self, "rows", []) for each in row.commands))
    @rule(index=indexes, number=numbers, other=st.booleans())
    def repeat(self, index: int, number: int, *, other: bool) -> None:
        """Call again with a key that was used: the first outcome, or a new attempt after one that was not sent."""
        row = self.rows[index]
        keyed = [each for each in row.commands if each.key is not None]
        if not keyed:
            return
        first = keyed[number % len(keyed)]
        if [each for each in keyed if each.key == first.key and each.state != "not_sent"] != [first]:
            return
        if other and first.command == "reschedule":
            heard = self._send(row, "reschedule", "2032-01-01T00:00:00Z", first.key, "fair")
            assert isinstance(heard, RequestKeyReused), heard
            return
        heard = self._send(row, first.command, first.start or STARTS[0], first.key, "fair")
        expected = {"applied": Done, "rejected": CommandRejected}.get(first.state, OutcomeUnknown)
        assert isinstance(heard, expected), (first, heard)
        assert getattr(heard, "command_id", None) == first.command_id

    @precondition(lambda self: self._has("uncertain"))
    @rule()
    def recover(self) -> None:
        """Recover to the end."""
        self._recover(reads_fail=False)

    @precondition(lambda self: self._has("uncertain"))
    @rule()
    def recover_blindly(self) -> None:
        """Recover while no read comes through: then a human is asked."""
        self._recover(reads_fail=True)

    def _recover(self, *, reads_fail: bool) -> None:
        before = {row.appointment_id: self._there(row.appointment_id) for row in self.rows}
        if reads_fail:
            arm(self.world.stage, kind="answer", operation="get", status=500, times=10**6)
        for _ in range(8):
            self.world.clock.skip(LEASE_OVER)
            if not self.product.recover().waiting:
                break
        self.world.stage.faults.clear()
        for row in self.rows:
            for command in row.of("uncertain"):
                self._settle(row, command, before[row.appointment_id], reads_fail=reads_fail)

    @precondition(lambda self: self._has("needs_attention"))
    @rule(index=indexes, number=numbers, resolution=st.sampled_from(["applied", "rejected"]))
    def decide(self, index: int, number: int, resolution: str) -> None:
        """An operator decides about a command that needs attention."""
        row, command = self._doubtful(index, number)
        assert self._resolve(command, resolution) is None
        if resolution == "applied":
            self._believe(row, command)
        command.state = resolution

    @precondition(lambda self: self._has("needs_attention"))
    @rule(index=indexes, number=numbers)
    def retry(self, index: int, number: int) -> None:
        """An operator has a command sent once more: it is read first, and checked again."""
        row, command = self._doubtful(index, number)
        self._follow(row)
        expected = self._refusal(row, command.command)
        before, baseline = len(self._calls(row)), row.known
        heard = self._resolve(command, "retry")
        made = len(self._calls(row)) - before
        row.sent += made
        if expected is not None:
            assert type(heard) is expected, heard
            assert made == 0
            return
        assert made == 1
        command.baseline = baseline
        self._learn_fair(row, command, heard, effect=self._calls(row)[-1].effect)

    def _doubtful(self, index: int, number: int) -> tuple[Appointment, Command]:
        rows = [row for row in self.rows if row.of("needs_attention")]
        row = rows[index % len(rows)]
        found = row.of("needs_attention")
        return row, found[number % len(found)]

    @precondition(lambda self: any(row.commands for row in getattr(self, "rows", [])))
    @rule(index=indexes, number=numbers)
    def resolve_what_is_settled(self, index: int, number: int) -> None:
        """What does not need a human cannot be decided."""
        row = self.rows[index]
        settled = [each for each in row.commands if each.state != "needs_attention"]
        if settled:
            command = settled[number % len(settled)]
            heard = self._resolve(command, "rejected")
            assert isinstance(heard, NothingToResolve), heard
            assert heard.state == command.state

    @invariant()
    def here_is_what_the_model_says(self) -> None:
        """Compare status, start, arrival, doubt, commands, calls and the trail."""
        for row in getattr(self, "rows", []):
            seen = self.product.get(row.appointment_id)
            assert (seen.status, seen.start_time.astimezone(UTC)) == row.known
            assert (seen.arrived_at is not None) == row.arrived
            assert seen.in_doubt == bool(row.of("uncertain", "needs_attention"))
            assert seen.status_known == (seen.status in STATUSES)
            stored = self._stored(row)
            assert {each.command_id: each.state for each in row.commands} == stored
            assert len(self._calls(row)) == row.sent
            history = self.product.history(row.appointment_id)
            assert [each.appointment_seq for each in history] == list(range(1, len(history) + 1))
            assert [each.from_status for each in history] == [None, *(each.to_status for each in history[:-1])]
            assert history[-1].to_status == seen.status

    @invariant()
    def attention_is_what_the_model_says(self) -> None:
        """The operator's list has what needs attention, and nothing else."""
        rows = getattr(self, "rows", [])
        mine = {row.appointment_id for row in rows}
        listed = (
            {each.command_id for each in self.product.attention() if each.appointment_id in mine} if rows else set()
        )
        assert listed == {each.command_id for row in rows for each in row.of("needs_attention")}

    def _has(self, state: str) -> bool:
        return any(row.of(state) for row in getattr(self, "rows", []))

    def _send(self, row: Appointment, command: str, start: str, key: str | None, weather: str) -> Any:
        given = {"start_time": start} if command == "reschedule" else {}
        fault = WEATHER[weather]
        if fault is not None:
            arm(self.world.stage, operation=OPERATIONS[command], **fault)
        before = len(self._calls(row))
        try:
            return send(self.product, command, row.appointment_id, request_key=key, **given)
        except LifecycleError as error:
            return error
        finally:
            self.world.stage.faults.clear()
            self.world.clock.skip(10.0)  # the pause that a 429 imposes on all
            made = len(self._calls(row)) - before
            assert made <= 1 or weather == "429"
            row.sent += made

    def _refusal(self, row: Appointment, command: str) -> type[LifecycleError] | None:
        """Say by which error the command must be refused; None: it must not."""
        if row.of("uncertain"):
            return CommandInProgress
        status, start = row.known
        age = self.world.clock.now() - start
        in_window = timedelta(0) < age <= timedelta(days=2)
        is_allowed = status in ALLOWED[command] and (command != "mark_no_show" or in_window)
        return None if is_allowed else TransitionRefused

    def _made(self, row: Appointment, command: str, key: str | None, start: str) -> Command:
        """Note a command that was accepted; its id is in the database."""
        [command_id] = set(self._stored(row)) - {each.command_id for each in row.commands}
        made = Command(
            command_id=command_id,
            command=command,
            key=key,
            start=start if command == "reschedule" else None,
            state="sending",
            baseline=row.known,
        )
        row.commands.append(made)
        return made

    def _learn(self, row: Appointment, command: Command, heard: Any, weather: str) -> None:
        """Take over what an attempt came to, after checking that the weather explains it."""
        effect = self._calls(row)[-1].effect if row.sent else False
        if weather == "429":
            assert isinstance(heard, NotSent), heard
            command.state = "not_sent"
        elif weather in REFUSALS:
            assert isinstance(heard, CommandRejected), heard
            command.state = "rejected"
            if weather == "400" and command.command == "reschedule":
                self._read(row)
        elif weather != "fair":
            answered = self._calls(row)[-1].answered
            if weather in {"foreign", "truncated"} and not effect:
                # The stand-in said no; half a no is a no, and a foreign one has no id to be foreign by.
                self._learn_fair(row, command, heard, effect=False)
                return
            assert isinstance(heard, OutcomeUnknown), (heard, answered)
            command.state = "uncertain"
        else:
            self._learn_fair(row, command, heard, effect=effect)

    def _learn_fair(self, row: Appointment, command: Command, heard: Any, *, effect: bool) -> None:
        there = self._there(row.appointment_id)
        if effect:
            assert isinstance(heard, Done), heard
            assert heard.to_status == there[0]
            command.state = "applied"
            row.known = there[0], there[1] if command.command == "reschedule" else row.known[1]
            row.arrived = row.arrived or command.command == "mark_arrived"
        elif TARGETS.get(command.command) == there[0]:
            assert isinstance(heard, Done), heard
            assert heard.reason_code == "already_so"
            command.state = "applied"
            self._read(row)
        else:
            assert isinstance(heard, CommandRejected), heard
            command.state = "rejected"
            if heard.http_status == 409 or command.command == "reschedule":
                self._read(row)

    def _settle(self, row: Appointment, command: Command, there: Facts, *, reads_fail: bool) -> None:
        """Check what recovery made of an uncertain command, and take it over."""
        state = self._stored(row)[command.command_id]
        if reads_fail:
            assert state == "needs_attention"
            command.state, command.left_after = state, row.reads
            return
        assert state in self._findings(row, command, there), (command, there, state)
        command.state = state
        self._read(row)
        command.left_after = row.reads

    def _findings(self, row: Appointment, command: Command, there: Facts) -> set[str]:
        target = TARGETS.get(command.command)
        if target is not None and there[0] == target:
            return {"applied"}
        wanted = command.target_start
        if wanted is not None and there[1] == wanted != command.baseline[1]:
            moved = there[0] in {"rescheduled", "pending_reschedule", command.baseline[0]}
            return {"applied"} if moved else {"needs_attention"}
        is_blind = target is None and wanted in {None, command.baseline[1]}
        if is_blind or there != command.baseline:
            return {"needs_attention"}
        # Whoever touched the appointment since it was last read here: the reads may tell, but need not.
        touched = self.world.stage.appointment(row.appointment_id).modified != row.read
        return {"not_sent", "needs_attention"} if touched else {"not_sent"}

    def _believe(self, row: Appointment, command: Command) -> None:
        """An operator says that it had happened: so it did, unless something was seen since."""
        if command.command == "mark_arrived":
            row.arrived = True
        elif row.known == command.baseline and row.reads == command.left_after:
            row.known = TARGETS.get(command.command, row.known[0]), command.target_start or row.known[1]

    def _resolve(self, command: Command, resolution: str) -> Any:
        try:
            return self.product.resolve(command.command_id, resolution=resolution, reason_code="looked", actor="user:1")
        except LifecycleError as error:
            return error

    def _follow(self, row: Appointment) -> None:
        if not row.of("uncertain"):
            self._read(row)

    def _read(self, row: Appointment) -> None:
        """Know here what is there."""
        row.reads += 1
        row.known = self._there(row.appointment_id)
        row.read = self.world.stage.appointment(row.appointment_id).modified

    def _there(self, appointment_id: str) -> Facts:
        there = self.world.stage.appointment(appointment_id)
        return there.status, there.start.astimezone(UTC)

    def _calls(self, row: Appointment) -> list[Any]:
        found = self.world.stage.ledger.entries(appointment_id=row.appointment_id)
        return [each for each in found if each.method != "GET"]

    def _stored(self, row: Appointment) -> dict[str, str]:
        query = "SELECT command_id, state FROM lifecycle_commands WHERE appointment_id = ?"
        return {each["command_id"]: each["state"] for each in self.world.rows(query, row.appointment_id)}


@pytest.mark.timeout(1800)
def test_the_product_does_what_the_model_says() -> None:
    """Random stories, the same in each run: after every step the database, the calls and the model agree."""
    with in_memory() as folder, World(Path(folder)) as world:
        Model.world = world
        configuration.set_hypothesis_home_dir(folder)  # it would leave a folder beside the tests otherwise
        run_state_machine_as_test(
            Model,
            settings=settings(
                max_examples=EXAMPLES,
                stateful_step_count=STEPS,
                derandomize=True,
                deadline=None,
                database=None,
                suppress_health_check=list(HealthCheck),
            ),
        )
        states = {row["state"] for row in world.rows("SELECT DISTINCT state FROM lifecycle_commands")}
        events = {row["event"] for row in world.rows("SELECT DISTINCT event FROM lifecycle_audit_events")}
    # The stories were not all idle: every end and nearly every event came about.
    assert states >= {"applied", "rejected", "not_sent", "needs_attention"}
    assert events >= {
        "appointment_observed",
        "command_refused",
        "outcome_lost",
        "outcome_checked",
        "attention_needed",
        "command_resolved",
        "command_retried",
        "arrival_marked",
    }


def test_the_model_knows_the_design() -> None:
    """What the model takes for granted: nobody arrives at what does not take place."""
    assert ALLOWED["mark_arrived"] == set(STATUSES) - NOT_ARRIVABLE
