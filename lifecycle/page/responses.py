"""Answers of the page: the headers that every one of them has, and what each refusal and failure is told as."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response, StreamingResponse

from lifecycle import errors
from lifecycle.page import layout
from lifecycle.page.access import Verdict
from lifecycle.page.reading import TooBusy, TooSlow

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from lifecycle.page.html import Html

HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; img-src 'self' data:; form-action 'self'; frame-ancestors 'none'; "
        "base-uri 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}

_CSV: Final = "text/csv; charset=utf-8; header=present"
_RETRY: Final = {"Retry-After": "5"}
_REFUSALS: Final = {
    Verdict.WRONG_HOST: (
        403,
        "Wrong address",
        (
            "Without a token this page answers on this machine only, by its own names: open it as http://localhost "
            "with the port that `lifecycle serve` told."
        ),
    ),
    Verdict.FORWARDED: (
        403,
        "A token is needed",
        "A proxy asked for this. For others than the people at this machine, set LIFECYCLE_PAGE_TOKEN on the server.",
    ),
    Verdict.FOREIGN: (403, "Refused", "Another site's page asked for this. Open it in the browser's address bar."),
    Verdict.TOO_MANY: (429, "Too many wrong tokens", "Wait a few seconds, then try again."),
}


def page(content: Html, status: int = 200, *, headers: dict[str, str] | None = None) -> Response:
    """Answer with a page."""
    return HTMLResponse(content, status, HEADERS | (headers or {}))


def styles(text: str) -> Response:
    """Answer with the style sheet."""
    return PlainTextResponse(text, headers=HEADERS, media_type="text/css")


def csv(content: str | AsyncIterator[str], name: str) -> Response:
    """Answer with a file; what is read as it is sent, in pieces."""
    headers = HEADERS | {"Content-Disposition": f'attachment; filename="{name}"'}
    if isinstance(content, str):
        return PlainTextResponse(content, headers=headers, media_type=_CSV)
    return StreamingResponse(content, headers=headers, media_type=_CSV)


def redirect(to: str) -> Response:
    """Send a browser on, with GET."""
    return RedirectResponse(to, 303, HEADERS)


def refusal(verdict: Verdict) -> Response:
    """Answer a request that access refused."""
    status, title, text = _REFUSALS[verdict]
    return page(layout.message(title, text), status, headers=_RETRY if verdict is Verdict.TOO_MANY else None)


def not_signed_in() -> Response:
    """Answer a program that showed no token, or a wrong one."""
    text = "a token is needed: Authorization: Bearer ...\n"
    return PlainTextResponse(text, 401, HEADERS | {"WWW-Authenticate": 'Bearer realm="lifecycle"'})


def failure(error: Exception) -> Response:
    """Answer with what went wrong, in words that help; nothing of an unexpected error is told."""
    match error:
        case errors.InvalidArgument():
            return page(layout.message("This cannot be asked for", str(error), _BACK), 400)
        case errors.AppointmentNotFound():
            return page(layout.message("No such appointment", f"{error}.", _BACK), 404)
        case TooSlow():
            text = "Counting took too long and was stopped. Choose a shorter time, a location or an actor."
            return page(layout.message("Too much at once: narrow the window", text, _BACK), 503)
        case TooBusy():
            text = "Too many others are asking. Try again in a few seconds."
            return page(layout.message("Busy", text), 503, headers=_RETRY)
        case errors.DatabaseUnavailable() | errors.SchemaMismatch() | errors.ConfigurationError():
            text = "The database cannot be read now. `lifecycle db check` on the server tells why."
            return page(layout.message("The database does not answer", text), 503, headers=_RETRY)
        case _:
            return page(layout.message("Something went wrong", "The server's log names the kind of error."), 500)


def not_found() -> Response:
    """Answer for a path that is none of ours."""
    return page(layout.message("No such page", "There is nothing at this address.", _BACK), 404)


_BACK: Final = layout.way_back()
