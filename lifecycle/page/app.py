"""The page as routes: each request is let in or not, understood or not, read in a thread, and written as HTML."""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from lifecycle import cutting, errors
from lifecycle.page import asked as asking
from lifecycle.page import download, events, forms, layout, overview, reading, responses, story, style
from lifecycle.page.gate import Gate
from lifecycle.page.html import element
from lifecycle.reports import instants

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from starlette.requests import Request
    from starlette.responses import Response

    from lifecycle.api import Lifecycle
    from lifecycle.page.asked import Asked
    from lifecycle.page.html import Html

    View = Callable[[Request, Asked], Awaitable[Response]]

_log = logging.getLogger(__name__)


class Page:
    """The page on a `Lifecycle`'s database: with a `token` for those who know it, without for loopback only.

    `time_zone` is the one that times are shown in when nobody asks for another. `seconds` is how long one read may
    take. Raises `ConfigurationError` for a token that is too short, `InvalidArgument` for a time zone that there is
    not. Opens nothing before the first request.
    """

    def __init__(
        self,
        lifecycle: Lifecycle,
        *,
        token: str | None = None,
        time_zone: str = "UTC",
        seconds: float = reading.SECONDS,
    ) -> None:
        self._zone = instants.zone(time_zone).key
        self._gate = Gate(token)
        self._readers = reading.Readers(lifecycle.database, seconds=seconds)

    @property
    def routes(self) -> list[Route]:
        """The routes, for a Starlette application."""
        return [
            self._route("/", self._overview),
            self._route("/events", self._events),
            self._route("/events.csv", self._events_csv),
            self._route("/tables/{name}.csv", self._table_csv),
            self._route("/appointments/{appointment_id}", self._story),
            Route("/page.css", _styles, methods=["GET"]),
            *self._gate.routes,
        ]

    @property
    def handlers(self) -> dict[Any, Any]:
        """What answers for paths and methods that there are none of, for a Starlette application."""
        return {404: _no_such, 405: _no_such}

    def close(self) -> None:
        """End what is being read, and read nothing any more."""
        self._readers.close()

    def _route(self, path: str, view: View) -> Route:
        async def endpoint(request: Request) -> Response:
            refused = self._gate.refusal(request)
            if refused is not None:
                return refused
            try:
                return await self._answer(request, view)
            except Exception as error:  # noqa: BLE001 # the boundary: what a server would tell of it is not ours
                return _failed(error)

        return Route(path, endpoint, methods=["GET"])

    async def _answer(self, request: Request, view: View) -> Response:
        given: dict[str, str] = {}
        try:
            given = asking.words(request.query_params.multi_items())
            asked = asking.understood(given, zone=self._zone, now=datetime.now(UTC))
        except errors.InvalidArgument as error:
            return self._not_understood(request, given, error)
        return await view(request, asked)

    def _not_understood(self, request: Request, given: dict[str, str], error: errors.InvalidArgument) -> Response:
        """Show the form again with what was typed, and what is wrong with it."""
        path = request.url.path if request.url.path == "/" else "/events"
        form = forms.filters(given, path=path, zone=self._zone, wrong=error.argument)
        title = "This cannot be asked for"
        told = element("p", str(error), role="alert")
        return responses.page(layout.document(title, element("h1", title), told, form, frame=self._frame()), 400)

    async def _overview(self, request: Request, asked: Asked) -> Response:
        content = await self._readers.read(lambda database: overview.content(database, asked))
        return self._filtered(request, asked, "Overview", content)

    async def _events(self, request: Request, asked: Asked) -> Response:
        content = await self._readers.read(lambda database: events.content(database, asked))
        return self._filtered(request, asked, "Events", content)

    async def _story(self, request: Request, asked: Asked) -> Response:
        appointment_id = request.path_params["appointment_id"]
        content = await self._readers.read(lambda database: story.content(database, appointment_id, asked))
        return responses.page(layout.document(f"Appointment {appointment_id}", content, frame=self._frame(asked)))

    async def _events_csv(self, request: Request, asked: Asked) -> Response:
        async def read(cursor: str | None) -> tuple[str, str | None]:
            return await self._readers.read(lambda database: download.events(database, asked.filters, cursor))

        piece, cursor = await read(None)  # what can be refused or fail is told before the answer begins
        if request.method == "HEAD":
            cursor = None

        async def pieces(piece: str, cursor: str | None) -> AsyncIterator[str]:
            yield piece
            while cursor is not None:
                try:
                    piece, cursor = await read(cursor)
                except Exception as error:
                    # A download that ended in order would be taken for a whole one.
                    _log.warning("page_download_failed", extra={"error": type(error).__name__})
                    if not cutting.abort(request.scope):
                        raise
                    return
                yield piece

        return responses.csv(pieces(piece, cursor), "events.csv")

    async def _table_csv(self, request: Request, asked: Asked) -> Response:
        name = request.path_params["name"]
        if name not in download.TABLES:
            return responses.not_found()
        text = await self._readers.read(lambda database: download.table(database, name, asked.filters))
        return responses.csv(text, f"{name}.csv")

    def _filtered(self, request: Request, asked: Asked, title: str, content: Html) -> Response:
        path = request.url.path
        form = forms.filters(asked.given, path=path, zone=asked.zone.key)
        windows = forms.windows(asked, path=path, now=datetime.now(UTC))
        frame = self._frame(asked)
        return responses.page(
            layout.document(title, element("h1", title), windows, form, content, frame=frame, at=path)
        )

    def _frame(self, asked: Asked | None = None) -> layout.Frame:
        return layout.Frame(signs_out=self._gate.signs_out, query="" if asked is None else asked.link(""))


def create_app(page: Page) -> Starlette:
    """Make an application of the page alone: no door, no jobs, no keys; the database is only read."""

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        try:
            yield
        finally:
            page.close()

    app = Starlette(routes=page.routes, lifespan=lifespan, exception_handlers=page.handlers)
    app.router.redirect_slashes = False
    app.state.stop = page.close
    return app


async def _styles(_request: Request) -> Response:
    return responses.styles(style.SHEET)


async def _no_such(request: Request, error: Exception) -> Response:
    """Answer for paths and methods that there are none of: browsers with a page, programs as ever."""
    told = error if isinstance(error, HTTPException) else HTTPException(404)
    if told.status_code == 404 and request.method in {"GET", "HEAD"}:  # noqa: PLR2004 # named by HTTP
        return responses.not_found()
    return PlainTextResponse(told.detail, told.status_code, responses.HEADERS | dict(told.headers or {}))


def _failed(error: Exception) -> Response:
    if not isinstance(error, errors.InvalidArgument | errors.AppointmentNotFound):
        _log.warning("page_failed", extra={"error": type(error).__name__})
    return responses.failure(error)
