"""A wire to PostgreSQL that can be cut around a COMMIT: the one moment at which a lost connection is ambiguous."""

from __future__ import annotations

import contextlib
import socket
import threading
from enum import StrEnum
from typing import Self

_CHUNK = 65536
_COMMIT = b"Q\x00\x00\x00\x0bCOMMIT\x00"  # the message that a driver sends: a simple query of these six letters
_PATIENCE = 10.0  # seconds for the server to answer a COMMIT whose answer is then withheld


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
                threading.Thread(target=self._forward, args=(client, server), daemon=True).start()
                threading.Thread(target=self._back, args=(client, server), daemon=True).start()

    def _forward(self, client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := client.recv(_CHUNK):
                cut = self._due() if data == _COMMIT else None
                if cut is not None:
                    self._strike(cut, data, client, server)
                    return
                server.sendall(data)
        _end(client, server)

    def _strike(self, cut: Cut, data: bytes, client: socket.socket, server: socket.socket) -> None:
        client.shutdown(socket.SHUT_WR)  # nothing that the server says from now on reaches the client
        if cut is not Cut.BEFORE:
            server.sendall(data)
        if cut is Cut.AFTER:
            self._committed.wait(_PATIENCE)
        _end(client, server)

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
            self._committed = threading.Event()
            return cut

    def _back(self, client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := server.recv(_CHUNK):
                if b"COMMIT\x00" in data and hasattr(self, "_committed"):
                    self._committed.set()
                client.sendall(data)
        _end(client, server)


def _end(*sockets: socket.socket) -> None:
    for each in sockets:
        with contextlib.suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)
        each.close()
