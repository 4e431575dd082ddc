"""The guard against formulas: a spreadsheet runs a cell that begins like one, quoted or not.

An apostrophe in front makes it text. Numbers are not guarded: a number is no formula, whatever its sign.
"""

from __future__ import annotations

from typing import Final

STARTS: Final = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""What a formula may begin with; the last four are the full-width forms, which Excel takes for the others."""


def guarded(text: str) -> str:
    """Give the text as a cell that no spreadsheet runs."""
    return f"'{text}" if text.startswith(STARTS) else text
