"""The stand-in in a process of its own: no kill of ours reaches it, and its ledger is the witness."""

from __future__ import annotations

import contextlib
import multiprocessing
import threading
from collections import Counter
from typing import TYPE_CHECKING, Any, Self

from lifecycle import ZocdocClient
from lifecycle.sandbox import Entry, Fault, Ledger, Sandbox, serve
from tests.crashes import forks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from datetime import datetime
    from multiprocessing.connection import Connection


class Standin:
    """A stand-in that is asked over a pipe. Make it before the process has threads: it is forked."""

    def __init__(self) -> None:
        forked = multiprocessing.get_context("fork")
        self._pipe, theirs = forked.Pipe()
        self._lock = threading.Lock()
        self._process = forked.Process(target=_serve, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()
        self.base_url, self.token_url, self.audience = self._pipe.recv()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._pipe.send(("stop", ()))
        self._process.join(10)
        self._process.kill()

    def client(self, **options: Any) -> ZocdocClient:
        """Make a machine-to-machine client."""
        given: dict[str, Any] = {
            "base_url": self.base_url,
            "token_url": self.token_url,
            "audience": self.audience,
            "client_id": "sandbox-client",
            "client_secret": "sandbox-secret",
        }
        return ZocdocClient(**(given | options))

    def add(self, count: int, **details: str) -> list[str]:
        """Create so many appointments and give their ids."""
        return list(self._ask("add", count, details))

    def arm(self, *faults: Mapping[str, Any]) -> None:
        """Arm faults."""
        self._ask("arm", [dict(fault) for fault in faults])

    def disarm(self) -> None:
        """Take back the faults that have not struck."""
        self._ask("disarm")

    def calls(self) -> list[Entry]:
        """Give what reached the appointment endpoints since the last `forget`."""
        return list(self._ask("calls"))

    def posts(self) -> Counter[str]:
        """Count the requests that could change something, by appointment."""
        return Counter(entry.appointment_id or "" for entry in self.calls() if entry.method != "GET")

    def remote(self, appointment_ids: Iterable[str]) -> dict[str, tuple[str, datetime]]:
        """Give status and start (UTC) of appointments as they stand at the stand-in."""
        found: dict[str, tuple[str, datetime]] = self._ask("remote", list(appointment_ids))
        return found

    def forget(self) -> None:
        """Begin a new ledger and disarm what is still armed."""
        self._ask("forget")

    def _ask(self, act: str, *arguments: Any) -> Any:
        with self._lock:
            self._pipe.send((act, arguments))
            return self._pipe.recv()


def _serve(pipe: Connection) -> None:
    forks.die_with_parent()
    sandbox = Sandbox()
    with serve(sandbox) as server:
        pipe.send((server.base_url, server.token_url, server.audience))
        while True:
            act, arguments = pipe.recv()
            if act == "stop":
                return
            pipe.send(_ACTS[act](sandbox, *arguments))


def _add(sandbox: Sandbox, count: int, details: Any) -> list[str]:
    return [sandbox.add(**details) for _ in range(count)]


def _arm(sandbox: Sandbox, faults: list[dict[str, Any]]) -> None:
    sandbox.faults.add(*map(Fault.parse, faults))


def _disarm(sandbox: Sandbox) -> None:
    sandbox.faults.clear()


def _calls(sandbox: Sandbox) -> list[Entry]:
    return [entry for entry in sandbox.ledger.entries() if entry.operation != "token"]


def _remote(sandbox: Sandbox, appointment_ids: list[str]) -> dict[str, tuple[str, datetime]]:
    rows = [sandbox.appointment(each) for each in appointment_ids]
    return {row.appointment_id: (row.status, row.start) for row in rows}


def _forget(sandbox: Sandbox) -> None:
    sandbox.faults.clear()
    sandbox.ledger = Ledger()  # in use nobody does this; here it keeps a soak's memory flat


_ACTS: dict[str, Callable[..., Any]] = {
    "add": _add,
    "arm": _arm,
    "disarm": _disarm,
    "calls": _calls,
    "remote": _remote,
    "forget": _forget,
}
