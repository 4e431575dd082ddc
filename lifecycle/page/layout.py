"""What every page looks like around its content: head, skip link, navigation, footer; and pages that hold a message."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from lifecycle.page.html import Html, element, joined

if TYPE_CHECKING:
    from datetime import datetime, tzinfo

_STEPS: Final = (("/", "Overview"), ("/events", "Events"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """What surrounds the content: `query` keeps the filters in the navigation, `signs_out` shows a way out."""

    signs_out: bool = False
    query: str = ""


def document(title: str, *content: object, frame: Frame, at: str = "") -> Html:
    """Write a whole page; `at` is the path of the navigation's step that it is."""
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("title", f"{title} - lifecycle"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("meta", name="robots", content="noindex"),
        # Else browsers ask for /favicon.ico.
        element("link", rel="icon", href="data:,"),
        element("link", rel="stylesheet", href="/page.css"),
    )
    body = element(
        "body",
        element("a", "Skip to the content", class_="skip", href="#content"),
        element("header", element("div", _brand(), _navigation(frame, at), _sign_out(frame), class_="bar")),
        element("main", *content, id="content", tabindex="-1"),
        element("footer", element("p", "Read-only. Instants are UTC unless a time zone is named.")),
    )
    return joined(Html("<!doctype html>\n"), element("html", head, body, lang="en"), Html("\n"))


def message(title: str, text: str, *more: object, frame: Frame | None = None) -> Html:
    """Write a page that says one thing."""
    return document(title, element("h1", title), element("p", text, role="alert"), *more, frame=frame or Frame())


def way_back() -> Html:
    """Write a link to the first page."""
    return element("p", element("a", "Back to the overview", href="/"))


def sign_in(*, wanted: str, problem: str = "") -> Html:
    """Write the form that asks for the token; `wanted` is where to go then."""
    described = {"aria_describedby": "problem", "aria_invalid": "true"} if problem else {}
    form = element(
        "form",
        element("input", type="hidden", name="wanted", value=wanted),
        # For password managers, which keep a token by the name of whose it is.
        element("input", type="text", name="username", value="lifecycle", autocomplete="username", hidden=True),
        element("label", "Token", for_="token"),
        element(
            "input",
            id="token",
            name="token",
            type="password",
            autocomplete="current-password",
            required=True,
            autofocus=True,
            **described,
        ),
        element("button", "Sign in", type="submit"),
        method="post",
        action="/login",
        class_="sign-in",
    )
    told = element("p", problem, id="problem", role="alert") if problem else None
    hint = element("p", "It is the one that ", element("code", "LIFECYCLE_PAGE_TOKEN"), " sets on the server.")
    return document("Sign in", element("h1", "Sign in"), told, form, hint, frame=Frame())


def moment(instant: datetime | None, zone: tzinfo) -> Html:
    """Write an instant to the second, in a time zone; exact and in UTC for programs and in the tooltip."""
    if instant is None:
        return Html("")
    exact = instant.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    try:
        local = instant.astimezone(zone)
    except OverflowError:  # the calendar ends there
        local = instant
    return element("time", local.strftime("%Y-%m-%d %H:%M:%S"), datetime=exact, title=exact)


def _brand() -> Html:
    return element("a", "lifecycle", class_="brand", href="/")


def _navigation(frame: Frame, at: str) -> Html:
    steps = [
        element("a", name, href=path + frame.query, aria_current="page" if path == at else None)
        for path, name in _STEPS
    ]
    return element("nav", *steps, aria_label="Pages")


def _sign_out(frame: Frame) -> Html:
    if not frame.signs_out:
        return Html("")
    button = element("button", "Sign out", name="leave", value="yes", type="submit", class_="quiet")
    return element("form", button, method="post", action="/login")
