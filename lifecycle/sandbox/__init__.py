"""A local, stateful stand-in of Zocdoc's developer API, written from its published contract.

It imports nothing else of this package, so that it is an independent witness of what the rest does.

```python
sandbox = Sandbox()
with serve(sandbox) as server:
    ...  # talk to server.base_url; tokens come from server.token_url
assert sandbox.ledger.effects(appointment_id, "cancel") == 1
```
"""

from lifecycle.sandbox.app import CLIENTS, Sandbox
from lifecycle.sandbox.appointments import MACHINE, UNCHANGED, Appointment
from lifecycle.sandbox.faults import Fault, Faults, Kind, Moment
from lifecycle.sandbox.ledger import Entry, Ledger
from lifecycle.sandbox.server import Server, serve, serve_forever
from lifecycle.sandbox.vocabulary import Operation

__all__ = [
    "CLIENTS",
    "MACHINE",
    "UNCHANGED",
    "Appointment",
    "Entry",
    "Fault",
    "Faults",
    "Kind",
    "Ledger",
    "Moment",
    "Operation",
    "Sandbox",
    "Server",
    "serve",
    "serve_forever",
]
