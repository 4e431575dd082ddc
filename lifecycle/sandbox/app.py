"""The stand-in itself: a request comes in, is struck by a fault or carried out, and is written down."""

from __future__ import annotations

import threading
import time
import uuid
import zlib
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, Unpack
from urllib.parse import unquote

from lifecycle.sandbox import bodies, control, fixtures, operations, wsgi
from lifecycle.sandbox.appointments import Appointment, Appointments, Details
from lifecycle.sandbox.callbacks import UpdateType
from lifecycle.sandbox.faults import Fault, Faults, Kind
from lifecycle.sandbox.ledger import Entry, Ledger
from lifecycle.sandbox.messages import Outcome, Reply, Request, Wire, encode
from lifecycle.sandbox.operations import Call
from lifecycle.sandbox.tokens import Tokens
from lifecycle.sandbox.vocabulary import Operation, Status
from lifecycle.sandbox.webhooks import Webhooks

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from wsgiref.types import WSGIApplication

CLIENTS: Final = {"sandbox-client": "sandbox-secret"}
TOKEN_LIFETIME: Final = 3600.0  # seconds, as documented

_A_MILLISECOND: Final = timedelta(milliseconds=1)
_WORTH_GZIP: Final = 8192  # below that, packing costs more than it saves on loopback
_SECRETIVE: Final = frozenset({Operation.TOKEN, Operation.MOCK_WEBHOOK})  # their bodies carry a secret
_UNANSWERED: Final[Mapping[Wire, str]] = {Wire.RESET: "reset", Wire.CLOSE: "none"}


def utc_now() -> datetime:
    """Return the present in UTC."""
    return datetime.now(UTC)


class Sandbox:
    """A stateful stand-in of Zocdoc's developer API, written from the contract alone. Thread-safe.

    `now` returns an aware UTC datetime and rules tokens, modification times and the no-show window.
    `clients` maps client ids to secrets. `audience` is what a token request must name; by default the
    address that the request came to, with a trailing slash. `on_reschedule` is the status that a
    reschedule answers with: `rescheduled` as a provider with automatic confirmation, `pending_reschedule`
    as one without, `unchanged`, or any other status; an appointment's own `on_reschedule` wins. The start
    moves at once, except with `reschedule_failed`. `control=False` switches the `/_sandbox` addresses off,
    `with_fixtures=False` begins without Zocdoc's published appointments.
    """

    def __init__(
        self,
        *,
        now: Callable[[], datetime] = utc_now,
        clients: Mapping[str, str] = CLIENTS,
        audience: str | None = None,
        token_lifetime: float = TOKEN_LIFETIME,
        on_reschedule: str = Status.RESCHEDULED,
        control: bool = True,
        with_fixtures: bool = True,
    ) -> None:
        self.tokens = Tokens(clients=clients, audience=audience, lifetime=token_lifetime, now=now)
        self.faults = Faults()
        self.ledger = Ledger()
        self.webhooks = Webhooks(now=now)
        self._control = control
        self._lock = threading.Lock()
        self._appointments = Appointments(now=now, on_reschedule=on_reschedule)
        if with_fixtures:
            fixtures.load(self._appointments)

    def answer(self, request: Request) -> Reply:
        """Answer one request and write it into the ledger; changing state and writing are one step."""
        if request.path.startswith(control.PREFIX):
            return control.answer(self, request) if self._control else Reply(404)
        call = self._read(request)
        fault = self.faults.take(call.operation, call.appointment_id)
        if fault is not None:
            return self._strike(call, fault)
        reply = self._process(call)
        return _packed(reply) if "gzip" in request.accept_encoding else reply

    @property
    def wsgi(self) -> WSGIApplication:
        """The stand-in as a WSGI callable; see `lifecycle.sandbox.wsgi` for faults that need a socket."""
        return wsgi.application(self.answer)

    def add(self, appointment_id: str | None = None, *, webhook: bool = False, **details: Unpack[Details]) -> str:
        """Create or overwrite an appointment and return its id. Not a request: the ledger stays as it is.

        With `webhook` the subscriptions are told that it was created. Raises `ValueError` for a start time
        without an offset.
        """
        chosen = appointment_id or str(uuid.uuid4())
        with self._lock:
            row = self._appointments.put(chosen, **details)
            if webhook:
                self.webhooks.announce(chosen, UpdateType.CREATED, at=row.modified)
        return chosen

    def add_many(
        self,
        count: int,
        *,
        prefix: str = "many-",
        modified: datetime | None = None,
        step: timedelta = _A_MILLISECOND,
        **details: Unpack[Details],
    ) -> list[str]:
        """Create `count` appointments, `prefix` and a number being their ids, and return the ids. Tells nobody.

        The first is created and modified at `modified` (aware; now by default), each further one a `step`
        later: with `timedelta(0)` all bear the same modification time. Raises `ValueError` for a time
        without an offset.
        """
        first = bodies.aware(modified or self._appointments.now())
        made = [f"{prefix}{number:06}" for number in range(count)]
        with self._lock:
            for number, appointment_id in enumerate(made):
                self._appointments.put(appointment_id, first + number * step, **details)
        return made

    def change(self, appointment_id: str, *, webhook: bool = True, **details: Unpack[Details]) -> None:
        """Change an appointment as its provider would, which the subscriptions are told unless `webhook` is off.

        Raises `KeyError` for an unknown appointment, `ValueError` for a start time without an offset.
        """
        if "start_time" in details:
            bodies.parse_instant(details["start_time"])
        with self._lock:
            before = self._known(appointment_id)
            after = self._appointments.change(before, **details)
            if webhook:
                self.webhooks.announce(appointment_id, _update_type(before, after), at=after.modified, changed=details)

    def appointment(self, appointment_id: str) -> Appointment:
        """Return an appointment as it stands; raises `KeyError` for an unknown one."""
        with self._lock:
            return self._known(appointment_id)

    def status_of(self, appointment_id: str) -> str:
        """Return the status of an appointment; raises `KeyError` for an unknown one."""
        return self.appointment(appointment_id).status

    def user_token(self, user_id: str, scopes: frozenset[str] | None = None) -> str:
        """Return a bearer token of a Zocdoc user, as the authorization code flow would have."""
        return self.tokens.issue(f"user:{user_id}", scopes).text

    def revoke_tokens(self) -> None:
        """End every token given out so far."""
        self.tokens.revoke()

    def _known(self, appointment_id: str) -> Appointment:
        row = self._appointments.find(appointment_id)
        if row is None:
            raise KeyError(appointment_id)
        return row

    def _read(self, request: Request) -> Call:
        operation = operations.operation_of(request.method, request.path)
        raw = bodies.unpack(request.body, request.content_encoding)
        document = bodies.parse(raw)
        if operation is Operation.GET:
            named: object = unquote(request.path.rpartition("/")[2])
        else:
            named = document.get("appointment_id") if isinstance(document, dict) else None
        appointment_id = named if isinstance(named, str) else None
        token = self.tokens.find(request.authorization)
        return Call(request, str(uuid.uuid4()), operation, raw, document, appointment_id, token)

    def _process(self, call: Call, fault: Fault | None = None, *, late: bool = False) -> Reply:
        with self._lock:
            outcome = self._run(call)
            reply = _reply(call, outcome, fault)
            self._record(call, outcome, "none" if late else answered(reply), late=late)
        return reply

    def _run(self, call: Call) -> Outcome:
        if call.operation is Operation.TOKEN:
            return self.tokens.grant(call.document, call.request.base_url)
        return operations.run(self._appointments, self.webhooks, call)

    def _strike(self, call: Call, fault: Fault) -> Reply:
        if fault.kind == Kind.ZOMBIE:
            return self._apply_later(call, fault)
        time.sleep(fault.pause_before)
        if fault.unapplied:
            return self._leave(call, fault.reply(call.request_id))
        reply = self._process(call, fault)
        time.sleep(fault.pause_after)
        return reply

    def _apply_later(self, call: Call, fault: Fault) -> Reply:
        reply = self._leave(call, fault.reply(call.request_id))
        timer = threading.Timer(fault.seconds, self._process, (call,), {"late": True})
        timer.daemon = True
        timer.start()
        return reply

    def _leave(self, call: Call, reply: Reply) -> Reply:
        self._record(call, Outcome(reply.status), answered(reply))
        return reply

    def _record(self, call: Call, outcome: Outcome, answer: int | str, *, late: bool = False) -> None:
        entry = Entry(
            operation=call.operation,
            method=call.request.method,
            path=call.request.path,
            query=call.request.query,
            raw=b"" if call.operation in _SECRETIVE else call.raw,
            appointment_id=call.appointment_id or outcome.appointment_id,
            answered=answer,
            effect=outcome.effect,
            request_id=call.request_id,
            subject=call.token.subject if call.token else None,
            at=time.monotonic(),
            late=late,
        )
        self.ledger.append(entry)


def answered(reply: Reply) -> int | str:
    """Return what the ledger says about an answer: its status, `reset` or `none`."""
    return _UNANSWERED.get(reply.wire, reply.status)


def _reply(call: Call, outcome: Outcome, fault: Fault | None) -> Reply:
    if fault is None:
        return Reply(outcome.status, encode(outcome.document))
    if fault.replaces:
        return fault.reply(call.request_id)
    return fault.disguise(Reply(outcome.status, encode(fault.rewrite(outcome.document))))


def _update_type(before: Appointment, after: Appointment) -> UpdateType:
    ended = after.status == Status.CANCELLED != before.status
    return UpdateType.CANCELLED if ended else UpdateType.UPDATED


def _packed(reply: Reply) -> Reply:
    if len(reply.body) < _WORTH_GZIP:
        return reply
    packer = zlib.compressobj(1, wbits=31)
    body = packer.compress(reply.body) + packer.flush()
    return replace(reply, body=body, headers=(*reply.headers, ("Content-Encoding", "gzip")))
