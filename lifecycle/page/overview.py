"""The report's figures and pictures, live, and their tables to take away."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lifecycle.page import download
from lifecycle.page.html import Html, element, joined
from lifecycle.reports import figures, report, sections

if TYPE_CHECKING:
    from lifecycle.database import Database
    from lifecycle.page.asked import Asked


def content(database: Database, asked: Asked) -> Html:
    """Count the events that the filters choose, and write the sections of the report."""
    counted = figures.compute(database, asked.filters)
    window = element("p", report.described(counted, asked.zone), ".", class_="note")
    contents = [element("li", element("a", each.title, href=f"#{each.anchor}")) for each in sections.ALL]
    written = (Html(section.write(counted, asked.zone)) for section in sections.ALL)
    nav = element("nav", element("ul", *contents, class_="windows"), aria_label="Contents")
    return joined(window, nav, *written, _downloads(asked))


def _downloads(asked: Asked) -> Html:
    tables = [
        element("li", element("a", text, href=asked.link(f"/tables/{name}.csv"), download=f"{name}.csv"))
        for name, (_, text) in download.TABLES.items()
    ]
    return element("section", element("h2", "Take the tables away, as CSV"), element("ul", *tables))
