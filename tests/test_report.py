"""The report as a file: whole, self-contained, readable without pictures, and deaf to hostile values."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from datetime import UTC, date, datetime
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import pytest

from lifecycle import errors
from lifecycle.reports import facts, lookups, quantiles, report, sections, style, tallies
from lifecycle.reports.filters import Filters

if TYPE_CHECKING:
    from pathlib import Path

HOSTILE = '"><script>alert(1)</script><img src=x onerror=alert(2)>&lt;\x1b[31m'
SINCE = datetime(2026, 10, 19, tzinfo=UTC)
UNTIL = datetime(2026, 11, 5, tzinfo=UTC)
WEEKS = (date(2026, 10, 19), date(2026, 10, 26), date(2026, 11, 2))
VOID = {"meta", "link", "br"}


class Reader(HTMLParser):
    """Reads a document strictly: every element is closed in its turn."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str, str]] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note an element and its attributes."""
        self.tags[tag] += 1
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        """Check that it is the last one that was opened."""
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        """Note text."""
        self.text.append(data)


def read(document: str) -> Reader:
    """Read a document."""
    reader = Reader()
    reader.feed(document)
    reader.close()
    assert reader.open == []
    return reader


def made(word: str = "some_word") -> facts.Figures:
    """Make figures in which every text that comes from outside is this word."""
    headline = facts.Headline(
        tracked=1234,
        accepted=900,
        applied=800,
        refused=7,
        rejected=5,
        not_sent=2,
        lost=3,
        recovered=2,
        cancelled=40,
        no_shows=6,
        arrivals=300,
    )
    zeros = {"tracked": 5, "applied": 4, "refused": 1, "rejected": 1, "answers_lost": 0, "cancelled": 1, "no_shows": 0}
    spread = quantiles.Spread(9, 3600.0, 7200.0)
    move: dict[str, Any] = {"count": 9, "median_seconds": 60.0, "p90_seconds": 90.0}
    stands: dict[str, Any] = {"since": SINCE, "seconds": 3600.0}
    doubt = lookups.Doubt(
        appointment_id=word, status=word, command=word, command_id=word, state="uncertain", reason_code=word, **stands
    )
    waiting = lookups.Waiting(appointment_id=word, provider_location_id=word, **stands)
    return facts.Figures(
        filters=Filters(since=SINCE, until=UNTIL, actor="user:1"),
        computed_at=UNTIL,
        environment=word,
        headline=headline,
        before=replace(headline, tracked=1000),
        weeks=tuple(facts.Week(week=week, **zeros) for week in WEEKS),
        moves=(
            facts.Transition(from_status="pending_booking", to_status=word, command=None, conforming=False, **move),
            facts.Transition(from_status="confirmed", to_status="cancelled", command=word, conforming=True, **move),
        ),
        entries={word: 3, "confirmed": 2},
        confirmations=facts.Confirmations(
            seconds=spread,
            classes=quantiles.bins([1.0, 2.0], [900.0]),
            weeks=tuple(facts.WeekOfConfirmations(week=week, seconds=spread) for week in WEEKS),
        ),
        cancellations=(facts.Cancellations(week=WEEKS[0], reason_type=word, by="ours", count=4),),
        refusals=(facts.Refusal(command=word, status=word, refused_by="guard", reason_code=word, tries=5),),
        outcomes=(
            facts.CommandOutcomes(
                command=word,
                accepted=9,
                applied=8,
                rejected=1,
                not_sent=0,
                refused=2,
                lost=3,
                recovered=2,
                resolved=0,
                waiting=0,
                attention=1,
                call_ms=spread,
            ),
        ),
        slowest_calls=(
            tallies.Call(
                appointment_id=word, command=word, event=word, reason_code=word, duration_ms=9, recorded_at=SINCE
            ),
        ),
        longest_lost=(
            lookups.Lost(
                command_id=word,
                appointment_id=word,
                command=word,
                state=word,
                reason_code=word,
                accepted_at=SINCE,
                seconds=5.0,
            ),
        ),
        now=lookups.Now(in_doubt=1, attention=1, waiting=1, doubts=(doubt,), longest_waiting=(waiting,)),
    )


def nothing() -> facts.Figures:
    """Make the figures of an empty database."""
    zeros = dict.fromkeys(facts.Headline.__dataclass_fields__, 0)
    none = quantiles.spread(())
    return facts.Figures(
        filters=Filters(),
        computed_at=UNTIL,
        environment=None,
        headline=facts.Headline(**zeros),
        before=None,
        weeks=(),
        moves=(),
        entries={},
        confirmations=facts.Confirmations(seconds=none, classes=quantiles.bins((), (900.0,)), weeks=()),
        cancellations=(),
        refusals=(),
        outcomes=(),
        slowest_calls=(),
        longest_lost=(),
        now=lookups.Now(in_doubt=0, attention=0, waiting=0, doubts=(), longest_waiting=()),
    )


@pytest.mark.parametrize("figures", [made(), made(HOSTILE), nothing()], ids=["usual", "hostile", "empty"])
def test_a_report_needs_nothing_and_runs_nothing(figures: facts.Figures) -> None:
    """No script, no handler, no address but its own anchors, no inline style; a policy forbids the rest."""
    document = report.render(figures)
    reader = read(document)
    assert not {"script", "img", "iframe", "object", "link", "form"} & reader.tags.keys()
    assert not [name for _, name, _ in reader.attributes if name.startswith("on") or name in {"src", "style"}]
    assert all(value.startswith("#") for _, name, value in reader.attributes if name == "href")
    addresses = re.findall(r"[a-z]+://[^\"' ]+|@import|url\(", document)
    assert set(addresses) <= {"http://www.w3.org/2000/svg"}
    assert ("meta", "http-equiv", "Content-Security-Policy") in reader.attributes
    assert "default-src 'none'" in document
    assert "\x1b" not in document


def test_hostile_values_are_shown_as_they_are() -> None:
    """Statuses, reasons, commands, locations, the title and the environment: text, all of it, and nothing is lost."""
    document = report.render(made(HOSTILE), title=HOSTILE)
    text = "".join(read(document).text)
    assert text.count("<script>alert(1)</script>") > 15
    assert "<script" not in document
    usual, hostile = read(report.render(made(), title="t")).tags, read(document).tags
    assert {**hostile, "title": 0} == {**usual, "title": 0}  # names that are cut have their whole in a title


@pytest.mark.parametrize("section", sections.ALL, ids=lambda section: section.anchor)
def test_each_section_says_in_words_and_in_a_table_what_its_pictures_show(section: sections.Section) -> None:
    """A sentence, and a table beside each picture, for mail programs that drop SVG and for those who do not see it."""
    reader = read(section.write(made(), UTC))
    assert ("p", "class", "lc-says") in reader.attributes
    assert reader.tags["table"] >= 1
    assert reader.tags["caption"] == reader.tags["table"]
    assert reader.tags["svg"] == reader.tags["desc"]
    roles = Counter(value for tag, name, value in reader.attributes if (tag, name) == ("svg", "role"))
    assert roles["img"] == reader.tags["svg"]
    scopes = [value for tag, name, value in reader.attributes if (tag, name) == ("th", "scope")]
    assert len(scopes) == reader.tags["th"]


def test_ids_are_unique_and_every_anchor_leads_somewhere() -> None:
    """Titles and descriptions of pictures are found by their ids."""
    reader = read(report.render(made()))
    ids = [value for _, name, value in reader.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    wanted = [part for _, name, value in reader.attributes if name == "aria-labelledby" for part in value.split()]
    wanted += [value.removeprefix("#") for _, name, value in reader.attributes if name == "href"]
    assert set(wanted) <= set(ids)


def test_every_class_has_its_rule() -> None:
    """A class without a rule is a picture without colours."""
    for figures in (made(), nothing()):
        classes = {
            each
            for section in sections.ALL
            for _, name, value in read(section.write(figures, UTC)).attributes
            if name == "class"
            for each in value.split()
        }
        assert {each for each in classes if not re.search(rf"\.{each}\b", sections.CSS)} <= {"lc-figure", "lc-group"}


@pytest.mark.parametrize("colours", [style._LIGHT, style._DARK], ids=["light", "dark"])
def test_text_has_a_contrast_of_four_and_a_half_or_more(colours: str) -> None:
    """Each colour that text has, on each ground that it stands on, as WCAG computes it."""
    found = dict(re.findall(r"--lc-(\w+): (#[0-9a-f]{6})", colours))
    for ink in ("ink", "soft", "ours", "provider", "odd"):
        for ground in ("ground", "raised"):
            assert _contrast(found[ink], found[ground]) >= 4.5, (ink, ground)


def test_the_same_figures_give_the_same_report_in_any_zone_of_choice() -> None:
    """Deterministic to the letter; instants are shown with their offset, which daylight saving changes."""
    zone = ZoneInfo("America/New_York")
    document = report.render(made(), zone=zone)
    assert document == report.render(made(), zone=zone)
    assert "From 2026-10-18 20:00 -04:00 to 2026-11-04 19:00 -05:00; only actor user:1." in document


def test_an_empty_trail_says_so() -> None:
    """Every section has its sentence, and no picture pretends that there is something."""
    document = report.render(nothing())
    for words in (
        "No appointment moved",
        "No booking was confirmed",
        "Nothing was refused",
        "No appointment is in doubt",
    ):
        assert words in document


def test_the_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    """A report that is there stays until the new one is whole; a folder is refused."""
    place = tmp_path / "report.html"
    report.write(made(), place)
    assert place.read_text(encoding="utf-8") == report.render(made())
    with pytest.raises(errors.InvalidArgument):
        report.write(made(), tmp_path)
    assert [each.name for each in tmp_path.iterdir()] == ["report.html"]


def _contrast(one: str, other: str) -> float:
    first, second = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (first + 0.05) / (second + 0.05)


def _luminance(colour: str) -> float:
    parts = (int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5))
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
