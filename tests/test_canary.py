"""Planted secrets and words of patients, through every path there is: found nowhere but where they belong.

They belong on the wire, in `lifecycle_commands.payload` while the command is active, and in
`lifecycle_appointments.developer_patient_id`. Nowhere else: not in a log line of anybody at DEBUG level, not in an
error, a record, a trace of either, the trail, or what the command line prints.
"""

from __future__ import annotations

import io
import itertools
import json
import logging
import os
import pickle
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from lifecycle import Lifecycle, LifecycleError, ZocdocClient, settings, zocdoc
from lifecycle.cli.main import root
from lifecycle.zocdoc import errors as zocdoc_errors
from tests import support
from tests.exhaustive.faults import READS, REMOTE, Recipe
from tests.exhaustive.soak import in_memory
from tests.exhaustive.stories import LEASE_OVER
from tests.exhaustive.world import Worker, World
from tests.support import ACTOR, OPERATIONS, arm

if TYPE_CHECKING:
    from collections.abc import Iterator

WORD = "CANARY"
SECRET = "CANARY-client-secret"
REASON = "CANARY reason: Jane Doe, née 1970, cannot walk"
NOTES = "CANARY notes: Jane Doe is afraid of needles"
OTHER = f"{REASON}, and more"
PATIENT = "CANARY-patient-4711"
MESSAGE = "CANARY message: Jane Doe (born 1970-01-01) has no such appointment"
ERROR = json.dumps(
    {
        "request_id": "rq-77",
        "error_type": f"{MESSAGE}",
        "errors": [{"message": MESSAGE, "field": f"patient {MESSAGE}"}, {"message": MESSAGE, "field": MESSAGE}],
        "data": {"appointment_id": MESSAGE, "appointment_status": f"{MESSAGE}\n", "notes": NOTES},
    }
)
FORMS = ("table", "json", "jsonl", "csv")
ALLOWED_COLUMNS = {("lifecycle_appointments", "developer_patient_id"), ("lifecycle_commands", "payload")}


@dataclass(slots=True)
class Net:
    """Catches all that is shown: log records, errors, records and what is printed."""

    texts: list[tuple[str, str]] = field(default_factory=list)
    tokens: set[str] = field(default_factory=set)

    def show(self, where: str, *values: object) -> None:
        """Catch everything that a log, a debugger's page or a crash report would show of a value."""
        for value in values:
            shown = [str(value), repr(value), f"{value}"]
            if isinstance(value, BaseException):
                shown += [*traceback.format_exception(value), repr(value.args), repr(vars(value))]
            if isinstance(value, (BaseException, tuple, list)) or hasattr(value, "__dataclass_fields__"):
                shown.append(repr(pickle.dumps(value)))
            self.texts += [(where, text) for text in shown]

    def leaks(self) -> list[tuple[str, str]]:
        """Give what was caught and should not have been there: where, and the text around it."""
        found = []
        for (where, text), word in itertools.product(self.texts, (WORD, "Jane", *self.tokens)):
            at = text.find(word)
            if at >= 0:
                found.append((where, text[max(0, at - 100) : at + 60]))
        return found


class _Everything(logging.Handler):
    """Keeps every record as text: message, arguments, extra fields and traceback."""

    def __init__(self, net: Net) -> None:
        super().__init__(logging.DEBUG)
        self._net = net

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a record."""
        trouble = "".join(traceback.format_exception(*record.exc_info)) if record.exc_info else ""
        facts = {name: value for name, value in vars(record).items() if name not in {"exc_info", "args"}}
        self._net.texts.append((f"log {record.name}", f"{record.getMessage()} {record.args!r} {facts!r} {trouble}"))


@pytest.fixture
def net() -> Iterator[Net]:
    """Listen to every logger at DEBUG level; SQLAlchemy's statements too."""
    caught = Net()
    handler = _Everything(caught)
    names = (None, "lifecycle", "urllib3", "requests", "sqlalchemy", "sqlalchemy.engine", "sqlalchemy.pool", "alembic")
    loggers = [logging.getLogger(name) for name in names]
    before = [each.level for each in loggers]
    for each in loggers:
        each.setLevel(logging.DEBUG)
    logging.getLogger().addHandler(handler)
    yield caught
    logging.getLogger().removeHandler(handler)
    for each, level in zip(loggers, before, strict=True):
        each.setLevel(level)


@pytest.fixture
def world(net: Net) -> Iterator[World]:  # noqa: ARG001 # engines look at the loggers when they are made
    """Give a world whose client secret is a canary."""
    with in_memory() as folder, World(Path(folder)) as made:
        made.stage.tokens._clients["canary-client"] = SECRET
        made.main = made.client(client_id="canary-client", client_secret=SECRET)
        yield made
        made.main.close()


def appointment(world: World, **more: Any) -> str:
    """Make an appointment that is full of patient data, and track it."""
    details: dict[str, Any] = {"status": "confirmed", "notes": NOTES, "developer_patient_id": PATIENT} | more
    appointment_id = world.stage.add(**details)
    world.workers[0].product.track(appointment_id, actor=ACTOR, booked_with=details.get("booked_by", "machine"))
    return appointment_id


def attempt(net: Net, where: str, call: Any) -> Any:
    """Make a call and catch what it gives or raises."""
    try:
        result = call()
    except (LifecycleError, zocdoc_errors.ZocdocError) as error:
        result = error
    net.show(where, result)
    return result


def cancel(product: Lifecycle, appointment_id: str, **more: Any) -> Any:
    """Cancel with a text of the patient's."""
    given: dict[str, Any] = {"actor": ACTOR, "reason_type": "other_patient_reason", "reason": REASON}
    return product.cancel(appointment_id, **(given | more))


def serve(world: World, recipe: Recipe, operation: str) -> None:
    """Arm a fault of the exhaustive matrix; where it answers with an error, that error quotes patient data."""
    for each in recipe.arm:
        quoted = {"body": ERROR} if each.get("kind") == "answer" and "body" not in each else {}
        if each.get("kind") == "foreign_id":
            quoted = {"value": MESSAGE}
        arm(world.stage, operation=recipe.operation or operation, **(dict(each) | quoted))


def client_for(world: World, recipe: Recipe) -> ZocdocClient:
    """Give the client that a fault is made with."""
    if recipe.client == "cold":
        return world.client(client_id="canary-client", client_secret=SECRET)
    client: ZocdocClient = getattr(world, recipe.client)
    return client


def stored(world: World) -> dict[tuple[str, str], int]:
    """Look through every column of every table: where canaries are, and how often."""
    found: dict[tuple[str, str], int] = {}
    for table in [row["name"] for row in world.rows("SELECT name FROM sqlite_master WHERE type = 'table'")]:
        for row in world.rows(f"SELECT * FROM {table}"):  # noqa: S608 # names of our own tables
            for column, value in row.items():
                if WORD in str(value) or "Jane" in str(value):
                    found[table, column] = found.get((table, column), 0) + 1
    return found


def at_ease(world: World) -> Worker:
    """Take every fault back and give the first worker."""
    world.stage.faults.clear()
    world.clock.skip(10.0)
    worker = world.workers[0]
    worker.use(world.main)
    return worker


def recover(world: World, net: Net, where: str) -> None:
    """Recover to the end, time skipped, and catch what it tells."""
    for _ in range(12):
        world.clock.skip(LEASE_OVER)
        recovery = world.workers[1].product.recover()
        net.show(where, recovery, *recovery.settled)
        if not recovery.waiting:
            return
    raise AssertionError("recovery comes to no end")


def test_no_path_of_a_command_leaks(world: World, net: Net) -> None:
    """Each fault of the remote at a cancel full of patient data, then recovery and all readers: nothing shows."""
    for name, recipe in REMOTE.items():
        worker = at_ease(world)
        appointment_id = appointment(world)
        worker.use(client_for(world, recipe))
        serve(world, recipe, "cancel")
        attempt(net, name, lambda it=worker, of=appointment_id: cancel(it.product, of, request_key=of))
        world.stage.release()
        at_ease(world)
        recover(world, net, f"recovery of {name}")
        product = world.workers[2].product
        attempt(net, f"repeat of {name}", lambda it=product, of=appointment_id: cancel(it, of, request_key=of))
        attempt(net, "other text", lambda it=product, of=appointment_id: cancel(it, of, request_key=of, reason=OTHER))
        net.show(f"readers of {name}", product.get(appointment_id), *product.history(appointment_id))
        net.show(f"checks of {name}", *product.explain(appointment_id, "cancel"))
    net.show("attention", *world.workers[2].product.attention())
    net.tokens |= set(world.stage.tokens._live)
    assert len(net.tokens) > 3
    assert any(where.startswith("log sqlalchemy.engine") for where, _ in net.texts)
    assert any(where.startswith("log urllib3") for where, _ in net.texts)
    assert net.leaks() == []
    assert set(stored(world)) == {("lifecycle_appointments", "developer_patient_id")}


def test_no_fault_of_a_read_leaks(world: World, net: Net) -> None:
    """Each fault of a read, in tracking, in following and in recovery."""
    for name, recipe in READS.items():
        worker = at_ease(world)
        appointment_id = appointment(world)
        arm(world.stage, kind="reset", operation="cancel")
        attempt(net, "lost", lambda it=worker, of=appointment_id: cancel(it.product, of))
        client = client_for(world, recipe)
        worker.use(client)
        for call in (
            lambda it=worker: it.product.track(world.stage.add(notes=NOTES), actor=ACTOR),
            lambda it=worker, of=appointment_id: it.product.track(of, actor=ACTOR),
            lambda it=client, of=appointment_id: it.get(of) and None,
            lambda it=client: next(iter(it.list(developer_patient_id=PATIENT)), None) and None,
        ):
            at_ease(world).use(client)
            serve(world, recipe, "get")
            serve(world, recipe, "list")
            attempt(net, f"read {name}", call)
        at_ease(world)
        world.workers[1].use(client if recipe.client != "refused" else world.main)
        serve(world, recipe, "get")
        recover(world, net, f"recovery under {name}")
    net.show("attention", *world.workers[2].product.attention())
    net.tokens |= set(world.stage.tokens._live)
    assert net.leaks() == []
    assert set(stored(world)) <= {("lifecycle_appointments", "developer_patient_id")}


@pytest.mark.parametrize("command", ["confirm", "reschedule", "mark_arrived", "mark_no_show"])
def test_no_other_command_leaks(world: World, net: Net, command: str) -> None:
    """The other commands carry no text, but what Zocdoc answers them with does."""
    worker = at_ease(world)
    for fault in (
        None,
        {"kind": "answer", "status": 400, "body": ERROR},
        {"kind": "answer", "status": 500, "body": ERROR},
    ):
        appointment_id = appointment(world, status="pending_booking")
        if fault is not None:
            arm(world.stage, operation=OPERATIONS[command], **fault)
        attempt(net, command, lambda of=appointment_id: support.send(worker.product, command, of))
        recover(world, net, command)
    net.tokens |= set(world.stage.tokens._live)
    assert net.leaks() == []


def test_the_text_is_stored_only_while_the_command_is_active(world: World, net: Net) -> None:
    """While in doubt the reason is in the payload, for nobody else to see; once it needs a human it is gone."""
    worker = at_ease(world)
    appointment_id = appointment(world)
    arm(world.stage, kind="reset", operation="cancel")
    attempt(net, "lost", lambda: cancel(worker.product, appointment_id, request_key="k"))
    assert set(stored(world)) == ALLOWED_COLUMNS
    world.stage.change(appointment_id)
    recover(world, net, "recovery")
    [found] = worker.product.attention()
    assert set(stored(world)) == {("lifecycle_appointments", "developer_patient_id")}
    for resolution in ("retry", "applied"):
        arm(world.stage, kind="answer", operation="cancel", status=500, body=ERROR)
        attempt(
            net,
            resolution,
            lambda how=resolution: worker.product.resolve(
                found.command_id, resolution=how, reason_code="looked", actor="user:1"
            ),
        )
        world.stage.change(appointment_id)
        recover(world, net, resolution)
    sent = [entry.raw.decode() for entry in world.stage.ledger.entries(operation="cancel")]
    assert ["Jane" in raw for raw in sent] == [True, False]
    assert net.leaks() == []


def test_wrong_arguments_are_not_quoted(world: World, net: Net) -> None:
    """A patient's word in the wrong place comes back to nobody."""
    product = at_ease(world).product
    appointment_id = appointment(world)
    calls = (
        lambda: product.cancel(appointment_id, actor=ACTOR, reason_type=REASON),
        lambda: product.cancel(appointment_id, actor=ACTOR, reason=f"{REASON}\0"),
        lambda: product.cancel(REASON, actor=ACTOR),
        lambda: product.cancel(appointment_id, actor=f"{REASON}\n"),
        lambda: product.cancel(appointment_id, actor=ACTOR, request_key=f"{REASON}\n"),
        lambda: product.reschedule(appointment_id, actor=ACTOR, start_time=REASON),
        lambda: product.track(REASON, actor=ACTOR),
        lambda: product.track(appointment_id, actor=ACTOR, booked_with=REASON),
        lambda: product.explain(appointment_id, REASON),
        lambda: product.resolve("x", resolution=REASON, reason_code="looked", actor=ACTOR),
        lambda: product.resolve("x", resolution="applied", reason_code=REASON, actor=ACTOR),
        lambda: world.main.get(REASON),
        lambda: world.main.cancel(REASON),
    )
    for call in calls:
        result = attempt(net, "argument", call)
        assert isinstance(result, (LifecycleError, zocdoc_errors.ZocdocError))
    assert net.leaks() == []


def test_objects_do_not_show_what_they_hold(world: World, net: Net) -> None:
    """The client, its settings, its parts and a reading keep secrets and patients out of their texts."""
    appointment_id = appointment(world)
    client = world.main
    reading = client.get(appointment_id)
    assert reading.appointment.notes == NOTES
    net.texts += [("client", f"{each!s} {each!r}") for each in (client, reading, reading.appointment)]
    net.texts.append(("vars", repr(vars(client)) + repr(vars(client._calls)) + repr(client._calls._tokens)))
    given = {
        "LIFECYCLE_ZOCDOC_ENVIRONMENT": "sandbox",
        "LIFECYCLE_ZOCDOC_CLIENT_ID": "canary-client",
        "LIFECYCLE_ZOCDOC_CLIENT_SECRET": SECRET,
    }
    net.show("settings", repr(settings.zocdoc(given)))
    for wrong in ({"client_secret": SECRET}, {"access_token": f"{SECRET}\n"}, {"base_url": f"http://u:{SECRET}@h/"}):
        options: dict[str, Any] = {"base_url": world.server.base_url} | wrong
        with pytest.raises(zocdoc.InvalidConfiguration) as caught:
            ZocdocClient(**options)
        net.show("configuration", caught.value)
    net.tokens |= set(world.stage.tokens._live)
    assert net.leaks() == []


def test_pickles_of_what_the_library_gives_hold_no_patient(world: World, net: Net) -> None:
    """What may be put into a queue or a cache, byte by byte; and it comes back as it was."""
    worker = at_ease(world)
    appointment_id = appointment(world)
    done = cancel(worker.product, appointment_id, request_key="k")
    records = [done, worker.product.get(appointment_id), *worker.product.history(appointment_id)]
    for record in records:
        assert pickle.loads(pickle.dumps(record)) == record  # noqa: S301 # our own
    net.show("records", *records)
    assert net.leaks() == []


def invoke(world: World, net: Net, *arguments: str, **more: str) -> Any:
    """Run the command line in this process, with tracebacks on, and catch all it prints."""
    blank: dict[str, str | None] = {name: None for name in os.environ if name.startswith("LIFECYCLE_")}
    environ: dict[str, str | None] = {
        **blank,
        "LIFECYCLE_DATABASE_URL": world.url,
        "LIFECYCLE_ZOCDOC_BASE_URL": world.server.base_url,
        "LIFECYCLE_ZOCDOC_TOKEN_URL": world.server.token_url,
        "LIFECYCLE_ZOCDOC_CLIENT_ID": "canary-client",
        "LIFECYCLE_ZOCDOC_CLIENT_SECRET": SECRET,
        "LIFECYCLE_DEBUG": "1",
        **more,
    }
    result = CliRunner().invoke(root, arguments, env=environ, prog_name="lifecycle")
    net.texts.append((f"cli {' '.join(arguments)[:60]}", result.output + result.stderr))
    return result


def test_the_command_line_prints_no_patient(world: World, net: Net) -> None:
    """Every command in every format, with tracebacks switched on: data, words and errors hold no canary."""
    worker = at_ease(world)
    applied, lost = appointment(world), appointment(world)
    words = ("--actor", ACTOR, "--reason-type", "other_patient_reason", "--reason", REASON)
    assert invoke(world, net, "cancel", applied, *words, "--format", "json").exit_code == 0
    arm(world.stage, kind="reset", operation="cancel")
    assert invoke(world, net, "cancel", lost, *words).exit_code == 5
    world.stage.change(lost)
    recover(world, net, "recovery")
    [found] = worker.product.attention()
    for form in FORMS:
        for arguments in (
            ("show", applied),
            ("list",),
            ("history", applied),
            ("history", lost),
            ("explain", applied, "cancel"),
            ("attention",),
            ("recover",),
            ("track", applied, "--actor", ACTOR),
        ):
            result = invoke(world, net, *arguments, "--format", form)
            assert result.exit_code == 0, result.output
        arm(world.stage, kind="answer", operation="cancel", status=400, body=ERROR)
        assert invoke(world, net, "cancel", appointment(world), *words, "--format", form).exit_code == 5
    refused: tuple[tuple[tuple[str, ...], int], ...] = (
        (("resolve", found.command_id, "--as", "retry", "--reason-code", REASON), 2),
        (("resolve", found.command_id, "--as", "rejected", "--reason-code", "looked"), 0),
        (("cancel", applied, *words), 3),
        (("cancel", "a", *words), 4),
        (("cancel", applied, "--reason-type", REASON), 2),
        (("reschedule", applied, "--start-time", REASON), 2),
        (("show", REASON), 2),
        (("track", applied, "--booked-with", "user:1"), 3),
    )
    for given, code in refused:
        result = invoke(world, net, *given)
        assert result.exit_code == code, (given, result.output)
    for status in (400, 401, 403, 404, 500):
        arm(world.stage, kind="answer", operation="get", status=status, times=3, body=ERROR)
        assert invoke(world, net, "track", world.stage.add(notes=NOTES)).exit_code != 0
        world.stage.faults.clear()
    net.tokens |= set(world.stage.tokens._live)
    assert net.leaks() == []


def test_a_shown_appointment_has_no_patient_id(world: World, net: Net) -> None:
    """The developer's own patient id is stored for joins in SQL; no record and no format carries it."""
    appointment_id = appointment(world)
    assert stored(world) == {("lifecycle_appointments", "developer_patient_id"): 1}
    for form in FORMS:
        for arguments in (("show", appointment_id), ("list",)):
            result = invoke(world, net, *arguments, "--format", form)
            assert appointment_id in result.stdout
            assert "developer_patient_id" not in result.stdout
    shown = json.loads(invoke(world, net, "show", appointment_id, "--format", "json").stdout)
    assert shown["appointment_id"] == appointment_id
    assert not [name for name in shown if "patient" in name]
    assert net.leaks() == []


def test_an_unexpected_error_shows_its_type_alone(world: World, net: Net, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without tracebacks the command line names the type of an error that nobody foresaw, never its text."""

    def fails(*_: object, **__: object) -> None:
        raise RuntimeError(MESSAGE)

    appointment_id = appointment(world)
    monkeypatch.setattr(Lifecycle, "get", fails)
    result = invoke(world, net, "show", appointment_id, LIFECYCLE_DEBUG="0")
    assert (result.exit_code, "RuntimeError" in result.output) == (1, True)
    assert net.leaks() == []


def test_the_net_catches(net: Net) -> None:
    """The test itself is not blind: a log record, an error's cause and a printed line with a canary are found."""
    logging.getLogger("lifecycle.somewhere").debug("told", extra={"patient": PATIENT})
    net.show("error", ValueError(NOTES))
    net.texts.append(("printed", io.StringIO(MESSAGE).getvalue()))
    assert {where for where, _ in net.leaks()} == {"log lifecycle.somewhere", "error", "printed"}
