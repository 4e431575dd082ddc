"""The story that `lifecycle demo` tells, through the public interface alone. Every claim is checked as it is made.

The witness is the stand-in's ledger: what was on the wire, and how often a call had an effect.
"""

from __future__ import annotations

import json
import shlex
import shutil
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

import click
import sqlalchemy as sa
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from lifecycle import CommandInProgress, Lifecycle, OutcomeUnknown, TransitionRefused, ZocdocClient, database, schema
from lifecycle.cli import tables
from lifecycle.sandbox import CLIENTS, Fault, Kind, Moment, Sandbox, serve

if TYPE_CHECKING:
    from lifecycle import AuditEvent, Done
    from lifecycle.sandbox import Entry, Server

FIRST: Final = "d04b049a-41b1-4aba-9268-d8973cf72cdd"
SECOND: Final = "63f995c2-49c4-40c8-a93a-140fb32e913b"
"""The two appointments of Zocdoc's guide."""

GUIDE: Final = {
    "confirm": {"appointment_id": FIRST},
    "cancel": {
        "appointment_id": FIRST,
        "cancellation_reason": "string",
        "cancellation_reason_type": "patient_no_longer_needs_appointment",
    },
    "reschedule": {"appointment_id": SECOND, "start_time": "2022-04-27T09:00:00-04:00"},
}
"""The bodies of the guide's three calls, word for word."""

ACTOR: Final = "user:demo"

_RECOVERY_SECONDS: Final = 10.0
"""The first read after a lost answer is due after 2 s; the rest is for a slow machine."""

_SQL: Final = "SELECT appointment_id, event, to_status, outcome FROM lifecycle_audit_events"


def tell(path: Path) -> None:
    """Tell the story on stdout, with the database in a file. Raises `ClickException` where it does not hold."""
    url = sa.URL.create("sqlite", database=str(path))
    sandbox = Sandbox()
    _migrate(url)
    with serve(sandbox) as server, _client(server) as client, Lifecycle(url, zocdoc=client, source="cli") as lifecycle:
        _say(f"A stand-in of Zocdoc at {server.base_url}, a new database in {path}.")
        _track(lifecycle)
        _make_the_guides_calls(lifecycle, sandbox)
        _refuse(lifecycle, sandbox)
        start = _lose_an_answer(lifecycle, sandbox)
        _block(lifecycle)
        _recover(lifecycle, sandbox, start)
        _print_trail(lifecycle)


def tell_what_next(path: Path) -> None:
    """Print commands that query what the demo left behind."""
    where = shlex.quote(f"sqlite:///{path}")
    title("Look around", f"the database is {path}")
    code(f"export LIFECYCLE_DATABASE_URL={where}")
    called = program()
    code(f"{called} list")
    code(f"{called} history {SECOND} --format csv")
    code(f"{called} explain {FIRST} reschedule")
    code(_sql_line(path))


def _migrate(url: sa.URL) -> None:
    made = database.Database(url)
    schema.upgrade(made)
    made.close()


def _client(server: Server) -> ZocdocClient:
    (client_id, client_secret), *_ = CLIENTS.items()
    return ZocdocClient(
        base_url=server.base_url, token_url=server.token_url, client_id=client_id, client_secret=client_secret
    )


def _track(lifecycle: Lifecycle) -> None:
    found = {each: lifecycle.track(each, actor=ACTOR).status for each in (FIRST, SECOND)}
    _expect(found == {FIRST: "pending_booking", SECOND: "pending_reschedule"}, "the guide's appointments were read")
    for appointment_id, status in found.items():
        _say(f"Tracking {appointment_id}, {status}.")


def _make_the_guides_calls(lifecycle: Lifecycle, sandbox: Sandbox) -> None:
    title("1  The guide's three calls", "what was on the wire, and what it moved")
    _show_call(sandbox, lifecycle.confirm(FIRST, actor=ACTOR), "confirmed")
    cancelled = lifecycle.cancel(FIRST, actor=ACTOR, reason="string", reason_type="patient_no_longer_needs_appointment")
    _show_call(sandbox, cancelled, "cancelled")
    moved = lifecycle.reschedule(SECOND, actor=ACTOR, start_time="2022-04-27T09:00:00-04:00")
    _show_call(sandbox, moved, "rescheduled")


def _show_call(sandbox: Sandbox, done: Done, expected: str) -> None:
    (entry,) = sandbox.ledger.entries(operation=done.command, appointment_id=done.appointment_id)
    _expect(entry.body == GUIDE[done.command] and entry.answered == 200, f"{done.command} went out as in the guide")  # noqa: PLR2004 # HTTP OK
    _expect(done.to_status == expected, f"{done.command} was answered with {expected}")
    code(f"{entry.method} {entry.path}")
    code(json.dumps(entry.body, indent=2))
    _good(f"{done.from_status} -> {done.to_status}")


def _refuse(lifecycle: Lifecycle, sandbox: Sandbox) -> None:
    title("2  A refusal", "confirming the cancelled one")
    before = len(sandbox.ledger.entries())
    try:
        lifecycle.confirm(FIRST, actor=ACTOR)
    except TransitionRefused as refusal:
        calls = len(sandbox.ledger.entries()) - before
        _expect(refusal.reasons == ("status_not_allowed",) and calls == 0, "the refusal made no call")
        _good(f"refused in status {refusal.status}: {', '.join(refusal.reasons)}; HTTP calls made: {calls}")
    else:
        _fail("confirming a cancelled appointment was refused")


def _lose_an_answer(lifecycle: Lifecycle, sandbox: Sandbox) -> str:
    title("3  A lost answer", "Zocdoc applies a reschedule, then the connection breaks")
    start = f"{datetime.now(UTC) + timedelta(days=30):%Y-%m-%d}T09:00:00-04:00"
    sandbox.faults.add(Fault(kind=Kind.RESET, operation="reschedule", when=Moment.AFTER))
    try:
        lifecycle.reschedule(SECOND, actor=ACTOR, start_time=start)
    except OutcomeUnknown as lost:
        _expect(lifecycle.get(SECOND).in_doubt, "the appointment was marked as in doubt")
        _good(f"reschedule to {start}: {lost.reason_code}, outcome unknown")
        _good("the appointment is marked as in doubt")
    else:
        _fail("a lost answer was an unknown outcome")
    return start


def _block(lifecycle: Lifecycle) -> None:
    try:
        lifecycle.cancel(SECOND, actor=ACTOR, reason_type="provider_not_available")
    except CommandInProgress as refusal:
        _good(f"another command, cancel, is refused meanwhile: {', '.join(refusal.reasons)}")
    else:
        _fail("a command on an appointment in doubt was refused")


def _recover(lifecycle: Lifecycle, sandbox: Sandbox, start: str) -> None:
    _say("      waiting 2 s, in which a late request could still arrive, then reading ...")
    (settled,) = lifecycle.recover(wait=_RECOVERY_SECONDS).settled
    after = lifecycle.get(SECOND)
    _expect(settled.state == "applied" and not after.in_doubt, "recovery settled the command")
    _expect(after.start_time == datetime.fromisoformat(start), "recovery moved the start")
    _good(f"recover: {settled.command} was {settled.state} ({settled.reason_code}); no longer in doubt")
    effects = sum(1 for entry in sandbox.ledger.entries(operation="reschedule") if _moved_to(entry, start))
    _expect(effects == 1, "the reschedule had one effect")
    _good(f"effects of that reschedule at Zocdoc: {effects}, not 2")


def _moved_to(entry: Entry, start: str) -> bool:
    return entry.effect and isinstance(entry.body, dict) and entry.body.get("start_time") == start


def _print_trail(lifecycle: Lifecycle) -> None:
    title("The audit trail", "append-only; every step, refusals included")
    for appointment_id in (FIRST, SECOND):
        events = lifecycle.history(appointment_id)
        _expect([event.appointment_seq for event in events] == [*range(1, len(events) + 1)], "the trail has no gap")
        _expect(events[-1].to_status == lifecycle.get(appointment_id).status, "the trail folds to the status")
        _say(f"  {appointment_id}")
        _print(_trail(events))


def _trail(events: list[AuditEvent]) -> Padding:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for head in ("#", "event", "command", "status", "outcome"):
        table.add_column(head, overflow="fold")
    for event in events:
        outcome = event.reason_code or event.outcome or ""
        row = (str(event.appointment_seq), event.event, event.command or "", event.to_status, outcome)
        table.add_row(*map(Text, row))
    return Padding(table, (0, 0, 0, 2), expand=False)


def _expect(holds: bool, claim: str) -> None:  # noqa: FBT001 # reads as an assertion
    if not holds:
        _fail(claim)


def _fail(claim: str) -> NoReturn:
    raise click.ClickException(f"the demo does not hold: it was to be seen that {claim}; please report this")


def program() -> str:
    """Tell how this very program is called: it may not be on the path."""
    called = Path(sys.argv[0])
    if shutil.which("lifecycle"):
        return "lifecycle"
    return shlex.quote(str(called)) if called.name == "lifecycle" else f"{shlex.quote(sys.executable)} -m lifecycle"


def _sql_line(path: Path) -> str:
    if shutil.which("sqlite3"):
        return f'sqlite3 {shlex.quote(str(path))} "{_SQL}"'
    program = f"import sqlite3, sys; print(*sqlite3.connect(sys.argv[1]).execute('{_SQL}'), sep='\\n')"
    return f'{shlex.quote(sys.executable)} -c "{program}" {shlex.quote(str(path))}'


def title(text: str, about: str) -> None:
    """Print a heading, with what it is about."""
    click.echo()
    _print(Text.assemble((text, "bold"), (f"  {about}", "dim")))


def code(text: str) -> None:
    """Print lines that are to be copied."""
    for line in text.splitlines():
        _print(Text(f"  {line}", style="cyan"), is_whole=True)


def _good(text: str) -> None:
    _print(Text.assemble("  ", ("ok", "bold green"), f"  {text}"))


def _say(text: str) -> None:
    _print(Text(text))


def _print(item: Padding | Text, *, is_whole: bool = False) -> None:
    click.echo(tables.rendered(item, is_whole=is_whole), nl=False)
    sys.stdout.flush()
