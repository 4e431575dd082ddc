"""Figures as JSON: the records' names, instants as UTC text of one form, days as ISO dates. Pure."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import date, datetime
from typing import TYPE_CHECKING

from lifecycle import columns

if TYPE_CHECKING:
    from lifecycle.reports.facts import Figures


def encoded(figures: Figures) -> str:
    """Write all figures as one JSON object."""
    return json.dumps(asdict(figures), indent=2, default=_plain)


def _plain(value: object) -> str:
    if isinstance(value, datetime):
        return columns.utc_text(value)
    if isinstance(value, date):
        return value.isoformat()
    msg = f"a {type(value).__name__} has no form in JSON"
    raise TypeError(msg)
