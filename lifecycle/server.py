"""The door for Zocdoc's webhooks, an ASGI application: store first, then answer, and never answer what is not stored.

Zocdoc delivers a call again for up to 48 hours, but only while no answer came within 5 seconds: any answer, 500 and
503 included, ends that. So a call that cannot be stored gets no answer: the connection is held until the caller hangs
up, 30 seconds at most, and is then cut. A held call costs a coroutine, its body and a connection, no thread.

Needs the extra `web`: pip install 'zocdoc-lifecycle[web]'.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

from lifecycle import cutting, errors, jobs

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from starlette.requests import Request
    from starlette.types import Receive, Scope, Send

    from lifecycle.api import Lifecycle
    from lifecycle.page.app import Page

PATH: Final = "/webhooks/zocdoc"
BODY_LIMIT: Final = 64 * 1024
"""Bytes; a documented event has a few hundred."""

_STORING: Final = 4.0
"""Seconds in which storing is tried; Zocdoc waits for 5."""

_HOLDING: Final = 30.0
"""Seconds. Zocdoc has gone after 5, but a proxy between would turn an early cut into an answer of its own."""

_READING: Final = 10.0
"""Seconds that a body may take; a caller that is slower is not Zocdoc, or has given up."""

_AGAIN: Final = (0.1, 0.2, 0.5, 1.0)
_THREADS: Final = 4
_HEALTH: Final = 2.0

_log = logging.getLogger(__name__)


def create_app(
    lifecycle: Lifecycle,
    *,
    track_unknown: bool = False,
    recover_every: float | None = 60.0,
    sync_every: float | None = None,
    body_limit: int = BODY_LIMIT,
    page: Page | None = None,
) -> Starlette:
    """Make the application: `POST /webhooks/zocdoc` and `GET /healthz`; any ASGI server can run it.

    With a `page` also that, at `/`; without one, which is the default, there is nothing else: who mounts a door does
    not thereby publish an audit trail.

    While it runs, threads process the inbox soon after each delivery (`track_unknown` as in `process_inbox`), recover
    every `recover_every` seconds and sync every `sync_every`; None: never. Use one process for each port: no answer of
    a server in front may stand in for one of this. `lifecycle` needs `webhook_keys` and stays the caller's to close.
    """
    if not lifecycle.receives_webhooks:
        raise errors.ConfigurationError(problem="a door without webhook keys would hold every call; pass webhook_keys")
    door = Door(lifecycle, body_limit=body_limit)
    followers = [jobs.inbox(lifecycle, track_unknown=track_unknown)]
    door.stored = followers[0].wake
    if recover_every is not None:
        followers.append(jobs.recovery(lifecycle, recover_every))
    if sync_every is not None:
        followers.append(jobs.sync(lifecycle, sync_every))

    def stop() -> None:
        door.stop_holding()
        if page is not None:
            page.close()

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        for job in followers:
            job.start()
        try:
            yield
        finally:
            stop()
            door.close()
            for job in followers:
                job.stop()
            for job in followers:
                await asyncio.to_thread(job.join, _STORING)

    app = Starlette(
        routes=[
            Route(PATH, door, methods=["POST"]),
            Route("/healthz", door.health, methods=["GET"]),
            *([] if page is None else page.routes),
        ],
        lifespan=lifespan,
        exception_handlers=None if page is None else page.handlers,
    )
    app.router.redirect_slashes = False
    app.state.door, app.state.stop = door, stop
    return app


class _TooLarge(Exception):
    pass


class _Gone(Exception):
    pass


class Door:
    """The webhook route. `stored` is called after each delivery that is new to the inbox."""

    def __init__(self, lifecycle: Lifecycle, *, body_limit: int) -> None:
        self.stored: Callable[[], None] = _nothing
        self._lifecycle = lifecycle
        self._body_limit = body_limit
        self._counts: Counter[str] = Counter()
        self._closing = asyncio.Event()
        self._storing = ThreadPoolExecutor(_THREADS, thread_name_prefix="lifecycle-door")
        self._looking = ThreadPoolExecutor(1, thread_name_prefix="lifecycle-health")
        self._look: asyncio.Future[int] | None = None

    def close(self) -> None:
        """Let go of what is held, unanswered; what is being stored is finished."""
        self._closing.set()
        for executor in (self._storing, self._looking):
            executor.shutdown(wait=False)

    def stop_holding(self) -> None:
        """Cut what is held now and from now on: the server is about to stop."""
        self._closing.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a call that is stored or refused; leave every other without an answer."""
        try:
            status = await self._status(scope, receive)
        except asyncio.CancelledError:
            cutting.abort(scope)
            raise
        if status is None:
            await self._hold(scope, receive)
            return
        # What was not read to its end would be taken for the next request.
        headers = {"connection": "close"} if status == 413 else None  # noqa: PLR2004 # named by HTTP
        await JSONResponse({}, status_code=status, headers=headers)(scope, receive, send)

    async def health(self, _request: Request) -> JSONResponse:
        """Tell whether the database answers, how many deliveries wait, and what was refused since the start."""
        try:
            waiting = await asyncio.wait_for(asyncio.shield(self._waiting()), _HEALTH)
        except Exception as error:  # noqa: BLE001 # that is what is asked for
            told: dict[str, Any] = {"database": "unavailable", "error": type(error).__name__}
        else:
            told = {"database": "ok", "waiting": waiting}
        return JSONResponse(told | {"calls": dict(self._counts)}, status_code=200 if "waiting" in told else 503)

    async def _status(self, scope: Scope, receive: Receive) -> int | None:
        try:
            async with asyncio.timeout(_READING):
                body = await self._body(scope, receive)
        except _TooLarge:
            return self._refuse("body_too_large", 413)
        except (_Gone, TimeoutError):
            cutting.abort(scope)
            return self._refuse("body_incomplete", None)
        try:
            return await self._store(_headers(scope), body)
        except errors.WebhookRefused as refused:
            self._counts[refused.reason_code] += 1
            return 400 if refused.reason_code.startswith("malformed_") else 401

    async def _body(self, scope: Scope, receive: Receive) -> bytes:
        declared = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
        if not declared.isdigit() or len(declared) > len(str(2**63)) or int(declared) > self._body_limit:
            raise _TooLarge
        parts, size = [], 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise _Gone
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > self._body_limit:
                raise _TooLarge
            if not message.get("more_body", False):
                return b"".join(parts)

    async def _store(self, headers: dict[str, str], body: bytes) -> int | None:
        """Store, again and again for 4 seconds; None: it is not stored, or nobody knows."""
        loop = asyncio.get_running_loop()
        until, tries, problem = loop.time() + _STORING, 0, "TimeoutError"
        while True:
            try:
                storing = loop.run_in_executor(self._storing, self._lifecycle.receive_webhook, headers, body)
            except RuntimeError:  # the server has stopped
                break
            # A thread cannot be stopped: one that waits for a lock goes on, and what it stores is stored.
            await asyncio.wait({storing}, timeout=max(0.0, until - loop.time()))
            if not storing.done():
                storing.cancel()
                break
            error = storing.exception()
            if error is None:
                self._counts["stored"] += 1
                self.stored()
                return 200
            if isinstance(error, errors.WebhookRefused):
                raise error
            problem = type(error).__name__
            pause = _AGAIN[min(tries, len(_AGAIN) - 1)]
            if loop.time() + pause >= until:
                break
            tries += 1
            await asyncio.sleep(pause)
        self._counts["not_stored"] += 1
        _log.error("webhook_not_stored", extra={"error": problem})
        return None

    async def _hold(self, scope: Scope, receive: Receive) -> None:
        """Send nothing until the caller has gone."""
        gone = asyncio.ensure_future(_disconnect(receive))
        closing = asyncio.ensure_future(self._closing.wait())
        try:
            await asyncio.wait({gone, closing}, timeout=_HOLDING, return_when=asyncio.FIRST_COMPLETED)
        finally:
            closing.cancel()
            # After this the server sees a caller that has gone, and answers nothing in our place.
            if not gone.done() and not cutting.abort(scope):
                gone.cancel()
        await asyncio.wait({gone}, timeout=1.0)

    def _waiting(self) -> asyncio.Future[int]:
        """Ask the database, once for all who want to know meanwhile."""
        if self._look is None or self._look.done():
            loop = asyncio.get_running_loop()
            self._look = loop.run_in_executor(self._looking, self._lifecycle.waiting_deliveries)
            self._look.add_done_callback(_seen)  # nobody may be waiting for it any more
        return self._look

    def _refuse(self, reason_code: str, status: int | None) -> int | None:
        self._counts[reason_code] += 1
        _log.warning("webhook_call_refused", extra={"reason_code": reason_code, "http_status": status})
        return status


def _headers(scope: Scope) -> dict[str, str]:
    """Join what came twice with a comma, as HTTP does; no header of a webhook may hold one."""
    found: dict[str, str] = {}
    for raw_name, raw_value in scope["headers"]:
        name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1")
        found[name] = f"{found[name]}, {value}" if name in found else value
    return found


async def _disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _seen(future: asyncio.Future[int]) -> None:
    if not future.cancelled():
        future.exception()


def _nothing() -> None:
    pass
