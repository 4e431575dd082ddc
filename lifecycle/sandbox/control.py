"""The `/_sandbox` addresses, through which a stand-in in its own process is prepared and asked.

They need no token and never appear in the ledger.

| call | does |
|---|---|
| POST /_sandbox/faults | arms one fault or a list: the members of `Fault` as JSON |
| DELETE /_sandbox/faults | disarms all |
| GET /_sandbox/ledger?operation=&appointment_id= | the entries so far |
| GET /_sandbox/effects | the number of effects by appointment and operation |
| POST /_sandbox/appointments | creates or overwrites one appointment or a list |
| POST /_sandbox/appointments/{id} | the provider's own change |
| GET /_sandbox/appointments/{id} | an appointment as it stands, no token needed |
| POST /_sandbox/tokens | a user's token: `{"user": "17"}` |
| DELETE /_sandbox/tokens | revokes every token |
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, cast
from urllib.parse import parse_qsl, unquote

from lifecycle.sandbox import bodies, documents
from lifecycle.sandbox.appointments import Details
from lifecycle.sandbox.faults import Fault
from lifecycle.sandbox.messages import Json, Reply, Request, encode

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from lifecycle.sandbox.app import Sandbox

PREFIX: Final = "/_sandbox/"

_FIELDS: Final = Details.__optional_keys__


def answer(sandbox: Sandbox, request: Request) -> Reply:
    """Answer one control request: 200, 400 with the reason, or 404."""
    collection, _, member = request.path.removeprefix(PREFIX).partition("/")
    act = _ACTS.get((request.method, f"{collection}/{{id}}" if member else collection))
    if act is None:
        return Reply(404, encode({"error": "no such control address"}))
    try:
        return Reply(200, encode(act(sandbox, request)))
    except KeyError as missing:
        return Reply(404, encode({"error": f"unknown: {missing}"}))
    except ValueError as wrong:
        return Reply(400, encode({"error": str(wrong)}))


def _arm(sandbox: Sandbox, request: Request) -> Json:
    sandbox.faults.add(*[Fault.parse(item) for item in _items(request)])
    return {"pending": sandbox.faults.pending}


def _disarm(sandbox: Sandbox, _request: Request) -> Json:
    sandbox.faults.clear()
    return {"pending": 0}


def _read_ledger(sandbox: Sandbox, request: Request) -> Json:
    wanted = dict(parse_qsl(request.query))
    found = sandbox.ledger.entries(operation=wanted.get("operation"), appointment_id=wanted.get("appointment_id"))
    return {"entries": [entry.document() for entry in found]}


def _count_effects(sandbox: Sandbox, _request: Request) -> Json:
    return {"effects": sandbox.ledger.all_effects()}


def _put(sandbox: Sandbox, request: Request) -> Json:
    wanted = [(_id(item), _details(item)) for item in _items(request)]
    return {"appointment_ids": [sandbox.add(chosen, **details) for chosen, details in wanted]}


def _change(sandbox: Sandbox, request: Request) -> Json:
    sandbox.change(_member(request), **_details(bodies.parse(request.body)))
    return _show(sandbox, request)


def _show(sandbox: Sandbox, request: Request) -> Json:
    row = sandbox.appointment(_member(request))
    return documents.status_data(row) | {"booked_by": row.booked_by}


def _give_token(sandbox: Sandbox, request: Request) -> Json:
    document = bodies.parse(request.body)
    user = document.get("user") if isinstance(document, dict) else None
    if not isinstance(user, str) or not user:
        raise ValueError('a JSON object {"user": "ID"} is required')
    return {"access_token": sandbox.user_token(user)}


def _revoke(sandbox: Sandbox, _request: Request) -> Json:
    sandbox.revoke_tokens()
    return {}


def _member(request: Request) -> str:
    return unquote(request.path.rpartition("/")[2])


def _items(request: Request) -> list[object]:
    document = bodies.parse(request.body)
    return document if isinstance(document, list) else [document]


def _id(item: object) -> str | None:
    named = item.get("appointment_id") if isinstance(item, dict) else None
    if named is not None and not isinstance(named, str):
        raise ValueError("appointment_id must be a string")
    return named


def _details(item: object) -> Details:
    if not isinstance(item, dict):
        raise ValueError("a JSON object is required")  # noqa: TRY004 - answered as a 400
    chosen = {name: value for name, value in item.items() if name != "appointment_id" and value is not None}
    if not set(chosen) <= _FIELDS:
        raise ValueError(f"an appointment has the fields {', '.join(sorted(_FIELDS))}")
    if not all(isinstance(value, str) for value in chosen.values()):
        raise ValueError("every field of an appointment is a string")
    return cast("Details", chosen)


_ACTS: Final[Mapping[tuple[str, str], Callable[[Sandbox, Request], Json]]] = {
    ("POST", "faults"): _arm,
    ("DELETE", "faults"): _disarm,
    ("GET", "ledger"): _read_ledger,
    ("GET", "effects"): _count_effects,
    ("POST", "appointments"): _put,
    ("POST", "appointments/{id}"): _change,
    ("GET", "appointments/{id}"): _show,
    ("POST", "tokens"): _give_token,
    ("DELETE", "tokens"): _revoke,
}
