"""The report: one HTML file that needs nothing else, on a screen, on paper, or in a mail."""

from __future__ import annotations

from datetime import UTC
from typing import TYPE_CHECKING, Final

from lifecycle import files
from lifecycle.reports import markup, sections, words

if TYPE_CHECKING:
    import os
    from datetime import tzinfo

    from lifecycle.reports.facts import Figures

TITLE: Final = "Appointment lifecycle"

_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
"""Nothing is fetched and nothing runs, whatever the file holds; the style sheet is in it."""

_CSS: Final = """
* { box-sizing: border-box; }
body { margin: 0; background: var(--lc-ground); color: var(--lc-ink); font: 1rem/1.5 system-ui, sans-serif; }
.report { max-width: 78rem; margin: 0 auto; padding: 1.5rem clamp(.75rem, 3vw, 2.5rem) 3rem; }
.report h1 { font-size: 1.75rem; line-height: 1.2; margin: 0 0 .4rem; overflow-wrap: anywhere; }
.report nav ul { list-style: none; display: flex; flex-wrap: wrap; gap: .25rem 1.25rem; margin: 1rem 0 0; padding: 0; }
.report a { color: var(--lc-ours); text-underline-offset: .15em; }
.report :focus-visible { outline: 3px solid var(--lc-ours); outline-offset: 2px; border-radius: 2px; }
.window { margin: 0; color: var(--lc-soft); overflow-wrap: anywhere; }
.report footer { margin-top: 3rem; border-top: 1px solid var(--lc-line); padding-top: 1rem; color: var(--lc-soft);
  font-size: .875rem; }
@page { margin: 14mm 12mm; }
@media print {
  .report { max-width: none; padding: 0; font-size: 10pt; }
  .report nav { display: none; }
  #lc-moves, #lc-confirmations, #lc-refusals, #lc-standing { break-before: page; }
}
"""


def render(figures: Figures, *, title: str = TITLE, zone: tzinfo = UTC) -> str:
    """Write the report of these figures; instants are shown in the time zone. The same figures give the same text."""
    head = (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n<meta name="referrer" content="no-referrer">\n'
        f"<title>{markup.escape(title)}</title>\n<style>{sections.CSS}{_CSS}</style>\n</head>\n"
    )
    content = "".join(section.write(figures, zone) for section in sections.ALL)
    return (
        f'{head}<body>\n<div class="report">\n<header><h1>{markup.escape(title)}</h1>\n{_window(figures, zone)}'
        f"{_contents()}</header>\n<main>\n{content}</main>\n{_footer(figures, zone)}</div>\n</body>\n</html>\n"
    )


def write(figures: Figures, path: str | os.PathLike[str], *, title: str = TITLE, zone: tzinfo = UTC) -> None:
    """Write the report into a file, which appears whole or not at all. Raises `InvalidArgument`, `OSError`."""
    with files.written(path) as file:
        file.write(render(figures, title=title, zone=zone).encode())


def described(figures: Figures, zone: tzinfo) -> str:
    """Say which events the figures are of."""
    given = figures.filters.given
    since, until = given.pop("since", None), given.pop("until", None)
    begin = "From the first event" if since is None else f"From {words.instant(since, zone)}"
    end = "now" if until is None else words.instant(until, zone)
    others = [f"{name} {words.instant(value, zone) if name == 'as_of' else value}" for name, value in given.items()]
    return f"{begin} to {end}{'; only ' if others else ''}{', '.join(others)}"


def _window(figures: Figures, zone: tzinfo) -> str:
    place = (
        f"Zocdoc environment: {figures.environment}" if figures.environment else "No client has used this database yet"
    )
    return markup.paragraph(f"{described(figures, zone)}. {place}.", kind="window")


def _contents() -> str:
    items = "".join(f'<li><a href="#{each.anchor}">{markup.escape(each.title)}</a></li>' for each in sections.ALL)
    return f'<nav aria-label="Contents"><ul>{items}</ul></nav>'


def _footer(figures: Figures, zone: tzinfo) -> str:
    computed = words.instant(figures.computed_at, zone)
    return f"<footer>{markup.paragraph(_FOOTER.format(computed=computed), kind='')}</footer>\n"


_FOOTER: Final = (
    "Computed from the audit trail at {computed}. Weeks begin on Monday, UTC. Compared is the window before, of equal "
    "length. What is in doubt or waits is told as of the time of computing, whatever the window. The file holds ids, "
    "codes and times, no patient data."
)
