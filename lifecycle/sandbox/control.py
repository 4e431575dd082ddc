"""The `/_sandbox` addresses, through which a stand-in in its own process is prepared and asked.

They need no token and never appear in the ledger.

| call | does |
|---|---|
| POST /_sandbox/faults | arms one fault or a list: the members of `Fault` as JSON |
| DELETE /_sandbox/faults | disarms all |
| GET /_sandbox/ledger?operation=&appointment_id= | the entries so far |
| GET /_sandbox/effects | the number of effects by appointment and operation |
| POST /_sandbox/appointments | creates or overwrites one appointment or a list; a webhook with `"webhook": true` |
| POST /_sandbox/appointments/{id} | the provider's own change; no webhook with `"webhook": false` |
| GET /_sandbox/appointments/{id} | an appointment as it stands, no token needed |
| POST /_sandbox/tokens | a user's token: `{"user": "17"}` |
| DELETE /_sandbox/tokens | revokes every token |
| POST /_sandbox/crowd | creates many: `{"count": 10000}`, as well `prefix`, `modified`, `step_seconds` and fields |
| POST /_sandbox/webhooks | subscribes: `{"url": "http://127.0.0.1:...", "key": "base64"}` |
| GET /_sandbox/webhooks | the subscriptions, without their keys |
| DELETE /_sandbox/webhooks, /_sandbox/webhooks/{id} | ends all subscriptions, or one |
| GET, PATCH /_sandbox/webhook-knobs | how webhooks are delivered: the members of `Knobs` as JSON |
| GET /_sandbox/deliveries?appointment_id= | every delivery, what its calls got, and whether all have ended |
| POST /_sandbox/deliveries/{id} | delivers again, word for word |
| DELETE /_sandbox/deliveries | forgets those that have ended |
| POST /_sandbox/release | lets go what the knob `hold` kept: `{"order": "given"}`, `reversed` or `shuffled` |
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Final, cast
from urllib.parse import parse_qsl, unquote

from lifecycle.sandbox import bodies, documents
from lifecycle.sandbox.appointments import Details
from lifecycle.sandbox.deliveries import Order
from lifecycle.sandbox.faults import Fault
from lifecycle.sandbox.messages import Json, Reply, Request, encode

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from lifecycle.sandbox.app import Sandbox

PREFIX: Final = "/_sandbox/"

_FIELDS: Final = Details.__optional_keys__
_LARGEST_CROWD: Final = 100_000
_WEBHOOK: Final = "webhook"
_BESIDE: Final = frozenset({"appointment_id", _WEBHOOK})


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
    wanted = [(_id(item), _flag(item, default=False), _details(item)) for item in _items(request)]
    made = [sandbox.add(chosen, webhook=webhook, **details) for chosen, webhook, details in wanted]
    return {"appointment_ids": made}


def _put_many(sandbox: Sandbox, request: Request) -> Json:
    document = _object(request)
    count, step = document.pop("count", None), document.pop("step_seconds", 0.001)
    prefix, modified = document.pop("prefix", "many-"), document.pop("modified", None)
    if type(count) is not int or not 1 <= count <= _LARGEST_CROWD:
        raise ValueError(f"count is a number from 1 to {_LARGEST_CROWD}")
    if type(step) not in (int, float) or not 0 <= cast("float", step) <= 1:
        raise ValueError("step_seconds is a number from 0 to 1")
    if not isinstance(prefix, str) or not isinstance(modified, str | None):
        raise ValueError("prefix and modified are strings")  # noqa: TRY004 - answered as a 400
    made = sandbox.add_many(
        count,
        prefix=prefix,
        modified=bodies.parse_instant(modified) if modified else None,
        step=timedelta(seconds=cast("float", step)),
        **_details(document),
    )
    return {"count": len(made), "first": made[0], "last": made[-1]}


def _change(sandbox: Sandbox, request: Request) -> Json:
    document = bodies.parse(request.body)
    sandbox.change(_member(request), webhook=_flag(document, default=True), **_details(document))
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


def _subscribe(sandbox: Sandbox, request: Request) -> Json:
    document = _object(request)
    url, key = document.get("url"), document.get("key")
    if not isinstance(url, str) or not isinstance(key, str):
        raise ValueError('a JSON object {"url": "http://...", "key": "base64"} is required')  # noqa: TRY004 - as above
    return sandbox.webhooks.subscribe(url, key).document()


def _show_subscriptions(sandbox: Sandbox, _request: Request) -> Json:
    return {"subscriptions": [subscription.document() for subscription in sandbox.webhooks.subscriptions]}


def _unsubscribe(sandbox: Sandbox, request: Request) -> Json:
    sandbox.webhooks.unsubscribe(_member(request))
    return _show_subscriptions(sandbox, request)


def _unsubscribe_all(sandbox: Sandbox, request: Request) -> Json:
    sandbox.webhooks.unsubscribe()
    return _show_subscriptions(sandbox, request)


def _show_knobs(sandbox: Sandbox, _request: Request) -> Json:
    return sandbox.webhooks.knobs.document()


def _turn_knobs(sandbox: Sandbox, request: Request) -> Json:
    return sandbox.webhooks.configure(**_object(request)).document()


def _show_deliveries(sandbox: Sandbox, request: Request) -> Json:
    found = sandbox.webhooks.log(dict(parse_qsl(request.query)).get("appointment_id"))
    return {"idle": sandbox.webhooks.idle, "deliveries": [delivery.document() for delivery in found]}


def _deliver_again(sandbox: Sandbox, request: Request) -> Json:
    return sandbox.webhooks.repeat(_member(request)).document()


def _forget_deliveries(sandbox: Sandbox, _request: Request) -> Json:
    sandbox.webhooks.forget()
    return {}


def _release(sandbox: Sandbox, request: Request) -> Json:
    return {"released": sandbox.webhooks.release(Order(str(_object(request).get("order", Order.GIVEN))))}


def _object(request: Request) -> Json:
    document = bodies.parse(request.body)
    if not isinstance(document, dict):
        raise ValueError("a JSON object is required")  # noqa: TRY004 - answered as a 400
    return document


def _flag(item: object, *, default: bool) -> bool:
    chosen = item.get(_WEBHOOK, default) if isinstance(item, dict) else default
    if not isinstance(chosen, bool):
        raise ValueError("webhook is true or false")  # noqa: TRY004 - answered as a 400
    return chosen


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
    chosen = {name: value for name, value in item.items() if name not in _BESIDE and value is not None}
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
    ("POST", "crowd"): _put_many,
    ("POST", "webhooks"): _subscribe,
    ("GET", "webhooks"): _show_subscriptions,
    ("DELETE", "webhooks"): _unsubscribe_all,
    ("DELETE", "webhooks/{id}"): _unsubscribe,
    ("GET", "webhook-knobs"): _show_knobs,
    ("PATCH", "webhook-knobs"): _turn_knobs,
    ("GET", "deliveries"): _show_deliveries,
    ("POST", "deliveries/{id}"): _deliver_again,
    ("DELETE", "deliveries"): _forget_deliveries,
    ("POST", "release"): _release,
}
