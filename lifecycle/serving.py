"""Running the door on uvicorn, so that nothing but the door answers: no 500 and no 503 of the server's own.

Needs the extra `web`: pip install 'zocdoc-lifecycle[web]'.
"""

from __future__ import annotations

import signal
import socket
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from lifecycle import cutting

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from starlette.applications import Starlette

_HEADER_LIMIT: Final = 16 * 1024
_REQUEST_SECONDS: Final = 10.0
"""How long a connection may take until its next request's headers are complete."""

_STOP_SECONDS: Final = 15
"""What is being stored ends within 4 seconds; whoever only keeps a connection open is cut after these."""

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


def serve(
    app: Starlette,
    *,
    host: str,
    port: int,
    certificate: Path | None = None,
    key: Path | None = None,
    announce: Callable[[int], object] | None = None,
) -> None:
    """Serve an app of `server.create_app` or `page.app.create_app` in the calling thread until SIGTERM or Ctrl-C.

    `announce` is called with the port once it listens. Stops gracefully: what is being stored is stored and answered,
    what is held is cut without an answer. Raises `OSError` for an address that cannot be taken.
    """
    config = _config(app, ssl_certfile=certificate, ssl_keyfile=key)
    config.load()  # the certificate is read before anybody is told of the port
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, port), family=family, backlog=config.backlog) as listener:
        if announce is not None:
            announce(listener.getsockname()[1])
        _Server(config).run(sockets=[listener])


@contextmanager
def running(app: Starlette, *, host: str = "127.0.0.1") -> Iterator[int]:
    """Serve in a thread on a free port, which is given, for as long as the block lasts."""
    config = _config(app)
    made = _Server(config)
    with socket.create_server((host, 0), backlog=config.backlog) as listener:
        thread = threading.Thread(target=made.run, kwargs={"sockets": [listener]}, name="lifecycle-serving")
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            made.should_exit = True
            thread.join()


def _config(app: Starlette, **more: Any) -> uvicorn.Config:  # noqa: ANN401  uvicorn's own
    return uvicorn.Config(
        app,
        http=_Protocol,
        ws="none",
        lifespan="on",
        log_config=None,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=5,
        timeout_graceful_shutdown=_STOP_SECONDS,
        h11_max_incomplete_event_size=_HEADER_LIMIT,
        **more,
    )


class _Server(uvicorn.Server):
    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Let go of what is held or read first: it would keep the server waiting."""
        app: Any = self.config.app
        app.state.stop()
        await super().shutdown(sockets)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Stop at a signal, and leave it at that: uvicorn would raise it again when it has stopped."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {each: signal.signal(each, self.handle_exit) for each in _SIGNALS}
        try:
            yield
        finally:
            for each, handler in before.items():
                signal.signal(each, handler)


class _Protocol(H11Protocol):
    """HTTP of uvicorn, but: the app may cut the connection, silent connections are cut, no paths are logged."""

    _silence: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        # Else the end of an answer waits 40 ms for the caller's system; asyncio sets it for its own listeners only.
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.access_log = False  # it would tell paths and queries, which the sender chose, to whoever logs everything
        app, extensions = self.app, {cutting.ABORT: {"call": transport.abort}}

        async def with_abort(scope: Any, receive: Any, send: Any) -> None:  # noqa: ANN401  ASGI
            await app({**scope, "extensions": extensions}, receive, send)

        self.app = with_abort
        self._watch()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        self._unwatch()
        super().connection_lost(exc)

    def _is_idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _watch(self) -> None:
        if not self._is_idle():
            self._unwatch()
        elif self._silence is None:
            self._silence = self.loop.call_later(_REQUEST_SECONDS, self._cut)

    def _unwatch(self) -> None:
        if self._silence is not None:
            self._silence.cancel()
            self._silence = None

    def _cut(self) -> None:
        self._silence = None
        if self._is_idle():
            self.transport.abort()
