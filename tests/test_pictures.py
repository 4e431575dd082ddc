"""Pictures: sound SVG, labels that never collide, a place for every status."""

from __future__ import annotations

import itertools
import xml.etree.ElementTree as ET
from typing import TYPE_CHECKING, Final

import pytest

from lifecycle import chart
from lifecycle.reports import pictures
from lifecycle.reports.pictures import labels, statechart

if TYPE_CHECKING:
    from lifecycle.reports.pictures import Picture
    from lifecycle.reports.pictures.labels import Box

SVG: Final = "{http://www.w3.org/2000/svg}"
BIG: Final = 1_234_567
HOSTILE: Final = '</text><script>alert("1")</script>\x00&amp;'
UNKNOWN: Final = ("checked_in", "w" * 64, "等待名单上的患者", HOSTILE, "x", "another_one", "and_one_more")
BOLD: Final = {"m": 1.042, "W": 1.103, "n": 0.712, "0": 0.696, ",": 0.38, "_": 0.5, "r": 0.493, "i": 0.343, "w": 0.924}
"""Widths of letters of DejaVu Sans Bold, as its font file has them."""


def boxes(picture: Picture) -> list[tuple[str, Box]]:
    """Read every label and its place back from the SVG."""
    found = []
    for text in ET.fromstring(picture.svg).iter(f"{SVG}text"):  # noqa: S314 # our own
        shown = "".join([text.text or "", *(child.tail or "" for child in text)])
        x, y, size = (float(text.attrib[name]) for name in ("x", "y", "font-size"))
        found.append((shown, labels.box(shown, x, y, size=size, anchor=text.attrib["text-anchor"])))
    return found


def assert_sound(picture: Picture) -> None:
    """No two labels overlap, none leaves the picture, and it tells what it is."""
    found = boxes(picture)
    for (one, first), (other, second) in itertools.combinations(found, 2):
        assert not first.overlaps(second), (one, other)
    assert [text for text, box in found if not box.is_within(picture.width, picture.height)] == []
    root = ET.fromstring(picture.svg)  # noqa: S314 # our own
    title, description = root.find(f"{SVG}title"), root.find(f"{SVG}desc")
    assert title is not None
    assert title.text == picture.title.replace("\x00", "\\x00")
    assert description is not None
    assert description.text
    assert root.attrib["role"] == "img"
    assert root.attrib["aria-labelledby"].split() == [title.attrib["id"], description.attrib["id"]]
    assert not any("style" in each.attrib or each.tag.endswith("script") for each in root.iter())


def drawn(arrows: list[pictures.Arrow], entries: dict[str, int] | None = None) -> Picture:
    """Draw a state diagram."""
    return pictures.states("states", arrows, entries or {}, title="Moves", description="All moves.")


def every_arrow(count: int) -> list[pictures.Arrow]:
    """Give an arrow for every move of the chart, by us and by the provider."""
    found = []
    for event, moves in chart.TOPOLOGY.items():
        by = "provider" if event == chart.OBSERVED else "ours"
        found += [(source, target, by) for source, targets in moves.items() for target in targets]
    return [pictures.Arrow(source=s, target=t, by=by, count=count) for s, t, by in sorted(set(found))]


def test_every_status_of_the_chart_has_a_place() -> None:
    """A status that is added to the chart must be put into the picture by hand; until then this fails."""
    assert set(statechart.PLACES) == set(chart.Status)
    assert {text for text, _ in boxes(drawn([]))} >= set(chart.Status)
    places = [statechart._boxes([])[status] for status in chart.Status]
    assert not any(one.overlaps(other, gap=20) for one, other in itertools.combinations(places, 2))


@pytest.mark.parametrize("count", [1, BIG])
def test_all_arrows_of_the_chart_have_their_count_and_no_labels_collide(count: int) -> None:
    """With every move that there is at once, and large numbers on all of them."""
    arrows = every_arrow(count)
    picture = drawn(arrows, dict.fromkeys(chart.Status, BIG))
    assert_sound(picture)
    shown = [text for text, _ in boxes(picture)]
    assert shown.count(f"{count:,}") == len(arrows) > 45


def test_moves_that_the_chart_does_not_have_are_told_apart_by_more_than_colour() -> None:
    """Their lines and heads have a class of their own, and their counts a mark."""
    picture = drawn([pictures.Arrow(source="cancelled", target="confirmed", by="odd", count=7)])
    assert_sound(picture)
    assert "! 7" in [text for text, _ in boxes(picture)]
    assert 'class="lc-arrow lc-arrow-odd"' in picture.svg


@pytest.mark.parametrize("number", [0, 1, 5, len(UNKNOWN)])
def test_unknown_statuses_have_a_lane_of_their_own(number: int) -> None:
    """However many there are and however long their names; beyond five, the rest share a place."""
    unknown = UNKNOWN[:number]
    arrows = [pictures.Arrow(source="confirmed", target=each, by="odd", count=BIG) for each in unknown]
    arrows += [pictures.Arrow(source=each, target=each, by="odd", count=3) for each in unknown]
    picture = drawn(every_arrow(12) + arrows, dict.fromkeys(unknown, 2))
    assert_sound(picture)
    names = [text for text, _ in boxes(picture)]
    assert ("statuses that this version does not know" in names) == bool(unknown)
    assert any(name.startswith("other unknown") for name in names) == (number > 5)


def test_hostile_names_stay_text() -> None:
    """No name of a status, reason or actor becomes markup, and cut names keep their whole in a title."""
    picture = drawn([pictures.Arrow(source="confirmed", target=HOSTILE, by="odd", count=1)])
    assert_sound(picture)
    assert "<script" not in picture.svg
    assert any("alert" in (title.text or "") for title in ET.fromstring(picture.svg).iter(f"{SVG}title"))  # noqa: S314 # ours
    assert_sound(
        pictures.bars(
            "b", [pictures.Bar(HOSTILE * 5, (1,))], parts=(("lc-1", HOSTILE),), title=HOSTILE, description=HOSTILE
        )
    )


@pytest.mark.parametrize("weeks", [0, 1, 2, 13, 60, 105])
@pytest.mark.parametrize("value", [0, 1, BIG])
def test_charts_of_any_size_have_labels_that_do_not_collide(weeks: int, value: int) -> None:
    """No weeks, one, two years of them; nothing, one, and millions; legends of many long words."""
    places = [f"{1 + number % 28} Nov" for number in range(weeks)]
    series = [
        pictures.Series(f"lc-{number}", f"patient no longer needs appointment {number}", [value] * weeks)
        for number in range(1, 9)
    ]
    assert_sound(pictures.stacked("s", places, series, title="t", description="d"))
    assert_sound(pictures.stacked("s", places, series[:1], title="t", description="d", with_totals=True))
    lines = [pictures.Line("lc-ours", "median", [None, *[float(value)] * (weeks - 1)] if weeks else [])]
    assert_sound(pictures.lines("l", places, lines, form="{:g} h".format, unit=1, title="t", description="d"))
    assert_sound(pictures.spark("k", [value] * weeks, title="t", description="d"))


@pytest.mark.parametrize("count", [0, 1, BIG])
@pytest.mark.parametrize("rows", [0, 1, 20])
def test_bars_have_labels_that_do_not_collide(rows: int, count: int) -> None:
    """Without rows, with one, with many; bars of nothing say so."""
    parts = (("lc-1", "refused here"), ("lc-8", "rejected by Zocdoc"))
    made = [
        pictures.Bar(f"mark_no_show of pending_reschedule {'w' * number}", (count, count)) for number in range(rows)
    ]
    picture = pictures.bars("b", made, parts=parts, title="t", description="d")
    assert_sound(picture)
    assert ("nothing in this window" in picture.svg) == (not rows or not count)


def test_the_same_numbers_give_the_same_picture() -> None:
    """In whatever order they come."""
    arrows = every_arrow(5)
    assert drawn(arrows).svg == drawn(arrows[::-1]).svg


def test_text_is_not_thought_narrower_than_it_is() -> None:
    """Judged by the widest usual font; a cut text fits."""
    for letter, width in BOLD.items():
        assert labels.width(letter, 1) >= width, letter
    assert labels.shortened("pending_reschedule", 172, 14) == "pending_reschedule"
    cut = labels.shortened("w" * 50, 100, 13)
    assert cut.endswith("…")
    assert labels.width(cut, 13) <= 100
