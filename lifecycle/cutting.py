"""Ending a connection without another byte, where the server underneath can."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from starlette.types import Scope

ABORT: Final = "lifecycle.abort"
"""The ASGI extension by which the server underneath lets a connection be cut: `{"call": function}`."""


def abort(scope: Scope) -> bool:
    """Cut the connection of a request; False: this server cannot."""
    extension = scope.get("extensions", {}).get(ABORT)
    if extension is not None:
        extension["call"]()
    return extension is not None
