"""A threaded loopback server for the stand-in: one thread a connection, one write an answer."""

from __future__ import annotations

import ipaddress
import socket
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Self

from lifecycle.sandbox.http1 import Conversation, Malformed

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from lifecycle.sandbox.app import Sandbox

LOOPBACK: Final = "127.0.0.1"

_BACKLOG: Final = 256  # connections that may wait while a burst is accepted
_WAKE: Final = 1.0  # seconds; loopback connects at once or never


def serve(sandbox: Sandbox, *, host: str = LOOPBACK, port: int = 0) -> Server:
    """Start serving in a thread of its own and return the server, which is a context manager.

    Port 0 takes a free one. Raises `ValueError` for a host that is not loopback, `OSError` for a port
    that is taken.
    """
    server = Server(sandbox, host=host, port=port)
    server.start()
    return server


def serve_forever(
    sandbox: Sandbox, host: str = LOOPBACK, port: int = 0, announce: Callable[[Server], object] | None = None
) -> None:
    """Serve in the calling thread until Ctrl-C or `Server.close()`; `announce` is called once it listens.

    Raises `ValueError` for a host that is not loopback, `OSError` for a port that is taken.
    """
    with Server(sandbox, host=host, port=port) as server:
        if announce is not None:
            announce(server)
        with suppress(KeyboardInterrupt):
            server.accept_connections()


class Server:
    """A listening stand-in. `base_url` has no trailing slash, `audience` is the same with one."""

    def __init__(self, sandbox: Sandbox, *, host: str = LOOPBACK, port: int = 0) -> None:
        self.sandbox = sandbox
        address = _loopback(host)
        family = socket.AF_INET6 if address.version == 6 else socket.AF_INET  # noqa: PLR2004 - IPv6
        self._listener = socket.create_server((str(address), port), family=family, backlog=_BACKLOG)
        self.port: int = self._listener.getsockname()[1]
        shown = f"[{address}]" if family == socket.AF_INET6 else str(address)
        self.base_url = f"http://{shown}:{self.port}"
        self.token_url = f"{self.base_url}/oauth/token"
        self.audience = f"{self.base_url}/"
        self._address = (str(address), self.port)
        self._closing = False
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._acceptor: threading.Thread | None = None

    def start(self) -> None:
        """Accept connections in a daemon thread."""
        self._acceptor = threading.Thread(target=self.accept_connections, name="sandbox", daemon=True)
        self._acceptor.start()

    def accept_connections(self) -> None:
        """Accept connections in the calling thread until the server is closed."""
        while not self._closing:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                if self._closing:  # closed between two connections
                    return
                raise
            if self._enrol(connection):
                threading.Thread(target=self._converse, args=(connection,), daemon=True).start()

    def close(self) -> None:
        """Stop listening and end every open connection at once, in the middle of an answer if need be.

        Webhooks that have not ended are stopped, so that no retry calls whoever gets the receiver's port next.
        """
        with self._lock:
            if self._closing:
                return
            self._closing = True
        self.sandbox.webhooks.stop()
        self._wake_acceptor()
        self._listener.close()
        with self._lock:
            for connection in self._open:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _wake_acceptor(self) -> None:
        # Closing a socket does not wake the thread that accepts on it; a connection does, everywhere.
        with suppress(OSError):
            socket.create_connection(self._address, timeout=_WAKE).close()
        if self._acceptor is not None:
            self._acceptor.join()

    def _enrol(self, connection: socket.socket) -> bool:
        with self._lock:
            if self._closing:
                connection.close()
                return False
            self._open.add(connection)
        return True

    def _converse(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._answer_all(Conversation(connection, self.base_url))
        with self._lock:
            self._open.discard(connection)

    def _answer_all(self, conversation: Conversation) -> None:
        try:
            while (request := conversation.receive()) is not None:
                if not conversation.send(self.sandbox.answer(request)):
                    return
        except Malformed as wrong:
            conversation.refuse(wrong.status)


def _loopback(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    address = ipaddress.ip_address(LOOPBACK if host == "localhost" else host)
    if not address.is_loopback:
        raise ValueError(f"the stand-in serves this machine only, and {host} is not a loopback address")
    return address
