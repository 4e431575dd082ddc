"""A wire to PostgreSQL that can be cut around a COMMIT: the one moment at which a lost connection is ambiguous."""

from __future__ import annotations

import contextlib
import socket
import threading
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Self

_CHUNK = 65536
_COMMIT = b"Q\x00\x00\x00\x0bCOMMIT\x00"  # the message that a driver sends: a simple query of these six letters
_PATIENCE = 60.0  # seconds for the server to answer a COMMIT whose answer is then withheld


class Cut(StrEnum):
    """When the wire breaks."""

    BEFORE = "before"  # the server never sees the COMMIT, and rolls back
    DURING = "during"  # the server sees it and its client is gone: committed now, or a moment later
    AFTER = "after"  # the server has committed, its answer is lost


class Proxy:
    """Forwards loopback connections to a server's socket; cuts the n-th COMMIT from now on, and may then stay away."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._lock = threading.Lock()
        self._cut: Cut | None = None
        self._left = 0
        self._stays_away = False
        self.is_away = False
        self.cuts = 0
        self.unanswered = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()

    def cut(self, cut: Cut, *, nth: int, away: bool) -> None:
        """Cut the n-th COMMIT that comes from now on; with `away`, refuse every connection until `mend`."""
        with self._lock:
            self._cut, self._left, self._stays_away = cut, nth, away

    def mend(self) -> None:
        """Let everything through."""
        with self._lock:
            self._cut, self.is_away = None, False

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                if self.is_away:
                    client.close()
                    continue
                server = socket.socket(socket.AF_UNIX)
                server.connect(self._path)
                wire = _Wire(client, server)
                for way in (self._forward, _back):
                    threading.Thread(target=way, args=(wire,), daemon=True).start()

    def _forward(self, wire: _Wire) -> None:
        with contextlib.suppress(OSError):
            while data := wire.client.recv(_CHUNK):
                cut = self._due() if data == _COMMIT else None
                wire.committed.clear()
                wire.is_mute = cut is not None
                if cut is not Cut.BEFORE:
                    wire.server.sendall(data)
                if cut is Cut.AFTER and not wire.committed.wait(_PATIENCE):
                    self.unanswered += 1
                if cut is not None:
                    break
        wire.end()

    def _due(self) -> Cut | None:
        with self._lock:
            if self._cut is None:
                return None
            self._left -= 1
            if self._left:
                return None
            cut, self._cut = self._cut, None
            self.is_away = self._stays_away
            self.cuts += 1
            return cut


@dataclass
class _Wire:
    """One connection. Once it is mute, nothing that the server says reaches the client."""

    client: socket.socket
    server: socket.socket
    committed: threading.Event = field(default_factory=threading.Event)
    is_mute: bool = False

    def end(self) -> None:
        """Break both halves."""
        for each in (self.client, self.server):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()


def _back(wire: _Wire) -> None:
    with contextlib.suppress(OSError):
        while data := wire.server.recv(_CHUNK):
            if not wire.is_mute:
                wire.client.sendall(data)
            if b"COMMIT\x00" in data:
                wire.committed.set()
    wire.end()
