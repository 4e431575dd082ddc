"""A local, stateful stand-in of Zocdoc's developer API, written from its published contract.

It imports nothing else of this package, so that it is an independent witness of what the rest does.

```python
sandbox = Sandbox()
with serve(sandbox) as server:
    ...  # talk to server.base_url; tokens come from server.token_url
assert sandbox.ledger.effects(appointment_id, "cancel") == 1

sandbox.webhooks.subscribe("http://127.0.0.1:8080/webhooks/zocdoc", key)
sandbox.change(appointment_id, status="cancelled")  # as its provider would: the receiver is called
assert sandbox.webhooks.wait_idle(timeout=5)
```
"""

from lifecycle.sandbox.app import CLIENTS, Sandbox
from lifecycle.sandbox.appointments import MACHINE, UNCHANGED, Appointment
from lifecycle.sandbox.callbacks import Trouble, UpdateType
from lifecycle.sandbox.deliveries import Attempt, Delivery, Ended, Knobs, Order, Subscription
from lifecycle.sandbox.faults import Fault, Faults, Kind, Moment
from lifecycle.sandbox.ledger import Entry, Ledger
from lifecycle.sandbox.server import Server, serve, serve_forever
from lifecycle.sandbox.vocabulary import Operation
from lifecycle.sandbox.webhooks import Webhooks

__all__ = [
    "CLIENTS",
    "MACHINE",
    "UNCHANGED",
    "Appointment",
    "Attempt",
    "Delivery",
    "Ended",
    "Entry",
    "Fault",
    "Faults",
    "Kind",
    "Knobs",
    "Ledger",
    "Moment",
    "Operation",
    "Order",
    "Sandbox",
    "Server",
    "Subscription",
    "Trouble",
    "UpdateType",
    "Webhooks",
    "serve",
    "serve_forever",
]
