"""A scripted server for the client's tests: each request it reads takes the next step, byte by byte if need be.

Not the stand-in: this one knows nothing of Zocdoc, so that it can misbehave at every place of the wire.
"""

from __future__ import annotations

import json
import socket
import struct
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable


@dataclass(frozen=True)
class Request:
    """One request as it came over the wire."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes = field(repr=False)

    def pairs(self) -> list[tuple[str, Any]]:
        """Return the JSON body's names and values in the order of the wire."""
        found: list[tuple[str, Any]] = json.loads(self.body, object_pairs_hook=lambda pairs: pairs)
        return found


class Peer:
    """The server's end of one connection."""

    def __init__(self, sock: socket.socket, stopped: threading.Event) -> None:
        self.sock = sock
        self.stopped = stopped
        self._left = b""

    def read(self) -> Request | None:
        """Read one whole request; None when the client has gone."""
        data = self._left
        while b"\r\n\r\n" not in data:
            more = self.sock.recv(65536)
            if not more:
                return None
            data += more
        head, _, body = data.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        while len(body) < int(headers.get("content-length", "0")):
            body += self.sock.recv(65536)
        length = int(headers.get("content-length", "0"))
        self._left = body[length:]
        method, target, _ = first.split(" ")
        return Request(method, target, headers, body[:length])

    def reset(self) -> None:
        """Close with RST instead of FIN."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()


def raw(data: bytes, *, keep: bool = False) -> Callable[[Peer], None]:
    """Send these bytes, then close unless `keep`."""

    def step(peer: Peer) -> None:
        peer.sock.sendall(data)
        if not keep:
            peer.sock.close()

    return step


def answer(status: int, body: object = None, headers: tuple[str, ...] = ()) -> Callable[[Peer], None]:
    """Answer properly and keep the connection; `body` is bytes, or becomes JSON, or is empty for None."""
    content = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    lines = (f"HTTP/1.1 {status} X", "Content-Type: application/json", f"Content-Length: {len(content)}", *headers)
    return raw("\r\n".join((*lines, "", "")).encode() + content, keep=True)


def drip(first: bytes, then: bytes, every: float = 0.02) -> Callable[[Peer], None]:
    """Send the first bytes at once and then the others again and again, a byte at a time."""

    def step(peer: Peer) -> None:
        peer.sock.sendall(first)
        with suppress(OSError):
            while True:
                for number in then:
                    if peer.stopped.wait(every):
                        return
                    peer.sock.sendall(bytes([number]))

    return step


def hang(peer: Peer) -> None:
    """Say nothing until the test is over."""
    peer.stopped.wait(20)


def reset(peer: Peer) -> None:
    """Break the connection off."""
    peer.reset()


class Server:
    """Listens on loopback, with TLS if a context is given. The last step is repeated for further requests."""

    def __init__(
        self,
        *steps: Callable[[Peer], None],
        context: ssl.SSLContext | None = None,
        greet: Callable[[Peer], None] | None = None,
    ) -> None:
        self.requests: list[Request] = []
        self.connections = 0
        self.ended = 0
        self._steps = list(steps)
        self._context = context
        self._greet = greet
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self._peers: list[Peer] = []
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port: int = self._listener.getsockname()[1]
        self._start(self._accept)

    @property
    def url(self) -> str:
        """The origin."""
        return f"{'https' if self._context else 'http'}://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for peer in self._peers:
            with suppress(OSError):
                peer.sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(5)

    def _start(self, target: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                sock, _ = self._listener.accept()
                self.connections += 1
                peer = Peer(sock, self._stopped)
                self._peers.append(peer)
                self._start(self._serve, peer)

    def _serve(self, peer: Peer) -> None:
        try:
            if self._greet is not None:
                self._greet(peer)
            if self._context is not None:
                peer.sock = self._context.wrap_socket(peer.sock, server_side=True)
            while (request := peer.read()) is not None:
                with self._lock:
                    self.requests.append(request)
                    step = self._steps.pop(0) if len(self._steps) > 1 else self._steps[0]
                step(peer)
        except (OSError, ValueError):
            pass
        finally:
            peer.sock.close()
            with self._lock:
                self.ended += 1
