"""The stand-in in a process of its own: no kill of ours reaches it, and its ledger is the witness."""

from __future__ import annotations

import contextlib
import multiprocessing
import socket
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING, Any, Final, Self

from lifecycle import ZocdocClient
from lifecycle.sandbox import Entry, Fault, Ledger, Sandbox, Server, serve
from tests.crashes import forks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from datetime import datetime
    from multiprocessing.connection import Connection

TIMEOUT: Final = 25.0
"""Seconds that a client waits for an answer, if nothing else is said: a machine may stand still for some."""

QUIET_WITHIN: Final = 60.0
"""Seconds after which the stand-in counts as hung if it still has not read what the dead have sent."""


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
            "timeout": TIMEOUT,
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

    def quiet(self) -> None:
        """Wait until all that was sent by processes that are dead by now is in the ledger.

        Raises `TimeoutError` if it is never read, or if somebody alive goes on sending.
        """
        end = time.monotonic() + QUIET_WITHIN
        while not self._ask("is_quiet"):
            if time.monotonic() > end:
                raise TimeoutError("the stand-in does not become quiet")
            time.sleep(0.002)

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
    with serve(Sandbox()) as server:
        pipe.send((server.base_url, server.token_url, server.audience))
        while True:
            act, arguments = pipe.recv()
            if act == "stop":
                return
            pipe.send(_ACTS[act](server, *arguments))


def _add(server: Server, count: int, details: Any) -> list[str]:
    return [server.sandbox.add(**details) for _ in range(count)]


def _arm(server: Server, faults: list[dict[str, Any]]) -> None:
    server.sandbox.faults.add(*map(Fault.parse, faults))


def _disarm(server: Server) -> None:
    server.sandbox.faults.clear()


def _calls(server: Server) -> list[Entry]:
    return [entry for entry in server.sandbox.ledger.entries() if entry.operation != "token"]


def _remote(server: Server, appointment_ids: list[str]) -> dict[str, tuple[str, datetime]]:
    rows = [server.sandbox.appointment(each) for each in appointment_ids]
    return {row.appointment_id: (row.status, row.start) for row in rows}


def _forget(server: Server) -> None:
    server.sandbox.faults.clear()
    server.sandbox.ledger = Ledger()  # in use nobody does this; here it keeps a soak's memory flat


def _is_quiet(server: Server) -> bool:
    """Tell whether nothing is left to be read, neither a request nor the end of a connection."""
    with socket.create_connection(("127.0.0.1", server.port)) as last:
        last.sendall(b"GET /_sandbox/ HTTP/1.1\r\nConnection: close\r\n\r\n")
        while last.recv(1024):
            pass  # connections are taken up in turn: now all that were made before this one are among the open ones
    with server._lock:
        connections = list(server._open)
    return all(map(_is_idle, connections))


def _is_idle(connection: socket.socket) -> bool:
    """Tell whether nothing has come that was not read. Whoever is dead has left the end of the connection to be read.

    That is read last, so all before it is in the ledger by then.
    """
    try:
        connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return True
    except OSError:
        return False  # it is being closed
    return False


_ACTS: dict[str, Callable[..., Any]] = {
    "is_quiet": _is_quiet,
    "add": _add,
    "arm": _arm,
    "disarm": _disarm,
    "calls": _calls,
    "remote": _remote,
    "forget": _forget,
}
