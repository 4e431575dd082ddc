"""How a worker is, for whoever restarts what hangs: a probe over HTTP that asks nothing of the database itself."""

from __future__ import annotations

import json
import socket
import threading
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_SILENCE_SECONDS: Final = 5.0
"""Who says nothing for so long is cut off."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """How a worker is. Seconds are ages.

    `is_alive`: it got somewhere lately; a worker that hangs, on a half-open connection for instance, did not.
    `is_ready`: the database answers too, and its looks at the queue do not fail one after another.
    `engine` is `inline`, or whether Procrastinate is `up` or `down`.
    `oldest_due_seconds`: how long the oldest command that is due has waited; None: none is, or nobody knows.
    """

    is_alive: bool
    is_ready: bool
    engine: str
    beat_seconds: float
    in_flight: int
    oldest_due_seconds: float | None


@contextmanager
def probe(health: Callable[[], Health], *, host: str, port: int) -> Iterator[int]:
    """Answer in threads for as long as the block lasts; gives the port that was taken. Raises `OSError`.

    GET /healthz: 200 if it is ready, else 503. GET /livez: 200 if it is alive, else 503. Both with all facts as JSON.
    """
    verdicts: dict[str, Callable[[Health], bool]] = {
        "/healthz": lambda found: found.is_ready,
        "/livez": lambda found: found.is_alive,
    }

    class Handler(_Handler):
        def do_GET(self) -> None:
            verdict = verdicts.get(self.path)
            if verdict is None:
                self._answer(404, {})
                return
            found = health()
            self._answer(200 if verdict(found) else 503, asdict(found))

    kind = _Server6 if ":" in host else _Server
    with kind((host, port), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, name="lifecycle-health", daemon=True)
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, _request: object, _client_address: object) -> None:
        """Say nothing: a caller has gone."""


class _Server6(_Server):
    address_family = socket.AF_INET6


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = _SILENCE_SECONDS
    wbufsize = -1
    disable_nagle_algorithm = True

    def _answer(self, status: int, facts: dict[str, object]) -> None:
        body = json.dumps(facts).encode()
        self.send_response_only(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing: a path is what the caller chose."""
