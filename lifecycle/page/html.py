"""Writing HTML: whatever is not `Html` already is escaped, so that no text of the database can pass for markup."""

from __future__ import annotations

from typing import Final

from lifecycle.reports import markup

_VOID: Final = frozenset({"input", "link", "meta", "br"})


class Html(str):
    """Text that is HTML already."""

    __slots__ = ()


def escaped(value: object) -> Html:
    """Give a value as HTML: itself if it is HTML, nothing for None, else its text, safe in content and attributes."""
    if isinstance(value, Html):
        return value
    return Html("" if value is None else markup.escape(value))


def joined(*parts: object) -> Html:
    """Put parts one after another."""
    return Html("".join(map(escaped, parts)))


def element(tag: str, /, *children: object, **attributes: object) -> Html:
    """Write an element. An attribute that is None or False is left out, True is written bare.

    Of an attribute's name a `_` at the end is dropped, any other becomes a hyphen: `for_`, `aria_label`.
    """
    written = "".join(map(_attribute, attributes.items()))
    if tag in _VOID:
        return Html(f"<{tag}{written}>")
    return Html(f"<{tag}{written}>{joined(*children)}</{tag}>")


def _attribute(named: tuple[str, object]) -> str:
    name, value = named[0].rstrip("_").replace("_", "-"), named[1]
    if value is None or value is False:
        return ""
    return f" {name}" if value is True else f' {name}="{markup.escape(value)}"'
