"""Access over HTTP: what a request tells of itself, the sign-in form, the cookie."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl

from starlette.requests import ClientDisconnect, Request
from starlette.routing import Route

from lifecycle.page import access, asked, layout, responses
from lifecycle.page.access import Caller, Guarded, Local, Verdict

if TYPE_CHECKING:
    from starlette.responses import Response

COOKIE: Final = "lifecycle_page"

_FORM_LIMIT: Final = 4096
"""Bytes; a token has 512 at most, an address to go on to 2,000."""

_FORM_SECONDS: Final = 10.0
_FORWARDED: Final = ("forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip")
_WRONG: Final = "That is not the token."
_NO_FORM: Final = "The form did not arrive as a browser sends it."


class Gate:
    """Lets requests in or answers them: by the token where there is one, else by loopback's names.

    Raises `ConfigurationError` for a token that is too short.
    """

    def __init__(self, token: str | None) -> None:
        self._guarded = None if token is None else Guarded(token, now=time.time)
        self._access: access.Access = self._guarded or Local()

    @property
    def signs_out(self) -> bool:
        """Tell whether there are sessions, which can be left."""
        return self._guarded is not None

    @property
    def routes(self) -> list[Route]:
        """The routes of signing in and out; none without a token."""
        if self._guarded is None:
            return []
        return [Route("/login", _show, methods=["GET"]), Route("/login", self._enter, methods=["POST"])]

    def refusal(self, request: Request) -> Response | None:
        """Answer a request that is not let in; None: it is."""
        verdict = self._access.judge(_caller(request))
        if verdict is Verdict.ALLOWED:
            return None
        if verdict is not Verdict.UNKNOWN:
            return responses.refusal(verdict)
        if "text/html" not in request.headers.get("accept", ""):
            return responses.not_signed_in()
        path = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        return responses.redirect("/login" + asked.query({"wanted": path}))

    async def _enter(self, request: Request) -> Response:
        """Sign in, or out; the only request of the page that is not a GET, and it writes nothing either."""
        guarded, caller = self._guarded, _caller(request)
        if guarded is None or caller.is_foreign:
            return responses.refusal(Verdict.FOREIGN)
        form = await _form(request)
        if form is None:
            # What was not read to its end would be taken for the next request.
            return responses.page(layout.sign_in(wanted="/", problem=_NO_FORM), 400, headers={"Connection": "close"})
        if "leave" in form:
            answer = responses.redirect("/login")
            answer.delete_cookie(COOKIE, secure=caller.is_tls, httponly=True, samesite="strict")
            return answer
        wanted = access.own_path(form.get("wanted", ""))
        verdict = guarded.check(form.get("token", "").strip(), address=caller.address)
        if verdict is Verdict.TOO_MANY:
            return responses.refusal(verdict)
        if verdict is not Verdict.ALLOWED:
            return responses.page(layout.sign_in(wanted=wanted, problem=_WRONG), 403)
        answer = responses.redirect(wanted)
        answer.set_cookie(COOKIE, guarded.session(), secure=caller.is_tls, httponly=True, samesite="strict")
        return answer


async def _show(request: Request) -> Response:
    return responses.page(layout.sign_in(wanted=access.own_path(request.query_params.get("wanted", "/"))))


def _caller(request: Request) -> Caller:
    headers = request.headers
    server: tuple[str, int | None] = request.scope.get("server") or ("", None)
    return Caller(
        address=request.client.host if request.client else "",
        port=server[1] or 0,
        is_tls=request.scope["scheme"] == "https",
        host=", ".join(headers.getlist("host")),
        cookie=request.cookies.get(COOKIE, ""),
        authorization=headers.get("authorization", ""),
        is_forwarded=any(name in headers for name in _FORWARDED),
        fetch_site=headers.get("sec-fetch-site", ""),
        fetch_dest=headers.get("sec-fetch-dest", ""),
    )


async def _form(request: Request) -> dict[str, str] | None:
    """Read a form's fields; None for what is too long, too slow, or no form."""
    body = b""
    try:
        async with asyncio.timeout(_FORM_SECONDS):
            async for part in request.stream():
                body += part
                if len(body) > _FORM_LIMIT:
                    return None
        return dict(parse_qsl(body.decode("ascii"), keep_blank_values=True, max_num_fields=10))
    except (TimeoutError, ValueError, ClientDisconnect):
        return None
